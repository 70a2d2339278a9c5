"""Augmentation: further pairs made from a corpus, so that a model meets what people really type.

Titles, shouting, chat without capitals, labels without a full stop, emoji, placeholders, numbers, addresses, single
words and paragraphs are rare in sentence pairs, and a small model mangles what it never saw. Each kind has a share:
0.01 adds one pair to every hundred. The pairs themselves stay.

Which pair is changed is decided by a hash of (seed, pair, copy), and how by a hash of (seed, kind, number of those
made). Where the chosen pair does not lend itself to a kind (no number in it, say), the next one that does takes its
place, so that shares are met.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from random import Random

from mobilenmt.compression.core.errors import RecipeError
from mobilenmt.compression.core.hashing import Hasher
from mobilenmt.compression.core.pairs import Pair
from mobilenmt.compression.core.settings import shown
from mobilenmt.compression.dataset import augment_copy, augment_text
from mobilenmt.compression.dataset.augment_kept import KeptMaker
from mobilenmt.compression.dataset.word_pairs import associated_words, single_words

_WORD_PAIRS = 100_000  # single words kept in memory at most
_REPEATS = 20  # times that a single word is used, on average
_LONGEST = 600  # characters of a joined source
_MEMORY = 8  # pairs before the current one that it may be joined with


@dataclass(frozen=True)
class AugmentSettings:
    """Shares of augmented pairs: how many are added for each pair, 0 for none."""

    all_caps: float = 0.01
    """BOTH SIDES IN CAPITALS; ß becomes SS (in the source sometimes ẞ)."""
    title_case: float = 0.01
    """Source Like a Title. The target stays: few languages write titles so."""
    lower_case: float = 0.01
    """source without capitals, as in chats. The target stays as it should be written."""
    no_end_punctuation: float = 0.02
    """Both sides without the mark at the end, like labels and queries."""
    emoji: float = 0.01
    """One to three emoji at the same place of both sides."""
    placeholders: float = 0.02
    """``{name}``, ``%s``, ``{{0}}``, ``<b>…</b>`` and the like at the same place of both sides."""
    kept: float = 0.02
    """One to five placeholders as the runtime puts them in for what must be kept (mostly ``<x id="0"/>``), in the place
    of words that translate one another: shared names and numbers, and what the single words of the corpus tell."""
    numbers: float = 0.01
    """A number of both sides replaced by another; times, versions, telephone numbers, codes."""
    addresses: float = 0.01
    """URLs and e-mail addresses on both sides."""
    words: float = 0.02
    """Pairs of single words, each at most 20 times: pairs of the corpus that are one word each, and words that keep
    company in it."""
    sentences: float = 0.02
    """A pair joined with one to three before it of the same tag."""

    def __post_init__(self) -> None:
        for name in SHARES:
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise RecipeError(f"{name}: expected a share from 0 to 1, found {shown(getattr(self, name))}")
        if self.total() > 1.0:
            raise RecipeError(f"all_caps: the shares add up to {self.total():.3f}; expected at most 1 together")

    def total(self) -> float:
        """Pairs added for each pair, all kinds together."""
        return float(sum(getattr(self, name) for name in SHARES))


SHARES = tuple(field.name for field in fields(AugmentSettings))
"""The kinds."""


class Augmenter:
    """Makes augmented pairs along a stream of pairs.

    :param settings: the shares.
    :param seed: the recipe's seed.
    :param languages: codes of source and target, for the case rules that differ between languages.
    :param pairs: opens the corpus; read once for its single words if any are wanted.
    """

    def __init__(
        self,
        settings: AugmentSettings,
        seed: int,
        *,
        languages: tuple[str, str] = ("", ""),
        pairs: Callable[[], Iterable[Pair]] | None = None,
    ) -> None:
        self._hasher = Hasher(seed, "augment")
        self._languages = languages
        self._before: deque[Pair] = deque(maxlen=_MEMORY)
        self._words: list[Pair] = []
        if (settings.words or settings.kept) and pairs is not None:
            self._words = _collect_words(pairs)
        self._words_left = _REPEATS * len(self._words)
        kinds: dict[str, Callable[[Pair, Random], Pair | None]] = {
            "all_caps": self._all_caps,
            "title_case": self._title_case,
            "lower_case": lambda pair, _: augment_text.lower_case(pair, self._languages[0]),
            "no_end_punctuation": lambda pair, _: augment_text.without_end(pair),
            "emoji": augment_copy.with_emoji,
            "placeholders": augment_copy.with_placeholder,
            "kept": KeptMaker(self._words if settings.kept else (), languages[1]),
            "numbers": augment_copy.with_number,
            "addresses": augment_copy.with_address,
            "words": self._word,
            "sentences": self._joined,
        }
        self._makers = {kind: maker for kind, maker in kinds.items() if getattr(settings, kind) > 0}
        self._limits = list(itertools.accumulate(getattr(settings, kind) for kind in self._makers))
        self._owed = dict.fromkeys(self._makers, 0)
        self._made = dict.fromkeys(self._makers, 0)

    def augment(self, pair: Pair, copy: int = 0) -> Iterator[tuple[str, Pair]]:
        """Yield (kind, new pair) for what is due at this pair of the stream: mostly nothing.

        :param copy: which repetition of the pair it is, for corpora of a weight above 1.
        """
        key = (pair.source, pair.target, str(copy))
        number = self._hasher.uniform("kind", *key)
        if number < self._limits[-1]:
            kind = next(kind for kind, limit in zip(self._makers, self._limits, strict=True) if number < limit)
            self._owed[kind] += 1
        for kind, owed in self._owed.items():
            if owed:
                made = self._makers[kind](pair, self._hasher.generator(kind, str(self._made[kind])))
                if made is not None:
                    self._owed[kind] -= 1
                    self._made[kind] += 1
                    yield kind, made
        if copy == 0:
            self._before.append(pair)

    def _all_caps(self, pair: Pair, random: Random) -> Pair | None:
        sharp = random.random() < 0.25
        return augment_text.all_caps(pair, self._languages, sharp_s=sharp)

    def _title_case(self, pair: Pair, random: Random) -> Pair | None:
        return augment_text.title_case(pair, self._languages[0], minor_words=random.random() < 0.5)

    def _word(self, pair: Pair, random: Random) -> Pair | None:
        if self._words_left <= 0:
            return None
        self._words_left -= 1
        return random.choice(self._words)._replace(tag=pair.tag)

    def _joined(self, pair: Pair, random: Random) -> Pair | None:
        wanted = random.choice((1, 1, 1, 2, 2, 3))
        parts = [pair]
        for other in reversed(self._before):
            if len(parts) > wanted:
                break
            if other.tag == pair.tag and all(other.source != part.source for part in parts):
                parts.append(other)
        if len(parts) < 2 or sum(len(part.source) for part in parts) > _LONGEST:
            return None
        return augment_text.joined(parts[::-1])


def _collect_words(pairs: Callable[[], Iterable[Pair]]) -> list[Pair]:
    """Single words with their translations, each pair once."""
    found: dict[Pair, None] = {}
    for words in (single_words(pairs()), associated_words(pairs)):
        found |= dict.fromkeys(itertools.islice(words, _WORD_PAIRS))
    return list(found)
