"""Whatever a model does to placeholders, what must be kept is there in the end; if need be in parts, and flagged."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

import pytest

from mobilenmt.runtime.text.forms import Placeholders
from mobilenmt.runtime.text.keeper import Keeper, Output, Result, merged
from mobilenmt.runtime.text.kept import Kept, default_rules, find

TAGS = Placeholders(('<x id="#"/>', "[#]"))


class Model:
    """Translates by a function, and remembers what it was asked."""

    def __init__(self, translate: Callable[[str], str]) -> None:
        self.asked: list[tuple[str, int]] = []
        self._translate = translate

    def __call__(self, texts: list[str], wanted: int) -> list[list[Output]]:
        self.asked += [(text, wanted) for text in texts]
        return [[Output(self._translate(text))] * wanted for text in texts]


def run(translate: Callable[[str], str], text: str, placeholders: Placeholders = TAGS) -> Result:
    return Keeper(Model(translate), placeholders=placeholders).run([text])[0]


SENTENCES = [
    "Write to max@example.com.",
    "Copy /tmp/a.csv to /tmp/b.csv, then press Ctrl+C.",
    "{user} changed {field} from {old} to {new}.",
    "Good morning!\\nHow are you?",
    "<p>Click <b>Save</b> now.</p>",
    "I love it 😍!",
    "Open the file: a.txt",
    "@anna: can you come at 10:30?",
    "  In 1999 we had 3.5 km (see [NAME]).  ",
    "$5 or 20 € or %s",
    "See C:\\temp\\new.txt and `x = 1`… #fun",
    "Nothing to keep here.",
    "👍",
    "",
    " ",
    "10:30",
]


@pytest.mark.parametrize("text", SENTENCES)
def test_a_model_that_copies_gives_the_text_back(text: str) -> None:
    assert run(lambda text: text, text) == Result(text, (), run(lambda text: text, text).outputs)


@pytest.mark.parametrize("text", SENTENCES)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: re.sub(r"<[^<>]*>|\[[^\]]*\]|\d", "", text),
        lambda text: f"{text} {text}",
        lambda text: " ".join(reversed(text.split(" "))),
        lambda text: text.upper().replace("X", "Y"),
        lambda text: "",
        lambda text: "ja",
        lambda text: text.replace('"', "").replace("[", "").replace("1", "2"),
    ],
)
def test_a_model_that_spoils_placeholders_loses_no_span(text: str, spoil: Callable[[str], str]) -> None:
    assert_kept(text, run(spoil, text))


def test_a_model_that_does_anything_loses_no_span() -> None:
    random = Random(1)

    def anything(text: str) -> str:
        pieces = re.findall(r"<[^<>]*>|\w+|\W", text)
        choice = random.random()
        if choice < 0.3 and pieces:
            pieces.insert(random.randrange(len(pieces)), random.choice(pieces))
        elif choice < 0.6 and pieces:
            del pieces[random.randrange(len(pieces))]
        elif choice < 0.9:
            random.shuffle(pieces)
        return "".join(pieces)

    for _ in range(200):
        for text in SENTENCES:
            assert_kept(text, run(anything, text))


def assert_kept(text: str, result: Result) -> None:
    """Every span is in the result as often as in the source, in order, and no placeholder is."""
    rest = result.text
    at = 0
    for span in find(text):
        body = text[span.start : span.end]
        pattern = re.escape(body).replace(r"\.", "[.,]") if span.rule == "decimal" else re.escape(body)
        found = re.compile(pattern).search(rest, at)
        assert found is not None, (text, result, body)
        at = found.end()
    assert "<x id" not in result.text.lower()


def test_the_first_form_that_works_is_taken() -> None:
    model = Model(lambda text: text.replace("<", "").replace("is", "ist"))
    result = Keeper(model, placeholders=TAGS).run(["{name} is here"])[0]
    assert result.text == "{name} ist here"
    assert result.flags == ()
    assert model.asked == [('<x id="0"/> is here', 1), ("[0] is here", 1)]


def test_a_beam_may_know_better() -> None:
    def translate(texts: list[str], wanted: int) -> list[list[Output]]:
        return [[Output("nichts"), Output(text.replace("is", "ist"))][:wanted] for text in texts]

    assert Keeper(translate, placeholders=TAGS).run(["{name} is here"])[0].text == "{name} ist here"


def test_links_say_where_a_lost_span_belongs() -> None:
    def translate(texts: list[str], wanted: int) -> list[list[Output]]:
        assert all(re.match("Give [<[7A]", text) for text in texts)
        return [[Output("Gib das Buch", [(0, 4, 0, 3), (len(t) - 4, len(t), 8, 12)])] * wanted for t in texts]

    result = Keeper(translate, placeholders=TAGS).run(["Give {name} the book"])[0]
    assert (result.text, result.flags) == ("Gib {name} das Buch", ("placed",))


def test_what_is_linked_to_a_placeholder_is_replaced() -> None:
    def translate(texts: list[str], wanted: int) -> list[list[Output]]:
        return [[Output("Gib Xxx das Buch", [(5, t.index(" the"), 4, 7), (0, 4, 0, 3)])] * wanted for t in texts]

    result = Keeper(translate, placeholders=TAGS).run(["Give {name} the book"])[0]
    assert (result.text, result.flags) == ("Gib {name} das Buch", ("placed",))


def test_parts_are_the_last_resort_and_flagged() -> None:
    def translate(text: str) -> str:
        return {"Write to": "Schreib an.", "today.": "heute."}.get(text, "nichts")

    result = run(translate, "Write to a@b.de, today.")
    assert (result.text, result.flags) == ("Schreib an a@b.de, heute.", ("parts",))


def test_the_ends_of_a_sentence_never_go_through_the_model() -> None:
    model = Model(lambda text: text)
    texts = ["See: https://a.org", "😀 Good morning 😍!", "@tom, come here", "{name}: hello", "Nice! #sun #fun"]
    Keeper(model, placeholders=TAGS).run(texts)
    assert [text for text, _ in model.asked] == ["See:", "Good morning!", "come here", "hello", "Nice!"]


def test_a_closing_mark_that_the_model_adds_comes_off() -> None:
    assert run(lambda text: f"{text}.", "Good morning 😍").text == "Good morning 😍"
    assert run(lambda text: text, "Good morning 😍!").text == "Good morning 😍!"


def test_sentences_go_to_the_model_together() -> None:
    model = Model(lambda text: text)
    Keeper(model, placeholders=TAGS).run(["One.", "Two {a}.", "Three: {b}"])
    assert [text for text, _ in model.asked] == ["One.", 'Two <x id="0"/>.', "Three:"]


def test_further_spans_of_the_caller() -> None:
    def arrows(text: str) -> list[Kept]:
        return [Kept(match.start(), match.end(), "unknown") for match in re.finditer("→", text)]

    keeper = Keeper(Model(lambda text: text.replace("→", "?")), placeholders=TAGS, extra=arrows)
    assert [result.text for result in keeper.run(["A → B a.txt", "`a → b`"])] == ["A → B a.txt", "`a → b`"]


def test_spans_side_by_side_take_one_placeholder() -> None:
    assert merged("{a} {b}, {c}", find("{a} {b}, {c}")) == [Kept(0, 7, "braces"), Kept(9, 12, "braces")]


def test_more_spans_than_a_list_of_placeholders_holds() -> None:
    names = Placeholders((("AB-1", "CD-2"), "[#]"))
    text = "{a}, {b}, {c} are here"
    assert run(lambda text: text, text, names).text == text
    assert run(lambda text: text, text, Placeholders((("AB-1",),))).text == text


def test_rules_can_be_left_out() -> None:
    rules = default_rules().without("tag")
    model = Model(lambda text: text)
    Keeper(model, rules, TAGS).run(["a <b>bold</b> word"])
    assert model.asked == [("a <b>bold</b> word", 1)]
