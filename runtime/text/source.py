"""What the model is given of a text, and how its output is written: folding, capitals and kept characters together."""

from __future__ import annotations

from collections.abc import Callable

from mobilenmt.runtime.text.case import Case, lower, restore
from mobilenmt.runtime.text.fold import Folder
from mobilenmt.runtime.text.letters import Alphabet, long_words, unknown, without_inventions
from mobilenmt.runtime.text.spans import Kept

Encode = Callable[[str], list[int]]
_MOST_COSTS = 10_000  # words
_LATIN = "\u0250"  # the first letter behind those of Latin with marks


class Source:
    """The way of sentences into one model and out of it. Any number of threads may share it.

    Args:
        encode: gives the ids of a text.
        knows: whether the vocabulary has all characters of a text.
        language: of the source, "" if unknown.
        target: language of the translations, likewise.
    """

    def __init__(self, encode: Encode, knows: Callable[[str], bool], language: str, target: str) -> None:
        self._encode = encode
        self._alphabet = Alphabet(knows)
        self._folder = Folder(self._alphabet)
        self._language = language
        self._target = target
        self._costs: dict[str, int] = {}

    def prepare(self, sentence: str) -> tuple[str, Case]:
        """What the model reads, and how the letters of the sentence were written."""
        return lower(self._folder.fold(sentence).text, self._language, cost=self._cost)

    def kept(self, text: str) -> list[Kept]:
        """Stretches of the text that no model should see, in order: characters it never saw, words too long.

        Words of Latin letters are left to the model, though it spells a letter in bytes: without them there would be
        no sentence.
        """
        if not self._alphabet.missing(text):
            return long_words(text)
        folded = self._folder.fold(text)
        latin = {
            c for c in self._alphabet.missing(folded.text) if c.isalpha() and (c < _LATIN or "\u1e00" <= c < "\u1f00")
        }
        found = [
            Kept(*folded.source_span(start, end), rule)
            for start, end, rule in unknown(folded.text, self._alphabet)
            if latin.isdisjoint(folded.text[start:end])
        ]
        spans: list[Kept] = []
        for span in sorted([*found, *long_words(text)]):
            if not spans or span.start >= spans[-1].end:
                spans.append(span)
        return spans

    def write(self, output: str, sentence: str) -> str:
        """An output as its source was written, without broken and invisible characters that the source lacks."""
        _, case = self.prepare(sentence)
        return restore(without_inventions(output, sentence), case, self._target)

    def _cost(self, word: str) -> int:
        cost = self._costs.get(word)
        if cost is None:
            if len(self._costs) > _MOST_COSTS:
                self._costs = {}
            cost = self._costs[word] = len(self._encode(word))
        return cost
