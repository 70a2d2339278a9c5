"""What is measured of one pack alone, and the checkpoint in a pack."""

from __future__ import annotations
