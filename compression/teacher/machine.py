"""The machine a teacher runs on: device, type and threads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mobilenmt.compression.teacher.check import is_pack
from mobilenmt.compression.teacher.settings import TeacherSettings


def find_machine(settings: TeacherSettings) -> dict[str, Any]:
    """Resolve device, type and threads: JSON types."""
    on_ray = settings.engine == "ray"
    threads = settings.threads or (1 if on_ray else len(os.sched_getaffinity(0)) if _LINUX else os.cpu_count() or 1)
    if is_pack(settings):
        return {"device": "cpu", "dtype": "pack", "threads": threads}
    import torch

    device = settings.device
    if device == "auto":
        if on_ray:
            from mobilenmt.compression.teacher.ray_engine import has_gpu

            device = "cuda" if has_gpu(settings) else "cpu"
        else:
            device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype: str = settings.dtype
    if dtype == "auto":
        if device.startswith("cuda"):
            # On Ray the GPU may be another machine's: every one made since 2020 has bfloat16.
            has = on_ray or torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            has = device == "cpu" and bool(_processor_flags() & {"avx512_bf16", "amx_bf16"})
        dtype = "bfloat16" if has else "float32"
    return {"device": device, "dtype": dtype, "threads": threads}


_LINUX = hasattr(os, "sched_getaffinity")


def _processor_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())
