"""The report as Markdown, without pictures: for a terminal, a repository, a mail."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mobilenmt.compression.evaluate.stage import STUDENT
from mobilenmt.compression.report import words
from mobilenmt.compression.report.compare import METRICS
from mobilenmt.compression.report.content import Content, RunPart
from mobilenmt.compression.report.run import PrunedModel

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~&!$])")


def render(content: Content) -> str:
    """The report; texts of a run are escaped so that they read as they are."""
    lines = [f"# {_text(content.title)}", ""]
    several = len(content.parts) > 1
    for part in content.parts:
        corpus = words.corpus_line(part.run) or "no corpus yet"
        lines.append(f"- {_text(part.name)}: {corpus}. `{_code(str(part.run.folder))}`")
    for part in content.parts:
        if pack := words.pack(part.run):
            lines += ["", f"Try {_text(part.name)}:", "", f"    mobilenmt translate --pack {_code(pack)} TEXT"]
    for part in content.parts:
        if part.run.missing:
            lines += ["", f"{_text(part.name)} is not a whole run: {_text(' '.join(part.run.missing))}"]
    lines += ["", "## Stages", "", *_stages(content.parts, several)]
    if content.comparison.candidates:
        lines += ["", "## Scores", "", *_scores(content)]
    if any(part.steps for part in content.parts):
        lines += ["", "## What each step cost in quality", "", *_steps(content.parts, several)]
    for part in content.parts:
        if part.run.pruned is not None:
            lines += ["", f"## What was pruned{_of(part, several)}", "", *_rounds(part), *_pruned(part.run.pruned)]
        if part.run.planned is not None:
            lines += ["", f"## What was planned{_of(part, several)}", "", _text(words.planned(part.run))]
    if content.examples:
        lines += ["", "## Examples", "", *_examples(content)]
    made = "The manifest.json of each stage has its settings, hashes of what went in and came out, and versions."
    return "\n".join([*lines, "", made]) + "\n"


def _stages(parts: Sequence[RunPart], several: bool) -> Iterator[str]:
    head = ["stage", "what", "figure"]
    yield from _head(["run", *head] if several else head)
    for part in parts:
        for stage in part.run.stages:
            rows: list[tuple[str, str]] = [] if stage.state == "done" else [("state", stage.state)]
            rows += words.facts(stage)
            rows += [("updates", words.count(stage.updates)), ("tokens", words.count(stage.tokens))]
            rows += [("time", words.duration(stage.seconds)), ("memory", words.memory(stage))]
            shown = [(key, value) for key, value in rows if value] or [("done", "")]
            for index, (key, value) in enumerate(shown):
                cells = [stage.name if index == 0 else "", key.replace("_", " "), value]
                yield _row([part.name, *cells] if several else cells)


def _scores(content: Content) -> Iterator[str]:
    comparison = content.comparison
    if comparison.judged:
        yield f"Means over {_text(content.judged)}. Front: nothing is better without being larger, or slower."
        yield ""
    yield from _head(["", "model", *METRICS.values(), "bytes", "ms a sentence", "memory", "parameters", "front"])
    for one in comparison.candidates:
        system = one.system
        fronts = [
            name for name, key in (("size", "bytes"), ("time", "milliseconds")) if one.number in content.fronts[key]
        ]
        quality = [words.score(one.quality.get(metric)) for metric in METRICS]
        time = "" if one.milliseconds is None else f"{one.milliseconds:.3g}"
        costs = [words.count(system.bytes), time, words.size(system.added_memory_bytes), words.count(system.parameters)]
        yield _row([str(one.number), one.label, *quality, *costs, ", ".join(fronts)])
    for part in content.parts:
        evaluated = part.run.evaluated
        if evaluated is None:
            continue
        yield ""
        yield from _head([f"BLEU / chrF{_of(part, len(content.parts) > 1)}", *(test.name for test in evaluated.tests)])
        for system in evaluated.systems:
            found = [system.scores.get(test.name) for test in evaluated.tests]
            yield _row([system.name, *(f"{one.bleu:.2f} / {one.chrf:.2f}" if one else "" for one in found)])
    yield ""
    if content.machine:
        yield f"- Time: many sentences at once, {_text(content.machine)}. Memory: above the loaded libraries."
    for name, signature in content.signatures.items():
        yield f"- {_text(name)}: `{_code(signature)}`"


def _steps(parts: Sequence[RunPart], several: bool) -> Iterator[str]:
    head = ["step", "BLEU", "change", "chrF", "change", "bytes"]
    yield from _head(["run", *head] if several else head)
    for part in parts:
        for step in part.steps:
            change = step.change or {}
            figures = [
                told
                for metric in METRICS
                for told in (words.score(step.quality[metric]), words.change(change.get(metric)))
            ]
            cells = [step.label, *figures, words.count(step.system.bytes)]
            yield _row([part.name, *cells] if several else cells)
    for part in parts:
        *_, before, last = (None, None, *part.steps)
        if before is not None and last is not None and last.change is not None and before.system.name == STUDENT:
            lost = ", ".join(f"{0.0 - last.change[metric]:+.2f} {name}" for metric, name in METRICS.items())
            yield ""
            yield f"Lost by the pack against the fp32 checkpoint{_text(_of(part, several))}: {lost}."


def _rounds(part: RunPart) -> Iterator[str]:
    rows = words.rounds(part.run)
    if rows:
        yield from _head(["round", "parameters left", "loss before", "after", "updates then"])
        yield from map(_row, rows)
        yield ""


def _pruned(pruned: PrunedModel) -> Iterator[str]:
    yield from _head(["", "before", "after"])
    for key, value in pruned.before.items():
        if value != pruned.after.get(key):
            yield _row([key, words.figure(value), words.figure(pruned.after.get(key))])
    yield ""
    yield from _head(["part", "stayed", "share", f"share of the importance ({pruned.importance})"])
    for row in pruned.parts:
        yield _row([row.place, row.told, words.share(row.share), words.share(row.importance)])


def _examples(content: Content) -> Iterator[str]:
    yield f"{len(content.examples)} sentences from evenly spaced places of the sets, chosen without looking at them."
    for one in content.examples:
        yield ""
        yield from _head([f"{one.test}, line {one.line}", ""])
        for label, text in (("source", one.source), ("reference", one.reference), *one.outputs):
            yield _row([label, text])


def _of(part: RunPart, several: bool) -> str:
    return f" ({part.name})" if several else ""


def _head(cells: Sequence[str]) -> Iterator[str]:
    yield _row(cells)
    yield f"| {' | '.join('---' for _ in cells)} |"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_text, cells))} |"


def _text(text: str) -> str:
    """Text that Markdown leaves alone, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(words.clean(text).split()))


def _code(text: str) -> str:
    return " ".join(words.clean(text).replace("`", "'").split())
