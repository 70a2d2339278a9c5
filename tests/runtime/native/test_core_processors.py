"""Other processors and systems give this one's bits: ARM under qemu, WebAssembly under Node, Windows under Wine.

The cross compiler is that of the PyPI package ziglang, if it is installed; what runs the programs, if it is found.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from native import NATIVE, compile_c, compiler
from native_core import SOURCES
from native_files import INT8_ROWS, UINT16, Made

HERE = Path(__file__).parent
FLAGS = ("-std=c11", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
WINE = "/usr/lib/wine/wine64"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(compiler() is None, reason="there is no C compiler here"),
    pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="ziglang is not installed"),
]

TARGETS: dict[str, tuple[str, tuple[str, ...], list[str | None], list[str]]] = {
    "arm": ("aarch64-linux-musl", (), [shutil.which("qemu-aarch64"), "-cpu", "max"], ["neondot", "neon", "scalar"]),
    "old arm": ("aarch64-linux-musl", (), [shutil.which("qemu-aarch64"), "-cpu", "cortex-a53"], ["neon", "scalar"]),
    "webassembly": (
        "wasm32-wasi",
        ("-msimd128",),
        [shutil.which("node"), "--no-warnings", str(HERE / "wasi.mjs")],
        ["wasm", "scalar"],
    ),
    "windows": (
        "x86_64-windows-gnu",
        ("-DMN_STATIC",),
        [shutil.which("wine64") or shutil.which(WINE)],
        ["scalar"],
    ),
}
MODELS = (
    {"width": 48, "heads": (3, 2), "hidden": (80, 100), "layers": (2, 2), "target": 301, "output_bias": True},
    {"width": 21, "heads": (3, 1), "target": 90, "lexical": UINT16, "rows_kind": INT8_ROWS, "activation": 10},
    {"width": 20, "heads": (4, 4), "activation": 1, "pre_norm": True, "trained_positions": True},
)


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dumping program for this machine."""
    out = tmp_path_factory.mktemp("dump") / "dump"
    return compile_c(out, HERE / "dump.c", *SOURCES, flags=("-O2", "-ffp-contract=off"))


@pytest.fixture(scope="session")
def packs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = []
    for changes in MODELS:
        folders.append(tmp_path_factory.mktemp("pack"))
        files = Made(**{"source": 40, "positions": 50, "spread": 0.02, **changes}).files()
        for name, content in zip(("native.bin", "weights.bin"), files, strict=True):
            (folders[-1] / name).write_bytes(content)
    return folders


def run(*command: object, text: str = "") -> list[str]:
    environment = os.environ | {"WINEDEBUG": "-all"}
    result = subprocess.run(
        [*map(str, command)], input=text, capture_output=True, text=True, check=False, timeout=600, env=environment
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split("\n")


@pytest.mark.parametrize("name", TARGETS)
def test_the_same_bits(name: str, here: Path, packs: list[Path], tmp_path: Path) -> None:
    target, flags, runner, expected = TARGETS[name]
    if runner[0] is None:
        pytest.skip(f"nothing here runs {target}")
    program = tmp_path / ("dump.exe" if name == "windows" else "dump")
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, *FLAGS, *flags, f"-I{NATIVE}", "-o", program]
    run(*command, HERE / "dump.c", *SOURCES)
    kernels = [line.strip() for line in run(*runner, program, "-", "?", 1) if line]
    assert kernels[-len(expected) :] == expected
    random = np.random.default_rng(1)
    text = "".join(f"{' '.join(map(str, random.integers(1, 40, n)))} 0\n" for n in (0, 1, 5, 12, 17, 30, 44))
    for folder in packs:
        for beams in (1, 3):
            wanted = run(here, folder, "-", beams, text=text)
            assert len(set(wanted)) > 5
            for kernel in kernels:
                found = run(*runner, program, folder, kernel, beams, text=text)
                assert [line.rstrip() for line in found] == wanted, kernel
