"""Where the time of our engine goes, operator by operator, from ONNX Runtime's own profile."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.bench import Bench
from benchmarks.harness.errors import expect
from benchmarks.harness.worker import environment, pinning

_LENGTH = 30
_SENTENCES = 12
Event = dict[str, Any]


def breakdown(bench: Bench) -> dict[str, Any]:
    """Microseconds by operator of the encoder (once a sentence) and of one decoder step, greedy and beam, 30 tokens.

    The profiler costs time itself, most for the smallest operators: shares are more trustworthy than sums.
    """
    rows = []
    path = bench.path("ours-int8")
    sources = [source for source, _ in zip(bench.corpus.slices(_LENGTH), range(_SENTENCES), strict=False)]
    for beam in bench.progress(bench.settings.beams, "breakdown"):
        with tempfile.TemporaryDirectory() as folder:
            request = json.dumps({"sources": sources, "beam": beam, "length": _LENGTH, "folder": folder})
            command = [sys.executable, "-m", "benchmarks.parts.breakdown", str(path)]
            found = subprocess.run(
                command,
                input=request,
                capture_output=True,
                text=True,
                env=environment(1),
                preexec_fn=pinning(bench.settings.pinned(1)),
                check=False,
            )
            expect(found.returncode == 0, f"profiling failed: {found.stderr.strip()[-300:]}")
            events = [event for file in Path(folder).glob("*.json") for event in json.loads(file.read_text())]
        rows += [{"beam": beam, **row} for row in by_operator(events, _SENTENCES, _LENGTH)]
    return {"rows": rows, "length": _LENGTH}


def by_operator(events: Iterable[Event], sentences: int, steps: int) -> list[dict[str, Any]]:
    """Sum up a profile of ``sentences`` runs of so many steps each.

    A node's time includes that of the nodes of its subgraphs; here each has what is left without them. Nodes inside a
    ``Loop`` make up the step; the rest of them, and the loop's own work, the encoder and the frame.
    """
    nodes = [
        event
        for event in events
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith("_kernel_time") and "dur" in event
    ]
    nodes.sort(key=lambda event: (event["ts"], -event["dur"]))
    time: dict[tuple[str, str], float] = defaultdict(float)
    count: Counter[tuple[str, str]] = Counter()
    open_nodes: list[tuple[float, str, tuple[str, str]]] = []  # end, operator and key of the nodes that contain this
    for event in nodes:
        start, duration = float(event["ts"]), float(event["dur"])
        # Times are whole microseconds: a node that begins in the last one of another still lies behind it.
        while open_nodes and (start >= open_nodes[-1][0] or start + duration > open_nodes[-1][0] + 1):
            open_nodes.pop()
        operator = event["args"]["op_name"]
        inside = any(name == "Loop" for _, name, _ in open_nodes)
        phase = "step" if inside else "loop" if operator == "Loop" else "encoder"
        key = (phase, operator)
        time[key] += duration
        count[key] += 1
        if open_nodes and open_nodes[-1][1] in ("Loop", "If", "Scan"):
            time[open_nodes[-1][2]] -= duration
        if operator in ("Loop", "If", "Scan"):
            open_nodes.append((start + duration, operator, key))
    rows = []
    for (phase, operator), total in time.items():
        runs = sentences * steps if phase == "step" else sentences
        rows.append(
            {
                "phase": phase,
                "operator": operator,
                "nodes": count[phase, operator] / runs,
                "microseconds": total / runs,
                "share": total / max(1e-9, sum(time.values())),
            }
        )
    return sorted(rows, key=lambda row: -row["share"])


def _profile(path: str, sources: Sequence[list[int]], beam: int, length: int, folder: str) -> None:
    """Run our engine as it stands, with ONNX Runtime's profiler turned on from outside."""
    import onnxruntime

    class Profiled(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, model: str, options: Any, **others: Any) -> None:
            options.enable_profiling = True
            options.profile_file_prefix = f"{folder}/profile"
            super().__init__(model, options, **others)
            sessions.append(self)

    sessions: list[onnxruntime.InferenceSession] = []
    onnxruntime.InferenceSession = Profiled
    from benchmarks.engines.ours import Ours

    engine = Ours(path, 1)
    for source in sources:
        engine.run([source], beam, length, length)
    for session in sessions:
        session.end_profiling()


if __name__ == "__main__":
    _request = json.load(sys.stdin)
    _profile(sys.argv[1], _request["sources"], _request["beam"], _request["length"], _request["folder"])
