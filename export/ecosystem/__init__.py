"""Packs and checkpoints as the rest of the field knows them: Hugging Face checkpoints, optimum's ONNX folders."""
