"""A translation ends as its source does: a lost mark comes back, a run of marks is no longer than the source's."""

from __future__ import annotations

import pytest

from mobilenmt import Translator
from mobilenmt.runtime.text.keeper import Keeper
from mobilenmt.runtime.text.letters import ended
from mobilenmt.runtime.text.placing import Output
from places import ROOT

ENDS = [
    ("The dog.", "Der Hund ist", "Der Hund ist."),
    ("Really?!", "Wirklich", "Wirklich?!"),
    ("Wait...", "Warte", "Warte..."),
    ("Wait\u2026", "Warte", "Warte\u2026"),
    ('He said "yes".', 'Er sagte "ja"', 'Er sagte "ja".'),
    ("It costs 5 %.", "Es kostet 5 %", "Es kostet 5 %."),
    ("Wait...", "Warte.........", "Warte..."),
    ("The dog.", "Der Hund..", "Der Hund."),
    ("No!", "Nein!!!!", "Nein!"),
    # nothing to do
    ("The dog.", "Der Hund.", "Der Hund."),
    ("The dog.", "Der Hund!", "Der Hund!"),
    ("The dog", "Der Hund", "Der Hund"),
    ("The dog", "Der Hund.", "Der Hund."),
    ("Wait\u2026", "Warte...", "Warte..."),
    ('He said "yes".', 'Er sagte "ja."', 'Er sagte "ja."'),
    ("The dog:", "Der Hund...", "Der Hund..."),
    ("I have the following.", "Ich habe:", "Ich habe:"),
    ("The dog.", "\u72d7", "\u72d7"),
    ("The dog.", "", ""),
    ("...", "x", "x"),
]


@pytest.mark.parametrize(("source", "output", "expected"), ENDS)
def test_marks_at_the_end(source: str, output: str, expected: str) -> None:
    assert ended(output, source) == expected


@pytest.fixture(scope="module")
def shipped() -> Translator:
    return Translator(ROOT / "models" / "en-de")


@pytest.mark.parametrize("text", ["The dog.", "Ballet isn't just for girls but for boys too.", "The dog closed 5 km."])
def test_the_shipped_pack_ends_sentences(shipped: Translator, text: str) -> None:
    details = shipped.translate_batch([text], details=True)[0]
    assert shipped.translate(text) == details.text
    assert details.text.endswith(".") and not details.text.endswith("..")


def test_a_run_of_marks_is_no_longer_than_the_source_has_it(shipped: Translator) -> None:
    for text in ("Press <b>OK</b> to continue...", "There are a lot of things, which we still lag behind on..."):
        output = shipped.translate(text)
        assert output.endswith("...") and not output.endswith("....")


def test_a_lost_pair_of_brackets_is_a_fault() -> None:
    """A model that loses brackets with whatever stands for spans, but not in parts of a sentence."""

    def translate(texts: list[str], wanted: int) -> list[list[Output]]:
        return [[Output(text.replace("(", "").replace(")", "") if "km" in text else text)] * wanted for text in texts]

    result = Keeper(lambda texts, wanted: translate([f"{text} km" for text in texts], wanted)).run(["a (b c) 5 km d"])[
        0
    ]
    assert "parts" in result.flags
    kept = Keeper(lambda texts, wanted: [[Output(text)] * wanted for text in texts]).run(["a (b c) 5 km d"])[0]
    assert kept.text == "a (b c) 5 km d" and kept.flags == ()
