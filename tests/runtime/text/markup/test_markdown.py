"""Markdown comes back with the structure it had, around the words of the translation. markdown-it is the judge."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from markdown_tree import structure
from mobilenmt.runtime.text.markup import markdown
from mobilenmt.runtime.text.markup.document import Document, Layout, Result, Unit, parse, render, translate_document
from places import ROOT
from timing import cpu_seconds
from translators import copy, reverse

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (ROOT, *(ROOT / name for name in ("docs", "compression", "benchmarks", "examples")))
    for path in folder.glob("*.md")
)
#: Letters and every sign that means something. No formulas and notes, which markdown-it does not know.
ALPHABETS = ("ab  *_`[]()<>\n#-1.~!\\&:", "ab *_[](\n->1.", "ab  \n->1.)`", "ab *_~`\\")


def woven(document: Document, translate: Callable[[Sequence[Unit]], list[Result]] = copy) -> str:
    """The document with every unit woven anew, none given back as it was."""
    results = iter(translate(document.units))
    return "".join(
        part.text if isinstance(part, Layout) else markdown.render_unit(part, next(results)) for part in document.parts
    )


def kinds(source: str) -> list[object]:
    """The structure without the words, and without emphasis, which may be split."""
    return [token for token in structure(source) if token[0] != "text" and token[1] not in ("em", "strong")]


@pytest.mark.parametrize("name", PAGES)
def test_pages_of_this_repository(name: str) -> None:
    source = (ROOT / name).read_text(encoding="utf-8")
    document = parse(source, "markdown")
    assert "".join(part.text if isinstance(part, Layout) else part.raw for part in document.parts) == source
    assert translate_document(source, "markdown", copy) == source
    assert structure(woven(document)) == structure(source)
    # Words change places, and marks with them: blocks stay, and nothing that was marked is lost or new.
    output = render(document, reverse(document.units))
    assert sorted(map(str, kinds(output))) == sorted(map(str, kinds(source)))


@pytest.mark.parametrize("alphabet", ALPHABETS)
@pytest.mark.parametrize("seed", range(4))
def test_any_text_keeps_its_structure(alphabet: str, seed: int) -> None:
    chance = random.Random(f"{alphabet}{seed}")
    for _ in range(150):
        source = "".join(chance.choices(alphabet, k=chance.randint(3, 24)))
        document = parse(source, "markdown")
        assert "".join(part.text if isinstance(part, Layout) else part.raw for part in document.parts) == source
        assert structure(woven(document)) == structure(source), source


WRITTEN = [
    ("# one *two*\n", "# *two* one\n"),
    ("# one two #\n", "# two one #\n"),
    ("one two\n===\n", "two one\n===\n"),
    ("one\ntwo\n", "two one\n"),
    ("> one\n> two\n", "> two one\n"),
    ("- [ ] one two\n- [x] three\n", "- [ ] two one\n- [x] three\n"),
    ("1. one two\n\n   three four\n", "1. two one\n\n   four three\n"),
    ("one  \ntwo three\n", "three two one  \n\n"),
    ("a b  \nc d", "d c b  \na"),
    ("a b\\\nc d", "d c b\\\na"),
    ("    a b\n", "    a b\n"),
    ("```\na b\n```\nc d\n", "```\na b\n```\nd c\n"),
    ("~~~x\na b\n", "~~~x\na b\n"),
    ("---\na: b c\n---\nd e\n", "---\na: b c\n---\ne d\n"),
    ("| a b | c \\| d |\n|---|:-:|\n| e f | `x|y` |\n", "| b a | d \\| c |\n|---|:-:|\n| f e | `x|y` |\n"),
    ("use `a  b` now", "now `a  b` use"),
    ("see [the docs](http://x.y/a_b 't u') now", "now [docs the](http://x.y/a_b 't u') see"),
    ("![a b](c.png) d", "d ![b a](c.png)"),
    ("[![a b](c.png)](d) ![e f](g.png)", "[![b a](c.png)](d) ![f e](g.png)"),
    ("![a b](c.png)\n![e f](g.png)", "![b a](c.png)\n![f e](g.png)"),
    ("a b<br>c d", "d c b<br>a"),
    ("a <http://x.y> b", "b <http://x.y> a"),
    ("[a b]: http://x\n\nsee [a b] now\n", "[a b]: http://x\n\nnow [b a][a b] see\n"),
    ("see [x y][A] now\n\n[a]: /u\n", "now [y x][A] see\n\n[a]: /u\n"),
    ("a \\* b", "b \\* a"),
    ("a &amp; b &copy;", "&copy; b &amp; a"),
    ("a &#0; b `c &#0;` &#x110000;", "&#x110000; `c &#0;` b &#0; a"),
    ("5 * 3 is", "is 3 * 5"),
    ("is it 1.", "1\\. it is"),
    ("a b #", "\\# b a"),
    ("or - a", "a - or"),
    ("a b -", "\\- b a"),
    ("x a_b_c y", "y a_b_c x"),
    ("a <b>b c</b> d", "d <b>c b</b> a"),
    ("a $x_1 + *y*$ b", "b $x_1 + *y*$ a"),
    ("costs $5 or $6", "$6 or $5 costs"),
    ("$$\na b\n$$\nc d", "$$\na b\n$$\nd c"),
    ("a[^1] b\n\n[^1]: c d\n", "b a[^1]\n\n[^1]: d c\n"),
    ("<div>a b</div>\n\nc d\n", "<div>b a</div>\n\nd c\n"),
    ("<!-- a b -->\n\nc d\n", "<!-- a b -->\n\nd c\n"),
    ("~~a b~~ c", "c ~~b a~~"),
    ("***a b*** c", "c ***b a***"),
    ("a b\r\nc d\r\n\r\ne f\r\n", "d c b a\r\n\r\nf e\r\n"),
    ("\ufeff# a b\n", "\ufeff# b a\n"),
    ("", ""),
]


@pytest.mark.parametrize(("source", "expected"), WRITTEN)
def test_written_cases_reversed(source: str, expected: str) -> None:
    assert translate_document(source, "markdown", reverse) == expected


TROUBLE = [
    ("plain words", "*stars* and _lines_", "\\*stars\\* and \\_lines\\_"),
    ("plain words", "a `tick` here", "a \\`tick\\` here"),
    ("plain words", "[x](y) here", "\\[x\\](y) here"),
    ("plain words", "<b> here", "\\<b\\> here"),
    ("plain words", "# no heading", "\\# no heading"),
    ("plain words", "2) no list", "2\\) no list"),
    ("plain words", "- no list", "\\- no list"),
    ("plain words", "two\n\nlines", "two  lines"),
    ("plain words", "&amp; here", "\\&amp; here"),
    ("| plain |\n|---|", "a | b", "| a \\| b |\n|---|"),
    ("see [this](x)", "siehe! dies", "siehe! [dies](x)"),
]


@pytest.mark.parametrize(("source", "made", "expected"), TROUBLE)
def test_what_the_model_writes_is_never_read_as_markup(source: str, made: str, expected: str) -> None:
    assert translate_document(source, "markdown", lambda units: [Result(made) for _ in units]) == expected


HOSTILE = [
    "[",
    "]",
    "![",
    "*",
    "*a ",
    "a*b_",
    "`",
    "`a``",
    "<",
    "&",
    "<!--",
    "<a ",
    "[a](",
    '[a](b "',
    "> ",
    "- ",
    "|a\n|-\n",
    "$a",
    "<b>",
    "[[a](b)](c)",
    "**a **b ",
    "\\",
    "[a]: b '",
    "***a",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_texts_take_time_in_proportion(piece: str) -> None:
    def cost(size: int, tries: int = 2) -> float:
        text = piece * (size // len(piece))
        return cpu_seconds(lambda: translate_document(text, "markdown", reverse), tries)

    cost(1000)
    assert cost(16_000) < 12 * cost(4_000, 3) + 0.3  # 16 times, and more, if it were quadratic
