"""Opens a teacher of any family, and has it translate shards in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mobilenmt.compression.teacher.shards import ShardPlan, ShardText, unpack_items
from mobilenmt.compression.teacher.spec import Teacher, TeacherSpec
from mobilenmt.compression.teacher.text import translate_shard


def open_teacher(spec: TeacherSpec) -> Teacher:
    """Load the weights.

    Raises:
        TeacherError: they are missing, incomplete, or do not fit the tokenizer or the device.
    """
    if spec.family == "pack":
        from mobilenmt.compression.teacher.pack import PackTeacher

        return PackTeacher(spec)
    if spec.family == "chat":
        from mobilenmt.compression.teacher.chat import ChatTeacher

        return ChatTeacher(spec)
    from mobilenmt.compression.teacher.seq2seq import Seq2SeqTeacher

    return Seq2SeqTeacher(spec)


def translate_here(spec: TeacherSpec, plan: ShardPlan, pending: Sequence[int]) -> Iterator[ShardText]:
    """Translate shards in this process; yields them as they come."""
    teacher = open_teacher(spec)
    for number, request in plan.requests(pending):
        yield translate_shard(teacher, number, unpack_items(request), spec)
