"""Which lines are one paragraph: joins what was wrapped to a width."""

from __future__ import annotations

import re
from itertools import pairwise

from mobilenmt.runtime.text.lines import line_rules, marker_end

_NARROWEST = 40  # columns: what is narrower was hardly wrapped by a program (addresses, verse)
_WIDEST = 120
_ENDS = ".!?…:;\"'”’“»)"
_HYPHENS = "-\u2010"
_SOFT_HYPHEN = "\xad"
_WORD = re.compile(r"[^\W\d_]+")
_PREFIX = re.compile(r"[ \xa0\u3000]*(?:>[> ]*)?")  # indent and quoting
_WIDE = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uff60\U00020000-\U0003ffff]")  # scripts without spaces


def unwrap(text: str) -> str:
    """Join the lines of paragraphs that were wrapped to a width, one line for each paragraph.

    A line is joined with the next one if the first word of that would not have fitted into the widest line of the block
    (so it was moved down by a program, not by a writer), both are indented or quoted alike, and the next one begins
    with no bullet or number. Empty lines, tabs, lines with ``|``, two spaces or a backslash at the end keep lines
    apart, and a block stays as it is if a shorter line in it ends without a mark (an address). Short lines that end so
    above a paragraph ("Hi Tom,") and below it (a signature) stay lines; what is between them is joined if one of its
    lines goes on with a small letter.

    A soft hyphen at the end of a line is taken out. Another hyphen before a small letter stays, without a space behind
    it ("well-" "known"); it goes only if the text has the whole word elsewhere, and gets its space before words like
    "and". Between Chinese or Japanese characters lines are joined without a space. The line end kept is that of the
    last line.
    """
    lines = text.splitlines(keepends=True)
    if len(lines) < 2:
        return text
    joined: list[str] = []
    words: frozenset[str] | None = None
    for block in _blocks(lines):
        top, bottom, width = _paragraph(block)
        joined += block[:top]
        below, block = block[bottom:], block[top:bottom]
        bare = [line.rstrip() for line in block]
        parts: list[str] = []
        first = bare[0] if bare else ""
        for index, line in enumerate(bare):
            last = index == len(bare) - 1
            if last or not _goes_on(first, line, block[index], bare[index + 1], width):
                joined.append("".join(parts) + (line if not parts else _words_of(line)) + block[index][len(line) :])
                parts = []
                first = "" if last else bare[index + 1]
                continue
            start = line if not parts else _words_of(line)
            following = _words_of(bare[index + 1])
            if start[-1] in _HYPHENS and words is None:
                words = frozenset(word.lower() for word in _WORD.findall(text))
            parts.append(_with_gap(start, following, words or frozenset()))
        joined += below
    return "".join(joined)


def _blocks(lines: list[str]) -> list[list[str]]:
    """Lines that may belong together: neither empty nor with a tab or a bar."""
    blocks: list[list[str]] = []
    open_block = False
    for line in lines:
        plain = bool(line.strip()) and "\t" not in line.rstrip() and "|" not in line
        if plain and open_block:
            blocks[-1].append(line)
        else:
            blocks.append([line])
        open_block = plain
    return blocks


def _paragraph(block: list[str]) -> tuple[int, int, int]:
    """Where in a block a wrapped paragraph begins and ends, and its width; both are 0 where there is none."""
    bare = [line.rstrip() for line in block]
    width = max((len(line) for line in bare if len(line.split(None, 2)) > 1), default=0)
    breaks = [index for index, (line, after) in enumerate(pairwise(bare)) if _breaks_off(line, after, width)]
    if not breaks:
        return 0, len(block), width
    top, tail = 0, len(block)
    while top < len(breaks) and breaks[top] == top and len(bare[top]) * 2 < width:
        top += 1
    while tail > top and len(bare[tail - 1]) * 2 < width:
        tail -= 1
    bottom = next((index for index in breaks if index >= tail), len(block))
    broken = any(top <= index < bottom for index in breaks)
    goes_on = any(_words_of(line)[:1].islower() for line in bare[top + 1 : bottom])
    return (0, 0, width) if broken or not goes_on else (top, bottom, width)


def _prefix(line: str) -> str:
    found = _PREFIX.match(line)
    return found.group().rstrip() if found and ">" in found.group() else found.group() if found else ""


def _words_of(line: str) -> str:
    found = _PREFIX.match(line)
    return line[found.end() :] if found else line


def _goes_on(first: str, line: str, whole: str, following: str, width: int) -> bool:
    """Whether `following` is the rest of the paragraph that `first` begins and `line` is the last line of, so far."""
    words, rest = _words_of(line), _words_of(following)
    if not words or not rest or whole.rstrip("\r\n").endswith(("  ", "\\")):
        return False
    if marker_end(rest) or words.startswith("#"):
        return False
    quoted = ">" in _prefix(line) or ">" in _prefix(following)
    indent, of_following = _prefix(line), _prefix(following)
    hanging = len(_prefix(first)) + marker_end(_words_of(first))
    if indent != of_following and (quoted or line is not first or len(of_following) != hanging):
        return False
    word = 1 if _WIDE.match(rest) else len(rest.split(None, 1)[0])
    if _WIDE.match(words[-1]):
        return len(line) * 2 >= _NARROWEST and len(line) + word > width
    return _NARROWEST <= width <= _WIDEST and len(line) + 1 + word > width


def _breaks_off(line: str, following: str, width: int) -> bool:
    """Whether a line ends early, in the middle of a sentence: then a writer broke the lines, not a program."""
    rest = _words_of(following)
    if not rest or marker_end(rest) or line[-1] in _ENDS or _WIDE.match(line[-1]):
        return False
    return len(line) + 1 + len(rest.split(None, 1)[0]) <= width


def _with_gap(start: str, following: str, words: frozenset[str]) -> str:
    """The first of two lines, ready for the second to be put behind it."""
    if start.endswith(_SOFT_HYPHEN):
        return start[:-1]
    if start[-1] in _HYPHENS and start[-2:-1].isalpha() and following[0].islower():
        after = _WORD.match(following)
        word = after.group().lower() if after else ""
        if word in line_rules().suspended:
            return start + " "
        before = _WORD.findall(start[-60:])
        return start[:-1] if before and before[-1].lower() + word in words else start
    if _WIDE.match(start[-1]) and _WIDE.match(following):
        return start
    return start + " "
