"""What touches a kept span stays with it, and what stands between columns or around important words is layout."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from mobilenmt import Translator
from mobilenmt.runtime.text.forms import Placeholders
from mobilenmt.runtime.text.keeper import Keeper, Output, Result
from mobilenmt.runtime.text.kept import find
from mobilenmt.runtime.text.lines import cells
from mobilenmt.runtime.translation import spelled
from places import ROOT


@pytest.fixture(scope="module")
def shipped() -> Translator:
    return Translator(ROOT / "models" / "en-de")


def run(spoil: Callable[[str], str], text: str) -> Result:
    def translate(texts: list[str], wanted: int) -> list[list[Output]]:
        return [[Output(spoil(text))] * wanted for text in texts]

    return Keeper(translate).run([text])[0]


@pytest.mark.parametrize(
    ("text", "signs"),
    [
        ("Open Mon–Fri from nine.", "–"),
        ("yes—no", "—"),
        ("I was tired—so I went home.", "—"),
        ("This is _very important_ today.", "__"),
        ("_two words_", "__"),
    ],
)
def test_dashes_and_lines_of_emphasis_stay(shipped: Translator, text: str, signs: str) -> None:
    output = shipped.translate(text)
    assert "".join(sign for sign in output if sign in "–—_") == signs
    assert "_two" not in output and "_very" not in output


RECORDS = {
    '"Red apple","3.50 EUR"': ["Red apple", "3.50 EUR"],
    '1,"Red apple","3.50 EUR"': ["1", "Red apple", "3.50 EUR"],
    '2;"The dog";;"5 km"': ["2", "The dog", "", "5 km"],
    '"Red apple", "3.50 EUR", "house"': ["Red apple", "3.50 EUR", "house"],
    'id,"name, first",price': ["id", "name, first", "price"],
    '"a; b";c': ["a; b", "c"],
    '"",""': ["", ""],
    "| Name | Age |": ["Name", "Age"],
    "|Name|Age|": ["Name", "Age"],
    "Name | Age | City": ["Name", "Age", "City"],
    "name\tprice": ["name", "price"],
    '"title": "The dog",': ["The dog"],
    '"title":"The dog"': ["The dog"],
    '"a long text that "': ["a long text that"],
    '"over two lines.\\n"': ["over two lines.\\n"],
    "[12:30] <max> The dog": ["The dog"],
    "12:32 - Max Müller: The dog": ["The dog"],
    "12/24/23, 6:45 PM - Tom: The dog": ["The dog"],
    "[24/12/2023, 18:45:02] Tom Smith: The dog": ["The dog"],
    "[2024-01-05 10:30:00] ERROR: The dog": ["The dog"],
    "'title': 'The dog',": ["The dog"],
    'title: "The dog"': ["The dog"],
    '- name: "The dog"': ["The dog"],
    "app.title=The dog is here": ["The dog is here"],
    "// The dog": ["The dog"],
    "/* The dog */": ["The dog */"],
    "-- The dog": ["The dog"],
    "-The dog": ["The dog"],
    "I saw (a) dog (b) cat.": ["I saw", "dog", "cat."],
    "(a) the dog (b) the cat": ["the dog", "the cat"],
    "We need: (a) a dog, (b) a cat and (c) a house.": ["We need:", "a dog", "a cat and", "a house."],
    "You can 1) open the door 2) close it.": ["You can", "open the door", "close it."],
    "Reasons: (i) it is late; (ii) I am tired": ["Reasons:", "it is late", "I am tired"],
    "- (1) a door, (2) a window": ["a door", "a window"],
    '"app.title" = "The dog";': ["The dog"],
    'msgid "The dog"': ["The dog"],
    'msgstr[0] "The dog"': ["The dog"],
    'title = "The dog"': ["The dog"],
    r'"a": "The dog, \"Tom\".\n",': [r"The dog, \"Tom\".\n"],
    "Name    Age   City": ["Name", "Age", "City"],
    "Total    42 apples": ["Total", "42 apples"],
    "id;name;price": ["id", "name", "price"],
    "1;Red apple;3.50": ["1", "Red apple", "3.50"],
    "2;;": ["2", "", ""],
    "id,name,price": ["id", "name", "price"],
    "1,Red apple,3.50": ["1", "Red apple", "3.50"],
    "Yes,no,perhaps": ["Yes", "no", "perhaps"],
    "File > Open > Save": ["File", "Open", "Save"],
    "Settings -> Network": ["Settings", "Network"],
    "dog --> cat": ["dog", "cat"],
    "Home » Products": ["Home", "Products"],
    "Yes / No": ["Yes", "No"],
    "Yes/No": ["Yes", "No"],
    "he/she": ["he", "she"],
    "Roses are red / violets are blue": ["Roses are red", "violets are blue"],
}


@pytest.mark.parametrize(("line", "columns"), RECORDS.items())
def test_columns_are_found_where_they_stand(line: str, columns: list[str]) -> None:
    found = list(cells(line, "en"))
    assert all(line[at : at + len(cell)] == cell for at, cell in found)
    texts = [cell.strip() for _, cell in found]
    assert [cell for cell in texts if cell.strip(" ,;")] == [cell for cell in columns if cell]


@pytest.mark.parametrize(
    "line",
    [
        'He said "yes", and she said "no".',
        '"Yes", she said, "I do."',
        'The "red" apple',
        "if (a || b) return;",
        "a|b",
        "Yes, no, perhaps",
        'Tom: "Yes."',
        'He said: "Yes."',
        'The sign is = "Yes"',
        '"Yes": I do.',
        "Yes,no",
        "1,234,567 people",
        "He is here,she is there,and all of us are glad.",
        "I came; I saw; I won.",
        "Tom &amp; Anna;Ben",
        "I am   hungry.",
        "The  dog  sleeps  here.",
        "« Oui » he said » loudly.",
        "a < b > c",
        "km/h",
        "TCP/IP",
        "The on/off switch",
        'one "two',
        '"He said ""no""",2',
        "|",
    ],
)
def test_prose_is_no_record(line: str) -> None:
    assert list(cells(line, "en")) == [(0, line)]


