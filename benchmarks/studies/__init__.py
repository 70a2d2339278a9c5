"""Measurements beside script/bench, run by hand."""

from __future__ import annotations
