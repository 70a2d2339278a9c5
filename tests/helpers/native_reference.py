"""What the C core has to compute, in numpy and to the bit: the same float32 operations in the same order, one token
and one head after the other, from the files of a pack by the words of docs/core/native-format.md."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
LANES = 16
F = np.float32


def chain(terms: Floats) -> Floats:
    """Sum over the first axis, one after the other."""
    return np.add.accumulate(terms, axis=0, dtype=F)[-1]


def total(values: Floats) -> np.float32:
    """Sum of a row in sixteen lanes, then halves."""
    lanes = chain(np.concatenate([values, np.zeros(-len(values) % LANES, F)]).reshape(-1, LANES))
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    return F(lanes[0])


def polynomial(x: Floats, *coefficients: float) -> Floats:
    """Horner's rule; the first coefficient is of the highest power."""
    y = np.full_like(x, F(coefficients[0]))
    for coefficient in coefficients[1:]:
        y = y * x + F(coefficient)
    return y


def exp(x: Floats) -> Floats:
    """Cephes' expf."""
    tiny = x < F(-87.3)
    x = np.clip(x, F(-87.3), F(88.0))
    n = np.rint(x * F(1.44269504))
    r = (x - n * F(0.693359375)) - n * F(-2.12194440e-4)
    y = polynomial(
        r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1
    )
    y = ((y * r) * r + r) + F(1)
    return np.where(tiny, F(0), np.ldexp(y, n.astype(np.int32))).astype(F)


def power_below_one(x: Floats) -> Floats:
    """e^x for x <= 0 from a polynomial for 2^x."""
    x = np.maximum(x * F(1.44269504), F(-125))
    n = np.rint(x)
    y = polynomial(x - n, 1.326472615e-3, 9.671512991e-3, 5.550733581e-2, 2.402224243e-1, 6.931470037e-1, 1.0)
    return np.ldexp(y, n.astype(np.int32)).astype(F)


def log(x: Floats) -> Floats:
    """Cephes' logf."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < F(0.707106781)
    e = (exponent - small).astype(F)
    x = np.where(small, mantissa + mantissa - F(1), mantissa - F(1)).astype(F)
    z = x * x
    y = polynomial(
        x, 7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
        2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    )  # fmt: skip
    y = y * x * z
    y = y + e * F(-2.12194440e-4)
    y = y - F(0.5) * z
    return (x + y) + e * F(0.693359375)


def sigmoid(x: Floats) -> Floats:
    return F(1) / (F(1) + exp(F(0) - x))


def tanh(x: Floats) -> Floats:
    e = exp(np.clip(x, F(-20), F(20)) * F(2))
    return (e - F(1)) / (e + F(1))


def erf(x: Floats) -> Floats:
    """Abramowitz and Stegun 7.1.26."""
    a = np.abs(x)
    t = F(1) / (F(1) + a * F(0.3275911))
    y = polynomial(t, 1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    return np.copysign(F(1) - (y * t) * exp(F(0) - a * a), x)


def gelu(x: Floats) -> Floats:
    return (x * F(0.5)) * (F(1) + erf(x * F(0.70710678)))


def gelu_tanh(x: Floats) -> Floats:
    return (x * F(0.5)) * (F(1) + tanh((x + ((x * x) * x) * F(0.044715)) * F(0.79788456)))


def mish(x: Floats) -> Floats:
    soft = log(F(1) + exp(np.minimum(x, F(20))))
    return x * tanh(np.where(x > 20, x, soft).astype(F))


ACTIVATIONS: list[Any] = [
    lambda x: np.maximum(x, F(0)),
    gelu,
    gelu_tanh,
    lambda x: np.clip(gelu(x), F(-10), F(10)),
    lambda x: x * sigmoid(x),
    lambda x: x * sigmoid(x * F(1.702)),
    tanh,
    sigmoid,
    lambda x: x,
    lambda x: np.where(x > 0, x, x * F(0.01)).astype(F),
    mish,
    lambda x: np.maximum(x, F(0)) * np.maximum(x, F(0)),
    lambda x: np.minimum(np.maximum(x, F(0)), F(6)),
    lambda x: (erf((x - F(0.707107)) / F(0.39894258)) + F(1)) * F(0.5),
]
POSITIVE = {0, 7, 11, 12}
MOST = F(1e15)
"""Elements of a row are below."""


def to_bytes(x: Floats, levels: int = 127) -> tuple[npt.NDArray[np.int64], np.float32]:
    """Integers of a row and their scale: NaN for a row of numbers that overflow."""
    greatest = np.abs(x).max()
    if not greatest < MOST:
        return np.zeros(len(x), np.int64), F(np.nan)
    if not F(1e-20) < greatest:
        return np.zeros(len(x), np.int64), F(0)
    return np.rint(x * (F(levels) / greatest)).astype(np.int64), greatest / F(levels)


@dataclass
class Matrix:
    """int8 weights [outputs, inputs], fp32 scales and bias [outputs]."""

    weights: npt.NDArray[Any]
    scale: Floats
    bias: Floats | None

    def __call__(self, x: Floats, *, positive: bool = False) -> Floats:
        values, scale = to_bytes(x, 255 if positive else 127)
        if np.isnan(scale):
            return np.full(len(self.scale), scale)
        if not scale:
            return self.bias if self.bias is not None else np.zeros(len(self.scale), F)
        y = (self.weights.astype(np.int64) @ values).astype(F) * (self.scale * scale)
        return y if self.bias is None else y + self.bias

    def row(self, index: int, factor: np.float32) -> Floats:
        """A token's embedding."""
        return self.weights[index].astype(F) * (self.scale[index] * factor)