@pytest.mark.parametrize("line", [line for line in RECORDS if '"' in line or "|" in line])
def test_records_keep_their_quotes_bars_and_separators(shipped: Translator, line: str) -> None:
    found = shipped.translate(line)
    signs = re.compile(r'[^"|;\t]')
    assert signs.sub("", found) == signs.sub("", line)
    for span in find(line):
        if not line[span.start : span.end].isdigit() and span.rule != "escape":
            assert line[span.start - 1 : span.end + 1] in found


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("The cost is $$price$$ now.", ["$$price$$"]),
        ("Pay $$5$$ or **{x}** now.", ["$$5$$", "**{x}**"]),
        ("It is ((3.50 EUR)) today.", ["((3.50 EUR))"]),
        ("Set %%{x}%% and ~{y}~ here.", ["%%{x}%%", "~{y}~"]),
        ('He wrote ""{x}"" again.', ['""{x}""']),
        ("A >>{x} and {y}>> here.", [">>{x}", "{y}>>"]),
        ("Take |{x}| or =%s= now.", ["|{x}|", "=%s="]),
        ('Use ("{x}") here.', ['("{x}")']),
    ],
)
def test_signs_around_a_span_are_part_of_it(shipped: Translator, text: str, whole: list[str]) -> None:
    output = shipped.translate(text)
    assert all(item in output for item in whole), output
    if "%%" not in text and "**" not in text:  # spans of their own
        found = find_all(text)
        assert all(item in found for item in whole)


def find_all(text: str) -> list[str]:
    keeper = Keeper(lambda texts, wanted: [])
    return [text[span.start : span.end] for span in keeper.find(text)]


@pytest.mark.parametrize("text", ["x={n} here", 'Say "{n}" now', "({n}) is", "a*{n}", "{a}, {b}", "€{n} or {n}€"])
def test_a_single_sign_and_one_that_a_word_has_are_left_alone(text: str) -> None:
    assert all(re.fullmatch(r"\{.\}", item) for item in find_all(text))


@pytest.mark.parametrize(
    ("text", "touched"),
    [
        ("The cost is €{price} or {price}€ today.", ["€{price}", "{price}€"]),
        ('The apple costs ("3.50 EUR") now.', ['("3.50 EUR")']),
        ("See [{x}] and <{y}> here.", ["[{x}]", "<{y}>"]),
        ("Name: '{age}' here.", ["'{age}'"]),
        ("We have (5 km) and [20 %] now.", ["(5 km)", "[20 %]"]),
    ],
)
def test_what_touches_a_span_touches_it_still(shipped: Translator, text: str, touched: list[str]) -> None:
    found = shipped.translate(text)
    assert all(item in found for item in touched), found


