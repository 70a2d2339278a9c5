"""Writes native.bin and weights.bin by the words of docs/core/native-format.md alone: tiny models never exported."""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

NONE = 0xFFFFFFFF
NO_BIAS = 2**64 - 1
COLUMNS, UINT8_ROWS, INT8_ROWS, NORM, FLOATS, FLAGS, UINT16, INT32, INT4_ROWS, FLOAT_ROWS = range(1, 11)


@dataclass
class Made:
    """A model with random weights; ``records`` has the places of its tensors."""

    width: int = 8
    layers: tuple[int, int] = (1, 1)
    heads: tuple[int, int] = (2, 2)
    hidden: tuple[int, int] = (8, 12)
    activation: int = 0
    source: int = 14
    target: int = 14
    positions: int = 20
    bad: tuple[int, ...] = ()
    forced_eos: int = NONE
    early: int = 0
    forced_bos: int = NONE
    not_first: tuple[int, ...] = ()
    ngram: int = 0
    least: int = 0
    looks: tuple[int, int, int] = (0, 0, 0)
    """Layer and head of the alignment, from 1, and whether a token looks a step later."""
    pre_norm: bool = False
    renormalize: bool = False
    output_bias: bool = False
    rows_kind: int = UINT8_ROWS
    forms: tuple[int, ...] = ()
    """Kinds of the layers' matrices in turn, in place of the usual ones."""
    trained_positions: bool = False
    lexical: int = 0
    """UINT16 or INT32 for a shortlist of that kind."""
    tokenizer: bytes = b""
    start: int = 1
    factor: float = 1.0
    seed: int = 0
    spread: float = 0.12
    """Scale of the embeddings: the greater, the clearer the choices."""
    weights: bytearray = field(default_factory=bytearray)
    records: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def _put(self, values: npt.NDArray[np.generic]) -> int:
        self.weights += bytes(-len(self.weights) % 4)
        self.weights += values.tobytes()
        return len(self.weights) - values.nbytes

    def _record(self, *values: int) -> None:
        self.records.append(struct.pack("<4I3Q2I", *values, 0))

    def _absent(self) -> None:
        self._record(0, 0, 0, 0, 0, 0, NO_BIAS, 0)

    def _floats(self, *shape: int, scale: float = 1.0, around: float = 0.0) -> npt.NDArray[np.float32]:
        return (around + scale * self._random.standard_normal(shape)).astype("<f4")

    def matrix(self, kind: int, rows: int, columns: int, *, bias: bool = True, scale: float = 0.01) -> None:
        """A matrix with a stride and a step between scales that are more than they need to be."""
        if kind == INT4_ROWS:
            self._nibbles(rows, columns, bias, scale)
            return
        if kind == FLOAT_ROWS:
            stored = np.zeros((rows, columns + 3), "<f4")
            stored[:, :columns] = self._floats(rows, columns, scale=40 * scale)
            self._record(kind, rows, columns, columns + 3, self._put(stored), 0, self._bias(rows, bias), 0)
            return
        most = 128 if kind == COLUMNS else 65
        values = self._random.integers(-most, most, (rows, columns))
        if kind == COLUMNS:
            values = values.T
        stored = np.zeros((values.shape[0], values.shape[1] + 3), np.int8)
        stored[:, : values.shape[1]] = values
        if kind == UINT8_ROWS:
            stored = (stored.view(np.uint8) ^ 0x80).view(np.int8)
        scales = np.repeat((scale * (0.5 + self._random.random(rows))).astype("<f4"), 2)
        self._record(
            kind, rows, columns, stored.shape[1], self._put(stored), self._put(scales),
            self._bias(rows, bias), 2,
        )  # fmt: skip

    def _bias(self, rows: int, there: bool) -> int:
        return self._put(self._floats(rows, scale=0.2)) if there else NO_BIAS

    def _nibbles(self, rows: int, columns: int, bias: bool, scale: float) -> None:
        """4 bits in blocks of 16, 32 and so on in turn."""
        block = 16 << len(self.records) % 4
        stride, blocks = columns + columns % 2 + 2, -(-columns // block)
        values = self._random.integers(1, 16, (rows, stride)).astype(np.uint8)
        packed = values[:, ::2] | values[:, 1::2] << 4
        multipliers = self._random.integers(1, 10, (rows, blocks)).astype(np.uint8)
        scales = (scale * (0.5 + self._random.random(rows))).astype("<f4")
        places = self._put(packed), self._put(scales), self._bias(rows, bias), self._put(multipliers) << 8 | block
        self.records.append(struct.pack("<4I4Q", INT4_ROWS, rows, columns, stride, *places))

    def table(self, kind: int, values: npt.NDArray[np.generic]) -> None:
        rows, columns = values.shape
        self._record(kind, rows, columns, columns, self._put(values), 0, NO_BIAS, 1)

    def norm(self) -> None:
        weight = self._put(self._floats(self.width, scale=0.2, around=1.0))
        self._record(NORM, self.width, 1, 1, weight, 0, self._put(self._floats(self.width, scale=0.2)), 1)

    def files(self) -> tuple[bytes, bytes]:
        """The contents of native.bin and weights.bin."""
        width, random = self.width, self._random
        for rows in (self.source, self.target):
            self.matrix(self.rows_kind, rows, width, bias=False, scale=self.spread / 8)
        self.matrix(self.rows_kind, self.target, width, bias=self.output_bias, scale=self.spread)
        if self.trained_positions:
            for _ in range(2):
                self.table(FLOATS, self._floats(self.positions, width))
            for _ in range(3):
                self._absent()
        else:
            for _ in range(2):
                self._absent()
            half = (width + 1) // 2
            speed = 10000.0 ** (-2.0 * np.arange(half) / width)
            blocks = 16 * np.arange((self.positions + 15) // 16)[:, None] * speed
            rest = np.arange(16)[:, None] * speed
            self.table(FLOATS, np.concatenate([np.sin(blocks), np.cos(blocks)], axis=1).astype("<f4"))
            self.table(FLOATS, np.sin(rest).astype("<f4"))
            self.table(FLOATS, np.cos(rest).astype("<f4"))
        if self.lexical:
            self.table(FLAGS, (random.random((self.target, 1)) < 0.3).astype(np.uint8))
            kind = "<u2" if self.lexical == UINT16 else "<i4"
            self.table(self.lexical, random.integers(0, self.target, (self.source, 3)).astype(kind))
        else:
            self._absent()
            self._absent()
        for _ in range(2):
            self.norm() if self.pre_norm else self._absent()
        turn = itertools.cycle(self.forms)

        def kind(usual: int) -> int:
            return next(turn, usual)

        for _ in range(self.layers[0]):
            self.matrix(kind(COLUMNS), 3 * width, width)
            self.matrix(kind(COLUMNS), width, width)
            self.norm()
            self.matrix(kind(COLUMNS), self.hidden[0], width)
            self.matrix(kind(COLUMNS), width, self.hidden[0])
            self.norm()
        for _ in range(self.layers[1]):
            self.matrix(kind(UINT8_ROWS), 3 * width, width)
            self.matrix(kind(INT8_ROWS), width, width)
            self.norm()
            self.matrix(kind(UINT8_ROWS), width, width)
            self.matrix(kind(COLUMNS), 2 * width, width)
            self.matrix(kind(UINT8_ROWS), width, width)
            self.norm()
            self.matrix(kind(UINT8_ROWS), self.hidden[1], width)
            self.matrix(kind(UINT8_ROWS), width, self.hidden[1])
            self.norm()
        return self._native(), bytes(self.weights)

    def _native(self) -> bytes:
        content = bytearray(192)
        places = []
        lists = [struct.pack(f"<{len(ids)}I", *ids) for ids in (self.bad, self.not_first)]
        for part in (lists[0], b"".join(self.records), self.tokenizer, lists[1]):
            content += bytes(-len(content) % 64)
            places.append(len(content))
            content += part
        rules = self.forced_bos != NONE or bool(self.not_first or self.ngram or self.least)
        version = 2 if {*self.forms, self.rows_kind} & {INT4_ROWS, FLOAT_ROWS} else 1
        content[:128] = struct.pack(
            "<8s2I7I I3I5I I f 2I2I2I2I Q",
            b"MNMTCORE", version, self.pre_norm | self.renormalize << 1 | rules << 2,
            self.width, *self.layers, *self.heads, *self.hidden, self.activation,
            self.source, self.target, self.positions, self.start, 0, self.start, NONE, self.forced_eos, self.early,
            self.factor, places[0], len(self.bad), places[1], len(self.records),
            places[2] if self.tokenizer else 0, len(self.tokenizer), 0, 0, len(self.weights),
        )  # fmt: skip
        content[128:140] = struct.pack("<3I", *self.looks)
        if rules:
            last = (self.forced_bos, places[3], len(self.not_first), self.ngram, self.least)
            content[140:160] = struct.pack("<5I", *last)
        return bytes(content)