@dataclass
class Plain(Matrix):
    """fp32 weights, whose inputs are summed in their order; no scale."""

    def __call__(self, x: Floats, *, positive: bool = False) -> Floats:
        y = np.zeros(len(self.weights), F)
        with np.errstate(over="ignore", invalid="ignore"):
            for column, value in zip(self.weights.T, x, strict=True):
                y = y + column * value
        return y if self.bias is None else y + self.bias

    def row(self, index: int, factor: np.float32) -> Floats:
        """A token's embedding."""
        return self.weights[index].astype(F) * factor


def look(q: Floats, keys: Floats, values: Floats, factor: np.float32) -> tuple[Floats, Floats]:
    """What one head takes from rows of keys and values, which are bytes, and its probabilities."""
    query, query_scale = to_bytes(q)
    key_bytes, key_scales = zip(*map(to_bytes, keys), strict=True)
    value_bytes, value_scales = zip(*map(to_bytes, values), strict=True)
    scores = (np.stack(key_bytes) @ query).astype(F) * (np.array(key_scales, F) * (query_scale * factor))
    powers = power_below_one(scores - scores.max())
    one = F(1) / total(powers)
    widest, levels = np.array(value_scales, F).max(), F(128 * 128 - 1)
    if np.isnan(query_scale) or np.isnan(key_scales).any() or np.isnan(widest):
        return np.full(values.shape[1], F(np.nan)), powers
    usable = F(1e-20) < widest
    weights = powers * (np.array(value_scales, F) * (levels / widest if usable else F(0)))
    upper, lower = (
        (part @ np.stack(value_bytes)).astype(F) for part in np.divmod(np.rint(weights).astype(np.int64), 128)
    )
    return (upper * F(128) + lower) * (widest / levels * one if usable else F(0)), powers * one


@dataclass
class Step:
    """What a step leaves behind: keys and values of each layer for it and all before, logits of all tokens."""

    keys: list[Floats]
    values: list[Floats]
    logits: Floats
    looked: int
    weights: list[Floats]
    """Of each layer, [heads, source]: where its heads look."""


