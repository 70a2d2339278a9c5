"""What is done to text before and after the model: layout, sentences, things to keep, markup."""

from __future__ import annotations
