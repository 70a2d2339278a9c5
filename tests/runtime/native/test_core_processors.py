"""Other processors and systems give this one's bits: ARM under qemu, WebAssembly under Node, Windows under Wine, musl.

The cross compiler is that of the PyPI package ziglang, if it is installed; what runs the programs, if it is found.
MOBILENMT_LINES=FILE:COUNT takes other sentences for the shipped pack than those of the benchmarks (what stands in front
of a tab).
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mobilenmt.runtime.native.library import NativeModel
from mobilenmt.runtime.native.tokenizer import NativeTokenizer
from native import NATIVE, compile_c, compiler
from native_core import SOURCES
from native_files import COLUMNS, FLOAT_ROWS, INT4_ROWS, INT8_ROWS, UINT16, Made
from places import ROOT

HERE = Path(__file__).parent
FLAGS = ("-std=c11", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
WINE = "/usr/lib/wine/wine64"
NODE = shutil.which("node")


def node_flags() -> list[str]:
    """Node 22 has relaxed vectors; 20 has them on trial, and right in its optimizing compiler alone."""
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout if NODE else "v99"
    old = int(version[1:].partition(".")[0]) < 22
    return ["--no-warnings", *(["--experimental-wasm-relaxed-simd", "--no-liftoff"] if old else [])]


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(compiler() is None, reason="there is no C compiler here"),
    pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="ziglang is not installed"),
]


@dataclass(frozen=True)
class Target:
    """zig's name for a system, flags, what runs its programs (None where it is missing), and the kernels it must have,
    the last of those it lists."""

    triple: str
    flags: tuple[str, ...]
    runner: tuple[str | None, ...]
    kernels: tuple[str, ...]


QEMU = shutil.which("qemu-aarch64")
WASI = str(HERE / "wasi.mjs")
RELAXED = ("-msimd128", "-mrelaxed-simd")
TARGETS = {
    "arm": Target("aarch64-linux-musl", (), (QEMU, "-cpu", "max"), ("neoni8mm", "neondot", "neon", "scalar")),
    "old arm": Target("aarch64-linux-musl", (), (QEMU, "-cpu", "cortex-a53"), ("neon", "scalar")),
    "32-bit arm": Target(
        "arm-linux-musleabihf",
        ("-mcpu=cortex_a8",),
        (shutil.which("qemu-arm"), "-cpu", "cortex-a8"),
        ("neon", "scalar"),
    ),
    "webassembly": Target("wasm32-wasi", ("-msimd128",), (NODE, "--no-warnings", WASI), ("wasm", "scalar")),
    "relaxed webassembly": Target(
        "wasm32-wasi", RELAXED, (NODE, *node_flags(), WASI), ("wasm-relaxed", "wasm", "scalar")
    ),
    "windows": Target(
        "x86_64-windows-gnu", ("-DMN_STATIC",), (shutil.which("wine64") or shutil.which(WINE),), ("scalar",)
    ),
    "musl": Target("x86_64-linux-musl", (), ("env" if platform.machine() == "x86_64" else None,), ("scalar",)),
}
MODELS = (
    {"width": 48, "heads": (3, 2), "hidden": (80, 100), "layers": (2, 2), "target": 301, "output_bias": True},
    {"width": 21, "heads": (3, 1), "target": 90, "lexical": UINT16, "rows_kind": INT8_ROWS, "activation": 10},
    {"width": 20, "heads": (4, 4), "activation": 1, "pre_norm": True, "trained_positions": True},
    {"width": 36, "target": 90, "forms": (INT4_ROWS, FLOAT_ROWS, COLUMNS), "rows_kind": INT4_ROWS, "lexical": UINT16},
    {"width": 40, "heads": (4, 2), "target": 75, "forms": (FLOAT_ROWS,), "rows_kind": FLOAT_ROWS, "layers": (2, 2)},
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
    """Lines that a program prints; into a file, since Node loses what a full pipe does not take."""
    environment = os.environ | {"WINEDEBUG": "-all"}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out:
        result = subprocess.run(
            [*map(str, command)],
            input=text,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=3000,
            env=environment,
        )
        assert result.returncode == 0, result.stderr
        out.seek(0)
        return out.read().split("\n")


@pytest.fixture(scope="session")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Packs of which some number becomes too large, and one that only comes near that."""
    folders = []
    for factor in (1e9, 1e17, 1e32):
        folders.append(tmp_path_factory.mktemp("pack"))
        native, weights = (maker := Made(source=40, positions=50, activation=1)).files()
        scale, step = (int.from_bytes(maker.records[15][at : at + size], "little") for at, size in ((24, 8), (40, 4)))
        scales = np.frombuffer(weights, "<f4", (maker.hidden[0] - 1) * step + 1, scale) * np.float32(factor)
        content = weights[:scale] + scales.astype("<f4").tobytes() + weights[scale + scales.nbytes :]
        for name, data in (("native.bin", native), ("weights.bin", content)):
            (folders[-1] / name).write_bytes(data)
    return folders


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[object]]:
    """The command that runs the dumping program of a target, compiled once."""
    made: dict[str, Path] = {}

    def command(name: str) -> list[object]:
        target = TARGETS[name]
        if target.runner[0] is None:
            pytest.skip(f"nothing here runs {target.triple}")
        if name not in made:
            made[name] = tmp_path_factory.mktemp("program") / ("dump.exe" if name == "windows" else "dump")
            zig = [sys.executable, "-m", "ziglang", "cc", "-target", target.triple, *FLAGS, *target.flags]
            run(*zig, f"-I{NATIVE}", "-o", made[name], HERE / "dump.c", *SOURCES)
        return [*target.runner, made[name]]

    return command


