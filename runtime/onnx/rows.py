"""What every search in the host needs: a sentence in decoder.onnx, what may come next, and rows of scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilenmt.runtime.hypothesis import SearchOptions
from mobilenmt.runtime.manifest import GenerationDefaults, PackManifest
from mobilenmt.runtime.onnx.sessions import run_session

if TYPE_CHECKING:
    import onnxruntime

Array = npt.NDArray[Any]
DEAD = -1.0e9
"""The score transformers gives to a hypothesis that may not be chosen."""


@dataclass(frozen=True)
class Rules:
    """What may come next; the meanings are those of ``generate``'s logits processors (transformers 4.57)."""

    prefix: tuple[int, ...]
    banned: tuple[int, ...]
    not_first: tuple[int, ...]
    ngram: int
    min_length: int
    eos: int

    @classmethod
    def of(cls, manifest: PackManifest, options: SearchOptions, prefix: Sequence[int] = ()) -> Rules:
        """Those of a pack and of a call."""
        own = manifest.generation
        first = () if own.forced_bos_token_id is None else (own.forced_bos_token_id,)
        return cls(
            tuple(prefix) or first,
            (*own.bad_token_ids, *options.forbidden),
            own.begin_suppress_tokens,
            own.no_repeat_ngram_size if options.no_repeat_ngram is None else options.no_repeat_ngram,
            max(options.min_length, own.min_length),
            manifest.tokens.eos,
        )

    def apply(self, scores: Array, path: tuple[int, ...], leading: Sequence[int] = ()) -> None:
        """Set the scores [V] of what may not follow ``path``, the start token first, to -inf.

        ``leading`` may follow though it makes an n-gram twice.
        """
        scores[list(self.banned)] = -np.inf
        if len(path) == len(self.prefix) + 1:
            scores[list(self.not_first)] = -np.inf
        if len(path) < self.min_length:
            scores[self.eos] = -np.inf
        n = self.ngram
        if n and len(path) >= n:
            last = path[len(path) - n + 1 :]
            again = {path[i + n - 1] for i in range(len(path) - n + 1) if path[i : i + n - 1] == last}
            scores[list(again.difference(leading))] = -np.inf


@dataclass
class Sentence:
    """A sentence at work: what its steps left behind."""

    decoder: onnxruntime.InferenceSession
    fixed: dict[str, Array]
    candidates: Array | None
    past: dict[str, Array]
    names: list[str]
    vocabulary: int
    position: int = 0
    queries: Sequence[Array] = ()

    def step(self, tokens: Sequence[int]) -> Array:
        """Logits [K, V] behind ``tokens`` [K]; -inf for those that are no candidates."""
        outputs = ["logits", *(name.replace("past", "present") for name in self.past), *self.names]
        feed = {
            "input_ids": np.array(tokens, np.int64)[:, None],
            "position": np.array([self.position], np.int64),
            **self.fixed,
            **self.past,
        }
        logits, *present = run_session(self.decoder, outputs, feed)
        self.queries = present[len(self.past) :]
        self.past = dict(zip(self.past, present, strict=False))
        self.position += 1
        if self.candidates is None:
            found: Array = logits[:, 0]
            return found
        full = np.full((len(tokens), self.vocabulary), -np.inf, np.float32)
        full[:, self.candidates] = logits[:, 0]
        return full

    def follow(self, parents: Sequence[int]) -> None:
        """Each row continues another one."""
        self.past = {name: value[list(parents)] for name, value in self.past.items()}


def log_softmax(scores: Array) -> Array:
    """Over the last axis."""
    with np.errstate(invalid="ignore"):
        shifted = scores - scores.max(axis=-1, keepdims=True)
        found: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found


def top(values: Array, count: int) -> Array:
    """Places of the greatest, best first; of equal ones the first."""
    count = min(count, len(values))
    bound = np.partition(values, -count)[-count]
    places = np.flatnonzero(values >= bound)
    found: Array = places[np.argsort(-values[places], kind="stable")][:count]
    return found


def may_improve(own: GenerationDefaults, best: float, worst: float, made: int, limit: int, penalty: float) -> bool:
    """Whether a running hypothesis can still beat one that ended, as the C core's beams decide it.

    Args:
        own: how the pack generates.
        best: sum of the best running one.
        worst: score of the worst that ended and counts, ``DEAD`` while there are too few.
        made: tokens so far.
        limit: tokens at most.
        penalty: exponent of the length.
    """
    longest = limit if own.early_stopping == "never" and penalty > 0 else made
    if not best / longest**penalty > worst:
        return False
    return own.early_stopping is not True or bool(worst < DEAD / 2)
