"""Text in, text out: layout, odd text, limits, threads, privacy, and the guard against repetition."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import trap
from mobilenmt import InputError, Translator
from mobilenmt.export.export import export
from mobilenmt.runtime.hypothesis import Hypothesis, SearchOptions
from mobilenmt.runtime.native import LIBRARY
from mobilenmt.runtime.native.engine import NativeEngine
from mobilenmt.runtime.onnx import sessions
from mobilenmt.runtime.onnx.engine import Engine
from mobilenmt.runtime.onnx.ort import open_session
from mobilenmt.runtime.pack import Pack
from places import HELPERS, ROOT, SRC

ODD = [
    "the\x00dog\x07",
    "🤖 the 👩‍👩‍👧 dog 𝔘",
    "\ud800 lone",
    "</s>",
    "<pad> <unk> </s> the dog",
    "<0x41>",
    "the\ufffe\uffff dog",
    "漢字 и кириллица",
    "\u200b",
    "a" * 10_000,
    "the dog sees the cat. " * 450,
]


NO_CORE = None if LIBRARY.is_file() else f"the C core was not compiled: {LIBRARY} is not there"
NATIVE = pytest.param("native", marks=pytest.mark.skipif(NO_CORE is not None, reason=NO_CORE or ""))


@pytest.fixture(scope="module", params=[NATIVE, "onnx"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def translator(tiny_pack: Path, engine: str) -> Translator:
    return Translator(tiny_pack, engine=engine)


def python(code: str, pack: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    environment |= {"PYTHONPATH": str(SRC), "PACK": str(pack), **extra}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("text", ["", " ", "\n", " \t\n\n ", "\u3000"])
def test_text_without_words_comes_back(text: str, translator: Translator) -> None:
    assert translator.translate(text) == text


def test_each_line_is_encoded_once(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = type(translator._tokenizer)
    encode, encoded = tokenizer.encode, []
    translator.translate("the dog two cats")  # each character is looked up once

    def note(self: Any, text: str) -> list[int]:
        encoded.append(text)
        return encode(self, text)

    monkeypatch.setattr(tokenizer, "encode", note)
    for _ in translator.stream("the dog\n two cats"):
        pass
    translator.translate_batch(["the dog\n two cats"])
    assert encoded == ["the dog", "two cats"] * 2


def test_layout_is_kept_and_lines_are_translated_alone(translator: Translator) -> None:
    one, two = translator.translate("the dog"), translator.translate("two cats!")
    assert translator.translate("  the dog\n\n\ttwo cats! \r\n") == f"  {one}\n\n\t{two} \r\n"


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_odd_text_translates(text: str, translator: Translator) -> None:
    found = translator.translate_batch([text])[0]
    for piece in ("<unk>", "</s>", "<pad>", "\uffff"):
        assert found.text.count(piece) <= text.count(piece)  # none, but what the source spells and has copied
    steps = list(translator.stream(text))
    assert steps
    assert all(steps[-1].count(piece) <= text.count(piece) for piece in ("<unk>", "</s>", "<pad>", "\uffff"))


def test_a_long_line_is_split_and_says_so(translator: Translator) -> None:
    found = translator.translate_batch(["the dog sees the cat. " * 40, "the dog"], split=False)
    assert "split" in found[0].flags and "split" not in found[1].flags
    assert "split" not in translator.translate_batch(["the dog\nthe cat"])[0].flags


@pytest.mark.parametrize("threads", [1, 2])
def test_batch_gives_what_each_text_gives_alone(tiny_pack: Path, threads: int) -> None:
    translator = Translator(tiny_pack, threads=threads)
    texts = ["the dog", "", "where is the station here today?", "cat\ndog", "x"]
    for beams in (1, 3):
        together = translator.translate_batch(texts, beam_size=beams)
        alone = [translator.translate_batch([text], beam_size=beams)[0] for text in texts]
        assert together == alone


def test_fp32_texts_put_together_give_what_each_gives_alone(tiny_fp32_pack: Path) -> None:
    """In INT8 they share a scale, and random weights turn that into other words; see test_parity."""
    translator = Translator(tiny_fp32_pack)
    texts = ["the dog", "", "where is the station here today?", "cat\ndog", "x"]
    for beams in (1, 3):
        together = translator.translate_batch(texts, beam_size=beams, together=True)
        alone = [translator.translate_batch([text], beam_size=beams)[0] for text in texts]
        assert [item.text for item in together] == [item.text for item in alone]


def test_n_best_and_limits(translator: Translator) -> None:
    (found,) = translator.translate_batch(["the dog sees"], beam_size=4, n_best=4, max_length=12)
    scores = [found.score, *(item.score for item in found.alternatives)]
    assert scores == sorted(scores, reverse=True)
    assert all(len(item.tokens) <= 10 for item in found.alternatives)
    (found,) = translator.translate_batch(["the dog sees"], max_length=20, min_length=20)
    assert len(found.tokens) == 18 and "truncated" in found.flags


def test_a_length_asked_for_is_not_taken_for_a_runaway(translator: Translator) -> None:
    """An output of a few words that is longer than they can mean is a fault, unless the caller wants it so long."""
    (found,) = translator.translate_batch(["the dog"], min_length=40)
    assert len(found.tokens) >= 38  # the start and the end are counted
    assert not {"kept", "retried", "cut"} & {*found.flags} and found.text != "the dog"


@pytest.mark.parametrize(
    "arguments",
    [
        {"beam_size": 0},
        {"beam_size": 65},
        {"beam_size": 2.0},
        {"beam_size": True},
        {"n_best": 2, "beam_size": 1},
        {"n_best": 0},
        {"max_length": 1},
        {"max_length": 65},
        {"min_length": -1},
        {"min_length": 11, "max_length": 10},
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], translator: Translator) -> None:
    with pytest.raises(InputError):
        translator.translate_batch(["the dog"], **arguments)


def test_texts_are_checked(translator: Translator) -> None:
    for texts in ("the dog", [b"bytes"], [None]):
        with pytest.raises(InputError):
            translator.translate_batch(texts)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not available"):
        Translator(translator.pack.path, providers=["NoSuchProvider"])


@pytest.mark.parametrize(
    "text", ["the dog sees the cat", "  one\ntwo  ", "Where is the station? It is near the house.\n\nThank you!"]
)
def test_stream_grows_to_the_translation(text: str) -> None:
    """With a trained model: random weights fall into loops, and a loop is translated again unless it is streamed."""
    translator = Translator(ROOT / "models" / "en-de")
    (whole,) = translator.translate_batch([text], beam_size=1)
    assert whole.flags == () and len(whole.tokens) > 1
    steps = list(translator.stream(text))
    assert steps[-1] == whole.text and len(steps) > 1
    assert all(after.startswith(before) and after != before for before, after in itertools.pairwise(steps))


def test_stream_of_no_words_is_the_text(translator: Translator) -> None:
    assert [list(translator.stream(text)) for text in ("", " \n")] == [[""], [" \n"]]


def test_stream_cuts_a_loop_where_it_shows(translator: Translator) -> None:
    text = "the dog sees the cat"
    (whole,) = translator.translate_batch([text], beam_size=1)
    assert "retried" in whole.flags
    *grown, last = translator.stream(text)
    assert len(grown) > 1 and grown[-1].startswith(last) and len(last) < len(grown[-1])
    assert all(after.startswith(before) and after != before for before, after in itertools.pairwise(grown))


def test_threads_share_a_translator(translator: Translator) -> None:
    texts = [f"the dog sees {word} cats" for word in ("one", "two", "big", "small", "the", "not", "a", "and")]
    wanted = [translator.translate(text) for text in texts]
    streamed = [list(translator.stream(text))[-1] for text in texts]
    found: dict[int, list[str]] = {}

    def work(index: int) -> None:
        found[index] = (
            [translator.translate(text) for text in texts]
            if index % 2
            else [list(translator.stream(text))[-1] for text in texts]
        )

    workers = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [found[index] for index in range(8)] == [streamed, wanted] * 4


# --- privacy ----------------------------------------------------------------------------------------------------------


def trapped(code: str, pack: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process that the kernel kills if it opens a socket or a file to write, in native code or not."""
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "TMPDIR": str(home)}
    quiet = {"PYTHONWARNINGS": "error", "PYTHONDONTWRITEBYTECODE": "1"}
    paths = os.pathsep.join((str(SRC), str(HELPERS)))
    done = python(f"import os, trap\ntrap.set_trap()\n{code}", pack, **places, **quiet, PYTHONPATH=paths)
    if done.returncode == trap.UNAVAILABLE:
        pytest.skip(done.stderr.strip())
    return done


