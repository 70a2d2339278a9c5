"""The short way of plain sentences gives what the long one gives, in all fields; and most sentences are plain."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobilenmt import Translation, Translator
from mobilenmt.runtime import reader
from mobilenmt.runtime.native import LIBRARY
from mobilenmt.runtime.text.case import Case, lower
from mobilenmt.runtime.text.fold import Folder
from mobilenmt.runtime.text.kept import default_rules
from mobilenmt.runtime.text.letters import has_words, long_words
from mobilenmt.runtime.text.lines import is_plain, marker_end
from mobilenmt.runtime.text.segment import segments
from mobilenmt.runtime.text.sentences import split
from places import ROOT

ENGINE = "native" if LIBRARY.is_file() else "onnx"
SENTENCES = (ROOT / "benchmarks" / "sentences.en.txt").read_text(encoding="utf-8").splitlines()
LIST = """
the dog sees a cat I am here where is it my mother-in-law don't O'Brien A I'm dogs' Tom Anna London a house with trees
behind every window café Zürich naïve ß Ärger élan IV V X XD xD NATO iPhone I'd e f x-X Ph German Monday Mr etc Jan
THE DOG Sees The Cat Donaudampfschifffahrtsgesellschaft no no no
"""
WORDS = LIST.split()
JOINS = [" "] * 110 + [
    *(
        ' "',
        '" ',
        " (",
        ") ",
        ',"',
        '," ',
        "), ",
        ' ("',
        "')",
        ",, ",
        '"',
        "(",
        "()",
        " EU ",
        " US-",
        " DVD ",
        " TAXI ",
        " USB, ",
    ),
    ", ",
    ": ",
    "-",
    "'",
    "  ",
    ",",
    " - ",
    "; ",
    ". ",
    "! ",
    "? ",
    "' ",
    " '",
    "... ",
    "\t",
    "\n",
    "\xa0",
]
ODD = [
    "3.5 km",
    "{name}",
    "max@example.com",
    "→",
    "你好",
    "😀",
    ":)",
    "\xad",
    "e\u0301",
    "a.b",
    "#tag",
    "(see",
    '"Go',
    "µ",
    "×",
]
ENDS = [
    "",
    ".",
    "",
    ".",
    "",
    ".",
    "!",
    "?",
    "...",
    "?!",
    "....",
    ".'",
    " .",
    ":",
    ",",
    ";",
    "…",
    '."',
    ")",
    " ",
    '".',
    ").",
    ".)",
    '")',
    '?"',
]


def mixed_lines(count: int, seed: int = 1) -> Iterator[str]:
    """Lines of words, most of them plain, many nearly so."""
    choose = random.Random(seed)
    for _ in range(count):
        words = choose.choices(WORDS if choose.random() < 0.4 else WORDS[:32], k=choose.choice((1, 2, 3, 5, 8, 14)))
        if choose.random() < 0.1:
            words[choose.randrange(len(words))] = choose.choice(ODD)
        line = words[0] if choose.random() < 0.5 else words[0][:1].upper() + words[0][1:]
        line += "".join(choose.choice(JOINS) + word for word in words[1:])
        yield choose.choice((line, line, line.lower(), line.upper())) + choose.choice(ENDS)


@pytest.fixture(scope="module")
def shipped() -> Translator:
    return Translator(ROOT / "models" / "en-de", engine=ENGINE)


def the_long_way(
    translator: Translator, patch: pytest.MonkeyPatch, texts: list[str], **how: object
) -> list[Translation]:
    with patch.context() as only:
        only.setattr(reader, "is_plain", lambda line: False)
        return [translator.translate_batch([text], **how)[0] for text in texts]  # type: ignore[arg-type]


@pytest.mark.parametrize("how", [{}, {"details": True}, {"beam_size": 2}, {"max_length": 9}], ids=str)
def test_the_short_way_gives_what_the_long_one_gives(
    shipped: Translator, monkeypatch: pytest.MonkeyPatch, how: dict[str, object]
) -> None:
    texts = [*mixed_lines(700 if how == {"details": True} else 200), *SENTENCES[: 40 if how else 300]]
    long = the_long_way(shipped, monkeypatch, texts, **how)
    assert [shipped.translate_batch([text], **how)[0] for text in texts] == long  # type: ignore[arg-type]
    assert shipped.translate_batch(texts, **how) == long  # type: ignore[arg-type]
    if not how:
        assert [shipped.translate(text) for text in texts] == [item.text for item in long]


def test_bad_outputs_are_tried_again_on_the_short_way_too(shipped: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    loops = ["no no no no no no no no", "ha ha ha ha ha ha ha", "bla bla bla bla bla", "a b c d e f g h", "lol", "hm"]
    texts = [text for text in [*loops, *mixed_lines(1_000, seed=5)] if is_plain(text)]
    found = shipped.translate_batch(texts)
    assert any("retried" in item.flags for item in found)
    assert found == the_long_way(shipped, monkeypatch, texts)
    assert [shipped.translate_batch([text])[0] for text in texts] == found


@pytest.mark.parametrize("language", ["en", "de", "fr", "el", "nl", "cs", "", "zh"])
def test_no_rule_does_anything_to_a_plain_line(language: str) -> None:
    folder, rules = Folder(frozenset(map(chr, range(0x20, 0x100)))), default_rules()
    plain = [line for line in [*mixed_lines(4_000, seed=2), *SENTENCES] if is_plain(line)]
    assert len(plain) > 700
    for line in plain:
        assert folder.fold(line).text == line
        assert not rules.find(line) and not long_words(line)
        assert split(line, language) == [len(line)]
        assert marker_end(line, language) == 0 and has_words(line, language)
        assert lower(line, language, cost=lambda word: len(word) % 3) == (line, Case.PLAIN)
        assert [piece.text for piece in segments(line, list, 1_000, sentences=True, language=language)] == [line]  # type: ignore[arg-type]


def test_most_sentences_are_plain_and_these_are_not() -> None:
    assert sum(map(is_plain, SENTENCES)) > 0.95 * len(SENTENCES)
    assert all(map(is_plain, ["Hello", "I am here.", "Where is he?", "Zürich is nice", "go", "Yes, I sometimes do."]))
    for text in [
        "",
        "a",
        "I",
        "OK",
        "Open The Window",
        " go",
        "go ",
        "a  b",
        "one. two",
        "x@y",
        "it is 5",
        "-go",
        "b) go",
    ]:
        assert not is_plain(text), text
    assert not is_plain("word " * 300 + "word")


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_node_finds_the_same_lines_plain() -> None:
    lines = [line for line in mixed_lines(2_000, seed=3) if len(line) < 1_000 and "\n" not in line]
    program = """
      const [pattern, lines] = JSON.parse(require("fs").readFileSync(0, "utf8"));
      const whole = new RegExp("^(?:" + pattern + ")$", "u");
      console.log(JSON.stringify(lines.map(line => whole.test(line))));
    """
    rules = Path(reader.__file__).with_name("text") / "rules" / "plain.json"
    asked = json.dumps([json.loads(rules.read_text("utf-8"))["pattern"], lines])
    done = subprocess.run(["node", "-e", program], input=asked, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [is_plain(line) for line in lines]
