"""CTranslate2, with the model that its own transformers converter made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ctranslate2

from benchmarks.engines.base import Engine, Ids


class CTranslate2(Engine):
    """A converted model, in the precision in which it was saved. It takes and returns pieces, so prepare maps ids.

    Threads share the operators of a sentence, but halves of a batch that has enough for each, which is faster.
    """

    def __init__(self, path: str, threads: int) -> None:
        self.translator = ctranslate2.Translator(path, device="cpu", inter_threads=1, intra_threads=threads)
        self.threads = threads
        self.side_by_side = self.translator
        if threads > 1:
            self.side_by_side = ctranslate2.Translator(path, device="cpu", inter_threads=threads, intra_threads=1)
        self.vmap = (Path(path) / "vmap.txt").is_file()
        self.pieces: list[str] = json.loads((Path(path) / "shared_vocabulary.json").read_text(encoding="utf-8"))
        self.index = {piece: index for index, piece in enumerate(self.pieces)}
        self.eos = self.index["</s>"]

    def prepare(self, sources: list[Ids]) -> list[list[str]]:
        return [[*(self.pieces[token] for token in source), "</s>"] for source in sources]

    def run(self, prepared: list[list[str]], beam_size: int, min_length: int, max_length: int) -> Any:
        divided = len(prepared) >= 2 * self.threads
        return (self.side_by_side if divided else self.translator).translate_batch(
            prepared,
            max_batch_size=-(-len(prepared) // self.threads) if divided else 0,
            beam_size=beam_size,
            min_decoding_length=min_length if min_length > 1 else 0,
            max_decoding_length=max_length,
            max_input_length=0,
            return_end_token=True,
            use_vmap=self.vmap,
        )

    def outputs(self, result: Any) -> list[tuple[Ids, int]]:
        rows = [[self.index[piece] for piece in item.hypotheses[0]] for item in result]
        return [(row[:-1] if row[-1:] == [self.eos] else row, len(row)) for row in rows]
