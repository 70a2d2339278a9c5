"""Which engine opens a pack, and what it says where it cannot."""

from __future__ import annotations

import _thread
import ctypes
import gc
import itertools
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilenmt import EngineError, InputError, PackError, Translator
from mobilenmt.commands import _facts
from mobilenmt.runtime.hypothesis import SearchOptions
from mobilenmt.runtime.native import LIBRARY
from mobilenmt.runtime.native import library as native_library
from mobilenmt.runtime.native.engine import NativeEngine
from mobilenmt.runtime.native.library import NativeModel, load_library
from mobilenmt.runtime.native.tokenizer import NativeTokenizer
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


def test_onnx_sessions_are_made_in_the_callers_thread(tiny_pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library gives memory of closed sessions back to the system from the first thread's heap alone: in another
    thread's, a large pack left half of its size behind when a retry had closed the graph."""
    from mobilenmt.runtime import opening
    from mobilenmt.runtime.onnx import engine

    threads: dict[str, int] = {}

    class Noted(engine.Engine):
        def __init__(self, *arguments: Any) -> None:
            threads["engine"] = _thread.get_ident()
            super().__init__(*arguments)

    def read(pack: Pack) -> Any:
        threads["tokenizer"] = _thread.get_ident()
        return read_tokenizer(pack)

    read_tokenizer = opening.open_tokenizer
    monkeypatch.setattr(engine, "Engine", Noted)
    monkeypatch.setattr(opening, "open_tokenizer", read)
    assert Translator(tiny_pack, engine="onnx").translate("the house")
    assert threads["engine"] == _thread.get_ident() != threads["tokenizer"]


@needs_core
@pytest.mark.parametrize("error", [ImportError("cannot be mapped"), MemoryError()])
def test_where_onnx_runtime_cannot_help_what_the_core_said_counts(
    tiny_pack: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails_with(error: Exception) -> Callable[..., Any]:
        def fail(*arguments: Any) -> Any:
            raise error

        return fail

    monkeypatch.setattr("mobilenmt.runtime.native.engine.NativeEngine", fails_with(EngineError("no memory for blocks")))
    assert Translator(tiny_pack).engine == "onnx"
    monkeypatch.setattr("mobilenmt.runtime.opening._open_onnx", fails_with(error))
    with pytest.raises(EngineError, match="no memory for blocks"):
        Translator(tiny_pack)


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
@pytest.mark.parametrize("name", ["native.bin", "weights.bin"])
def test_an_empty_file_is_damage_even_where_pack_json_says_so(name: str, tiny_pack: Path, tmp_path: Path) -> None:
    """Nothing can be mapped of it, but that's no fault of this machine, for which another engine would be taken."""
    shutil.copytree(tiny_pack, tmp_path / "pack")
    (tmp_path / "pack" / name).write_bytes(b"")
    with pytest.raises(PackError, match=f"{name}: .*empty"):
        NativeModel(tmp_path / "pack")


@needs_core
def test_kernels_are_chosen_by_name(tiny_pack: Path) -> None:
    pack = Pack.open(tiny_pack)
    assert NativeEngine(pack, kernels="scalar").model.kernels == "scalar"
    with pytest.raises(InputError, match="no kernels called abacus"):
        NativeEngine(pack, kernels="abacus")


@needs_core
def test_a_stream_left_early_ends_its_search(tiny_pack: Path) -> None:
    engine = NativeEngine(Pack.open(tiny_pack))
    before = _thread._count()
    stream = engine.steps([5, 6, 7], max_length=60)
    assert len(list(itertools.islice(stream, 2))) == 2
    stream.close()
    for _ in range(100):  # a thread that is done may take a moment to go
        if _thread._count() == before:
            break
        time.sleep(0.02)
    assert _thread._count() == before


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


@needs_core
def test_auto_goes_on_with_onnx_where_the_core_cannot_open_a_sound_pack(
    tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here no memory for the model; info says which engine runs, and why."""

    def refuse(*arguments: Any) -> int:
        arguments[3]._obj.status, arguments[3]._obj.message = 3, b"no memory for a model"
        return 3

    monkeypatch.setattr(load_library(), "mn_open", refuse)
    translator = Translator(tiny_pack)
    assert translator.engine == "onnx" and translator.translate("the dog")
    with pytest.raises(EngineError, match="no memory for a model"):
        Translator(tiny_pack, engine="native")
    assert dict(_facts(translator.pack, translator.pack.manifest))["engine here"] == (
        "ONNX Runtime: no memory for a model"
    )


@needs_core
def test_a_long_path_opens(tiny_pack: Path, tmp_path: Path) -> None:
    folder = tmp_path
    while len(str(folder)) < 1500:
        folder /= "f" * 200
    shutil.copytree(tiny_pack, folder)
    assert Translator(folder).engine == "native"


@needs_core
def test_a_file_that_cannot_be_read_is_told_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"/native\.bin: No such file or directory$"):
        NativeModel(tmp_path)
    folder = tmp_path / ("ü" * 120) / "x"
    with pytest.raises(PackError, match=r"^\.\.\.ü+/x/native\.bin: No such file or directory$"):
        NativeModel(folder)


def _set(*keys: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = to

    return change


@needs_core
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.d_model", 64),
        ("model.encoder_layers", 7),
        ("model.decoder_layers", 7),
        ("model.encoder_attention_heads", 1),
        ("model.decoder_attention_heads", 1),
        ("model.encoder_ffn_dim", 7),
        ("model.decoder_ffn_dim", 7),
        ("model.source_vocab_size", 5000),
        ("model.target_vocab_size", 5000),
        ("model.max_positions", 1000),
        ("tokens.start", 9),
        ("tokens.eos", 9),
        ("tokens.pad", 9),
        ("tokens.unk", 9),
        ("tokens.unk", None),
        ("generation.forced_eos_token_id", 9),
        ("generation.forced_bos_token_id", 9),
        ("generation.early_stopping", "never"),
        ("generation.renormalize_logits", True),
        ("generation.no_repeat_ngram_size", 3),
        ("generation.min_length", 3),
        ("generation.bad_token_ids", [9, 10, 11]),
        ("generation.begin_suppress_tokens", [9]),
        ("alignment", {"layer": 0, "head": 1, "later": 1, "aer": None}),
    ],
)
def test_a_pack_json_that_contradicts_native_bin_is_refused(
    key: str, value: object, tiny_pack: Path, tmp_path: Path
) -> None:
    """pack.json has no hash of itself: what it says of the model is held against what native.bin says."""
    folder = tmp_path / "pack"
    shutil.copytree(tiny_pack, folder)
    manifest = json.loads((folder / "pack.json").read_text())
    _set(*key.split("."), to=value)(manifest)
    (folder / "pack.json").write_text(json.dumps(manifest))
    shown = r"\d+" if isinstance(value, list | dict) else json.dumps(value)
    with pytest.raises(PackError, match=rf"pack\.json says .*{key}.*: {shown}, but native\.bin .+; one of them"):
        Translator(folder)


@needs_core
def test_a_tokenizer_of_another_vocabulary_is_refused(tiny_pack: Path, tmp_path: Path) -> None:
    """Its ids would be refused later, one text at a time."""
    folder = tmp_path / "pack"
    shutil.copytree(tiny_pack, folder)
    data = bytearray((folder / "native.bin").read_bytes())
    (at,) = struct.unpack_from("<I", data, 104)
    (limit,) = struct.unpack_from("<I", data, at + 4 * 12)
    assert limit == Pack.open(tiny_pack).manifest.model.source_vocab_size
    struct.pack_into("<I", data, at + 4 * 12, limit + 1)
    (folder / "native.bin").write_bytes(data)
    with pytest.raises(PackError, match=rf"a tokenizer of {limit + 1} ids and a source vocabulary of {limit}"):
        Translator(folder, verify=False)


@needs_core
def test_a_model_goes_where_the_interpreter_has_cleared_its_module(
    tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At exit the globals of modules become None, in no order that could be relied on."""
    engine = NativeEngine(Pack.open(tiny_pack))
    assert engine.generate([[5, 6]], [9])
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    with monkeypatch.context() as patch:
        for name in list(vars(native_library)):
            if not name.startswith("__"):
                patch.setattr(native_library, name, None)
        handle = engine.model.handle
        del engine
        gc.collect()
    assert not unraisable and not handle


@needs_core
def test_ids_that_are_none_are_input_errors(tiny_pack: Path) -> None:
    """Of any kind, in any place; ctypes would raise its own errors, or make other ids of them."""
    native = NativeEngine(Pack.open(tiny_pack))
    size = native._info.source_vocab_size
    for wrong in (5.5, "5", None, [5], -1, size, 2**32 + 5):
        for sources, options, prefixes in (
            ([[5, wrong]], {}, None),
            ([[5]], {"forbidden": (wrong,)}, None),
            ([[5]], {}, [[wrong]]),
        ):
            with pytest.raises(InputError):
                native.generate(sources, [9], SearchOptions(**options), prefixes)
        with pytest.raises(InputError):
            native.generate([[5]], [wrong])
    for wrong in (5.5, None, 5):
        with pytest.raises(InputError):
            native.generate([wrong], [9])
    assert native.generate([np.array([5, 6])], [np.int64(9)]) == native.generate([[5, 6]], [9])
    for wrong in ({"seconds": "1"}, {"seconds": float("nan")}, {"stop": 5}, {"length_penalty": "1"}, {"n_best": 1.0}):
        with pytest.raises(InputError):
            SearchOptions(**wrong)


@needs_core
def test_ids_outside_the_vocabulary_are_not_known(tiny_pack: Path) -> None:
    model = NativeModel(Pack.open(tiny_pack).path)
    tokenizer = NativeTokenizer(model)
    known = ctypes.c_int()

    def knows(*ids: int) -> int:
        array = (ctypes.c_uint32 * len(ids))(*ids)
        assert model.library.mn_knows(model.handle, array, len(ids), ctypes.byref(known)) == 0
        return known.value

    ids = tokenizer.encode("the dog")
    assert knows(*ids) == 1
    assert knows(*ids, 99_999_999) == knows(*ids, model.info.source_vocabulary) == 0
    assert tokenizer.decode([*ids, 2**32 + ids[0], -1]) == tokenizer.decode(ids)
    assert tokenizer.pieces([2**32 + ids[0], -1]) == ["\ufffd", "\ufffd"]
