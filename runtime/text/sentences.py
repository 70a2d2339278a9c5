"""Finds the ends of sentences in a line.

Rules and word lists are data (``rules/sentences/``: ``all.json``, and a file for each language that has lists), for
other hosts to read; what is here is a scanner that looks at each mark (``.``, ``?``, an emoji) once, at a bounded
stretch before it and at what follows up to the next letter. So the time is linear, whatever the line is made of.

A mark with white space behind it ends a sentence unless

- nothing but a number or a letter stands before it ("1. Open the door", "A. Introduction"),
- it stands alone in brackets ("500 (!) dollars"),
- a small letter follows, and neither did the sentence begin with one ("lol ok. see u") nor is the next word one that
  often begins sentences ("I came home. it was late"),
- or, a single full stop, the word before it is an abbreviation, an initial, in some languages an ordinal: what then
  counts is the class of the abbreviation (see ``rules/sentences/en.json``) and the next word.

Between two errors the splitter prefers the sentence left whole: a model loses less by two sentences at once than by one
cut in half. Full stops of Chinese, Japanese and the Indic scripts need no white space.
"""

from __future__ import annotations

from functools import lru_cache

from mobilenmt.runtime.text.sentence_rules import SentenceRules

_LOOK_BACK = 40  # characters before a full stop that its word is looked for in
_LONGEST_WORD = 24  # characters of the next word


def split(line: str, language: str = "") -> list[int]:
    """Give the ends of the sentences of a line.

    Args:
        line: text without line ends; white space around it is of no account.
        language: a code such as ``en`` or ``de-AT``; one without lists of its own takes the rules for all languages.

    Returns:
        The offset behind each sentence, before the white space that follows, in order; empty if all is white space.
    """
    return _splitter(language).split(line)


def writes_ordinals(language: str) -> bool:
    """Whether a number with a full stop may be an ordinal in the language, as in German."""
    return _splitter(language).ordinals


class _Splitter(SentenceRules):
    """Rules, and the scanner that follows them."""

    def split(self, line: str) -> list[int]:
        """As the function."""
        stop = len(line.rstrip())
        ends: list[int] = []
        sentence = _skip_blank(line, 0, stop)  # where the current one begins
        item = 0  # the number that would go on with an enumeration: "1. Tea 2. Coffee"
        at = sentence
        while (found := self.mark.search(line, at, stop)) is not None:
            first = found.start()
            at = self._run(line, first, stop)
            marks = line[first:at]
            if marks in ":;=" and marks not in self.marks:
                continue
            if marks[0] == ".":
                at = _spaced_dots(line, at, stop)
            end = at = self._close(line, at, stop, marks)
            if end >= stop:
                break
            free = marks[0] in self.free
            if not free and not line[end].isspace():
                if end == first + 1 and self._touches(line, sentence, first, stop):
                    ends.append(end)
                    sentence = at = end
                continue
            if free:
                if end > first + len(marks) and self.speech_goes_on.match(line, end, stop):  # 「…！」と言った
                    continue
            elif marks == "." and end - first == 1 and (number := _number(line, sentence, first)) is not None:
                opens = number == 1 and line[max(sentence, first - 8) : first - 1].rstrip().endswith(":")
                if opens or number == item:
                    item = number + 1
                    continue
            if not free and not self._ends(line, sentence, first, end, stop, marks):
                if marks == "." and first - sentence <= 3 and line[sentence:first].isdigit():
                    item = int(line[sentence:first]) + 1
                continue
            ends.append(end)
            sentence = at = _skip_blank(line, end, stop)
        if sentence < stop:
            ends.append(stop)
        return ends

    def _run(self, line: str, first: int, stop: int) -> int:
        """Where the marks end that begin at `first`: a run of one kind, or a smiley, or a colon alone."""
        same = self.free if line[first] in self.free else self.marks
        at = first
        while at < stop and line[at] in same:
            at += 1
        if at > first:
            return at
        smile = self.smile.match(line, first, stop)
        return smile.end() if smile and (line[first] not in ":;=" or line[first - 1].isspace()) else first + 1

    def _close(self, line: str, at: int, stop: int, marks: str) -> int:
        """Where the sentence ends if its marks end at `at`: behind quotes, brackets, a reference, an emoji."""
        while at < stop and line[at] in self.closers:
            at += 1
        if at + 1 < stop and line[at] in " \xa0\u202f" and line[at + 1] in "»›":  # « Allez ! » as French writes it
            behind = at + 2
            if behind == stop or line[behind].isspace() or line[behind] in ".,;:!?)":
                at = behind
        while at < stop and line[at] == "[" and (found := self.reference.match(line[at : at + 5])):
            at += found.end()
        if marks[0] in ".!?…" and at < stop:  # "Great! 😀" is one sentence
            begin = at + 1 if line[at] == " " else at
            smile = self.smile.match(line, begin, stop)
            if smile and (smile.end() == stop or line[smile.end()].isspace()):
                at = smile.end()
        return at

    def _ends(self, line: str, sentence: int, first: int, end: int, stop: int, marks: str) -> bool:
        """Whether a sentence ends with marks from `first` and what closes it up to `end`, white space behind it."""
        if first - sentence < _LOOK_BACK:
            before = line[sentence:first].strip()
            if marks == "." and self.is_number_of(before):
                return False
            if not any(c.isalnum() for c in before):
                return False
        if line[first - 1] in "([" and end > first + len(marks):
            return False  # 500 (!) dollars
        begin = self._next(line, end, stop)
        word = _word(line, begin, stop)
        lower = line[begin].islower() and (word.islower() or not word)  # "eBay" counts as a capital
        starts = word.lower() in self.starters and line[begin + len(word) : begin + len(word) + 1] != "."
        closed = any(c in self.quotes or c in self.closers for c in line[first + len(marks) : end])
        smile = marks[0] not in ".!?…" and self.smile.match(marks) is not None
        if smile:
            return starts and not lower
        if lower and (closed or not (word in self.small_starters or line[sentence].islower())):
            return False
        if marks[0] in "!?":
            return self._ends_loudly(line, sentence, first, begin, stop, word, starts)
        if len(marks) > 1 or marks[0] != "." or _dotted(line, first, end):
            return not lower and word.lower() not in self.not_after_ellipsis
        return self._full_stop_ends(line, sentence, first, begin, lower, starts, closed)

    def _touches(self, line: str, sentence: int, first: int, stop: int) -> bool:
        """Whether a sentence follows a mark without a space: "The dog.The cat", not "Node.js" or "U.S.A"."""
        before = _word_before(line, sentence, first)
        if not (len(before) > 1 and before.isalpha() and before[1:].islower() and not self.classes_of(before)):
            return False
        word = _word(line, first + 1, stop)
        behind = line[first + 1 + len(word) : first + 2 + len(word)]
        return word[:1].isupper() and word.lower() in self.starters and behind in ("", " ", ",", "'", "’")

    def _ends_loudly(
        self, line: str, sentence: int, first: int, begin: int, stop: int, word: str, starts: bool
    ) -> bool:
        """After a question or exclamation mark: not in a name (Yahoo!), nor before who says it ("Go!" Ann said)."""
        before = _word_before(line, sentence, first)
        if before in self.exclamations:
            return starts and line[begin].isupper()
        if self.speech and line[begin].isupper() and not starts and any(c in self.quotes for c in line[first:begin]):
            after = _skip_blank(line, begin + len(word), stop)
            return _word(line, after, stop) not in self.speech
        return True

    def _full_stop_ends(
        self, line: str, sentence: int, first: int, begin: int, lower: bool, starts: bool, closed: bool
    ) -> bool:
        letter = line[begin]
        word = _word_before(line, sentence, first)
        key = _chain(line, sentence, first, word)
        kinds = self.classes_of(key) or self.classes_of(word)
        if "b" in kinds and not closed:
            return False
        if "n" in kinds and (letter.isdigit() or (letter in "§IVX" and not starts)):
            return False
        if lower:
            ordinary = not kinds or word.lower() in self.words
            return ordinary and not (_is_initials(key) or word.isdigit() or self.is_ordinal(word))
        if "e" in kinds:
            return True
        if "o" in kinds or "b" in kinds or _is_initials(key):
            return starts or (len(word) == 1 and self._is_pronoun(line, first, word))
        return starts if self.is_ordinal(word) else True

    def _is_pronoun(self, line: str, first: int, word: str) -> bool:
        """The English I behind a word in small letters: "Neither did I. Tom went home"."""
        return word == "I" and word.lower() in self.not_after_ellipsis and line[max(0, first - 3) : first - 2].islower()

    def _next(self, line: str, at: int, stop: int) -> int:
        """Where the next word begins: behind white space, opening quotes and brackets, dashes."""
        while at < stop - 1 and (line[at].isspace() or line[at] in self.openers or line[at] in self.dashes):
            at += 1
        return at


