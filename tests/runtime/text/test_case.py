"""runtime/text/case.py: what counts as capitals or a title, which words keep a capital, and the way back."""

from __future__ import annotations

import random

import pytest

from mobilenmt.runtime.text.case import Case, lower, restore

PIECES = frozenset(
    (
        "open",
        "the",
        "window",
        "I",
        "live",
        "in",
        "Berlin",
        "stop",
        "John",
        "Smith",
        "Good",
        "good",
        "morning",
        "is",
        "it",
        "go",
        "Green",
        "green",
        "house",
    )
)


def cost(word: str) -> int:
    """Of a vocabulary that has a few words; others are spelled."""
    return 1 if word in PIECES else len(word)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("OPEN THE WINDOW", "Open the window"),
        ("I LIVE IN BERLIN", "I live in Berlin"),
        ("STOP", "Stop"),
        ("STOP!", "Stop!"),
        ("IT IS GREEN. GO IN!", "It is green. Go in!"),
        ("THE NATO HOUSE", "The NATO house"),
        ("OPEN THE USB HOUSE 3B", "Open the USB house 3B"),
        ("I'M IN THE HOUSE", "I'm in the house"),
        ("HOUSE IV", "House IV"),
        ("GO TO HOUSE B", "Go to house B"),
        ("OPEN A WINDOW ON MONDAY", "Open a window on Monday"),
    ],
)
def test_capitals_become_sentence_case(text: str, expected: str) -> None:
    assert lower(text, "en", cost=cost) == (expected, Case.UPPER)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Open The Window", "Open the window"),
        ("Good Morning", "Good morning"),
        ("John Is In The House", "John is in the house"),
        ("Open the Green Window in Berlin", "Open the green window in Berlin"),
    ],
)
def test_titles_become_sentence_case(text: str, expected: str) -> None:
    assert lower(text, "en", cost=cost) == (expected, Case.TITLE)


@pytest.mark.parametrize(
    "text",
    [
        *("open the window", "Open the window", "This is VERY important", "PLEASE read", "John Smith", "Mr Green", ""),
        *("USB", "OK", "NATO", "IV", "B2B", "I", "A", "123", "你好", "NATO USA", "Hello", "iPhone", "!"),
        *("Good morning, John Smith", "The house of John Smith"),
    ],
)
def test_sentences_with_few_capitals_and_acronyms_stay(text: str) -> None:
    assert lower(text, "en", cost=cost) == (text, Case.PLAIN)


def test_german_nouns_make_no_title() -> None:
    assert lower("Guten Morgen", "de", cost=cost) == ("Guten Morgen", Case.PLAIN)
    assert lower("Guten Morgen", "de-AT", cost=cost)[1] is Case.PLAIN


def test_without_a_vocabulary_only_lists_keep_capitals() -> None:
    assert lower("I LIVE IN BERLIN AND BONN", "en") == ("I live in Berlin and bonn", Case.UPPER)
    assert lower("STOP", "en") == ("STOP", Case.PLAIN)  # it may be an acronym


@pytest.mark.parametrize(
    ("text", "case", "language", "expected"),
    [
        ("Öffne das große Fenster", Case.UPPER, "de", "ÖFFNE DAS GROSSE FENSTER"),
        ("Öffne das Fenster", Case.TITLE, "de", "Öffne das Fenster"),
        ("Öffne das Fenster", Case.PLAIN, "de", "Öffne das Fenster"),
        ("open the window of the house and go in", Case.TITLE, "en", "Open the Window of the House and Go In"),
        ("it is: a house", Case.TITLE, "en-GB", "It Is: A House"),
        ("iyi ışık", Case.UPPER, "tr", "İYİ IŞIK"),
        ("Καλημέρα", Case.UPPER, "el", "ΚΑΛΗΜΕΡΑ"),
        ("ouvre la fenêtre", Case.TITLE, "fr", "ouvre la fenêtre"),
    ],
)
def test_the_translation_is_written_as_its_source_was(text: str, case: Case, language: str, expected: str) -> None:
    assert restore(text, case, language) == expected


def test_what_is_kept_is_neither_looked_at_nor_changed() -> None:
    text = "OPEN {{ user.name }} THE WINDOW"
    keep = [(5, 20)]
    assert lower(text, "en", keep=keep, cost=cost) == ("Open {{ user.name }} the window", Case.UPPER)
    assert lower(text, "en", cost=cost)[1] is Case.PLAIN
    assert restore("Öffne {{ user.name }} weit", Case.UPPER, "de", keep=[(6, 21)]) == "ÖFFNE {{ user.name }} WEIT"
    assert restore("{{ a }} open it", Case.TITLE, "en", keep=[(0, 7)]) == "{{ a }} Open It"


def test_lowering_keeps_every_offset_and_all_but_case() -> None:
    choose = random.Random(4)
    words = [
        "OPEN",
        "The",
        "İstanbul",
        "STRASSE",
        "ŉ",
        "ǅ",
        "O'NEILL",
        "e\u0301",
        "—",
        "3D",
        ".",
        "?",
        "😀",
        "ẞ",
        "ΣΑΣ",
    ]
    for _ in range(3_000):
        text = " ".join(choose.choices(words, k=choose.randrange(6)))
        text = text.upper() if choose.random() < 0.5 else text.title()
        found, _ = lower(text, "en", cost=cost)
        assert len(found) == len(text)
        assert found.casefold() == text.casefold()
