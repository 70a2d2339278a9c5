"""Words, untimed: engine against engine, INT8 against fp32, batch against single sentences, loops, BLEU."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from benchmarks import ROOT
from benchmarks.engines.base import FP32, INT8, STUDENT, Ids
from benchmarks.engines.textual import natural_limit
from benchmarks.harness.bench import Bench
from benchmarks.harness.errors import expect
from benchmarks.harness.text import batches, compare, read_lines, read_pairs
from benchmarks.harness.worker import Worker, workers
from benchmarks.parts.speed import answer_batch
from benchmarks.report.tables import grouped
from mobilenmt import Translator
from mobilenmt.runtime.guard import is_degenerate

_BATCH = 32
_WORDS = ROOT / "benchmarks" / "words.txt"
_MOST_TIMES = 5
LOOPS, TOO_LONG = "loops", "too long"
_QUALITY = ("ours-native", "ours-int8", "ours-fp32", "ctranslate2-int8", "ctranslate2-fp32", "optimum-int8")


def agreement(bench: Bench) -> dict[str, Any]:
    """Greedy outputs of every engine for the sentences, one at a time: which are the same, token by token."""
    outputs: dict[str, list[Ids]] = {}
    for name in bench.progress(bench.paths(STUDENT), "agreement"):
        with workers(bench, [name], 1) as engines:  # one at a time: nothing is timed, and memory is spared
            outputs[name] = [greedy(engines[name], source) for source in bench.corpus.ids]
    pairs = [("ours-fp32", name) for name in FP32 if name != "ours-fp32"]
    pairs += [(name.replace("int8", "fp32"), name) for name in INT8]
    both = [pair for pair in pairs if {*pair} <= outputs.keys()]
    return {"rows": [{"first": a, "second": b, **compare(outputs[a], outputs[b])} for a, b in both]}


def greedy(engine: Worker, source: Ids) -> Ids:
    """Greedy output of a sentence at natural length.

    The last token before the limit is left out: transformers forces the end token there, CTranslate2 does not.
    """
    ids: Ids = answer_batch(engine, [source], 1)["ids"][0]
    return ids[: natural_limit(len(source) + 1) - 1]


def batch(bench: Bench) -> dict[str, Any]:
    """Lines on which a batch of 32 gives the words of single sentences, by default and put together."""
    translator = Translator(bench.path("ours-int8"))
    lines = list(bench.corpus.lines)
    alone = [translator.translate(line) for line in lines]
    rows = []
    for together in (False, True):
        texts = [
            item.text
            for start in range(0, len(lines), _BATCH)
            for item in translator.translate_batch(lines[start : start + _BATCH], together=together)
        ]
        same = sum(a == b for a, b in zip(alone, texts, strict=True))
        rows.append({"together": together, "same": same, "of": len(lines)})
    return {"rows": rows, "size": _BATCH}


def words(bench: Bench) -> dict[str, Any]:
    """200 single words, 50 of them made up: how many loop, how many give more than five times the source's length."""
    chosen = [word for line in read_lines(_WORDS) for word in line.split()]
    rows = []
    for word, output in zip(chosen, Translator(bench.path("ours-int8")).translate_batch(chosen), strict=True):
        found = [*output.flags]
        if is_degenerate([], [hash(token) for token in output.tokens]):
            found.append(LOOPS)
        if len(output.text) > _MOST_TIMES * len(word):
            found.append(TOO_LONG)
        if found:
            rows.append({"word": word, "text": output.text, "found": found})
    return {"rows": rows, "words": len(chosen), "most times": _MOST_TIMES}


def quality(bench: Bench) -> dict[str, Any]:
    """BLEU and chrF of each engine on the dev files, and of our translator as shipped (with its guard).

    Engines get the same ids and length limits, so that nothing but the engine differs; the mean is over files.
    """
    expect(bool(bench.settings.dev), "the quality part needs --dev FILE...: source, tab, reference")
    import sacrebleu

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
                ids = [item.ids for item in tokenizer.encode_batch(sources, add_special_tokens=False)]
                for beam in bench.settings.beams:
                    score(name, beam, file, tokenizer.decode_batch(_translate(engines[name], ids, beam)))
    for path in bench.paths(["ours-int8"]).values():
        translator = Translator(path)
        for file, beam in itertools.product(sets, bench.settings.beams):
            found = translator.translate_batch(sets[file][0], beam_size=beam)
            score("mobilenmt INT8, Translator", beam, file, [item.text for item in found])
    return {
        "rows": rows,
        "lines": {file: len(sources) for file, (sources, _) in sets.items()},
        "means": means(rows),
        "signature": "sacrebleu, 13a, mixed case",
    }


def means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean over the files of each engine and beam."""
    return [
        {"engine": name, "beam": beam}
        | {metric: statistics.mean(row[metric] for row in group) for metric in ("BLEU", "chrF")}
        for (name, beam), group in grouped(rows, "engine", "beam").items()
    ]


def _translate(engine: Worker, sources: Sequence[Ids], beam: int) -> list[Ids]:
    """Batches of similar length, in the order of the sources."""
    outputs: dict[int, Ids] = {}
    for group in batches(sources, _BATCH):
        answer = answer_batch(engine, [sources[index] for index in group], beam)
        outputs |= zip(group, answer["ids"], strict=True)
    return [outputs[index] for index in range(len(sources))]
