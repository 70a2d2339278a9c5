"""What the trainer is worth: how fast it is, and what an update of each optimizer gains."""
