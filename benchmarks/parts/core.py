"""The C core alone: its kernels, a step against the floor that memory sets, instructions, which no clock disturbs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks import ROOT
from benchmarks.harness.bench import Bench
from benchmarks.harness.errors import expect
from benchmarks.harness.worker import child_command
from benchmarks.parts.speed import Row, take_turns
from benchmarks.report.stats import summarize
from mobilenmt.export.ecosystem.stored import stored_weights
from mobilenmt.runtime.hypothesis import SearchOptions
from mobilenmt.runtime.native.engine import NativeEngine
from mobilenmt.runtime.native.library import load_library
from mobilenmt.runtime.pack import Pack

_LENGTH = 30
_STEPS = (30, 90)
_TEXTS = ("Yes.", "Where is the train station, and how long does it take to walk there from the hotel?")


def kernels(bench: Bench) -> dict[str, Any]:
    """Seconds of a sentence of 30 tokens, by the set of kernels, greedy and beam."""
    library, rows = load_library(), []
    names = [name.decode() for i in range(16) if (name := library.mn_kernels(i))]
    engines = {name: NativeEngine(Pack.open(bench.path("ours-native")), kernels=name) for name in names}
    for beam in bench.settings.beams:
        found = _in_turns({name: _call(bench, engine, beam, _LENGTH) for name, engine in engines.items()}, bench)
        rows += [row | {"beam": beam} for row in found]
    return {"rows": rows, "length": _LENGTH}


def floor(bench: Bench) -> dict[str, Any]:
    """A greedy step against the time that one core takes to read as many bytes as the step's weights are."""
    pack = Pack.open(bench.path("ours-native"))
    m, engine = pack.manifest.model, NativeEngine(pack)
    candidates = _candidates(pack, next(iter(bench.corpus.slices(_LENGTH))))
    d, layers = m.d_model, m.decoder_layers
    weights = layers * (6 * d * d + 2 * d * m.decoder_ffn_dim) + candidates * d
    data = b"0" * weights  # memchr reads them faster than anything else at hand
    calls = {str(steps): _call(bench, engine, 1, steps) for steps in _STEPS} | {"read": lambda: data.find(b"1")}
    found = {row["engine"]: summarize(row["seconds"]).median for row in _in_turns(calls, bench)}
    step = (found[str(_STEPS[1])] - found[str(_STEPS[0])]) / (_STEPS[1] - _STEPS[0])
    return {"rows": [{"weights": weights, "read": found["read"], "step": step, "times": step / found["read"]}]}


def instructions(bench: Bench) -> dict[str, Any]:
    """Instructions of a sentence more than of a word, as valgrind counts them (without AVX-512, which it lacks)."""
    if shutil.which("valgrind") is None:
        return {"rows": []}
    command = child_command("ours-native", bench.path("ours-native"), 1, bench.tokenizer_json)
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    counts = []
    with tempfile.TemporaryDirectory() as folder:
        tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out"]
        for text in _TEXTS:
            run = subprocess.run([*tool, *command, text], cwd=ROOT, env=environment, capture_output=True, text=True)
            found = re.search(r"Collected : (\d+)", run.stderr)
            expect(found is not None, f"valgrind failed: {run.stderr[-500:]}")
            counts.append(int(found[1]) if found else 0)
    return {"rows": [{"text": _TEXTS[1], "instructions": counts[1] - counts[0]}]}


def _candidates(pack: Pack, source: list[int]) -> int:
    """Rows of the output layer that a sentence needs."""
    stored = stored_weights(pack)
    if "shortlist.common" not in stored:
        return pack.manifest.model.target_vocab_size
    chosen = stored["shortlist.common"].astype(bool)
    chosen[stored["shortlist.lexical"][[*source, pack.manifest.tokens.eos]]] = True
    return int(chosen.sum())


def _call(bench: Bench, engine: NativeEngine, beam: int, steps: int) -> Callable[[], object]:
    source = next(iter(bench.corpus.slices(_LENGTH)))
    options = SearchOptions(beam, min_length=steps + 1)
    return lambda: engine.generate([source], [steps + 1], options)


def _in_turns(calls: dict[str, Callable[[], object]], bench: Bench) -> list[Row]:
    """Seconds of this thread's work, each call after one that is not timed."""

    def work(call: Callable[[], object], turn: int, first: bool) -> list[float]:
        call()
        start = time.thread_time()
        call()
        return [time.thread_time() - start]

    return take_turns(calls, range(5 * bench.settings.turns + 1), work)
