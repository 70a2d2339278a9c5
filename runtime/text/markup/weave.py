"""Puts marks back: around the words of a translation that the words they stood around became.

Every mark is written once, in the nesting of the source. Where the words of one no longer stand together, a mark that
may be split (emphasis) is written around each group of them; another (a link, an element with an id) around all from
the first to the last, if no other mark's words stand between, else around the largest group. A mark whose words came
to nothing is written empty, in its place; what stood between words (a line break, a picture) follows the word before
it, or precedes the word behind it if it touches that one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import groupby

from mobilenmt.runtime.text.markup.document import Mark, Result
from mobilenmt.runtime.text.markup.trace import Trace

TEXT, OPEN, CLOSE, ALONE = range(4)
Piece = tuple[str, int]
"""Some of the output: words, not yet escaped (`TEXT`, 0), or markup: the beginning or the end of a mark, or another."""

_Gaps = dict[int, tuple[list[int], list[int]]]

_ENDS = frozenset(".!?…")
_FAR = 4  # words without a link that are looked over to find a neighbour of what stood between words


def weave(text: str, marks: Sequence[Mark], result: Result) -> list[Piece]:
    """Give the pieces of a translation with its marks, in order."""
    if not marks:
        return [(result.text, TEXT)]
    return _Weaver(text, marks, result).pieces()


class _Weaver:
    def __init__(self, text: str, marks: Sequence[Mark], result: Result) -> None:
        self._marks = marks
        self._text = text
        self._target = result.text
        self._children: list[list[int]] = [[] for _ in range(len(marks) + 1)]  # the last: of none
        for index, mark in enumerate(marks):
            self._children[mark.parent].append(index)
        self._in_proportion = not result.links
        self._trace = Trace(text, marks, result)
        self._words = self._trace.words
        self._starts = [word.start for word in self._words]
        self._part_starts = [part.start for part in self._trace.parts]

    def pieces(self) -> list[Piece]:
        out: list[Piece] = []
        self._write(-1, [(0, len(self._words))], [out])
        if self._words:
            out.insert(0, (self._target[: self._words[0].start], TEXT))
            out.append((self._target[self._words[-1].end :], TEXT))
        else:
            out.append((self._target, TEXT))
        return [piece for piece in out if piece[0]]

    # where each mark goes

    def _write(self, node: int, runs: list[tuple[int, int]], outs: list[list[Piece]]) -> None:
        """Write what is in the runs of words of one mark (of all, for -1), a list of pieces for each run."""
        depth = len(self._trace.path(node))
        owners: dict[int, int] = {}
        groups: dict[int, list[tuple[int, int]]] = {}
        for low, high in runs:
            for t in range(low, high):
                path = self._trace.path(self._trace.mark[t])
                owners[t] = path[depth] if len(path) > depth else -1
        children = self._children[node]
        if self._in_proportion:
            self._give_each_a_word(children, runs, owners)
        for low, high in runs:
            at = low
            for owner, group in groupby(range(low, high), owners.__getitem__):
                count = len(list(group))
                if owner >= 0:
                    groups.setdefault(owner, []).append((at, at + count))
                at += count
        foreign = _Foreign(owners, runs)
        placed: list[tuple[int, int, int]] = []  # first word, last word + 1, mark
        for child in children:
            mine = self._arrange(child, groups.get(child, []), runs, foreign)
            groups[child] = mine
            placed.extend((low, high, child) for low, high in mine)
        placed.sort()
        gaps = self._place_points(node, [c for c in children if not groups[c]], runs, placed)
        inner: dict[tuple[int, int], list[Piece]] = {}
        for child in children:
            mark = self._marks[child]
            texts: list[list[Piece]] = [[] for _ in groups[child]]
            if mark.kept:
                texts = [[(mark.open, ALONE)] for _ in texts]
            elif texts:
                self._write(child, groups[child], texts)
            for (low, _), content in zip(groups[child], texts, strict=True):
                inner[low, child] = content
        order = sorted(gaps)
        for (low, high), out in zip(runs, outs, strict=True):
            here = placed[bisect_left(placed, (low,)) : bisect_left(placed, (high,))]
            between = {gap: gaps[gap] for gap in order[bisect_left(order, low) : bisect_right(order, high)]}
            self._join(low, high, here, between, inner, out)

    def _arrange(
        self, child: int, mine: list[tuple[int, int]], runs: list[tuple[int, int]], foreign: _Foreign
    ) -> list[tuple[int, int]]:
        """Give the runs of words a mark is written around, of those that are its own."""
        mark = self._marks[child]
        if mark.start == mark.end or not mine:
            return []
        if mark.kept:
            return mine[:1]
        low, high = runs[0]
        if mark.begun and mark.unended:
            return mine
        if mark.begun:
            end = min(foreign.first(child, low), high)
            own = [t for _, t in mine if t <= end]
            return [(low, own[-1])] if own and own[-1] > low else []
        if mark.unended:
            start = max(foreign.last(child, high), low)
            own = [t for t, _ in mine if t >= start]
            return [(own[0], high)] if own and own[0] < high else []
        if len(mine) == 1 or mark.split:
            return mine
        first, end = mine[0][0], mine[-1][1]
        if foreign.first(child, first) >= end:
            return [(first, end)]
        return [max(mine, key=lambda run: run[1] - run[0])]

    def _give_each_a_word(self, children: Sequence[int], runs: list[tuple[int, int]], owners: dict[int, int]) -> None:
        having = set(owners.values())
        for child in children:
            mark = self._marks[child]
            if mark.start == mark.end or child in having or mark.kept:
                continue
            middle = (mark.start + mark.end) * len(self._target) // (2 * max(1, len(self._text)))
            t = bisect_right(self._starts, middle) - 1
            if owners.get(t) == -1 and self._words[t].letters:
                owners[t] = child
                self._trace.mark[t] = child

    # what stands between words

    def _place_points(
        self, node: int, points: Sequence[int], runs: list[tuple[int, int]], placed: Sequence[tuple[int, int, int]]
    ) -> _Gaps:
        """Give, for gaps before words, the marks that touch the word before, and those that touch the one behind."""
        gaps: _Gaps = {}
        starts = [low for low, _, _ in placed]
        for point in points:
            at = self._marks[point].start
            touches_next = at > 0 and self._text[at - 1].isspace() and at < len(self._text)
            gap = self._gap(node, point, touches_next, runs)
            # Not inside another mark: it was not in it.
            n = bisect_right(starts, gap) - 1
            if n >= 0:
                first, end, mark = placed[n]
                if self._marks[mark].begun and gap < end:
                    gap = end
                elif self._marks[mark].unended and gap > first:
                    gap = first
                elif first < gap < end:
                    gap = first if touches_next else end
            gaps.setdefault(gap, ([], []))[touches_next].append(point)
        return gaps

    def _gap(self, node: int, point: int, touches_next: bool, runs: list[tuple[int, int]]) -> int:
        """Give the word of the translation before which a mark without words stands."""
        mark = self._marks[point]
        if mark.begun or mark.unended:
            return runs[0][0] if mark.begun else runs[-1][1]
        starts = self._part_starts
        low, high = 0, len(starts)
        if node >= 0:
            low = bisect_left(starts, self._marks[node].start)
            high = bisect_left(starts, self._marks[node].end)
        here = min(max(bisect_left(starts, mark.start), low), high)
        there = min(max(bisect_left(starts, mark.end), here), high)
        if here == there == high:
            return runs[-1][1]
        if here == there == low:
            return runs[0][0]
        before = (range(here - 1, max(low, here - _FAR) - 1, -1), True)
        behind = (range(there, min(high, there + _FAR)), False)
        for order, after in (behind, before) if touches_next else (before, behind):
            for part in order:
                became = [t for t in self._trace.became[part] if _in_runs(t, runs)]
                if became:
                    return self._behind_end(mark.start, max(became) + 1) if after else min(became)
        gap = bisect_left(self._starts, mark.start * len(self._target) // max(1, len(self._text)))
        n = min(bisect_left(runs, (gap,)), len(runs) - 1)
        return gap if n and gap <= runs[n - 1][1] else min(max(runs[n][0], gap), runs[n][1])

    def _behind_end(self, at: int, gap: int) -> int:
        """The gap, behind the marks of its sentence's end if one stands just before a place of the source."""
        if self._text[max(0, at - 1) : at] in _ENDS:
            while gap < len(self._words) and self._target[self._words[gap].start] in _ENDS:
                gap += 1
        return gap

    def _join(
        self,
        low: int,
        high: int,
        placed: Sequence[tuple[int, int, int]],
        gaps: _Gaps,
        inner: dict[tuple[int, int], list[Piece]],
        out: list[Piece],
    ) -> None:
        """Write one run of words, its marks and what stands between, in order."""
        stops = sorted({*(a for a, _, _ in placed), *(b for _, b, _ in placed), *gaps, high})
        begins = {a: (b, child) for a, b, child in placed if a < b}
        at = low
        following = 0
        while True:
            lefts, rights = gaps.get(at, ((), ()))
            out.extend(self._alone(point, False) for point in lefts)
            if low < at < high:
                out.append((self._target[self._words[at - 1].end : self._words[at].start], TEXT))
            out.extend(self._alone(point, True) for point in rights)
            if at >= high:
                return
            if at in begins:
                end, child = begins[at]
                mark = self._marks[child]
                content = inner[at, child]
                at = end
                out.extend(content if mark.kept else [(mark.open, OPEN), *content, (mark.close, CLOSE)])
                continue
            while stops[following] <= at:
                following += 1
            out.append((self._target[self._words[at].start : self._words[stops[following] - 1].end], TEXT))
            at = stops[following]

    def _alone(self, point: int, touches_next: bool) -> Piece:
        """Write a mark without words, and all that is in it."""
        mark = self._marks[point]
        if mark.kept:  # it was lost: as a word of its own
            space = " " if touches_next and self._text[mark.end : mark.end + 1].isspace() else ""
            return (mark.open + space, ALONE)
        inside: list[str] = []
        todo: list[tuple[int, bool]] = [(point, False)]
        while todo:
            index, closing = todo.pop()
            if closing:
                inside.append(self._marks[index].close)
                continue
            inside.append(self._marks[index].open)
            todo.append((index, True))
            todo.extend((child, False) for child in reversed(self._children[index]))
        return ("".join(inside), ALONE)


class _Foreign:
    """Where the words of other marks lie, in the runs of their parent."""

    def __init__(self, owners: dict[int, int], runs: Sequence[tuple[int, int]]) -> None:
        self._owned = [t for low, high in runs for t in range(low, high) if owners[t] >= 0]
        self._owners = owners

    def first(self, child: int, start: int) -> int:
        """Give the first word from `start` that is another's than `child`'s; a very large number: none."""
        for n in range(bisect_left(self._owned, start), len(self._owned)):
            if self._owners[self._owned[n]] != child:
                return self._owned[n]
        return 1 << 60

    def last(self, child: int, end: int) -> int:
        """Give the word behind the last one before `end` that is another's than `child`'s; -1: none."""
        for n in range(bisect_left(self._owned, end) - 1, -1, -1):
            if self._owners[self._owned[n]] != child:
                return self._owned[n] + 1
        return -1


def _in_runs(t: int, runs: Sequence[tuple[int, int]]) -> bool:
    n = bisect_right(runs, t, key=lambda run: run[0]) - 1
    return n >= 0 and t < runs[n][1]
