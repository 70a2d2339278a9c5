"""runtime/text/lines.py, unwrap.py: marks at the beginning of lines, and wrapped paragraphs."""

from __future__ import annotations

import textwrap
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilenmt.runtime.text.lines import marker_end
from mobilenmt.runtime.text.unwrap import unwrap
from places import ROOT

PROSE = (ROOT / "benchmarks" / "sentences.en.txt").read_text(encoding="utf-8").split("\n")


@pytest.mark.parametrize(
    ("marker", "rest"),
    [
        ("- ", "Open the door"),
        ("* ", "Open"),
        ("•\xa0", "Open"),
        ("1. ", "Open the door"),
        ("12) ", "Open"),
        ("(3)  ", "Open"),
        ("a) ", "tea"),
        ("IV. ", "Results"),
        ("> ", "Quoted"),
        (">> > ", "Quoted"),
        ("> - 1. ", "all of them"),
        ("## ", "Heading"),
        ("- [ ] ", "to do"),
        ("☐ ", "to do"),
        ("– ", "Yes."),
        ("", "-5 degrees"),
        ("", "#tag"),
        ("", "A. Hitchcock"),
        ("", "I. am"),
        ("", "1.5 l of water"),
        ("", "2001. What a year"),
        ("", "Open 1. the door"),
        ("", "1."),
        ("", "- - -"),
        ("", "***"),
        ("", "> "),
    ],
)
def test_marks_before_the_words(marker: str, rest: str) -> None:
    assert marker_end((marker + rest).strip(), "en") == len(marker)


def test_a_day_is_no_number_of_a_list_where_ordinals_have_a_full_stop() -> None:
    for line in ("3. Mai ist frei", "3. und 4. Klasse", "24. 12. 1990", "1. MAI"):
        assert marker_end(line, "de") == 0
    assert marker_end("- 3. Mai", "de") == 2
    assert marker_end("1. Tür öffnen", "de") == marker_end("3. May is free", "en") == 3


def test_marks_take_linear_time() -> None:
    for unit in ("> ", ">", " ", "-", "1", "(", "- ", "#"):
        began = time.process_time()
        marker_end(unit * (1_000_000 // len(unit)) + "a", "de")
        assert time.process_time() - began < 1


@pytest.mark.parametrize("width", [45, 60, 72, 80, 100])
@pytest.mark.parametrize("indent", [("", ""), ("  ", "  "), ("> ", "> "), ("- ", "  "), ("   ", ""), ("12. ", "    ")])
def test_what_a_program_wrapped_is_joined(width: int, indent: tuple[str, str]) -> None:
    for start in range(0, 200, 5):
        paragraph = " ".join(PROSE[start : start + 5])
        lines = textwrap.wrap(
            paragraph, width, initial_indent=indent[0], subsequent_indent=indent[1], break_on_hyphens=False
        )
        expected = indent[0] + paragraph
        if indent == ("   ", ""):  # indented like a new paragraph: the first line stays apart
            continue
        assert unwrap("\n".join(lines) + "\n\nNext.\n") == expected + "\n\nNext.\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "One line",
        "Short\nlines\nas in\nverse",
        "Anna Miller\n12 Long Street of the Old Town, Third Floor\nBerlin",
        "- a first point of a list which is long enough here\n- a second one of them that is as long as the first",
        "name of the first thing in here\tprice of it\nname of the second thing\tprice",
        "| a column of a table in here | another one of them |\n| a column of a table in here | another one of them |",
        "This line ends with two spaces as Markdown has it  \nso that this one begins a line of its own",
        "A line that is not quoted at all but is quite long\n> a line that is quoted and as long as the other",
        "# A heading that is long enough to be a line of prose\nand what comes below it in the text",
        "A line of some fifty characters that ends right here.\r\n\r\nAnother line of fifty characters is here.\r\n",
    ],
)
def test_what_a_writer_broke_stays(text: str) -> None:
    assert unwrap(text) == text


