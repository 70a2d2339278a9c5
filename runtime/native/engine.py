"""The engine on the C core: the same interface as :class:`mobilenmt.runtime.onnx.engine.Engine`, without ONNX Runtime.

What comes out, ids and scores, is the same bit for bit on every processor, alone or together with others, by one thread
or several.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from ctypes import Array, byref, c_uint32, sizeof
from typing import Any

from mobilenmt.runtime.background import Ended, Watch, for_each, next_of
from mobilenmt.runtime.checks import shown
from mobilenmt.runtime.errors import PackError
from mobilenmt.runtime.hypothesis import GREEDY, Hypothesis, Phrases, SearchOptions, check_request
from mobilenmt.runtime.manifest import MANIFEST_NAME, PackManifest
from mobilenmt.runtime.native.library import (
    NO_RULE,
    NO_TOKEN,
    PAUSED,
    STOPPED,
    Callback,
    Error,
    Info,
    NativeModel,
    Request,
    Result,
    fail,
)
from mobilenmt.runtime.pack import Pack

_LOOK_UP = 0.02  # seconds between looks whether a search has to end; handlers of signals run then, too
_SOON = 1e-6  # seconds, for a call whose time is just over: 0 would be no limit
_EARLY = (False, True, "never")  # how mn_info says early_stopping
_AT_ONCE = 256  # sentences handed over in one call: their results are kept until it ends


class NativeEngine:
    """Searches with the C core. Safe to use from several threads at once.

    Args:
        pack: a pack with a native.bin.
        threads: sentences worked on at once; 0 takes one a core.
        kernels: a set of kernels, for tests; None for the best that runs here.

    Raises:
        EngineError: the C core is not there.
        PackError: the pack's files are damaged, or its pack.json contradicts its native.bin.
    """

    def __init__(self, pack: Pack, threads: int = 1, kernels: str | None = None) -> None:
        pack.file("native.bin")
        self.model = NativeModel(pack.path, kernels)
        _check_agreement(pack, self.model.info)
        self._info = pack.manifest.model
        self._tokens = pack.manifest.tokens
        self._defaults = pack.manifest.generation
        self._threads = threads or os.cpu_count() or 1

    @property
    def max_length(self) -> int:
        """Longest output the model has positions for, the start token counted."""
        return self._info.max_positions

    def generate(
        self,
        sources: Sequence[Sequence[int]],
        max_lengths: Sequence[int],
        options: SearchOptions = GREEDY,
        prefixes: Sequence[Sequence[int]] | None = None,
    ) -> list[list[Hypothesis]]:
        """Translate ids, ``options.n_best`` hypotheses each, best first.

        The arguments are those of :meth:`mobilenmt.runtime.onnx.engine.Engine.generate`.

        Raises:
            InputError: an argument is out of range.
            EngineError: memory is short.
            DeadlineError, StoppedError: ``options`` ended it.
        """
        check_request(self._info, sources, max_lengths, options, prefixes, self._tokens.eos)
        watch = Watch(options.seconds, options.stop)

        def work(part: range) -> list[list[Hypothesis]]:
            watch.check()
            limits = [max_lengths[i] for i in part]
            begun = None if prefixes is None else [prefixes[i] for i in part]
            request = self._request([sources[i] for i in part], limits, options, begun)
            if options.phrases is not None:
                _put_phrases(request, options.phrases, part)
            left = watch.left
            request.seconds = 0.0 if left is None else max(left, _SOON)
            return self._run(request, limits, watch.check, options.token_scores)

        parts = for_each(work, _parts(len(sources), self._threads), self._threads, watch.abandon)
        return [found for part in parts for found in part]

    def search_briefly(self) -> AbstractContextManager[None]:
        """Nothing to do: a beam needs no other model."""
        return nullcontext()

    def steps(self, source: Sequence[int], *, max_length: int) -> Iterator[int]:
        """Greedy search one token at a time, for streaming; yields ids until the end token (not yielded) or the limit.

        The same ids as :meth:`generate` with one beam. A stream that is left early ends the search at the next token.
        """
        check_request(self._info, [source], [max_length], GREEDY)
        found: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        left: list[bool] = []

        def look(user: object, sentence: int, token: int) -> int:
            found.put(token)  # no handler of signals comes between: they run in the main thread alone
            return len(left)

        def work() -> None:
            request = self._request([source], [max_length], GREEDY)
            request.callback = Callback(look)
            try:
                self._run(request, [max_length])
                found.put(None)
            except BaseException as error:  # handed to the thread that reads the stream
                found.put(error)

        threads: list[Ended] = []
        try:
            threads.append(Ended(work))
            while (item := next_of(found)) is not None:
                if isinstance(item, BaseException):
                    raise item
                if item == self._tokens.eos:
                    break
                yield item
        finally:
            left.append(True)
            for thread in threads:
                thread.wait()

    def _request(
        self,
        sources: Sequence[Sequence[int]],
        max_lengths: Sequence[int],
        options: SearchOptions,
        prefixes: Sequence[Sequence[int]] | None = None,
    ) -> Request:
        ids = [token for source in sources for token in (*source, self._tokens.eos)]
        request = Request(sizeof(Request), len(sources))
        request.ids = _array(ids)
        request.lengths = _array([len(source) + 1 for source in sources])
        request.max_lengths = _array(max_lengths)
        request.min_length, request.beam_size, request.n_best = options.min_length, options.beam_size, options.n_best
        penalty = self._defaults.length_penalty if options.length_penalty is None else options.length_penalty
        request.length_penalty = penalty
        request.forbidden, request.forbidden_count = _array(options.forbidden), len(options.forbidden)
        if options.no_repeat_ngram is not None:
            request.no_repeat_ngram = min(options.no_repeat_ngram, NO_RULE) or NO_RULE
        request.alignment = options.alignment
        if prefixes is not None:
            request.prefix = _array([token for prefix in prefixes for token in prefix])
            request.prefix_lengths = _array([len(prefix) for prefix in prefixes])
        return request

    def _run(
        self,
        request: Request,
        max_lengths: Sequence[int],
        look: Callable[[], None] = lambda: None,
        token_scores: bool = False,
    ) -> list[list[Hypothesis]]:
        """Translate; ``look`` is called now and then, and ends it by raising.

        The search comes back for that and goes on. Python must not be called from within it in the main thread: what a
        handler of a signal raises there is lost in ctypes, which can only print it.
        """
        request.pause_seconds = _LOOK_UP
        library, result, error = self.model.library, Result(sizeof(Result)), Error()
        with self.model.context() as context:
            status = library.mn_translate(context, byref(request), byref(result), byref(error))
            while status == PAUSED:
                look()
                status = library.mn_resume(context, byref(result), byref(error))
            if status == STOPPED:  # its stream was left
                return []
            if status:
                raise fail(error)
            best = request.n_best
            return [
                [self._hypothesis(result, row * best + rank, limit, token_scores) for rank in range(best)]
                for row, limit in enumerate(max_lengths)
            ]

    def _hypothesis(self, result: Result, index: int, max_length: int, token_scores: bool) -> Hypothesis:
        generated, length = result.generated[index], result.lengths[index]
        return Hypothesis(
            tuple(result.ids[index][:length]),
            result.scores[index],
            generated,
            ("truncated",) if generated >= max_length - 1 else (),
            tuple(result.token_scores[index][:generated]) if token_scores else None,
            tuple(result.alignments[index][:length]) if result.alignments else None,
        )


def _check_agreement(pack: Pack, info: Info) -> None:
    """Whether native.bin was written for this pack.json.

    Raises:
        PackError: a value differs; names both.
    """
    for key, (said, found) in _both(pack.manifest, info).items():
        if said != found:
            raise PackError(
                f"{pack.path}: {MANIFEST_NAME} says {key}: {shown(said)}, but native.bin {shown(found)}; "
                "one of them is of another pack: copy the pack again, or let mobilenmt upgrade write native.bin anew"
            )


def _both(manifest: PackManifest, info: Info) -> dict[str, tuple[Any, Any]]:
    """What pack.json and native.bin both say, by its key in pack.json."""
    model, tokens, generation, alignment = manifest.model, manifest.tokens, manifest.generation, manifest.alignment

    def token(value: int) -> int | None:
        return None if value == NO_TOKEN else value

    found: dict[str, tuple[Any, Any]] = {
        "model.d_model": (model.d_model, info.d_model),
        "model.encoder_layers": (model.encoder_layers, info.encoder_layers),
        "model.decoder_layers": (model.decoder_layers, info.decoder_layers),
        "model.encoder_attention_heads": (model.encoder_attention_heads, info.encoder_heads),
        "model.decoder_attention_heads": (model.decoder_attention_heads, info.decoder_heads),
        "model.encoder_ffn_dim": (model.encoder_ffn_dim, info.encoder_ffn),
        "model.decoder_ffn_dim": (model.decoder_ffn_dim, info.decoder_ffn),
        "model.source_vocab_size": (model.source_vocab_size, info.source_vocabulary),
        "model.target_vocab_size": (model.target_vocab_size, info.target_vocabulary),
        "model.max_positions": (model.max_positions, info.max_positions),
        "tokens.start": (tokens.start, info.start),
        "tokens.eos": (tokens.eos, info.eos),
        "tokens.pad": (tokens.pad, info.pad),
        "tokens.unk": (tokens.unk, token(info.unk)),
        "generation.forced_eos_token_id": (generation.forced_eos_token_id, token(info.forced_eos)),
        "generation.forced_bos_token_id": (generation.forced_bos_token_id, token(info.forced_bos)),
        "generation.early_stopping": (generation.early_stopping, _EARLY[info.early_stopping]),
        "generation.renormalize_logits": (generation.renormalize_logits, bool(info.renormalize)),
        "generation.no_repeat_ngram_size": (generation.no_repeat_ngram_size, info.no_repeat_ngram),
        "generation.min_length": (max(generation.min_length, 1), max(info.min_length, 1)),  # 0 and 1 are no rule
        "the number of generation.bad_token_ids": (len(generation.bad_token_ids), info.bad_tokens),
        "the number of generation.begin_suppress_tokens": (
            len(generation.begin_suppress_tokens),
            info.not_first_tokens,
        ),
    }
    if alignment is not None:
        found["alignment.layer"] = alignment.layer, info.alignment_layer
        found["alignment.head"] = alignment.head, token(info.alignment_head)
        found["alignment.later"] = alignment.later, info.alignment_later
    return found


def _put_phrases(request: Request, phrases: Phrases, part: range) -> None:
    """Those of some sentences."""
    found = [phrases.of[i] for i in part]
    request.phrases = _array([token for of in found for phrase in of for token in phrase])
    request.phrase_lengths = _array([len(phrase) for of in found for phrase in of])
    request.phrase_counts = _array([len(of) for of in found])
    request.continuing = phrases.continuing or None


def _array(values: Sequence[int]) -> Array[c_uint32]:
    return (c_uint32 * len(values))(*values)


def _parts(count: int, threads: int) -> list[range]:
    """Sentences in parts that lie together, a few for each thread."""
    size = max(1, min(_AT_ONCE, -(-count // threads)))
    return [range(start, min(count, start + size)) for start in range(0, count, size)]
