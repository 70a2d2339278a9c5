"""Terms of a glossary by each method: ``python -m benchmarks.glossary PACK --dev FILE… --pairs FILE``.

Terms are nouns of the references that a statistical aligner links to one word of the source, one for one; up to three
of a sentence, which make its glossary. Two kinds: those nouns themselves, and nouns of other sentences in their place,
in the references too, as a firm's own words would be: nothing that the model would say by itself. Printed for each:
terms present as whole words, BLEU and chrF, BLEU of the rest (terms taken out of outputs and references), and
milliseconds a sentence, translated one at a time. FILEs have source, tab and reference on each line; those of --pairs
only help the aligner. English to German, since a noun is known by its capital.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import sacrebleu

from mobilenmt import Glossary, Translator
from mobilenmt.export.alignment.aligner import align
from mobilenmt.runtime.text.glossary import METHODS, Term
from mobilenmt.runtime.text.terms.words import holds

_WORD = re.compile(r"[^\W_]+|[^\w\s]")
_LEAST = 4  # letters of a word of a term
_MOST = 3  # terms of a sentence


class Case(NamedTuple):
    """A sentence with its glossary."""

    source: str
    reference: str
    terms: tuple[tuple[str, str], ...]


class Score(NamedTuple):
    """What a method made of all sentences."""

    present: float
    bleu: float
    chrf: float
    rest: float
    milliseconds: float
    flags: Counter[str]


def find_cases(pairs: Sequence[tuple[str, str]], more: Sequence[tuple[str, str]], seed: int = 7) -> list[Case]:
    """Sentences with at least one noun that is linked to one word, one for one.

    Args:
        pairs: sources and references.
        more: others that help to align them.
        seed: of the choice among the nouns of a sentence.
    """
    words = [(_WORD.findall(source), _WORD.findall(target)) for source, target in [*pairs, *more]]
    numbers: dict[str, int] = {}

    def numbered(found: list[str]) -> list[int]:
        return [numbers.setdefault(word.lower(), len(numbers)) for word in found]

    links = align([(numbered(source), numbered(target)) for source, target in words])
    random, cases = Random(seed), []
    for (text, reference), (source, target), linked in zip(pairs, words, links, strict=False):
        left, right = Counter(i for i, _ in linked), Counter(j for _, j in linked)
        found = [
            (source[i], target[j])
            for i, j in sorted(linked)
            if left[i] == right[j] == 1 and j and source.count(source[i]) == target.count(target[j]) == 1
            if _is_term(source[i]) and source[i].islower() and _is_term(target[j]) and target[j][0].isupper()
        ]
        terms = {word: noun for word, noun in found if not any(word in other and word != other for other, _ in found)}
        if terms:
            cases.append(Case(text, reference, tuple(random.sample(sorted(terms.items()), min(_MOST, len(terms))))))
    return cases


def _is_term(word: str) -> bool:
    return word.isalpha() and len(word) >= _LEAST and not word.isupper()


def foreign(cases: Sequence[Case], seed: int = 8) -> list[Case]:
    """The same sentences with nouns of others, in the references as well."""
    random = Random(seed)
    nouns = sorted({noun for case in cases for _, noun in case.terms})
    changed = []
    for case in cases:
        reference, terms = case.reference, []
        others = random.sample(nouns, 2 * _MOST)
        for (word, noun), other in zip(case.terms, [n for n in others if n not in reference], strict=False):
            reference = re.sub(rf"\b{noun}\b", other, reference)
            terms.append((word, other))
        if terms:
            changed.append(Case(case.source, reference, tuple(terms)))
    return changed


def measure(translator: Translator, cases: Sequence[Case], method: str | None) -> Score:
    """Translate all sentences, each with its glossary, or without for None."""
    texts, times = [], []
    flags: Counter[str] = Counter()
    for case in cases:
        glossary = Glossary(tuple(Term(*term) for term in case.terms)) if method else None
        started = time.perf_counter()
        found = translator.translate_batch([case.source], glossary=glossary, glossary_method=method)[0]
        times.append(time.perf_counter() - started)
        texts.append(found.text)
        flags.update({flag for sentence in found.sentences for flag in sentence.flags})
    references = [case.reference for case in cases]
    terms = [[noun for _, noun in case.terms] for case in cases]
    there = [holds(text, [noun]) for text, nouns in zip(texts, terms, strict=True) for noun in nouns]
    rest = [[_without(text, nouns) for text, nouns in zip(some, terms, strict=True)] for some in (texts, references)]
    return Score(
        sum(there) / len(there),
        sacrebleu.corpus_bleu(texts, [references]).score,
        sacrebleu.corpus_chrf(texts, [references]).score,
        sacrebleu.corpus_bleu(rest[0], [rest[1]]).score,
        1e3 * statistics.mean(times),
        flags,
    )


def _without(text: str, nouns: Sequence[str]) -> str:
    for noun in nouns:
        text = re.sub(rf"\b{noun}\b", "", text)
    return text


def read(paths: Sequence[Path], most: int) -> list[tuple[str, str]]:
    """Pairs of files, up to `most` of each."""
    found = []
    for path in paths:
        with path.open(encoding="utf-8") as lines:
            for line, _ in zip(lines, range(most), strict=False):
                source, target, *_ = line.rstrip("\n").split("\t")
                found.append((source, target))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("pack")
    parser.add_argument("--dev", type=Path, nargs="+", required=True, help="source, tab, reference on each line")
    parser.add_argument("--pairs", type=Path, nargs="*", default=(), help="more for the aligner")
    parser.add_argument("--most", type=int, default=500, help="lines of each file of --dev")
    parser.add_argument("--engine", default="auto")
    arguments = parser.parse_args()
    translator = Translator(arguments.pack, engine=arguments.engine)
    cases = find_cases(read(arguments.dev, arguments.most), read(arguments.pairs, 20_000))
    for name, some in (("nouns of the references", cases), ("nouns of other sentences", foreign(cases))):
        count = sum(len(case.terms) for case in some)
        print(f"{name}: {len(some)} sentences, {count} terms\n{'':14} present   BLEU   chrF   rest     ms  flags")
        for method in (None, *METHODS) if some is cases else METHODS:
            score = measure(translator, some, method)
            print(
                f"{method or 'no glossary':14} {score.present:7.1%} {score.bleu:6.2f} {score.chrf:6.2f} "
                f"{score.rest:6.2f} {score.milliseconds:6.2f}  {dict(score.flags)}"
            )


if __name__ == "__main__":
    main()