@lru_cache(maxsize=16)
def _splitter(language: str) -> _Splitter:
    return _Splitter.of(language)


def _skip_blank(line: str, at: int, stop: int) -> int:
    while at < stop and line[at].isspace():
        at += 1
    return at


def _spaced_dots(line: str, at: int, stop: int) -> int:
    """Go on over " . ." behind a dot, as in ". . .", but not over the dot of " .gitignore"."""
    while at + 1 < stop and line[at] in " \xa0" and line[at + 1] == "." and not line[at + 2 : at + 3].isalnum():
        at += 2
    return at


def _dotted(line: str, first: int, end: int) -> bool:
    return "." in line[first + 1 : end]


def _word(line: str, at: int, stop: int) -> str:
    end = at
    while end < stop and end - at < _LONGEST_WORD and line[end].isalpha():
        end += 1
    return line[at:end]


def _word_before(line: str, sentence: int, first: int) -> str:
    """What stands before a full stop, up to white space, a bracket or a quote."""
    begin = first
    least = max(sentence, first - _LOOK_BACK)
    while begin > least and not line[begin - 1].isspace() and line[begin - 1] not in "([{\"'“”„«»‘‚/–—":
        begin -= 1
    return line[begin:first]


def _chain(line: str, sentence: int, first: int, word: str) -> str:
    """The word with the single letters before it, spaces dropped: ``z.B`` for the last word of "so z. B."."""
    begin = first - len(word)
    while (
        begin - 3 >= sentence
        and line[begin - 1] in " \xa0\u202f"
        and line[begin - 2] == "."
        and line[begin - 3].isalpha()
        and (begin - 3 == sentence or not line[begin - 4].isalnum())
        and first - begin < _LOOK_BACK
    ):
        begin -= 3
        word = line[begin : begin + 2] + word
        while begin - 2 >= sentence and line[begin - 1] == "." and line[begin - 2].isalpha():
            begin -= 2
            word = line[begin : begin + 2] + word
    return word


def _is_initials(word: str) -> bool:
    """Single letters between full stops: J, U.S, z.B, J.-C."""
    return bool(word) and all(len(part.strip("-")) == 1 and part.strip("-").isalpha() for part in word.split("."))


def _number(line: str, sentence: int, first: int) -> int | None:
    """The number of one or two digits that stands alone before a full stop."""
    begin = first
    while begin > sentence and first - begin < 3 and "0" <= line[begin - 1] <= "9":
        begin -= 1
    if begin == first or first - begin > 2 or (begin > sentence and not line[begin - 1].isspace()):
        return None
    return int(line[begin:first])
