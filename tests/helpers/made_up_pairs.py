"""Sentence pairs of a small English-German grammar: real function words, any number of them, equal in every run."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

NOUNS = [("dog", "Hund"), ("table", "Tisch"), ("garden", "Garten"), ("king", "König"), ("bird", "Vogel")]
NOUNS += [("tree", "Baum"), ("teacher", "Lehrer"), ("ship", "Schiff"), ("letter", "Brief"), ("uncle", "Onkel")]
ADJECTIVES = [("big", "große"), ("small", "kleine"), ("old", "alte"), ("new", "neue"), ("white", "weiße")]
VERBS = [("sees", "sieht"), ("has", "hat"), ("finds", "findet"), ("paints", "malt"), ("seeks", "sucht")]
ENDS = [("here", "hier"), ("today", "heute"), ("in the house", "in dem Haus"), ("and is not there", "und ist nicht da")]


def make_pairs(count: int, seed: int = 1) -> list[tuple[str, str]]:
    """Different pairs, their words in the same order on both sides."""
    choose = random.Random(seed)
    found: dict[tuple[str, str], None] = {}
    while len(found) < count:
        first, second = choose.sample(NOUNS, 2)
        adjective, verb, end = choose.choice(ADJECTIVES), choose.choice(VERBS), choose.choice(ENDS)
        number = str(choose.randrange(2, 4000))
        source = f"The {adjective[0]} {first[0]} {verb[0]} the {second[0]} with {number} of the {end[0]}."
        target = f"Der {adjective[1]} {first[1]} {verb[1]} den {second[1]} mit {number} von dem {end[1]}."
        found[source, target] = None
    return list(found)


def write_tsv(path: Path, pairs: Iterable[tuple[str, ...]]) -> Path:
    """Write pairs, with or without tags, as a TSV file."""
    path.write_text("".join("\t".join(pair) + "\n" for pair in pairs), encoding="utf-8", newline="\n")
    return path
