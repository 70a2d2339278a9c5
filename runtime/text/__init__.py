"""What is done to a text before and after the model: layout, sentences. Imports nothing of runtime but errors."""
