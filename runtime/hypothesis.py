"""What every engine takes and gives: how to search, and what was found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.manifest import Confidence, ModelInfo
from mobilenmt.runtime.sections import MOST_PENALTY

MAX_BEAMS = 64


@dataclass(frozen=True)
class Hypothesis:
    """One output: ``ids`` without start and end token; ``score`` as ``generate`` defines it."""

    ids: tuple[int, ...]
    score: float
    """Sum of the log-probabilities, ``</s>`` included, over (generated tokens)^length_penalty."""
    generated: int
    """Tokens generated, the ``</s>`` counted."""
    flags: tuple[str, ...] = ()
    """What happened to it: ``truncated`` where the length limit ended it, not the model; a retry adds others."""
    token_scores: tuple[float, ...] | None = None
    """Log-probability of each token generated, the ``</s>`` too; 0 for forced ones. None if not asked for."""
    alignment: tuple[int, ...] | None = None
    """For each of ``ids`` the place of the source id it looks at, or the number of source ids for their ``</s>``, which
    is to say none. None if not asked for."""

    @property
    def at_limit(self) -> bool:
        """Whether the length limit ended it."""
        return "truncated" in self.flags


MAX_PHRASES = 64


@dataclass(frozen=True)
class Phrases:
    """What the outputs of each sentence of a call have to hold, token for token: see :attr:`SearchOptions.phrases`.

    Raises:
        InputError: something makes no sense with any model.
    """

    of: tuple[tuple[tuple[int, ...], ...], ...]
    """The phrases of each sentence, in the order of the sources: ids of the target, at least one each. One that is
    given twice has to come twice. Two do not overlap."""
    continuing: bytes = b""
    """For each id of the target 1 if it may not follow a phrase, since it continues a word, else 0; empty for none."""

    def __post_init__(self) -> None:
        try:
            of = tuple(tuple(_ids("phrase ids", phrase) for phrase in found) for found in self.of)
        except TypeError:
            raise InputError(f"phrases must be sequences of ids for each sentence, not {self.of!r:.100}") from None
        for found in of:
            if len(found) > MAX_PHRASES:
                raise InputError(f"a sentence may have {MAX_PHRASES} phrases, not {len(found)}")
            if not all(found):
                raise InputError("a phrase is empty: it needs at least one id")
        if not isinstance(self.continuing, bytes):
            raise InputError(f"what continues a word must be told in bytes, not {self.continuing!r:.100}")
        object.__setattr__(self, "of", of)


@dataclass(frozen=True)
class SearchOptions:
    """How to search, for all sentences of a call; checked when made, and by :func:`check_request` against a model.

    Raises:
        InputError: a value makes no sense with any model.
    """

    beam_size: int = 1
    """Hypotheses kept at each step, at most 64; 1 for greedy search."""
    n_best: int = 1
    """Hypotheses returned, at most ``beam_size``."""
    min_length: int = 0
    """No end token before this many tokens, the start token counted."""
    length_penalty: float | None = None
    """Exponent of the length in the score; None for the pack's own."""
    together: bool = False
    """Put sentences through a graph together, some at a time, which is faster for many. In an INT8 pack they then share
    the scale of their activations, so that a sentence may come out otherwise than alone. The C core always works on
    several, and each comes out as it would alone."""
    forbidden: tuple[int, ...] = ()
    """Ids that are never generated, beside the pack's."""
    no_repeat_ngram: int | None = None
    """No n-gram of this many tokens comes twice, the start token counted; 0 for no such rule, None for the pack's."""
    seconds: float | None = None
    """Time for the whole call; None for no limit."""
    stop: Callable[[], bool] | None = None
    """Asked some fifty times a second while a call is at work, in any thread; true ends it."""
    token_scores: bool = False
    """Give the score of each token."""
    alignment: bool = False
    """Give the source position of each token."""
    phrases: Phrases | None = None
    """What outputs have to hold, by beam search with dynamic beam allocation (Post and Vilar 2018, Hu et al. 2019),
    ``beam_size`` 2 at least, better above 4. What a prefix holds counts. ``no_repeat_ngram`` bans no token that leads
    on in a phrase; what is forbidden stays so. An output without all of them is given only if the search found none
    with, up to the limit."""

    def __post_init__(self) -> None:
        _check("beam_size", self.beam_size, 1, MAX_BEAMS)
        if type(self.n_best) is not int or not 1 <= self.n_best <= self.beam_size:
            raise InputError(f"n_best must be from 1 to beam_size ({self.beam_size}), not {self.n_best!r}")
        _check("min_length", self.min_length, 0)
        penalty = self.length_penalty
        if penalty is not None and not (_is_number(penalty) and abs(penalty) <= MOST_PENALTY):
            raise InputError(f"length_penalty must be from -{MOST_PENALTY} to {MOST_PENALTY}, not {penalty!r}")
        object.__setattr__(self, "forbidden", _ids("forbidden ids", self.forbidden))
        if self.no_repeat_ngram is not None:
            _check("no_repeat_ngram", self.no_repeat_ngram, 0)
        if self.phrases is not None and not isinstance(self.phrases, Phrases):
            raise InputError(f"phrases must be Phrases, not {self.phrases!r:.100}")
        if self.seconds is not None and not (_is_number(self.seconds) and self.seconds > 0):
            raise InputError(f"seconds must be above 0, not {self.seconds!r}")
        if self.stop is not None and not callable(self.stop):
            raise InputError(f"stop must be a function, not {self.stop!r}")


