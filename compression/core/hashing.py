"""Random decisions that depend on nothing but a seed and the item: equal in every run, on every machine.

A number drawn from a generator depends on everything drawn before; a hash of (seed, purpose, item) does not, so a
resumed run, another order or another number of processes gives the same decisions.
"""

from __future__ import annotations

import hashlib
import random


class Hasher:
    """Hashes of texts under a seed and a purpose.

    :param seed: the recipe's seed.
    :param purpose: what the numbers decide; two purposes give independent numbers.
    """

    def __init__(self, seed: int, purpose: str) -> None:
        self._base = hashlib.blake2b(f"{seed}\n{purpose}\n".encode(), digest_size=8)

    def integer(self, *items: str) -> int:
        """A number in [0, 2^64) for these texts."""
        hasher = self._base.copy()
        hasher.update("\t".join(items).encode("utf-8", "surrogatepass"))
        return int.from_bytes(hasher.digest(), "little")

    def uniform(self, *items: str) -> float:
        """A number in [0, 1) for these texts."""
        return (self.integer(*items) >> 11) * 2.0**-53

    def generator(self, *items: str) -> random.Random:
        """A generator of its own for these texts, for decisions that need many numbers."""
        return random.Random(self.integer(*items))
