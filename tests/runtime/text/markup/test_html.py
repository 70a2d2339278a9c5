"""HTML comes back as the tree it was, around the words of the translation.

html5lib, which parses as browsers do, is the judge: of the source and of the output alike.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import html5lib
import pytest

from mobilenmt.runtime.text.markup import html
from mobilenmt.runtime.text.markup.document import Document, Layout, Result, parse, render, translate_document
from timing import cpu_seconds
from translators import copy, double, find_words, reverse, spread

INLINE = ("a", "b", "em", "i", "strong", "span", "u", "sub", "label", "q", "mark", "small", "x-note")
VOID = ("img", "br", "input", "wbr")
EMPHASIS = ("b", "em", "i", "small", "strong", "u")
CASES = 300


def tree(source: str) -> Any:
    """The tree a browser makes of it: (name, attributes, children), texts without white space.

    Emphasis without content is left out: where tags cross, browsers open it once more for each white space.
    """

    def of(element: Any) -> Any:
        content: list[Any] = []
        for piece in (element.text, *((child, child.tail) for child in element)):
            child, text = piece if isinstance(piece, tuple) else (None, piece)
            if child is not None:
                inner = of(child) if isinstance(child.tag, str) else ("comment", child.text)
                if child.tag not in EMPHASIS or inner[2]:
                    content.append(inner)
            squeezed = "".join((text or "").split())
            if squeezed and content and isinstance(content[-1], str):
                content[-1] += squeezed
            elif squeezed:
                content.append(squeezed)
        return (element.tag, tuple(sorted(element.attrib.items())), tuple(content))

    return of(html5lib.parse(source, namespaceHTMLElements=False))


def shown(source: str) -> str:
    """The text a browser shows, white space collapsed."""
    root = html5lib.parse(re.sub(r"<[!?][^>]*>|</>", "", source), namespaceHTMLElements=False)
    return " ".join("".join(root.itertext()).split())


def letters(source: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every character that is no space, with the elements around it: names and classes, from the outermost."""

    def of(element: Any, above: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
        if isinstance(element.tag, str):
            inside = (*above, f"{element.tag}.{element.get('class', '')}")
            for child, text in ((None, element.text), *((child, child.tail) for child in element)):
                if child is not None:
                    yield from of(child, inside)
                for character in "".join((text or "").split()):
                    yield character, inside

    return of(html5lib.parse(source, namespaceHTMLElements=False), ())


def without_fast_path(document: Document) -> str:
    """The document with every unit woven anew from its own words, none given back as it was."""
    results = iter(copy(document.units))
    return "".join(
        part.text if isinstance(part, Layout) else html.render_unit(part, next(results)) for part in document.parts
    )


class Maker:
    """Makes fragments at random, well nested; every word differs, and every element has a class of its own."""

    def __init__(self, seed: int, glue: bool = True) -> None:
        self.random = random.Random(seed)
        self.count = 0
        self.void = VOID if glue else ("img", "input", "wbr")  # two <br> end a unit, also inside an element
        self.between = (" ", " ", "\n  ", "") if glue else (" ", " ", "\n  ")

    def number(self) -> int:
        self.count += 1
        return self.count

    def word(self) -> str:
        n = self.number()
        return self.random.choice(
            (f"w{n}", f"w{n}", f"w{n}", f"ä{n}&amp;b", f"&lt;w{n}&gt;", f"w{n}&eacute;", f"w{n},", f"AT&T{n}")
        )

    def inline(self, depth: int, inside_link: bool = False) -> str:
        pieces = []
        for _ in range(self.random.randint(1, 4)):
            kind = self.random.random()
            if kind < 0.5 or not depth:
                pieces.append(self.word())
            elif kind < 0.85:
                name = self.random.choice(INLINE[1:] if inside_link else INLINE)
                body = self.inline(depth - 1, inside_link or name == "a")
                pieces.append(f'<{name} class="c{self.number()}">{body}</{name}>')
            elif kind < 0.95:
                pieces.append(f"<{self.random.choice(self.void)} class=v{self.number()}>")
            else:
                pieces.append(f"<!-- {self.number()} -->")
        return "".join(piece + self.random.choice(self.between) for piece in pieces)

    def page(self) -> str:
        blocks = [
            f"<{name} class=k{self.number()}>{self.inline(3)}</{name}>"
            for name in self.random.choices(("p", "h2", "div", "blockquote", "li", "td"), k=2)
        ]
        return "\n".join(f"<table><tr>{b}</tr></table>" if b.startswith("<td") else b for b in blocks)


def spoil(source: str, seed: int) -> str:
    """Break markup: tags lost, crossing, signs that stand alone."""
    chance = random.Random(seed)
    tags = re.findall(r"<[^>]*>|[^<]+", source)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(tags))
        kind = chance.randrange(4)
        if kind == 0:
            del tags[at]
        elif kind == 1:
            other = chance.randrange(len(tags))
            tags[at], tags[other] = tags[other], tags[at]
        else:
            tags.insert(
                at, chance.choice((" < 3 ", "</b>", "<i>", "</span>", "&", "<b", "<!bogus>", "</>", "&nope;", "<?x?>"))
            )
        if not tags:
            return "x"
    return "".join(tags)