def test_no_socket_is_opened_and_nothing_is_written(tiny_pack: Path, tmp_path: Path, engine: str) -> None:
    code = f"""
import sys
from mobilenmt import Translator
with Translator(os.environ["PACK"], threads=2, engine={engine!r}) as translator:
    translator.translate_batch(["the dog", "two cats"], beam_size=3)
    list(translator.stream("the dog"))
assert ("onnxruntime" in sys.modules) == ({engine!r} == "onnx"), "the C core needs no ONNX Runtime"
assert ("onnxruntime" not in sys.modules) or os.environ["ORT_DISABLE_TELEMETRY"] == "1"
print("translated")
"""
    done = trapped(code, tiny_pack, tmp_path)
    assert (done.returncode, done.stdout) == (0, "translated\n"), done.stderr
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.socket()",
        "ctypes.CDLL(None).socket(2, 1, 0)",  # AF_INET, as native code opens it
        "ctypes.CDLL(None).socket(10, 2, 0)",  # AF_INET6
        "ctypes.CDLL(None).connect(0, None, 0)",
        "worker = threading.Thread(target=ctypes.CDLL(None).socket, args=(2, 1, 0)); worker.start(); worker.join()",
        "try: open(os.environ['HOME'] + '/file', 'w')\nexcept OSError: pass",
        "ctypes.CDLL(None).fopen(os.environ['HOME'].encode() + b'/file', b'w')",
        "ctypes.CDLL(None).mkdir(os.environ['HOME'].encode() + b'/folder', 0o700)",
    ],
)
def test_the_trap_catches_what_python_does_not_see(code: str, tiny_pack: Path, tmp_path: Path) -> None:
    done = trapped(
        f"import ctypes, threading, time\nprint('ready', flush=True)\n{code}\nprint('alive')", tiny_pack, tmp_path
    )
    assert (done.returncode, done.stdout) == (trap.KILLED, "ready\n"), done.stderr
    assert list(tmp_path.rglob("*")) == []