class Reference:
    """A model from the contents of native.bin and weights.bin."""

    def __init__(self, native: bytes, weights: bytes) -> None:
        self._native, self._weights = native, weights
        flags = struct.unpack_from("<I", native, 12)[0]
        self.pre_norm, self.renormalize = bool(flags & 1), bool(flags & 2)
        (self.width, *layers) = struct.unpack_from("<7I", native, 16)
        self.layers, self.heads = layers[:2], layers[2:4]
        self.activation, _, self.vocabulary, _ = struct.unpack_from("<4I", native, 44)
        self.start, self.eos = struct.unpack_from("<2I", native, 60)
        self.factor = F(struct.unpack_from("<f", native, 84)[0])
        place, count = struct.unpack_from("<2I", native, 88)
        self.bad = list(struct.unpack_from(f"<{count}I", native, place))
        (self._records,) = struct.unpack_from("<I", native, 96)
        self._tables = [self._matrix(index) for index in range(3)]
        self._next = 12
        self._encoder = [self._take(2, 1, 2, 1) for _ in range(self.layers[0])]
        self._decoder = [self._take(2, 1, 3, 1, 2, 1) for _ in range(self.layers[1])]
        self._steps: dict[tuple[int, ...], Step] = {}

    def _take(self, *runs: int) -> list[Any]:
        """Records of a layer: runs of matrices, each ended by a norm."""
        found: list[Any] = []
        for place, run in enumerate(runs):
            for _ in range(run):
                found.append(self._matrix(self._next) if place % 2 == 0 else self._norm(self._next))
                self._next += 1
        return found

    def _record(self, index: int) -> Any:
        return struct.unpack_from("<4I3Q2I", self._native, self._records + 48 * index)

    def _floats(self, offset: int, count: int, step: int = 1) -> Floats:
        return np.frombuffer(self._weights, "<f4", (count - 1) * step + 1, offset)[::step] if count else np.zeros(0, F)

    def _matrix(self, index: int) -> Matrix:
        kind, rows, columns, stride, values, scale, bias, step, _ = self._record(index)
        added = None if bias == 2**64 - 1 else self._floats(bias, rows)
        if kind == 10:
            floats = np.frombuffer(self._weights, "<f4", (rows - 1) * stride + columns, values)
            floats = np.lib.stride_tricks.as_strided(floats, (rows, columns), (4 * stride, 4))
            return Plain(np.ascontiguousarray(floats), np.ones(rows, F), added)
        if kind == 9:
            (place,) = struct.unpack_from("<Q", self._native, self._records + 48 * index + 40)
            return Matrix(self._nibbles(rows, columns, stride, values, place), self._floats(scale, rows), added)
        shape = (columns, rows) if kind == 1 else (rows, columns)
        stored = np.frombuffer(self._weights, np.uint8, (shape[0] - 1) * stride + shape[1], values)
        stored = np.lib.stride_tricks.as_strided(stored, shape, (stride, 1))
        signed = np.ascontiguousarray(stored ^ np.uint8(0x80 if kind == 2 else 0)).view(np.int8)
        return Matrix(
            signed.T if kind == 1 else signed,
            self._floats(scale, rows, step),
            added,
        )

    def _nibbles(self, rows: int, columns: int, stride: int, values: int, place: int) -> npt.NDArray[np.int8]:
        """Two values a byte, the first in the lower bits, times the multiplier of each block."""
        block, multipliers = place & 255, place >> 8
        blocks = -(-columns // block)
        found = np.zeros((rows, columns), np.int8)
        for row in range(rows):
            for column in range(columns):
                two = self._weights[values + row * stride // 2 + column // 2]
                nibble = two >> 4 if column % 2 else two & 15
                found[row, column] = (nibble - 8) * self._weights[multipliers + row * blocks + column // block]
        return found

    def _norm(self, index: int) -> tuple[Floats, Floats]:
        _, rows, _, _, values, _, bias, _, _ = self._record(index)
        return self._floats(values, rows), self._floats(bias, rows)

    def _position(self, side: int, position: int) -> Floats:
        kind, _, columns, _, values, *_ = self._record(3 + side)
        if kind:
            return self._floats(values + 4 * columns * position, columns)
        half = (self.width + 1) // 2
        blocks, sines, cosines = (self._record(index)[4] for index in (5, 6, 7))
        both = self._floats(blocks + position // 16 * 8 * half, 2 * half)
        sin_a, cos_a = both[:half], both[half:]
        sin_b = self._floats(sines + position % 16 * 4 * half, half)
        cos_b = self._floats(cosines + position % 16 * 4 * half, half)
        return np.concatenate([sin_a * cos_b + cos_a * sin_b, cos_a * cos_b - sin_a * sin_b])[: self.width]

    def normalize(self, x: Floats, norm: tuple[Floats, Floats]) -> Floats:
        n = F(self.width)
        centred = x - total(x) / n
        factor = F(1) / np.sqrt(total(centred * centred) / n + F(1e-5))
        return (centred * factor) * norm[0] + norm[1]

    def _before(self, x: Floats, norm: tuple[Floats, Floats]) -> Floats:
        return self.normalize(x, norm) if self.pre_norm else x

    def _after(self, x: Floats, branch: Floats, norm: tuple[Floats, Floats]) -> Floats:
        return x + branch if self.pre_norm else self.normalize(x + branch, norm)

    def _feed_forward(self, x: Floats, fc1: Matrix, fc2: Matrix, norm: tuple[Floats, Floats]) -> Floats:
        hidden = ACTIVATIONS[self.activation](fc1(self._before(x, norm)))
        return self._after(x, fc2(hidden, positive=self.activation in POSITIVE), norm)

    def _attend(self, q: Floats, keys: Floats, values: Floats, side: int) -> tuple[Floats, list[Floats]]:
        """Attention of one query, and the probabilities of its heads."""
        heads = self.heads[side]
        size = self.width // heads
        parts = [slice(head * size, (head + 1) * size) for head in range(heads)]
        looks = [look(q[part], keys[:, part], values[:, part], F(1) / np.sqrt(F(size))) for part in parts]
        return np.concatenate([out for out, _ in looks]), [weights for _, weights in looks]

    def encode(self, ids: list[int]) -> None:
        """Take a source sentence."""
        width, xs = self.width, []
        for position, token in enumerate(ids):
            xs.append(self._tables[0].row(token, self.factor) + self._position(0, position))
        for qkv, out, norm, fc1, fc2, last in self._encoder:
            projected = np.stack([qkv(self._before(x, norm)) for x in xs])
            q, k, v = np.split(projected, 3, axis=1)
            for t, x in enumerate(xs):
                attended, _ = self._attend(q[t], k, v, 0)
                xs[t] = self._feed_forward(self._after(x, out(attended), norm), fc1, fc2, last)
        if self.pre_norm:
            xs = [self.normalize(x, self._norm(10)) for x in xs]
        both = [np.stack([layer[4](x) for x in xs]) for layer in self._decoder]
        self._cross = [(kv[:, :width], kv[:, width:]) for kv in both]
        self._steps = {}
        self.candidates = self._candidates(ids)

    def _candidates(self, ids: list[int]) -> npt.NDArray[np.int64]:
        common, lexical = self._record(8), self._record(9)
        if not common[0]:
            return np.arange(self.vocabulary)
        flags = np.frombuffer(self._weights, np.uint8, common[1], common[4])
        kind = "<u2" if lexical[0] == 7 else "<i4"
        table = np.frombuffer(self._weights, kind, lexical[1] * lexical[2], lexical[4]).reshape(-1, lexical[2])
        return np.unique(np.concatenate([np.flatnonzero(flags), table[ids].ravel().astype(np.int64), [self.eos]]))

    def step(self, tokens: tuple[int, ...]) -> Step:
        """The step behind ``tokens``, of which the first is the start token."""
        if tokens not in self._steps:
            self._steps[tokens] = self._step(tokens)
        return self._steps[tokens]

    def _step(self, tokens: tuple[int, ...]) -> Step:
        before = self.step(tokens[:-1]) if len(tokens) > 1 else None
        x = self._tables[1].row(tokens[-1], self.factor) + self._position(1, len(tokens) - 1)
        keys, values, looked, weights = [], [], [], []
        for index, layer in enumerate(self._decoder):
            qkv, out, norm, cross_q, _, cross_out, cross_norm, fc1, fc2, last = layer
            q, k, v = np.split(qkv(self._before(x, norm)), 3)
            keys.append(np.concatenate([before.keys[index], k[None]]) if before else k[None])
            values.append(np.concatenate([before.values[index], v[None]]) if before else v[None])
            attended, _ = self._attend(q, keys[-1], values[-1], 1)
            x = self._after(x, out(attended), norm)
            attended, looked = self._attend(cross_q(self._before(x, cross_norm)), *self._cross[index], 1)
            weights.append(np.stack(looked))
            x = self._after(x, cross_out(attended), cross_norm)
            x = self._feed_forward(x, fc1, fc2, last)
        if self.pre_norm:
            x = self.normalize(x, self._norm(11))
        return Step(keys, values, self._tables[2](x), int(chain(np.stack(looked)).argmax()), weights)

    def log_probabilities(self, tokens: tuple[int, ...], banned: tuple[int, ...] = ()) -> Floats:
        """For all tokens, -inf for those that are no candidates; ``banned`` before the softmax."""
        logits = np.full(self.vocabulary, -np.inf, F)
        logits[self.candidates] = self.step(tokens).logits[self.candidates]
        logits[list(banned)] = -np.inf
        row = logits[self.candidates]
        greatest = row.max()
        result = np.full(self.vocabulary, -np.inf, F)
        result[self.candidates] = (row - greatest) - log(np.array([total(power_below_one(row - greatest))]))[0]
        return result

    def greedy(self, ids: list[int], limit: int, *, forced: int | None = 0) -> tuple[list[int], list[float], list[int]]:
        """Tokens generated, their scores, and where each looked; ``forced`` comes last at ``limit``."""
        self.encode(ids)
        tokens, scores, looked = (self.start,), [], []
        while len(tokens) < limit and (len(tokens) == 1 or tokens[-1] != self.eos):
            if forced is not None and len(tokens) == limit - 1:
                tokens, scores, looked = (*tokens, forced), [*scores, 0.0], [*looked, 0]
                continue
            row = self.log_probabilities(tokens, tuple(self.bad))
            looked.append(self.step(tokens).looked)
            tokens = (*tokens, int(row.argmax()))
            scores.append(float(row[tokens[-1]]))
        return list(tokens[1:]), scores, looked
