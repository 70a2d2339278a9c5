"""Marks at the end of a sentence: a translation ends as its source does."""

from __future__ import annotations

_MARKS = ".!?…"
_CLOSERS = "\"'”“’»«)] "
_GOES_ON = ",;:-–—"
_OTHER_SCRIPTS = "\u2e80"  # the first character of those with marks of their own
_DOTS = 3  # that an ellipsis stands for


def ended(output: str, source: str) -> str:
    """An output with the marks of its source where it has none, and no more of them than its source.

    Only of a source that ends with ``.``, ``!``, ``?`` or ``…``. Marks inside of closing quotes or brackets count;
    nothing is put behind a comma, a colon or a dash, or a script with full stops of its own.
    """
    if output[-1:] == source[-1:] and output[-2:-1] not in _MARKS:
        return output  # as most end, and so does one without a mark
    bare = source.rstrip(_MARKS)
    marks = source[len(bare) :]
    if not marks or not bare or not output:
        return output
    body = output.rstrip(_MARKS)
    if body != output:
        most = len(marks) + (_DOTS - 1) * marks.count("…")
        return body + marks if body and len(output) - len(body) > most else output
    last = output.rstrip(_CLOSERS)[-1:]
    if not last or last in _MARKS + _GOES_ON or last >= _OTHER_SCRIPTS:
        return output
    return output.rstrip() + marks
