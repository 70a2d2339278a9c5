"""transformers' ``generate``: torch, as the checkpoint comes, and what optimum shares with it."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import MarianMTModel

from benchmarks.engines.base import Engine, Ids


class Generate(Engine):
    """A model with ``generate``. Sources are padded on the right and masked; that is not timed."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.eos = int(model.config.eos_token_id)
        self.pad = int(model.config.pad_token_id)

    def prepare(self, sources: list[Ids]) -> dict[str, torch.Tensor]:
        rows = [torch.tensor([*source, self.eos]) for source in sources]
        ids = pad_sequence(rows, batch_first=True, padding_value=self.pad)
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        return {"input_ids": ids, "attention_mask": mask}

    def run(self, prepared: dict[str, torch.Tensor], beam_size: int, min_length: int, max_length: int) -> Any:
        lengths = {"min_length": min_length + 1, "max_length": max_length + 1}  # the start token is counted there
        with torch.inference_mode():
            return self.model.generate(**prepared, **lengths, num_beams=beam_size, do_sample=False)

    def outputs(self, result: Any) -> list[tuple[Ids, int]]:
        rows: list[Ids] = result[:, 1:].tolist()
        ends = [row.index(self.eos) if self.eos in row else len(row) for row in rows]
        return [(row[:end], min(end + 1, len(row))) for row, end in zip(rows, ends, strict=True)]


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
