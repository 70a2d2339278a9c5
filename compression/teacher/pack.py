"""A pack as a teacher: its own engine translates, several times faster on a processor than torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mobilenmt.compression.core.errors import TeacherError
from mobilenmt.compression.teacher.languages import same_language
from mobilenmt.compression.teacher.spec import Candidate, TeacherSpec
from mobilenmt.runtime.errors import MobileNMTError
from mobilenmt.runtime.guard import is_degenerate
from mobilenmt.runtime.hypothesis import MAX_BEAMS, Hypothesis, SearchOptions
from mobilenmt.runtime.onnx.engine import Engine
from mobilenmt.runtime.onnx.ort import SessionConfig
from mobilenmt.runtime.pack import Pack
from mobilenmt.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from mobilenmt.compression.teacher.settings import TeacherSettings


def check_pack(settings: TeacherSettings, source: str, target: str) -> None:
    """TeacherError unless the pack is whole, translates between the two languages, and can do the search."""
    manifest = _open(settings, verify=True).manifest
    for key, wanted, own in (
        ("source_language", source, manifest.source_language),
        ("target_language", target, manifest.target_language),
    ):
        if wanted and own and not same_language(wanted, own):
            raise TeacherError(
                f"{settings.checkpoint}: the pack translates {manifest.source_language} to {manifest.target_language}, "
                f"but {key} is {wanted!r}"
            )
    if settings.search == "sample":
        raise TeacherError(f"{settings.checkpoint}: a pack cannot sample; take another search, or its checkpoint")
    if settings.beams > MAX_BEAMS:
        raise TeacherError(f"{settings.checkpoint}: a pack keeps at most {MAX_BEAMS} beams, not {settings.beams}")


class PackTeacher:
    """Translates with a pack's engine."""

    def __init__(self, spec: TeacherSpec) -> None:
        self._settings = spec.settings
        pack = _open(spec.settings, verify=False)
        manifest = pack.manifest
        target = "tokenizer.target.json"
        try:
            self._engine = Engine(pack, SessionConfig(spec.threads, arena=True))
            self._tokenizer = Tokenizer(
                pack.file("tokenizer.json"),
                manifest.tokens,
                manifest.model.source_vocab_size,
                pack.file(target) if target in manifest.files else None,
            )
        except MobileNMTError as error:
            raise TeacherError(f"{spec.settings.checkpoint}: {error}") from error

    def translate(self, sources: Sequence[str]) -> list[list[Candidate]]:
        """Translate sources; the search is the settings'."""
        settings = self._settings
        ids = [self._tokenizer.encode(source) for source in sources]
        fitting = [index for index, found in enumerate(ids) if len(found) < self._engine.max_length]
        limits = [self._limit(len(ids[index])) for index in fitting]
        results = [[Candidate("", 0, "source_too_long")] for _ in sources]
        wanted = settings.n_best if settings.search in ("n_best", "nearest") else 1
        found = self._engine.generate(
            [ids[index] for index in fitting],
            limits,
            SearchOptions(settings.beams, wanted, length_penalty=settings.length_penalty, together=True),
        )
        for index, hypotheses in zip(fitting, found, strict=True):
            results[index] = [self._candidate(ids[index], hypothesis) for hypothesis in hypotheses]
        return results

    def _limit(self, tokens: int) -> int:
        settings = self._settings
        most = min(int(settings.max_length_ratio * tokens) + settings.max_length_extra, settings.max_length)
        return max(2, min(most + 1, self._engine.max_length))  # the engine counts the start token

    def _candidate(self, source: Sequence[int], hypothesis: Hypothesis) -> Candidate:
        flaw = ""
        if is_degenerate(source, hypothesis.ids):
            flaw = "looped"
        elif hypothesis.at_limit:
            flaw = "too_long"
        return Candidate(self._tokenizer.decode(hypothesis.ids), hypothesis.generated, flaw)


def _open(settings: TeacherSettings, *, verify: bool) -> Pack:
    try:
        return Pack.open(settings.checkpoint, verify=verify)
    except MobileNMTError as error:
        raise TeacherError(f"{settings.checkpoint}: {error}") from error
