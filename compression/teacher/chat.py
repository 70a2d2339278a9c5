"""A decoder-only chat model as a teacher: it is asked to translate, and its answer is stripped to the translation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mobilenmt.compression.teacher.prompt import render
from mobilenmt.compression.teacher.seq2seq import TransformersTeacher
from mobilenmt.compression.teacher.spec import TeacherSpec
from mobilenmt.compression.teacher.text import clean_answer, length_limit

if TYPE_CHECKING:
    import torch


class ChatTeacher(TransformersTeacher):
    """A decoder-only model that is asked to translate."""

    _left = True

    def __init__(self, spec: TeacherSpec) -> None:
        super().__init__(spec, "AutoModelForCausalLM")
        self._templated = bool(self._tokenizer.chat_template)
        # Token ids that end a line, for a model that goes on writing: known by their text.
        self._line_ends: frozenset[int] = frozenset()
        if not self._templated:
            size = len(self._tokenizer)
            texts = self._tokenizer.batch_decode([[token] for token in range(size)], clean_up_tokenization_spaces=False)
            self._line_ends = frozenset(token for token, text in enumerate(texts) if "\n" in text)

    def _encode(self, sources: Sequence[str]) -> list[list[int]]:
        spec = self._spec
        texts = [
            render(spec.settings, self._tokenizer, source, spec.source_code, spec.target_code) for source in sources
        ]
        # A template writes the special tokens itself.
        found: list[list[int]] = self._tokenizer(texts, add_special_tokens=not self._templated, verbose=False)[
            "input_ids"
        ]
        return found

    def _fits(self, tokens: int, room: int | None) -> bool:
        return room is None or tokens + 1 < room

    def _limit(self, source_tokens: int, input_tokens: int, room: int | None) -> int:
        return length_limit(self._settings, source_tokens, None if room is None else room - input_tokens)

    def _prompt_length(self, batch: torch.Tensor) -> int:
        return batch.shape[1]

    def _text(self, ids: Sequence[int], source: str) -> str:
        return clean_answer(super()._text(ids, source), source)

    def _ended(self, ids: Sequence[int]) -> bool:
        return not self._line_ends.isdisjoint(ids)

    def _cut(self, row: list[int]) -> list[int]:
        row = super()._cut(row)
        written = False
        for index, token in enumerate(row):
            if token in self._line_ends and written:
                return row[: index + 1]
            written = written or token not in self._line_ends
        return row

    def _extra(self) -> dict[str, Any]:
        if not self._line_ends:
            return {}
        from mobilenmt.compression.teacher.sampling import LineEnd

        return {"stopping_criteria": [LineEnd(self._line_ends)]}
