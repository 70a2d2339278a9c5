"""The translator: text in, text out. Segments, tokenizer, engine and guard, in the order in which text meets them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.guard import cut_loops, is_degenerate
from mobilenmt.runtime.hypothesis import Hypothesis, check_search, most_beams, search_distinct
from mobilenmt.runtime.opening import open_engine
from mobilenmt.runtime.ort import SessionConfig, release_memory
from mobilenmt.runtime.pack import Pack
from mobilenmt.runtime.retry import Retry
from mobilenmt.runtime.segment import Piece, worded_segments
from mobilenmt.runtime.text.source import Source
from mobilenmt.runtime.text.target import Targets

_RELEASE_EVERY = 16  # segments, after which freed memory goes back to the system: 1 MB for 10 us a segment


@dataclass(frozen=True)
class Translation:
    """What a text became."""

    text: str
    score: float
    """Sum of log-probabilities, ``</s>`` included, over (generated tokens)^length_penalty; 0 for layout alone."""
    tokens: tuple[str, ...] = ()
    """Pieces of the output, without special ones."""
    alternatives: tuple[Translation, ...] = ()
    """The other n_best - 1 translations, best first, each another text; fewer where there are no more."""
    flags: tuple[str, ...] = ()
    """What happened on the way: ``split`` (longer than the model's positions), ``retried`` (a loop, a runaway or what
    was too short was translated again with a beam), ``cut`` (its repetition was cut), ``short`` (still too short for
    its source), ``kept`` (a stretch was given back as it was), ``truncated`` (the length limit ended it)."""

    def to_dict(self) -> dict[str, Any]:
        """The translation as JSON types."""
        return {
            "text": self.text,
            "score": self.score,
            "tokens": list(self.tokens),
            "alternatives": [item.to_dict() for item in self.alternatives],
            "flags": list(self.flags),
        }


class Translator:
    """Translates text with one pack, offline. Safe to use from several threads at once.

    Args:
        pack: the path of a pack (folder or zip) or its name, looked up as :func:`find_pack` documents.
        threads: sentences translated at once, where there are several; 0 for one a core.
        providers: execution providers of ONNX Runtime in order of preference; None for the CPU.
        verify: compare the SHA-256 of every file before use (about 1 ms a megabyte).
        arena: keep memory between sentences: a little faster, a few megabytes more (ONNX Runtime's alone).
        engine: ``native`` for the C core, ``onnx`` for ONNX Runtime, ``auto`` for the first of them that can run the
            pack here. They quantize differently, so a word may differ where the model is unsure; quality does not.

    Raises:
        PackError: the pack is not found, damaged, incomplete or too new.
        InputError: ``threads``, ``providers`` or ``engine`` make no sense here.
    """

    def __init__(
        self,
        pack: str | os.PathLike[str],
        *,
        threads: int = 1,
        providers: Sequence[str] | None = None,
        verify: bool = True,
        arena: bool = False,
        engine: str = "auto",
    ) -> None:
        config = SessionConfig(threads, providers, arena)
        place = os.path.abspath(pack) if os.path.exists(pack) else os.fspath(pack)  # noqa: PTH100, PTH110  quicker
        options: dict[str, Any] = {
            "threads": threads,
            "providers": providers,
            "verify": verify,
            "arena": arena,
            "engine": engine,
        }
        self._opened = place, options
        self._arena = arena
        self._since_release = 0
        self.pack = Pack.open(pack, verify=verify)
        self.engine, self._engine, self._tokenizer = open_engine(self.pack, engine, config)
        self._targets = Targets(self.pack.file("tokenizer.json").read_bytes, self.pack.manifest.target_language)
        languages = (self.pack.manifest.source_language or "", self.pack.manifest.target_language or "")
        self._source = Source(self._tokenizer.encode, self._tokenizer.knows, *languages)
        self._retry = Retry(self._tokenizer, self._engine.search_briefly)
        release_memory()  # parsing the tokenizer and packing the weights left holes in the heap

    def __enter__(self) -> Translator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None  # sessions are freed with the object; `with` only marks where it is needed

    def __repr__(self) -> str:
        return f"Translator({str(self.pack.path)!r})"

    def __reduce__(self) -> tuple[Callable[..., Translator], tuple[str]]:
        """Pickled, and copied, as the pack's place and the settings: it is opened anew."""
        place, options = self._opened
        return functools.partial(type(self), **options), (place,)

    @property
    def targets(self) -> tuple[str, ...]:
        """The codes of a model with several target languages, for ``target``; none where there is one."""
        return self._targets.codes

    def translate(self, text: str, *, target: str | None = None) -> str:
        """Translate a text of any length; line ends and the spaces around lines stay as they are."""
        return self.translate_batch([text], target=target)[0].text

    def translate_batch(
        self,
        texts: Sequence[str],
        *,
        beam_size: int | None = None,
        max_length: int | None = None,
        min_length: int = 0,
        n_best: int = 1,
        together: bool = False,
        target: str | None = None,
    ) -> list[Translation]:
        """Translate several texts; each comes out as it would alone, unless ``together`` is set.

        Args:
            texts: any strings; each line of each is translated whole if the model has positions for it.
            beam_size: hypotheses kept at each step, 1 for greedy; None for the pack's default (or ``n_best``).
            max_length: most tokens of a segment's translation, start and end token counted (as ``generate`` counts);
                None for a limit relative to the source.
            min_length: fewest, likewise.
            n_best: translations wanted of each text, at most ``beam_size``; no two of them are the same text. A search
                twice as wide follows where too few are found, and a text that then has fewer still gets fewer.
            together: put sentences through the model together: up to twice as fast for many. In an INT8 pack they
                share the scale of their activations, so a word may differ where the model is unsure; quality does not.
            target: code of the language to translate into, one of :attr:`targets`, for a model with several. A text
                that begins with one (``>>deu<< the house``) has its own, for all its lines without another.

        Raises:
            InputError: an argument is of a wrong type or out of range, or the model has no such target.
        """
        beams = self._check(texts, beam_size, max_length, min_length, n_best)
        code = self._targets.check(target)
        plans = [self._segments(text, code) for text in texts]
        words = [(piece.text, piece.ids) for plan in plans for piece in plan if piece.ids is not None]
        sources = [ids for _, ids in words]
        if n_best == 1:
            outputs = self._search(sources, beams, max_length, min_length, 1, together)
        else:
            outputs = search_distinct(
                lambda some, width: self._search(some, width, max_length, min_length, width, together),
                *(sources, beams, n_best, self._tokenizer.decode, most_beams(self.pack.manifest.model)),
            )
        if max_length is None:
            outputs = self._retry.run(
                words, outputs, n_best, lambda bad, beams: self._search(bad, beams, None, min_length, beams)
            )
        queue = iter(outputs)
        return [
            self._assemble(plan, [next(queue) for piece in plan if piece.ids is not None], n_best) for plan in plans
        ]

    def stream(self, text: str, *, target: str | None = None) -> Iterator[str]:
        """Translate greedily and yield the text so far after every token; the last one yielded is the whole.

        A loop is cut where it shows, since what was yielded cannot be translated again.
        """
        self._check([text], 1, None, 0, 1)
        done = ""
        last: str | None = None
        for piece in self._segments(text, self._targets.check(target)):
            source = piece.ids
            if source is not None:
                ids: list[int] = []
                for token in self._engine.steps(source, max_length=self._limit(source)):
                    ids.append(token)
                    if is_degenerate(source, ids):
                        break
                    grown = done + self._source.write(self._tokenizer.decode(ids), piece.text)
                    if grown != last:
                        last = grown
                        yield grown
                done += self._source.write(self._tokenizer.decode(cut_loops(source, ids)), piece.text)
            else:
                done += piece.text
        if done != last:
            yield done

    # -- segments -------------------------------------------------------------------------------------------------

    def _segments(self, text: str, code: str) -> list[Piece]:
        text, encode = self._targets.coded(text, code, self._tokenizer.encode)
        source = self._source
        limit = self._engine.max_length - 1  # the end token takes a position
        language = self.pack.manifest.source_language or ""
        spans = self._targets.outside(text, source.kept(text))
        return worded_segments(text, lambda part: encode(source.prepare(part)[0]), limit, language, spans)

    def _limit(self, source: Sequence[int]) -> int:
        """Length limit relative to the source, start token counted.

        On 100,000 human English-German translations fewer than one in a thousand is longer; a short source may grow
        threefold, a long one doubles at most.
        """
        count = len(source)
        generated = min(3 * count + 4, 2 * count + 10)
        return min(generated + 1, self._engine.max_length)

    # -- search ---------------------------------------------------------------------------------------------------

    def _search(
        self,
        sources: Sequence[Sequence[int]],
        beams: int,
        max_length: int | None,
        min_length: int,
        n_best: int,
        together: bool = False,
    ) -> list[list[Hypothesis]]:
        limits = [self._limit(source) if max_length is None else max_length for source in sources]
        limits = [max(limit, min_length, 2) for limit in limits]
        found = self._engine.generate(
            sources,
            max_lengths=limits,
            min_length=min_length,
            beam_size=beams,
            n_best=n_best,
            together=together,
        )
        self._since_release += len(sources)
        if self._since_release >= _RELEASE_EVERY and not self._arena:
            self._since_release = 0  # a race of threads at worst releases twice
            release_memory()
        return found

    # -- results --------------------------------------------------------------------------------------------------

    def _assemble(self, plan: Sequence[Piece], found: Sequence[Sequence[Hypothesis]], n_best: int) -> Translation:
        """Put segments and layout together again, for each of the n best.

        A segment with fewer alternatives than another stays at its last.
        """
        count = min(n_best, max((len(outputs) for outputs in found), default=1))
        ranked = [
            self._join(plan, [outputs[min(rank, len(outputs) - 1)] for outputs in found]) for rank in range(count)
        ]
        return replace(ranked[0], alternatives=tuple(ranked[1:]))

    def _join(self, plan: Sequence[Piece], outputs: Sequence[Hypothesis]) -> Translation:
        queue = iter(outputs)
        parts = [piece.text if piece.ids is None else self._text(piece, next(queue)) for piece in plan]
        flags = [flag for output in outputs for flag in output.flags]
        if any(piece.cut for piece in plan):
            flags.insert(0, "split")
        if any(piece.kept for piece in plan):
            flags.append("kept")
        tokens = [
            piece for output in outputs if "kept" not in output.flags for piece in self._tokenizer.pieces(output.ids)
        ]
        if len(outputs) == 1:
            score = outputs[0].score
        else:  # each score is a sum over a power of its length: the whole has the sum of sums over the power of all
            penalty = self.pack.manifest.generation.length_penalty
            total = sum(output.score * output.generated**penalty for output in outputs)
            count = sum(output.generated for output in outputs)
            score = total / count**penalty if count else 0.0
        return Translation("".join(parts), score, tuple(tokens), (), tuple(dict.fromkeys(flags)))

    def _text(self, piece: Piece, output: Hypothesis) -> str:
        """What is shown of a segment: never a broken or invisible character that its source lacks."""
        if "kept" in output.flags:
            return piece.text
        return self._source.write(self._tokenizer.decode(output.ids), piece.text)

    def _check(
        self, texts: Sequence[str], beam_size: int | None, max_length: int | None, min_length: int, n_best: int
    ) -> int:
        """The beam size to use; InputError for anything that cannot be meant."""
        if isinstance(texts, str | bytes):
            raise InputError("texts must be a sequence of strings; for one string use translate()")
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"text {index} is of type {type(text).__name__}, not str")
        for name, value, optional in (
            ("beam_size", beam_size, True),
            ("max_length", max_length, True),
            ("min_length", min_length, False),
            ("n_best", n_best, False),
        ):
            if (value is None and not optional) or (value is not None and type(value) is not int):
                raise InputError(f"{name} must be an integer, not {value!r}")
        beams = max(self.pack.manifest.generation.num_beams, n_best) if beam_size is None else beam_size
        check_search(self.pack.manifest.model, beams, n_best, max_length, min_length)
        return beams
