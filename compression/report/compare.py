"""Runs side by side: candidates and which of them nothing else beats, what each step cost, examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilenmt.compression.core.errors import EvaluationError, ReportError
from mobilenmt.compression.evaluate.evaluation import OUTPUTS, TESTS, SystemResult, file_name
from mobilenmt.compression.evaluate.scoring import read_lines
from mobilenmt.compression.evaluate.stage import PACK, PRUNED, STUDENT, TEACHER
from mobilenmt.compression.report.run import Evaluated, Run, Test

METRICS = {"bleu": "BLEU", "chrf": "chrF"}
STEPS = {TEACHER: "teacher", PRUNED: "pruned", STUDENT: "distilled", PACK: "pack"}
"""Systems of the evaluate stage, in the order in which one is made of another -> what examples call them."""
_MORE = {PRUNED: ", not trained yet", STUDENT: ", fp32"}
EXAMPLES = 12


@dataclass(frozen=True)
class Candidate:
    """A system of a run that could be used."""

    number: int
    run: int
    """Which of the runs."""
    label: str
    system: SystemResult
    quality: Mapping[str, float]
    """Metric -> mean over the judged sets; empty if it was not scored on all of them."""

    @property
    def milliseconds(self) -> float | None:
        """A sentence, many at once, loading not counted."""
        rate = self.system.sentences_per_second
        return 1e3 / rate if rate else None

    def cost(self, name: str) -> float | None:
        """Its ``bytes`` or ``milliseconds``."""
        return self.milliseconds if name == "milliseconds" else self.system.bytes


@dataclass(frozen=True)
class Comparison:
    """Candidates of all runs."""

    judged: tuple[Test, ...]
    """Sets that the mean is taken of: the dev sets that all evaluated runs share; where they share none, all sets that
    they share. Empty if nothing can be compared."""
    of_dev: bool
    candidates: tuple[Candidate, ...]

    def front(self, cost: str, metric: str) -> list[Candidate]:
        """Those that no other is better than without costing more: the Pareto front, cheapest first."""
        known = [(value, one) for one in self.candidates if (value := one.cost(cost)) is not None and one.quality]
        found: list[Candidate] = []
        for _, one in sorted(known, key=lambda item: (item[0], -item[1].quality[metric], item[1].number)):
            if not found or one.quality[metric] > found[-1].quality[metric]:
                found.append(one)
        return found


@dataclass(frozen=True)
class Step:
    """A model on the way from teacher to pack."""

    label: str
    system: SystemResult
    quality: Mapping[str, float]
    change: Mapping[str, float] | None
    """Against the step before; None for the first."""


@dataclass(frozen=True)
class Example:
    """A sentence, and what became of it."""

    test: str
    line: int
    source: str
    reference: str
    outputs: Sequence[tuple[str, str]]
    """What came out, in the order of the steps: who wrote it (several where they wrote the same), and the text."""


def compare(runs: Sequence[Run], names: Sequence[str]) -> Comparison:
    """Candidates of runs; ``names`` tells the runs apart."""
    evaluated = [run.evaluated for run in runs if run.evaluated is not None]
    dev, everything = _shared([one.dev for one in evaluated]), _shared([one.tests for one in evaluated])
    judged = dev or everything
    found: list[Candidate] = []
    for index, (run, name) in enumerate(zip(runs, names, strict=True)):
        for system in run.evaluated.systems if run.evaluated else ():
            label = system.name if len(runs) == 1 else f"{name}: {system.name}"
            found.append(Candidate(len(found) + 1, index, label, system, mean(system, judged)))
    return Comparison(judged, bool(dev), tuple(found))


def mean(system: SystemResult, tests: Sequence[Test]) -> dict[str, float]:
    """Mean of each metric over test sets; empty if the system was not scored on one of them, or there are none."""
    scores = [system.scores[test.name] for test in tests if test.name in system.scores]
    if not scores or len(scores) < len(tests):
        return {}
    return {metric: sum(getattr(score, metric) for score in scores) / len(scores) for metric in METRICS}


def steps(run: Run) -> tuple[Step, ...]:
    """Teacher, pruned model, student and pack as far as they were evaluated, each against the one before."""
    evaluated = run.evaluated
    if evaluated is None:
        return ()
    found: list[Step] = []
    for name, label in STEPS.items():
        system = evaluated.system(name)
        quality = {} if system is None else mean(system, evaluated.dev or evaluated.tests)
        if system is None or not quality:
            continue
        change = {metric: quality[metric] - found[-1].quality[metric] for metric in METRICS} if found else None
        told = _pack_label(run, system) if name == PACK else label + _MORE.get(name, "")
        found.append(Step(told, system, quality, change))
    return tuple(found)


def _pack_label(run: Run, system: SystemResult) -> str:
    export = run.stage("export")
    shortlist = ", with shortlist" if export is not None and "shortlist_covers" in export.summary else ""
    return f"{(system.precision or '').upper()} pack{shortlist}".strip()


def choose_examples(runs: Sequence[Run], names: Sequence[str], count: int = EXAMPLES) -> tuple[Example, ...]:
    """Sentences with what each step of each run made of them, chosen without looking at them.

    The first run that kept its test sets decides: all lines of its dev sets (of all its sets, if it has no dev sets),
    one set after the other, are cut into ``count`` equal parts, and the line in the middle of each part is taken. Other
    runs join in where they were evaluated on the same sentence.

    Raises ReportError if kept outputs do not fit the test sets.
    """
    chosen = next((run.evaluated for run in runs if run.evaluated and (run.evaluated.folder / TESTS).is_dir()), None)
    if chosen is None:
        return ()
    pool = [
        (test.name, line, *pair)
        for test in chosen.dev or chosen.tests
        for line, pair in enumerate(_pairs(chosen, test.name) or ())
    ]
    count = min(count, len(pool))
    places = [pool[(2 * index + 1) * len(pool) // (2 * count)] for index in range(count)]
    outputs: list[dict[str, dict[str, list[str]]]] = [{} for _ in places]  # text -> run -> labels
    for run, name in zip(runs, names, strict=True):
        if run.evaluated is None:
            continue
        sets = {test: _pairs(run.evaluated, test) or [] for test in dict.fromkeys(place[0] for place in places)}
        for key, label in STEPS.items():
            if run.evaluated.system(key) is None:
                continue
            lines = {test: _outputs(run.evaluated, key, test, pairs) for test, pairs in sets.items()}
            for mine, (test, line, source, _) in zip(outputs, places, strict=True):
                if lines[test] and line < len(sets[test]) and sets[test][line][0] == source:
                    mine.setdefault(lines[test][line], {}).setdefault(name, []).append(label)
    return tuple(
        Example(test, line + 1, source, reference, [(_writers(who, len(runs)), text) for text, who in mine.items()])
        for (test, line, source, reference), mine in zip(places, outputs, strict=True)
    )


def _writers(labels: Mapping[str, Sequence[str]], runs: int) -> str:
    """Who wrote a text: labels by run, in words."""
    told = {name: ", ".join(of_run) for name, of_run in labels.items()}
    if runs == 1 or (len(told) == runs and len(set(told.values())) == 1):
        return next(iter(told.values())) + (" (all runs)" if runs > 1 else "")
    return "; ".join(f"{name}: {labels}" for name, labels in told.items())


def _pairs(evaluated: Evaluated, test: str) -> list[tuple[str, str]] | None:
    path = evaluated.folder / TESTS / f"{file_name(test)}.tsv"
    if not path.is_file():
        return None
    parts = [line.partition("\t") for line in _lines(path)]
    return [(source, reference) for source, _, reference in parts]


def _outputs(evaluated: Evaluated, system: str, test: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    path = evaluated.folder / OUTPUTS / file_name(system) / f"{file_name(test)}.txt"
    if not pairs or not path.is_file():
        return []
    lines = _lines(path)
    if len(lines) != len(pairs):
        raise ReportError(
            f"{path} is damaged ({len(lines)} lines for {len(pairs)} sentences); make the stage again with --force"
        )
    return lines


def _lines(path: Path) -> list[str]:
    try:
        return read_lines(path)
    except EvaluationError as error:
        raise ReportError(str(error)) from None


def _shared(sets: Sequence[Sequence[Test]]) -> tuple[Test, ...]:
    """Those that are in all of them, in the order of the first."""
    return tuple(test for test in (sets[0] if sets else ()) if all(test in others for others in sets))
