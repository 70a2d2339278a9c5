"""Latency by length, beam and threads, and words a second by batch: engines in alternation, with forced lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks.engines.base import INT8, Ids
from benchmarks.engines.textual import natural_limit
from benchmarks.harness.bench import Bench
from benchmarks.harness.worker import Worker

_CONTENDERS = ("ours-int8", "ctranslate2-int8")
_MOST_CALLS = 5
_WARM_TURNS = 1
# A slow engine takes part in fewer turns: no more once it has worked so many seconds in one setting and taken part in
# so many turns. Its medians vary least, being sums of many steps.
_ENOUGH_SECONDS = 20.0
_FEWEST_TURNS = 3
_CACHED_SECONDS = 0.3  # an engine that takes longer reads its weights from memory anyway: no call to warm it


@contextmanager
def workers(bench: Bench, names: Sequence[str], threads: int, text: bool = False) -> Iterator[dict[str, Worker]]:
    """A process for each engine, pinned to the same cores; with ``text`` they translate texts instead of ids."""
    tokenizer = str(bench.tokenizer_json) if text else ""
    cores = bench.settings.pinned(threads)
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(Worker(name, str(path), threads, cores, tokenizer))
            for name, path in bench.paths(names).items()
        }


def latency(bench: Bench) -> dict[str, Any]:
    """Milliseconds of one sentence, source and target of the same length, greedy and beam."""
    settings = bench.settings
    rows = []
    for threads in settings.threads:
        # Two threads are for whole sentences of the typical length: the rest would only repeat what one thread shows.
        lengths = settings.lengths if threads == settings.threads[0] else _typical(settings.lengths)
        with workers(bench, settings.engines, threads) as engines:
            for beam in settings.beams:
                for length in bench.progress(lengths, f"latency, {threads} thread(s), beam {beam}"):
                    rows += _latency(bench, engines, threads, beam, length)
    return {"rows": rows}


def _typical(lengths: Sequence[int]) -> list[int]:
    return [min(lengths, key=lambda length: abs(length - 30))]


def _latency(bench: Bench, engines: dict[str, Worker], threads: int, beam: int, length: int) -> list[dict[str, Any]]:
    seconds: dict[str, list[list[float]]] = {name: [] for name in engines}
    calls, warm = dict.fromkeys(engines, 1), dict.fromkeys(engines, 1)
    sources = bench.corpus.slices(length)
    for turn in range(_WARM_TURNS + bench.settings.turns):
        source = next(sources)
        for name, engine in engines.items():
            if _enough(seconds[name]):
                continue
            # The call before the measured ones brings weights back into the caches that the engine before it took.
            answer = engine.generate(
                [source], beam_size=beam, min_length=length, max_length=length, warm=warm[name], calls=calls[name]
            )
            if turn < _WARM_TURNS:
                calls[name] = _calls(bench.settings.turn_seconds, min(answer.seconds))
                warm[name] = int(min(answer.seconds) < _CACHED_SECONDS)
            else:
                seconds[name].append(answer.seconds)
    return [
        {"engine": name, "threads": threads, "beam": beam, "length": length, "seconds": found}
        for name, found in seconds.items()
    ]


def _enough(turns: Sequence[Sequence[float]]) -> bool:
    return len(turns) >= _FEWEST_TURNS and sum(map(sum, turns)) > _ENOUGH_SECONDS


def _calls(budget: float, one: float) -> int:
    return max(1, min(_MOST_CALLS, int(budget / one)))


def endtoend(bench: Bench) -> dict[str, Any]:
    """Text in, text out, one sentence after another, greedy, at natural lengths: milliseconds of each sentence.

    Ours is ``Translator.translate``; peers are their engine with the tokenizers package.
    """
    names = [name for name in bench.settings.engines if name in (*INT8, "optimum-fp32", "torch-fp32")]
    chosen = bench.corpus.lines[:: max(1, len(bench.corpus.lines) // (4 * bench.settings.turns))]
    seconds: dict[str, list[list[float]]] = {name: [] for name in names}
    with workers(bench, names, 1, text=True) as engines:
        for index, line in enumerate(bench.progress([chosen[0], *chosen], "text to text")):
            for name, engine in engines.items():
                found = engine.translate(line, warm=1, calls=1)
                if index:
                    seconds[name].append(found)
    rows = [{"engine": name, "seconds": found} for name, found in seconds.items()]
    return {"rows": rows, "sentences": len(chosen)}


def throughput(bench: Bench) -> dict[str, Any]:
    """Seconds for the whole file of sentences, by batch and threads: natural lengths, and forced to the source's."""
    settings = bench.settings
    names = [name for name in settings.engines if name in INT8]
    contenders = [name for name in names if name in _CONTENDERS]  # the rest is far behind: one setting shows it
    turns = max(1, settings.turns // 4)  # each turn is a whole file
    rows = []
    for threads in settings.threads:
        for beam in settings.beams:
            first = threads == settings.threads[0] and beam == settings.beams[0]
            with workers(bench, names if first else contenders, threads) as engines:
                for batch in bench.progress(settings.batches, f"throughput, {threads} thread(s), beam {beam}"):
                    for forced in (True, False):
                        rows += _throughput(bench, engines, threads, beam, batch, forced, turns)
    corpus = bench.corpus
    return {"rows": rows, "sentences": len(corpus.lines), "words": corpus.words, "tokens": sum(map(len, corpus.ids))}


def _throughput(
    bench: Bench, engines: dict[str, Worker], threads: int, beam: int, batch: int, forced: bool, turns: int
) -> list[dict[str, Any]]:
    seconds: dict[str, list[list[float]]] = {name: [] for name in engines}
    steps = dict.fromkeys(engines, 0)
    for turn in range(1 + turns):
        for name, engine in engines.items():
            if _enough(seconds[name]):
                continue
            total, steps[name] = translate_file(bench, engine, beam, batch, forced, warm=turn == 0)
            if turn:
                seconds[name].append([total])
    return [
        {
            "engine": name,
            "threads": threads,
            "beam": beam,
            "batch": batch,
            "forced": forced,
            "generated": steps[name],
            "seconds": found,
        }
        for name, found in seconds.items()
    ]


def translate_file(
    bench: Bench, engine: Worker, beam: int, batch: int, forced: bool, warm: bool = False
) -> tuple[float, int]:
    """Translate all sentences in batches; returns the sum of the batches' seconds and of the generated tokens.

    ``warm`` takes only a few of the batches: enough to warm an engine up.
    """
    seconds, generated = 0.0, 0
    groups = bench.corpus.batches(batch)
    for group in groups[:: max(1, len(groups) // 4)] if warm else groups:
        sources: list[Ids] = [bench.corpus.ids[index] for index in group]
        longest = max(map(len, sources)) + 1
        limit = longest if forced else natural_limit(longest)
        answer = engine.generate(sources, beam_size=beam, min_length=limit if forced else 0, max_length=limit)
        seconds += sum(answer.seconds)
        generated += sum(answer.steps)
    return seconds, generated
