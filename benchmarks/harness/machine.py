"""What the figures were taken on."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import psutil

from benchmarks import ROOT

_OTHERS = ("optimum", "optimum-onnx", "sacrebleu")
_PACKAGES = ("mobilenmt", "numpy", "onnxruntime", "tokenizers", "ctranslate2", "torch", "transformers", *_OTHERS)
_TELLING = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm")


def machine() -> dict[str, Any]:
    """Processor, memory, system and the flags that decide how fast INT8 is."""
    return {
        "processor": cpuinfo().get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in _TELLING if flag in cpu_flags()],
        "memory bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that take part and are installed."""
    installed = {item.name: item.version for item in reversed([*distributions()])}  # the first on the path counts
    return {name: installed[name] for name in _PACKAGES if name in installed} | {"mobilenmt source": source_digest()}


def source_digest() -> str:
    """Digest of our runtime, its C core and the exporter: figures of one run must come from one state of them."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in ("export", "runtime") for path in (ROOT / folder).rglob("*.*")):
        if path.suffix in (".py", ".c", ".h"):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def cpu_flags() -> set[str]:
    """Instruction sets as Linux names them; empty elsewhere."""
    return set((cpuinfo().get("flags") or cpuinfo().get("Features") or "").split())


def cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor; empty elsewhere."""
    file = Path("/proc/cpuinfo")
    known: dict[str, str] = {}
    for line in file.read_text().split("\n") if file.exists() else ():
        name, _, value = line.partition(":")
        known.setdefault(name.strip(), value.strip())
    return known