SPOILED = [
    'Take "{x}", "{y}" and ({z}) now',
    'He paid "3.50 EUR", "4.50 EUR" and (5.50 EUR).',
    'The "red apple" costs "3.50 EUR"',
    'Take (the dog and {x}) "home {y}".',
    '{x}: "the dog", [the cat {y}]',
    "(see {x} or the house) for {y}",
]


@pytest.mark.parametrize("text", SPOILED)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: re.sub(r'["()\[\]]', "", text, count=1) if re.search(r"<x|7104|\d", text) else text,
        lambda text: re.sub(r"<x[^>]*>|\d{5}|\[\d\]|[A-Z]{2}-\d+|\d[.,]\d+ EUR", "", text),
        lambda text: "" if "<x" in text else text,
    ],
)
def test_brackets_and_quotes_come_out_in_pairs_whatever_a_model_loses(text: str, spoil: Callable[[str], str]) -> None:
    found = run(spoil, text).text
    for opening, closing in ("()", "[]"):
        assert found.count(opening) == found.count(closing), found
    assert found.count('"') % 2 == 0, found
    assert all(text[span.start : span.end] in found for span in find(text)), found


def test_half_of_a_pair_is_a_fault_though_no_span_is_lost() -> None:
    def lose(text: str) -> str:
        return text.replace(" }", "") if "{ a dog" in text else text

    text = "See { a dog, {x} and more } there"
    found = run(lose, text)
    assert (found.text, found.flags) == (text, ("parts",))
    assert run(lambda text: text.replace(" }", ""), "The dog } is {x}").flags == ()  # the source has half of one


@pytest.mark.parametrize(
    "text",
    [
        "How are you? {x}",
        "Are you ready? %s",
        "It is done. {x}",
        "Thank you! {{ user.name }}!",
        "Is it open? max@example.com",
        "Where is it? /usr/local/bin",
        "Do you like it? [NAME]",
        "Is it you? $HOME",
        "Have you seen it? $5",
        "How are you? {x} {y}",
    ],
)
def test_an_end_mark_before_a_span_stays(shipped: Translator, text: str) -> None:
    found = shipped.translate(text)
    mark = next(at for at, sign in enumerate(text) if sign in ".!?")
    before = found.removesuffix(text[mark + 1 :])
    assert before != found, found
    assert before[-1] in ("?" if text[mark] == "?" else ".!"), found  # which of the two is the model's


def test_a_span_between_sentences_parts_them_and_one_behind_a_title_does_not(shipped: Translator) -> None:
    assert shipped.translate("How are you? {x} I am hungry.") == (
        f"{shipped.translate('How are you?')} {{x}} {shipped.translate('I am hungry.')}"
    )
    asked = []
    Keeper(lambda texts, wanted: [asked.append(text) or [Output(text)] for text in texts]).run(
        ["Ask Dr. {x}", "Ask Dr. {x} Smith.", "Was it 12 Men? 12 Men it was."]
    )
    assert asked == ["Ask Dr. 71046", "Ask Dr. 71046 Smith.", "Was it 12 Men? 12 Men it was."]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("It is 3:45pm now.", ["3:45pm"]),
        ("We meet at 3:45 pm.", ["3:45 pm"]),
        ("The shop closes at 5 pm.", ["5 pm"]),
        ("We start at 10 a.m. tomorrow.", ["10 a.m."]),
        ("Come at 3 p.m. or 11am.", ["3 p.m.", "11am"]),
        ("We work 9am-5pm.", ["9am-5pm"]),
        ("We work 9-11 a.m. and 2–4 p.m. every day.", ["9-11 a.m.", "2–4 p.m."]),
        ("Wake me at 6 AM!", ["6 AM"]),
        ("At 5 o'clock I eat 2 apples.", ["5", "2"]),
        ("I have 3 dogs and 7 cats.", ["3", "7"]),
        ("We wait 2 hours and 30 minutes.", ["2", "30"]),
    ],
)
def test_hours_and_numbers_are_those_of_the_source(shipped: Translator, text: str, kept: list[str]) -> None:
    found = shipped.translate(text)
    assert all(item in found for item in kept), found
    assert re.findall("[0-9]+", found) == re.findall("[0-9]+", text)
    assert not found.endswith("..")


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("**very** important", "****"),
        ("This is **very important** for us.", "****"),
        ("**The house is big.**", "****"),
        ("***Warning!*** The dog is here.", "******"),
        ("__Note:__ read this.", "____"),
        ("This is __very important__ here.", "____"),
        ("Read **this** and **that** now.", "********"),
        ("2 ** 3 is eight.", "**"),
    ],
)
def test_marks_of_important_words_stay_around_words(shipped: Translator, text: str, marks: str) -> None:
    found = shipped.translate(text)
    assert re.sub(r"[^*_]", "", found) == marks, found
    if marks != "**":
        assert not re.search(r"(?:^|\s)[*_]+(?:\s|$)", found), found
        assert all(part.strip() for part in re.split(r"\*+|__", found)[1:-1]), found


