"""The C core gives the same bits by every kernel set, in any company, and a context outlives what stops a call."""

from __future__ import annotations

import contextlib
import ctypes
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilenmt.runtime.native.library import Error, Info, Request, Result
from native import NativeError
from native_core import ARGUMENT, DEADLINE, FILE, MEMORY, PACK, PAUSED, STOPPED, Context, Core, Model, Output
from native_files import INT8_ROWS, UINT16, Made

REQUESTS: list[dict[str, Any]] = [
    {"alignment": 1},
    {"beam_size": 4, "n_best": 3, "length_penalty": 0.7, "alignment": 1},
    {"beam_size": 2, "no_repeat_ngram": 2, "min_length": 6, "length_penalty": -1.3},
]
MODELS: list[dict[str, Any]] = [
    {"width": 48, "heads": (3, 2), "hidden": (80, 100), "layers": (2, 2), "target": 301, "output_bias": True},
    {"width": 21, "heads": (3, 1), "hidden": (37, 20), "target": 90, "lexical": UINT16, "rows_kind": INT8_ROWS},
    {"width": 20, "heads": (4, 4), "activation": 1, "pre_norm": True, "trained_positions": True},
]


def sources(model: Model, count: int = 13) -> list[list[int]]:
    """Of lengths from 1 to 40, the end token last."""
    random = np.random.default_rng(1)
    most = model.info.source_vocabulary
    return [[*random.integers(1, most, random.integers(0, 40)).tolist(), 0] for _ in range(count)]


def made(core: Core, index: int, kernels: str | None = None, **changes: Any) -> Model:
    values = {"source": 40, "positions": 50, "spread": 0.02, **MODELS[index], **changes}
    return core.open_memory(*Made(**values).files(), kernels)


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
@pytest.mark.parametrize("index", range(len(MODELS)))
def test_bits_do_not_depend_on_kernels_or_company(core: Core, index: int, request_: dict[str, Any]) -> None:
    """Every kernel set, one sentence at a time, any number of rows, another order."""
    model = made(core, index)
    ids = sources(model)
    limits = [3 + 3 * i % 40 for i in range(len(ids))]
    request_ = request_ | {"min_length": 3 if "min_length" in request_ else 0}
    wanted = model.translate(ids, max_length=limits, **request_)
    assert len({output.ids for output in wanted}) > 5
    assert "scalar" in core.kernels
    for name in core.kernels:
        other = made(core, index, name)
        assert other.info.kernels.decode() == name
        assert other.translate(ids, max_length=limits, **request_) == wanted, name
    with model.context() as context:
        for rows in (1, 2, 3, 5, 8, 100, 2**32 - 1):
            assert context.translate(ids, max_length=limits, rows=rows, **request_) == wanted, rows
        single = [
            output
            for source, limit in zip(ids, limits, strict=True)
            for output in context.translate([source], max_length=limit, **request_)
        ]
    assert single == wanted
    n = request_.get("n_best", 1)
    back = model.translate(ids[::-1], max_length=limits[::-1], **request_)
    groups = [back[i : i + n] for i in range(0, len(back), n)]
    assert [output for group in groups[::-1] for output in group] == wanted


def test_extreme_weights_and_values(core: Core) -> None:
    """Weights of -128 and 127 in every place: 16-bit sums of products must not saturate."""
    makers = [Made(width=width, hidden=(64, 64), heads=(2, 2), positions=50) for width in (32, 48)]
    for maker in makers:
        maker._random = Extremes()  # type: ignore[assignment]
        files = maker.files()
        wanted = core.open_memory(*files, "scalar").translate([[3, 4, 5, 0], [0]])
        assert any(math.isfinite(output.score) for output in wanted)
        for name in core.kernels:
            assert core.open_memory(*files, name).translate([[3, 4, 5, 0], [0]]) == wanted


