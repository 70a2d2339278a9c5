"""Search token by token with decoder.onnx: for streams, and for rules that the graphs of whole searches do not know.

Slower than those graphs, and the same words but where an INT8 model is unsure. It also looks back at an output: what
each of its tokens was worth, and which source token it looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.hypothesis import Hypothesis, SearchOptions
from mobilenmt.runtime.manifest import PackManifest
from mobilenmt.runtime.onnx.rows import DEAD, Array, Rules, Sentence, log_softmax, may_improve, top
from mobilenmt.runtime.onnx.sessions import run_session

if TYPE_CHECKING:
    import onnxruntime

    from mobilenmt.runtime.onnx.output import OutputLayer


class Stepper:
    """One sentence at a time.

    Args:
        encoder, decoder: sessions of encoder.onnx and decoder.onnx.
        manifest: the pack's.
        output: gives the output layer, for phrases that a shortlist leaves out.
    """

    def __init__(
        self,
        encoder: onnxruntime.InferenceSession,
        decoder: onnxruntime.InferenceSession,
        manifest: PackManifest,
        output: Callable[[], OutputLayer | None] = lambda: None,
    ) -> None:
        self._encoder, self._decoder = encoder, decoder
        self._output = output
        self._manifest, self._model = manifest, manifest.model
        self._names = [output.name for output in encoder.get_outputs() if output.name != "encoder_state"]
        layers = range(self._model.decoder_layers)
        self._past = [f"past_{part}.{index}" for index in layers for part in ("key", "value")]
        found = {output.name for output in decoder.get_outputs()}
        self._queries = [f"cross_query.{index}" for index in layers if f"cross_query.{index}" in found]

    @property
    def looks(self) -> bool:
        """Whether decoder.onnx tells where it looks; those of format 2.0 do not."""
        return bool(self._queries)

    def greedy(self, source: Sequence[int], max_length: int, rules: Rules) -> Iterator[tuple[int, float]]:
        """Tokens and their log-probabilities, up to the end token or the limit."""
        return greedy(self._encode(source, 1).step, self._manifest, max_length, rules)

    def search(
        self,
        source: Sequence[int],
        max_length: int,
        options: SearchOptions,
        rules: Rules,
        check: Callable[[], None] = lambda: None,
        phrases: Sequence[tuple[int, ...]] = (),
    ) -> list[Hypothesis]:
        """The ``options.n_best`` hypotheses, best first; ``check`` is called for each token, and may raise.

        With ``phrases`` those that hold them, as ``options.phrases`` says.
        """
        own = self._manifest.generation
        penalty = own.length_penalty if options.length_penalty is None else options.length_penalty
        found: list[tuple[float, tuple[int, ...]]] = []
        if options.beam_size == 1:
            pairs = []
            for pair in self.greedy(source, max_length, rules):
                check()
                pairs.append(pair)
            return [greedy_hypothesis(pairs, max_length, penalty, rules.eos)]
        else:
            if phrases and options.phrases is not None:
                from mobilenmt.runtime.onnx.constrained import Phrasing, search  # most calls need none

                found = search(
                    self._encode(source, options.beam_size, [token for phrase in phrases for token in phrase]),
                    self._manifest.tokens.start,
                    Phrasing(phrases, options.phrases.continuing),
                    rules,
                    own,
                    beams=options.beam_size,
                    wanted=options.n_best,
                    limit=max_length - 1,
                    penalty=penalty,
                    check=check,
                )
            else:
                found = self._beam(source, max_length, options.beam_size, penalty, rules, check)
            found.sort(key=lambda item: -item[0])
            found = found or [(-np.inf, (rules.eos,))]
            found = [found[min(rank, len(found) - 1)] for rank in range(options.n_best)]
        return [_hypothesis(tokens, score, max_length, rules.eos) for score, tokens in found]

    def _beam(
        self,
        source: Sequence[int],
        max_length: int,
        beams: int,
        penalty: float,
        rules: Rules,
        check: Callable[[], None],
    ) -> list[tuple[float, tuple[int, ...]]]:
        """Score and tokens of all that ended; see the C core's beam.c, which does the same."""
        own, limit = self._manifest.generation, max_length - 1
        forced = own.forced_eos_token_id
        sentence = self._encode(source, beams)
        paths: list[tuple[int, ...]] = [(self._manifest.tokens.start,)] * beams
        running = np.full(beams, DEAD)
        running[0] = 0.0
        ended = np.full(beams, DEAD)
        found: list[tuple[float, tuple[int, ...]]] = []

        def improvable(made: int) -> bool:
            return may_improve(own, running[0], ended[-1], made, limit, penalty)

        made = 0
        while made < (limit if forced is None else limit - 1):
            check()
            logits = sentence.step([path[-1] for path in paths])
            made += 1
            if made <= len(rules.prefix):
                paths = [(*path, rules.prefix[made - 1]) for path in paths]
                if made == limit:
                    found.append((0.0, paths[0][1:]))
                continue
            scores = np.stack([log_softmax(row) for row in logits])
            for row, path in zip(scores, paths, strict=True):
                rules.apply(row, path)
            if own.renormalize_logits:
                scores = np.stack([log_softmax(row) for row in scores])
            total = (scores + running[:, None]).ravel()
            best = top(total, 2 * beams)
            best = best[total[best] > -np.inf]
            going: list[tuple[float, int, int]] = []
            for rank, index in enumerate(best.tolist()):
                parent, token = divmod(index, scores.shape[1])
                score = float(total[index])
                at_limit = forced is None and made == limit
                if rank < beams and (token == rules.eos or at_limit):
                    found.append((score / made**penalty, (*paths[parent][1:], token)))
                    if token == rules.eos:
                        ended = -np.sort(-np.append(ended, score / made**penalty))[:beams]
                if token != rules.eos and len(going) < beams:
                    going.append((score, parent, token))
            going += [(DEAD, 0, rules.eos)] * (beams - len(going))
            running = np.array([score for score, _, _ in going])
            paths = [(*paths[parent], token) for _, parent, token in going]
            sentence.follow([parent for _, parent, _ in going])
            if not improvable(made):
                break
        if forced is not None and made + 1 == limit and (not made or improvable(made)):
            found += [
                (score / limit**penalty, (*path[1:], forced))
                for score, path in zip(running.tolist(), paths, strict=True)
            ]
        return found

    def scores(
        self,
        source: Sequence[int],
        output: Hypothesis,
        rules: Rules,
        *,
        greedy: bool,
        phrases: Sequence[tuple[int, ...]] = (),
    ) -> tuple[float, ...]:
        """Log-probability of each token of an output: see :attr:`Hypothesis.token_scores`.

        ``phrases`` as for :meth:`search`.
        """
        from mobilenmt.runtime.onnx.constrained import Phrasing, Progress

        tokens = self._tokens(output, rules)
        sentence = self._encode(source, 1, [token for phrase in phrases for token in phrase])
        phrasing, progress = Phrasing(phrases, b""), Progress()
        path: tuple[int, ...] = (self._manifest.tokens.start,)
        found = []
        own = self._manifest.generation
        for token in tokens:
            logits = sentence.step([path[-1]])[0]
            last = output.at_limit and len(path) == len(tokens) and token == own.forced_eos_token_id
            if len(path) <= len(rules.prefix) or last:
                found.append(0.0)
            else:
                row = logits if greedy else log_softmax(logits)
                rules.apply(row, path, phrasing.following(progress))
                if greedy or own.renormalize_logits:
                    row = log_softmax(row)
                found.append(float(row[token]))
            path = (*path, token)
            progress = phrasing.advance(progress, token)
        return tuple(found)

    def attention(self, source: Sequence[int], target: Sequence[int]) -> Array:
        """What each step looks at: fp32 [layers, heads, steps, source tokens and the end token].

        The last of the steps is the one behind all of ``target``.

        Raises:
            InputError: decoder.onnx does not tell.
        """
        if not self._queries:
            raise InputError(
                "the pack's decoder.onnx does not tell where it looks: mobilenmt upgrade PACK lets it, "
                "or the C core knows"
            )
        sentence = self._encode(source, 1)
        heads = self._model.decoder_attention_heads
        steps = []
        for token in (self._manifest.tokens.start, *target):
            sentence.step([token])
            rows = []
            for index, query in enumerate(sentence.queries):
                key = sentence.fixed[f"cross_key.{index}"][0]  # [heads, S, size]
                row = query.reshape(heads, 1, -1) @ key.transpose(0, 2, 1) / np.sqrt(key.shape[-1])
                rows.append(np.exp(log_softmax(row[:, 0])))
            steps.append(np.stack(rows))
        return np.stack(steps, axis=2)

    def alignment(self, source: Sequence[int], output: Hypothesis) -> tuple[int, ...]:
        """See :attr:`Hypothesis.alignment`; InputError if decoder.onnx does not tell."""
        chosen = self._manifest.alignment
        looked = self.attention(source, output.ids)[self._model.decoder_layers - 1 if chosen is None else chosen.layer]
        row = looked.sum(axis=0) if chosen is None or chosen.head is None else looked[chosen.head]
        places = row.argmax(axis=1).tolist()
        later = 0 if chosen is None else chosen.later
        return tuple(places[later : later + len(output.ids)])

    def _tokens(self, output: Hypothesis, rules: Rules) -> tuple[int, ...]:
        return output.ids if output.generated == len(output.ids) else (*output.ids, rules.eos)

    def _encode(self, source: Sequence[int], rows: int, more: Sequence[int] = ()) -> Sentence:
        """A sentence in so many rows; ``more`` are candidates as well."""
        ids = np.array([[*source, self._manifest.tokens.eos]], np.int64)
        feed = {"input_ids": ids, "lengths": np.array([ids.shape[1]], np.int64)}
        fixed = dict(zip(self._names, run_session(self._encoder, self._names, feed), strict=True))
        candidates = fixed.pop("candidates", None)
        if candidates is not None and more and (output := self._output()) is not None:
            fixed, candidates = output.add(fixed, candidates, more)
        for name, value in fixed.items():
            if not name.startswith("candidate"):
                fixed[name] = np.repeat(value, rows, axis=0)
        heads, size = self._model.decoder_attention_heads, self._model.d_model // self._model.decoder_attention_heads
        past = {name: np.zeros((rows, heads, 0, size), np.float32) for name in self._past}
        return Sentence(self._decoder, fixed, candidates, past, self._queries, self._model.target_vocab_size)


