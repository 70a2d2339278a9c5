"""How much of the test sets stands in the training text.

    python examples/en-de/overlap.py WORK/corpus/pairs.tsv.zst TEST.tsv...

For each test set: lines whose source, target, or both have the words of a training sentence in their order (case and
punctuation do not count), by whether they have at least four words; and lines of at least four words whose source
becomes a training source by taking one word out of both, so that one word differs. Written apart from the corpus
stage, which leaves the former out, so that one checks the other.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from mobilenmt.compression.core.pairs import read_pairs

Words = tuple[str, ...]


def main() -> None:
    """Print a Markdown table."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    tests = {Path(name).name.partition(".")[0]: list(_lines(Path(name))) for name in sys.argv[2:]}
    wanted = {shorter for lines in tests.values() for source, _ in lines for shorter in _without_one(source)}
    sources: set[Words] = set()
    targets: set[Words] = set()
    both: set[tuple[Words, Words]] = set()
    near: set[Words] = set()
    count = 0
    for pair in read_pairs(Path(sys.argv[1])):
        source, target = _words(pair.source), _words(pair.target)
        sources.add(source)
        targets.add(target)
        both.add((source, target))
        near.update(wanted.intersection(_without_one(source)))
        count += 1
    print(f"{count:,} training pairs.\n")
    heads = ("test set", "lines", "source, 4 words or more", "target, 4 or more", "both sides", "source, under 4")
    print("| " + " | ".join((*heads, "one word differs")) + " |")
    print("|---|---|---|---|---|---|---|")
    for name, lines in tests.items():
        long = [(source, target) for source, target in lines if len(source) >= 4]
        figures = (
            len(lines),
            sum(source in sources for source, _ in long),
            sum(target in targets for _, target in lines if len(target) >= 4),
            sum(line in both for line in lines),
            sum(source in sources for source, _ in lines if len(source) < 4),
            sum(any(shorter in near for shorter in _without_one(source)) for source, _ in long),
        )
        print(f"| {name} | " + " | ".join(f"{figure:,}" for figure in figures) + " |")


def _lines(path: Path) -> Iterator[tuple[Words, Words]]:
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line:
            source, target = line.split("\t")[:2]
            yield _words(source), _words(target)


def _words(text: str) -> Words:
    kept = (char if unicodedata.category(char)[0] in "LNM" or char == "_" else " " for char in text.casefold())
    return tuple("".join(kept).split())


def _without_one(words: Words) -> Iterator[Words]:
    """The sentence without each of its words in turn, the gap marked."""
    if len(words) >= 4:
        for place in range(len(words)):
            yield (*words[:place], "", *words[place + 1 :])


if __name__ == "__main__":
    main()