def test_tokens_show_what_was_kept_and_no_placeholder(shipped: Translator) -> None:
    text = "Write to max@example.com, then open /tmp/a.txt at 5 pm."
    found = shipped.translate_batch([text], n_best=2)[0]
    for item in (found, *found.alternatives):
        assert "".join(item.tokens).replace("▁", " ").strip() == item.text
        assert {"▁max@example.com", "▁/tmp/a.txt", "▁5 pm"} <= set(item.tokens)
    several = shipped.translate_batch(["Ask Anna at a@b.de. Ask me at c@d.de."])[0]
    assert {"▁a@b.de", "▁c@d.de"} <= set(several.tokens)


@pytest.mark.parametrize(
    ("pieces", "marks", "shown"),
    [
        (["▁a", "▁<", "x", '▁id="0"/>', "."], [('<x id="0"/>', "b c")], ["▁a", "▁b c", "."]),
        (["▁a<", "x", 'id="0"/>.'], [('<x id="0"/>', "b")], ["▁a", "b", "."]),
        (["▁[0][1]", "▁z"], [("[0]", "a"), ("[1]", "b")], ["▁a", "b", "▁z"]),
        (["▁71046", "82053"], [("71046", "a"), ("82053", "b")], ["▁a", "b"]),
        (["▁12"], [("12", "12")], ["▁12"]),
        (["▁nothing"], [("[0]", "a")], ["▁nothing"]),
        ([], [("[0]", "a")], []),
    ],
)
def test_a_placeholder_is_one_piece(pieces: list[str], marks: list[tuple[str, str]], shown: list[str]) -> None:
    assert spelled(pieces, marks) == shown


def test_alternatives_of_several_sentences_pair_by_rank(shipped: Translator) -> None:
    first, second = "The dog is in the house.", "I am hungry."
    both = shipped.translate_batch([f"{first} {second}"], n_best=3)[0]
    alone = [shipped.translate_batch([text], n_best=3)[0] for text in (first, second)]
    ranked = [(item, *item.alternatives) for item in alone]
    assert [item.text for item in (both, *both.alternatives)] == [
        f"{one.text} {other.text}" for one, other in zip(*ranked, strict=True)
    ]


def test_what_stands_in_marks_as_a_whole_is_translated_as_without(shipped: Translator) -> None:
    assert shipped.translate("**The house is big.**") == f"**{shipped.translate('The house is big.')}**"


def test_columns_are_translated_by_themselves(shipped: Translator) -> None:
    dog, years = shipped.translate("The dog"), shipped.translate("5 years")
    assert shipped.translate("| The dog | 5 years |\n|---|---|") == f"| {dog} | {years} |\n|---|---|"
    assert shipped.translate('7,"The dog","5 years"') == f'7,"{dog}","{years}"'


def in_small_letters(text: str) -> str:
    """What a model does to a sentence that begins with a bracket: it spoils it."""
    return "spoilt" if not text[0].isalnum() and text[0] != "<" else text.replace("Dog", "Hund")


@pytest.mark.parametrize(
    "text",
    [
        "(Dog)",
        "[Dog here]",
        "((Dog.))",
        "(Dog).",
        '"Dog."',
        "'Dog's house'",
        "*Dog sleeps*",
        "~Dog~",
        "(Dog, 5 km!) 😀",
        "(See {x}, Dog)",
        "[Dog] I know.",
        "(Dog.) [Dog] I know {x}.",
        "He sees Dog. [Dog here]",
        "He sees {x}! (Dog) 😀",
        "Dog sleeps? (Dog.) [Dog] I know {x}.",
    ],
)
def test_what_stands_in_brackets_is_a_sentence_by_itself(text: str) -> None:
    assert run(in_small_letters, text) == run(in_small_letters, text)._replace(
        text=text.replace("Dog", "Hund"), flags=()
    )


