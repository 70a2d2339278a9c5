"""Texts with markup: HTML, Markdown, subtitles. Taken apart before the translation, put together behind it."""

from __future__ import annotations
