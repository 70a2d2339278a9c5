"""Latency by length, beam and threads, and words a second by batch: engines in alternation, with forced lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice, product
from typing import Any, TypeVar

from benchmarks.engines.base import INT8, Ids
from benchmarks.engines.child import Answer
from benchmarks.engines.textual import natural_limit
from benchmarks.harness.bench import Bench
from benchmarks.harness.text import batches
from benchmarks.harness.worker import Worker, workers

_CONTENDERS = ("ours-native", "ours-int8", "ctranslate2-int8", "ctranslate2-vmap-int8")
_MOST_CALLS = 5
# A slow engine takes part in fewer turns: no more once it has worked so many seconds in one setting and taken part in
# so many turns. Its medians vary least, being sums of many steps.
_ENOUGH_SECONDS = 20.0
_FEWEST_TURNS = 3
_CACHED_SECONDS = 0.3  # an engine that takes longer reads its weights from memory anyway: no call to warm it

E = TypeVar("E")
T = TypeVar("T")
Row = dict[str, Any]


def take_turns(engines: Mapping[str, E], turns: Iterable[T], work: Callable[[E, T, bool], list[float]]) -> list[Row]:
    """Seconds of each engine by turn, A B C A B C; the first turn, for which ``work`` gets True, is not kept."""
    seconds: dict[str, list[list[float]]] = {name: [] for name in engines}
    for number, turn in enumerate(turns):
        for name, engine in engines.items():
            if len(seconds[name]) >= _FEWEST_TURNS and sum(map(sum, seconds[name])) > _ENOUGH_SECONDS:
                continue
            found = work(engine, turn, number == 0)
            if number:
                seconds[name].append(found)
    return [{"engine": name, "seconds": found} for name, found in seconds.items()]


def latency(bench: Bench) -> dict[str, Any]:
    """Milliseconds of one sentence, source and target of the same length, greedy and beam."""
    settings = bench.settings
    rows = []
    for threads in settings.threads:
        lengths = settings.lengths
        if threads != settings.threads[0]:  # the typical length only: the rest would repeat what one thread shows
            lengths = (min(lengths, key=lambda length: abs(length - 30)),)
        with workers(bench, settings.engines, threads) as engines:
            for beam, length in bench.progress(product(settings.beams, lengths), f"latency, {threads} thread(s)"):
                setting = {"threads": threads, "beam": beam, "length": length}
                rows += [{**row, **setting} for row in _latency(bench, engines, beam, length)]
    return {"rows": rows}


def _latency(bench: Bench, engines: dict[str, Worker], beam: int, length: int) -> list[Row]:
    calls, warm = dict.fromkeys(engines, 1), dict.fromkeys(engines, 1)

    def work(engine: Worker, source: list[int], first: bool) -> list[float]:
        # The call before the measured ones brings weights back into the caches that the engine before it took.
        name = engine.name
        answer = engine.generate([source], length, length, beam, warm[name], calls[name])
        seconds: list[float] = answer["seconds"]
        if first:
            calls[name] = max(1, min(_MOST_CALLS, int(bench.settings.turn_seconds / min(seconds))))
            warm[name] = int(min(seconds) < _CACHED_SECONDS)
        return seconds

    return take_turns(engines, islice(bench.corpus.slices(length), bench.settings.turns + 1), work)


def endtoend(bench: Bench) -> dict[str, Any]:
    """Text in, text out, one sentence after another, greedy, at natural lengths: milliseconds of each sentence.

    Ours is ``Translator.translate``; peers are their engine with the tokenizers package.
    """
    names = [name for name in bench.settings.engines if name in (*INT8, "optimum-fp32", "torch-fp32")]
    chosen = bench.corpus.lines[:: max(1, len(bench.corpus.lines) // (4 * bench.settings.turns))]
    with workers(bench, names, 1, text=True) as engines:
        turns = bench.progress([chosen[0], *chosen], "text to text")
        rows = take_turns(
            engines, turns, lambda engine, line, first: engine.ask("translate", text=line, warm=1, calls=1)["seconds"]
        )
    return {"rows": rows, "sentences": len(chosen)}


def throughput(bench: Bench) -> dict[str, Any]:
    """Seconds for the whole file of sentences, by batch and threads: natural lengths, and forced to the source's."""
    settings = bench.settings
    names = [name for name in settings.engines if name in INT8]
    contenders = [name for name in names if name in _CONTENDERS]  # the rest is far behind: one setting shows it
    turns = range(1 + max(1, settings.turns // 4))  # each turn is a whole file
    rows = []
    for threads, beam in product(settings.threads, settings.beams):
        first = (threads, beam) == (settings.threads[0], settings.beams[0])
        sizes = product(settings.batches, (True, False))
        with workers(bench, names if first else contenders, threads) as engines:
            for batch, forced in bench.progress(sizes, f"throughput, {threads} thread(s), beam {beam}"):
                found = _throughput(bench, engines, turns, beam, batch, forced)
                rows += [{**row, "threads": threads} for row in found]
    lines, tokens = bench.corpus.lines, sum(map(len, bench.corpus.ids))
    return {"rows": rows, "sentences": len(lines), "words": sum(len(line.split()) for line in lines), "tokens": tokens}


def _throughput(
    bench: Bench, engines: dict[str, Worker], turns: Iterable[int], beam: int, batch: int, forced: bool
) -> list[Row]:
    generated: dict[str, int] = {}
    ids = bench.corpus.ids
    groups = batches(ids, batch)

    def work(engine: Worker, turn: int, first: bool) -> list[float]:
        chosen = groups[:: max(1, len(groups) // 4)] if first else groups  # a few are enough to warm an engine up
        answers = [answer_batch(engine, [ids[index] for index in group], beam, forced) for group in chosen]
        generated[engine.name] = sum(sum(answer["steps"]) for answer in answers)
        return [sum(sum(answer["seconds"]) for answer in answers)]

    setting = {"beam": beam, "batch": batch, "forced": forced}
    return [{**row, **setting, "generated": generated[row["engine"]]} for row in take_turns(engines, turns, work)]


def answer_batch(engine: Worker, sources: list[Ids], beam: int, forced: bool = False) -> Answer:
    """What an engine makes of a batch, of natural lengths, or all as long as the longest source."""
    longest = max(map(len, sources)) + 1
    limit = longest if forced else natural_limit(longest)
    return engine.generate(sources, beam_size=beam, min_length=limit if forced else 0, max_length=limit)
