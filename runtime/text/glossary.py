"""Terms that must be translated as told: ``source<TAB>target`` lines, found in a text like other spans to keep.

What stands for a term in the model's input becomes the target text in its output. A third column, if there is one, is
the target of the plural. In simple inflection the source may differ from its line: an English plural (-s, -es, -ies),
a capital at the beginning, ALL CAPITALS. A term that is written with capitals is found only so, or in ALL CAPITALS.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.text.kept import Kept, Rules

RULE = "glossary"
"""What the spans name as their rule."""

METHODS = ("search", "placeholders")
"""How terms get into a translation; the first is the default."""

_WORD = re.compile(r"[^\W_]+|[^\w\s]")
_LONGEST = 200


class Term(NamedTuple):
    """A line of a glossary."""

    source: str
    target: str
    plural: str = ""
    """Target of the plural; empty for the same."""


class _Variant(NamedTuple):
    text: str
    exact: bool
    """Whether capitals count."""
    target: str


@dataclass(frozen=True)
class Glossary:
    """Terms of one pair of languages.

    Args:
        terms: of equal ones the last counts.
        source_language: English plurals are known for ``en``; other languages' terms are found as they are written.

    Raises:
        InputError: a term is empty or too long.
    """

    terms: tuple[Term, ...]
    source_language: str = "en"
    _by_first: dict[str, list[_Variant]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        variants: dict[str, _Variant] = {}
        for term in self.terms:
            if not isinstance(term, Term):
                raise InputError(f"a glossary is made of terms, or by Glossary.from_lines of lines, not of {term!r}")
            source = term.source.strip()
            if not source or not term.target.strip() or len(source) > _LONGEST:
                raise InputError(f"a term has a source of up to {_LONGEST} characters and a target, not {term!r}")
            if (fault := _fault(term)) is not None:
                raise InputError(f"a term must not hold {fault}: {term!r}")
            exact = source != source.lower()
            plural = (term.plural or term.target).strip()
            for text in _plurals(source) if self.source_language[:2] == "en" else ():
                variants.setdefault(text, _Variant(text, exact, plural))
            variants[source] = _Variant(source, exact, term.target.strip())
        by_first: dict[str, list[_Variant]] = {}
        for variant in sorted(variants.values(), key=lambda item: -len(item.text)):
            match = _WORD.search(variant.text)
            if match is not None:
                by_first.setdefault(match[0].lower(), []).append(variant)
        object.__setattr__(self, "_by_first", by_first)

    @classmethod
    def from_lines(cls, lines: Iterable[str], source_language: str = "en") -> Glossary:
        """Read lines of ``source<TAB>target`` or ``source<TAB>target<TAB>plural``; empty ones and those that begin with
        ``#`` are passed over.

        Raises:
            InputError: a line is something else; the message has its number.
        """
        terms = []
        if isinstance(lines, str):
            lines = lines.splitlines()
        for number, line in enumerate(lines, 1):
            columns = [column.strip() for column in line.rstrip("\r\n").split("\t")]
            if not any(columns) or columns[0].startswith("#"):
                continue
            if len(columns) not in (2, 3) or not columns[0] or not columns[1]:
                raise InputError(
                    f"line {number} of the glossary: expected source, a tab and target, found {line[:60]!r}"
                )
            term = Term(*columns)
            if (fault := _fault(term)) is not None:
                raise InputError(f"line {number} of the glossary holds {fault}: {line[:60]!r}")
            terms.append(term)
        return cls(tuple(terms), source_language)

    def find(self, text: str) -> list[Kept]:
        """The terms of a text, the longest where several begin, with their targets."""
        found: list[Kept] = []
        done = 0
        for match in _WORD.finditer(text):
            start = match.start()
            if start < done:
                continue
            for variant in self._by_first.get(match[0].lower(), ()):
                end = start + len(variant.text)
                if _fits(text, start, end, variant):
                    found.append(Kept(start, end, RULE, _as_written(text[start:end], variant)))
                    done = end
                    break
        return found

    def added(self, text: str, kept: list[Kept]) -> list[Kept]:
        """The spans of a text with its terms among them. A term inside a span (a word of an address) is none; a span
        inside a term, or one that reaches into it, gives way."""
        terms = [
            term
            for term in self.find(text)
            if not any(span.start <= term.start and term.end <= span.end for span in kept)
        ]
        if not terms:
            return kept
        free = [span for span in kept if all(span.end <= term.start or term.end <= span.start for term in terms)]
        return sorted([*free, *terms])


def _fault(term: Term) -> str | None:
    """What a term must not hold: it would part a line of the translation, or could not be written to a file."""
    text = " ".join(item.strip() for item in term)
    if len(text.splitlines()) > 1:
        return "a line end inside a term"
    return "half of a pair of surrogates" if any("\ud800" <= sign <= "\udfff" for sign in text) else None


def _plurals(source: str) -> Iterator[str]:
    last = source[-1:].lower()
    if not last.isalpha():
        return
    if last == "y" and source[-2:-1].lower() not in "aeiou":
        yield f"{source[:-1]}ies"
    elif source.lower().endswith(("s", "x", "z", "ch", "sh")):
        yield f"{source}es"
    else:
        yield f"{source}s"


def _fits(text: str, start: int, end: int, variant: _Variant) -> bool:
    there = text[start:end]
    if there != variant.text and there.lower() != variant.text.lower():
        return False
    if variant.exact and there != variant.text and not (there.isupper() and len(there) > 1):
        return False
    return not (
        (there[:1].isalnum() and text[max(0, start - 1) : start].isalnum())
        or (there[-1:].isalnum() and text[end : end + 1].isalnum())
    )


def _as_written(there: str, variant: _Variant) -> str:
    """The target, in capitals where the source is and the term is not."""
    shouted = there.isupper() and len(there) > 1 and not variant.text.isupper()
    return variant.target.upper() if shouted else variant.target


def check_kept(rules: object, glossary: object, method: object = None) -> None:
    """What a caller wants to have kept, each None for the default.

    Raises:
        InputError: it is something else.
    """
    if rules is not None and not isinstance(rules, Rules):
        raise InputError(f"keep must be Rules of mobilenmt, not {type(rules).__name__}")
    if glossary is not None and not isinstance(glossary, Glossary):
        raise InputError(f"glossary must be Glossary of mobilenmt, not {type(glossary).__name__}")
    if method is not None and method not in METHODS:
        raise InputError(f"glossary_method must be {' or '.join(METHODS)}, not {method!r}")
