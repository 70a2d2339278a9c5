"""Sampling and stopping by row, for transformers' generate().

Its own sampling draws for a whole batch from one generator, so a sentence would get another sample in another batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_NUCLEUS = 1024
"""Tokens looked at first for top-p."""


class RowSampler:
    """A logits processor that leaves one token a row: sampled, with a random number of the row's own at each step.

    With it greedy search samples. Temperature, then top-p (Holtzman et al. 2020, section 3.1), then the inverse of the
    cumulative distribution at a number in [0, 1) that depends on the row's key and the step alone.

    Args:
        keys: one for each row of the batch.
        temperature: logits are divided by it.
        top_p: the likeliest tokens that together reach this probability.
    """

    def __init__(self, keys: Sequence[bytes], temperature: float, top_p: float) -> None:
        self._keys = keys
        self._temperature = temperature
        self._top_p = top_p
        self._step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [B, V] with all but the sampled token at minus infinity."""
        import torch

        draws = torch.tensor([uniform(key, self._step) for key in self._keys], dtype=torch.float64)
        self._step += 1
        probabilities = torch.softmax(scores.float() / self._temperature, dim=-1)
        precise = torch.float32 if scores.device.type == "mps" else torch.float64
        draws = draws.to(scores.device, precise)[:, None]
        if self._top_p == 1:
            chosen = _draw(probabilities.to(precise), draws)
        else:
            chosen = torch.empty_like(draws, dtype=torch.long)
            width = min(_NUCLEUS, scores.shape[-1])
            ranked, tokens = probabilities.topk(width, dim=-1)
            enough = ranked.sum(dim=-1) >= self._top_p
            chosen[enough] = self._nucleus(ranked[enough].to(precise), tokens[enough], draws[enough])
            if not enough.all():  # a flat distribution: sorting all of it is slow, so only for the rows that need it
                rest = ~enough
                ranked, tokens = probabilities[rest].sort(dim=-1, descending=True)
                chosen[rest] = self._nucleus(ranked.to(precise), tokens, draws[rest])
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen, 0.0)

    def _nucleus(self, ranked: torch.Tensor, tokens: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        before = ranked.cumsum(dim=-1) - ranked
        kept = ranked.masked_fill(before >= self._top_p, 0.0)  # the token that reaches top_p stays
        return tokens.gather(-1, _draw(kept, draws))


def _draw(weights: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Index [B, 1] in each row of ``weights`` [B, N] at the part ``draws`` [B, 1] of their sum."""
    import torch

    total = weights.cumsum(dim=-1)
    place = torch.searchsorted(total, draws * total[:, -1:], right=True)
    # Rounding may put the point on the very end: then the last index with any weight is meant.
    last = weights.shape[-1] - 1 - (weights > 0).flip(-1).to(torch.int8).argmax(dim=-1, keepdim=True)
    return torch.minimum(place, last)


class LineEnd:
    """A stopping criterion: a row is done once it has written something and then a line end."""

    def __init__(self, line_ends: Collection[int]) -> None:
        self._line_ends = sorted(line_ends)
        self._start: int | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Bool [B]."""
        import torch

        if self._start is None:
            self._start = input_ids.shape[1] - 1
        made = input_ids[:, self._start :]
        ends = torch.isin(made, torch.tensor(self._line_ends, device=made.device))
        written = (~ends).cumsum(dim=-1) > 0
        return (ends & written).any(dim=-1)


def uniform(key: bytes, step: int) -> float:
    """A number in [0, 1) for a key and a step: 53 bits of a hash."""
    digest = hashlib.blake2b(step.to_bytes(8, "little"), key=key, digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / (1 << 53)