@pytest.mark.parametrize(
    "text",
    [
        "(a dog) sleeps",
        '"I am," he said.',
        "'Tis cold.",
        "* Dog *",
        "(Dog",
        "[NAME] is",
        "{x}",
        "He has e.g. (big) dogs",
        "He came. (a dog) slept",
        '"Yes." "No."',
        "(😀)",
    ],
)
def test_brackets_of_a_part_are_the_sentences(text: str) -> None:
    """Those of a span are the span's."""
    seen: list[str] = []

    def translate(texts: list[str], wanted: int) -> list[list[Output]]:
        seen.extend(texts)
        return [[Output(text)] * wanted for text in texts]

    assert Keeper(translate).run([text])[0].text == text
    assert all(item[0] in (text[0], "<", "7") for item in seen)


@pytest.mark.parametrize("text", ["£3.50 each", "<Tom> hello", "{x} off!", "at 10:30 sharp", "two {x}"])
def test_words_are_not_lost_beside_a_span(text: str) -> None:
    def drop(text: str) -> str:
        return re.sub(r"(?<![\w\"/<])[a-z]+(?![\w=\">/.])!?", "", text).strip() if re.search("[<0-9]", text) else text

    found = run(drop, text)
    assert (found.text, found.flags) == (text, ("parts",))


def test_half_of_a_pair_is_none_of_a_part() -> None:
    def lose(text: str) -> str:
        return text.replace("(", "")

    found = run(lose, "It was cold (about {x} degrees) there.")
    assert (found.text, found.flags) == ("It was cold (about {x} degrees) there.", ("parts",))


def test_an_abbreviation_before_a_span_ends_no_sentence() -> None:
    seen: list[str] = []

    def translate(texts: list[str], wanted: int) -> list[list[Output]]:
        seen.extend(texts)
        return [[Output(text)] * wanted for text in texts]

    text = "It costs $5 (incl. 19% VAT)."
    assert Keeper(translate, language="en").run([text])[0].text == text
    assert len(seen) == 1 and seen[0].endswith("VAT).")


@pytest.mark.parametrize(
    "text",
    [
        "It is 3.5 km<b>to</b> the station",
        "The dog<b>sees</b>42 cats.",
        "See max@example.com<i>now</i>.",
        "The <b>12</b>dogs are here.",
        "The dog is<b>-5</b>years old.",
        "We pay 3.50<i>EUR</i> today.",
        "The price is 5 km<sup>2</sup> now.",
    ],
)
def test_the_model_sees_a_space_between_a_tag_and_what_touches_it_and_the_output_has_none(text: str) -> None:
    """Be it a word, a number that goes through the model as it is, or a span that shares the tag's placeholder."""
    seen: list[str] = []

    def translate(texts: list[str], wanted: int) -> list[list[Output]]:
        seen.extend(texts)
        return [[Output(text)] * wanted for text in texts]

    found = Keeper(translate, placeholders=Placeholders(("<x id=#/>",))).run([text])[0]
    assert (found.text, found.flags, len(seen)) == (text, (), 1)
    assert not re.search("[0-9A-Za-z]<x|/>[0-9A-Za-z]", seen[0]), seen


@pytest.mark.parametrize(
    "line", ["See (a) and the house.", "He has plan b) and a dog.", "The dog (a big one) is (b) here", "(i) am here"]
)
def test_a_letter_in_brackets_alone_parts_nothing(line: str) -> None:
    assert sum(any(map(str.isalpha, cell)) for _, cell in cells(line)) == 1


def test_words_joined_by_a_stroke_stay_joined_and_none_is_lost(shipped: Translator) -> None:
    for text in ("and/or", "his/her dog", "Dogs/cats/birds are here.", "You need a pen and/or a pencil."):
        found = shipped.translate(text)
        assert [bool(part) for part in re.split("(?<=[a-zäöü])/(?=[A-ZÄÖÜa-zäöü])", found)] == [True] * (
            text.count("/") + 1
        ), found
    assert "und/oder" in shipped.translate("You need a pen and/or a pencil.")

    def lose(text: str) -> str:
        return re.sub("(?<=>) her dog$", "", text)

    def translate(texts: list[str], wanted: int) -> list[list[Output]]:
        return [[Output(lose(text))] * wanted for text in texts]

    found_all = Keeper(translate, placeholders=Placeholders(("<x id=#>",))).run(["his/her dog"])[0]
    assert found_all.text == "his/her dog"
