"""The shipped pack on texts of several sentences: every sentence is translated, and layout stays."""

from __future__ import annotations

import random
import re
import textwrap

import pytest

from mobilenmt import InputError, Translator
from mobilenmt.runtime.text.sentences import split
from places import ROOT

SENTENCES = [
    line
    for line in (ROOT / "benchmarks" / "sentences.en.txt").read_text(encoding="utf-8").splitlines()
    if len(line.split()) <= 8 and re.fullmatch(r"[A-Z][A-Za-z' ]+[.?!]", line)
]


@pytest.fixture(scope="module")
def translator() -> Translator:
    return Translator(ROOT / "models" / "en-de")


def test_lines_of_eight_simple_sentences_keep_them_all(translator: Translator) -> None:
    rng = random.Random(13)
    assert len(SENTENCES) > 30
    lines = [" ".join(rng.sample(SENTENCES, 8)) for _ in range(40)]
    found = translator.translate_batch(lines)
    counts = [(len(split(line, "en")), len(split(item.text, "de"))) for line, item in zip(lines, found, strict=True)]
    assert counts == [(8, 8)] * 40
    assert not any("split" in item.flags for item in found)


def test_the_paragraph_is_whole(translator: Translator) -> None:
    text = "It is 3.5 km to the station. We will be there in ten minutes. Do you want to eat something? I am hungry."
    sentences = [text[a:b].strip() for a, b in zip([0, *split(text)], split(text), strict=False)]
    assert len(sentences) == 4
    whole = translator.translate(text)
    assert whole == " ".join(translator.translate(sentence) for sentence in sentences)
    assert len(split(whole, "de")) == 4
    assert translator.translate(text, split=False) != whole


def test_layout_of_sentences_bullets_and_columns_stays(translator: Translator) -> None:
    def one(text: str) -> str:
        return translator.translate(text)

    text = "  1. Open the door.  Thank you!\n\t- I am hungry.\tThe house\t\tWhere is the dog?  \r\n> > Good night."
    assert translator.translate(text) == (
        f"  1. {one('Open the door.')}  {one('Thank you!')}\n\t- {one('I am hungry.')}\t{one('The house')}\t\t"
        f"{one('Where is the dog?')}  \r\n> > {one('Good night.')}"
    )


def test_a_wrapped_paragraph_is_joined_where_asked_for(translator: Translator) -> None:
    joined = (
        "I had a very long day at the office, and then I went home on foot because the train was late. I am hungry."
    )
    wrapped = "\n".join(textwrap.wrap(joined, 45))
    assert wrapped.count("\n") == 2
    assert translator.translate(wrapped, unwrap=True) == translator.translate(joined)
    assert translator.translate(wrapped).count("\n") == 2
    assert (
        list(translator.stream(wrapped, unwrap=True))[-1] == translator.translate_batch([joined], beam_size=1)[0].text
    )


def test_arguments_are_checked(translator: Translator) -> None:
    for arguments in ({"split": 1}, {"unwrap": None}, {"split": "no"}):
        with pytest.raises(InputError, match="must be True or False"):
            translator.translate_batch(["the dog"], **arguments)  # type: ignore[arg-type]
