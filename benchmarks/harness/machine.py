"""What the figures were taken on."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import ROOT

_PACKAGES = (
    "mobilenmt",
    "numpy",
    "onnxruntime",
    "tokenizers",
    "ctranslate2",
    "torch",
    "transformers",
    "optimum",
    "optimum-onnx",
    "sacrebleu",
)
_TELLING = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm")


def machine() -> dict[str, Any]:
    """Processor, memory, system and the flags that decide how fast INT8 is."""
    flags = cpu_flags()
    return {
        "processor": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in _TELLING if flag in flags],
        "memory bytes": _memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that take part and are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["mobilenmt source"] = source_digest()
    return found


def source_digest() -> str:
    """Digest of our runtime and exporter, since figures of one run must come from one state of them."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in ("export", "runtime") for path in (ROOT / folder).rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def load() -> list[float]:
    """Load average of 1, 5 and 15 minutes; empty where the system has none."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else []


def cpu_flags() -> set[str]:
    """Instruction sets as Linux names them; empty elsewhere."""
    return set((_cpuinfo("flags") or _cpuinfo("Features") or "").split())


def _cpuinfo(key: str) -> str | None:
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return None
    for line in file.read_text().split("\n"):
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _memory() -> int | None:
    if sys.platform == "win32":
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
