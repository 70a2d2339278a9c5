"""Time and memory of one pack in a process of its own, with nothing loaded but the runtime.

``python -m mobilenmt.compression.plan.worker`` reads a JSON job from standard input and answers with one JSON object.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from pathlib import Path
from typing import Any

_LEAST, _ENOUGH = 5, 1.0
"""Sentences of a length at least, and seconds after which no further ones are needed."""
_TEXTS = (
    "Where is the station, please?",
    "Nobody knows why it rains today.",
    "We saw two small birds in a tree.",
    "My sister reads a book every week.",
    "A new bridge will open in the spring.",
    "Please send me the letter tomorrow.",
)


def main() -> None:
    """``{"pack", "lengths": [[n, m], …], "sources": {n: [[id, …], …]}, "repeats"}`` -> kernels, seconds, bytes."""
    from mobilenmt.runtime.hypothesis import SearchOptions
    from mobilenmt.runtime.native.engine import NativeEngine
    from mobilenmt.runtime.native.library import load_library
    from mobilenmt.runtime.pack import Pack
    from mobilenmt.runtime.translator import Translator

    job: dict[str, Any] = json.load(sys.stdin)
    load_library()
    folder = Path(job["pack"]).resolve()
    before = resident(folder)
    translator = Translator(folder, engine="native")
    for text in _TEXTS:
        translator.translate(text)
    after = resident(folder)
    engine = NativeEngine(Pack.open(folder))

    def once(source: list[int], length: int) -> float:
        options = SearchOptions(min_length=length)
        begin = time.perf_counter()
        engine.generate([source], [length], options)
        return time.perf_counter() - begin

    for n, m in job["lengths"]:
        once(job["sources"][str(n)][0], m)
    seconds = []
    for n, m in job["lengths"]:
        sources = job["sources"][str(n)]
        best, began = math.inf, time.perf_counter()
        for turn in range(job["repeats"]):
            best = min(best, once(sources[turn % len(sources)], m))
            if turn >= _LEAST and time.perf_counter() - began > _ENOUGH:
                break
        seconds.append([n, m, best])
    added = None if before is None or after is None else after - before
    print(json.dumps({"kernels": engine.model.kernels, "seconds": seconds, "bytes": added}))


def resident(folder: Path) -> int | None:
    """Anonymous memory of this process and resident pages of the files in ``folder``; None where Linux is not."""
    try:
        text = Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    total, ours = 0, False
    for line in text.splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            parts = line.split(maxsplit=5)
            ours = len(parts) > 5 and parts[5].startswith(f"{folder}/")
        elif line.startswith("Rss:" if ours else "Anonymous:"):
            total += 1024 * int(line.split()[1])
    return total


if __name__ == "__main__":
    main()
