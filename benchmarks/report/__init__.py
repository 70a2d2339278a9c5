"""Tables, bars and plots of a results.json."""

from __future__ import annotations
