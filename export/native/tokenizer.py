"""A pack's tokenizer.json as the table that the C core reads in place (``docs/core/native-format.md``)."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mobilenmt.export.native.graphemes import grapheme_classes
from mobilenmt.runtime.manifest import TokenIds
from mobilenmt.runtime.tokenizer import CONTROL_MARK, OUTPUT_MARK

NONE = 0xFFFFFFFF
_HEADER = 192
_PIECE_LIMIT = 1024  # bytes; MN_PIECE_LIMIT of text.h
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2}|\+[0-9A-Fa-f])>")  # what tokenizers reads as a byte
_MODELS = {"BPE": 1, "Unigram": 2}
_FLAGS = {
    "byte_fallback": 1,
    "fuse_unk": 2,
    "ignore_merges": 4,
    "split_mark": 8,
    "split_space": 16,
    "decode_bytes": 32,
    "drop_first_marks": 64,
    "keep_byte_marks": 128,
}
_PREPEND = {"never": 0, "first": 1, "always": 2}
_UNKNOWN_PENALTY = 10.0  # kUnkPenalty of SentencePiece and tokenizers
_MAP, _REPLACE, _SPACES, _TRIM, _PREPEND_TEXT, _STRIP = 1, 2, 3, 4, 5, 6


class NotExpressible(Exception):
    """The table has no form for a part of a tokenizer; the message says which."""


class _Table:
    """Collects words of the header and the parts that they point to."""

    def __init__(self) -> None:
        self.words = [0] * (_HEADER // 4)
        self.data = bytearray(_HEADER)

    def part(self, word: int, content: bytes | np.ndarray[Any, Any]) -> None:
        self.words[word] = self.place(content if isinstance(content, bytes) else content.tobytes())

    def place(self, content: bytes) -> int:
        self.data += bytes(-len(self.data) % 8)
        offset = len(self.data)
        self.data += content
        return offset

    def finish(self, unk_score: float) -> bytes:
        self.data += bytes(-len(self.data) % 8)
        self.words[0], self.words[1], self.words[2] = int.from_bytes(b"MNTK", "little"), 1, len(self.data)
        self.data[:_HEADER] = struct.pack("<48I", *self.words)
        self.data[160:168] = struct.pack("<d", unk_score)
        return bytes(self.data)


def tokenizer_table(text: str, tokens: TokenIds, limit: int, *, encodes: bool = True) -> bytes:
    """The table of a tokenizer.json.

    Args:
        text: the file's content.
        tokens: the model's special ids; they are never decoded.
        limit: ids from here on are encoded as unk (``source_vocab_size``).
        encodes: False for tokenizer.target.json, which only decodes.

    Raises:
        NotExpressible: it does what the table has no form for.
    """
    import tokenizers

    # As tokenizers itself writes it: with every default, and scores as it reads them.
    data: dict[str, Any] = json.loads(tokenizers.Tokenizer.from_str(text).to_str())
    model = data["model"]
    pieces: dict[int, str] = (
        {i: piece for piece, i in model["vocab"].items()}
        if model["type"] == "BPE"
        else {i: piece for i, (piece, _) in enumerate(model["vocab"])}
    )
    own = {piece: i for i, piece in pieces.items()}
    if len(own) < len(pieces) or len(pieces) < len(model["vocab"]):
        raise NotExpressible("a piece or an id twice")
    added = data["added_tokens"]
    pieces |= {token["id"]: token["content"] for token in added}
    if any(len(piece.encode()) > _PIECE_LIMIT for piece in pieces.values()):
        raise NotExpressible(f"a piece of more than {_PIECE_LIMIT} bytes")
    table = _Table()
    flags = _decoder(table, data["decoder"], pieces.values())
    _pieces(table, pieces, tokens, "output_removed" in flags)
    table.words[12], table.words[13] = limit, NONE if tokens.unk is None else tokens.unk
    table.words[11] = NONE
    unk_score = 0.0
    flags |= _pre_tokenizer(table, data["pre_tokenizer"] if encodes else None)
    steps = _normalizer(table, data["normalizer"] if encodes else None)
    if encodes:
        _added(table, added, plain=not steps)
        flags |= {name for name in ("byte_fallback", "ignore_merges", "fuse_unk") if model.get(name)}
        known = {piece.encode(): i for piece, i in own.items() if not piece.startswith((CONTROL_MARK, OUTPUT_MARK))}
        table.words[3] = _MODELS[model["type"]]
        if "byte_fallback" in flags:
            table.part(18, np.array([own.get(f"<0x{byte:02X}>", NONE) for byte in range(256)], "<u4"))
        if model["type"] == "BPE":
            _bpe(table, model, own, known, len(pieces) and max(pieces) + 1)
        else:
            unk_score = _unigram(table, model, known, max(pieces) + 1)
    table.words[4] = sum(_FLAGS[name] for name in flags - {"output_removed"})
    return table.finish(unk_score)


def _pieces(table: _Table, pieces: Mapping[int, str], tokens: TokenIds, output_removed: bool) -> None:
    """Texts without marks, and for each id whether it is hidden, or which byte it stands for."""
    special = {tokens.start, tokens.eos, tokens.pad, tokens.unk}
    texts, kinds, offsets = bytearray(), [], [0]
    for i in range(max(pieces) + 1):
        piece = pieces.get(i, "")
        byte = _BYTE.fullmatch(piece.replace(OUTPUT_MARK, "") if output_removed else piece)
        hidden = not piece or piece.startswith(CONTROL_MARK) or i in special
        kinds.append(int(hidden) | (2 | int(byte[1], 16) << 8 if byte else 0))
        texts += piece.lstrip(CONTROL_MARK + OUTPUT_MARK).encode()
        offsets.append(len(texts))
    table.words[10], table.words[16] = len(kinds), len(texts)
    table.part(14, np.array(offsets, "<u4"))
    table.part(15, bytes(texts))
    table.part(17, np.array(kinds, "<u2"))


def _steps(part: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """A normalizer, pre-tokenizer or decoder as a flat list."""
    if part is None:
        return []
    return [step for item in part[key] for step in _steps(item, key)] if part["type"] == "Sequence" else [part]


def _decoder(table: _Table, decoder: dict[str, Any] | None, pieces: Any) -> set[str]:
    flags: set[str] = set()
    mark: str | None = None
    fused = False
    if decoder is None:
        raise NotExpressible("no decoder")
    steps = _steps(decoder, "decoders")
    for place, step in enumerate(steps):
        kind, pattern = step["type"], step.get("pattern", {})
        if kind == "Replace" and pattern.get("String") == OUTPUT_MARK and step["content"] == "" and place == 0:
            flags.add("output_removed")
        elif kind == "ByteFallback" and not fused and "decode_bytes" not in flags:
            flags |= {"decode_bytes"} | ({"keep_byte_marks"} if mark else set())
        elif kind == "Replace" and len(pattern.get("String", "")) == 1 and step["content"] == " " and not mark:
            mark = pattern["String"]
        elif kind == "Metaspace" and not mark and not fused:
            mark = step["replacement"]
            flags |= {"drop_first_marks"} if step["prepend_scheme"] != "never" else set()
        elif kind == "Fuse" and not fused:
            fused = True
        elif kind == "Strip" and fused and (step["content"], step["stop"]) == (" ", 0) and not table.words[8]:
            table.words[8], table.words[9] = 1, min(step["start"], NONE - 1)
        elif kind == "Replace" and fused and (pattern.get("Regex"), step["content"]) == ("^ +| +$", ""):
            if place != len(steps) - 1 or table.words[8]:
                raise NotExpressible(f"the decoder's steps in this order: {steps}")
            table.words[8] = 2
        else:
            raise NotExpressible(f"the decoder's step {step}")
    marked = [piece for piece in pieces if OUTPUT_MARK in piece]
    if any(piece.rfind(OUTPUT_MARK) > 0 for piece in marked) or (marked and "output_removed" not in flags):
        raise NotExpressible("U+FFFE inside a piece, or shown")
    table.words[7] = NONE if mark is None else ord(mark)
    return flags


def _pre_tokenizer(table: _Table, part: dict[str, Any] | None) -> set[str]:
    flags: set[str] = set()
    table.words[6] = NONE
    for step in _steps(part, "pretokenizers"):
        if step["type"] == "WhitespaceSplit" and table.words[6] == NONE:
            flags.add("split_space")
        elif step["type"] == "Metaspace" and table.words[6] == NONE:
            if step["prepend_scheme"] == "first" and flags:
                raise NotExpressible("Metaspace of the first word behind WhitespaceSplit")
            table.words[5], table.words[6] = _PREPEND[step["prepend_scheme"]], ord(step["replacement"])
            flags |= {"split_mark"} if step["split"] else set()
        else:
            raise NotExpressible(f"the pre-tokenizer's step {step}")
    return flags


def _normalizer(table: _Table, part: dict[str, Any] | None) -> list[bytes]:
    steps: list[bytes] = []
    units, texts, classes = b"", b"", np.zeros(0, "<u4")

    def add(kind: int, pattern: str = "", content: str = "", number: int = 0) -> None:
        a, b = pattern.encode(), content.encode()
        steps.append(struct.pack("<5I", kind, table.place(a), number or len(a), table.place(b), len(b)))

    for place, step in enumerate(_steps(part, "normalizers")):
        kind, pattern = step["type"], step.get("pattern", {})
        if kind == "Precompiled" and place == 0:
            content = base64.b64decode(step["precompiled_charsmap"])
            size = int.from_bytes(content[:4], "little")
            units, texts = content[4 : 4 + size // 4 * 4], content[4 + size // 4 * 4 :]
            if b"\n" in texts:
                raise NotExpressible("a character map that makes line ends")
            classes = grapheme_classes()
            add(_MAP)
        elif kind == "Replace" and pattern.get("String") and len(pattern["String"].encode()) <= _PIECE_LIMIT:
            add(_REPLACE, pattern["String"], step["content"])
        elif kind == "Replace" and pattern.get("Regex") == " {2,}":
            add(_SPACES, content=step["content"])
        elif kind == "Replace" and (pattern.get("Regex"), step["content"]) == ("^ |(?<![ ▁])[ ▁]+$", ""):
            add(_TRIM)
        elif kind == "Prepend":
            add(_PREPEND_TEXT, content=step["prepend"])
        elif kind == "Strip":
            add(_STRIP, number=int(step["strip_left"]) | 2 * int(step["strip_right"]))
        else:
            raise NotExpressible(f"the normalizer's step {str(step)[:200]}")
    if len(steps) > 16:
        raise NotExpressible(f"a normalizer of {len(steps)} steps")
    table.part(31, b"".join(steps))
    table.part(33, units)
    table.part(35, texts)
    table.part(37, classes)
    table.words[32], table.words[34], table.words[36], table.words[38] = (
        len(steps), len(units) // 4, len(texts), len(classes),
    )  # fmt: skip
    return steps


def _added(table: _Table, tokens: Sequence[Mapping[str, Any]], *, plain: bool) -> None:
    """Added tokens that stand in any text as they are; ``plain`` if no normalizer comes before or after them."""
    for token in tokens:
        if any(token[flag] for flag in ("single_word", "lstrip", "rstrip")) or not token["content"]:
            raise NotExpressible(f"the added token {token['content']!r} with single_word, lstrip or rstrip")
        if token["normalized"] and (not plain or not all(other["normalized"] for other in tokens)):
            raise NotExpressible(f"the added token {token['content']!r} with normalized")
    _trie(table, 23, {token["content"].encode(): token["id"] for token in tokens})


def _bpe(table: _Table, model: dict[str, Any], own: dict[str, int], known: dict[bytes, int], count: int) -> None:
    if model["continuing_subword_prefix"] or model["end_of_word_suffix"] or model["dropout"]:
        raise NotExpressible("BPE with continuing_subword_prefix, end_of_word_suffix or dropout")
    if model["unk_token"] is not None:
        if model["unk_token"] not in own:
            raise NotExpressible(f"the unk_token {model['unk_token']!r}, which the vocabulary lacks")
        table.words[11] = own[model["unk_token"]]
    if not model["ignore_merges"]:  # then only characters are looked up
        known = {piece: i for piece, i in known.items() if len(piece.decode()) == 1}
    _trie(table, 19, known)
    merges: dict[tuple[int, int], tuple[int, int]] = {}
    for rank, merge in enumerate(model["merges"]):
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        merges[own[left], own[right]] = rank, own[left + right]
    entries = sorted((left, right, rank, new) for (left, right), (rank, new) in merges.items())
    rows = np.array(entries, "<u4").reshape(-1, 4)
    table.part(27, np.searchsorted(rows[:, 0], np.arange(count + 1)).astype("<u4"))
    table.part(28, np.ascontiguousarray(rows[:, 1:]))
    table.words[29] = len(rows)


def _unigram(table: _Table, model: dict[str, Any], known: dict[bytes, int], count: int) -> float:
    """Returns the score of an unknown character."""
    if model["unk_id"] is None:
        raise NotExpressible("Unigram without unk_id")
    table.words[11] = model["unk_id"]
    _trie(table, 19, {piece: i for piece, i in known.items() if piece})
    scores = np.zeros(count, "<f8")
    scores[: len(model["vocab"])] = [score for _, score in model["vocab"]]
    table.part(30, scores)
    return float(min(score for _, score in model["vocab"]) - _UNKNOWN_PENALTY)


def _trie(table: _Table, word: int, values: Mapping[bytes, int]) -> None:
    """Byte strings as a tree in breadth-first order: label, value and first child of each node."""
    keys = sorted(values)
    labels, first, found = bytearray(1), [], []
    waiting = deque([(0, len(keys), 0)])
    while waiting and keys:
        low, high, depth = waiting.popleft()
        first.append(len(labels))
        here = len(keys[low]) == depth
        found.append(values[keys[low]] if here else NONE)
        low += here
        while low < high:
            label, end = keys[low][depth], low
            while end < high and keys[end][depth] == label:
                end += 1
            labels.append(label)
            waiting.append((low, end, depth + 1))
            low = end
    nodes = len(found)
    table.part(word, bytes(labels) if nodes else b"")
    table.part(word + 1, np.array([*first, len(labels)], "<u4"))
    table.part(word + 2, np.array(found, "<u4"))
    table.words[word + 3] = nodes
