"""optimum's ORTModelForSeq2SeqLM: ONNX Runtime below transformers' ``generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
from optimum.onnxruntime import ORTModelForSeq2SeqLM  # type: ignore[import-not-found, import-untyped, unused-ignore]

from benchmarks.engines.hf import Generate


class Optimum(Generate):
    """An exported model, INT8 if its folder holds the quantized files."""

    def __init__(self, path: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        names: dict[str, Any] = {}
        if (Path(path) / "encoder_model_quantized.onnx").exists():
            graphs = ("encoder", "decoder", "decoder_with_past")
            names = {f"{graph}_file_name": f"{graph}_model_quantized.onnx" for graph in graphs} | {"use_merged": False}
        model = ORTModelForSeq2SeqLM.from_pretrained(
            path, provider="CPUExecutionProvider", session_options=options, **names
        )
        super().__init__(model)