class Extremes:
    """In place of a random generator: integers are the least and the greatest in turn."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)

    def integers(self, low: int, high: int, shape: Any) -> Any:
        return np.where(self._random.random(shape) < 0.5, low, high - 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._random, name)


def test_threads_with_a_context_each(core: Core) -> None:
    model = made(core, 0)
    ids = sources(model)
    wanted = model.translate(ids, beam_size=2, max_length=30)
    found: dict[int, list[list[Output]]] = {}

    def work(number: int) -> None:
        with model.context() as context:
            found[number] = [context.translate(ids, beam_size=2, max_length=30, rows=number + 1) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(4)] == [[wanted] * 5] * 4


def test_the_callback_sees_every_token(core: Core) -> None:
    model = made(core, 0)
    ids = sources(model)
    seen: dict[int, list[int]] = {i: [] for i in range(len(ids))}

    def call(sentence: int, token: int) -> int:
        seen[sentence].append(token)
        return 0

    outputs = model.translate(ids, max_length=12, callback=call)
    for i, output in enumerate(outputs):
        assert len(seen[i]) == output.generated
        assert tuple(seen[i][: len(output.ids)]) == output.ids
    seen = {i: [] for i in range(len(ids))}
    assert model.translate(ids, max_length=12, callback=call, callback_seconds=3600.0) == outputs
    assert not any(seen.values())
    steps = []
    model.translate(ids[:1], max_length=12, beam_size=3, callback=lambda *call: steps.append(call) or 0)
    assert len(steps) > 2


@pytest.mark.parametrize("beams", [1, 3])
def test_a_context_works_after_what_stopped_it(core: Core, beams: int) -> None:
    model = made(core, 0)
    ids = sources(model)
    request: dict[str, Any] = {"max_length": 40, "beam_size": beams, "n_best": beams, "alignment": 1}
    wanted = model.translate(ids, **request)
    with model.context() as context:
        for last in (1, 4, 20):
            left = iter(range(last))
            with pytest.raises(NativeError) as caught:
                context.translate(ids, callback=lambda *_, left=left: next(left, None) is None, **request)
            assert caught.value.status == STOPPED
            assert context.translate(ids, **request) == wanted
        start = time.monotonic()
        with pytest.raises(NativeError) as caught:
            context.translate(ids * 2000, seconds=0.05, **request)
        assert caught.value.status == DEADLINE
        assert time.monotonic() - start < 5
        assert context.translate(ids, seconds=600.0, **request) == wanted


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
@pytest.mark.parametrize("index", range(len(MODELS)))
def test_a_search_that_pauses_finds_the_same(core: Core, index: int, request_: dict[str, Any]) -> None:
    """At every token; another call may come between, and then the search is over."""
    model = made(core, index)
    ids = sources(model)
    with model.context() as context:
        wanted = context.translate(ids, max_length=30, **request_)
        assert context.pauses == 0
        assert context.translate(ids, max_length=30, pause_seconds=1e-9, **request_) == wanted
        assert context.pauses > 30
        assert context.translate(ids, max_length=30, pause_seconds=3600.0, **request_) == wanted
        assert context.pauses == 0
        with pytest.raises(NativeError) as caught:
            context.translate(ids * 20_000, max_length=40, seconds=0.5, pause_seconds=1e-3, **request_)
        assert caught.value.status == DEADLINE
        assert context.pauses > 0


def test_only_what_paused_is_gone_on_with(core: Core) -> None:
    model = made(core, 0)
    one = ctypes.c_uint32
    request = Request(
        size=ctypes.sizeof(Request), sentences=1, ids=(one * 3)(5, 6, 0), lengths=(one * 1)(3),
        max_lengths=(one * 1)(9), min_length=9, beam_size=1, n_best=1, pause_seconds=1e-9,
    )  # fmt: skip
    result, error = Result(ctypes.sizeof(Result)), Error()
    library, pointers = core.library, (ctypes.byref(result), ctypes.byref(error))
    with model.context() as context:
        assert library.mn_resume(context._handle, *pointers) == ARGUMENT
        assert b"no search has paused" in error.message
        assert library.mn_translate(context._handle, ctypes.byref(request), *pointers) == PAUSED
        assert library.mn_resume(context._handle, *pointers) == PAUSED
        wanted = context.translate([[7, 0]])
        assert library.mn_resume(context._handle, *pointers) == ARGUMENT
        assert wanted == model.translate([[7, 0]])


def test_a_text_does_not_take_the_memory_of_a_search_that_pauses(core: Core, tiny_pack: Path) -> None:
    """It fails, where both do not fit the limit, and the search goes on; without one it fits."""
    model = core.open(tiny_pack)
    source, text, one = [[*[4] * 20, 0]] * 200, b"the house " * 1000, ctypes.c_uint32
    request = Request(
        size=ctypes.sizeof(Request), sentences=len(source), ids=(one * 4200)(*source[0] * 200),
        lengths=(one * 200)(*[21] * 200), max_lengths=(one * 200)(*[20] * 200), beam_size=4, n_best=1,
        pause_seconds=1e-9,
    )  # fmt: skip
    wanted = model.translate(source[:1], max_length=20, beam_size=4) * 200
    result, error, states = Result(ctypes.sizeof(Result)), Error(), set()
    pointers = ctypes.byref(result), ctypes.byref(error)
    for limit in range(100_000, 2_000_000, 50_000):
        with model.context(limit) as context:
            status = core.library.mn_translate(context._handle, ctypes.byref(request), *pointers)
            if status == MEMORY:
                continue
            try:
                context.encode(text, 100)
                states.add("beside")
            except NativeError as refused:
                assert refused.status == MEMORY
                states.add("refused")
            while status == PAUSED:
                status = core.library.mn_resume(context._handle, *pointers)
            assert status == 0
            for i, output in enumerate(wanted):
                assert tuple(result.ids[i][: result.lengths[i]]) == output.ids
            with contextlib.suppress(NativeError):  # what is done gives way
                context.encode(text, 100)
                states.add("afterwards")
    assert states == {"beside", "refused", "afterwards"}
    model.close()


@pytest.mark.parametrize("size", [4, 7, 8, 12, 40, ctypes.sizeof(Result), ctypes.sizeof(Result) + 40])
def test_structures_of_other_versions_get_as_much_as_they_hold(core: Core, size: int) -> None:
    """What lies beyond the caller's size, or beyond what the library knows, is left alone."""
    model, known = made(core, 0), ctypes.sizeof(Result)
    ids, one = (ctypes.c_uint32 * 3)(5, 6, 0), ctypes.c_uint32
    request = Request(
        size=ctypes.sizeof(Request), sentences=1, ids=ids, lengths=(one * 1)(3), max_lengths=(one * 1)(9), beam_size=1,
        n_best=1,
    )  # fmt: skip
    for call, structure in (("translate", Result), ("info", Info)):
        whole, given = (ctypes.create_string_buffer(b"\xaa" * (known + 64), known + 64) for _ in range(2))
        one.from_buffer(whole).value, one.from_buffer(given).value = ctypes.sizeof(structure), size
        with model.context() as context:
            for buffer in (whole, given):
                if call == "info":
                    assert core.library.mn_model_info(model.handle, buffer) == 0
                else:
                    assert core.library.mn_translate(context._handle, ctypes.byref(request), buffer, None) == 0
        filled = max(4, min(size, ctypes.sizeof(structure)))
        assert given.raw[4:filled] == whole.raw[4:filled]
        assert set(given.raw[filled:]) == {0xAA}
        assert one.from_buffer(given).value == size


