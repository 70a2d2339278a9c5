"""The log of a run, one JSON object a line, and the plot of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mobilenmt.compression.core.errors import TrainingError
from mobilenmt.runtime.atomic import atomic_path


class RunLog:
    """log.jsonl of a run folder. Lines have ``step`` (updates made) and ``kind``: ``train`` or ``dev``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def resume(self, step: int) -> None:
        """Drop lines of updates after ``step``, and one that a kill cut: the run makes them again."""
        if not self.path.exists():
            return
        kept = [line for line in read_log(self.path) if line["step"] <= step]
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(_line(entry) for entry in kept), encoding="utf-8")

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append a line. Raises TrainingError if the disk refuses."""
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(_line(entry))
        except OSError as error:
            raise TrainingError(f"{self.path}: cannot be written: {error}; make room and run again") from error


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a log.jsonl; one that a kill cut, or that is damaged, is left out."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            match entry:
                case {"step": int(), "kind": "train", "nll": float()} | {
                    "step": int(),
                    "kind": "dev",
                    "scores": dict(),
                }:
                    if line.endswith("\n"):
                        yield entry


def plot(log: Path, out: Path) -> None:
    """Draw loss (left) and dev scores (right) over updates to a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    entries = list(read_log(log))
    training = [entry for entry in entries if entry["kind"] == "train"]
    dev = [entry for entry in entries if entry["kind"] == "dev"]
    figure = Figure(figsize=(9, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot([entry["step"] for entry in training], [entry["nll"] for entry in training], linewidth=1)
    left.set(xlabel="updates", ylabel="cross-entropy, nats a token", title="Training loss")
    names = sorted({name for entry in dev for name in entry["scores"]})
    for index, name in enumerate(names):
        points = [(entry["step"], entry["scores"][name]) for entry in dev if name in entry["scores"]]
        for metric, shown, style in (("bleu", "BLEU", "-"), ("chrf", "chrF", ":")):
            steps, values = zip(*((step, score[metric]) for step, score in points), strict=True)
            right.plot(steps, values, style, marker=".", color=f"C{index % 10}", label=f"{name} {shown}")
    right.set(xlabel="updates", title="Dev sets (dotted: chrF)")
    if names:
        right.legend(fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    with atomic_path(out) as temporary:
        figure.savefig(temporary, metadata={"Software": None})


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"
