"""What our pack translates, without a clock: batches against single sentences, and single words."""

from __future__ import annotations

from typing import Any

from benchmarks import ROOT
from benchmarks.harness.bench import Bench
from benchmarks.harness.text import read_lines
from mobilenmt import Translator
from mobilenmt.runtime.guard import is_degenerate

_BATCH = 32
_WORDS = ROOT / "benchmarks" / "words.txt"
_MOST_TIMES = 5
LOOPS, TOO_LONG = "loops", "too long"


def batch(bench: Bench) -> dict[str, Any]:
    """Lines on which a batch of 32 gives the words of single sentences, by default and put together."""
    translator = Translator(bench.path("ours-int8"))
    lines = list(bench.corpus.lines)
    alone = [translator.translate(line) for line in lines]
    rows = []
    for together in (False, True):
        texts = [
            item.text
            for start in range(0, len(lines), _BATCH)
            for item in translator.translate_batch(lines[start : start + _BATCH], together=together)
        ]
        same = sum(a == b for a, b in zip(alone, texts, strict=True))
        rows.append({"together": together, "same": same, "of": len(lines)})
    return {"rows": rows, "size": _BATCH}


def words(bench: Bench) -> dict[str, Any]:
    """200 single words, 50 of them made up: how many loop, how many give more than five times the source's length."""
    chosen = [word for line in read_lines(_WORDS) for word in line.split()]
    rows = []
    for word, output in zip(chosen, Translator(bench.path("ours-int8")).translate_batch(chosen), strict=True):
        found = [*output.flags]
        if is_degenerate([], [hash(token) for token in output.tokens]):
            found.append(LOOPS)
        if len(output.text) > _MOST_TIMES * len(word):
            found.append(TOO_LONG)
        if found:
            rows.append({"word": word, "text": output.text, "found": found})
    return {"rows": rows, "words": len(chosen), "most times": _MOST_TIMES}