@pytest.mark.parametrize("seed", range(CASES))
def test_the_tree_stays_where_the_words_do(seed: int) -> None:
    source = Maker(seed).page()
    if seed % 3 == 0:
        source = spoil(source, seed)
    document = parse(source, "html")
    assert "".join(part.text if isinstance(part, Layout) else part.raw for part in document.parts) == source
    assert translate_document(source, "html", copy) == source
    output = without_fast_path(document)
    assert tree(output) == tree(source)
    if "<br" not in source:
        assert shown(output) == shown(source)


@pytest.mark.parametrize("seed", range(CASES))
def test_elements_go_with_their_words_when_these_change_places_or_come_twice(seed: int) -> None:
    source = Maker(seed + 10_000, glue=False).page()
    document = parse(source, "html")
    expected: Counter[tuple[str, tuple[str, ...]]] = Counter(letters(source))
    for translate, times in ((reverse, 1), (double, 2)):
        output = render(document, translate(document.units))
        found = Counter(letters(output))
        assert found == Counter({letter: count * times for letter, count in expected.items()})
        assert Counter(re.findall("<[^>]*>", output)) == Counter(re.findall("<[^>]*>", source))


@pytest.mark.parametrize("seed", range(0, CASES, 3))
def test_broken_markup_loses_no_tag_and_no_word(seed: int) -> None:
    source = spoil(Maker(seed + 20_000).page(), seed)
    document = parse(source, "html")
    output = render(document, reverse(document.units))
    before, after = (Counter(re.findall(r"class=\"?\w+", text)) for text in (source, output))
    assert set(before) == set(after)
    assert sorted("".join(c for c, _ in letters(output))) == sorted("".join(c for c, _ in letters(source)))


def word_by_word(units: Any, table: dict[str, str]) -> list[Result]:
    """Translate by a table of words; ``-`` is nothing."""
    results = []
    for unit in units:
        out, links = "", []
        for start, end in find_words(unit.text):
            made = table.get(unit.text[start:end], unit.text[start:end])
            if made != "-":
                out += " " if out else ""
                links.append((start, end, len(out), len(out) + len(made)))
                out += made
        results.append(Result(out, links))
    return results