def evidence(hypothesis: Hypothesis) -> tuple[float, float, float]:
    """What speaks for an output: the mean and the least log-probability of its tokens, the logarithm of their number.

    Raises:
        InputError: its token scores were not asked for.
    """
    scores = hypothesis.token_scores
    if scores is None:
        raise InputError("a confidence needs token scores: SearchOptions(token_scores=True)")
    worst = -1e3  # where nothing was allowed a score is minus infinity
    least = min(scores, default=-math.inf)
    bounded = scores if least >= worst else [max(score, worst) for score in scores] or [worst]
    return sum(bounded) / len(bounded), max(least, worst), math.log(len(bounded))


def confidence(hypothesis: Hypothesis, parameters: Confidence) -> float:
    """The probability that an output is good, from 0 to 1: a sentence chrF of 30 at least, on text as the dev text was.

    Raises:
        InputError: its token scores were not asked for.
    """
    mean, least, length = evidence(hypothesis)
    x = parameters.bias + parameters.mean * mean + parameters.least * least + parameters.length * length
    return 1 / (1 + math.exp(-max(-700.0, min(700.0, x))))


def _check(name: str, value: int, least: int, most: int | None = None) -> None:
    if type(value) is not int or value < least or (most is not None and value > most):
        limits = f"at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{name} must be an integer, {limits}, not {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ids(name: str, values: Iterable[int], size: int | None = None, but: int | None = None) -> tuple[int, ...]:
    """Ids as plain integers, those of numpy too; from 0 to ``size`` - 1, and not ``but``.

    Raises:
        InputError: one is not.
    """
    try:
        found = tuple(map(index, values))
    except TypeError:
        raise InputError(f"{name} must be integers, not {values!r:.100}") from None
    if size is not None and any(not 0 <= token < size or token == but for token in found):
        other = "" if but is None else ", and not the end token"
        raise InputError(f"{name} must be from 0 to {size - 1}{other}")
    return found


GREEDY = SearchOptions()
"""The pack's own settings but for the beam."""


def most_beams(model: ModelInfo) -> int:
    """The widest beam a search can have."""
    return min(MAX_BEAMS, model.target_vocab_size // 2)


def usual_length(source: Sequence[int], most: int) -> int:
    """Length limit relative to the source, start token counted, at most ``most``.

    On 100,000 human English-German translations fewer than one in a thousand is longer; a short source may grow
    threefold, a long one doubles at most.
    """
    count = len(source)
    return min(3 * count + 5, 2 * count + 11, most)


def check_search(model: ModelInfo, options: SearchOptions, max_length: int | None) -> None:
    """Check a search against a model, ``max_length`` None where there is no limit but the model's.

    Raises:
        InputError: something is out of its range.
    """
    _check("beam_size", options.beam_size, 1, most_beams(model))
    limit = model.max_positions if max_length is None else max_length
    if type(limit) is not int or not 2 <= limit <= model.max_positions:
        raise InputError(f"max_length must be from 2 to the model's {model.max_positions}, not {limit!r}")
    if options.min_length > limit:
        raise InputError(f"min_length must be from 0 to max_length ({limit}), not {options.min_length}")


def check_request(
    model: ModelInfo,
    sources: Sequence[Sequence[int]],
    max_lengths: Sequence[int],
    options: SearchOptions,
    prefixes: Sequence[Sequence[int]] | None = None,
    eos: int | None = None,
) -> None:
    """Check all that a search is given.

    Raises:
        InputError: something is out of range.
    """
    if len(max_lengths) != len(sources):
        raise InputError(f"{len(sources)} sources need as many length limits, not {len(max_lengths)}")
    for limit in {None, *_ids("length limits", max_lengths)}:
        check_search(model, options, limit)
    for source in sources:
        count = len(_ids("source ids", source, model.source_vocab_size))
        if count >= model.max_positions:
            raise InputError(f"a source of {count} tokens does not fit the model's {model.max_positions} positions")
    _ids("forbidden ids", options.forbidden, model.target_vocab_size)
    if options.phrases is not None:
        _check_phrases(model, max_lengths, options.phrases, options.beam_size, eos)
    if prefixes is None:
        return
    if len(prefixes) != len(sources):
        raise InputError(f"{len(sources)} sources need as many prefixes, not {len(prefixes)}")
    for prefix, limit in zip(prefixes, max_lengths, strict=True):
        count = len(_ids("prefix ids", prefix, model.target_vocab_size, eos))
        if count >= limit:
            raise InputError(f"a prefix of {count} tokens does not fit max_length {limit}")


def fits(phrases: Sequence[tuple[int, ...]], limit: int) -> bool:
    """Whether a search of a length limit can look for phrases: they are not too many, nor too long."""
    return len(phrases) <= MAX_PHRASES and sum(map(len, phrases)) <= limit - 2


def _check_phrases(model: ModelInfo, max_lengths: Sequence[int], phrases: Phrases, beams: int, eos: int | None) -> None:
    if len(phrases.of) != len(max_lengths):
        raise InputError(f"{len(max_lengths)} sources need phrases for as many, not for {len(phrases.of)}")
    size = model.target_vocab_size
    if phrases.continuing and len(phrases.continuing) != size:
        raise InputError(f"what continues a word must be told of all {size} ids, not of {len(phrases.continuing)}")
    for found, limit in zip(phrases.of, max_lengths, strict=True):
        if found and beams < 2:
            raise InputError("phrases need a beam: beam_size must be at least 2, not 1")
        count = sum(len(_ids("phrase ids", phrase, size, eos)) for phrase in found)
        if count > limit - 2:
            raise InputError(f"phrases of {count} tokens do not fit max_length {limit}")