def test_structures_without_a_size_are_refused(core: Core) -> None:
    model = made(core, 0)
    assert core.library.mn_model_info(model.handle, ctypes.byref(Info(3))) == ARGUMENT
    with model.context() as context:
        request, error = Request(ctypes.sizeof(Request), 0), Error()
        call = core.library.mn_translate
        for wanted, result in ((Request(3, 0), Result(ctypes.sizeof(Result))), (request, Result(3))):
            arguments = (ctypes.byref(item) for item in (wanted, result, error))
            assert call(context._handle, *arguments) == ARGUMENT


def test_a_context_keeps_to_its_limit(core: Core) -> None:
    model = made(core, 0, tokenizer=b"")
    ids = sources(model)
    with model.context(300_000) as context:
        wanted = context.translate(ids[:1], max_length=5)
        for _ in range(2):
            with pytest.raises(NativeError, match="300000 allowed") as caught:
                context.translate(ids, max_length=50, beam_size=16, n_best=16)
            assert caught.value.status == MEMORY
            assert context.translate(ids[:1], max_length=5) == wanted
        with pytest.raises(NativeError):
            context.translate(ids[:1] * 1_000_000, max_length=5)


def test_text_counts_towards_the_limit(core: Core, tiny_pack: Path) -> None:
    model = core.open(tiny_pack)
    with model.context(200_000) as context:
        assert context.encode(b"the house")
        with pytest.raises(NativeError) as caught:
            context.encode(b"the house " * 10_000)
        assert caught.value.status == MEMORY
        ids = context.encode(b"the house")
        assert context.translate([[*ids, 0]], max_length=8)
    model.close()