WRITTEN = [
    # entities: decoded for the model, spelled as in the source, never a tag where none was
    ("<p>x &lt;b&gt; y</p>", "<p>y &lt;b&gt; x</p>"),
    ("<p>a &lt; b</p>", "<p>b &lt; a</p>"),
    ("<p>1 < 2 yes</p>", "<p>yes 2 &lt; 1</p>"),
    ("<p>AT&T R&D</p>", "<p>R&D AT&T</p>"),
    ("<p>Tom &amp; Jerry</p>", "<p>Jerry &amp; Tom</p>"),
    ("<p>&nbsp;one two&nbsp;</p>", "<p>&nbsp;two one&nbsp;</p>"),
    ("<p>caf&eacute; &#8364; &#x41;b</p>", "<p>&#x41;b &#8364; caf&eacute;</p>"),
    ("<p>&nope; &copy z</p>", "<p>z &copy &nope;</p>"),
    ("<p>x &amp;lt; y</p>", "<p>y &amp;lt; x</p>"),
    ("<p>say &quot;hi&quot; now</p>", "<p>now &quot;hi&quot; say</p>"),
    # ... and what stands for no character is kept as it is spelled
    ("<p>&#0; &#x110000; a</p>", "<p>a &#x110000; &#0;</p>"),
    ("<p>&#xD800; b <code>&#0;</code></p>", "<p><code>&#0;</code> b &#xD800;</p>"),
    ("<title>a &amp; b</title>", "<title>b &amp; a</title>"),
    # untouched
    ("<pre>a  b\n c</pre><p>d e</p>", "<pre>a  b\n c</pre><p>e d</p>"),
    ("<script>if (a<b) x</script><p>d e</p>", "<script>if (a<b) x</script><p>e d</p>"),
    ("<style>a > b</style>d e", "<style>a > b</style>e d"),
    ("<textarea>a b</textarea> d e", "<textarea>a b</textarea> e d"),
    ("d <textarea><b>a</textarea> e", "<textarea><b>a</textarea> e d"),
    ("<div translate=no>a b<div>c d</div>e</div>f g", "<div translate=no>a b<div>c d</div>e</div>g f"),
    ("<p class='x notranslate'>a b<p>f g", "<p class='x notranslate'>a b<p>g f"),
    ('<p>a <span translate="no">B <i>C</i></span> d</p>', '<p>d <span translate="no">B <i>C</i></span> a</p>'),
    ("<p>a <code>x &lt;  y</code> d</p>", "<p>d <code>x &lt;  y</code> a</p>"),
    ("a <svg viewBox='0 0'><text>t u</text></svg> b", "<svg viewBox='0 0'><text>t u</text></svg> b a"),
    ("a <math><mi>x</mi></math> b", "<math><mi>x</mi></math> b a"),
    ("<template><p>a b</p></template>c d", "<template><p>a b</p></template>d c"),
    ("<!DOCTYPE html><!-- a b -->c d", "<!DOCTYPE html><!-- a b -->d c"),
    ("<![CDATA[a b]]>c d", "<![CDATA[a b]]>d c"),
    ("<script><!-- <script> a </script> b --></script>c d", "<script><!-- <script> a </script> b --></script>d c"),
    ("<p>12 - 3</p>", "<p>12 - 3</p>"),
    # attributes
    ("<a HREF=x?a=1&b=2 title='a > b'>a b</a> c", "c <a HREF=x?a=1&b=2 title='a > b'>b a</a>"),
    ("<img alt='a b' src=x>c d", "<img alt='a b' src=x>d c"),
    # what stands between words
    ("a b<br>c d", "d c b<br>a"),
    ("a b<br><br>c d", "b a<br><br>d c"),
    ("a <img src=x> b", "<img src=x> b a"),
    ("a<sup>1</sup> b", "b a<sup>1</sup>"),
    ("<p><img src=x> a b</p>", "<p><img src=x> b a</p>"),
    ("a <b></b> c", "<b></b>c a"),
    # blocks, and what ends them
    ("<ul><li>a b<li>c d</ul>", "<ul><li>b a<li>d c</ul>"),
    ("<table><tr><td>a b<td>c d</table>", "<table><tr><td>b a<td>d c</table>"),
    ("<h1>a b</h1>c d<hr>e f", "<h1>b a</h1>d c<hr>f e"),
    ("<select><option>a b<option>c d</select>", "<select><option>b a<option>d c</select>"),
    ("<b>a b</b>", "<b>b a</b>"),
    ("<a href=x><div>a b</div></a>", "<a href=x><div>b a</div></a>"),
    # broken
    ("<p>a <b>b c", "<p><b>c b a"),
    ("<b>a <i>b</b> c</i>", "<i>c</i> <b><i>b</i> a</b>"),
    ("a <a href=x>b <a href=y>c</a>", "<a href=y>c</a> <a href=x>b</a> a"),
    ("a </i> b", "</i> b a"),
    ("a <b b", "a <b b"),
    ("a < b <> c", "c &lt;> b &lt; a"),
    ("a </> b", "</> b a"),
    ("", ""),
    ("<", "<"),
    ("a b &", "& b a"),
]


@pytest.mark.parametrize(("source", "expected"), WRITTEN)
def test_written_cases_reversed(source: str, expected: str) -> None:
    assert translate_document(source, "html", reverse) == expected


SPLIT = [
    ("<b>turn off</b> it", "turn it off", [0, 2, 1], "<b>turn</b> it <b>off</b>"),
    ("<a href=x>turn off</a> it", "", [0, 2, 1], "<a href=x>turn it off</a>"),
    ("<b id=x>turn off</b> it", "", [0, 2, 1], "<b id=x>turn it off</b>"),
    ("<a href=x>turn off</a> <a href=y>it</a>", "", [0, 2, 1], "<a href=x>turn</a> <a href=y>it</a> off"),
    ("<b>turn <a href=x>off</a></b> it", "", [0, 2, 1], "<b>turn it <a href=x>off</a></b>"),
    ("<b>the</b> house", "", [1], "<b></b>house"),
    ("go <a name=x></a>home now", "", [2, 0, 1], "now go <a name=x></a>home"),
]


