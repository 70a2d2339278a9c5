"""Texts through a whole translator: what is folded, kept, cased; guards on the shipped pack."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import pytest
from benchmarks.text import faults, odd_strings, random_strings

from mobilenmt import Glossary, Translator
from mobilenmt.runtime.hypothesis import Hypothesis
from mobilenmt.runtime.native import LIBRARY
from mobilenmt.runtime.opening import Text
from mobilenmt.runtime.retry import Retry
from mobilenmt.runtime.tokenizer import clean
from places import ROOT

NO_CORE = None if LIBRARY.is_file() else "the C core was not compiled"
NATIVE = pytest.param("native", marks=pytest.mark.skipif(NO_CORE is not None, reason=NO_CORE or ""))
MOSTLY_FREE = "over 3 times, but at most 12 characters"  # "fix" may become "reparieren"


@pytest.fixture(scope="module", params=[NATIVE, "onnx"])
def shipped(request: pytest.FixtureRequest) -> Translator:
    return Translator(ROOT / "models" / "en-de", engine=request.param)


@pytest.mark.parametrize(
    ("text", "like"),
    [
        ("He is in Zu\u0308rich.", "He is in Zürich."),
        ("The  house\u00a0is big.", "The house is big."),
        ("The of\ufb01ce is open.", "The office is open."),
        ("Where is the house？", "Where is the house?"),
        ("The hou\u00adse is\u200b big.", "The house is big."),
    ],
)
def test_forms_of_a_text_are_translated_as_the_plain_one(shipped: Translator, text: str, like: str) -> None:
    assert shipped.translate(text) == shipped.translate(like)


def test_a_few_words_may_become_12_characters_and_then_three_times_as_many() -> None:
    """Of 5,000 words 16 are over three times as long as their source, as "shy" is in German: that is sensible."""

    class Letters:
        def decode(self, ids: Sequence[int]) -> str:
            return "".join(map(chr, ids))

    retry = Retry(cast(Text, Letters()), nullcontext)

    def retried(source: str, output: str) -> bool:
        asked = []

        def search(some: Sequence[Sequence[int]], width: int) -> list[list[Hypothesis]]:
            asked.append(some)
            return [[found]] * len(some)

        found = Hypothesis(tuple(map(ord, output)), 0.0, ())
        retry.run([(source, [1])], [[found]], 1, search)
        return bool(asked)

    for source, output in [
        ("shy", "schüchtern"),
        ("fix", "reparieren"),
        ("a", "abcdefghijkl"),
        ("abcde", "fedcbaghijklmno"),
    ]:
        assert not retried(source, output), output
    for source, output in [("a", "abcdefghijklm"), ("shy", "abcdefghijklm"), ("abcde", "fedcbaghijklmnop")]:
        assert retried(source, output), output


def test_a_short_word_keeps_its_long_translation(shipped: Translator) -> None:
    found = shipped.translate_batch(["shy"])[0]
    assert len(found.text) <= 12 and "retried" not in found.flags and "kept" not in found.flags


def test_capitals_and_titles_are_those_of_the_sentence(shipped: Translator) -> None:
    plain = shipped.translate("Open the window")
    assert shipped.translate("OPEN THE WINDOW") == plain.upper() != plain
    assert shipped.translate("Open The Window") == plain
    assert shipped.translate("This is VERY good.") != shipped.translate("This is very good.").upper()


@pytest.mark.parametrize(
    ("text", "kept"), [("Press ⌘ now.", "⌘"), ("I say 你好 to you.", "你好"), ("a dog → a cat", "→")]
)
def test_characters_never_seen_are_copied(shipped: Translator, text: str, kept: str) -> None:
    found = shipped.translate_batch([text])[0]
    assert found.text.count(kept) == 1
    assert {c for c in found.text if c > "\u2100"} == set(kept)


def test_both_engines_know_the_same_characters() -> None:
    if NO_CORE:
        pytest.skip(NO_CORE)
    native, onnx = (Translator(ROOT / "models" / "en-de", engine=engine)._tokenizer for engine in ("native", "onnx"))
    choose = random.Random(9)
    characters = [*map(chr, range(0x250)), *(chr(choose.randrange(0x110000)) for _ in range(300))]
    assert [native.knows(c) for c in characters] == [onnx.knows(c) for c in characters]


def _no_invented_replacement(translator: Translator, count: int) -> None:
    strings = list(random_strings(count))
    for start in range(0, count, 500):
        part = strings[start : start + 500]
        for source, found in zip(part, translator.translate_batch(part), strict=True):
            assert "\ufffd" not in found.text or "\ufffd" in clean(source), ascii(source)


def test_no_replacement_character_that_the_source_lacks(shipped: Translator) -> None:
    _no_invented_replacement(shipped, 300)


@pytest.mark.slow
def test_no_replacement_character_in_100_000_strings(shipped: Translator) -> None:
    _no_invented_replacement(shipped, 100_000)


def _words(count: int) -> list[str]:
    """Words of the benchmarks' lists, and made-up ones."""
    folder = Path(ROOT) / "benchmarks"
    text = " ".join((folder / name).read_text(encoding="utf-8") for name in ("words.txt", "sentences.en.txt"))
    words = dict.fromkeys(word.strip(".,;:!?\"'()") for word in text.split())
    choose = random.Random(2)
    made_up = ("".join(choose.choices("aeiounrstlmdbkg", k=choose.randrange(1, 12))) for _ in range(count))
    return [word for word in dict.fromkeys([*words, *made_up]) if word][:count]


def _no_faults(translator: Translator, sources: list[str]) -> None:
    for source, found in zip(sources, translator.translate_batch(sources), strict=True):
        assert set(faults(source, found.text)) <= {MOSTLY_FREE}, (source, found)


def test_words_and_odd_strings_neither_loop_nor_run_away(shipped: Translator) -> None:
    _no_faults(shipped, [*_words(300), *odd_strings(150)])


@pytest.mark.slow
def test_5_000_words_and_500_odd_strings_neither_loop_nor_run_away(shipped: Translator) -> None:
    _no_faults(shipped, [*_words(5_000), *odd_strings(500)])


def test_a_sentence_that_is_a_term_becomes_its_target(shipped: Translator) -> None:
    glossary = Glossary.from_lines(["dog\tHündchen", "save\tsichern"])
    for text, wanted in (
        ("dog", "Hündchen"),
        ("Save!", "Sichern!"),
        ("dog {x}", "Hündchen {x}"),
        ("- Save", "- Sichern"),
    ):
        assert shipped.translate(text, glossary=glossary) == wanted
        assert list(shipped.stream(text, glossary=glossary))[-1] == wanted
