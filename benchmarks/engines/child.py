"""The process of one engine: ``python -m benchmarks.engines.child ENGINE MODEL THREADS TOKENIZER [TEXT]``.

It reads requests from standard input, a line of JSON each, and answers in the same way; a request names the method of
:class:`Child` that it calls. With a text it translates that and ends. It imports nothing but this
folder and the engine, since it also runs where only that engine is installed.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.engines.base import SPECS, Engine, Ids
from benchmarks.engines.textual import open_text

Answer = dict[str, Any]
_FORCED = 30
"""Tokens that an engine without a tokenizer works on in :meth:`Child.work`."""


class Child:
    """One engine. With a tokenizer it translates texts, else ids."""

    engine: Engine
    translator: Callable[[str], str]

    def __init__(self, name: str, path: str, threads: int, tokenizer: str) -> None:
        self.name, self.path, self.threads, self.tokenizer = name, path, threads, tokenizer
        self.kept: list[object] = []

    def idle(self, trivial: str) -> None:
        """Import what the engine needs and run something trivial with it; ``trivial`` is an ONNX model in hex."""
        load = importlib.import_module
        if self.name == "ours-native":
            load("mobilenmt.runtime.translator")
            load("mobilenmt.runtime.native.engine")
            load("mobilenmt.runtime.native.library").load_library()
            return
        import numpy as np

        load("tokenizers")
        module = SPECS[self.name].factory.split(":")[0]
        load("mobilenmt.runtime.translator" if module == "ours" else f"benchmarks.engines.{module}")
        if module in ("hf", "optimum_ort"):
            torch = load("torch")
            self.kept.append(torch.nn.Linear(8, 8)(torch.zeros(1, 8)))
        if module in ("ours", "optimum_ort"):
            model = bytes.fromhex(trivial)
            session = load("onnxruntime").InferenceSession(model, providers=["CPUExecutionProvider"])
            session.run(None, {"x": np.zeros(1, np.float32)})
            self.kept.append(session)
        if module == "ct2":
            self.kept.append(load("ctranslate2").StorageView.from_array(np.zeros(8, np.float32)))

    def load(self) -> None:
        """Open the model."""
        if self.tokenizer:
            self.translator = open_text(self.name, self.path, self.tokenizer, self.threads)
        else:
            self.engine = SPECS[self.name].load(self.path, self.threads)

    def generate(
        self, sources: list[Ids], beam_size: int, min_length: int, max_length: int, warm: int, calls: int
    ) -> Answer:
        """Translate a batch of ids; preparing it is not timed."""
        prepared = self.engine.prepare(sources)
        seconds, result = _timed(lambda: self.engine.run(prepared, beam_size, min_length, max_length), warm, calls)
        outputs = self.engine.outputs(result)
        return {"seconds": seconds, "ids": [ids for ids, _ in outputs], "steps": [steps for _, steps in outputs]}

    def translate(self, text: str, warm: int, calls: int) -> Answer:
        """Translate a text."""
        return {"seconds": _timed(lambda: self.translator(text), warm, calls)[0]}

    def work(self, texts: list[str], seconds: float) -> None:
        """Translate one text after the other, or forced lengths, until the seconds have passed."""
        end = time.perf_counter() + seconds
        for text in itertools.cycle(texts):
            if self.tokenizer:
                self.translator(text)
            else:
                source = list(range(100, 100 + _FORCED - 1))
                self.engine.run(self.engine.prepare([source]), 1, _FORCED, _FORCED)
            if time.perf_counter() > end:
                break


def _timed(call: Callable[[], Any], warm: int, calls: int) -> tuple[list[float], Any]:
    seconds: list[float] = []
    result = None
    for _ in range(warm + calls):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return seconds[warm:], result


def main(name: str, path: str, threads: str, tokenizer: str, text: str = "") -> None:
    """Translate the text, or serve requests until standard input is closed."""
    if text:
        print(open_text(name, path, tokenizer, int(threads))(text), flush=True)
        return
    # Libraries print to standard output; answers go to a copy of it, and what libraries print to standard error.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    child = Child(name, path, int(threads), tokenizer)
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(child, request.pop("do"))(**request)
        print(json.dumps(answer or {}), file=out, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