def greedy(
    step: Callable[[Sequence[int]], Array], manifest: PackManifest, max_length: int, rules: Rules
) -> Iterator[tuple[int, float]]:
    """Tokens and their log-probabilities, up to the end token or the limit; ``step`` gives the logits [1, V] behind
    the last token."""
    path: tuple[int, ...] = (manifest.tokens.start,)
    own = manifest.generation
    while len(path) < max_length:
        if own.forced_eos_token_id is not None and len(path) == max_length - 1:
            yield own.forced_eos_token_id, 0.0
            return
        logits = step([path[-1]])[0]
        if len(path) <= len(rules.prefix):
            token, score = rules.prefix[len(path) - 1], 0.0
        else:
            rules.apply(logits, path)
            token = int(logits.argmax())
            score = float(log_softmax(logits)[token])
            if score != score:  # nothing was allowed
                token, score = rules.eos, -np.inf
        yield token, score
        if token == rules.eos:
            return
        path = (*path, token)


def greedy_hypothesis(pairs: Sequence[tuple[int, float]], max_length: int, penalty: float, eos: int) -> Hypothesis:
    """The output of a greedy search, of tokens and their log-probabilities."""
    score = sum(value for _, value in pairs) / len(pairs) ** penalty
    return _hypothesis(tuple(token for token, _ in pairs), score, max_length, eos)


def _hypothesis(tokens: tuple[int, ...], score: float, max_length: int, eos: int) -> Hypothesis:
    return Hypothesis(
        tokens[:-1] if tokens[-1] == eos else tokens,
        float(score),
        len(tokens),
        ("truncated",) if len(tokens) >= max_length - 1 else (),
    )
