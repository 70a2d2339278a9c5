"""Write the text of a made-up language, for trying the whole pipeline in a minute.

    python examples/toy/make_text.py examples/toy/text

English of two dozen words on one side; on the other a language that puts the verb last and the adjective behind its
noun, marks number, case and tense by endings, has no articles, and begins questions with "ka". A sentence is as good as
its rules say, so a model that has learned the rules scores 100.
"""

from __future__ import annotations

import itertools
import random
import sys
from pathlib import Path
from typing import NamedTuple

LANGUAGES = ("en", "qaa")
"""qaa: the first of the codes that ISO 639-2 keeps free for local use."""

NOUNS = {"dog": "fola", "cat": "mire", "child": "teko", "bird": "zupi", "woman": "hana", "man": "boru", "horse": "deka"}
PLURALS = {"child": "children", "woman": "women", "man": "men"}
ADJECTIVES = {"small": "nim", "old": "gar", "red": "vos", "happy": "pel", "tired": "sul"}
VERBS = {"see": "lak", "find": "sut", "hear": "rin", "follow": "dom", "help": "bek"}
PASTS = {"see": "saw", "find": "found", "hear": "heard", "follow": "followed", "help": "helped"}
NUMBERS = {"the": "", "two": "du", "three": "tir"}
SIZES = {"train": 700, "dev": 80, "test": 80}
SEED = 7


class Phrase(NamedTuple):
    """A noun, what it is like, and how many of it there are."""

    number: str
    adjective: str
    noun: str

    def english(self) -> str:
        """As in ``two old dogs``."""
        noun = self.noun if self.number == "the" else PLURALS.get(self.noun, f"{self.noun}s")
        return " ".join(filter(None, (self.number, self.adjective, noun)))

    def other(self, case: str) -> str:
        """As in ``folanim garnim du``: noun, adjective, number; noun and adjective take the endings."""
        ending = ("" if self.number == "the" else "ni") + case
        words = [NOUNS[self.noun] + ending]
        if self.adjective:
            words.append(f"{ADJECTIVES[self.adjective]}a{ending}")
        return " ".join(filter(None, (*words, NUMBERS[self.number])))


def translate(subject: Phrase, verb: str, target: Phrase, form: str) -> tuple[str, str]:
    """A sentence in both languages; ``form`` is ``past``, ``never`` or ``question``."""
    stem = VERBS[verb]
    if form == "past":
        english = f"{subject.english()} {PASTS[verb]} {target.english()}."
        other = f"{subject.other('')} {target.other('m')} {stem}ta."
    elif form == "never":
        english = f"{subject.english()} never {PASTS[verb]} {target.english()}."
        other = f"{subject.other('')} {target.other('m')} ne {stem}ta."
    else:
        english = f"did {subject.english()} {verb} {target.english()}?"
        other = f"ka {subject.other('')} {target.other('m')} {stem}ta?"
    return english[0].upper() + english[1:], other[0].upper() + other[1:]


def sentences() -> dict[str, list[tuple[str, str]]]:
    """Set -> its sentences, drawn from all that the grammar makes; no sentence is in two sets."""
    choose = random.Random(SEED)
    phrases = [Phrase(*parts) for parts in itertools.product(NUMBERS, ("", *ADJECTIVES), NOUNS)]
    found: dict[tuple[str, str], None] = {}
    while len(found) < sum(SIZES.values()):
        subject, target = choose.choice(phrases), choose.choice(phrases)
        form = choose.choice(("past", "past", "never", "question"))
        found[translate(subject, choose.choice(list(VERBS)), target, form)] = None
    pairs = iter(found)
    return {name: list(itertools.islice(pairs, size)) for name, size in SIZES.items()}


def main(folder: Path) -> None:
    """Write train.tsv, dev.tsv and test.tsv."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, pairs in sentences().items():
        lines = "".join(f"{source}\t{target}\n" for source, target in pairs)
        (folder / f"{name}.tsv").write_text(lines, encoding="utf-8")
        print(f"{folder / name}.tsv: {len(pairs)} pairs, such as {pairs[0][0]!r} - {pairs[0][1]!r}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "text")
