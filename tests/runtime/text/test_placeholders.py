"""Placeholders go in and spans come back, byte for byte; every way of losing one is noticed."""

from __future__ import annotations

import pytest

from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.text.forms import Form, check_form
from mobilenmt.runtime.text.kept import default_rules, find
from mobilenmt.runtime.text.placeholders import Protected, protect, restore

TAGS = '<x id="#"/>'
NUMBERS = frozenset({"number", "decimal"})


def protected(text: str, form: Form = TAGS, copied: frozenset[str] = frozenset()) -> Protected:
    done = protect(text, find(text), form, default_rules(), copied)
    assert done is not None
    return done


def test_placeholders_stand_for_spans() -> None:
    done = protected("Send a.txt to max@example.com.")
    assert done.text == 'Send <x id="0"/> to <x id="1"/>.'
    assert [mark.text for mark in done.marks] == ["a.txt", "max@example.com"]
    assert all(done.text[mark.start : mark.end] == mark.placeholder for mark in done.marks)


def test_a_placeholder_that_the_text_holds_is_not_used() -> None:
    assert protected("[1] is a note, [2] is {name}", "[#]", NUMBERS).text == "[1] is a note, [2] is [0]"
    assert protected("[0] is a note, [2] is {name}", "[#]", NUMBERS).text == "[0] is a note, [2] is [1]"
    assert protect("AB and {name}", find("AB and {name}"), ("AB",)) is None
    assert protect("{a} or {b}", find("{a} or {b}"), ("AB-1",)) is None


def test_what_models_copy_stays_and_is_looked_for() -> None:
    done = protected("In 1999 {name} had 3.5 km", TAGS, NUMBERS)
    assert done.text == 'In 1999 <x id="0"/> had 3.5 km'
    assert restore('1999 hatte <x id="0"/> 3,5 km', done).text == "1999 hatte {name} 3,5 km"
    assert restore('1999 hatte <x id="0"/> 3,5 km', done).ok
    assert restore('1998 hatte <x id="0"/> 3,5 km', done).missing == (0,)
    assert restore('1999 hatte <x id="0"/> 35 km', done).missing == (2,)


@pytest.mark.parametrize(
    "output",
    [
        'Ich habe <x id="0"/> gelesen.',
        "Ich habe <x id=„0“/> gelesen.",
        'Ich habe < x id = "0" / > gelesen.',
        'Ich habe <X ID="0"/> gelesen.',
        'Ich habe<x id="0"/>gelesen.',
    ],
)
def test_altered_placeholders_are_known_again(output: str) -> None:
    restored = restore(output, protected("I have read a.txt."))
    assert restored.text == "Ich habe a.txt gelesen."
    assert restored.ok


@pytest.mark.parametrize(
    ("output", "fault"),
    [
        ('<x id="1"/> und', "missing"),
        ('<x id="0"/> und <x id="1"/> und <x id="0"/>', "doubled"),
        ('<x id="1"/> und <x id="0"/>', "misplaced"),
        ('<x id="0"/> und <x id="1"/> und id="2"/>', "leftover"),
        ('<x id="0"/> und <x id="1"/> >', "leftover"),
    ],
)
def test_faults_are_named(output: str, fault: str) -> None:
    restored = restore(output, protected("a.txt and b.txt"))
    assert not restored.ok
    assert getattr(restored, fault)
    assert restored.faults > 0


def test_pieces_of_word_like_placeholders_are_noticed() -> None:
    done = protected("a.txt is here", ("AB-7104",))
    assert restore("AB-7104 ist hier", done).text == "a.txt ist hier"
    assert restore("AB-7104 ist hier in AB", done).leftover
    assert restore("AB-71045 ist hier", done).missing == (0,)


def test_a_span_far_from_its_place_is_noticed() -> None:
    done = protected("{name} has eaten all of the chocolate today")
    assert restore('<x id="0"/> hat heute die ganze Schokolade gegessen', done).ok
    assert restore('Heute hat <x id="0"/> die ganze Schokolade gegessen', done).ok
    assert restore('Heute wurde die ganze Schokolade gegessen <x id="0"/>', done).misplaced == (0,)


@pytest.mark.parametrize(
    ("source", "output", "wanted"),
    [
        ('the file "a.txt" is', 'die Datei „<x id="0"/>“ ist', "die Datei „a.txt“ ist"),
        ('the file "a.txt" is', 'die Datei „ <x id="0"/> “ ist', "die Datei „a.txt“ ist"),
        ("the file (a.txt) is", 'die Datei ( <x id="0"/>) ist', "die Datei (a.txt) ist"),
        ("see {x}: and", 'siehe <x id="0"/>:: und', "siehe {x}: und"),
        ("see {x}, and", 'siehe <x id="0"/> , und', "siehe {x}, und"),
        ("in {x}px wide", '<x id="0"/>px breit', "{x}px breit"),
        ("the {x} file", 'die <x id="0"/>Datei', "die {x} Datei"),
        ("the {x} file", 'die <x id="0"/>-Datei', "die {x}-Datei"),
        ("{x}'s file", '<x id="0"/>s Datei', "{x}s Datei"),
    ],
)
def test_the_space_around_a_span_is_that_of_the_source(source: str, output: str, wanted: str) -> None:
    restored = restore(output, protected(source))
    assert (restored.text, restored.ok) == (wanted, True)


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ('the file "a.txt" is missing', 'die Datei „<x id="0"/> fehlt'),
        ("the file (a.txt) is missing", 'die Datei <x id="0"/> fehlt'),
        ("it is {x}px wide", 'es ist <x id="0"/> breit'),
    ],
)
def test_a_span_parted_from_what_touched_it_is_noticed(source: str, output: str) -> None:
    assert restore(output, protected(source)).misplaced == (0,)


def test_tags_take_no_part_in_words() -> None:
    done = protected("Click <b>Save</b>, please")
    assert done.text == 'Click <x id="0"/> Save <x id="1"/>, please'
    assert restore('<x id="0"/> Speichern <x id="1"/>, bitte', done).text == "<b>Speichern</b>, bitte"


def test_the_same_span_twice() -> None:
    done = protected("10 of 10 files", TAGS, frozenset({"number"}))
    assert restore("10 von 10 Dateien", done).ok
    assert restore("10 Dateien", done).missing == (1,)
    assert restore("10 von 10 von 10 Dateien", done).doubled == (1,)


@pytest.mark.parametrize("form", ["x", "##", " # ", "", [], ["a", "a"], ["a", ""], None, 3])
def test_what_is_no_form_is_told(form: object) -> None:
    with pytest.raises(InputError, match="placeholders"):
        check_form(form)
