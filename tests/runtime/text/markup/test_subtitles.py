"""Subtitles keep their cues; sentences that go on in the next cue are translated whole, and dealt out again."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from mobilenmt.runtime.text.markup.dealing import break_lines, deal
from mobilenmt.runtime.text.markup.document import Layout, Result, Unit, parse, render, translate_document
from mobilenmt.runtime.text.markup.weave import TEXT
from timing import cpu_seconds
from translators import copy, double, find_words, reverse

WORDS = ["we", "go", "home", "now", "and", "then", "they", "said", "that", "nobody", "knows", "it"]
WORD = re.compile(rf"\b(?:{'|'.join(WORDS)})\b")


def film(seed: int, vtt: bool = False, newline: str = "\n") -> str:
    """Subtitles made at random: one to three lines a cue, speakers, tags, sentences over cues."""
    chance = random.Random(seed)
    blocks = ["WEBVTT", "NOTE a remark of three words", "STYLE\n::cue { color: red }"] if vtt else []
    at = 0
    for number in range(1, chance.randint(4, 9)):
        lines = []
        for _ in range(chance.choice((1, 1, 2, 2, 3))):
            line = " ".join(chance.choices(WORDS, k=chance.randint(3, 6))) + chance.choice((".", "", ",", "?", ""))
            line = chance.choice((line, line, f"<i>{line}</i>", f"- {line}", f"[{line}]", f"♪ {line} ♪"))
            lines.append(line)
        times = [f"00:00:{at + extra:02}{'.' if vtt else ','}000" for extra in (0, 2)]
        at += 3
        settings = " align:start" if vtt and chance.random() < 0.5 else ""
        blocks.append("\n".join([str(number), f"{times[0]} --> {times[1]}{settings}", *lines]))
    return ("\n\n".join(blocks) + "\n").replace("\n", newline)


def skeleton(source: str) -> list[tuple[tuple[str, ...], list[str]]]:
    """Numbers and times, and lines, by another way than the parser's: cues stand between empty lines."""
    cues = []
    for block in re.split(r"(?:\r?\n){2,}", source.strip()):
        lines = block.splitlines()
        timed = next((n + 1 for n, line in enumerate(lines) if "-->" in line), len(lines))
        cues.append((tuple(lines[:timed]), lines[timed:]))
    return cues


@pytest.mark.parametrize("seed", range(60))
def test_cues_times_lines_and_tags_stay(seed: int) -> None:
    vtt = seed % 2 == 1
    source = film(seed, vtt, "\r\n" if seed % 3 == 0 else "\n")
    if seed % 5 == 0:
        source = "\ufeff" + source
    document = parse(source, "vtt" if vtt else "srt")
    assert "".join(part.text if isinstance(part, Layout) else part.raw for part in document.parts) == source
    assert translate_document(source, document.format, copy) == source
    for translate, times in ((reverse, 1), (double, 2)):
        output = render(document, translate(document.units))
        for (head, lines), (made_head, made_lines) in zip(skeleton(source), skeleton(output), strict=True):
            assert made_head == head
            # A cue that gets one word of a sentence over several has one line.
            assert len(made_lines) == len(lines) or len(" ".join(made_lines).split()) < 2 * len(lines)
        assert set(re.findall("<[^>]*>", output)) == set(re.findall("<[^>]*>", source))
        assert output.count("<i>") == output.count("</i>") >= source.count("<i>")
        assert len(re.findall("\r(?!\n)|(?<!\r)\n" if "\r" in source else "\r", output)) == 0
        words, made = (Counter(WORD.findall(text)) for text in (source, output))
        notes: Counter[str] = Counter(WORD.findall("NOTE a remark of three words")) if vtt else Counter()
        assert made - notes == Counter({word: count * times for word, count in (words - notes).items()})


