"""The C core alone: its kernels, a step against the floor that memory sets, instructions, which no clock disturbs."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from benchmarks import ROOT
from benchmarks.harness.bench import Bench
from benchmarks.harness.errors import expect
from benchmarks.harness.worker import child_command
from mobilenmt.runtime.hypothesis import SearchOptions
from mobilenmt.runtime.native.engine import NativeEngine
from mobilenmt.runtime.native.library import load_library
from mobilenmt.runtime.pack import Pack

_LENGTH = 30
_STEPS = (30, 90)
_ENOUGH_SECONDS = 2.0
_TEXTS = ("Yes.", "Where is the train station, and how long does it take to walk there from the hotel?")


def kernels(bench: Bench) -> dict[str, Any]:
    """Seconds of a sentence of 30 tokens, by the set of kernels, greedy and beam."""
    library, rows = load_library(), []
    names = [name.decode() for i in range(16) if (name := library.mn_kernels(i))]
    engines = {name: NativeEngine(Pack.open(bench.path("ours-native")), kernels=name) for name in names}
    for beam in bench.settings.beams:
        seconds = _in_turns({name: _call(bench, engine, beam, _LENGTH) for name, engine in engines.items()}, bench)
        rows += [{"engine": name, "beam": beam, "seconds": [[one] for one in found]} for name, found in seconds.items()]
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
    found = {name: median(times) for name, times in _in_turns(calls, bench).items()}
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
    """Rows of the output layer that a sentence needs; docs/core/native-format.md says where the shortlist lies."""
    native = pack.file("native.bin").read_bytes()
    (first,) = struct.unpack_from("<I", native, 96)
    common, lexical = (struct.unpack_from("<4I3Q", native, first + 48 * index) for index in (8, 9))
    if not common[0]:
        return pack.manifest.model.target_vocab_size
    weights = pack.file("weights.bin").read_bytes()
    kind = np.uint16 if lexical[0] == 7 else np.int32
    chosen = np.frombuffer(weights, np.uint8, common[1], common[4]).astype(bool)
    table = np.frombuffer(weights, kind, lexical[1] * lexical[2], lexical[4]).reshape(lexical[1], lexical[2])
    chosen[table[[*source, pack.manifest.tokens.eos]]] = True
    return int(chosen.sum())


def _call(bench: Bench, engine: NativeEngine, beam: int, steps: int) -> Callable[[], object]:
    source = next(iter(bench.corpus.slices(_LENGTH)))
    options = SearchOptions(beam, min_length=steps + 1)
    return lambda: engine.generate([source], [steps + 1], options)


def _in_turns(calls: dict[str, Callable[[], object]], bench: Bench) -> dict[str, list[float]]:
    """Seconds of this thread's work, call after call in turns; slow ones take part in fewer."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(5 * bench.settings.turns):
        for name, call in calls.items():
            if sum(seconds[name]) < _ENOUGH_SECONDS:
                call()
                start = time.thread_time()
                call()
                seconds[name].append(time.thread_time() - start)
    return seconds
