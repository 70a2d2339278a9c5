"""Which engine opens a pack, and what it says where it cannot."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mobilenmt import InputError, PackError, Translator
from mobilenmt.runtime.hypothesis import SearchOptions
from mobilenmt.runtime.native import LIBRARY
from mobilenmt.runtime.native import library as native_library
from mobilenmt.runtime.native.engine import NativeEngine
from mobilenmt.runtime.native.library import load_library
from mobilenmt.runtime.onnx.ort import SessionConfig
from mobilenmt.runtime.opening import why_not_native
from mobilenmt.runtime.pack import Pack
from places import SRC, TESTS

needs_core = pytest.mark.skipif(not LIBRARY.is_file(), reason=f"the C core was not compiled: {LIBRARY} is not there")


@needs_core
def test_auto_takes_the_core_where_it_can(tiny_pack: Path) -> None:
    assert Translator(tiny_pack).engine == "native"
    assert Translator(tiny_pack, engine="onnx").engine == "onnx"
    assert Translator(tiny_pack, providers=["CPUExecutionProvider"]).engine == "onnx"
    assert Translator(TESTS / "golden" / "tiny-2.0").engine == "onnx"


@pytest.mark.parametrize("engine", ["", "Native", "cuda"])
def test_an_unknown_engine_is_refused(tiny_pack: Path, engine: str) -> None:
    with pytest.raises(InputError, match=r"engine must be one of auto, native, onnx"):
        Translator(tiny_pack, engine=engine)


def test_a_pack_without_native_bin_says_so() -> None:
    with pytest.raises(InputError, match=r"cannot run this pack: .*no native\.bin"):
        Translator(TESTS / "golden" / "tiny-2.0", engine="native")


def test_without_a_library_packs_run_on_onnx_and_say_why(
    tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "_native.so"
    monkeypatch.setattr(native_library, "_loaded", {})
    monkeypatch.setattr(load_library, "__defaults__", (missing,))
    assert Translator(tiny_pack).engine == "onnx"
    assert "not compiled" in (why_not_native(Pack.open(tiny_pack), SessionConfig()) or "")
    missing.write_bytes(b"no library")
    with pytest.raises(InputError, match="does not load"):
        Translator(tiny_pack, engine="native")


@needs_core
def test_a_damaged_native_bin_is_a_pack_error(tiny_pack: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    shutil.copytree(tiny_pack, folder)
    file = folder / "native.bin"
    data = bytearray(file.read_bytes())
    data[8] = 99
    file.write_bytes(data)
    with pytest.raises(PackError):  # its SHA-256
        Translator(folder)
    with pytest.raises(PackError, match=r"native\.bin: version 99"):
        Translator(folder, verify=False)
    (folder / "native.bin").unlink()
    with pytest.raises(PackError):
        Translator(folder, verify=False)


@needs_core
def test_kernels_are_chosen_by_name(tiny_pack: Path) -> None:
    pack = Pack.open(tiny_pack)
    assert NativeEngine(pack, kernels="scalar").model.kernels == "scalar"
    with pytest.raises(InputError, match="no kernels called abacus"):
        NativeEngine(pack, kernels="abacus")


@needs_core
def test_a_stream_left_early_ends_its_search(tiny_pack: Path) -> None:
    engine = NativeEngine(Pack.open(tiny_pack))
    before = threading.active_count()
    stream = engine.steps([5, 6, 7], max_length=60)
    assert len(list(itertools.islice(stream, 2))) == 2
    stream.close()
    assert threading.active_count() == before


@needs_core
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_ends_a_long_call_at_the_next_token(tiny_pack: Path) -> None:
    code = """
import os, sys, time
from mobilenmt import Translator
translator = Translator(os.environ["PACK"])
print(translator.engine, flush=True)
try:
    translator.translate_batch(["the dog sees the cat"] * 200_000, max_length=60, min_length=59)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    environment = {**os.environ, "PYTHONPATH": str(SRC), "PACK": str(tiny_pack)}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "native\n"
    time.sleep(3)  # it is at work by now
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert out == "interrupted\n"
    assert time.monotonic() - sent < 5


@needs_core
def test_threads_and_company_change_nothing(tiny_pack: Path) -> None:
    pack = Pack.open(tiny_pack)
    sources = [[5 + (i * j) % 20 for j in range(1, 3 + i % 7)] for i in range(40)]
    limits = [20] * len(sources)
    alone = [NativeEngine(pack).generate([source], [20], SearchOptions(beam_size=3, n_best=2))[0] for source in sources]
    for threads in (1, 2, 5):
        found = NativeEngine(pack, threads=threads).generate(sources, limits, SearchOptions(beam_size=3, n_best=2))
        assert found == alone
    kernels = NativeEngine(pack, kernels="scalar").generate(sources, limits, SearchOptions(beam_size=3, n_best=2))
    assert kernels == alone


def test_info_tells_the_engine(tiny_pack: Path) -> None:
    command = [sys.executable, "-m", "mobilenmt", "info", str(tiny_pack)]
    out = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(SRC)}
    )
    (line,) = [line for line in out.stdout.splitlines() if line.startswith("engine here:")]
    assert ("the C core, kernels" in line) == LIBRARY.is_file()
