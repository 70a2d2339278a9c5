"""A pack's tokenizer swapped for a BPE of the same size: what would the shipped pack's memory be with one?

The pieces get other ids, so the outputs mean nothing; bytes, time and memory are those of such a pack.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.errors import BenchmarkError

_SPECIAL = ("</s>", "<unk>")
_PAD = "<pad>"
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def bpe_pack(pack: Path, texts: Iterable[str], out: Path) -> Path:
    """Copy ``pack`` to ``out`` with a BPE tokenizer trained on ``texts``; PackError if the pack is not sound."""
    from mobilenmt.export.writer import write_manifest
    from mobilenmt.runtime.pack import Pack

    opened = Pack.open(pack)
    shutil.copytree(opened.path, out)
    original = json.loads(opened.file("tokenizer.json").read_text(encoding="utf-8"))
    tokenizer = bpe_tokenizer(original, texts, opened.manifest.model.source_vocab_size)
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    (out / "pack.json").unlink()
    write_manifest(out, opened.manifest)
    return out


def bpe_tokenizer(original: dict[str, Any], texts: Iterable[str], size: int) -> dict[str, Any]:
    """A tokenizer.json like ``original`` with a BPE model of exactly ``size`` pieces and byte fallback.

    Raises:
        BenchmarkError: the text has too few different words for so many pieces.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import Metaspace
    from tokenizers.trainers import BpeTrainer

    wanted = size - len(_BYTES) - 1
    tokenizer = Tokenizer(BPE(unk_token=_SPECIAL[1], byte_fallback=True))
    tokenizer.pre_tokenizer = Metaspace()
    trainer = BpeTrainer(
        vocab_size=wanted,
        special_tokens=list(_SPECIAL),
        limit_alphabet=min(500, wanted // 4),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    trained = json.loads(tokenizer.to_str())
    model = trained["model"]
    if len(model["vocab"]) != wanted:
        raise BenchmarkError(
            f"the text gives a BPE of {len(model['vocab'])} pieces only, and {wanted} are needed: name more text"
        )
    for piece in (*_BYTES, _PAD):
        model["vocab"][piece] = len(model["vocab"])
    special = [{**item, "id": model["vocab"][item["content"]]} for item in original["added_tokens"]]
    return {**original, "added_tokens": special, "model": model}


def text_of(files: Sequence[Path]) -> Iterable[str]:
    """Lines of text files; of TSV files, every column."""
    for file in files:
        for line in file.read_text(encoding="utf-8").split("\n"):
            yield from line.split("\t")
