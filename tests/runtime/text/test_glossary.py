"""Terms are found in simple inflection, become what the glossary says, and bad lines are told."""

from __future__ import annotations

import pytest

from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.text.forms import Placeholders
from mobilenmt.runtime.text.glossary import Glossary, Term
from mobilenmt.runtime.text.keeper import Keeper, Output
from mobilenmt.runtime.text.kept import find

GLOSSARY = Glossary.from_lines(
    """# of the firm

house	Haus	Häuser
city	Stadt
box	Kasten
open house	Tag der offenen Tür
Apple	Apple AG
C++	C++ (Sprache)
cloud	Wolke""".splitlines()
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("the house is", [("house", "Haus")]),
        ("House and HOUSE", [("House", "Haus"), ("HOUSE", "HAUS")]),
        ("houses, cities, boxes", [("houses", "Häuser"), ("cities", "Stadt"), ("boxes", "Kasten")]),
        ("an open house today", [("open house", "Tag der offenen Tür")]),
        ("household, greenhouse, house2", []),
        ("an apple of Apple, APPLE", [("Apple", "Apple AG"), ("APPLE", "APPLE AG")]),
        ("I like C++.", [("C++", "C++ (Sprache)")]),
        ("the house's door", [("house", "Haus")]),
        ("", []),
    ],
)
def test_terms_are_found_as_people_write_them(text: str, found: list[tuple[str, str]]) -> None:
    assert [(text[k.start : k.end], k.target) for k in GLOSSARY.find(text)] == found


def test_a_word_of_an_address_is_no_term() -> None:
    text = "my house is on house.example.com"
    kept = GLOSSARY.added(text, find(text))
    assert [(text[k.start : k.end], k.rule) for k in kept] == [
        ("house", "glossary"),
        ("house.example.com", "domain"),
    ] or [k.rule for k in kept] == ["glossary"]


def run(text: str, spoil: bool = False) -> tuple[str, tuple[str, ...]]:
    def translate(texts: list[str], wanted: int) -> list[list[Output]]:
        return [[Output("x" if spoil and "<" in t + "<" else t.replace("The", "Die"))] * wanted for t in texts]

    result = Keeper(translate, placeholders=Placeholders(('<x id="#"/>',)), glossary=GLOSSARY).run([text])[0]
    return result.text, result.flags


def test_terms_become_what_the_glossary_says() -> None:
    assert run("The house in {name} and the cloud") == ("Die Haus in {name} and the Wolke", ())
    assert run("House: cities") == ("Haus: Stadt", ())
    assert run("house") == ("Haus", ())
    assert run("See the house a.txt now") == ("See the Haus a.txt now", ())


def test_a_term_is_there_even_if_the_model_loses_all_placeholders() -> None:
    text, flags = run("Look at the houses here", spoil=True)
    assert "Häuser" in text
    assert flags == ("parts",)


def test_a_term_that_comes_to_begin_the_sentence_is_capital() -> None:
    glossary = Glossary((Term("download", "herunterladen"),))

    def translate(texts: list[str], wanted: int) -> list[list[Output]]:
        return [[Output(text)] * wanted for text in texts]

    keeper = Keeper(translate, placeholders=Placeholders(('<x id="#"/>',)), glossary=glossary)
    assert keeper.run(["Download it", "I download it"])[0].text == "Herunterladen it"
    assert keeper.run(["I download it"])[0].text == "I herunterladen it"


def test_other_languages_have_no_english_plural() -> None:
    assert Glossary((Term("Haus", "house"),), "de").find("das Hauss") == []
    assert Glossary((Term("Haus", "house"),), "en").find("das Hauses") != []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("house", "line 2 of the glossary: expected source, a tab and target, found 'house'"),
        ("house\t", "line 2"),
        ("\tHaus", "line 2"),
        ("a\tb\tc\td", "line 2"),
        ("house\tHaus\nHof", "line 2 of the glossary holds a line end"),
        ("house\tHaus\u2028Hof", "line 2 of the glossary holds a line end"),
        ("house\tHaus\tHäuser\rHöfe", "line 2 of the glossary holds a line end"),
        ("house\tHaus\udc80", "line 2 of the glossary holds half of a pair"),
    ],
)
def test_a_line_that_is_none_is_told(line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Glossary.from_lines(["cat\tKatze", line])


def test_an_empty_term_is_told() -> None:
    with pytest.raises(InputError, match="a term has a source"):
        Glossary((Term("", "x"),))
    with pytest.raises(InputError, match="a term must not hold a line end"):
        Glossary((Term("dog", "a\nb"),))


def test_a_glossary_is_made_of_terms_or_lines() -> None:
    lines = Glossary.from_lines("dog\tHund\ncat\tKatze")
    assert [term.source for term in lines.terms] == ["dog", "cat"]
    for wrong in ({"dog": "Hund"}, [("dog", "Hund")]):
        with pytest.raises(InputError, match=r"Glossary\.from_lines"):
            Glossary(wrong)  # type: ignore[arg-type]
