"""Mixed precision: which form each matrix gets, for the least distance within the bytes of a pack."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilenmt.compression.core.errors import QuantizeError
from mobilenmt.compression.core.stage import write_json
from mobilenmt.compression.pack.estimate import estimate_pack_bytes, tokenizer_bytes
from mobilenmt.compression.pack.shortlist import ShortlistSettings
from mobilenmt.compression.plan.command import shape_of_checkpoint
from mobilenmt.compression.quantize.knapsack import TooSmallError, choose
from mobilenmt.compression.quantize.matrices import Matrix
from mobilenmt.compression.quantize.sensitivity import Sensitivity
from mobilenmt.compression.quantize.study import Study
from mobilenmt.export.quantize.settings import Quantization

_TRIES = 5
_DOUBTFUL = 1.05
"""If the estimate of the smallest mixture is above a budget by no more than this factor, it is made to see."""
_SLACK = 64  # bytes that a correction takes away beside what was too much: tensors begin at such multiples


@dataclass(frozen=True)
class Mixture:
    """Forms for a budget."""

    settings: Quantization
    """As the exporter takes them."""
    distance: float
    """The sum of what the matrices cost alone."""
    bytes: int
    """Of the pack that was exported with them."""
    path: Path
    """The pack."""


def option_bytes(study: Study, found: Sequence[Sensitivity]) -> dict[tuple[str, str], int]:
    """(matrix, form) -> bytes that a pack takes more or less than with that matrix in ``int8``, by the estimate."""
    shape, vocabulary = shape_of_checkpoint(study.path)
    shortlist = ShortlistSettings() if study.shortlist else None
    known = tokenizer_bytes(study.path, vocabulary)[0] if (study.path / "tokenizer.json").is_file() else None

    def estimate(matrix: Matrix | None, form: str) -> int:
        names = {} if matrix is None else {matrix.pattern: form}
        # not plain: int8 packs without any choice have longer graphs
        settings = Quantization(clipping="mse", matrices=names)
        return estimate_pack_bytes(
            shape, vocabulary, shortlist=shortlist, tokenizer_bytes=known, native_bytes=0, quantization=settings
        )

    base = estimate(None, "int8")
    return {(one.matrix.name, one.form): estimate(one.matrix, one.form) - base for one in found}


def mix(
    study: Study,
    found: Sequence[Sensitivity],
    budget: int,
    base: int,
    out: Path,
    export: Callable[[Quantization, Path], int],
    report: Callable[[str], None] = lambda line: None,
) -> Mixture:
    """Choose a form for each matrix by what it costs alone, export, and choose again if the pack is too large.

    The logit distances of single matrices are taken to sum up, which they do nearly.

    Args:
        study: the model.
        found: of every matrix in every form that it may get.
        budget: bytes of all files of the pack.
        base: bytes of the pack with every matrix in ``int8`` and the study's clipping.
        out: the pack to write.
        export: writes a pack and returns its bytes.
        report: receives lines on the way.

    Raises:
        QuantizeError: nothing is so small; says how small the smallest is.
    """
    sizes = option_bytes(study, found)
    groups: dict[str, list[Sensitivity]] = {}
    for one in found:
        groups.setdefault(one.matrix.name, []).append(one)
    options = [[(sizes[name, one.form], one.distance) for one in group] for name, group in groups.items()]
    off, tried_smallest = 0, False
    fitting: Mixture | None = None
    for _ in range(_TRIES):
        try:
            chosen = choose(options, budget - base - off)
        except TooSmallError as error:
            smallest = base + error.smallest + off
            if fitting is not None:
                return fitting
            if tried_smallest or smallest > _DOUBTFUL * budget:
                raise QuantizeError(
                    f"no mixture of these forms fits into {budget:,} bytes: the smallest takes about {smallest:,}"
                ) from None
            tried_smallest, chosen = True, choose(options, error.smallest)  # the estimate may be a little wrong
        picked = [group[index] for group, index in zip(groups.values(), chosen, strict=True)]
        settings = _settings(picked, study.settings.settings)
        size = export(settings, out)
        report(f"a mixture of {size:,} bytes, {budget:,} allowed")
        off = size - base - sum(sizes[one.matrix.name, one.form] for one in picked)
        if size <= budget:
            fitting = Mixture(settings, sum(one.distance for one in picked), size, out)
            if not tried_smallest:
                return fitting
            tried_smallest = False
        elif fitting is not None:
            export(fitting.settings, out)
            return fitting
        else:
            shutil.rmtree(out)
            off += _SLACK
    raise QuantizeError(f"after {_TRIES} tries no mixture came out below {budget:,} bytes; allow some more")


def _settings(picked: Sequence[Sensitivity], how: Quantization) -> Quantization:
    """The most frequent form for all, and names for the others."""
    forms = [one.form for one in picked]
    usual = max(dict.fromkeys(forms), key=forms.count)
    names = {one.matrix.pattern: one.form for one in picked if one.form != usual}
    return Quantization(usual, how.clipping, how.percentile, how.granularity, names)


def write_settings(path: Path, settings: Quantization) -> None:
    """The file that ``mobilenmt export --quantization`` takes."""
    values: dict[str, Any] = settings.to_dict()
    write_json(path, values)
