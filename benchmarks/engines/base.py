"""What every engine must do, and the table of engines. Imports no engine."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

Ids = list[int]


class Engine(ABC):
    """One engine with one model, loaded. Only :meth:`run` is timed.

    Lengths count generated tokens, the end token counted and the start token not.
    """

    @abstractmethod
    def __init__(self, path: str, threads: int) -> None: ...

    @abstractmethod
    def prepare(self, sources: list[Ids]) -> Any:
        """Source ids without the end token, in the form that the engine takes; includes no padding it does itself."""

    @abstractmethod
    def run(self, prepared: Any, beam_size: int, min_length: int, max_length: int) -> Any:
        """Translate one batch; exactly ``max_length`` steps where both lengths are equal."""

    @abstractmethod
    def outputs(self, result: Any) -> list[tuple[Ids, int]]:
        """Of each sentence the generated ids without the end token, and their number with it, if it was generated."""


@dataclass(frozen=True)
class Spec:
    """An engine with the precision and model it runs."""

    name: str
    label: str
    """As tables and plots show it."""
    factory: str
    """``module:class`` below benchmarks.engines."""
    artifact: str
    """Name of the folder that :mod:`benchmarks.harness.prepare` makes for it."""
    requirements: tuple[str, ...]
    """Packages that a user of this engine must install, the tokenizer counted."""

    @property
    def ours(self) -> bool:
        """Whether this is our own engine."""
        return self.name.startswith("ours")

    @property
    def engine(self) -> str:
        """Ours, as ``Translator`` calls it."""
        return "native" if self.name == "ours-native" else "onnx"

    def load(self, path: str, threads: int) -> Engine:
        """Import the engine and open the model."""
        module, name = self.factory.split(":")
        engine: Engine = getattr(importlib.import_module(f"benchmarks.engines.{module}"), name)(path, threads)
        return engine


_OURS = ("numpy", "onnxruntime", "tokenizers")
_CT2 = ("ctranslate2", "tokenizers")
_OPTIMUM = ("optimum", "optimum-onnx", "onnxruntime", "torch", "transformers", "tokenizers")
_TORCH = ("torch", "transformers", "tokenizers")
SPECS = {
    spec.name: spec
    for spec in (
        Spec("ours-native", "mobilenmt, C core", "ours:Native", "pack-int8", ()),
        Spec("ours-int8", "mobilenmt INT8", "ours:Onnx", "pack-int8", _OURS),
        Spec("ours-fp32", "mobilenmt fp32", "ours:Onnx", "pack-fp32", _OURS),
        Spec("ctranslate2-int8", "CTranslate2 INT8", "ct2:CTranslate2", "ct2-int8", _CT2),
        Spec("ctranslate2-vmap-int8", "CTranslate2 INT8, shortlist", "ct2:CTranslate2", "ct2-vmap-int8", _CT2),
        Spec("ctranslate2-fp32", "CTranslate2 fp32", "ct2:CTranslate2", "ct2-float32", _CT2),
        Spec("optimum-int8", "optimum INT8", "optimum_ort:Optimum", "optimum-int8", _OPTIMUM),
        Spec("optimum-fp32", "optimum fp32", "optimum_ort:Optimum", "optimum-fp32", _OPTIMUM),
        Spec("torch-int8", "torch INT8 (dynamic)", "hf:TorchInt8", "checkpoint", _TORCH),
        Spec("torch-fp32", "torch fp32", "hf:Torch", "checkpoint", _TORCH),
        Spec("big-optimum-fp32", "Transformer-big, optimum fp32", "optimum_ort:Optimum", "big-optimum-fp32", _OPTIMUM),
    )
}
ALWAYS = tuple(name for name in SPECS if "vmap" not in name)
"""Engines that run any checkpoint; one needs a shortlist."""
STUDENT = tuple(name for name in SPECS if not name.startswith("big"))
"""Engines that run the student's checkpoint."""
INT8 = tuple(name for name in STUDENT if name.endswith(("int8", "native")))
FP32 = tuple(name for name in STUDENT if name.endswith("fp32"))
