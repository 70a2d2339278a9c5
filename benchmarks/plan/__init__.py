"""Whether plans hold: bytes, time and memory that were predicted, beside those of packs that were made."""

from __future__ import annotations
