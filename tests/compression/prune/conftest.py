"""What all tests of this folder run with."""

from __future__ import annotations

from training_data import one_thread  # noqa: F401 (a fixture)
