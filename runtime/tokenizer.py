"""Text to ids and ids to text, with a pack's tokenizer.json (Hugging Face tokenizers format).

In a pack the pieces that steer the model (``</s>``, ``<pad>``, ``<unk>``) are stored behind the noncharacter U+FFFF and
those that only ever come out of the model behind U+FFFE; :func:`clean` takes both characters out of every text, so no
text can spell such a piece, on no platform that reads the file. ``</s>`` written in a sentence is four characters.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mobilenmt.runtime.errors import PackError

if TYPE_CHECKING:
    import tokenizers

    from mobilenmt.runtime.manifest import TokenIds

CONTROL_MARK = "\uffff"
"""Stands before a piece that steers the model: never read from text, never shown in a translation."""

OUTPUT_MARK = "\ufffe"
"""Stands before a piece that is never read from text, but is ordinary text in a translation (the file's decoder
drops the mark)."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_NONCHARACTER = re.compile(
    "[\ufdd0-\ufdef" + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF)) + "]"
)
# All of C0, DEL and C1 but tab, line feed and carriage return: those three are layout.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_LAYOUT = re.compile("[\t\n\r]")


def clean(text: str) -> str:
    """Make any Python string safe to translate; a text without oddities comes back as it is.

    Surrogate pairs become the character they stand for; lone surrogates and the 66 noncharacters become U+FFFD; control
    characters (NUL included) become a space. Tab, line feed and carriage return stay, because they are layout.
    """
    if text.isprintable():  # every character replaced below is unprintable to Python; this is the usual case, and fast
        return text
    if _SURROGATE.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _CONTROL.sub(" ", _NONCHARACTER.sub("\ufffd", text))


def is_clean(text: str) -> bool:
    """Whether cleaning leaves the text as it is."""
    return clean(text) == text


def clean_line(text: str) -> str:
    """What a tokenizer is given: cleaned, with spaces for tabs and line ends."""
    return _LAYOUT.sub(" ", clean(text))


class Tokenizer:
    """The tokenizer of one pack. Stateless once made: any number of threads may share it.

    Args:
        path: tokenizer.json of the pack.
        tokens: the model's special ids (start, eos, pad, and unk or None).
        source_vocab_size: ids from here on are pieces the model does not know; they are encoded as unk.
        target_path: tokenizer.target.json, when the target has a vocabulary of its own.

    Raises:
        PackError: a file is missing or is not a tokenizer.
    """

    def __init__(self, path: Path, tokens: TokenIds, source_vocab_size: int, target_path: Path | None = None) -> None:
        self._source = _load(path)
        self._target = self._source if target_path is None else _load(target_path)
        self._unk = tokens.unk
        self._special = frozenset(i for i in (tokens.start, tokens.eos, tokens.pad, tokens.unk) if i is not None)
        self._limit = source_vocab_size
        self._has_unknown_pieces = self._source.get_vocab_size() > source_vocab_size
        self._target_size = self._target.get_vocab_size()
        self._source_bytes: frozenset[int | None] | None = None
        self._target_bytes: dict[int, int] | None = None  # id of a byte piece -> the byte

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without the closing eos. Text is cleaned first, and tabs and line ends count as spaces here.

        Never holds the id of a special token, save unk for a character that the vocabulary cannot express. May be empty
        for a text that is not (say, of zero-width characters that the normalizer drops).
        """
        text = clean_line(text)
        try:
            ids: list[int] = self._source.encode(text, add_special_tokens=False).ids
        except _NOT_OURS:
            raise
        except BaseException as error:  # a Rust panic is a BaseException
            raise PackError(f"the pack's tokenizer.json fails on {text[:40]!r}: {error}") from error
        if self._has_unknown_pieces:
            unk = () if self._unk is None else (self._unk,)
            ids = [known for i in ids for known in ((i,) if i < self._limit else unk)]
        return ids

    def knows(self, text: str) -> bool:
        """Whether the vocabulary has all characters of `text`: none comes out as unknown or in bytes."""
        spelled = self._source_bytes
        if spelled is None:
            spelled = self._source_bytes = frozenset(_byte_ids(self._source)) | {self._unk}
        return spelled.isdisjoint(self.encode(text)) and is_clean(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`. Special ids and ids outside the vocabulary are skipped.

        Byte pieces become characters; bytes that make no character are left out.
        """
        pieces = [(i, self._piece(i)) for i in ids if i not in self._special]
        kept = [i for i, piece in pieces if not piece.startswith(CONTROL_MARK)]
        if any(piece.startswith("<0x") for _, piece in pieces):
            kept = self._whole_characters(kept)
        if not kept:
            return ""
        try:
            return str(self._target.decode(kept, skip_special_tokens=False))
        except _NOT_OURS:
            raise
        except BaseException as error:
            raise PackError(f"the pack's tokenizer cannot decode {kept[:20]}: {error}") from error

    def _whole_characters(self, ids: list[int]) -> list[int]:
        """The ids without those of bytes that make no character, where the decoder makes characters of bytes."""
        if self._target_bytes is None:
            found = _byte_ids(self._target)
            letter = next((i for i, byte in found.items() if byte == ord("A")), None)
            decodes = letter is None or self._target.decode([letter], skip_special_tokens=False) == "A"
            self._target_bytes = found if decodes else {}
        of_byte = {byte: i for i, byte in self._target_bytes.items()}
        whole: list[int] = []
        for is_byte, group in itertools.groupby(ids, self._target_bytes.__contains__):
            if is_byte:
                data = bytes(self._target_bytes[i] for i in group).decode("utf-8", "ignore").encode()
                whole += [of_byte[byte] for byte in data]
            else:
                whole += group
        return whole

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The pieces of `ids` as a person may read them: one for each id, special ones too, ``▁`` for a space."""
        return [self._piece(i).lstrip(CONTROL_MARK + OUTPUT_MARK) or "\ufffd" for i in ids]

    def _piece(self, i: int) -> str:
        """The stored piece of one target id; a bare mark outside the vocabulary, so that it counts as hidden."""
        known = 0 <= i < _MAX_ID
        return (self._target.id_to_token(i) if known else None) or CONTROL_MARK


_NOT_OURS = (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError)


def _byte_ids(tokenizer: tokenizers.Tokenizer) -> dict[int, int]:
    """The byte pieces of a vocabulary: id -> byte."""
    found = ((tokenizer.token_to_id(f"<0x{byte:02X}>"), byte) for byte in range(256))
    return {i: byte for i, byte in found if i is not None}


_MAX_ID = 2**32  # tokenizers keeps ids in 32 bits and raises OverflowError beyond


def _load(path: Path) -> tokenizers.Tokenizer:
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except _NOT_OURS:
        raise
    except BaseException as error:  # tokenizers raises Exception itself, and a Rust panic is a BaseException
        reason = "no such file" if not Path(path).is_file() else error
        raise PackError(f"{path}: cannot be read as a tokenizer: {reason}") from error
    tokenizer.no_truncation()  # nothing is ever cut silently, whatever the file says
    tokenizer.no_padding()
    # tokenizers caches every word it meets, 10,000 of any length: 1.8 MB after 6,000 sentences, to save 30 us each.
    resize_cache = getattr(tokenizer.model, "_resize_cache", None)
    if resize_cache is not None:
        resize_cache(0)
    return tokenizer
