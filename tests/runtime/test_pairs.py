"""Brackets and quotes that a model loses in a plain sentence: noticed, tried again, flagged."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import cast

import pytest

from mobilenmt import Translator
from mobilenmt.runtime.hypothesis import Hypothesis
from mobilenmt.runtime.opening import Text
from mobilenmt.runtime.retry import Retry
from mobilenmt.runtime.text.letters import breaks_a_pair
from places import ROOT


class Letters:
    """A tokenizer whose tokens are characters."""

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


def tried(source: str, first: str, *beam: str, pairs: bool = True) -> tuple[str, tuple[str, ...]]:
    """What is shown of a model that says `first` greedily and `beam` with a beam, and its flags."""

    def said(text: str) -> Hypothesis:
        return Hypothesis(tuple(map(ord, text)), 0.0, len(text) + 1)

    def search(some: Sequence[Sequence[int]], width: int) -> list[list[Hypothesis]]:
        return [[said(text) for text in beam] for _ in some]

    retry = Retry(cast(Text, Letters()), nullcontext)
    source_ids = list(range(len(source)))
    ((shown,),) = retry.run([(source, source_ids)], [[said(first)]], 1, search, pairs)
    return Letters().decode(shown.ids), shown.flags


@pytest.mark.parametrize(
    ("source", "wrong", "right"),
    [
        ("He has a dog (a big one).", "Er hat einen Hund (gross.", "Er hat einen (grossen) Hund."),
        ("He has a dog (a big one).", "Er hat einen grossen Hund.", "Er hat einen Hund (gross)."),
        ("He has a dog [a big one].", "Er hat einen grossen Hund.", "Er hat einen Hund [gross]."),
        ('She said "good day" to him.', 'Sie sagte "guten Tag zu ihm.', 'Sie sagte "guten Tag" zu ihm.'),
        ('She said "good day" to him.', "Sie sagte guten Tag zu ihm.", "Sie sagte „guten Tag“ zu ihm."),
    ],
)
def test_the_next_output_that_has_the_pair_is_taken(source: str, wrong: str, right: str) -> None:
    assert tried(source, wrong, wrong, right, right.upper()) == (right, ("retried",))
    assert tried(source, right, wrong) == (right, ())
    assert tried(source, wrong, wrong.upper()) == (wrong, ("retried", "unpaired"))  # the first of what is not bad else
    assert tried(source, wrong, right, pairs=False) == (wrong, ())


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("b) The dog.", "b Der Hund."),  # half of a pair in the source says nothing
        ('The dog is 5" tall.', "Der Hund ist 5 Zoll gross."),
        ("The dog.", "Der (kleine Hund."),  # none in the source: not even looked at
        ("He has a dog (a big one).", "Er hat einen Hund (einen (grossen))."),
    ],
)
def test_what_is_no_fault(source: str, output: str) -> None:
    assert tried(source, output) == (output, ())


def test_an_output_that_loops_is_no_better_for_its_brackets() -> None:
    loop = "(" + "ja " * 12 + ")"
    assert tried("He has a dog (a big one).", "Er hat einen Hund.", loop) == (
        "Er hat einen Hund.",
        ("retried", "unpaired"),
    )


def test_the_shipped_pack_says_so_where_a_bracket_is_lost() -> None:
    sources = [
        "Most people book their place well in advance (as the boats are usually full during the high season).",
        "In the rainy season (November to March), the water volume will be higher.",
        'The sign was damaged to alter the "O" to read lowercase "e".',
        "The dog (a big one) sees the cat.",
    ]
    shipped = Translator(ROOT / "models" / "en-de")
    found = shipped.translate_batch(sources)
    for source, item in zip(sources, found, strict=True):
        assert breaks_a_pair(item.text, source, lost=True) == ("unpaired" in item.flags), item.text
        assert shipped.translate(source) == item.text
