"""Opens a teacher of any family."""

from __future__ import annotations

from mobilenmt.compression.teacher.spec import Teacher, TeacherSpec


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
