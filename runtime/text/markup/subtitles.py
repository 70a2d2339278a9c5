"""Subtitles: SubRip (.srt) and WebVTT (.vtt).

What one speaker says in a cue is a unit; where a sentence goes on in the next cue, all of it is one, and its
translation is dealt out to the cues again, by links or by length. Numbers, times, settings, notes, styles, tags stay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby

from mobilenmt.runtime.text.markup.builder import Builder
from mobilenmt.runtime.text.markup.dealing import break_lines, deal
from mobilenmt.runtime.text.markup.document import Document, Layout, Result, Unit
from mobilenmt.runtime.text.markup.entities import encode, references
from mobilenmt.runtime.text.markup.weave import TEXT, weave

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r|\Z)")
_TIME = r"(?:([0-9]+):)?([0-9]{1,2}):([0-9]{1,2})[.,]([0-9]{1,3})"
_TIMES = re.compile(rf"[ \t]*{_TIME}[ \t]*-->[ \t]*{_TIME}")
_NUMBER = re.compile(r"[ \t]*[0-9]+[ \t]*\Z")
_SPEAKER = re.compile(r"[-–—‐][ \t]*(?=[^\s\d-])")
_SPEAKER_LINE = re.compile(rf"(?:<[^<>\n]*>|\{{\\[^{{}}\n]*\}}|[ \t])*{_SPEAKER.pattern}")
_MARKUP = re.compile(r"<(/?)([A-Za-z]*)[^<>\n]*>|\{\\[^{}\n]*\}|[♪♫♩♬]+")
_NOISE = re.compile(r"[ \t]*(?:\[[^\[\]\n]*\]|\([^()\n]*\))")
_CLOSERS = "\"'”’»)]"
_ENDS = ".!?…:;。！？；："
#: Longest joined: cues, characters, and seconds of silence between two.
_CUES, _CHARACTERS, _SILENCE = 6, 400, 2.0


@dataclass(frozen=True, slots=True)
class Chain(Unit):
    """What is said in several cues."""

    cues: tuple[Unit, ...] = ()
    """Its parts: their texts, with spaces between, are the text."""
    between: tuple[str, ...] = ()
    """What stands between two of them."""


@dataclass(slots=True)
class _Said:
    """A unit, and what may be joined with it."""

    unit: Unit
    begins: bool  # with its cue, without a dash, a note or a noise
    ends: bool  # with its cue
    start: float  # of the cue, in seconds
    end: float


def parse(text: str) -> Document:
    """Take subtitles apart; WebVTT begins with ``WEBVTT``, all else is read as SubRip."""
    vtt = text.lstrip("\ufeff").startswith("WEBVTT")
    return Document("vtt" if vtt else "srt", tuple(_Parser(text, vtt).parts()))


def render_unit(unit: Unit, result: Result) -> str:
    """Give a unit's translation with its tags, dealt out to the cues and lines it had."""
    made = Result(result.text.replace("\n", " ").replace("\r", " "), result.links)
    if not isinstance(unit, Chain):
        return _render_cue(unit, made)
    pieces = []
    for number, (cue, share) in enumerate(zip(unit.cues, deal([c.text for c in unit.cues], made), strict=True)):
        pieces.append(unit.between[number - 1] if number else "")
        pieces.append(cue.raw if share.text == cue.text else _render_cue(cue, share))
    return "".join(pieces)


def _render_cue(unit: Unit, result: Result) -> str:
    newline = re.search(r"\r\n|\n|\r", unit.raw)
    lines = len(re.findall(r"\r\n|\n|\r", unit.raw)) + 1
    pieces = []
    broken = break_lines(weave(unit.text, unit.marks, result), lines)
    for markup, group in groupby(broken, key=lambda piece: piece[1] != TEXT):
        joined = "".join(piece for piece, _ in group)
        if not markup and unit.place == "vtt":
            joined = encode(joined, unit.spelling).replace("-->", "--&gt;")
        elif not markup:
            joined = joined.replace("-->", "->")  # would be read as a time
        pieces.append(joined.replace("\n", newline.group() if newline else "\n") if not markup else joined)
    return "".join(pieces)


