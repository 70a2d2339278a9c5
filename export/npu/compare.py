"""Static graphs against the graphs for the CPU, on real text: words, chrF, time. Both run on the CPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.hypothesis import usual_length
from mobilenmt.runtime.onnx.engine import Engine
from mobilenmt.runtime.onnx.ort import SessionConfig
from mobilenmt.runtime.onnx.static.host import Bucket
from mobilenmt.runtime.onnx.static.providers import REFERENCE
from mobilenmt.runtime.opening import open_tokenizer
from mobilenmt.runtime.pack import Pack
from mobilenmt.runtime.sections import Variant

_STEPS = 30


@dataclass(frozen=True)
class Comparison:
    """What came out."""

    sentences: int
    same: int
    """Of the same tokens."""
    between: float | None
    """chrF of the static graphs' words, those of the CPU's graphs as the reference; None without sacrebleu."""
    static_chrf: float | None
    cpu_chrf: float | None
    milliseconds: dict[str, float]
    """Bucket -> median of a decoder step, static graphs on the CPU in fp32."""

    def lines(self) -> list[str]:
        """For people."""
        share = self.same / self.sentences
        found = [f"{self.same} of {self.sentences} lines ({share:.1%}) have the words of the CPU's graphs"]
        if self.between is not None:
            found.append(f"chrF between the two {self.between:.2f}")
        if self.static_chrf is not None and self.cpu_chrf is not None:
            found.append(
                f"chrF against the reference {self.static_chrf:.2f}, the CPU's graphs {self.cpu_chrf:.2f}, "
                f"difference {self.static_chrf - self.cpu_chrf:+.2f}"
            )
        steps = ", ".join(f"{time:.2f} ms ({bucket} source tokens)" for bucket, time in self.milliseconds.items())
        return [*found, f"a step of the decoder on the CPU: {steps}"]

    def to_dict(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def compare_static(pack: Pack, text: Path, lines: int, form: str = "qdq") -> Comparison:
    """Translate lines greedily with both.

    Raises:
        InputError: the pack has no static graphs, or the file is not there or has no text.
    """
    variant = pack.manifest.variant
    if variant is None:
        raise InputError(f"{pack.path}: the pack has no static graphs; mobilenmt export --target npu writes them")
    sources, references = _read(text, lines)
    tokenizer = open_tokenizer(pack)
    most = min(variant.source[-1] - 1, pack.manifest.model.max_positions - 1)
    ids = [tokenizer.encode(source)[:most] for source in sources]
    limits = [
        max(2, usual_length(source, min(pack.manifest.model.max_positions, variant.target[-1] + 1))) for source in ids
    ]
    usual = Engine(pack).generate(ids, limits)
    static = Engine(pack, SessionConfig(static=True)).generate(ids, limits)
    same = sum(a[0].ids == b[0].ids for a, b in zip(usual, static, strict=True))
    texts = [[tokenizer.decode(found[0].ids) for found in side] for side in (static, usual)]
    between = _chrf(texts[0], texts[1])
    scores = [None, None] if references is None else [_chrf(side, references) for side in texts]
    times = {str(size): step_time(pack, variant, index) for index, size in enumerate(variant.source)}
    return Comparison(len(ids), same, between, scores[0], scores[1], times)


def step_time(pack: Pack, variant: Variant, index: int, form: str = "qdq") -> float:
    """Milliseconds of a decoder step on the CPU, the median of some."""
    bucket = Bucket(pack, variant, index, REFERENCE.of(form))
    tokens = pack.manifest.tokens
    bucket.encode([tokens.eos] * (variant.source[index] // 2), tokens.eos)
    took = []
    for _ in range(min(_STEPS, variant.target[index])):
        start = time.perf_counter()
        bucket.step([tokens.start])
        took.append(1000 * (time.perf_counter() - start))
    return float(np.median(took))


def _read(path: Path, lines: int) -> tuple[list[str], list[str] | None]:
    try:
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except UnicodeError:
        raise InputError(f"{path}: not UTF-8") from None
    if not rows:
        raise InputError(f"{path}: there is nothing to translate")
    if lines < len(rows):
        rows = [rows[index * len(rows) // lines] for index in range(lines)]
    return [row[0] for row in rows], [row[1] for row in rows] if all(len(row) > 1 for row in rows) else None


def _chrf(found: Sequence[str], references: Sequence[str]) -> float | None:
    try:
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        return None
    return float(CHRF().corpus_score(list(found), [list(references)]).score)
