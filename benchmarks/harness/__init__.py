"""What every part of a run stands on: settings, models, processes, results."""

from __future__ import annotations
