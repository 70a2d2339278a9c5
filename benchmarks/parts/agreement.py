"""Words: the same as ours in fp32? INT8 against fp32 in each engine? And BLEU on dev sets."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from benchmarks.engines.base import FP32, INT8, STUDENT, Ids
from benchmarks.engines.textual import EOS, natural_limit
from benchmarks.harness.bench import Bench
from benchmarks.harness.errors import expect
from benchmarks.harness.text import common_prefix, read_pairs
from benchmarks.harness.worker import Worker
from benchmarks.parts.speed import workers

_BATCH = 32
_QUALITY = ("ours-int8", "ours-fp32", "ctranslate2-int8", "ctranslate2-fp32", "optimum-int8")


def agreement(bench: Bench) -> dict[str, Any]:
    """Greedy outputs of every engine for the sentences, one at a time: which are the same, token by token."""
    outputs: dict[str, list[Ids]] = {}
    for name in bench.progress(bench.paths(STUDENT), "agreement"):
        with workers(bench, [name], 1) as engines:  # one at a time: nothing is timed, and memory is spared
            outputs[name] = [greedy(engines[name], [source])[0] for source in bench.corpus.ids]
    pairs = [("ours-fp32", name) for name in FP32 if name != "ours-fp32"]
    pairs += [(name.replace("int8", "fp32"), name) for name in INT8]
    rows = [
        {"first": a, "second": b, **compare(outputs[a], outputs[b])} for a, b in pairs if a in outputs and b in outputs
    ]
    return {"rows": rows, "sentences": len(bench.corpus.ids)}


def greedy(engine: Worker, sources: Sequence[Ids]) -> list[Ids]:
    """Greedy outputs of one batch at natural lengths.

    The last token before the limit is left out: transformers forces the end token there, CTranslate2 does not.
    """
    limit = natural_limit(max(map(len, sources)) + 1)
    return [ids[: limit - 1] for ids in engine.generate(list(sources), max_length=limit).ids]


def compare(first: Sequence[Ids], second: Sequence[Ids]) -> dict[str, Any]:
    """How many outputs are the same, and what share of the tokens comes before the first difference."""
    same = sum(a == b for a, b in zip(first, second, strict=True))
    shared = sum(common_prefix(a, b) for a, b in zip(first, second, strict=True))
    tokens = sum(max(len(a), len(b)) for a, b in zip(first, second, strict=True))
    return {"same": same, "of": len(first), "tokens before they part": shared / max(1, tokens)}


def quality(bench: Bench) -> dict[str, Any]:
    """BLEU and chrF of each engine on the dev files, and of our translator as shipped (with its guard).

    Engines get the same ids and length limits, so that nothing but the engine differs; the mean is over files.
    """
    expect(bool(bench.settings.dev), "the quality part needs --dev FILE...: source, tab, reference")
    import sacrebleu
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bench.tokenizer_json))
    sets = {file.stem: read_pairs(file, bench.settings.dev_lines) for file in bench.settings.dev}
    rows = []

    def score(name: str, beam: int, file: str, texts: list[str]) -> None:
        references = [sets[file][1]]
        bleu, chrf = sacrebleu.corpus_bleu(texts, references), sacrebleu.corpus_chrf(texts, references)
        rows.append({"engine": name, "beam": beam, "file": file, "BLEU": bleu.score, "chrF": chrf.score})

    for name in bench.progress(bench.paths(_QUALITY), "quality"):
        with workers(bench, [name], 1) as engines:
            for file, (sources, _) in sets.items():
                ids = [_without_end(item.ids, tokenizer.token_to_id(EOS)) for item in tokenizer.encode_batch(sources)]
                for beam in bench.settings.beams:
                    score(name, beam, file, tokenizer.decode_batch(_translate(engines[name], ids, beam)))
    if "ours-int8" in bench.settings.engines:
        from mobilenmt import Translator

        translator = Translator(bench.path("ours-int8"))
        for file, (sources, _) in sets.items():
            for beam in bench.settings.beams:
                found = translator.translate_batch(sources, beam_size=beam)
                score("mobilenmt INT8, Translator", beam, file, [item.text for item in found])
    return {
        "rows": rows,
        "lines": {file: len(sources) for file, (sources, _) in sets.items()},
        "means": means(rows),
        "signature": "sacrebleu, 13a, mixed case",
    }


def means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean over the files of each engine and beam."""
    keys = dict.fromkeys((row["engine"], row["beam"]) for row in rows)
    return [
        {
            "engine": name,
            "beam": beam,
            **{
                metric: statistics.mean(row[metric] for row in rows if (row["engine"], row["beam"]) == (name, beam))
                for metric in ("BLEU", "chrF")
            },
        }
        for name, beam in keys
    ]


def _without_end(ids: Ids, eos: int) -> Ids:
    return ids[:-1] if ids and ids[-1] == eos else ids


def _translate(engine: Worker, sources: Sequence[Ids], beam: int) -> list[Ids]:
    """Batches of similar length, in the order of the sources."""
    order = sorted(range(len(sources)), key=lambda index: len(sources[index]))
    outputs: list[Ids] = [[] for _ in sources]
    for start, end in pairwise([*range(0, len(order), _BATCH), len(order)]):
        group = order[start:end]
        limit = natural_limit(max(len(sources[index]) for index in group) + 1)
        found = engine.generate([sources[index] for index in group], beam_size=beam, max_length=limit).ids
        for index, ids in zip(group, found, strict=True):
            outputs[index] = ids
    return outputs
