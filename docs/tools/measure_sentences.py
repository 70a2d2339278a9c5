"""Measures splitters on the gold file of sentence ends, tests/runtime/text/data:

    .venv-test/bin/python docs/tools/measure_sentences.py [--wrong] [--part en|de|other|held]…

Ours, and pysbd, syntok and sentence-splitter where they are installed (pip install pysbd syntok sentence-splitter).
A case is right if every end in it is found and no other. ``held`` is sentences.held.txt, which the rules were not tuned
on: no case of it was looked at.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from mobilenmt.runtime.text.sentences import split

DATA = Path(__file__).resolve().parents[2] / "tests" / "runtime" / "text" / "data"
SIGN = "‖"
FILES = ("en", "de", "other", "held")
Splitter = Callable[[str, str], list[str]]


def cases(name: str) -> list[tuple[str, str, list[str]]]:
    """Language, text and its sentences, of the file ``sentences.NAME.txt``."""
    found: list[tuple[str, str, list[str]]] = []
    language = name
    for line in (DATA / f"sentences.{name}.txt").read_text(encoding="utf-8").splitlines():
        if section := re.fullmatch(r"\[([a-z]{2})\]", line):
            language = section[1]
        elif line and not re.match("##? ", line):
            sentences = [part.strip() for part in line.split(SIGN)]
            found.append((language, line.replace(SIGN, ""), sentences))
    return found


def ours(text: str, language: str) -> list[str]:
    """The sentences by runtime/text/sentences.py."""
    ends = [0, *split(text, language)]
    return [text[start:end].strip() for start, end in itertools.pairwise(ends)]


def others() -> dict[str, Splitter]:
    """Those that are installed."""
    found: dict[str, Splitter] = {}
    warnings.simplefilter("ignore")  # pysbd's patterns are no raw strings
    try:
        import pysbd  # type: ignore[import-not-found]

        known = {}

        def by_pysbd(text: str, language: str) -> list[str]:
            if language not in known:
                try:
                    known[language] = pysbd.Segmenter(language=language, clean=False)
                except ValueError:
                    known[language] = pysbd.Segmenter(language="en", clean=False)
            return [part.strip() for part in known[language].segment(text) if part.strip()]

        found["pysbd"] = by_pysbd
    except ImportError:
        pass
    try:
        from syntok import segmenter  # type: ignore[import-not-found]

        def by_syntok(text: str, language: str) -> list[str]:
            sentences = [item for paragraph in segmenter.analyze(text) for item in paragraph]
            starts = [sentence[0].offset for sentence in sentences] + [len(text)]
            return [text[a:b].strip() for a, b in itertools.pairwise(starts)]

        found["syntok"] = by_syntok
    except ImportError:
        pass
    try:
        from sentence_splitter import SentenceSplitter  # type: ignore[import-not-found]

        made = {}

        def by_moses(text: str, language: str) -> list[str]:
            if language not in made:
                try:
                    made[language] = SentenceSplitter(language=language)
                except Exception:
                    made[language] = SentenceSplitter(language="en")
            return [part.strip() for part in made[language].split(text) if part.strip()]

        found["sentence-splitter"] = by_moses
    except ImportError:
        pass
    return found


def main() -> int:
    """Print a table, and the cases that ours gets wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--wrong", action="store_true", help="print what ours gets wrong")
    parser.add_argument("--part", choices=FILES, action="append", help="a file of cases; all by default")
    options = parser.parse_args()
    files = options.part or list(FILES)
    print("| splitter | " + " | ".join([*files, "all"]) + " |")
    print("|---" * (len(files) + 2) + "|")
    for name, splitter in {"ours": ours, **others()}.items():
        row: list[str] = []
        right_of_all = of_all = 0
        wrong: list[str] = []
        for chosen in map(cases, files):
            right = 0
            for language, text, sentences in chosen:
                got = splitter(text, language)
                same = ["".join(part.split()) for part in got] == ["".join(part.split()) for part in sentences]
                right += same
                if not same:
                    wrong.append(f"{language}: {SIGN.join(sentences)}\n    {SIGN.join(got)}")
            row.append(f"{right} of {len(chosen)} ({100 * right / len(chosen):.1f} %)")
            right_of_all, of_all = right_of_all + right, of_all + len(chosen)
        row.append(f"{right_of_all} of {of_all} ({100 * right_of_all / of_all:.1f} %)")
        print(f"| {name} | " + " | ".join(row) + " |")
        if options.wrong and name == "ours":
            print("\n".join(wrong), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
