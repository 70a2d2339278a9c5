"""A lexical shortlist: the target tokens that may stand in the translation of a given source.

The output layer is the largest matrix that a step reads. Few of its rows can be meant for one sentence: those of
frequent tokens, and for each source token those that translate it (Schwenk et al. 2007; Kim et al. 2019, "From
Research to Production and Back", section 3.2). They are looked up once a sentence; every step then reads a tenth of
the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobilenmt.export.checkpoint import MarianConfig
from mobilenmt.export.weights import Array
from mobilenmt.runtime.atomic import atomic_path
from mobilenmt.runtime.errors import CheckpointError

FILE_NAME = "shortlist.npz"
"""Beside a checkpoint's weights; written by :meth:`Shortlist.save`, found by the exporter."""


@dataclass(frozen=True)
class Shortlist:
    """Target tokens for any source."""

    common: Array
    """int32 [C], ascending: tokens that are always candidates. The end token is among them."""
    lexical: Array
    """int32 [source vocabulary, n]: further candidates for each source token. Short rows repeat an entry."""

    def check(self, config: MarianConfig, banned: tuple[int, ...], forced: int | None) -> None:
        """CheckpointError if this was not made for the model."""
        problem = ""
        if self.common.ndim != 1 or self.lexical.ndim != 2:
            problem = "common must have one dimension, lexical two"
        elif len(self.lexical) != config.vocab_size:
            problem = f"lexical has {len(self.lexical)} rows, the source vocabulary {config.vocab_size}"
        elif self.common.dtype.kind not in "iu" or self.lexical.dtype.kind not in "iu":
            problem = "token ids must be integers"
        elif not self.common.size or not self.lexical.size:
            problem = "it is empty"
        elif min(self.common.min(), self.lexical.min()) < 0:
            problem = "a token id is negative"
        elif max(self.common.max(), self.lexical.max()) >= config.decoder_vocab_size:
            problem = f"a token id is outside the target vocabulary of {config.decoder_vocab_size}"
        elif config.eos_token_id not in self.common:
            problem = "the end token is not among the common tokens"
        elif forced not in (None, config.eos_token_id):
            problem = f"the checkpoint forces the token {forced}, which is not its end token"
        elif np.isin(banned, self.common).any() or np.isin(banned, self.lexical).any():
            problem = "it holds a token that may never be generated"
        if problem:
            raise CheckpointError(f"the shortlist does not fit the checkpoint: {problem}; make it again")

    def candidates(self, source: Array) -> Array:
        """Ascending ids for the int64 ``source`` ids of a sentence: what the graph computes."""
        return np.union1d(self.common, self.lexical[source].ravel())

    def save(self, path: Path) -> None:
        """Write the arrays as an .npz file, which appears complete or not at all."""
        with atomic_path(path) as temporary:
            np.savez(temporary, common=self.common.astype(np.int32), lexical=self.lexical.astype(np.int32))

    @classmethod
    def load(cls, path: Path) -> Shortlist:
        """Read what :meth:`save` wrote; CheckpointError if the file is something else."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(stored["common"], stored["lexical"])
        except Exception as error:  # numpy, zip and the system raise types of their own
            raise CheckpointError(f"{path}: cannot be read as a shortlist: {error}") from None
