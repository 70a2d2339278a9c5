"""Cuts off what stands at the ends of a sentence and is no part of it: emoji, what follows a colon, who is spoken to.

What is cut off cannot be lost, and the model sees a plain sentence. Brackets and quotes
are looked after in pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mobilenmt.runtime.text.kept import Kept, Rules
from mobilenmt.runtime.text.sentences import split

_END = ".!?…"
_PAIRS = {**dict(zip("([{)]}«»", ")]}([{»«", strict=True)), "„": "“", "“": "„”", "”": "“"}
_SHELLS = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'", "*": "*", "_": "_", "~": "~"}
_AFTER = (": ", " - ", " – ", " — ", " | ", " · ", " → ")  # behind a span that begins a line: a label


class Chunk(NamedTuple):
    """A text to translate."""

    text: str
    kept: tuple[Kept, ...] = ()
    open_end: bool = False
    """The closing mark was put behind it for the model and comes off the translation: what follows has it."""

    whole: bool = False
    """It is a sentence as it was written, nothing cut off."""

    @property
    def core(self) -> str:
        """The text without a mark that was put behind it."""
        return self.text.rstrip(_END) if self.open_end else self.text

    def fit(self, output: str) -> str:
        """The output, closed as the text is: models close what they take for a sentence."""
        if self.whole:
            return output
        if not self.open_end and (not self.text or self.text[-1] in _END):
            return output
        bare = output.rstrip(_END)
        return bare.rstrip() if bare and not output.endswith("..") else output


def cut(text: str, kept: Sequence[Kept], rules: Rules, language: str = "") -> list[Chunk | str]:
    """Cut a sentence into what is translated and what is copied; put together, they are the sentence (but for marks
    that a chunk with ``open_end`` has too many).

    Args:
        text: the sentence.
        kept: its spans.
        rules: that found them.
        language: code of its language, for the abbreviations that end no sentence.
    """
    if not kept and not has_shell(text, language):
        return [Chunk(text, whole=True)] if any(map(str.isalpha, text)) else [text] if text else []
    plan: list[Chunk | str] = []
    start = 0
    inside: list[Kept] = []
    for span in kept:
        breaks = rules.breaks is not None and rules.breaks(text[span.start : span.end]) and _parts(text, span)
        if breaks or _between(text, start, span, rules, language):
            plan += [*_stretch(text, start, span.start, inside, rules, language), text[span.start : span.end]]
            start, inside = span.end, []
        else:
            inside.append(span)
    return [*plan, *_stretch(text, start, len(text), inside, rules, language)]


def has_shell(text: str, language: str) -> bool:
    """Whether a text stands in brackets, quotes or the like, which are none of its words, or a sentence of it does:
    "(It is good.)", "[sighs] I know.", "Come in! (laughs)"."""
    if text[:1] in _SHELLS and _shell(text, 0, len(text), ()) is not None:
        return True
    return ("(" in text or "[" in text) and _next_shell(text, 0, len(text), (), language) is not None


def _next_shell(text: str, start: int, end: int, kept: Sequence[Kept], language: str) -> int | None:
    """Where behind the end of a sentence a bracket stands by itself, which the splitter leaves before small letters."""
    for at in range(start + 2, end):
        if (
            text[at] in "(["
            and text[at - 1] == " "
            and text[at - 2] in _END
            and _shell(text, at, end, kept) is not None
        ):
            return at if _is_end(text[start : at - 1], language) else None
    return None


def _stretch(text: str, start: int, end: int, kept: Sequence[Kept], rules: Rules, language: str) -> list[Chunk | str]:
    """Cut text[start:end]; what stands in brackets by itself, for models know no sentence that begins with one."""
    first = end - len(text[start:end].lstrip())
    at = _shell(text, first, end, kept)
    if at is None:
        other = _next_shell(text, start, end, kept, language)
        if other is None:
            return _ends(text, start, end, kept, rules, language)
        before = [span for span in kept if span.end < other]
        plan = _ends(text, start, other - 1, before, rules, language)
        return [*plan, text[other - 1], *_stretch(text, other, end, kept[len(before) :], rules, language)]
    inside = [span for span in kept if span.end <= at]
    rest = at + 1
    plan = [text[start : first + 1], *_stretch(text, first + 1, at, inside, rules, language)]
    if not text[rest:end].strip(_END):
        return [*plan, text[at:end]]
    return [*plan, text[at : rest + 1], *_stretch(text, rest + 1, end, kept[len(inside) :], rules, language)]


def _shell(text: str, first: int, end: int, kept: Sequence[Kept]) -> int | None:
    """Where the bracket or quote that begins text[first:end] is closed, if there are words in it, and nothing behind it
    but marks of an end or another sentence; None for one that is of a sentence or of a span."""
    opening = text[first : min(first + 1, end)]
    closing = _SHELLS.get(opening)
    if closing is None:
        return None
    at = _last_alone(text, first, end, closing) if opening == closing else _closed(text, first, end, opening, closing)
    if at is None or any(span.start <= at < span.end or span.start <= first < span.end for span in kept):
        return None
    behind = text[at + 1 : end].rstrip()
    alone = not behind.strip(_END)
    if not alone and not (opening in "([" and behind[0] == " " and (behind[1].isupper() or behind[1] in "([")):
        return None
    inside = [span for span in kept if span.end <= at]
    return at if _has_words(text, first + 1, at, inside) and (alone or " " in behind[1:]) else None


def _closed(text: str, first: int, end: int, opening: str, closing: str) -> int | None:
    depth = 0
    for at in range(first, end):
        depth += (text[at] == opening) - (text[at] == closing)
        if depth == 0:
            return at
    return None


def _last_alone(text: str, first: int, end: int, sign: str) -> int | None:
    """Where a sign stands for the second and last time, touching words on the inner side as the first one does; in a
    word it is an apostrophe."""
    at = text.rfind(sign, first + 1, end)
    if at < first + 2 or text[first + 1].isspace() or text[at - 1].isspace():
        return None
    inner = text[first + 1 : at]
    for place, other in enumerate(inner):
        if other == sign and not (
            sign == "'" and 0 < place < len(inner) - 1 and inner[place - 1].isalpha() and inner[place + 1].isalpha()
        ):
            return None
    return at


def words(text: str, start: int, end: int, kept: Sequence[Kept]) -> tuple[int, int]:
    """Where in text[start:end] the words begin and end, spans and marks included but no space; the same place twice
    where nothing but spans has a letter."""
    if not _has_words(text, start, end, kept):
        return start, start
    first, last = (kept[0].start, kept[-1].end) if kept else (end, start)
    while start < first and not text[start].isalnum() and text[start] not in "\"'“„‘(¿¡[":
        start += 1
    while end > last and _is_foreign(text, start, end):
        end -= 1
    while start < first and _is_foreign(text, start, end, first=True):
        start += 1
    return start, end


def _is_foreign(text: str, start: int, end: int, first: bool = False) -> bool:
    """Whether the outermost sign of text[start:end] is none of its words: a space, a comma, half of a pair."""
    sign, inside = text[start if first else end - 1], text[start:end]
    if sign.isspace() or sign in ",;:":
        return True
    if sign in '"`' or (first and sign == "'"):
        return inside.count(sign) % 2 == 1
    opens, closes = sign in "([{„‘«“", sign in ")]}”’»“"
    if sign not in _PAIRS or not (opens if first else closes):
        return (opens or closes) and sign not in "’‘"
    return inside.count(sign) != sum(map(inside.count, _PAIRS[sign]))


def _parts(text: str, span: Kept) -> bool:
    """Whether a break stands between texts: a written-out one in "Use \\n here" is a word of the sentence."""
    if text[span.start] == "<":
        return True
    behind = text[span.end : span.end + 1]
    return behind.isalnum() or not (text[: span.start].endswith((" ", "\u00a0", '"', "'", "`")) and behind)


def _between(text: str, start: int, span: Kept, rules: Rules, language: str) -> bool:
    """Whether a span stands between two sentences: behind the end of one, and before a capital."""
    rule = rules.get(span.rule)
    before, behind = text[start : span.start], text[span.end : span.end + 2]
    if rule is None or rule.copied or span.target is not None or not (behind[:1] == " " and behind[1:].isupper()):
        return False
    return before[-1:] == " " and _is_end(before.rstrip(), language)


def _is_end(before: str, language: str) -> bool:
    """Whether a text ends as a sentence does, not as "Dr." or "No."."""
    return before.endswith(("?", "!", "…")) or (before.endswith(".") and len(split(f"{before} Aa", language)) > 1)


def _ends(text: str, start: int, end: int, kept: Sequence[Kept], rules: Rules, language: str) -> list[Chunk | str]:
    """Cut both ends off text[start:end]."""
    spans = list(kept)
    first, last = start, end
    while spans and spans[0].target is None and not text[first : spans[0].start].strip():
        reach = _leading(text, spans[0], last, rules)
        if reach is None:
            break
        first = reach
        spans.pop(0)
    if len(spans) > 1 and _wrapped(text, spans, first, last):
        first, last = spans[0].end, spans[-1].start
        spans = spans[1:-1]
    mark = ""
    while spans and spans[-1].target is None:
        tail = text[spans[-1].end : last].strip()
        if tail.strip(_END) or not _is_trailing(text, spans, first, rules, language):
            break
        last = first + len(text[first : spans[-1].start].rstrip())
        mark = mark or tail
        spans.pop()
    body = text[first:last]
    left = len(body) - len(body.lstrip())
    right = len(body.rstrip())
    if not _has_words(text, first, last, spans):
        return [_copied(text, start, end, spans)] if end > start else []
    core = body[left:right]
    offset = first + left
    at = _shell(text, offset, first + right, spans)
    if at is not None and not text[at + 1 : first + right].strip(_END):  # behind or before what was cut off
        return [text[start : offset + 1], *_stretch(text, offset + 1, at, spans, rules, language), text[at:end]]
    moved = tuple(span.moved(offset) for span in spans)
    unclosed = bool(mark) and core[-1] not in _END + ":,;"
    chunk = Chunk(core + mark, moved, True) if unclosed else Chunk(core, moved, whole=len(core) == len(text))
    return [piece for piece in (text[start:offset], chunk, text[first + right : end]) if piece]


def _copied(text: str, start: int, end: int, spans: Sequence[Kept]) -> str:
    """text[start:end] without a translation: spans as what they become."""
    for span in reversed(spans):
        text = text[: span.start] + span.written(text) + text[span.end :]
        end += len(span.written(text)) - (span.end - span.start) if span.target is not None else 0
    return text[start:end]


def _wrapped(text: str, spans: Sequence[Kept], first: int, last: int) -> bool:
    """Whether a tag and its end stand around everything, or the marks of something important."""
    opening, closing = text[first : spans[0].end].strip(), text[spans[-1].start : last].strip()
    if spans[0].rule == spans[-1].rule == "emphasis":
        return opening == closing and not any(span.rule == "emphasis" for span in spans[1:-1])
    name = opening[1:].split(" ")[0].rstrip(">")
    return opening[:1] == "<" and opening[1:2].isalpha() and closing == f"</{name}>" and opening.count("<") == 1


def _leading(text: str, span: Kept, end: int, rules: Rules) -> int | None:
    """Where the sentence goes on behind a span that begins it without being part of it, or None."""
    behind = text[span.end : end]
    if _edge(rules, span) == "always":
        return span.end
    for separator in _AFTER:
        if behind.startswith(separator):
            return span.end + len(separator)
    if span.rule == "mention" and behind.startswith((", ", "! ")):
        return span.end + 2
    return None


def _is_trailing(text: str, spans: Sequence[Kept], first: int, rules: Rules, language: str) -> bool:
    """Whether the last span stands behind the sentence, not in it."""
    edge = _edge(rules, spans[-1])
    if edge == "always":
        return True
    at = spans[-1].start
    for span in reversed(spans[:-1]):  # over others that stand behind it: "Nice! #sun #beach"
        if text[span.end : at].strip():
            break
        at = span.start
    before = text[first:at].rstrip()
    return before.endswith(":") or (bool(edge) and before.endswith(tuple(_END))) or _is_end(before, language)


def _edge(rules: Rules, span: Kept) -> str:
    rule = rules.get(span.rule)
    return "" if rule is None else rule.edge


def _has_words(text: str, first: int, last: int, spans: Sequence[Kept]) -> bool:
    done = first
    for span in [*spans, Kept(last, last, "")]:
        if any(map(str.isalpha, text[done : span.start])):
            return True
        done = span.end
    return False
