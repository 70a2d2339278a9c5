"""Finds out what became of marked words: which words of a translation get which mark."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from mobilenmt.runtime.text.markup.document import Link, Mark, Result
from mobilenmt.runtime.text.markup.spans import same_spans, spans
from mobilenmt.runtime.text.markup.words import Word, overlapping, pair, pair_in_proportion, words


class Trace:
    """A unit beside its translation."""

    def __init__(self, text: str, marks: Sequence[Mark], result: Result) -> None:
        self.text = text
        self.target = result.text
        self.paths: list[tuple[int, ...]] = []
        """For each mark those around it, from the outermost to itself."""
        self.parts: list[Word] = []
        """Words of the source, taken apart where a mark begins or ends inside one."""
        self.words: list[Word] = []
        """Words of the translation, taken apart likewise."""
        self.mark: list[int] = []
        """The innermost mark each word of the translation gets; -1: none."""
        self.became: list[list[int]] = []
        """Words of the translation that come of each part, in order."""
        self._marks = marks
        self._inside: list[int] = []  # the innermost mark around each part
        for index, mark in enumerate(marks):
            self.paths.append((*self.path(mark.parent), index))
        self._link(result.links)

    def path(self, mark: int) -> tuple[int, ...]:
        """Give the marks around a word whose innermost mark is this."""
        return self.paths[mark] if mark >= 0 else ()

    def _link(self, links: Sequence[Link]) -> None:
        text, target = self.text, self.target
        kept = [(mark.start, mark.end, index) for index, mark in enumerate(self._marks) if mark.kept]
        whole = spans(text, self._marks)
        from_words = words(text, sorted([*kept, *((a, b, -1) for a, b in whole)]))
        taken = self._find_kept(kept, from_words, links)
        free = same_spans(target, text, whole, [(a, b) for a, b, _ in taken])
        to_words = words(target, sorted([*taken, *((a, b, -1) for a, b in free)]))
        if links:
            origins = pair(text, target, from_words, to_words, links)
        else:
            origins = pair_in_proportion(text, target, from_words, to_words)
        first_part = self._take_apart(from_words)
        depth = [len(self.paths[mark]) if mark >= 0 else 0 for mark in self._inside]
        self.became = [[] for _ in self.parts]
        of_mark = {word.kept: i for i, word in enumerate(from_words) if word.kept >= 0}
        chosen: list[int] = []  # the part each word of the translation gets its mark from; -1: none
        for t, word in enumerate(to_words):
            if word.kept >= 0:
                origins[t] = [of_mark[word.kept]]
            origins[t] = [i for i in origins[t] if word.kept >= 0 or from_words[i].kept < 0]
            longest = [self._longest(first_part[i], first_part[i + 1]) for i in origins[t]]
            chosen.append(max(longest, key=lambda part: depth[part]) if longest else -1)
        uses: dict[int, int] = {}
        for part in chosen:
            uses[part] = uses.get(part, 0) + 1
        of_part = [i for i in range(len(from_words)) for _ in range(first_part[i], first_part[i + 1])]
        final: list[int] = []
        for t, word in enumerate(to_words):
            part = chosen[t]
            pieces = [(word, part)]
            if part >= 0:
                i = of_part[part]
                if first_part[i + 1] - first_part[i] > 1:
                    same = target[word.start : word.end] == text[from_words[i].start : from_words[i].end]
                    if same or uses[part] == 1:
                        pieces = self._split_word(word, range(first_part[i], first_part[i + 1]))
            for piece, origin in pieces:
                if origin >= 0:
                    self.became[origin].append(len(self.words))
                self.words.append(piece)
                final.append(origin)
            for i in origins[t]:
                other = self._longest(first_part[i], first_part[i + 1])
                if other != part:
                    self.became[other].append(len(self.words) - 1)
        self.mark = [self._inside[part] if part >= 0 else -1 for part in final]
        self._fill_gaps(final)

    def _find_kept(
        self, kept: Sequence[tuple[int, int, int]], from_words: Sequence[Word], links: Sequence[Link]
    ) -> list[tuple[int, int, int]]:
        """Find what was to be kept in the translation: the same characters, nearest to what the links say."""
        if not kept:
            return []
        text, target = self.text, self.target
        hulls: dict[int, tuple[int, int]] = {}
        starts = [word.start for word in from_words]
        for a, b, c, d in links:
            here = overlapping(from_words, starts, a, b)
            same = len(here) > 1 and text[a:b] == target[c:d]
            for i in here:
                mark = from_words[i].kept
                if mark >= 0 and same:
                    hulls[mark] = (c + from_words[i].start - a, c + from_words[i].end - a)
                elif mark >= 0 and len(here) == 1:
                    low, high = hulls.get(mark, (c, d))
                    hulls[mark] = (min(low, c), max(high, d))
        taken: list[tuple[int, int, int]] = []
        used = bytearray(len(target))  # characters that are some mark's

        def take(start: int, end: int, mark: int) -> bool:
            free = 1 not in used[start:end]
            if free:
                used[start:end] = b"\1" * (end - start)
                taken.append((start, end, mark))
            return free

        alike: dict[str, list[tuple[int, int]]] = {}
        for start, end, mark in kept:
            wanted = text[start:end]
            hoped = hulls[mark][0] if mark in hulls else start * len(target) // max(1, len(text))
            if mark in hulls and target.startswith(wanted, hoped) and take(hoped, hoped + len(wanted), mark):
                del hulls[mark]
            else:
                alike.setdefault(wanted, []).append((hoped, mark))
        for wanted, marks in alike.items():
            spots: list[int] = []
            for alone in (True, False):
                if len(spots) < len(marks):
                    spots = [at for at in _occurrences(target, wanted, alone) if 1 not in used[at : at + len(wanted)]]
            at = 0
            for number, (hoped, mark) in enumerate(sorted(marks)):
                last = max(at, len(spots) - len(marks) + number)  # leaves one for each of those behind
                while at < min(last, len(spots) - 1) and abs(spots[at + 1] - hoped) <= abs(spots[at] - hoped):
                    at += 1
                if at < len(spots) and take(spots[at], spots[at] + len(wanted), mark):
                    hulls.pop(mark, None)
                at += 1
        for mark, (start, end) in hulls.items():  # what the model made of it gives way
            if 0 <= start < end <= len(target):
                take(start, end, mark)
        return sorted(taken)

    def _take_apart(self, from_words: Sequence[Word]) -> list[int]:
        """Cut the words of the source where marks begin and end; give the first part of each word, and their number."""
        cuts = sorted({at for mark in self._marks for at in (mark.start, mark.end)})
        first = []
        for word in from_words:
            first.append(len(self.parts))
            inner = cuts[bisect_right(cuts, word.start) : bisect_left(cuts, word.end)] if word.kept < 0 else []
            ends = [*inner, word.end]
            for start, end in zip([word.start, *inner], ends, strict=True):
                self.parts.append(Word(start, end, word.letters, word.kept))
        first.append(len(self.parts))
        self._inside = [-1] * len(self.parts)
        starts = [part.start for part in self.parts]
        for index, mark in enumerate(self._marks):
            if mark.start < mark.end:
                low, high = bisect_left(starts, mark.start), bisect_left(starts, mark.end)
                self._inside[low:high] = [index] * (high - low)
        return first

    def _longest(self, first: int, end: int) -> int:
        if end - first == 1:
            return first
        return max(range(first, end), key=lambda part: self.parts[part].end - self.parts[part].start)

    def _split_word(self, word: Word, parts: range) -> list[tuple[Word, int]]:
        """Cut a word of the translation as the word of the source is cut: at the same letters, else in proportion."""
        source_start, source_end = self.parts[parts[0]].start, self.parts[parts[-1]].end
        whole = self.text[source_start:source_end]
        made = self.target[word.start : word.end]
        if len(made) < len(parts):
            return [(word, self._longest(parts[0], parts[-1] + 1))]
        ends = []
        for part in parts[:-1]:
            at = self.parts[part].end - source_start
            if made[:at] == whole[:at]:
                end = at
            elif whole[at:] and made.endswith(whole[at:]):
                end = len(made) - len(whole) + at
            else:
                end = round(at * len(made) / len(whole))
            ends.append(end)
        pieces = []
        start = 0
        for number, part in enumerate(parts):
            left = len(parts) - number - 1
            end = len(made) if not left else min(max(ends[number], start + 1), len(made) - left)
            pieces.append((Word(word.start + start, word.start + end, word.letters), part))
            start = end
        return pieces

    def _fill_gaps(self, origins: Sequence[int]) -> None:
        """Give words without a link the marks that both of their neighbours have."""
        before: tuple[int, ...] = ()
        at = 0
        while at < len(origins):
            if origins[at] >= 0:
                before = self.path(self.mark[at])
                at += 1
                continue
            end = at
            while end < len(origins) and origins[end] < 0:
                end += 1
            behind = self.path(self.mark[end]) if end < len(origins) else ()
            shared = -1
            for mine, other in zip(before, behind, strict=False):
                if mine != other:
                    break
                if not self._marks[mine].kept:
                    shared = mine
            self.mark[at:end] = [shared] * (end - at)
            at = end


def _occurrences(text: str, wanted: str, alone: bool) -> list[int]:
    """Find where a text stands; alone: not inside a longer word."""
    found = []
    at = text.find(wanted)
    while at >= 0:
        end = at + len(wanted)
        inside = (at > 0 and wanted[0].isalnum() and text[at - 1].isalnum()) or (
            end < len(text) and wanted[-1].isalnum() and text[end].isalnum()
        )
        if not (alone and inside):
            found.append(at)
        at = text.find(wanted, at + 1 if alone and inside else end)
    return found
