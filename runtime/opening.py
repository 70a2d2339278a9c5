"""Which engine runs a pack: the C core where there is one, else ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from mobilenmt.runtime.background import Background
from mobilenmt.runtime.errors import EngineError, InputError
from mobilenmt.runtime.hypothesis import GREEDY, Hypothesis, SearchOptions
from mobilenmt.runtime.onnx.ort import SessionConfig
from mobilenmt.runtime.pack import Pack

ENGINES = ("auto", "native", "onnx")


class Search(Protocol):
    """Ids in, ids and scores out."""

    @property
    def max_length(self) -> int:
        """Longest output the model has positions for, the start token counted."""
        ...

    def generate(
        self,
        sources: Sequence[Sequence[int]],
        max_lengths: Sequence[int],
        options: SearchOptions = GREEDY,
        prefixes: Sequence[Sequence[int]] | None = None,
    ) -> list[list[Hypothesis]]:
        """``options.n_best`` hypotheses of each source, best first."""
        ...

    def search_briefly(self) -> AbstractContextManager[None]:
        """A block in which a search with beams takes little memory."""
        ...

    def steps(self, source: Sequence[int], *, max_length: int) -> Iterator[int]:
        """Greedy search one token at a time."""
        ...


class Text(Protocol):
    """Text to ids, and back."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without the end token."""
        ...

    def knows(self, text: str) -> bool:
        """Whether the vocabulary has all characters of a text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        ...

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The pieces of ids as a person may read them."""
        ...


def why_not_native(pack: Pack, config: SessionConfig, *, try_it: bool = False) -> str | None:
    """Why the C core cannot run this pack here; None if it can.

    Args:
        pack: the pack.
        config: how it is to be run.
        try_it: open it, too, which takes some milliseconds; otherwise only what is known before.

    Raises:
        PackError: it was tried, and the pack is damaged.
    """
    if config.providers or config.static:
        return "execution providers are ONNX Runtime's"
    if "native.bin" not in pack.manifest.files:
        return (
            "the pack has no native.bin: an fp32 pack, one with a part that the C core lacks, or one of an earlier "
            "version, which `mobilenmt upgrade` mends"
        )
    from mobilenmt.runtime.native.library import load_library

    try:
        load_library()
        if try_it:
            from mobilenmt.runtime.native.engine import NativeEngine

            NativeEngine(pack)
    except EngineError as error:
        return str(error)
    return None


def open_engine(pack: Pack, engine: str, config: SessionConfig) -> tuple[str, Search, Text]:
    """The name of the engine, and what it consists of.

    Raises:
        InputError: there is no such engine, or ``native`` cannot run this pack here.
        EngineError: a library is missing, or refuses the pack.
        PackError: the pack's files are damaged.
    """
    if engine not in ENGINES:
        raise InputError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    reason = None if engine == "onnx" else why_not_native(pack, config)
    if engine == "native" and reason is not None:
        raise InputError(f"{pack.path}: the native engine cannot run this pack: {reason}")
    if engine == "onnx" or reason is not None:
        return ("onnx", *_open_onnx(pack, config))
    from mobilenmt.runtime.native.engine import NativeEngine
    from mobilenmt.runtime.native.tokenizer import NativeTokenizer

    try:
        native = NativeEngine(pack, config.threads)
    except EngineError as error:  # the pack is sound: what is missing here, ONNX Runtime may not need
        if engine == "native":
            raise
        try:
            return ("onnx", *_open_onnx(pack, config))
        except (ImportError, MemoryError):  # of memory it needs more
            raise error from None
    if not native.model.info.tokenizer:
        return "native", native, open_tokenizer(pack)
    return "native", native, NativeTokenizer(native.model)


def _open_onnx(pack: Pack, config: SessionConfig) -> tuple[Search, Text]:
    from mobilenmt.runtime.onnx.engine import Engine

    # The session is made in native code, so it opens while Python reads the tokenizer: a tenth of the cold start. The
    # tokenizer is what goes to another thread: glibc gives each thread a heap of its own, and from no other than the
    # first one's does it return what is free at its end, as a session is that was closed to make room.
    reading = Background(lambda: open_tokenizer(pack))
    return Engine(pack, config), reading.result()


def open_tokenizer(pack: Pack) -> Text:
    """The tokenizer of a pack, by the library tokenizers."""
    from mobilenmt.runtime.tokenizer import Tokenizer

    target = "tokenizer.target.json"
    return Tokenizer(
        pack.file("tokenizer.json"),
        pack.manifest.tokens,
        pack.manifest.model.source_vocab_size,
        pack.file(target) if target in pack.manifest.files else None,
    )
