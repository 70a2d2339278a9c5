"""The C program that docs/core/building.md shows compiles, runs, and gives what Python gives."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from mobilenmt import Translator
from mobilenmt.runtime.hypothesis import GREEDY
from native import compile_c
from places import ROOT

SENTENCES = (
    "A dog.",
    "Where is the train station?",
    "I would like a cup of coffee, please.",
    "Yes",
    "The old man sleeps.",
)


@pytest.fixture(scope="module")
def program(core_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the page, compiled with all warnings as errors."""
    (code,) = re.findall(r"```c\n(.*?)```", (ROOT / "docs/core/building.md").read_text(encoding="utf-8"), re.DOTALL)
    folder = tmp_path_factory.mktemp("example")
    source = folder / "translate.c"
    source.write_text(code, encoding="utf-8")
    return compile_c(folder / "translate", source, core_library)


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_the_program_says_what_python_says(program: Path) -> None:
    """Sentences that need no folding and have nothing to keep; of both branches of the limit of lengths."""
    pack = ROOT / "models" / "en-de"
    translator = Translator(pack, engine="native")
    counts = [len(translator._tokenizer.encode(sentence)) for sentence in SENTENCES]
    assert min(counts) < 6 < max(counts)
    for sentence in SENTENCES:
        done = run(program, pack, sentence)
        assert (done.returncode, done.stdout) == (0, translator.translate(sentence) + "\n"), done.stderr


def test_the_limit_of_lengths_is_pythons(program: Path, tiny_pack: Path) -> None:
    """A model of random weights never ends by itself, so the limit shows in what comes out."""
    translator = Translator(tiny_pack, engine="native")
    for count in (1, 2, 3, 5, 6, 7, 12):
        sentence = " ".join((["dog", "cat", "house"] * 4)[:count])
        ids = translator._tokenizer.encode(sentence)
        ((found,),) = translator._search([ids], None, GREEDY)
        assert found.at_limit
        assert run(program, tiny_pack, sentence).stdout == translator._tokenizer.decode(found.ids) + "\n"


def test_the_program_tells_what_is_wrong(program: Path, tmp_path: Path) -> None:
    done = run(program, tmp_path, "A dog.")
    assert done.returncode == 1 and "native.bin" in done.stderr
    assert run(program).returncode == 1
