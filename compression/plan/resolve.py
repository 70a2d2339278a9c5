"""The plan of a recipe: a student of ``size = "10MB"``, made once and kept in the work folder.

Every stage that asks for the student's shape gets this one. A later version of mobilenmt may plan otherwise; a chain
that was begun goes on with what it has.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mobilenmt.compression.core.errors import StageError
from mobilenmt.compression.core.settings import from_mapping
from mobilenmt.compression.core.stage import StageResult, check_stage, read_json_object, run_stage, write_json
from mobilenmt.compression.pack.stage import ExportSettings
from mobilenmt.compression.plan.cost import DEFAULT_FIT, Load, load_fit, shipped_fits
from mobilenmt.compression.plan.output import save_plot, to_json
from mobilenmt.compression.plan.quality import Quality, load_points
from mobilenmt.compression.plan.search import Budget, Candidate, search
from mobilenmt.compression.plan.settings import StudentSettings
from mobilenmt.compression.plan.space import VOCABULARIES, Space
from mobilenmt.compression.plan.units import parse_bytes, parse_seconds
from mobilenmt.compression.train.student import StudentShape

FOLDER = "plan"
FILE = "plan.json"
PLOT = "plan.png"


@dataclass(frozen=True)
class Planned:
    """What became of a size."""

    shape: StudentShape
    vocabulary: int
    """Pieces."""


@dataclass(frozen=True)
class RecipePlan:
    """A student that is to be planned.

    Args:
        settings: the section [student].
        given: its keys as they stand in the recipe.
        export: precision and shortlist of the pack.
        vocabulary: pieces, if the recipe says how many.
        inside: the model that the student is to be pruned from; None where it starts from random weights.
    """

    settings: StudentSettings
    given: Mapping[str, Any]
    export: ExportSettings
    vocabulary: int | None = None
    inside: StudentShape | None = None

    def keep(self, work: Path, *, force: bool = False) -> StageResult:
        """Make the plan in ``work``/plan, or find it made.

        Raises:
            PlanError: no shape fits.
            StageError: it was made for other settings, and not ``force``.
        """
        folder = work / FOLDER
        try:
            return run_stage(folder, name=FOLDER, settings=self._identity(), inputs=self._inputs(), work=self._work)
        except StageError:
            if not force:
                raise
            return run_stage(
                folder, name=FOLDER, settings=self._identity(), inputs=self._inputs(), work=self._work, force=True
            )

    def find(self, work: Path) -> Planned:
        """The plan that is kept in ``work``/plan, or what it would be; nothing is written. Raises PlanError."""
        folder = work / FOLDER
        try:
            kept = check_stage(folder, name=FOLDER, settings=self._identity(), inputs=self._inputs())
        except StageError:  # keep() will say so, or make it again
            kept = False
        if kept:
            best = read_json_object(folder / FILE)["candidates"][0]
            return Planned(from_mapping(StudentShape, best["shape"], f"{folder / FILE}:"), best["vocabulary"])
        first = self._search()[0]
        return Planned(first.shape, first.vocabulary)

    def _identity(self) -> dict[str, Any]:
        budget, shortlist = self._budget(), self._shortlist()
        quantization = self.export.quantization
        forms = {} if quantization.plain else {"quantization": quantization.to_dict()}
        return forms | {
            "budget": asdict(budget),
            "fit": "given" if self._inputs() else self._fit,  # a file counts by its content
            "fixed": self.settings.fixed(self.given),
            "vocabulary": self.vocabulary,
            "precision": self.export.precision,
            "shortlist": None if shortlist is None else asdict(shortlist),
            "inside": None if self.inside is None else asdict(self.inside),
        }

    @property
    def _fit(self) -> str:
        return self.settings.fit or DEFAULT_FIT

    def _inputs(self) -> dict[str, Path | str]:
        return {} if self._fit in shipped_fits() else {"fit": Path(self._fit)}

    def _budget(self) -> Budget:
        settings = self.settings
        return Budget(
            parse_bytes(str(settings.size)),
            None if settings.latency is None else parse_seconds(settings.latency),
            None if settings.memory is None else parse_bytes(str(settings.memory), "memory"),
        )

    def _shortlist(self) -> Any:
        return self.export.shortlist if self.export.shortlist_sentences else None

    def _search(self) -> tuple[Candidate, ...]:
        space = Space(
            fixed=self.settings.fixed(self.given),
            vocabularies=VOCABULARIES if self.vocabulary is None else (self.vocabulary,),
            inside=self.inside,
            precision=self.export.precision,
            quantization=None if self.export.quantization.plain else self.export.quantization,
            shortlist=self._shortlist(),
        )
        return search(self._budget(), space, load_fit(self._fit), Quality(load_points()))

    def _work(self, folder: Path) -> Mapping[str, Any]:
        found, budget = self._search(), self._budget()
        fit, quality = load_fit(self._fit), Quality(load_points())
        write_json(folder / FILE, to_json(found, budget, fit, quality, Load()))
        if importlib.util.find_spec("matplotlib") is not None:  # the picture is no reason to stop
            save_plot(folder / PLOT, found, budget)
        best = found[0]
        return {
            "size": budget.bytes,
            "bytes": best.bytes,
            "milliseconds": round(1e3 * best.seconds, 3),
            "memory": best.memory or 0,
            "parameters": best.parameters,
            "pieces": best.vocabulary,
            "shape": asdict(best.shape),
        }
