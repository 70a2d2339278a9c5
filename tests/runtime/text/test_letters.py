"""runtime/text/letters.py: lines without words, characters the vocabulary lacks, words that are none."""

from __future__ import annotations

import itertools
import random
import time
import unicodedata

import pytest

from mobilenmt.runtime.text.kept import Kept
from mobilenmt.runtime.text.letters import Alphabet, has_words, long_words, unknown, without_inventions

GERMAN = frozenset(map(chr, range(0x20, 0x7F))) | set("ÄÖÜßäöü–’“„")


@pytest.fixture
def alphabet() -> Alphabet:
    return Alphabet(GERMAN.issuperset)


@pytest.mark.parametrize(
    "line",
    [
        *("00:00:01,000 --> 00:00:03,500", "---", "```", "|---|:---:|", "~", "***", "42", "3.5 %", "1,000.50", "", " "),
        *("😀👍", "→ ⌘", "+49 (0)30 123-456", "½ ² ™", "...", "?!", "$5", "①", "Ⅷ", "x", "§ 5"),
    ],
)
def test_lines_without_words(line: str) -> None:
    assert not has_words(line, "en")


@pytest.mark.parametrize("line", ["I", "a", "OK", "42 km", "你好", "б", "(no)", "1st", "😀 hi", "a b"])
def test_lines_with_words(line: str) -> None:
    assert has_words(line, "en") or line == "б"
    assert has_words(line, "xx")


@pytest.mark.parametrize(
    ("language", "letter", "expected"),
    [("en", "I", True), ("en", "x", False), ("fr", "à", True), ("fr-CA", "b", False), ("de", "a", False)],
)
def test_a_letter_alone_is_a_word_where_the_language_has_it(language: str, letter: str, expected: bool) -> None:
    assert has_words(f"{letter}.", language) is expected


def test_what_is_kept_holds_no_words() -> None:
    line = "<b>42</b> km"
    tags = [Kept(0, 3, "tag"), Kept(5, 9, "tag")]
    assert has_words(line, "en", tags)
    assert not has_words(line, "en", [*tags, Kept(10, 12, "unit")])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Press ⌘ now.", ["⌘"]),
        ("你好", ["你好"]),
        ("say 你好 世界 to me", ["你好 世界"]),
        ("a → b → c", ["→", "→"]),
        ("Dvořák was here", ["Dvořák"]),
        ("I like 👩\u200d👩\u200d👧 and ❤\ufe0f!", ["👩\u200d👩\u200d👧", "❤\ufe0f"]),
        ("press 1\ufe0f\u20e3 or 👍🏽👍", ["1\ufe0f\u20e3", "👍🏽👍"]),
        ("Я тебя люблю, he said", ["Я тебя люблю"]),
        ("x\u0332y", ["x\u0332y"]),  # a mark on a known letter takes the word along
        ("the 日本語text", ["日本語"]),
        ("plain Zürich", []),
        ("lone \ud800 and \ufffe and \x00", ["\ud800", "\ufffe", "\x00"]),
    ],
)
def test_characters_the_vocabulary_lacks(alphabet: Alphabet, text: str, expected: list[str]) -> None:
    found = unknown(text, alphabet)
    assert [text[start:end] for start, end, *_ in found] == expected
    assert {span.rule for span in found} <= {"unknown"}


def test_every_unknown_character_lies_in_one_stretch_and_stretches_in_order(alphabet: Alphabet) -> None:
    choose = random.Random(5)
    pool = "ab Zü ’é你好→ \u0301\u200d\ufe0fřяж 😀🏽"
    for _ in range(3_000):
        text = "".join(
            choose.choice(pool) if choose.random() < 0.9 else chr(choose.randrange(0x110000)) for _ in range(12)
        )
        found = unknown(text, alphabet)
        covered = [place for start, end, *_ in found for place in range(start, end)]
        assert covered == sorted(set(covered))
        assert {place for place, c in enumerate(text) if c not in GERMAN} <= set(covered)
        assert all(left.end < right.start for left, right in itertools.pairwise(found))
        assert all(not text[start:end].isspace() for start, end, *_ in found if text[start:end].isascii())


def test_an_alphabet_asks_for_a_character_once() -> None:
    asked: list[str] = []

    def knows(text: str) -> bool:
        asked.append(text)
        return text in GERMAN

    alphabet = Alphabet(knows)
    for _ in range(3):
        assert alphabet.missing("abc→") == {"→"}
        assert "ü" in alphabet and "ř" not in alphabet
    assert sorted(asked) == sorted("abc→üř")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a" * 99, 0),
        ("a" * 100, 1),
        ("see " + "ACGT" * 50 + " here", 1),
        ("data:image/png;base64," + "iVBORw0KGgo+/AAAA" * 30 + "==", 1),
        ("Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz is law", 0),
        ("word " * 1000, 0),
        ("世" * 500, 0),
        ("one,two;three." * 50, 0),
    ],
)
def test_long_words(text: str, kept: int) -> None:
    assert len(long_words(text)) == kept


@pytest.mark.parametrize(
    ("output", "source", "expected"),
    [
        ("Druck \ufffd jetzt", "Press ⌘", "Druck  jetzt"),
        ("\ufffd", "\ufffd", "\ufffd"),
        ("a\u200fb", "ab", "ab"),
        ("a\u200fb", "\u200f", "a\u200fb"),
        ("é → “ä”\n", "e", "é → “ä”\n"),
        ("\x00\ue000\ufdd0\u0378", "", ""),
    ],
)
def test_inventions_go(output: str, source: str, expected: str) -> None:
    assert without_inventions(output, source) == expected


def test_a_megabyte_takes_no_long_time(alphabet: Alphabet) -> None:
    for text in ("a" * 2**20, "é" * 2**20, "你 " * 2**19, "x\u0301" * 2**19, "- " * 2**19, "1" * 2**20):
        start = time.perf_counter()
        has_words(text, "en", long_words(text))
        unknown(text, alphabet)
        assert time.perf_counter() - start < 10
    assert unicodedata.category("\u0378") == "Cn"
