"""No file, however damaged, makes the C core read or write outside, nor take more memory than its size."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from native import TOKENIZER_SOURCES, compile_c, compiler
from native_core import SOURCES
from native_files import FLOAT_ROWS, INT4_ROWS, INT8_ROWS, INT32, UINT16, Made

HERE = Path(__file__).parent
SANITIZED = ("-O0", "-g", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
MODELS: dict[str, dict[str, Any]] = {
    "plain": {"heads": (2, 1), "output_bias": True, "bad": (1, 2)},
    "shortlist": {"width": 5, "heads": (5, 1), "lexical": UINT16, "rows_kind": INT8_ROWS, "activation": 7},
    "pre-norm": {"width": 6, "pre_norm": True, "lexical": INT32, "trained_positions": True, "forced_eos": 0},
    "4 bits": {"width": 6, "forms": (INT4_ROWS,), "rows_kind": INT4_ROWS, "hidden": (9, 20), "layers": (1, 2)},
    "floats": {
        "width": 4,
        "forms": (FLOAT_ROWS, INT4_ROWS),
        "rows_kind": FLOAT_ROWS,
        "hidden": (4, 3),
        "lexical": UINT16,
    },
    "4 bits, shortlist": {"width": 6, "rows_kind": INT4_ROWS, "forms": (INT8_ROWS, FLOAT_ROWS), "lexical": INT32},
}
Drive = Callable[..., int]


@pytest.fixture(scope="session")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Drive:
    """Runs a fuzz target that was built with sanitizers; returns the number of inputs."""
    if compiler() is None:
        pytest.skip("there is no C compiler here")
    out = tmp_path_factory.mktemp("drive")

    def run(target: str, *arguments: object, most_megabytes: int = 6) -> int:
        program = out / target
        needed = TOKENIZER_SOURCES if target == "text" else SOURCES
        if not program.exists():
            try:
                compile_c(program, HERE / "drive.c", HERE / f"fuzz_{target}.c", *needed, flags=SANITIZED)
            except AssertionError:
                pytest.skip("the C compiler has no sanitizers")
        # A larger allocation ends the program: what a file of 10 kB asks for is an attack.
        environment = os.environ | {"ASAN_OPTIONS": f"max_allocation_size_mb={most_megabytes}"}
        command = [program, *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, env=environment)
        assert result.returncode == 0, result.stderr[:4000]
        return int(result.stdout)

    return run


def input_of(path: Path, first: bytes, second: bytes) -> Path:
    path.write_bytes(struct.pack("<I", len(first)) + first + second)
    return path


@pytest.mark.parametrize("name", MODELS)
def test_damaged_models(name: str, drive: Drive, tmp_path: Path) -> None:
    """Words of the header and of records, and of the weights: NaN and infinity, too."""
    file = input_of(tmp_path / name, *Made(**{"source": 9, "target": 12, **MODELS[name]}).files())
    assert file.stat().st_size < 10_000
    assert drive("open", "damage", file, 7) > 2000


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_word_of_a_model(name: str, drive: Drive, tmp_path: Path) -> None:
    file = input_of(tmp_path / name, *Made(**{"source": 9, "target": 12, **MODELS[name]}).files())
    assert drive("open", "damage", file, 1) > 5000


def test_an_exported_pack_that_is_damaged(drive: Drive, tiny_pack: Path, tmp_path: Path) -> None:
    """Its tokenizer is read as well."""
    files = ((tiny_pack / name).read_bytes() for name in ("native.bin", "weights.bin"))
    file = input_of(tmp_path / "pack", *files)
    assert drive("open", "damage", file, file.stat().st_size // 4 // 100) > 1000


@pytest.mark.parametrize("target", ["open", "text"])
def test_what_a_fuzzer_found_worth_keeping(target: str, drive: Drive) -> None:
    files = sorted((HERE / "corpus" / target).iterdir())
    assert drive(target, "replay", *files) == len(files) > 1
