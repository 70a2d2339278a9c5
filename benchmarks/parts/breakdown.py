"""Where the time of our engine goes, operator by operator, from ONNX Runtime's own profile."""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.harness.bench import Bench

_LENGTH = 30
_SENTENCES = 12
_NESTED = ("Loop", "If", "Scan")
Event = dict[str, Any]


def breakdown(bench: Bench) -> dict[str, Any]:
    """Microseconds by operator of the encoder (once a sentence) and of one decoder step, greedy and beam, 30 tokens.

    The profiler costs time itself, most for the smallest operators: shares are more trustworthy than sums.
    """
    rows = []
    path = bench.path("ours-int8")
    sources = list(islice(bench.corpus.slices(_LENGTH), _SENTENCES))
    for beam in bench.progress(bench.settings.beams, "breakdown"):
        events = _profile(path, sources, beam, _LENGTH)
        rows += [{"beam": beam, **row} for row in by_operator(events, _SENTENCES, _LENGTH)]
    return {"rows": rows, "length": _LENGTH}


def by_operator(events: Iterable[Event], sentences: int, steps: int) -> list[dict[str, Any]]:
    """Sum up a profile of ``sentences`` runs of so many steps each.

    A node's time includes that of the nodes of its subgraphs; here each has what is left without them. Nodes inside a
    ``Loop`` make up the step; the rest of them, and the loop's own work, the encoder and the frame.
    """
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    time: dict[tuple[str, str], float] = defaultdict(float)
    count: Counter[tuple[str, str]] = Counter()
    open_nodes: list[tuple[float, str, tuple[str, str]]] = []  # end, operator and key of the nodes that contain this
    for event in sorted(nodes, key=lambda event: (event["ts"], -event["dur"])):
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
        if open_nodes:
            time[open_nodes[-1][2]] -= duration
        if operator in _NESTED:
            open_nodes.append((start + duration, operator, key))
    rows = []
    for (phase, operator), total in sorted(time.items(), key=lambda item: -item[1]):
        runs = sentences * steps if phase == "step" else sentences
        row = {"phase": phase, "operator": operator, "nodes": count[phase, operator] / runs}
        rows.append(row | {"microseconds": total / runs, "share": total / sum(time.values())})
    return rows


def _profile(path: Path, sources: Sequence[list[int]], beam: int, length: int) -> list[Event]:
    """Run our engine as it stands, with ONNX Runtime's profiler turned on from outside."""
    import onnxruntime

    from benchmarks.engines.ours import Onnx

    with tempfile.TemporaryDirectory() as folder:
        sessions: list[Any] = []
        unprofiled = onnxruntime.InferenceSession

        def profiled(model: str, options: Any, **others: Any) -> Any:
            options.enable_profiling, options.profile_file_prefix = True, f"{folder}/profile"
            sessions.append(unprofiled(model, options, **others))
            return sessions[-1]

        with mock.patch.object(onnxruntime, "InferenceSession", profiled):
            engine = Onnx(str(path), 1)
            for source in sources:
                engine.run([source], beam, length, length)
        files = [Path(session.end_profiling()) for session in sessions]
        return [event for file in files for event in json.loads(file.read_text())]
