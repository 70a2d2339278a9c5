"""Shards translated in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mobilenmt.compression.teacher.open import open_teacher
from mobilenmt.compression.teacher.shards import ShardPlan, ShardText, request_digest, unpack_items
from mobilenmt.compression.teacher.spec import TeacherSpec
from mobilenmt.compression.teacher.text import translate_shard


def translate_here(spec: TeacherSpec, plan: ShardPlan, pending: Sequence[int]) -> Iterator[tuple[str, ShardText]]:
    """Translate shards in this process; yields the request's digest with each."""
    teacher = open_teacher(spec)
    for number, request in plan.requests(pending):
        yield request_digest(request), translate_shard(teacher, number, unpack_items(request), spec)
