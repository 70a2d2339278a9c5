"""Text in, text out, with any engine: what an application calls."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.engines.base import SPECS


def natural_limit(longest: int) -> int:
    """Length limit that all engines get where the model itself ends a sentence; one for a batch, as peers take one."""
    return min(2 * longest + 10, 250)


def open_text(name: str, path: str, tokenizer_json: str, threads: int) -> Callable[[str], str]:
    """A function that translates one text greedily.

    Ours is the ``Translator`` with all that it does for a text; a peer is its engine with the tokenizers package, one
    sentence as it stands.
    """
    if SPECS[name].ours:
        from mobilenmt import Translator

        return Translator(path, threads=threads, engine=SPECS[name].engine).translate
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(tokenizer_json)
    engine = SPECS[name].load(path, threads)

    def translate(text: str) -> str:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        result = engine.run(engine.prepare([ids]), 1, 0, natural_limit(len(ids) + 1))
        decoded: str = tokenizer.decode(engine.outputs(result)[0][0])
        return decoded

    return translate
