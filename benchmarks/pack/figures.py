"""Figures of one pack alone: parity with torch, INT8 against fp32, batches, single words.

Each function is a command of ``python -m benchmarks`` and returns what is printed as JSON. They run in the environment
that calls them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness.text import read_pairs

Figures = dict[str, Any]


def export_pack(checkpoint: Path, folder: Path, precision: str) -> Path:
    """Export into ``folder``, once."""
    from mobilenmt.export.export import export

    out = folder / precision
    return out if out.exists() else export(checkpoint, out, precision=precision, name="en-de").path


def _pairs(options: argparse.Namespace) -> Iterator[tuple[str, list[str], list[str]]]:
    for file in options.test:
        yield file.stem, *read_pairs(file, options.lines)


def parity(options: argparse.Namespace) -> Figures:
    """fp32 pack against ``MarianMTModel.generate``: lines with the same ids, greedy and beam 4."""
    import torch
    from transformers import MarianMTModel

    from mobilenmt.runtime.engine import Engine
    from mobilenmt.runtime.pack import Pack
    from mobilenmt.runtime.tokenizer import Tokenizer

    model: Any = MarianMTModel.from_pretrained(options.checkpoint).eval()
    each = max(1, 200 // len(options.test))
    sources = [line for file in options.test for line in read_pairs(file, each)[0]]
    figures: Figures = {"lines": len(sources)}
    with tempfile.TemporaryDirectory() as folder:
        pack = Pack.open(export_pack(options.checkpoint, Path(folder), "fp32"))
        manifest = pack.manifest
        tokenizer = Tokenizer(pack.file("tokenizer.json"), manifest.tokens, manifest.model.source_vocab_size)
        engine = Engine(pack)
        limit = 128
        for beams in (1, 4):
            ids = [tokenizer.encode(source) for source in sources]
            found = engine.generate(ids, max_lengths=[limit] * len(ids), beam_size=beams)
            different = []
            for index, (source, (ours,)) in enumerate(zip(ids, found, strict=True)):
                padded = torch.tensor([[*source, manifest.tokens.eos]])
                theirs = model.generate(padded, num_beams=beams, do_sample=False, max_length=limit)[0].tolist()[1:]
                theirs = theirs[: theirs.index(manifest.tokens.eos)]
                if list(ours.ids) != theirs:
                    different.append(index)
            figures[f"beam {beams}: same"] = len(ids) - len(different)
            figures[f"beam {beams}: different lines"] = different
    return figures


def int8(options: argparse.Namespace) -> Figures:
    """BLEU and chrF of the INT8 and the fp32 pack, greedy, by test file and in the mean."""
    import sacrebleu

    from mobilenmt import Translator

    figures: Figures = {}
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        packs = {name: Translator(export_pack(options.checkpoint, Path(folder), name)) for name in ("fp32", "int8")}
        for name, sources, references in _pairs(options):
            scores = {}
            for precision, translator in packs.items():
                texts = [item.text for item in translator.translate_batch(sources)]
                scores[precision] = (
                    sacrebleu.corpus_bleu(texts, [references]).score,
                    sacrebleu.corpus_chrf(texts, [references]).score,
                )
            loss = [fp32 - quantized for fp32, quantized in zip(scores["fp32"], scores["int8"], strict=True)]
            losses.append(loss)
            figures[name] = {"lines": len(sources), **scores, "lost BLEU, chrF": loss}
    figures["mean lost BLEU, chrF"] = [statistics.mean(column) for column in zip(*losses, strict=True)]
    return figures


def batch(options: argparse.Namespace) -> Figures:
    """INT8, batches of 32, by default and put together, against one at a time: lines with the same words, BLEU."""
    import sacrebleu

    from mobilenmt import Translator

    translator = Translator(options.pack)
    figures: Figures = {}
    same = {"by default": 0, "together": 0}
    total = 0
    for name, sources, references in _pairs(options):
        alone = [translator.translate(source) for source in sources]
        figures[name] = {"lines": len(sources), "BLEU alone": sacrebleu.corpus_bleu(alone, [references]).score}
        total += len(sources)
        for how in same:
            texts = [
                item.text
                for start in range(0, len(sources), 32)
                for item in translator.translate_batch(sources[start : start + 32], together=how == "together")
            ]
            equal = sum(a == b for a, b in zip(alone, texts, strict=True))
            figures[name] |= {f"same {how}": equal, f"BLEU {how}": sacrebleu.corpus_bleu(texts, [references]).score}
            same[how] += equal
    return {**figures, **{f"same {how}": count / total for how, count in same.items()}}


def words(options: argparse.Namespace) -> Figures:
    """200 single words, 50 of them made up: how many loop, how many give more than five times the source's length."""
    from mobilenmt import Translator
    from mobilenmt.runtime.guard import is_degenerate

    translator = Translator(options.pack)
    chosen = (Path(__file__).parent / "words.txt").read_text(encoding="utf-8").split()
    found = translator.translate_batch(chosen)
    longest = sorted((len(item.text) / len(word), word, item.text) for word, item in zip(chosen, found, strict=True))
    pieces = [[hash(token) for token in item.tokens] for item in found]
    return {
        "words": len(chosen),
        "loop": [word for word, ids in zip(chosen, pieces, strict=True) if is_degenerate([], ids)],
        "more than 5 times the source": [item for item in longest if item[0] > 5],
        "longest": longest[-5:],
        "flagged": {w: [item.text, *item.flags] for w, item in zip(chosen, found, strict=True) if item.flags},
    }


COMMANDS = {function.__name__: function for function in (parity, int8, batch, words)}


def add_options(parser: argparse.ArgumentParser, name: str) -> None:
    """Options of one command."""
    parser.add_argument("--pack", default="en-de", help="name or path of a pack")
    if name in ("parity", "int8"):
        parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="Marian checkpoint")
    if name in ("parity", "int8", "batch"):
        parser.add_argument("--test", type=Path, nargs="+", required=True, help="source, tab, reference")
        parser.add_argument("--lines", type=int, default=1000, help="lines of each test file")
