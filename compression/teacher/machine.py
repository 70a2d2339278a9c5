"""The machine a teacher runs on: device, type and threads."""

from __future__ import annotations

from typing import Any

from mobilenmt.compression.core.cores import free_cores
from mobilenmt.compression.teacher.check import is_pack
from mobilenmt.compression.teacher.settings import TeacherSettings


def find_machine(settings: TeacherSettings) -> dict[str, Any]:
    """Resolve device, type and threads: JSON types."""
    on_ray = settings.engine == "ray"
    threads = settings.threads or (1 if on_ray else free_cores())
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
            has = device == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
        dtype = "bfloat16" if has else "float32"
    return {"device": device, "dtype": dtype, "threads": threads}
