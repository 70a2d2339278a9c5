"""What an evaluation found, and how it is shown: tables, JSON, a plot, and every translation."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mobilenmt.compression.core.scoring import Score
from mobilenmt.compression.core.stage import write_json
from mobilenmt.compression.evaluate.scoring import TestSet
from mobilenmt.runtime.atomic import atomic_path

RESULTS = "scores.json"
TABLE = "scores.md"
PLOT = "scores.png"
OUTPUTS = "outputs"
TESTS = "tests"


@dataclass(frozen=True)
class SystemResult:
    """One system: its scores by test set and, unless it is a peer of which only the output is known, its costs."""

    name: str
    kind: str
    """``pack``, ``checkpoint``, ``teacher`` or ``peer``."""
    scores: Mapping[str, Score]
    path: str | None = None
    precision: str | None = None
    """As it was run: ``int8`` or ``fp32``."""
    parameters: int | None = None
    bytes: int | None = None
    """All files of the pack or checkpoint."""
    sentences_per_second: float | None = None
    """In batches sorted by length, over all test sets, loading not counted."""
    words_per_second: float | None = None
    """Source words, as white space parts them."""
    load_seconds: float | None = None
    peak_memory_bytes: int | None = None
    """Largest resident memory of the process."""
    added_memory_bytes: int | None = None
    """The same above the loaded libraries."""


@dataclass(frozen=True)
class Evaluation:
    """Systems on test sets."""

    tests: tuple[TestSet, ...]
    systems: tuple[SystemResult, ...]
    signatures: Mapping[str, str]
    outputs: Mapping[str, Mapping[str, Sequence[str]]]
    """System -> test set -> its translations."""
    beam: int | None
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """Everything but the translations, as JSON types."""
        return {
            "tests": [{"name": test.name, "lines": len(test.sources), "words": test.words} for test in self.tests],
            "signatures": dict(self.signatures),
            "beam": self.beam or "the pack's default",
            "threads": self.threads,
            "machine": _machine(),
            "systems": [asdict(system) for system in self.systems],
        }

    def table(self) -> str:
        """Two Markdown tables, scores and costs, and sacrebleu's signatures."""
        names = [test.name for test in self.tests]
        lines = [
            _row("BLEU / chrF", *names),
            _row(*["---"] * (len(names) + 1)),
            *(_row(system.name, *(_shown(system.scores.get(name)) for name in names)) for system in self.systems),
        ]
        measured = [system for system in self.systems if system.sentences_per_second is not None]
        if measured:
            lines += [
                "",
                _row("cost", "sentences/s", "words/s", "load s", "bytes", "parameters", "peak MB", "MB added"),
                _row(*["---"] * 8),
                *(_row(*_costs(system)) for system in measured),
            ]
        threads = self.threads or "all"
        lines += ["", f"Speed: batches, {threads} thread{'' if threads == 1 else 's'}, {_machine()['processor']}."]
        lines += [f"{name}: `{signature}`" for name, signature in self.signatures.items()]
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> None:
        """Write scores.json, scores.md, scores.png, every translation (outputs/SYSTEM/TEST.txt), and sources with their
        references (tests/TEST.tsv) into a folder."""
        for test in self.tests:
            pairs = zip(test.sources, test.references, strict=True)
            _write(folder / TESTS / f"{file_name(test.name)}.tsv", (f"{source}\t{target}" for source, target in pairs))
        for system, tests in self.outputs.items():
            for test_name, outputs in tests.items():
                _write(folder / OUTPUTS / file_name(system) / f"{file_name(test_name)}.txt", outputs)
        with atomic_path(folder / TABLE) as temporary:
            temporary.write_text(self.table(), encoding="utf-8")
        self.plot(folder / PLOT)
        write_json(folder / RESULTS, self.to_dict())

    def plot(self, path: Path) -> None:
        """Draw BLEU and chrF, a group of bars for each test set."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        width = 0.8 / len(self.systems)
        figure, axes = pyplot.subplots(2, 1, figsize=(max(6, 2 + 1.6 * len(self.tests)), 7), layout="constrained")
        for axis, metric in zip(axes, ("bleu", "chrf"), strict=True):
            for position, system in enumerate(self.systems):
                places = [index for index, test in enumerate(self.tests) if test.name in system.scores]
                heights = [getattr(system.scores[self.tests[index].name], metric) for index in places]
                shift = (position - (len(self.systems) - 1) / 2) * width
                axis.bar([place + shift for place in places], heights, width, label=system.name)
            axis.set_xticks(range(len(self.tests)), [test.name for test in self.tests])
            axis.set_ylabel({"bleu": "BLEU", "chrf": "chrF"}[metric])
            axis.grid(axis="y", alpha=0.3)
        axes[0].legend(fontsize="small")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=120)
        pyplot.close(figure)


def _write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def _machine() -> dict[str, Any]:
    processor = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {"processor": processor, "cores": os.cpu_count(), "system": platform.system()}


def _row(*cells: object) -> str:
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def _shown(score: Score | None) -> str:
    return "" if score is None else f"{score.bleu:.2f} / {score.chrf:.2f}"


def _costs(system: SystemResult) -> list[str]:
    def megabytes(value: int | None) -> str:
        return "" if value is None else f"{value / 1e6:.1f}"

    return [
        system.name,
        f"{system.sentences_per_second:.1f}",
        f"{system.words_per_second:.0f}",
        "" if system.load_seconds is None else f"{system.load_seconds:.2f}",
        "" if system.bytes is None else f"{system.bytes:,}",
        "" if system.parameters is None else f"{system.parameters:,}",
        megabytes(system.peak_memory_bytes),
        megabytes(system.added_memory_bytes),
    ]


def file_name(text: str) -> str:
    """Name of a system or of a test set, as files have it."""
    return (
        "".join(character if character.isalnum() or character in "._-" else "_" for character in text).lstrip(".")
        or "_"
    )
