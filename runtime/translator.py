"""The translator: text in, text out. Segments, sentences and the model, in the order in which text meets them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Unpack

from mobilenmt.runtime.errors import DeadlineError
from mobilenmt.runtime.guard import cut_loops, is_degenerate
from mobilenmt.runtime.hypothesis import Hypothesis, SearchOptions, usual_length
from mobilenmt.runtime.onnx.ort import SessionConfig, release_memory
from mobilenmt.runtime.opening import Text, open_engine
from mobilenmt.runtime.pack import Pack
from mobilenmt.runtime.passage import Passage
from mobilenmt.runtime.reader import Find, Reader, Rendering
from mobilenmt.runtime.reading import Call, Calls, Progress, Stretch, TextOptions
from mobilenmt.runtime.retry import Retry
from mobilenmt.runtime.text.letters import without_inventions
from mobilenmt.runtime.text.segment import Piece, between, segments
from mobilenmt.runtime.text.target import Targets
from mobilenmt.runtime.translation import Translation, assemble, documents

_RELEASE_EVERY = 16  # segments, after which freed memory goes back to the system: 1 MB for 10 us a segment


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
        options: dict[str, Any] = {
            "threads": threads,
            "providers": providers,
            "verify": verify,
            "arena": arena,
            "engine": engine,
        }
        self._arena = arena
        self._since_release = 0
        self.pack = Pack.open(pack, verify=verify)
        place = os.path.abspath(pack) if os.path.exists(pack) else os.fspath(pack)  # noqa: PTH100, PTH110  quicker
        self._opened = place, options
        self.engine, self._engine, self._tokenizer = open_engine(self.pack, engine, config)
        self._targets = Targets(self.pack.file("tokenizer.json").read_bytes, self.pack.manifest.target_language)
        retry = Retry(self._tokenizer, self._engine.search_briefly)
        self._calls = Calls(self.pack.manifest)
        self._reader = Reader.of(self.pack.manifest, self._tokenizer, self._targets, retry)
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

    def translate(
        self,
        text: str,
        *,
        time_limit: float | None = None,
        progress: Progress | None = None,
        **reading: Unpack[TextOptions],
    ) -> str:
        """Translate a text of any length; line ends, bullets and the spaces around lines stay as they are.

        The arguments are those of :meth:`translate_batch`.
        """
        call = self._calls.check([text], reading, time_limit=time_limit, progress=progress)
        straight = self._straight([text], call)
        return straight[1].text if straight is not None else self._translated([text], call, None)[0].text

    def translate_batch(
        self,
        texts: Sequence[str],
        *,
        beam_size: int | None = None,
        max_length: int | None = None,
        min_length: int = 0,
        n_best: int = 1,
        together: bool = False,
        details: bool = False,
        time_limit: float | None = None,
        progress: Progress | None = None,
        **reading: Unpack[TextOptions],
    ) -> list[Translation]:
        """Translate several texts; each comes out as it would alone, unless ``together`` is set.

        Args:
            texts: any strings, of any length.
            beam_size: hypotheses kept at each step, 1 for greedy; None for the pack's default (or ``n_best``).
            max_length: most tokens of a segment's translation, start and end token counted (as ``generate`` counts);
                None for a limit relative to the source.
            min_length: fewest, likewise. With either, no output is tried again.
            n_best: translations wanted of each text, at most ``beam_size``; no two of them are the same text. A search
                twice as wide follows where too few are found, and a text that then has fewer still gets fewer.
            together: put sentences through the model together: up to twice as fast for many. In an INT8 pack they
                share the scale of their activations, so a word may differ where the model is unsure; quality does not.
            details: give each sentence its confidence and links of words.
            time_limit: seconds for the whole call.
            progress: called with the sentences done, and all, after every 64. What it raises ends the call.
            reading: ``split``, ``unwrap``, ``target``, ``keep``, ``glossary``, ``format``, …: see :class:`TextOptions`.

        Raises:
            InputError: an argument is of a wrong type or out of range, or the model has no such target.
            DeadlineError: the time is over; nothing is given back.
        """
        call = self._calls.check(
            texts,
            reading,
            beam_size=beam_size,
            max_length=max_length,
            min_length=min_length,
            n_best=n_best,
            together=together,
            details=details,
            time_limit=time_limit,
            progress=progress,
        )
        return self._translated(texts, call, self._tokenizer)

    def _translated(self, texts: Sequence[str], call: Call, namer: Text | None) -> list[Translation]:
        """As :meth:`translate_batch`; ``namer`` names the tokens, None where they are not wanted."""
        penalty = self.pack.manifest.generation.length_penalty
        if (straight := self._straight(texts, call)) is not None:
            ids, rendering = straight
            return [assemble([Piece(texts[0], ids)], [[rendering]], 1, penalty, namer)]
        try:
            if call.format:
                fold = self._reader.folder.fold
                return documents(texts, call.format, lambda units: self._found(units, call), fold, penalty, namer)
            found = self._found([Stretch(text, (), call.details) for text in texts], call)
        except DeadlineError:
            raise call.too_late() from None
        return [assemble(plan, renderings, call.options.n_best, penalty, namer) for plan, renderings in found]

    def stream(self, text: str, **reading: Unpack[TextOptions]) -> Iterator[str]:
        """Translate greedily and yield the text so far after every token; the last one yielded is the whole.

        ``reading`` as for :meth:`translate_batch`. A loop is cut where it shows,
        since what was yielded cannot be translated again. A sentence in capitals, or with something to keep, appears
        as a whole, since it can only be put right at its end.
        """
        call = self._calls.check([text], reading, caller="stream", beam_size=1)
        code, text = self._begin(text, reading)
        passage = self._passage(code, call)
        done = ""
        last: str | None = None
        before: Piece | None = None
        for piece in self._segments(text, passage, call):
            done += between(before, piece, done)
            before = piece
            if piece.ids is None:
                done += piece.text
                continue
            if not passage.is_plain(piece.text):
                done += passage.run([piece.text])[0][0].text
                last = done
                yield done
                continue
            ids: list[int] = []
            for token in self._engine.steps(piece.ids, max_length=usual_length(piece.ids, self._engine.max_length)):
                ids.append(token)
                if is_degenerate(piece.ids, ids):
                    break
                grown = done + without_inventions(self._tokenizer.decode(ids), piece.text)
                if grown != last:
                    last = grown
                    yield grown
            done += without_inventions(self._tokenizer.decode(cut_loops(piece.ids, ids)), piece.text)
        if done != last:
            yield done

    def _straight(self, texts: Sequence[str], call: Call) -> tuple[Sequence[int], Rendering] | None:
        """One plain text translated without all that others need; None if it is not one."""
        if not call.usual or len(texts) != 1:
            return None
        return self._reader.straight(
            texts[0], self._engine.max_length - 1, self._find(call), call.options, call.guarded
        )

    def _found(self, stretches: Sequence[Stretch], call: Call) -> list[tuple[list[Piece], list[list[Rendering]]]]:
        """The pieces of each text, and what became of its words."""
        plans: list[list[Piece]] = []
        passages: dict[tuple[str, tuple[str, ...], bool], tuple[Passage, list[str]]] = {}
        owners = []
        for stretch in stretches:
            code, text = self._begin(stretch.text, call.reading)
            own = code, stretch.kept, stretch.linked
            if own not in passages:
                passages[own] = self._passage(code, call, stretch), []
            passage, sentences = passages[own]
            plans.append(self._segments(text, passage, call))
            owners.append(own)
            sentences += [piece.text for piece in plans[-1] if piece.ids is not None]
        queues = call.in_parts({own: (passage.run, sentences) for own, (passage, sentences) in passages.items()})
        return [
            (plan, [next(queues[own]) for piece in plan if piece.ids is not None])
            for plan, own in zip(plans, owners, strict=True)
        ]

    # -- segments -------------------------------------------------------------------------------------------------

    def _begin(self, text: str, reading: TextOptions) -> tuple[str, str]:
        """The code of the language that a text is translated into, and the text without it, unwrapped if asked for."""
        code = self._targets.check(reading.get("target"))
        own, text = self._targets.take(text)
        if reading.get("unwrap"):
            from mobilenmt.runtime.text.unwrap import unwrap

            text = unwrap(text)
        return own or code, text

    def _passage(self, code: str, call: Call, stretch: Stretch | None = None) -> Passage:
        rules = call.reading.get("keep")
        if stretch is not None and stretch.kept:
            from mobilenmt.runtime.text.markup.keeping import keeping

            rules = keeping(rules, stretch.kept)
        return Passage(
            self._reader,
            self._find(call),
            call.options,
            code,
            guarded=call.guarded,
            longest=call.max_length or self._engine.max_length,
            rules=rules,
            glossary=call.reading.get("glossary"),
            method=call.reading.get("glossary_method"),
            details=stretch is not None and stretch.linked,
        )

    def _find(self, call: Call) -> Find:
        return lambda sources, how: self._search(sources, call.max_length, call.timed(how))

    def _segments(self, text: str, passage: Passage, call: Call) -> list[Piece]:
        manifest, split, most = self.pack.manifest, call.reading.get("split"), self._engine.max_length - 1
        if self._reader.is_plain(text) and len(ids := passage.encode(text)) <= most:
            return [Piece(text, ids)]
        return segments(
            text,
            call.watched(passage.encode),
            most,  # the end token takes a position
            sentences=manifest.segmentation.sentences if split is None else split,
            language=manifest.source_language,
        )

    # -- search ---------------------------------------------------------------------------------------------------

    def _search(
        self,
        sources: Sequence[Sequence[int]],
        max_length: int | None,
        options: SearchOptions,
    ) -> list[list[Hypothesis]]:
        most = self._engine.max_length
        limits = [usual_length(source, most) if max_length is None else max_length for source in sources]
        limits = [max(limit, options.min_length, 2) for limit in limits]
        if options.phrases is not None and max_length is None:  # a term may be longer than what it stands for
            more = [sum(map(len, phrases)) for phrases in options.phrases.of]
            limits = [min(limit + count, most) for limit, count in zip(limits, more, strict=True)]
        found = self._engine.generate(sources, limits, options)
        self._since_release += len(sources)
        if self._since_release >= _RELEASE_EVERY and not self._arena:
            self._since_release = 0  # a race of threads at worst releases twice
            release_memory()
        return found
