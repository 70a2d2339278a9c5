"""The pack's tokenizer on the C core: text to ids and back, without the tokenizers package."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import byref, c_int, c_size_t, c_uint32
from operator import index

from mobilenmt.runtime.native.library import NO_TOKEN, Error, NativeModel, fail
from mobilenmt.runtime.tokenizer import clean_line, is_clean

_MOST_PIECES = 4_000  # remembered, of the most usual words: 0.3 MB


class NativeTokenizer:
    """The same as :class:`mobilenmt.runtime.tokenizer.Tokenizer`, id for id. Any number of threads may share it."""

    def __init__(self, model: NativeModel) -> None:
        self._model = model
        self._library = model.library
        self._pieces: dict[int, str] = {}

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without the closing eos; cleaned first, tabs and line ends count as spaces."""
        data = clean_line(text).encode()
        count, error, room = c_size_t(), Error(), len(data) + 16
        with self._model.context() as context:
            while True:
                ids = (c_uint32 * room)()
                if self._library.mn_encode(context, data, len(data), ids, room, byref(count), byref(error)):
                    raise fail(error)
                if count.value <= room:
                    return ids[: count.value]
                room = count.value

    def knows(self, text: str) -> bool:
        """Whether the vocabulary has all characters of `text`: none comes out as unknown or in bytes."""
        found = self.encode(text)
        ids, known = (c_uint32 * len(found))(*found), c_int()
        self._library.mn_knows(self._model.handle, ids, len(found), byref(known))
        return bool(known.value) and is_clean(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`. Special ids and ids outside the vocabulary are skipped.

        Byte pieces become characters; bytes that make no character are left out.
        """
        found = [index(i) for i in ids]
        kept = [i for i in found if 0 <= i < NO_TOKEN]  # ctypes would make others of them
        array, count, error, room = (c_uint32 * len(kept))(*kept), c_size_t(), Error(), 16 * len(kept) + 16
        while True:
            text = ctypes.create_string_buffer(room)
            if self._library.mn_decode(self._model.handle, array, len(kept), text, room, byref(count), byref(error)):
                raise fail(error)
            if count.value <= room:
                return text.raw[: count.value].decode()
            room = count.value

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The pieces of `ids` as a person may read them: one for each id, special ones too, ``▁`` for a space."""
        known = self._pieces
        try:
            return [known[i] for i in ids]
        except KeyError:  # one call for each, a microsecond and a half
            if len(known) > _MOST_PIECES:
                known = self._pieces = {}
            found = [known.get(i) or self._piece(i) or "\ufffd" for i in ids]
            known.update(zip(ids, found, strict=True))
            return found

    def _piece(self, i: int) -> str:
        if not 0 <= i < NO_TOKEN:
            return ""
        piece, size = ctypes.c_void_p(), c_size_t()
        self._library.mn_piece(self._model.handle, i, byref(piece), byref(size))
        return ctypes.string_at(piece.value, size.value).decode() if piece.value and size.value else ""