def test_hyphens_at_the_end_of_a_line() -> None:
    begin = "He spoke of it in the town for years on end, of a well-"
    assert unwrap(f"{begin}\nknown man and his house by the river.") == begin + "known man and his house by the river."
    begin = "The wording of all this was a matter for a transla-"
    assert unwrap(f"{begin}\ntion bureau in town.") == begin + "tion bureau in town."
    assert unwrap(f"{begin}\ntion bureau. Translation is not cheap.").startswith(
        "The wording of all this was a matter for a translation bureau."
    ), "the text has the word elsewhere"
    begin = "Das steht alles in der neuen Ordnung für die Haus-"
    assert unwrap(f"{begin}\nund Gartenarbeit der Mieter.") == begin + " und Gartenarbeit der Mieter."
    begin = "Das steht alles in der neuen Ordnung der Garten\xad"
    assert unwrap(f"{begin}\narbeit der Mieter.") == begin[:-1] + "arbeit der Mieter."


def test_chinese_is_joined_without_a_space() -> None:
    assert unwrap("他昨天来到了这个城市的车站然后他在那里等了很久\n很久。") == (
        "他昨天来到了这个城市的车站然后他在那里等了很久很久。"
    )


def test_line_ends_stay_as_they_were() -> None:
    wrapped = "A line of some fifty characters that goes on to\r\nthe next one.\r\nNext.\r\n"
    assert unwrap(wrapped) == "A line of some fifty characters that goes on to the next one.\r\nNext.\r\n"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(
        st.sampled_from(
            [
                "word ",
                "longer words ",
                "Stop.",
                "> ",
                "- ",
                "  ",
                "1. ",
                "# ",
                "-",
                "\xad",
                "\n",
                "\r\n",
                "\n\n",
                "\t",
                "",
                "",
                " ",
                "他来",
                "\x85",
                "\\",
            ]
        )
    )
)
def test_unwrapping_loses_no_word(parts: list[str]) -> None:
    """Of any text: what goes is white space, marks of quoting and hyphens, and lines that are not joined stay."""
    text = "".join(parts * 3)
    bare = str.maketrans("", "", " \t\n\r\x85>-\xad")
    assert unwrap(text).translate(bare) == text.translate(bare)
    assert unwrap(unwrap(text)).translate(bare) == text.translate(bare)


BODY = """\
I was at the station at ten this morning and the
train was late again, so I went home by the river
and read a book."""
JOINED = BODY.replace("\n", " ")


@pytest.mark.parametrize(
    "above", ["", "Hi Tom,\n", "Dear Mr Smith,\n", "Anna Smith\nBerlin\n", "Hi!\n", "> no\n", "Re: train\n"]
)
@pytest.mark.parametrize("below", ["", "\nBest regards,\nAnna", "\nTom", "\nYours,\nAnna Smith\nBerlin", "\nSee you!"])
def test_short_lines_above_and_below_a_paragraph_are_lines(above: str, below: str) -> None:
    assert unwrap(above + BODY + below) == above + JOINED + below


@pytest.mark.parametrize(
    "text",
    [
        "Mr John Smith\n12 Long Street Somewhere Industrial Estate 40\nLondon",
        "Hi Tom,\nMr John Smith of the Long Street in Somewhere 40\nLondon",
        "The sun\nis over the hill and over the green and quiet\nriver\nand the house",
        "Red apple\nOne green house with a garden\nfive\nsix",
        "Hi Tom,\nBest regards,\nAnna",
    ],
)
def test_lines_that_a_writer_broke_stay(text: str) -> None:
    assert unwrap(text) == text


def test_unwrapping_takes_linear_time() -> None:
    line = "a line that is long enough to have been wrapped by a pro-\n"
    began = time.process_time()
    unwrap(line * 20_000)
    unwrap("ab\n" * 20_000 + line * 3 + "ab\n" * 20_000)
    assert time.process_time() - began < 4
