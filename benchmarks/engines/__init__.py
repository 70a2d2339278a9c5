"""The engines that are compared, each in a module of its own that imports nothing but that engine."""

from __future__ import annotations