WRITTEN = [
    ("1\n00:00:01,000 --> 00:00:02,000\na b\n", "1\n00:00:01,000 --> 00:00:02,000\nb a\n"),
    ("1\n0:00:01,0 --> 0:00:02,0\n{\\an8}a b\n", "1\n0:00:01,0 --> 0:00:02,0\n{\\an8}b a\n"),
    ("1\n00:00:01,000 --> 00:00:02,000\n<i>a b</i>\n", "1\n00:00:01,000 --> 00:00:02,000\n<i>b a</i>\n"),
    (
        "1\n00:00:01,000 --> 00:00:02,000\n<font color=red>a b\n",
        "1\n00:00:01,000 --> 00:00:02,000\n<font color=red>b a\n",
    ),
    ("1\n00:00:01,000 --> 00:00:02,000\n- a b\n- c d\n", "1\n00:00:01,000 --> 00:00:02,000\n- b a\n- d c\n"),
    (
        "1\n00:00:01,000 --> 00:00:02,000\n<i>-a b</i>\n<i>-c d</i>\n",
        "1\n00:00:01,000 --> 00:00:02,000\n<i>-b a</i>\n<i>-d c</i>\n",
    ),
    ("1\n00:00:01,000 --> 00:00:02,000\n♪ a b ♪\n", "1\n00:00:01,000 --> 00:00:02,000\n♪ b a ♪\n"),
    ("1\n00:00:01,000 --> 00:00:02,000\n[a b]\n", "1\n00:00:01,000 --> 00:00:02,000\n[b a]\n"),
    ("1\n00:00:01,000 --> 00:00:02,000\n[a b] c d\n", "1\n00:00:01,000 --> 00:00:02,000\n[b a] d c\n"),
    ("1\n00:00:01,000 --> 00:00:02,000\n-5 degrees\n", "1\n00:00:01,000 --> 00:00:02,000\ndegrees -5\n"),
    ("1\n00:00:01,000 --> 00:00:02,000\n12:30\n", "1\n00:00:01,000 --> 00:00:02,000\n12:30\n"),
    ("no cue at all\n", "no cue at all\n"),
    ("", ""),
    ("WEBVTT a b\n\n00:01.000 --> 00:02.000\n<v Al Bo>a b\n", "WEBVTT a b\n\n00:01.000 --> 00:02.000\n<v Al Bo>b a\n"),
    (
        "WEBVTT\n\nNOTE a b\n\n00:01.000 --> 00:02.000\na &lt; b &amp; c\n",
        "WEBVTT\n\nNOTE a b\n\n00:01.000 --> 00:02.000\nc &amp; b &lt; a\n",
    ),
    (
        "WEBVTT\n\n00:01.000 --> 00:02.000\na &#0; b &#xd800;\n",
        "WEBVTT\n\n00:01.000 --> 00:02.000\n&#xd800; b &#0; a\n",
    ),
    (
        "WEBVTT\n\nx y\n00:01.000 --> 00:02.000 line:0\na <c.red>b c</c>\n",
        "WEBVTT\n\nx y\n00:01.000 --> 00:02.000 line:0\n<c.red>c b</c> a\n",
    ),
    ("WEBVTT\n\n00:01.000 --> 00:02.000\na <00:01.500>b\n", "WEBVTT\n\n00:01.000 --> 00:02.000\n<00:01.500>b a\n"),
    # without an empty line between
    (
        "1\n00:00:01,000 --> 00:00:02,000\na b.\n2\n00:00:03,000 --> 00:00:04,000\nc d\n",
        "1\n00:00:01,000 --> 00:00:02,000\nb. a\n2\n00:00:03,000 --> 00:00:04,000\nd c\n",
    ),
]


@pytest.mark.parametrize(("source", "expected"), WRITTEN)
def test_written_cases_reversed(source: str, expected: str) -> None:
    assert translate_document(source, "srt", reverse) == expected


def cues(*texts: str, gap: int = 0) -> str:
    """Subtitles of these texts, two seconds each."""
    blocks = []
    for number, text in enumerate(texts):
        start = number * (2 + gap)
        blocks.append(f"{number + 1}\n00:00:{start:02},000 --> 00:00:{start + 2:02},000\n{text}\n")
    return "\n".join(blocks)


@pytest.mark.parametrize(
    ("source", "units"),
    [
        (cues("When the sun", "goes down."), ["When the sun goes down."]),
        (cues("The sun goes.", "Down it is."), ["The sun goes.", "Down it is."]),
        (cues("When the sun", "- goes down."), ["When the sun", "goes down."]),
        (cues("When the sun", "[noise]"), ["When the sun", "noise"]),
        (cues("When the sun", "goes down.", gap=5), ["When the sun", "goes down."]),
        (cues("When the sun ♪", "goes down."), ["When the sun", "goes down."]),
        (cues("Hello. When the\nsun", "goes down. Bye", "now."), ["Hello. When the sun goes down. Bye now."]),
        (
            "WEBVTT\n\n00:01.000 --> 00:02.000\n<v A>one two\n\n00:02.000 --> 00:03.000\n<v B>three\n",
            ["one two", "three"],
        ),
    ],
)
def test_what_is_one_unit(source: str, units: list[str]) -> None:
    assert [unit.text for unit in parse(source, "srt").units] == units


