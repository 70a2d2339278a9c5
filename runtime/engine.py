"""The engine: ids in, ids and scores out. It knows tensors, not text."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from mobilenmt.runtime.background import for_each
from mobilenmt.runtime.batching import MOST_SENTENCES, groups, usual_limit
from mobilenmt.runtime.hypothesis import GREEDY, Hypothesis, SearchOptions, check_request
from mobilenmt.runtime.ort import SessionConfig
from mobilenmt.runtime.pack import Pack
from mobilenmt.runtime.sessions import Sessions, run_session

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


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
        self._model = pack.manifest.model
        self._tokens = pack.manifest.tokens
        self._defaults = pack.manifest.generation
        self._sessions = Sessions(pack, self._config)
        self._threads = self._config.threads or os.cpu_count() or 1

    @property
    def max_length(self) -> int:
        """Longest output the model has positions for, the start token counted."""
        return self._model.max_positions

    def generate(
        self, sources: Sequence[Sequence[int]], max_lengths: Sequence[int], options: SearchOptions = GREEDY
    ) -> list[list[Hypothesis]]:
        """Translate ids, ``options.n_best`` hypotheses each, best first; as many sentences at once as there are
        threads.

        Args:
            sources: ids of each sentence, the end token not included; at most max_positions - 1 of them.
            max_lengths: limit for each sentence, start and end token counted, from 2 to max_positions.
            options: how to search.

        Raises:
            InputError: an argument is out of range.
            EngineError: ONNX Runtime failed.
        """
        check_request(self._model, sources, max_lengths, options)
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
                return self._run(chosen, [limits[index] for index in group], options)

            for group, found in zip(batches, for_each(work, batches, self._threads), strict=True):
                for index, hypotheses in zip(group, found, strict=True):
                    results[index] = hypotheses
            pending = [index for index in pending if limits[index] < max_lengths[index] and results[index][0].at_limit]
            limits = list(max_lengths)
        return results

    def search_briefly(self) -> AbstractContextManager[None]:
        """For a search with beams now and then: see :meth:`Sessions.briefly`."""
        return self._sessions.briefly()

    def steps(self, source: Sequence[int], *, max_length: int) -> Iterator[int]:
        """Greedy search one token at a time, for streaming; yields ids until the end token (not yielded) or the limit.

        The same ids as :meth:`generate` with one beam.
        """
        import numpy as np

        check_request(self._model, [source], [max_length], GREEDY)
        encoder, decoder = self._sessions.stepper()
        ids, lengths = self._pad([source])
        names = [output.name for output in encoder.get_outputs() if output.name != "encoder_state"]
        fixed = dict(zip(names, run_session(encoder, names, {"input_ids": ids, "lengths": lengths}), strict=True))
        candidates = fixed.pop("candidates", None)  # without a shortlist logit i is that of token i
        heads = self._model.decoder_attention_heads
        empty = np.zeros((1, heads, 0, self._model.d_model // heads), np.float32)
        layers = range(self._model.decoder_layers)
        past = {f"past_{part}.{index}": empty for index in layers for part in ("key", "value")}
        outputs = ["logits", *(name.replace("past", "present") for name in past)]
        token = self._tokens.start
        for position in range(max_length - 1):
            feed = {
                "input_ids": np.array([[token]], np.int64),
                "position": np.array([position], np.int64),
                **fixed,
                **past,
            }
            logits, *present = run_session(decoder, outputs, feed)
            past = dict(zip(past, present, strict=True))
            scores = logits[0, 0]
            if candidates is None:
                scores[list(self._defaults.bad_token_ids)] = -np.inf
            token = int(scores.argmax()) if candidates is None else int(candidates[scores.argmax()])
            forced = self._defaults.forced_eos_token_id
            if position == max_length - 2 and forced is not None:
                token = forced
            if token == self._tokens.eos:
                return
            yield token

    def _run(
        self, sources: Sequence[Sequence[int]], max_lengths: Sequence[int], options: SearchOptions
    ) -> list[list[Hypothesis]]:
        import numpy as np

        ids, lengths = self._pad(sources)
        penalty = self._defaults.length_penalty if options.length_penalty is None else options.length_penalty
        feed = {
            "input_ids": ids,
            "max_length": np.array(max_lengths, np.int64),
            "min_length": np.array([options.min_length], np.int64),
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
        sequences, scores = run_session(session, ["sequences", "scores"], feed, how)
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
