"""Models with several target languages: a code such as ``>>deu<<`` before the text says which."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence

from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.text.data import base_language
from mobilenmt.runtime.text.spans import Kept

_CODE = re.compile(rb'">>([0-9A-Za-z_-]{1,30})<<"')
_AT_THE_START = re.compile(r"(\s*)>>([0-9A-Za-z_-]{1,30})<<[ \t]?")
_ANYWHERE = re.compile(r">>([0-9A-Za-z_-]{1,30})<<")
_MOST_NAMED = 40  # codes in an error

Encode = Callable[[str], list[int]]


class Targets:
    """The target languages of a model, and their codes before its segments.

    Args:
        read: gives the bytes of the pack's tokenizer.json; not called before a code is needed.
        language: the target language of the pack, as far as it is known.
    """

    def __init__(self, read: Callable[[], bytes], language: str | None) -> None:
        self._read = read
        self._language = language

    @functools.cached_property
    def codes(self) -> tuple[str, ...]:
        """The codes that the vocabulary has, sorted; none where there is one target."""
        return tuple(sorted({found.decode() for found in _CODE.findall(self._read())}))

    def check(self, target: str | None) -> str:
        """The code to put before every segment: "" for None, and for the one language of a model that has one.

        Args:
            target: a code, with or without its brackets.

        Raises:
            InputError: the model has no such code.
        """
        if target is None:
            return ""
        if not isinstance(target, str):
            raise InputError(f"target must be a code such as deu, not {target!r}")
        code = target.removeprefix(">>").removesuffix("<<")
        if code in self.codes:
            return code
        if self.codes:
            more = f" and {len(self.codes) - _MOST_NAMED} more" if len(self.codes) > _MOST_NAMED else ""
            named = ", ".join(self.codes[:_MOST_NAMED])
            raise InputError(f"target {target!r} is unknown to this pack; it has {named}{more}")
        if self._language is not None and base_language(code) == base_language(self._language):
            return ""
        raise InputError(f"target {target!r}: this pack has one target language ({self._language or 'not named'})")

    def take(self, text: str) -> tuple[str, str]:
        """The code that a text begins with, "" if none that is known, and the text without it."""
        match = _AT_THE_START.match(text)
        if match is None or match[2] not in self.codes:
            return "", text
        return match[2], match[1] + text[match.end() :]

    def outside(self, text: str, spans: Sequence[Kept]) -> Sequence[Kept]:
        """The spans that are no part of a code within the text."""
        if ">>" not in text or not self.codes:
            return spans
        codes = [match.span() for match in _ANYWHERE.finditer(text) if match[1] in self.codes]
        return [span for span in spans if not any(start <= span.start < end for start, end in codes)]

    def coded(self, text: str, code: str, encode: Encode) -> tuple[str, Encode]:
        """The text without its own code, and an encoding that puts that code, or else `code`, before every segment.

        A segment that begins with a code keeps that one.
        """
        if not code and not text.lstrip().startswith(">>"):
            return text, encode
        own, rest = self.take(text)
        code = own or code
        if not code:
            return text, encode
        return rest, lambda segment: encode(segment if self.take(segment)[0] else f">>{code}<< {segment}")