@pytest.mark.parametrize(("source", "unused", "order", "expected"), SPLIT)
def test_words_that_no_longer_stand_together(source: str, unused: str, order: list[int], expected: str) -> None:
    def translate(units: Any) -> list[Result]:
        return [spread(find_words(unit.text), unit.text, order) for unit in units]

    assert translate_document(source, "html", translate) == expected


INSIDE = [
    ("un<b>believ</b>able", "unbelievable", "un<b>believ</b>able!", "unbelievable!"),
    ("H<sub>2</sub>O is", "H2O is", "H<sub>2</sub>O ist", "H2O ist"),
    ("<b>F</b>irst", "First", "<b>E</b>rste", "Erste"),
    ("word<b>s</b>", "words", "wörter<b>s</b>", "wörters"),
    ("super<wbr>cali", "supercali", "super<wbr>cali!", "supercali!"),
    ("10<sup>5</sup> m", "10 m", "10<sup>5</sup> M", "10 M"),
]


@pytest.mark.parametrize(("source", "text", "expected", "made"), INSIDE)
def test_tags_inside_words(source: str, text: str, expected: str, made: str) -> None:
    assert [unit.text for unit in parse(source, "html").units] == [text]
    assert translate_document(source, "html", lambda units: [Result(made) for _ in units]) == expected


def test_a_word_that_comes_of_words_in_and_out_of_an_element_stands_in_it() -> None:
    def translate(units: Any) -> list[Result]:
        return [Result("am Haus", [(0, 2, 0, 2), (3, 6, 0, 2), (7, 12, 3, 7)])]

    assert translate_document("at <b>the</b> house", "html", translate) == "<b>am</b> Haus"


def test_without_links_marks_go_where_they_are_in_proportion_at_the_ends_of_words() -> None:
    source = "<p>Please press the <b>red button</b> on the wall.</p>"
    made = "Bitte drücken Sie den roten Knopf an der Wand."
    output = translate_document(source, "html", lambda units: [Result(made) for _ in units])
    assert output == "<p>Bitte drücken Sie den <b>roten Knopf</b> an der Wand.</p>"


def test_what_the_model_lost_of_kept_words_is_put_back() -> None:
    source = "Run <code>ls -l</code> now."
    links = [(0, 3, 0, 5), (4, 6, 10, 15)]
    for made, link, expected in (
        ("Starte jetzt.", [(0, 3, 0, 6), (10, 14, 7, 13)], "Starte <code>ls -l</code> jetzt."),
        ("Starte Liste jetzt.", [(0, 3, 0, 6), (4, 9, 7, 12), (10, 14, 13, 19)], "Starte <code>ls -l</code> jetzt."),
    ):
        assert translate_document(source, "html", lambda _, m=made, k=link: [Result(m, k)]) == expected
    assert links


def test_a_line_break_behind_a_sentence_stays_behind_the_marks_of_its_end() -> None:
    source = "Go home.<br>Eat it. <br>Now"
    links = [(0, 2, 0, 3), (3, 8, 4, 8), (8, 11, 11, 13), (12, 15, 14, 16), (17, 20, 18, 23)]
    made = Result("Geh heim!!! Iß es. Jetzt", links)
    expected = "Geh heim!!!<br>Iß es. <br>Jetzt"
    assert translate_document(source, "html", lambda _: [made]) == expected


@pytest.mark.parametrize("depth", [10, 100_000])
def test_any_nesting_gets_through(depth: int) -> None:
    source = "<b>" * depth + "one two" + "</b>" * depth
    assert translate_document(source, "html", reverse) == source.replace("one two", "two one")


HOSTILE = [
    "<",
    "&",
    "<b>",
    "<b>w ",
    "</b>w ",
    "<a ",
    "<!--",
    "<code>x ",
    "x<sup>1 ",
    "a<img> b ",
    "<b>a<i>b</b>c</i> ",
    "<code>x</code> y ",
    "<a b='",
    "&a",
    "<i>x</b> ",
    "<script>",
    "<svg>",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_texts_take_time_in_proportion(piece: str) -> None:
    def cost(size: int, tries: int = 2) -> float:
        text = piece * (size // len(piece))
        return cpu_seconds(lambda: translate_document(text, "html", reverse), tries)

    cost(1000)
    assert cost(16_000) < 12 * cost(4_000, 3) + 0.3  # 16 times, and more, if it were quadratic
