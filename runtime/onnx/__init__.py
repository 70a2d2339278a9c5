"""Searches with ONNX Runtime that no graph holds as a whole."""