@pytest.mark.parametrize("words", [1, 9000])
def test_what_a_call_leaves_does_not_count_against_the_next(core: Core, tiny_pack: Path, words: int) -> None:
    """Whatever fits a new context fits one that was used: a text after a translation, and the other way round."""
    model = core.open(tiny_pack)
    text = b"the house " * words
    calls: list[Callable[[Context], Any]] = [
        lambda context: context.encode(text, 100),
        lambda context: context.translate([[4, 5, 6, 0]] * 2, max_length=model.info.max_positions, beam_size=4),
        lambda context: context.translate([[*[4] * (model.info.max_positions - 1), 0]], max_length=4),
        lambda context: context.translate([[4, 5, 0]] * 3000, max_length=4),
    ]

    def fits(limit: int, *several: Callable[[Context], Any]) -> bool:
        with model.context(limit) as context:
            try:
                return all(call(context) or True for call in several)
            except NativeError as error:
                assert error.status == MEMORY
                return False

    for limit in (100_000, 200_000, 400_000, 800_000, 1_600_000):
        alone = [call for call in calls if fits(limit, call)]
        assert fits(limit, *alone, *alone[::-1], *alone[::2], *alone[1::2]), limit
    assert len(alone) == len(calls)
    model.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_opening_takes_the_memory_of_the_model_and_not_that_of_the_file_too(core: Core, tmp_path: Path) -> None:
    """At its highest moment: the pages that blocks are made from go back as they are read."""
    files = Made(width=160, hidden=(1600, 1600), layers=(2, 2), source=10, target=60_000).files()
    for name, content in zip(("native.bin", "weights.bin"), files, strict=True):
        (tmp_path / name).write_bytes(content)
    program = r"""
import ctypes, re, sys
library, model, error = ctypes.CDLL(sys.argv[1]), ctypes.c_void_p(), ctypes.create_string_buffer(1000)
def memory(field):
    return int(re.search(field + r":\s+(\d+)", open("/proc/self/status").read())[1]) << 10
before = memory("VmRSS"), memory("VmHWM")
assert library.mn_open(sys.argv[2].encode(), None, ctypes.byref(model), error) == 0
print(*before, memory("VmHWM"))
"""
    command = [sys.executable, "-c", program, core.library._name, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    resident, highest_before, highest = map(int, result.stdout.split())
    own, of_file = core.open(tmp_path).info.bytes, len(files[1])
    assert of_file > 16_000_000
    assert highest > highest_before + own // 2
    assert highest - resident < own + 3_500_000


def test_what_cannot_be_opened_says_why(core: Core, tiny_pack: Path, tmp_path: Path) -> None:
    native, weights = Made().files()

    def refused(status: int, word: str, *arguments: Any, by: Any = core.open_memory) -> None:
        with pytest.raises(NativeError, match=word) as caught:
            by(*arguments)
        assert caught.value.status == status

    refused(PACK, "not a file of this kind", b"", weights)
    refused(PACK, "not a file of this kind", b"X" + native[1:], weights)
    refused(PACK, "version 3; this library reads 1 and 2", native[:8] + b"\3" + native[9:], weights)
    refused(PACK, "native.bin was written for", native, weights + b"\0")
    refused(PACK, "outside the file", native[:-1], weights)
    refused(ARGUMENT, "no kernels called abacus", native, weights, "abacus")
    refused(FILE, "native.bin", tmp_path, by=core.open)
    refused(FILE, "native.bin", tmp_path / ("x" * 200), by=core.open)
    refused(FILE, "too long", tmp_path / ("x" * 2000), by=core.open)
    (tmp_path / "native.bin").write_bytes(native)
    refused(FILE, "weights.bin", tmp_path, by=core.open)
    (tmp_path / "weights.bin").mkdir()
    refused(FILE, "weights.bin", tmp_path, by=core.open)
    (tmp_path / "weights.bin").rmdir()
    (tmp_path / "weights.bin").write_bytes(weights)
    core.open(tmp_path).close()
