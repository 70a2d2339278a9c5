"""runtime/text/fold.py: what becomes one text, what stays apart, and where each character came from."""

from __future__ import annotations

import random
import time
import unicodedata

import pytest

from mobilenmt.runtime.text.data import load
from mobilenmt.runtime.text.fold import Folder, fold

ASCII = frozenset(map(chr, range(0x20, 0x7F)))
GERMAN = ASCII | set("ÄÖÜßäöü–’“„")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He is in Zu\u0308rich.", "He is in Zürich."),
        ("two  spaces   here", "two spaces here"),
        ("10\u00a0km \u2009 away", "10 km away"),
        ("the of\ufb01ce \ufb02oor, su\ufb03cient", "the office floor, sufficient"),
        ("Don\u00adau\u00addampf", "Donaudampf"),
        ("Ｗｈｅｒｅ ｉｓ ｉｔ？", "Where is it?"),
        ("zero\u200bwidth\ufeff \u200eleft\u200f \u2066iso\u2069", "zerowidth left iso"),
        ("𝐇𝐞𝐥𝐥𝐨 𝘸𝘰𝘳𝘭𝘥 𝟏𝟐", "Hello world 12"),
        ("tab\there", "tab here"),
        ("e\u0301\u0327", "ȩ́"),  # marks in either order are one text: NFC sorts them
        ("\u1112\u1161\u11ab", "한"),
        ("\u212b", "Å"),  # the sign for Ångström, which NFC takes for the letter
    ],
)
def test_forms_of_one_text_are_one(text: str, expected: str) -> None:
    assert fold(text).text == expected


@pytest.mark.parametrize(
    "text",
    [
        *("plain text", "", " ", "x²", "½ cup", "Brand™", "①", "3 × 4", "Ⅷ", "let 𝑥 be", "№ 5", "µm", "10 €"),
        *(
            "👩\u200d👩\u200d👧",
            "❤\ufe0f",
            "1\ufe0f\u20e3",
            "می\u200cخواهم",
            "क\u094d\u200dष",
            "🇩🇪",
            "“quoted” — here…",
        ),
    ],
)
def test_what_means_something_else_stays(text: str) -> None:
    assert fold(text) == (text, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("“Hello” she said", '"Hello" she said'),  # ” is missing, and the pair stays a pair
        ("the „end“ it’s", "the „end“ it’s"),
        ("‘don’t’", "'don't'"),
        ("it´s", "it's"),
        ("one—two – three", "one–two – three"),
        ("wait…", "wait..."),
        ("a naïve café über", "a naive cafe über"),
        ("Renée, Dvořák", "Renée, Dvořák"),  # names: letters.unknown keeps the words
        ("Ａ，Ｂ", "A,B"),
        ("什么？", "什么?"),
    ],
)
def test_quotes_dashes_and_accents_go_only_where_the_vocabulary_lacks_them(text: str, expected: str) -> None:
    assert fold(text, GERMAN).text == expected
    assert fold(text, GERMAN | set(text)).text == text


def test_what_the_vocabulary_has_stays() -> None:
    assert fold("of\ufb01ce？", ASCII | {"\ufb01", "？"}) == ("of\ufb01ce？", None)


def test_each_character_knows_where_it_came_from() -> None:
    text = "Zu\u0308ri\u00adch  of\ufb01ce\u00a0!"
    folded = fold(text)
    assert folded.text == "Zürich office !"
    for word, source in (("ü", "u\u0308"), ("rich", "ri\u00adch"), (" ", "  "), ("fi", "\ufb01"), (" !", "\u00a0!")):
        start = folded.text.index(word)
        first, last = folded.source_span(start, start + len(word))
        assert text[first:last] == source
    assert folded.source_span(0, len(folded.text)) == (0, len(text))


def _random_text(generator: random.Random) -> str:
    pool = "ab Zü\u0308\u0301\u00ad\u200b\u200d  \u00a0\ufb01？“”—…😀你한\u1161\u11abéÉ𝐇𝑥\u0327"
    return "".join(
        generator.choice(pool) if generator.random() < 0.8 else chr(generator.randrange(0x110000))
        for _ in range(generator.randrange(30))
    )


@pytest.mark.parametrize("alphabet", [None, GERMAN])
def test_folding_is_stable_composed_and_maps_every_offset(alphabet: frozenset[str] | None) -> None:
    generator = random.Random(7)
    folder = Folder(alphabet)
    for _ in range(3_000):
        text = _random_text(generator)
        folded = folder.fold(text)
        assert folded == Folder(alphabet).fold(text)  # what a folder remembers changes nothing
        if folded.origin is None:
            assert folded.text == text
        else:
            assert len(folded.origin) == len(folded.text) + 1
            assert list(folded.origin) == sorted(folded.origin)
            assert folded.origin[-1] == len(text)
        assert "  " not in folded.text and "\u00ad" not in folded.text
        plain = unicodedata.normalize("NFC", text)
        assert [c for c in folded.text if c in ASCII and c.isalnum()] or not any(
            c in ASCII and c.isalnum() for c in plain
        )


def test_composition_agrees_with_unicodedata_on_all_planes() -> None:
    generator = random.Random(11)
    marks = [chr(c) for c in range(0x110000) if unicodedata.combining(chr(c))]
    touched = frozenset(
        c for c in map(chr, range(0x110000)) if fold(c).text != unicodedata.normalize("NFC", c)
    )  # what the tables are about
    for _ in range(2_000):
        text = "".join(
            generator.choice(marks) if generator.random() < 0.4 else chr(generator.randrange(0x2FFFF))
            for _ in range(12)
        )
        text = "".join(c for c in text if c not in touched and c != " " and not "\U0001d400" <= c <= "\U0001d7ff")
        assert fold(text).text == unicodedata.normalize("NFC", text)


def test_tables_are_of_characters_that_every_host_can_read() -> None:
    rules = load("fold")
    for name in ("dropped", "joiners", "spaces"):
        assert all(len(character) == 1 for character in rules[name])
    for cycle in rules["cycles"]:
        for code in range(cycle["first"], cycle["last"] + 1):
            plain = cycle["plain"][(code - cycle["first"]) % len(cycle["plain"])]
            expected = unicodedata.normalize("NFKC", chr(code))
            assert unicodedata.normalize("NFKC", plain) == expected or unicodedata.category(chr(code)) == "Cn"
    for character, plain in rules["plain"].items():
        if character not in "\u0149\u0132\u0133":
            assert unicodedata.normalize("NFKC", character) == plain


@pytest.mark.parametrize("text", ["a\u0301" * 200_000, "é" * 200_000, "a" + "\u0301" * 200_000, "\u00a0" * 200_000])
def test_time_grows_with_the_text_alone(text: str) -> None:
    start = time.process_time()  # whatever else this machine does
    fold(text, GERMAN)
    assert time.process_time() - start < 10
