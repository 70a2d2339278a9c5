"""The way through a document of any format: names of files, batches, progress, errors, any text at all."""

from __future__ import annotations

from collections.abc import Sequence
from html.entities import html5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.text.data import load
from mobilenmt.runtime.text.markup.document import (
    FORMATS,
    Layout,
    Result,
    Unit,
    detect,
    parse,
    render,
    stream_document,
    translate_document,
)
from mobilenmt.runtime.text.markup.entities import encode, references
from translators import reverse, shout

PAGE = "<p>one two</p><p>three</p><p>four five</p>"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.html", "html"),
        ("A.HTM", "html"),
        ("x/y.md", "markdown"),
        ("y.markdown", "markdown"),
        ("film.de.srt", "srt"),
        ("film.vtt", "vtt"),
        ("a.txt", "text"),
    ],
)
def test_formats_by_ending(name: str, expected: str) -> None:
    assert detect(name) == expected


def test_unknown_endings_and_formats_name_those_there_are() -> None:
    with pytest.raises(InputError, match=r"'a\.docx'.*html, markdown, srt, text, vtt.*\.srt"):
        detect("a.docx")
    with pytest.raises(InputError, match=r"no format 'docx'.*html, markdown, srt, text, vtt"):
        parse("", "docx")


def test_batches_come_in_order_with_progress_and_as_soon_as_they_are_done() -> None:
    seen: list[object] = []

    def translate(units: Sequence[Unit]) -> list[Result]:
        seen.append([unit.text for unit in units])
        return reverse(units)

    pieces = stream_document(PAGE, "html", translate, batch=2, progress=lambda done, of: seen.append((done, of)))
    assert "".join(next(pieces) for _ in range(2)) == "<p>two one"
    assert seen == [(0, 3), ["one two", "three"], (2, 3)]
    assert "".join(pieces) == "</p><p>three</p><p>five four</p>"
    assert seen[3:] == [["four five"], (3, 3)]


def test_wrong_numbers_of_results_and_batches_are_refused() -> None:
    with pytest.raises(InputError, match="3 units were to be translated, and 1 results"):
        translate_document(PAGE, "html", lambda _: [Result("x")])
    with pytest.raises(InputError, match="at least 1 unit, not 0"):
        translate_document(PAGE, "html", reverse, batch=0)
    with pytest.raises(InputError, match="fewer results than the 3"):
        render(parse(PAGE, "html"), [Result("x")])
    with pytest.raises(InputError, match="more results than the 3"):
        render(parse(PAGE, "html"), [Result("x")] * 4)


def test_what_a_callback_raises_ends_the_work() -> None:
    def progress(done: int, of: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        translate_document(PAGE, "html", reverse, batch=1, progress=progress)


def test_plain_text_keeps_its_lines() -> None:
    assert translate_document(" a b \r\n\n\tc d", "text", reverse) == " b a \r\n\n\td c"


def test_the_table_of_entities_is_the_standards() -> None:
    table = load("entities")
    assert {f"{name};": characters for name, characters in table["characters"].items()} == {
        name: characters for name, characters in html5.items() if name.endswith(";")
    }
    assert set(table["without_semicolon"].split()) == {name for name in html5 if not name.endswith(";")}


TEXTS = st.text(st.one_of(st.sampled_from("<>&;/!-=\"' \n\r\tab*_`[]()#|~\\$1.:{}?x♪"), st.characters()), max_size=60)
HEADS = {"srt": "1\n00:00:01,000 --> 00:00:02,000\n", "vtt": "WEBVTT\n\n00:01.000 --> 00:02.000\n"}


@pytest.mark.parametrize("name", FORMATS)
@given(text=TEXTS)
@settings(max_examples=60, deadline=None)
def test_no_text_is_refused_and_layout_and_units_are_all_of_it(name: str, text: str) -> None:
    source = HEADS.get(name, "") + text
    document = parse(source, name)
    assert "".join(part.text if isinstance(part, Layout) else part.raw for part in document.parts) == source
    assert render(document, [Result(unit.text) for unit in document.units]) == source
    for results in (reverse(document.units), shout(document.units), [Result("") for _ in document.units]):
        render(document, results)


@given(text=TEXTS)
@settings(max_examples=100, deadline=None)
def test_encoded_text_is_read_as_itself(text: str) -> None:
    encoded = encode(text, {})
    assert "<" not in encoded
    read, done = "", 0
    for start, end, characters in references(encoded):
        read += encoded[done:start] + characters
        done = end
    assert read + encoded[done:] == text


@given(text=TEXTS, links=st.lists(st.tuples(*[st.integers(-3, 70)] * 4), max_size=5), made=TEXTS)
@settings(max_examples=100, deadline=None)
def test_links_may_be_anything(text: str, links: list[tuple[int, int, int, int]], made: str) -> None:
    for name in FORMATS:
        source = HEADS.get(name, "") + text
        translate_document(source, name, lambda units: [Result(made, links) for _ in units])
