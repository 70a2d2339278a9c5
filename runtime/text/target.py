"""Models with several target languages: a code such as ``>>deu<<`` before the text says which."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.text.data import base_language

_CODE = rb'">>([0-9A-Za-z_-]{1,30})<<"'
_AT_THE_START = r"(\s*)>>([0-9A-Za-z_-]{1,30})<<[ \t]?"
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
        return tuple(sorted({found.decode() for found in re.findall(_CODE, self._read())}))

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
        if ">>" not in text:
            return "", text
        match = re.match(_AT_THE_START, text)
        if match is None or match[2] not in self.codes:
            return "", text
        return match[2], match[1] + text[match.end() :]

    def length(self, text: str) -> int:
        """How many characters of a text are its own code."""
        own, rest = self.take(text)
        return len(text) - len(rest) if own else 0

    def encoder(self, code: str, encode: Encode) -> Encode:
        """An encoding that puts a code before every segment, but for one that begins with its own; "" for none."""
        if not code:
            return encode
        return lambda segment: encode(segment if self.take(segment)[0] else f">>{code}<< {segment}")