def test_an_earlier_import_with_telemetry_is_warned_about(tiny_pack: Path, tmp_path: Path) -> None:
    code = "import os, onnxruntime\nfrom mobilenmt import Translator\nTranslator(os.environ['PACK'], engine='onnx')"
    assert "RuntimeWarning" in python(code, tiny_pack, HOME=str(tmp_path)).stderr
    quiet = python(code, tiny_pack, HOME=str(tmp_path), ORT_DISABLE_TELEMETRY="1")
    assert (quiet.returncode, quiet.stderr) == (0, "")


# --- the guard --------------------------------------------------------------------------------------------------------


def fake_search(monkeypatch: pytest.MonkeyPatch, greedy: list[int], beam: list[int]) -> None:
    """Let the engine return these ids, whatever the source is."""

    def generate(self: Any, sources: Sequence[Sequence[int]], _: Any, options: SearchOptions) -> list[list[Hypothesis]]:
        ids = tuple(greedy if options.beam_size == 1 else beam)
        return [[Hypothesis(ids, -1.0, len(ids) + 1)] * options.n_best for _ in sources]

    for engine in (Engine, NativeEngine):
        monkeypatch.setattr(engine, "generate", generate)


@pytest.mark.parametrize(
    "text",
    [
        *("00:00:01,000 --> 00:00:03,500", "---", "```", "|---|:---:|", "~", "***", "42", "3.5 %", "1,000.50", "😀👍"),
        *("→", "  --  \n\n42\n", "x" * 20_000, "ACGT" * 500, "iVBORw0KGgo/" * 2000 + "==", "a" * 2**20),
    ],
    ids=lambda text: text[:20],
)
def test_what_holds_no_words_is_given_back_at_once(
    text: str, translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> list[list[Hypothesis]]:
        assert arguments[1] == [], "the model was asked"
        return []

    for engine in (Engine, NativeEngine):
        monkeypatch.setattr(engine, "generate", refuse)
    start = time.perf_counter()
    found = translator.translate_batch([text])[0]
    assert found.text == text
    assert found.flags in [("kept",)] + [()] * (len(text) < 99)
    assert time.perf_counter() - start < 1
    assert "".join(list(translator.stream(text))[-1:]) == text


def test_a_long_word_is_kept_and_the_rest_of_its_line_translated(translator: Translator) -> None:
    blob = "R0lGOD" * 50
    found = translator.translate_batch([f"the dog {blob} sees the cat"])[0]
    before, after = (translator.translate(part) for part in ("the dog", "sees the cat"))
    assert found.text == f"{before} {blob} {after}"
    assert "kept" in found.flags


LOOP = [9, 10, 11] * 8
SOURCE = "the dog sees a cat and where is the station"


def test_a_loop_is_translated_again_with_a_beam(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_search(monkeypatch, LOOP, [9, 10, 11, 12, 13, 14])
    (found,) = translator.translate_batch([SOURCE])
    assert (len(found.tokens), found.flags) == (6, ("retried",))


def test_a_loop_that_stays_is_cut_and_flagged(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_search(monkeypatch, LOOP, LOOP)
    (found,) = translator.translate_batch([SOURCE])
    assert (len(found.tokens), found.flags) == (3, ("retried", "cut"))


@pytest.mark.parametrize("ids", [list(range(9, 20)), [9] * 10, [9, 10] * 6, []])
def test_a_word_that_runs_away_loops_or_vanishes_is_given_back(
    translator: Translator, monkeypatch: pytest.MonkeyPatch, ids: list[int]
) -> None:
    fake_search(monkeypatch, ids, ids)
    (found,) = translator.translate_batch([" a\n"])
    assert (found.text, found.tokens, found.flags) == (" a\n", (), ("retried", "kept"))


def test_what_is_far_too_short_is_translated_again(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_search(monkeypatch, [9, 10], [9, 10, 11, 12, 13, 14])
    (found,) = translator.translate_batch([SOURCE])
    assert (len(found.tokens), found.flags) == (6, ("retried",))


def test_what_stays_too_short_is_flagged_and_the_longest_shown(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_search(monkeypatch, [9], [9, 10, 11])
    (found,) = translator.translate_batch([SOURCE])
    assert (len(found.tokens), found.flags) == (3, ("retried", "short"))


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ([[9], [9, 10], [9], [11]], [[9], [9, 10], [11]]),  # of the same text, the better one
        ([[9], [9]], [[9], [12], [13]]),  # the wider search has more
        ([[13], [13]], [[13]]),  # no more to be had
    ],
)
def test_alternatives_are_different_texts(
    translator: Translator, monkeypatch: pytest.MonkeyPatch, found: list[list[int]], wanted: list[list[int]]
) -> None:
    wide = [[9], [12], [13]] if found[0] == [9] else [[13]]

    def generate(self: Any, sources: Any, limits: Any, options: SearchOptions) -> list[list[Hypothesis]]:
        beam_size, n_best = options.beam_size, options.n_best
        ids = found if beam_size == len(found) else wide
        several = [Hypothesis(tuple(item), -1.0 - rank / 8, len(item) + 1) for rank, item in enumerate(ids)]
        return [(several * beam_size)[:n_best] for _ in sources]

    for engine in (Engine, NativeEngine):
        monkeypatch.setattr(engine, "generate", generate)
    (result,) = translator.translate_batch(["the"], beam_size=len(found), n_best=min(3, len(found)), max_length=9)
    texts = [result.text, *(item.text for item in result.alternatives)]
    decode = translator._tokenizer.decode
    assert texts == [decode(ids) for ids in wanted][: min(3, len(found))]


def test_a_retry_holds_one_graph_at_a_time_and_leaves_the_greedy_one(
    tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is for one copy of the packed weights, also while a beam is searched in between."""
    opened: list[tuple[str, weakref.ref[Any]]] = []

    def open_and_note(path: Path, *arguments: Any, **options: Any) -> Any:
        session = open_session(path, *arguments, **options)
        opened.append((path.name, weakref.ref(session)))
        return session

    monkeypatch.setattr(sessions, "open_session", open_and_note)
    engine = Engine(Pack.open(tiny_pack))
    source, limits = [[9, 10, 11, 12]], [12]
    greedy = engine.generate(source, limits)
    with engine.search_briefly():
        with engine.search_briefly():  # as another thread's retry at the same time
            beam = engine.generate(source, limits, SearchOptions(beam_size=3))
        assert [(name, ref() is None) for name, ref in opened] == [("greedy.onnx", True), ("translator.onnx", False)]
    assert engine.generate(source, limits) == greedy
    assert [(name, ref() is None) for name, ref in opened[1:]] == [("translator.onnx", True), ("greedy.onnx", False)]
    assert engine.generate(source, limits, SearchOptions(beam_size=3)) == beam
    with engine.search_briefly():  # what a caller opened for good is not closed
        assert engine.generate(source, limits, SearchOptions(beam_size=3)) == beam
    assert [ref() is None for _, ref in opened] == [True, True, False, False]


def test_the_graph_of_the_packs_own_search_is_open_and_gives_way_to_what_is_asked_for(
    tiny_checkpoint: Path, tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a pack that says beams greedy.onnx would lie in memory for nothing; and the other way round."""
    opened: list[tuple[str, weakref.ref[Any]]] = []

    def open_and_note(path: Path, *arguments: Any, **options: Any) -> Any:
        session = open_session(path, *arguments, **options)
        opened.append((path.name, weakref.ref(session)))
        return session

    def held() -> list[str]:
        return [name for name, ref in opened if ref() is not None]

    monkeypatch.setattr(sessions, "open_session", open_and_note)
    shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    path = tmp_path / "checkpoint" / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_beams": 3}))
    beams = export(tmp_path / "checkpoint", tmp_path / "en-de").path
    source, limits, search = [[9, 10, 11, 12]], [12], SearchOptions(beam_size=3)
    opened.clear()
    wide = Engine(Pack.open(beams))
    assert held() == ["translator.onnx"]
    found = wide.generate(source, limits, search)
    assert held() == ["translator.onnx"]
    assert wide.generate(source, limits) == Engine(Pack.open(tiny_pack)).generate(source, limits)
    assert held() == ["translator.onnx", "greedy.onnx"]  # both were asked for
    del wide
    narrow = Engine(Pack.open(beams))
    narrow.generate(source, limits)
    assert held() == ["greedy.onnx"]
    del narrow
    other = Engine(Pack.open(tiny_pack))
    assert held() == ["greedy.onnx"]
    assert other.generate(source, limits, search) == found
    assert held() == ["translator.onnx"]


def test_an_explicit_limit_turns_the_guard_off(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_search(monkeypatch, LOOP, LOOP)
    (found,) = translator.translate_batch([SOURCE], max_length=40)
    assert (len(found.tokens), found.flags) == (24, ())
