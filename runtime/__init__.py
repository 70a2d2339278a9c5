"""Translate text with a pack. Needs numpy, onnxruntime and tokenizers only; this file loads none of them."""
