"""The translator: text in, text out. Segments, tokenizer, engine and guard, in the order in which text meets them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.guard import cut_loops, is_degenerate
from mobilenmt.runtime.hypothesis import Hypothesis, check_search
from mobilenmt.runtime.opening import open_engine
from mobilenmt.runtime.ort import SessionConfig, release_memory
from mobilenmt.runtime.pack import Pack
from mobilenmt.runtime.retry import Retry
from mobilenmt.runtime.text.segment import Piece, between, segments

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
    """The other n_best - 1 translations, best first."""
    flags: tuple[str, ...] = ()
    """What happened on the way: ``split`` (a sentence longer than the model's positions), ``retried`` (a loop or
    runaway was translated again with a beam), ``cut`` (its repetition was cut), ``truncated`` (the length limit ended
    it)."""

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
        self._arena = arena
        self._since_release = 0
        self.pack = Pack.open(pack, verify=verify)
        self.engine, self._engine, self._tokenizer = open_engine(self.pack, engine, config)
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

    def translate(self, text: str, *, split: bool | None = None, unwrap: bool = False) -> str:
        """Translate a text of any length; line ends, bullets and the spaces around lines stay as they are.

        ``split`` and ``unwrap`` as for :meth:`translate_batch`.
        """
        return self.translate_batch([text], split=split, unwrap=unwrap)[0].text

    def translate_batch(
        self,
        texts: Sequence[str],
        *,
        beam_size: int | None = None,
        max_length: int | None = None,
        min_length: int = 0,
        n_best: int = 1,
        together: bool = False,
        split: bool | None = None,
        unwrap: bool = False,
    ) -> list[Translation]:
        """Translate several texts; each comes out as it would alone, unless ``together`` is set.

        Args:
            texts: any strings, of any length.
            beam_size: hypotheses kept at each step, 1 for greedy; None for the pack's default (or ``n_best``).
            max_length: most tokens of a segment's translation, start and end token counted (as ``generate`` counts);
                None for a limit relative to the source.
            min_length: fewest, likewise.
            n_best: translations wanted of each text, at most ``beam_size``.
            together: put sentences through the model together: up to twice as fast for many. In an INT8 pack they
                share the scale of their activations, so a word may differ where the model is unsure; quality does not.
            split: translate each sentence of a line for itself (True), or lines whole if the model has positions for
                them (False); None for what the pack says.
            unwrap: join the lines of paragraphs that were wrapped to a width before they are translated; each
                paragraph comes out as one line (:func:`mobilenmt.runtime.text.unwrap.unwrap`).

        Raises:
            InputError: an argument is of a wrong type or out of range.
        """
        beams = self._check(texts, beam_size, max_length, min_length, n_best)
        plans = [self._segments(text, split, unwrap) for text in texts]
        words = [(piece.text, piece.ids) for plan in plans for piece in plan if piece.ids is not None]
        outputs = self._search([ids for _, ids in words], beams, max_length, min_length, n_best, together)
        if max_length is None:
            outputs = self._retry.run(
                words, outputs, n_best, lambda bad, beams: self._search(bad, beams, None, min_length, beams)
            )
        queue = iter(outputs)
        return [
            self._assemble(plan, [next(queue) for piece in plan if piece.ids is not None], n_best) for plan in plans
        ]

    def stream(self, text: str, *, split: bool | None = None, unwrap: bool = False) -> Iterator[str]:
        """Translate greedily and yield the text so far after every token; the last one yielded is the whole.

        ``split`` and ``unwrap`` as for :meth:`translate_batch`. A loop is cut where it shows, since what was yielded
        cannot be translated again.
        """
        self._check([text], 1, None, 0, 1)
        done = ""
        last: str | None = None
        before: Piece | None = None
        for piece in self._segments(text, split, unwrap):
            source = piece.ids
            if source is not None:
                done += between(before, piece, done)
                ids: list[int] = []
                for token in self._engine.steps(source, max_length=self._limit(source)):
                    ids.append(token)
                    if is_degenerate(source, ids):
                        break
                    grown = done + self._tokenizer.decode(ids)
                    if grown != last:
                        last = grown
                        yield grown
                done += self._tokenizer.decode(cut_loops(source, ids))
            else:
                done += piece.text
            before = piece
        if done != last:
            yield done

    # -- segments -------------------------------------------------------------------------------------------------

    def _segments(self, text: str, split: bool | None, unwrap: bool) -> list[Piece]:
        for name, value in (("split", split), ("unwrap", unwrap)):
            if not (isinstance(value, bool) or (value is None and name == "split")):
                raise InputError(f"{name} must be True or False, not {value!r}")
        if unwrap:
            from mobilenmt.runtime.text.unwrap import unwrap as joined

            text = joined(text)
        manifest = self.pack.manifest
        return segments(
            text,
            self._tokenizer.encode,
            self._engine.max_length - 1,  # the end token takes a position
            sentences=manifest.segmentation.sentences if split is None else split,
            language=manifest.source_language,
        )

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
        """Put segments and layout together again, for each of the n best."""
        ranked = [self._join(plan, [outputs[rank] for outputs in found]) for rank in range(n_best if found else 1)]
        return replace(ranked[0], alternatives=tuple(ranked[1:]))

    def _join(self, plan: Sequence[Piece], outputs: Sequence[Hypothesis]) -> Translation:
        queue = iter(outputs)
        parts: list[str] = []
        before: Piece | None = None
        for piece in plan:
            part = piece.text if piece.ids is None else self._tokenizer.decode(next(queue).ids)
            parts += (between(before, piece, parts[-1] if parts else ""), part)
            before = piece
        flags = [flag for output in outputs for flag in output.flags]
        if any(piece.cut for piece in plan):
            flags.insert(0, "split")
        tokens = [piece for output in outputs for piece in self._tokenizer.pieces(output.ids)]
        if len(outputs) == 1:
            score = outputs[0].score
        else:  # each score is a sum over a power of its length: the whole has the sum of sums over the power of all
            penalty = self.pack.manifest.generation.length_penalty
            total = sum(output.score * output.generated**penalty for output in outputs)
            count = sum(output.generated for output in outputs)
            score = total / count**penalty if count else 0.0
        return Translation("".join(parts), score, tuple(tokens), (), tuple(dict.fromkeys(flags)))

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
