"""The engine: ids in, ids and scores out. It knows tensors, not text."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

from mobilenmt.runtime.background import Watch, for_each
from mobilenmt.runtime.hypothesis import GREEDY, Hypothesis, SearchOptions, check_request
from mobilenmt.runtime.onnx.batching import MOST_SENTENCES, groups, usual_limit
from mobilenmt.runtime.onnx.ort import SessionConfig, check_providers
from mobilenmt.runtime.onnx.sessions import Sessions, run_session
from mobilenmt.runtime.pack import Pack

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from mobilenmt.runtime.onnx.output import OutputLayer
    from mobilenmt.runtime.onnx.static.host import StaticHost
    from mobilenmt.runtime.onnx.stepwise import Stepper


class Engine:
    """Runs the graphs of one pack. Safe to use from several threads at once.

    Which graph is opened when, :class:`Sessions` says. Without batch.onnx, which a pack for a phone need not have,
    sentences are never put together.

    Raises:
        InputError: a provider that this onnxruntime does not have.
        EngineError: ONNX Runtime refuses a graph.
    """

    def __init__(self, pack: Pack, config: SessionConfig | None = None) -> None:
        self._config = config or SessionConfig()
        self._manifest = pack.manifest
        self._model = pack.manifest.model
        self._tokens = pack.manifest.tokens
        self._defaults = pack.manifest.generation
        self._static = self._open_static(pack)
        self._sessions = Sessions(pack, self._config, at_once=self._static is None)
        self._folder, self._lock = pack.path, threading.Lock()
        self._layer: OutputLayer | None = None
        self._threads = self._config.threads or os.cpu_count() or 1

    @property
    def max_length(self) -> int:
        """Longest output the model has positions for, the start token counted."""
        return self._model.max_positions

    def generate(
        self,
        sources: Sequence[Sequence[int]],
        max_lengths: Sequence[int],
        options: SearchOptions = GREEDY,
        prefixes: Sequence[Sequence[int]] | None = None,
    ) -> list[list[Hypothesis]]:
        """Translate ids, ``options.n_best`` hypotheses each, best first; as many sentences at once as there are
        threads.

        Args:
            sources: ids of each sentence, the end token not included; at most max_positions - 1 of them.
            max_lengths: limit for each sentence, start and end token counted, from 2 to max_positions.
            options: how to search.
            prefixes: tokens that the outputs for each sentence begin with, in place of those that the pack forces.

        Raises:
            InputError: an argument is out of range.
            EngineError: ONNX Runtime failed.
            DeadlineError, StoppedError: ``options`` ended it.
        """
        check_request(self._model, sources, max_lengths, options, prefixes, self._tokens.eos)
        watch = Watch(options.seconds, options.stop)
        if self._static is not None and options.beam_size == 1:
            return self._in_buckets(self._static, sources, max_lengths, options, prefixes, watch)
        return self._on_cpu(sources, max_lengths, options, prefixes, watch)

    def _on_cpu(
        self,
        sources: Sequence[Sequence[int]],
        max_lengths: Sequence[int],
        options: SearchOptions,
        prefixes: Sequence[Sequence[int]] | None,
        watch: Watch,
    ) -> list[list[Hypothesis]]:
        if prefixes is not None or options.phrases is not None or self._needs_steps(options):
            return self._stepwise(sources, max_lengths, options, prefixes, watch)
        results: list[list[Hypothesis]] = [[] for _ in sources]
        # A beam is a batch already; and a pack of format 1 has no graph that gains by more sentences.
        size = MOST_SENTENCES if options.together and options.beam_size == 1 and self._sessions.has_batch else 1
        pending = list(range(len(sources)))
        limits = list(max_lengths)
        if size > 1:  # what ends in time is done, and a few runaways do not hold up their batch
            limits = [
                max(options.min_length, min(limit, usual_limit(len(source))))
                for source, limit in zip(sources, limits, strict=True)
            ]
        while pending:
            batches = [
                [pending[place] for place in group]
                for group in groups([len(sources[index]) + 1 for index in pending], size)
            ]

            def work(group: Sequence[int], limits: Sequence[int] = limits) -> list[list[Hypothesis]]:
                chosen = [sources[index] for index in group]
                return self._run(chosen, [limits[index] for index in group], options, watch)

            for group, found in zip(batches, for_each(work, batches, self._threads, watch.abandon), strict=True):
                for index, hypotheses in zip(group, found, strict=True):
                    results[index] = hypotheses
            pending = [index for index in pending if limits[index] < max_lengths[index] and results[index][0].at_limit]
            limits = list(max_lengths)
        return self._detailed(sources, results, options)

    def search_briefly(self) -> AbstractContextManager[None]:
        """For a search with beams now and then: see :meth:`Sessions.briefly`."""
        return self._sessions.briefly()

    def steps(self, source: Sequence[int], *, max_length: int) -> Iterator[int]:
        """Greedy search one token at a time, for streaming; yields ids until the end token (not yielded) or the limit.

        The same ids as :meth:`generate` with one beam.
        """
        check_request(self._model, [source], [max_length], GREEDY)
        from mobilenmt.runtime.onnx.rows import Rules  # with numpy: not before a graph is there to run

        for token, _ in self._stepper().greedy(source, max_length, Rules.of(self._manifest, GREEDY)):
            if token == self._tokens.eos:
                return
            yield token

    def _open_static(self, pack: Pack) -> StaticHost | None:
        """The static graphs, where a provider wants them and takes them; the others' configuration is then the CPU's.

        Nothing of it is imported for a pack without them.
        """
        variant = pack.manifest.variant
        if variant is None or not (self._config.providers or self._config.static):
            return None
        from mobilenmt.runtime.onnx.static.providers import others, static_provider

        provider = static_provider(self._config, variant)
        if provider is None:
            return None
        from mobilenmt.runtime.onnx.static.host import StaticHost

        self._config = replace(self._config, providers=others(self._config.providers), static=False)
        check_providers(self._config)
        host = StaticHost(pack, variant, provider)
        return host if host.open() else None

    def _in_buckets(
        self,
        static: StaticHost,
        sources: Sequence[Sequence[int]],
        max_lengths: Sequence[int],
        options: SearchOptions,
        prefixes: Sequence[Sequence[int]] | None,
        watch: Watch,
    ) -> list[list[Hypothesis]]:
        """Greedy search with static graphs; what they cannot do, the CPU's do."""
        from mobilenmt.runtime.onnx.rows import Rules

        penalty = self._defaults.length_penalty if options.length_penalty is None else options.length_penalty

        def work(index: int) -> Hypothesis | None:
            rules = Rules.of(self._manifest, options, () if prefixes is None else prefixes[index])
            return static.search(sources[index], max_lengths[index], penalty, rules, watch.check)

        found = for_each(work, range(len(sources)), self._threads, watch.abandon)
        done = [index for index, output in enumerate(found) if output is not None]
        left = [index for index, output in enumerate(found) if output is None]
        results: list[list[Hypothesis]] = [[output] if output is not None else [] for output in found]

        def those(places: Sequence[int]) -> Sequence[Sequence[int]] | None:
            return None if prefixes is None else [prefixes[index] for index in places]

        detailed = self._detailed(
            [sources[index] for index in done], [results[index] for index in done], options, those(done)
        )
        for index, output in zip(done, detailed, strict=True):
            results[index] = output
        if left:
            chosen = [sources[index] for index in left]
            others = self._on_cpu(chosen, [max_lengths[index] for index in left], options, those(left), watch)
            for index, output in zip(left, others, strict=True):
                results[index] = output
        return results

    def _stepper(self) -> Stepper:
        from mobilenmt.runtime.onnx.stepwise import Stepper

        return Stepper(*self._sessions.stepper(), self._manifest, self._output)

    def _output(self) -> OutputLayer | None:
        from mobilenmt.runtime.onnx.output import OutputLayer

        with self._lock:
            if self._layer is None:
                self._layer = OutputLayer.read(self._folder)
            return self._layer

    def _needs_steps(self, options: SearchOptions) -> bool:
        """Whether the graphs of whole searches lack a rule."""
        own = self._defaults
        ngram = own.no_repeat_ngram_size if options.no_repeat_ngram is None else options.no_repeat_ngram
        return bool(ngram or options.forbidden or own.begin_suppress_tokens) or own.forced_bos_token_id is not None

    def _stepwise(
        self,
        sources: Sequence[Sequence[int]],
        max_lengths: Sequence[int],
        options: SearchOptions,
        prefixes: Sequence[Sequence[int]] | None,
        watch: Watch,
    ) -> list[list[Hypothesis]]:
        from mobilenmt.runtime.onnx.rows import Rules

        stepper = self._stepper()

        def work(index: int) -> list[Hypothesis]:
            rules = Rules.of(self._manifest, options, () if prefixes is None else prefixes[index])
            phrases = () if options.phrases is None else options.phrases.of[index]
            return stepper.search(sources[index], max_lengths[index], options, rules, watch.check, phrases)

        results = for_each(work, range(len(sources)), self._threads, watch.abandon)
        return self._detailed(sources, results, options, prefixes)

    def _detailed(
        self,
        sources: Sequence[Sequence[int]],
        results: list[list[Hypothesis]],
        options: SearchOptions,
        prefixes: Sequence[Sequence[int]] | None = None,
    ) -> list[list[Hypothesis]]:
        """The same with token scores and alignment, where they are asked for: another look at what was found."""
        if not options.token_scores and not options.alignment:
            return results
        from mobilenmt.runtime.onnx.rows import Rules

        stepper = self._stepper()

        def work(index: int) -> list[Hypothesis]:
            source = sources[index]
            rules = Rules.of(self._manifest, options, () if prefixes is None else prefixes[index])
            phrases = () if options.phrases is None else options.phrases.of[index]

            def scores(found: Hypothesis) -> tuple[float, ...]:
                return stepper.scores(source, found, rules, greedy=options.beam_size == 1, phrases=phrases)

            return [
                replace(
                    found,
                    token_scores=scores(found) if options.token_scores else None,
                    alignment=stepper.alignment(source, found) if options.alignment else None,
                )
                for found in results[index]
            ]

        return for_each(work, range(len(sources)), self._threads)

    def _run(
        self, sources: Sequence[Sequence[int]], max_lengths: Sequence[int], options: SearchOptions, watch: Watch
    ) -> list[list[Hypothesis]]:
        import numpy as np

        ids, lengths = self._pad(sources)
        penalty = self._defaults.length_penalty if options.length_penalty is None else options.length_penalty
        feed = {
            "input_ids": ids,
            "max_length": np.array(max_lengths, np.int64),
            "min_length": np.array([max(options.min_length, self._defaults.min_length)], np.int64),
            "length_penalty": np.array([penalty], np.float32),
        }
        how = None
        if options.beam_size == 1 and self._sessions.has_greedy and len(sources) == 1:
            session = self._sessions.greedy()
        elif options.beam_size == 1 and self._sessions.has_greedy:
            session, how = self._sessions.batch()
            feed["lengths"] = lengths
        else:
            session, how = self._sessions.translator()
            feed["beam_size"] = np.array([options.beam_size], np.int64)
            if not self._sessions.has_greedy:
                feed["lengths"] = lengths
        sequences, scores = run_session(session, ["sequences", "scores"], feed, how, watch)
        return [
            [
                self._hypothesis(sequences[row, beam].tolist(), float(scores[row, beam]), max_lengths[row])
                for beam in range(options.n_best)
            ]
            for row in range(len(sources))
        ]

    def _hypothesis(self, sequence: list[int], score: float, max_length: int) -> Hypothesis:
        try:
            end = sequence.index(self._tokens.eos)
            generated = end + 1
        except ValueError:
            end = min(len(sequence), max_length - 1)
            while end and sequence[end - 1] == self._tokens.pad:
                end -= 1
            generated = end
        flags = ("truncated",) if generated >= max_length - 1 else ()
        return Hypothesis(tuple(sequence[:end]), score, generated, flags)

    def _pad(self, sources: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ids with the end token, padded on the right: int64 [B, S], and their lengths, int64 [B]."""
        import numpy as np

        lengths = np.array([len(source) + 1 for source in sources], np.int64)
        ids = np.full((len(sources), int(lengths.max())), self._tokens.pad, np.int64)
        for row, source in zip(ids, sources, strict=True):
            row[: len(source)] = source
            row[len(source)] = self._tokens.eos
        return ids, lengths
