"""Whether the C core says the same, bit for bit, whatever runs it: all kernels, alone, on threads, as a stream."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence

from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.hypothesis import Hypothesis, SearchOptions
from mobilenmt.runtime.native.engine import NativeEngine
from mobilenmt.runtime.native.library import load_library
from mobilenmt.runtime.native.tokenizer import NativeTokenizer
from mobilenmt.runtime.onnx.ort import SessionConfig
from mobilenmt.runtime.opening import open_tokenizer, why_not_native
from mobilenmt.runtime.pack import Pack

_SEARCHES = {
    "greedy": SearchOptions(token_scores=True, alignment=True),
    "beam 4": SearchOptions(4, 4, token_scores=True, alignment=True),
}


def kernels_here() -> list[str]:
    """Names of the kernels that this machine can run, best first."""
    library = load_library()
    names: list[str] = []
    while (name := library.mn_kernels(len(names))) is not None:
        names.append(name.decode())
    return names


def compare_bits(pack: Pack, lines: Sequence[str], report: Callable[[str], None]) -> int:
    """Translate lines in every way there is and compare all with the first; returns how many ways differ.

    Compared are ids, lengths, scores, the scores of tokens, and alignments. ``report`` receives a line for each way;
    the digest in it is the same on every machine.

    Raises:
        EngineError: the C core is not there.
        InputError, PackError: it cannot run the pack, or no line is left to compare.
    """
    reason = why_not_native(pack, SessionConfig())
    if reason is not None:
        raise InputError(f"{pack.path}: there are no bits to compare, since the C core cannot run it: {reason}")
    names = kernels_here()
    best = NativeEngine(pack, kernels=names[0])
    tokenizer = NativeTokenizer(best.model) if best.model.info.tokenizer else open_tokenizer(pack)
    encoded = [ids for line in lines if (ids := tokenizer.encode(line))]
    sources = [ids for ids in encoded if len(ids) < best.max_length]
    if len(encoded) < len(lines):
        report(f"left out: {len(lines) - len(encoded)} lines without a token")
    if len(sources) < len(encoded):
        report(f"left out: {len(encoded) - len(sources)} lines of {best.max_length} tokens or more, which do not fit")
    if not sources:
        raise InputError(f"none of the {len(lines)} lines can be translated: there is nothing to compare")
    limits = [min(2 * len(ids) + 11, best.max_length) for ids in sources]
    wrong = 0
    for search, options in _SEARCHES.items():
        wanted = [_bits(found) for found in best.generate(sources, limits, options)]
        report(f"{search}, {names[0]}: {len(sources)} lines, {hashlib.sha256(b''.join(wanted)).hexdigest()[:16]}")

        def told(way: str, found: list[bytes], search: str = search, wanted: list[bytes] = wanted) -> int:
            different = sum(one != other for one, other in zip(found, wanted, strict=True))
            report(f"{search}, {way}: {'the same' if not different else f'{different} lines differ'}")
            return different > 0

        for name in names[1:]:
            other = NativeEngine(pack, kernels=name)
            wrong += told(name, [_bits(found) for found in other.generate(sources, limits, options)])
        alone = [best.generate([ids], [limit], options)[0] for ids, limit in zip(sources, limits, strict=True)]
        wrong += told("alone", [_bits(found) for found in alone])
        for threads in (2, 3):
            engine = NativeEngine(pack, threads)
            wrong += told(f"{threads} threads", [_bits(found) for found in engine.generate(sources, limits, options)])
        if options.beam_size == 1:
            streams = [
                tuple(best.steps(ids, max_length=limit)) == found[0].ids
                for ids, limit, found in zip(sources, limits, alone, strict=True)
            ]
            report(f"{search}, stream: {'the same ids' if all(streams) else f'{streams.count(False)} lines differ'}")
            wrong += not all(streams)
    return wrong


def _bits(found: Sequence[Hypothesis]) -> bytes:
    parts = []
    for item in found:
        assert item.token_scores is not None and item.alignment is not None
        numbers = (len(item.ids), *item.ids, item.generated, *item.alignment)
        parts.append(struct.pack(f"<{len(numbers)}I", *numbers))
        parts.append(struct.pack(f"<{1 + item.generated}f", item.score, *item.token_scores))
    return b"".join(parts)
