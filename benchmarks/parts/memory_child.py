"""The measured process of :mod:`benchmarks.parts.memory`.

``python -m benchmarks.parts.memory_child MODE ENGINE MODEL TOKENIZER SENTENCES SECONDS``. It imports the libraries,
opens a trivial session, says ``idle`` and waits; then it loads the engine and works until the seconds have passed, says
``done`` and waits again. MODE is ``text`` (text in, text out) or ``ids`` (forced 30 tokens,
for a model without a tokenizer).
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.engines.base import SPECS
from benchmarks.engines.textual import open_text

_LENGTH = 30


def main(mode: str, name: str, path: str, tokenizer: str, sentences: str, seconds: str) -> None:
    """Idle, work, wait."""
    kept = _libraries(name)
    lines = [line for line in Path(sentences).read_text(encoding="utf-8").split("\n") if line]
    print("idle", flush=True)
    sys.stdin.readline()
    work = _MODES[mode](name, path, tokenizer)
    print("loaded", flush=True)
    start = time.perf_counter()
    done = 0
    while not done or time.perf_counter() - start < float(seconds):
        work(lines[done % len(lines)])
        done += 1
    print("done", flush=True)
    sys.stdin.readline()
    del kept


def _libraries(name: str) -> Any:
    """Import what the engine needs, and run something trivial with it; returns what must stay alive."""
    import numpy as np

    importlib.import_module("tokenizers")
    module = SPECS[name].factory.split(":")[0]
    if module == "ours":
        importlib.import_module("mobilenmt.runtime.translator")
        importlib.import_module("ctypes")
    else:
        importlib.import_module(f"benchmarks.engines.{module}")
    kept: list[Any] = []
    if module in ("pytorch", "optimum_ort"):
        torch = importlib.import_module("torch")
        importlib.import_module("transformers.models.marian.modeling_marian")
        kept.append(torch.nn.Linear(8, 8)(torch.zeros(1, 8)))
    if module in ("ours", "optimum_ort"):
        onnxruntime = importlib.import_module("onnxruntime")
        session = onnxruntime.InferenceSession(trivial_model(), providers=["CPUExecutionProvider"])
        session.run(None, {"x": np.zeros(1, np.float32)})
        kept.append(session)
    if module == "ct2":
        ctranslate2 = importlib.import_module("ctranslate2")
        kept.append(ctranslate2.StorageView.from_array(np.zeros(8, np.float32)))
    return kept


def _text(name: str, path: str, tokenizer: str) -> Callable[[str], object]:
    return open_text(name, path, tokenizer, 1)


def _ids(name: str, path: str, tokenizer: str) -> Callable[[str], object]:
    engine = SPECS[name].load(path, 1)
    prepared = engine.prepare([list(range(100, 100 + _LENGTH - 1))])
    return lambda text: engine.run(prepared, 1, _LENGTH, _LENGTH)


_MODES: dict[str, Callable[[str, str, str], Callable[[str], object]]] = {"text": _text, "ids": _ids}


def trivial_model() -> bytes:
    """Identity of one float, as the bytes of an ONNX model (written out, since the runtime has no onnx package)."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    info = [
        field(n, field(1, c) + field(2, field(1, b"\x08\x01\x12\x04\x0a\x02\x08\x01")))
        for n, c in ((11, b"x"), (12, b"y"))
    ]
    node = field(1, field(1, b"x") + field(2, b"y") + field(4, b"Identity"))
    graph = field(7, node + field(2, b"g") + info[0] + info[1])
    return b"\x08\x0a" + graph + field(8, b"\x10\x15")


if __name__ == "__main__":
    main(*sys.argv[1:])
