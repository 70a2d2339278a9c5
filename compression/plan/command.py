"""``mobilenmt plan``: from what a person says to a search or a measurement."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mobilenmt.compression.core.errors import PlanError, RecipeError
from mobilenmt.compression.core.settings import from_mapping
from mobilenmt.compression.pack.shortlist import ShortlistSettings
from mobilenmt.compression.plan.cost import DEFAULT_FIT, CostFit, Load, load_fit
from mobilenmt.compression.plan.quality import Quality, load_points
from mobilenmt.compression.plan.search import Budget, Candidate, search
from mobilenmt.compression.plan.space import VOCABULARIES, Space
from mobilenmt.compression.plan.units import parse_bytes, parse_seconds
from mobilenmt.compression.train.student import StudentShape


@dataclass(frozen=True)
class Request:
    """A plan that is asked for, in words."""

    size: str
    latency: str | None = None
    memory: str | None = None
    checkpoint: Path | None = None
    vocabularies: tuple[int, ...] = ()
    fit: str = DEFAULT_FIT
    points: Path | None = None
    shortlist: bool = True
    load: Load = field(default_factory=Load)

    def budget(self) -> Budget:
        """Its numbers. Raises PlanError."""
        return Budget(
            parse_bytes(self.size, "--size"),
            None if self.latency is None else parse_seconds(self.latency, "--latency"),
            None if self.memory is None else parse_bytes(self.memory, "--memory"),
        )


@dataclass(frozen=True)
class Plan:
    """What was found, and by what."""

    candidates: tuple[Candidate, ...]
    budget: Budget
    fit: CostFit
    quality: Quality
    load: Load


def make_plan(request: Request) -> Plan:
    """Search.

    Raises:
        PlanError: the request makes no sense, or nothing fits.
        CheckpointError: the checkpoint is none, or a damaged one.
    """
    budget, fit, quality = request.budget(), load_fit(request.fit), Quality(load_points(request.points))
    shortlist = ShortlistSettings() if request.shortlist else None
    if request.checkpoint is None:
        space = Space(vocabularies=request.vocabularies or VOCABULARIES, shortlist=shortlist)
    else:
        shape, pieces = shape_of_checkpoint(request.checkpoint)
        own = {pieces: _tokenizer(request.checkpoint, pieces)}
        known = {size: found for size, found in own.items() if found is not None}
        space = Space(
            vocabularies=request.vocabularies or (pieces,), inside=shape, shortlist=shortlist, tokenizers=known
        )
    return Plan(search(budget, space, fit, quality, request.load), budget, fit, quality, request.load)


def shape_of_checkpoint(checkpoint: Path) -> tuple[StudentShape, int]:
    """Shape and pieces of a Marian checkpoint. CheckpointError or PlanError if it is none that can be pruned."""
    from mobilenmt.export.checkpoint import MarianConfig, read_json

    config = MarianConfig.from_dict(read_json(checkpoint / "config.json", f"{checkpoint} is no checkpoint"))
    values: dict[str, Any] = {item.name: getattr(config, item.name) for item in fields(StudentShape)}
    if values["activation_function"] == "silu":
        values["activation_function"] = "swish"  # another name of it
    try:
        return from_mapping(StudentShape, values, f"{checkpoint}:"), config.decoder_vocab_size
    except RecipeError as error:
        raise PlanError(str(error)) from None


def _tokenizer(checkpoint: Path, pieces: int) -> tuple[int, int] | None:
    from mobilenmt.compression.pack.estimate import tokenizer_bytes

    return tokenizer_bytes(checkpoint, pieces) if (checkpoint / "tokenizer.json").is_file() else None


def shape_for_bytes(
    whole: StudentShape, vocabulary: int, most: int, *, shortlist: bool = False, tokenizer: Path | None = None
) -> StudentShape:
    """The shape inside a model's whose INT8 pack takes ``most`` bytes at most, for pruning.

    Args:
        whole: the model's shape.
        vocabulary: pieces that will be left.
        most: bytes of the pack.
        shortlist: whether the pack gets one.
        tokenizer: folder of its tokenizer, if that is there already, so that its bytes are counted and not estimated.

    Raises:
        CheckpointError: the tokenizer will not do.
        PlanError: nothing is so small; it says how small the smallest is.
    """
    sizes = ShortlistSettings() if shortlist else None
    known = None if tokenizer is None else _tokenizer(tokenizer, vocabulary)
    space = Space(
        vocabularies=(vocabulary,),
        inside=whole,
        shortlist=sizes,
        tokenizers={} if known is None else {vocabulary: known},
    )
    return search(Budget(most), space, load_fit(), Quality(load_points()))[0].shape


def measure_machine(
    out: Path | None, packs: Path | None, report: Callable[[str], None], trials: Sequence[Any] | None = None
) -> CostFit:
    """Run models of random weights here, fit prices and write them as JSON.

    Args:
        out: the JSON; None writes none.
        packs: folder that keeps the packs; None for one that goes away.
        report: receives lines on the way.
        trials: other models than the usual.

    Raises:
        PlanError: the C core does not run here, or a file cannot be written.
    """
    from mobilenmt.compression.plan.measure import TRIALS, fit, measure
    from mobilenmt.runtime.errors import EngineError
    from mobilenmt.runtime.native.library import load_library

    try:
        load_library()
    except EngineError as error:
        raise PlanError(f"what is measured is the C core, which does not run here: {error}") from None
    with tempfile.TemporaryDirectory(prefix="mobilenmt-plan-") as scratch:
        rows = measure(TRIALS if trials is None else trials, packs=packs or Path(scratch) / "packs", report=report)
    found = fit(rows)
    if out is not None:
        found.save(out)
    return found
