"""Time of packs side by side in one process, for forms of the same model: ``python -m benchmarks.parts.forms PACK...``

One sentence of 30 random tokens, 30 more forced out of it, one thread; the packs take turns; medians.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobilenmt.runtime.hypothesis import SearchOptions
from mobilenmt.runtime.native.engine import NativeEngine
from mobilenmt.runtime.onnx.engine import Engine
from mobilenmt.runtime.pack import Pack

TOKENS, TURNS = 30, 15
ENGINES: dict[str, Callable[[Pack], Any]] = {
    "C core": NativeEngine,
    "C core, AVX2": lambda pack: NativeEngine(pack, kernels="avx2"),
    "ONNX Runtime": Engine,
}


def measure(packs: Sequence[Path], engine: Callable[[Pack], Any], beams: int) -> list[float]:
    """Milliseconds of each pack."""
    engines = [engine(Pack.open(path)) for path in packs]
    source = np.random.default_rng(0).integers(10, 1000, TOKENS - 1).tolist()
    options = SearchOptions(beams, beams, TOKENS + 1)
    times: list[list[float]] = [[] for _ in packs]
    for turn in range(TURNS + 1):
        for found, one in zip(times, engines, strict=True):
            begin = time.perf_counter()
            one.generate([source], [TOKENS + 1], options)
            if turn:
                found.append(1000 * (time.perf_counter() - begin))
    return [statistics.median(found) for found in times]


def main(arguments: Sequence[str]) -> None:
    """Print a table, a line for each engine and number of hypotheses."""
    packs = [Path(argument) for argument in arguments]
    print("| ms | " + " | ".join(path.name for path in packs) + " |")
    print("|---|" + "---|" * len(packs))
    for name, engine in ENGINES.items():
        for beams in (1, 4):
            row = " | ".join(f"{value:.2f}" for value in measure(packs, engine, beams))
            print(f"| {name}, {'greedy' if beams == 1 else f'beam {beams}'} | {row} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
