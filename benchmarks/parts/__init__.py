"""The parts of a run, each a measurement."""

from __future__ import annotations
