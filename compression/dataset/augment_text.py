"""Changes to the letters and marks of a pair: case, closing punctuation, several sentences in one.

Each function returns None for a pair that it would not change, or that does not lend itself to the change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mobilenmt.compression.core.pairs import Pair

COPIED = re.compile(
    r"\{\{[^{}]*\}\}|\$?\{[^{}\s]*\}|%\([^()\s]+\)[sdf]|%\d+\$[sd@]|%[sdifux@](?![^\W_])"
    r"|</?[A-Za-z][^<>]*>|&#?\w+;|(?:https?|ftp)://\S+|www\.\S+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|[^\W\d_][\w-]*(?:[._\\/]\w+)+"
)
"""What no change may touch: placeholders, tags, entities, addresses, names of files."""

_WORD = re.compile(r"[^\W\d_](?:[\w'’])*")
_END = re.compile(r"\s*[.!?…。！？]+$")
_INSIDE_END = re.compile(r"[.!?…]\s|[。！？]\S")
_CLOSED = re.compile(r"[.!?…。！？][\"'“”‘’«»)\]]*$")
_NO_SPACE = re.compile("[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]$")
_TURKIC = ("tr", "az")


def all_caps(pair: Pair, languages: tuple[str, str], *, sharp_s: bool = False) -> Pair | None:
    """BOTH SIDES IN CAPITALS. ß becomes SS; in the source ẞ if `sharp_s`: people write both, we write one."""
    source = pair.source.replace("ß", "ẞ") if sharp_s else pair.source
    source = _spare(source, lambda text: _upper(text, languages[0]))
    target = _spare(pair.target, lambda text: _upper(text, languages[1]))
    return None if source == pair.source or target == pair.target else pair._replace(source=source, target=target)


def title_case(pair: Pair, language: str, *, minor_words: bool = False) -> Pair | None:
    """Source Like a Title; with `minor_words`, words of up to three letters inside it stay as they are."""
    source = _spare(pair.source, lambda text: _title(text, language, minor_words))
    return None if source == pair.source else pair._replace(source=source)


def lower_case(pair: Pair, language: str) -> Pair | None:
    """source without capitals."""
    source = _spare(pair.source, lambda text: _lower(text, language))
    return None if source == pair.source else pair._replace(source=source)


def without_end(pair: Pair) -> Pair | None:
    """Both sides without the mark that closes them; only where both are one sentence and have one."""
    source, target = _END.sub("", pair.source), _END.sub("", pair.target)
    if source == pair.source or target == pair.target or not source or not target:
        return None
    if _INSIDE_END.search(source) or _INSIDE_END.search(target):
        return None
    return pair._replace(source=source, target=target)


def joined(pairs: Sequence[Pair]) -> Pair | None:
    """Several sentences in one pair, in their order; only where each is closed by a mark."""
    if not all(_CLOSED.search(pair.source) and _CLOSED.search(pair.target) for pair in pairs):
        return None
    return Pair(_join([pair.source for pair in pairs]), _join([pair.target for pair in pairs]), pairs[-1].tag)


def _join(texts: Sequence[str]) -> str:
    whole = ""
    for text in texts:
        # scripts that write no spaces between words write none between sentences
        bare = whole.rstrip("。！？…」』）")
        whole += text if not whole or (bare != whole and _NO_SPACE.search(bare)) else f" {text}"
    return whole


def _spare(text: str, change: Callable[[str], str]) -> str:
    """Change a text but for what :data:`COPIED` matches."""
    parts, last = [], 0
    for found in COPIED.finditer(text):
        parts += [change(text[last : found.start()]), found[0]]
        last = found.end()
    return "".join([*parts, change(text[last:])])


def _upper(text: str, language: str) -> str:
    if language[:2] in _TURKIC:
        text = text.replace("i", "İ")
    elif language[:2] == "el":
        text = text.translate(_GREEK)  # Greek capitals carry no accents
    return text.upper()


def _lower(text: str, language: str) -> str:
    if language[:2] in _TURKIC:
        text = text.replace("I", "ı").replace("İ", "i")
    return text.lower()


def _title(text: str, language: str, minor_words: bool) -> str:
    first = True

    def raised(found: re.Match[str]) -> str:
        nonlocal first
        word = found[0]
        if minor_words and len(word) <= 3 and not first:
            return word
        first = False
        return _upper(word[0], language) + word[1:] if word[0] != "ß" else word

    return _WORD.sub(raised, text)


_GREEK = str.maketrans("άέήίόύώΐΰ", "αεηιουωϊϋ")
