"""Lines of code, JSON, SQL and commands stay as they are; lines of prose that look a little like them do not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from mobilenmt import Translator
from mobilenmt.runtime.text import data
from mobilenmt.runtime.text.lines import is_code, is_plain
from places import ROOT

#: ``+``: code; ``-``: words; ``?``: code that could be words, and is taken for them.
LINES = [
    (line[0], line[2:])
    for line in (Path(__file__).parent / "data" / "code_lines.txt").read_text(encoding="utf-8").splitlines()
]
PROSE = [
    line for name in ("en", "de", "held", "other") for line in
    (Path(__file__).parent / "data" / f"sentences.{name}.txt").read_text(encoding="utf-8").splitlines()
]  # fmt: skip


@pytest.mark.parametrize(("kind", "line"), LINES)
def test_what_is_code(kind: str, line: str) -> None:
    assert is_code(line) == (kind == "+")
    assert not (kind == "+" and is_plain(line))


def test_sentences_are_no_code() -> None:
    sentences = (ROOT / "benchmarks" / "sentences.en.txt").read_text(encoding="utf-8").splitlines()
    assert len(sentences) > 290 and len(PROSE) > 600
    assert [line for line in [*sentences, *PROSE] if is_code(line.strip())] == []


def test_code_in_a_text_stays_byte_for_byte_and_the_words_around_it_do_not() -> None:
    translator = Translator(ROOT / "models" / "en-de")
    code = 'def main():\n\tfor i in range(10):\n\t\tprint("hello")\r\n\n$ git commit -m "the dog"\n  {"text": "dog"}'
    found = translator.translate(f"The house:\n{code}\nGood morning.")
    assert found == f"{translator.translate('The house:')}\n{code}\n{translator.translate('Good morning.')}"
    result = translator.translate_batch(["import numpy as np"])[0]
    assert (result.text, result.sentences, result.flags) == ("import numpy as np", (), ())
    assert translator.translate('"text": "Good morning",') == f'"text": "{translator.translate("Good morning")}",'


@pytest.mark.parametrize(
    "line", ["(", "a.", "a b ", "{", "x = ", 'a("', "a,", "public ", "[1, ", "import a, ", "git -a ", '"a": "b", ', "«"]
)
def test_no_line_takes_long(line: str) -> None:
    for text in (line * 2000, f"if ({line * 600})", (line * 1999)[:1999]):
        began = time.perf_counter()
        is_code(text)
        assert time.perf_counter() - began < 0.2


def whole_patterns() -> list[str]:
    rules = data.load("code")
    return [data.filled(item["of"], rules["sets"]) for item in rules["lines"]]


def test_patterns_keep_to_what_every_dialect_knows() -> None:
    for pattern in whole_patterns():
        assert not re.search(r"\\[A-Za-z]", pattern), pattern
        assert not re.search(r"\\[^\\\[\](){}.*+?^$|/\-]", pattern), pattern  # what the flag u of JavaScript allows
        bare = re.sub(r"\[[^]]*\]", "x", re.sub(r"\\.", "", pattern))
        assert not re.search(r"\(\?(?!:|[=!]|<[=!])|[*+?}]\+", bare), pattern


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_node_finds_the_same() -> None:
    program = (
        "const [p, s] = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        "const all = p.map(x => new RegExp('^(?:' + x + ')$', 'u'));"
        "console.log(JSON.stringify(s.map(t => all.some(x => x.test(t)))));"
    )
    pair = data.load("lines")["pair"]
    lines = [line for _, line in LINES if not re.fullmatch(pair, line)]
    asked = json.dumps([whole_patterns(), lines])
    done = subprocess.run(["node", "-e", program], input=asked, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [is_code(line) for line in lines]
