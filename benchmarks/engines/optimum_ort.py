"""optimum's ORTModelForSeq2SeqLM: ONNX Runtime below transformers' ``generate``."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
from optimum.onnxruntime import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
    ORTModelForSeq2SeqLM,
)

from benchmarks.engines.hf import Generate


class Optimum(Generate):
    """An exported model, INT8 if its folder holds the quantized files."""

    def __init__(self, path: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        names = {}
        if (Path(path) / "encoder_model_quantized.onnx").exists():
            names = {
                "encoder_file_name": "encoder_model_quantized.onnx",
                "decoder_file_name": "decoder_model_quantized.onnx",
                "decoder_with_past_file_name": "decoder_with_past_model_quantized.onnx",
                "use_merged": False,
            }
        model = ORTModelForSeq2SeqLM.from_pretrained(
            path, provider="CPUExecutionProvider", session_options=options, **names
        )
        super().__init__(model)
