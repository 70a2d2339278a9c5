"""How figures are written for people, in the page and in Markdown alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mobilenmt.compression.report.read import number
from mobilenmt.compression.report.run import Run, StageState

_LONG = 120
_TOLD_ELSEWHERE = {"scores", "lost", "steps", "tokens", "seconds", "shape"}


def size(value: float | None) -> str:
    """Bytes, as in 6.5 MB."""
    if value is None:
        return ""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}" if value < 999.5 * factor else f"{value / factor:,.0f} {unit}"
    return f"{value:g} bytes"


def duration(seconds: float | None) -> str:
    """As in 4.2 s, 12 min, 3 h 20 min."""
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60:,} h {minutes % 60} min"


def count(value: float | None) -> str:
    """With separators."""
    return "" if value is None else f"{value:,.0f}"


def short(value: float) -> str:
    """For an axis: 200, 1,500, 20k, 3M."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{round(value, 10):,g}"


def milliseconds(value: float | None) -> str:
    """As in 12.4 ms."""
    return "" if value is None else f"{value:.3g} ms" if value < 999.5 else f"{value:,.0f} ms"


def score(value: float | None) -> str:
    """With one digit."""
    return "" if value is None else f"{value:.1f}"


def change(value: float | None) -> str:
    """With its sign."""
    return "" if value is None else f"{value:+.1f}".replace("-0.0", "0.0").replace("+0.0", "0.0").replace("-", "−")


def share(value: float | None) -> str:
    """In percent."""
    return "" if value is None else f"{value:.0%}"


def memory(stage: StageState) -> str:
    """What a stage held; with ≤ where it may have been less."""
    return f"{'≤ ' if stage.memory_is_a_bound else ''}{size(stage.memory)}" if stage.memory else ""


def languages(run: Run) -> str:
    """As in en to de."""
    return "" if run.languages is None else " to ".join(run.languages)


def pack(run: Run) -> str:
    """Where the pack lies; empty if none was made."""
    export = run.stage("export")
    name = export.summary.get("pack") if export is not None and export.state == "done" else None
    return str(run.folder / "export" / name) if isinstance(name, str) else ""


def told_apart(runs: list[Run]) -> list[str]:
    """A name for each run that no other one has."""
    for names in ([run.name for run in runs], [run.folder.resolve().name for run in runs]):
        if len(set(names)) == len(runs):
            return names
    return (
        [str(run.folder) for run in runs]
        if len({run.folder for run in runs}) == len(runs)
        else [f"{run.folder} ({index})" for index, run in enumerate(runs, 1)]
    )


def facts(stage: StageState) -> list[tuple[str, str]]:
    """A stage's summary, key and figure, but for what has a place of its own."""
    return [
        (key, value)
        for key, value in _plain(stage.summary).items()
        if key.partition(".")[0] not in _TOLD_ELSEWHERE and len(value) <= _LONG
    ]


def rounds(run: Run) -> list[list[str]]:
    """Of each round of pruning and training before the last one: parameters left, loss before and after, updates."""
    prune = run.stage("prune")
    found = prune.summary.get("rounds") if prune is not None else None
    rows = [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []
    losses = [[number(entry.get(name)) for name in ("loss_before", "loss")] for entry in rows]
    return [
        [str(index), count(number(entry.get("parameters"))), *map(_loss, loss), count(number(entry.get("updates")))]
        for index, (entry, loss) in enumerate(zip(rows, losses, strict=True), 1)
    ]


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def corpus_line(run: Run) -> str:
    """Corpus and vocabulary in a line; empty if neither was made."""
    told = []
    corpus, vocabulary = run.stage("corpus"), run.stage("vocabulary")
    if corpus is not None and (pairs := number(corpus.summary.get("pairs"))) is not None:
        words = corpus.summary.get("words")
        sides = [number(words.get(side)) for side in ("source", "target")] if isinstance(words, Mapping) else []
        read = number(corpus.summary.get("read"))
        line = f"{count(pairs)} pairs" + (f" of {count(read)} read" if read else "")
        told.append(line + (f" ({count(sides[0])} and {count(sides[1])} words)" if all(sides) and sides else ""))
    if vocabulary is not None and (pieces := number(vocabulary.summary.get("size"))) is not None:
        a_word = [
            number(side.get("tokens_per_word")) if isinstance(side, Mapping) else None
            for side in map(vocabulary.summary.get, ("source", "target"))
        ]
        line = f"{count(pieces)} pieces"
        told.append(line + (f" ({a_word[0]:.2f} and {a_word[1]:.2f} a word)" if all(a_word) else ""))
    return "; ".join(told)


def _plain(summary: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Values that fit into a table, without zeros; of tables inside, which get dotted keys, the counts alone."""
    found: dict[str, str] = {}
    for key, value in summary.items():
        if isinstance(value, Mapping):
            found.update(_plain(value, f"{prefix}{key}."))
        elif isinstance(value, bool) or not value:
            continue
        elif isinstance(value, int):
            found[f"{prefix}{key}"] = f"{value:,}"
        elif isinstance(value, float) and not prefix:
            found[key] = f"{value:,.4g}"
        elif isinstance(value, str):
            found[f"{prefix}{key}"] = value
    return found


def figure(value: object) -> str:
    """A dimension: numbers with separators, the rest as it is."""
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def clean(text: str) -> str:
    """Text that every reader takes: U+FFFD for controls, lone surrogates and what is no character."""
    return "".join(map(_kept, text)) if any(_kept(one) != one for one in text) else text


def _kept(character: str) -> str:
    code = ord(character)
    control = (code < 32 and character not in "\t\n") or 0x7F <= code <= 0x9F
    nothing = 0xD800 <= code <= 0xDFFF or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
    return "\ufffd" if control or nothing else character


def planned(run: Run) -> str:
    """What was asked for, what was planned for it, and what came out; "" where nothing was planned."""
    if run.planned is None:
        return ""
    best, export = run.planned.candidates[0], run.stage("export")
    made = None if export is None else number(export.summary.get("bytes"))
    told = f"Asked for {run.planned.size:,} bytes, planned {best['bytes']:,}"
    if made is not None:
        over = made - run.planned.size
        told += f", made {made:,.0f}" + (f", {over:,.0f} more than asked" if over > 0 else "")
    told += f"; {milliseconds(1e3 * best['seconds'])} a sentence predicted"
    if run.planned.machine:
        told += f" on {run.planned.machine}"
    shape = _dimensions(best)
    return f"{told}. Chosen: {shape}." if shape else f"{told}."


def _dimensions(candidate: Mapping[str, Any]) -> str:
    shape, pieces = candidate.get("shape"), number(candidate.get("vocabulary"))
    if not isinstance(shape, Mapping) or pieces is None:
        return ""
    names = ("d_model", "encoder_ffn_dim", "decoder_ffn_dim", "encoder_layers", "decoder_layers")
    found = [number(shape.get(name)) for name in names]
    if None in found:
        return ""
    width, inner, outer, encoder, decoder = map(count, found)
    return f"{width} wide, FFN {inner} and {outer}, {encoder} + {decoder} layers, {count(pieces)} pieces"
