"""From a teacher's candidates to lines of text: flaws refused, the nearest to the reference chosen, references kept."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING

from mobilenmt.compression.core.pairs import Pair
from mobilenmt.compression.teacher.shards import Item, ShardText
from mobilenmt.compression.teacher.spec import Teacher, TeacherSpec

if TYPE_CHECKING:
    from sacrebleu.metrics.chrf import CHRF

    from mobilenmt.compression.teacher.settings import TeacherSettings

FLAWS = ("empty", "looped", "too_long", "source_too_long", "markers")
"""Why a candidate is refused."""

_LAYOUT = re.compile("[\t\n\r\v\f]+")
_THOUGHTS = re.compile(r"^\s*<(think|thinking|reasoning)>.*?</\1>", re.DOTALL)
_QUOTES = {'"': '"', "“": "”", "„": "“", "«": "»", "'": "'", "‘": "’", "「": "」"}


def translate_shard(teacher: Teacher, number: int, items: Sequence[Item], spec: TeacherSpec) -> ShardText:
    """Translate one shard: the lines depend on the items and the settings alone."""
    begin = time.perf_counter()
    counts: Counter[str] = Counter(dict.fromkeys((*FLAWS, "tokens", "reference", "dropped", "kept"), 0))
    divided = [_divide(item, spec.settings.tags) for item in items]
    found = iter(teacher.translate([wanted.source for wanted, _ in divided if wanted.targets]))
    pairs: list[Pair] = []
    for item, kept in divided:
        pairs += [Pair(item.source, target, tag) for target, tag in kept]
        if not item.targets:
            counts["kept"] += 1
            continue
        candidates = next(found)
        counts["tokens"] += sum(candidate.tokens for candidate in candidates)
        texts: dict[str, None] = {}  # a dict keeps the order, the best first
        for candidate in candidates:
            text = _LAYOUT.sub(" ", candidate.text).strip()
            flaw = candidate.flaw or ("" if text else "empty")
            if flaw:
                counts[flaw] += 1
            else:
                texts[text] = None
        if texts:
            pairs += _lines(item, list(texts), spec)
        elif spec.settings.on_bad == "reference":
            counts["reference"] += 1
            pairs += [Pair(item.source, target, tag) for target, tag in item.targets]
        else:
            counts["dropped"] += 1
    return ShardText(number, pairs, dict(counts), time.perf_counter() - begin)


def _divide(item: Item, tags: Sequence[str]) -> tuple[Item, list[tuple[str, str]]]:
    """The item with the targets whose tags match, which are to be translated, and the others."""
    matches = [any(fnmatchcase(tag, pattern) for pattern in tags) for _, tag in item.targets]
    wanted = tuple(target for target, match in zip(item.targets, matches, strict=True) if match)
    return Item(item.source, wanted), [t for t, match in zip(item.targets, matches, strict=True) if not match]


def _lines(item: Item, texts: list[str], spec: TeacherSpec) -> Iterator[Pair]:
    """Each line once, in the order of the item's targets."""
    if spec.settings.search == "nearest":
        chosen = [(nearest(texts, target), tag) for target, tag in item.targets]
    else:
        chosen = [(text, tag) for _, tag in item.targets for text in texts]
    for text, tag in dict.fromkeys(chosen):
        yield Pair(item.source, text, tag)


def nearest(texts: Sequence[str], reference: str) -> str:
    """The text with the highest sentence chrF (Popović 2015) against the reference; of equal ones the first."""
    return max(texts, key=lambda text: float(_chrf().sentence_score(text, [reference]).score))


@lru_cache(maxsize=1)
def _chrf() -> CHRF:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def clean_answer(answer: str, source: str) -> str:
    """Take from a chat model's answer what it says around the translation: its thoughts, an introduction, quotes.

    Of several lines the first is the translation, but for one that ends in a colon ("Here is the translation:").
    """
    answer = _THOUGHTS.sub("", answer, count=1).strip()
    if answer.startswith(("<think>", "<thinking>", "<reasoning>")):
        return ""  # the thoughts took all the tokens there were
    lines = [line.strip() for line in answer.splitlines() if line.strip().strip("`")]
    if len(lines) > 1 and lines[0].endswith((":", "：")) and not source.rstrip().endswith((":", "：")):
        lines = lines[1:]
    text = lines[0] if lines else ""
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and source.strip()[:1] not in _QUOTES:
        inside = text[1:-1]
        if text[0] not in inside and text[-1] not in inside:
            text = inside.strip()
    return text


def length_limit(settings: TeacherSettings, source_tokens: int, positions: int | None) -> int:
    """Most tokens of a translation, the end token counted."""
    most = min(int(settings.max_length_ratio * source_tokens) + settings.max_length_extra, settings.max_length)
    return max(1, most if positions is None else min(most, positions))
