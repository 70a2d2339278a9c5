"""One text, translated by a fresh process: ``python -m benchmarks.parts.once ENGINE MODEL TOKENIZER TEXT``."""

from __future__ import annotations

import sys

from benchmarks.engines.textual import open_text


def main(name: str, path: str, tokenizer: str, text: str) -> None:
    """Load, translate, print."""
    print(open_text(name, path, tokenizer, 1)(text), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
