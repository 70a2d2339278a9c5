"""torch with transformers, as the checkpoint comes."""

from __future__ import annotations

from typing import Any

import torch
from transformers import MarianMTModel

from benchmarks.engines.hf import Generate


class Torch(Generate):
    """fp32."""

    def __init__(self, path: str, threads: int) -> None:
        torch.set_num_threads(threads)
        super().__init__(MarianMTModel.from_pretrained(path).eval())


class TorchInt8(Torch):
    """Dynamic INT8: torch.ao's recipe for the linear layers, the output layer among them."""

    def __init__(self, path: str, threads: int) -> None:
        super().__init__(path, threads)
        quantize: Any = torch.ao.quantization.quantize_dynamic
        self.model = quantize(self.model, {torch.nn.Linear}, dtype=torch.qint8)