def test_a_sentence_over_two_cues_is_dealt_out_by_its_links() -> None:
    source = cues("When I come <i>home</i>,\nI will", "call you.")

    def translate(units: Sequence[Unit]) -> list[Result]:
        assert [unit.text for unit in units] == ["When I come home, I will call you."]
        pairs = zip(["When", "I", "come", "home,", "I", "will", "call", "you."], (0, 1, 3, 2, 5, 4, 7, 6), strict=True)
        made = "Wenn ich nachhause, komme, werde ich dich anrufen."
        spots, sources = find_words(made), find_words(units[0].text)
        links = [(*sources[n], *spots[at]) for n, (_, at) in enumerate(pairs)]
        return [Result(made, links)]

    assert translate_document(source, "srt", translate) == cues(
        "Wenn ich <i>nachhause</i>,\nkomme, werde ich", "dich anrufen."
    )


def test_without_links_it_is_dealt_out_by_length_and_rather_behind_a_comma() -> None:
    shares = deal(["one two three four", "five six seven eight"], Result("eins, zwei drei vier fünf sechs sieben acht"))
    assert [share.text for share in shares] == ["eins, zwei drei vier", "fünf sechs sieben acht"]
    shares = deal(["one two three four", "five six seven eight"], Result("eins zwei drei vier fünf, sechs sieben acht"))
    assert [share.text for share in shares] == ["eins zwei drei vier fünf,", "sechs sieben acht"]
    assert [share.text for share in deal(["a", "b", "c"], Result("x"))] == ["x", "", ""]
    assert [share.text for share in deal(["a b", "c d"], Result("你好世界"))] == ["你好", "世界"]


@pytest.mark.parametrize(
    ("text", "lines", "expected"),
    [
        ("one two three four", 2, "one two\nthree four"),
        ("one two three four", 1, "one two three four"),
        ("oneword", 2, "oneword"),
        ("a b c d e f", 3, "a b\nc d\ne f"),
        ("Hello there, nice to meet you", 2, "Hello there,\nnice to meet you"),
        ("It is 3.5 km now", 2, "It is\n3.5 km now"),
        ("3.5 km", 2, "3.5 km"),
    ],
)
def test_lines_break_near_the_middle(text: str, lines: int, expected: str) -> None:
    assert "".join(piece for piece, _ in break_lines([(text, TEXT)], lines)) == expected


def test_no_cue_and_no_mark_parts_a_kept_span() -> None:
    shares = deal(["one two 3.5 km", "four five"], Result("eins zwei drei 3,5 km vier"))
    assert [share.text for share in shares] == ["eins zwei drei", "3,5 km vier"]
    source = cues("It is 3.5 km <b><i>to go</b>")
    for links in ([(0, 2, 0, 2), (6, 9, 3, 6), (10, 12, 3, 6)], []):
        output = translate_document(source, "srt", lambda _, links=links: [Result("Es 3,5 km gehen", links)])
        assert "3,5 km" in output
        assert all(tag in output for tag in ("<b>", "<i>", "</b>"))


def test_a_mark_inside_a_kept_span_stays_inside() -> None:
    made = lambda _: [Result("Es sind 3,5 km.", [(0, 2, 0, 2), (3, 5, 3, 7), (6, 12, 8, 14)])]  # noqa: E731
    assert translate_document("<p>It is <b>3.5</b> km.</p>", "html", made) == "<p>Es sind <b>3,5</b> km.</p>"


def test_what_the_model_writes_is_no_time_and_no_empty_line() -> None:
    made: Callable[[Sequence[Unit]], list[Result]] = lambda units: [Result("a --> b\n\nc") for _ in units]  # noqa: E731
    assert translate_document(cues("x y"), "srt", made) == cues("a -> b  c")
    vtt = "WEBVTT\n\n00:01.000 --> 00:02.000\nx y\n"
    assert translate_document(vtt, "vtt", made) == vtt.replace("x y", "a --&gt; b  c")


@pytest.mark.parametrize("piece", ["<", "<i>", "- a\n", "a\n", "[a", "♪ a ", "</i>a ", "{\\an8}", "1\n", "&"])
def test_hostile_cues_take_time_in_proportion(piece: str) -> None:
    def cost(size: int, tries: int = 2) -> float:
        text = "WEBVTT\n\n00:01.000 --> 00:02.000\n" + piece * (size // len(piece))
        return cpu_seconds(lambda: translate_document(text, "vtt", reverse), tries)

    cost(1000)
    assert cost(16_000) < 12 * cost(4_000, 3) + 0.3  # 16 times, and more, if it were quadratic
