"""``mobilenmt quantize``: files in, a folder with tables, pictures and packs out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mobilenmt.compression.core.errors import QuantizeError
from mobilenmt.compression.plan.units import parse_bytes
from mobilenmt.compression.quantize.mixed import mix, write_settings
from mobilenmt.compression.quantize.output import table_of, write_rows, write_sensitivity
from mobilenmt.compression.quantize.score import latencies, score, some_sentences
from mobilenmt.compression.quantize.sensitivity import Sensitivity, by_matrix, extremes, measure
from mobilenmt.compression.quantize.store import locked
from mobilenmt.compression.quantize.study import Study, StudySettings
from mobilenmt.compression.quantize.variants import BASELINE, REFERENCE, VARIANTS, Made, Variant, make, write_pack
from mobilenmt.export.quantize.forms import FORMS, find_form
from mobilenmt.export.quantize.settings import Quantization
from mobilenmt.runtime.atomic import atomic_path
from mobilenmt.runtime.errors import ExportError

SCORED_FORM = "int4-32"
"""In which single matrices are scored by BLEU and chrF, all others in ``int8-wide``."""
_OTHERS = "int8-wide"


@dataclass(frozen=True)
class Request:
    """What is to be done."""

    checkpoint: Path
    out: Path
    study: StudySettings
    sensitivity: bool = False
    """Measure what each matrix costs alone."""
    scored: int = 0
    """So many of the most and of the least sensitive matrices get BLEU and chrF, too."""
    size: str | None = None
    """A mixture for a pack of this size; ``equal``: of the size of the INT8 pack."""
    compare: bool = False
    """Make and score all variants."""
    variants: tuple[str, ...] = ()
    """Only these of them; none: all."""
    checkpoints: tuple[tuple[str, Path], ...] = ()
    """Further models to compare, by name, in ``int8`` and in ``int4-32``."""
    forms: tuple[str, ...] = tuple(FORMS)
    """What a matrix may be stored in."""
    lines: int | None = None
    """Of each dev file in comparisons; mixtures are compared on all of them."""
    threads: int = 1
    """Sentences translated at once."""

    def __post_init__(self) -> None:
        for form in self.forms:
            find_form(form)
        if not self.forms:
            raise QuantizeError("--forms: name at least one form")
        for name in self.variants:
            if name not in VARIANTS:
                raise QuantizeError(f"there is no variant {name!r}; variants: {'; '.join(VARIANTS)}")
        if self.lines is not None and self.lines < 1:
            raise QuantizeError(f"--lines: expected at least 1, found {self.lines}")


def quantize(request: Request, report: Callable[[str], None] = lambda line: None) -> str:
    """Do what is asked for, as far as the folder does not have it already; returns what to print.

    Raises:
        QuantizeError: the model cannot be studied, the size cannot be reached, the folder is another study's.
        CheckpointError, CorpusError, EvaluationError, ExportError: a file is missing or damaged.
    """
    size = None
    if request.size is not None and request.size != "equal":
        size = parse_bytes(request.size, "--size")
    if (request.checkpoint / "pack.json").is_file() or request.checkpoint.suffix == ".zip":
        raise QuantizeError(
            f"{request.checkpoint} is a pack; a study needs the checkpoint it was made of, or one that mobilenmt "
            "restore makes of an fp32 pack"
        )
    study = Study(request.checkpoint, request.study, request.out)
    with locked(request.out):
        runner = _Runner(request, study, report)
        told: list[str] = []
        found: list[Sensitivity] = []
        if request.sensitivity or request.size is not None:
            found, text = runner.sensitivities()
            told.append(text)
        if request.size is not None:
            told.append(runner.mixture(found, size))
        if request.compare:
            told.append(runner.comparison())
    return "\n".join(told)


class _Runner:
    def __init__(self, request: Request, study: Study, report: Callable[[str], None]) -> None:
        self.request, self.study, self.report = request, study, report
        self.packs = study.folder / "packs"

    def sensitivities(self) -> tuple[list[Sensitivity], str]:
        how = self.study.settings.settings
        forms = list(dict.fromkeys([*self.request.forms, *([SCORED_FORM] if self.request.scored else [])]))
        found = measure(self.study.probe, forms, how, self.study.results, shortlist=self.study.shortlist)
        scores: dict[str, dict[str, float]] = {}
        if self.request.scored:
            plain = self._row(Variant(f"{_OTHERS}, mse", Quantization(_OTHERS, "mse")), self.request.lines)
            patterns = {one.matrix.name: one.matrix.pattern for one in found}
            for name in extremes(by_matrix(found), SCORED_FORM, self.request.scored):
                settings = Quantization(_OTHERS, "mse", matrices={patterns[name]: SCORED_FORM})
                row = self._row(Variant(f"{name} in {SCORED_FORM}", settings), self.request.lines, keep=False)
                scores[name] = {key: row[key] - plain[key] for key in ("bleu", "chrf")}
        usable = [one for one in found if one.form in self.request.forms]
        return usable, write_sensitivity(self.study.folder, found, scores)

    def mixture(self, found: Sequence[Sensitivity], size: int | None) -> str:
        """Find one, export it (rounded to the nearest, and by GPTQ), and compare it on all dev lines."""
        plain = self._row(VARIANTS[BASELINE], None)
        budget = plain["bytes"] if size is None else size
        name = f"mixed, {budget:,} bytes"
        settings = self._mixed(found, budget, name)
        write_settings(self.study.folder / f"{_folder_name(name)}.json", settings)
        rows = [self._row(VARIANTS[REFERENCE], None), plain, self._row(Variant(name, settings), None)]
        compensated = replace(settings, method="gptq")
        rows.append(self._row(Variant(f"{name}, GPTQ", compensated, "gptq"), None))
        text = table_of(rows, BASELINE)
        with atomic_path(self.study.folder / f"{_folder_name(name)}.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
        names = ", ".join(f"{key} {value}" for key, value in settings.matrices.items())
        return f"{settings.form} but for {names or 'nothing'}\n\n{text}"

    def _mixed(self, found: Sequence[Sensitivity], budget: int, name: str) -> Quantization:
        """The forms, and the pack in its place."""
        study, how = self.study, self.study.settings.settings
        key = f"forms for {budget} bytes of {','.join(self.request.forms)}"
        out = self.packs / _folder_name(name)
        if key in study.results and (out / "pack.json").is_file():
            return Quantization.from_dict(study.results[key]["settings"])
        base = self._pack(Variant(f"int8, {how.clipping}", replace(how, form="int8", matrices={})))

        def export(settings: Quantization, where: Path) -> int:
            variant = Variant(name, settings)
            return write_pack(study, variant, make(study, variant), where)

        mixed = mix(study, found, budget, base, out, export, self.report)
        told = {"settings": mixed.settings.to_dict(), "bytes": mixed.bytes, "predicted_distance": mixed.distance}
        study.results.add(key, told)
        return mixed.settings

    def comparison(self) -> str:
        wanted = [VARIANTS[name] for name in self.request.variants or VARIANTS]
        rows: list[dict[str, Any]] = []
        for variant in wanted:
            try:
                rows.append(self._row(variant, self.request.lines))
            except ExportError as error:  # rounded too coarsely to be told from a fault
                self.report(f"{variant.name} is left out: {error}")
        made = {row["name"] for row in rows}
        wanted = [variant for variant in wanted if variant.name in made]
        if not rows:
            raise QuantizeError("none of these variants makes a pack of this model")
        paths = {variant.name: self.packs / _folder_name(variant.name) for variant in wanted}
        for mixed in sorted(self.packs.glob("mixed-*")):
            key = next((key for key in self.study.results if _folder_name(key.partition(" @ ")[0]) == mixed.name), None)
            if key is not None:
                name = key.partition(" @ ")[0]
                rows.append(self._score(name, mixed, self.request.lines, self.study.results[key]["distance"]))
                paths[name] = mixed
        for name, checkpoint in self.request.checkpoints:
            for form in ("int8", SCORED_FORM):
                variant = Variant(f"{name}: {form}", Quantization(form))
                other = Study(checkpoint, self.request.study, self.study.folder / _folder_name(f"checkpoint {name}"))
                out = self.packs / _folder_name(variant.name)
                if not (out / "pack.json").is_file():
                    write_pack(other, variant, Made(other.network, {}), out)
                rows.append(self._score(variant.name, out, self.request.lines, None))
                paths[variant.name] = out
        rows = self._timed(rows, paths)
        return write_rows(self.study.folder, rows, REFERENCE if REFERENCE in paths else None)

    def _timed(self, rows: list[dict[str, Any]], paths: dict[str, Path]) -> list[dict[str, Any]]:
        """With latencies, all measured together."""
        key = f"latency @ {'; '.join(paths)}"
        results = self.study.results
        if key not in results:
            self.report("measuring latency")
            results.add(key, {"seconds": latencies(paths, some_sentences(self.study))})
        return [{**row, "latency": results[key]["seconds"].get(row["name"])} for row in rows]

    def _pack(self, variant: Variant, made: Made | None = None) -> int:
        """Its bytes; made if it is not there."""
        from mobilenmt.runtime.pack import Pack

        out = self.packs / _folder_name(variant.name)
        if (out / "pack.json").is_file():
            return int(Pack.open(out).total_bytes)
        self.report(f"exporting {variant.name}")
        self.packs.mkdir(exist_ok=True)
        return write_pack(self.study, variant, made or make(self.study, variant), out)

    def _row(self, variant: Variant, lines: int | None, *, keep: bool = True) -> dict[str, Any]:
        key = _key(variant.name, lines)
        if key in self.study.results:
            return self.study.results[key]
        distances = f"distance of {variant.name}"
        out = self.packs / _folder_name(variant.name)
        if distances not in self.study.results or not (out / "pack.json").is_file():
            made = make(self.study, variant)
            self._pack(variant, made)
            self.study.results.add(distances, {"distance": self.study.probe.distance(made.stored)})
        row = self._score(variant.name, out, lines, self.study.results[distances]["distance"])
        if not keep:
            import shutil

            shutil.rmtree(out)
        return row

    def _score(self, name: str, pack: Path, lines: int | None, distance: float | None) -> dict[str, Any]:
        key = _key(name, lines)
        if key in self.study.results:
            return self.study.results[key]
        self.report(f"scoring {name}")
        found = score(self.study, name, pack, lines, self.request.threads)
        return self.study.results.add(key, {"name": name, "distance": distance, **found})


def _key(name: str, lines: int | None) -> str:
    return f"{name} @ {lines or 'all'} lines"


def _folder_name(name: str) -> str:
    return re.sub(r"[^\w.]+", "-", name).strip("-")
