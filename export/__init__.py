"""Turn a checkpoint into ONNX graphs and a pack. Needs the ``export`` extra; this file loads none of it."""