def kernels_of(command: list[object]) -> list[str]:
    return [line.strip() for line in run(*command, "-", "?", 1) if line]


@pytest.mark.parametrize("name", TARGETS)
def test_the_same_bits(
    name: str, here: Path, packs: list[Path], overflowing: list[Path], program: Callable[[str], list[object]]
) -> None:
    command = program(name)
    kernels = kernels_of(command)
    assert tuple(kernels[-len(TARGETS[name].kernels) :]) == TARGETS[name].kernels
    random = np.random.default_rng(1)
    text = "".join(f"{' '.join(map(str, random.integers(1, 40, n)))} 0\n" for n in (0, 1, 5, 12, 17, 30, 44))
    ended = []
    for folder in [*packs, *overflowing]:
        for beams in (1, 3):
            wanted = run(here, folder, "-", beams, text=text)
            ended.append("overflow" in wanted[0])
            assert folder in overflowing or len(set(wanted)) > 5
            for kernel in kernels:
                found = run(*command, folder, kernel, beams, text=text)
                assert [line.rstrip() for line in found] == wanted, kernel
    assert not any(ended[: 2 * len(packs)]) and len(set(ended)) == 2


@pytest.mark.parametrize("name", TARGETS)
def test_the_shipped_pack_gives_the_same_bits(
    name: str, here: Path, program: Callable[[str], list[object]], text_of_ids: tuple[list[str], Path]
) -> None:
    """Every line by the kernels with vectors, 20 by the slow reference."""
    command = program(name)
    lines, folder = text_of_ids
    for kernel in kernels_of(command):
        some = lines[:20] if kernel == "scalar" else lines
        for beams in (1, 4):
            wanted = run(here, folder, "-", beams, text="".join(some))
            assert len(wanted) == len(some) * beams + 1
            found = run(*command, folder, kernel, beams, text="".join(some))
            assert [line.rstrip() for line in found] == wanted, kernel


@pytest.fixture(scope="session")
def text_of_ids() -> tuple[list[str], Path]:
    """Sentences as lines of ids, by the shipped pack, and its folder."""
    name, _, count = os.environ.get("MOBILENMT_LINES", f"{ROOT / 'benchmarks' / 'sentences.en.txt'}:50").rpartition(":")
    texts = [line.split("\t")[0] for line in Path(name).read_text(encoding="utf-8").splitlines()]
    texts = [text for text in texts if text.strip()][: int(count)]
    assert len(texts) == int(count)
    folder = ROOT / "models" / "en-de"
    tokenizer = NativeTokenizer(NativeModel(folder))
    return [f"{' '.join(map(str, tokenizer.encode(text)))} 0\n" for text in texts], folder