class _Parser:
    def __init__(self, source: str, vtt: bool) -> None:
        self._source = source
        self._vtt = vtt
        self._builder = Builder(source)
        self._found: list[Layout | _Said] = []
        self._done = 0

    def parts(self) -> list[Layout | Unit]:
        source = self._source
        lines = [match.span() for match in _LINE.finditer(source) if match.end() > match.start()]
        at = 0
        while at < len(lines):
            times = _TIMES.match(source, *lines[at])
            at += 1
            if times:
                first = at
                while at < len(lines) and not self._ends_cue(lines, at):
                    at += 1
                if at > first:
                    self._cue(lines[first:at], times)
        self._found.append(Layout(source[self._done :]))
        return self._join()

    def _ends_cue(self, lines: list[tuple[int, int]], at: int) -> bool:
        line = self._source[slice(*lines[at])].strip()
        if not line or _TIMES.match(line):
            return True
        if not _NUMBER.match(line) or at + 1 == len(lines):  # the next cue, though no empty line stands before it
            return False
        return _TIMES.match(self._source, *lines[at + 1]) is not None

    def _cue(self, lines: list[tuple[int, int]], times: re.Match[str]) -> None:
        source = self._source
        begin, end = lines[0][0], lines[-1][1]
        while end > begin and source[end - 1] in "\r\n":
            end -= 1
        self._found.append(Layout(source[self._done : begin]))
        self._done = end
        start, stop = _seconds(times.groups()[:4]), _seconds(times.groups()[4:])
        units: list[_Said] = []

        def finish(at: int, plain: bool) -> None:
            for part in self._builder.finish(at).parts():
                if isinstance(part, Unit):
                    units.append(_Said(part, plain, False, start, stop))
                    self._found.append(units[-1])
                else:
                    self._found.append(part)
            self._builder.place = "vtt" if self._vtt else "srt"

        self._builder.begin(begin)
        self._builder.place = "vtt" if self._vtt else "srt"
        plain = "<v" not in source[begin:end]
        for number, (line, line_end) in enumerate(lines):
            at, line_end = line, min(line_end, end)
            while line_end > at and source[line_end - 1] in "\r\n":
                line_end -= 1
            if number:
                self._builder.space(" ")
            if number == 0 or _SPEAKER_LINE.match(source, at, line_end):
                at = self._read_markup(at, line_end)
                dash = _SPEAKER.match(source, at, line_end)
                if dash:
                    finish(at, plain)
                    self._builder.point(dash.group(), at)
                    plain, at = False, dash.end()
                noise = _NOISE.match(source, at, line_end)
                if noise:
                    inside = noise.start() + noise.group().index(noise.group().strip()[0]) + 1
                    finish(inside, plain)
                    self._read(inside, noise.end() - 1)
                    finish(noise.end() - 1, False)
                    finish(noise.end(), False)
                    plain, at = False, noise.end()
            if _MARKUP.match(source, at) and source[at] in "♪♫♩♬":
                plain = False
            self._read(at, line_end)
        finish(end, plain)
        if units and not source[begin:end].rstrip().endswith(("♪", "♫", "♩", "♬", "]", ")")):
            units[-1].ends = True
        for said in units[1:]:
            said.begins = False

    def _read_markup(self, at: int, end: int) -> int:
        """Read the tags a line begins with."""
        while (match := _MARKUP.match(self._source, at, end)) and self._source[at] in "<{":
            self._markup(match)
            at = match.end()
        return at

    def _read(self, at: int, end: int) -> None:
        for match in _MARKUP.finditer(self._source, at, end):
            self._text(at, match.start())
            self._markup(match)
            at = match.end()
        self._text(at, end)

    def _markup(self, match: re.Match[str]) -> None:
        raw, at = match.group(), match.start()
        name = (match.group(2) or "").lower()
        if self._builder.full or not name or raw[0] != "<":
            self._builder.point(raw, at)
        elif match.group(1):
            self._builder.close(name, raw, at)
        else:
            self._builder.open(name, raw, at, split=name in ("b", "i", "u"), formatting=False)

    def _text(self, at: int, end: int) -> None:
        text = self._source[at:end]
        self._builder.spelled(text, at, references(text, strict=True) if self._vtt and "&" in text else ())

    def _join(self) -> list[Layout | Unit]:
        """Join what goes on in the next cue."""
        parts: list[Layout | Unit] = []
        chain: list[_Said] = []
        between: list[str] = []
        layout = ""

        def close() -> None:
            if len(chain) == 1:
                parts.append(chain[0].unit)
            elif chain:
                units = [said.unit for said in chain]
                raw = units[0].raw + "".join(b + u.raw for b, u in zip(between, units[1:], strict=True))
                text = " ".join(unit.text for unit in units)
                parts.append(Chain(text, (), raw, {}, units[0].place, tuple(units), tuple(between)))
            chain.clear()
            between.clear()

        for part in self._found:
            if isinstance(part, Layout):
                layout += part.text
                continue
            length = sum(len(said.unit.text) for said in chain)
            if chain and _goes_on(chain[-1], part) and len(chain) < _CUES and length < _CHARACTERS:
                between.append(layout)
            else:
                close()
                if layout:
                    parts.append(Layout(layout))
            layout = ""
            chain.append(part)
        close()
        return [*parts, Layout(layout)] if layout else parts


def _goes_on(said: _Said, following: _Said) -> bool:
    """Whether a sentence goes on in the next cue: nothing ends it, and nobody else speaks."""
    if not (said.ends and following.begins) or following.start - said.end > _SILENCE:
        return False
    tail = said.unit.text.rstrip(_CLOSERS)
    return bool(tail) and tail[-1] not in _ENDS


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = parts
    return int(hours or 0) * 3600.0 + int(minutes or 0) * 60 + int(seconds or 0) + float(f"0.{fraction}")
