"""Translate lines in a process of their own, so that time and memory are those of the model and of nothing else.

The parent calls :func:`translate_lines`. The child, ``python -m mobilenmt.compression.evaluate.worker``, reads a JSON
job from standard input and answers with one JSON object a line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mobilenmt.compression.core.memory import process_memory

if TYPE_CHECKING:
    from mobilenmt.compression.teacher.settings import TeacherSettings

CHUNK = 128
"""Sentences handed to a pack at once; the engine sorts them by length and makes its own batches of them."""
TEACHER_CHUNK = 1024
"""Likewise for a teacher."""


_Translate = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True)
class WorkerResult:
    """What a model answered, and what that took."""

    outputs: Mapping[str, tuple[str, ...]]
    """Test set -> one line a sentence."""
    seconds: Mapping[str, float]
    """Test set -> time of translating it, loading not counted."""
    load_seconds: float
    """From the start of reading the model until it can translate."""
    peak_bytes: int | None
    """Largest resident memory of the process; None where the system does not tell."""
    added_bytes: int | None
    """The same above what the process held when its libraries were loaded."""


def translate_lines(
    model: Path | TeacherSettings,
    texts: Mapping[str, Sequence[str]],
    *,
    beam: int | None = None,
    threads: int = 1,
    languages: tuple[str, str] = ("", ""),
    progress: Callable[[int], None] = lambda done: None,
) -> WorkerResult:
    """Translate test sets with a pack or a teacher, in a fresh process.

    Args:
        model: a pack, folder or zip; or a teacher, which searches as its settings say.
        texts: test set -> its sentences.
        beam: hypotheses that a pack keeps; None for its default.
        threads: threads inside an operator, 0 for one a core.
        languages: codes of source and target, for a teacher.
        progress: called with the number of sentences just translated.

    Raises:
        EvaluationError: the process failed; its message is the process's own.
    """
    from mobilenmt import __file__ as package
    from mobilenmt.compression.core.errors import EvaluationError
    from mobilenmt.compression.core.settings import to_mapping

    job: dict[str, Any] = {"threads": threads, "texts": {name: list(lines) for name, lines in texts.items()}}
    if isinstance(model, Path):
        job |= {"pack": str(model), "beam": beam}
    else:
        job |= {"teacher": to_mapping(model), "languages": languages}
    paths = [str(Path(str(package)).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONIOENCODING": "utf-8",
        "ORT_DISABLE_TELEMETRY": "1",
    }
    command = [sys.executable, "-m", __name__]
    outputs: dict[str, list[str]] = {name: [] for name in texts}
    end: dict[str, Any] = {}
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stderr:
        stdin.write(json.dumps(job).encode())  # a file: a pipe would wait for a child that waits for us
        stdin.seek(0)
        with subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, env=environment) as child:
            try:
                assert child.stdout is not None
                for line in child.stdout:
                    answer = json.loads(line)
                    if "test" in answer:
                        outputs[answer["test"]] += answer["texts"]
                        progress(len(answer["texts"]))
                    else:
                        end = answer
            except BaseException:
                child.kill()
                raise
        if child.returncode or not end or "error" in end:
            reason = end.get("error") or _last_line(stderr) or f"exit code {child.returncode}"
            where = model if isinstance(model, Path) else model.checkpoint
            raise EvaluationError(reason if str(where) in reason else f"{where}: {reason}")
    return WorkerResult(
        outputs={name: tuple(lines) for name, lines in outputs.items()},
        seconds=end["seconds"],
        load_seconds=end["load_seconds"],
        peak_bytes=end["peak_bytes"],
        added_bytes=end["added_bytes"],
    )


def _main() -> None:
    from mobilenmt.runtime.errors import MobileNMTError

    job = json.load(sys.stdin)
    seconds: dict[str, float] = {}
    try:
        load = _load_teacher if "teacher" in job else _load_pack
        opener, size = load(job), TEACHER_CHUNK if "teacher" in job else CHUNK
        before = process_memory("VmRSS")
        begin = time.perf_counter()
        translate = opener()
        loaded = time.perf_counter() - begin
        for name, lines in job["texts"].items():
            seconds[name] = 0.0
            for start in range(0, len(lines), size):
                begin = time.perf_counter()
                found = translate(lines[start : start + size])
                seconds[name] += time.perf_counter() - begin
                _answer({"test": name, "texts": [" ".join(text.split("\n")) for text in found]})
    except MobileNMTError as error:
        _answer({"error": str(error)})
        return
    peak = process_memory("VmHWM")
    added = None if peak is None or before is None else peak - before
    _answer({"seconds": seconds, "load_seconds": loaded, "peak_bytes": peak, "added_bytes": added})


def _load_pack(job: Mapping[str, Any]) -> Callable[[], _Translate]:
    """Load the libraries; what is returned loads the model."""
    from mobilenmt.runtime.onnx.ort import load_onnxruntime

    load_onnxruntime()
    from mobilenmt.runtime.translator import Translator

    def opener() -> _Translate:
        translator = Translator(job["pack"], threads=job["threads"])
        # In fp32 the sentences of a batch share nothing but rounding; in INT8 they are to come out as an app gets them.
        options = {"beam_size": job["beam"], "together": translator.pack.manifest.precision == "fp32"}
        return lambda lines: [item.text for item in translator.translate_batch(lines, **options)]

    return opener


def _load_teacher(job: Mapping[str, Any]) -> Callable[[], _Translate]:
    import torch
    import transformers  # noqa: F401

    from mobilenmt.compression.core.settings import from_mapping
    from mobilenmt.compression.teacher.check import check_teacher
    from mobilenmt.compression.teacher.machine import find_machine
    from mobilenmt.compression.teacher.open import open_teacher
    from mobilenmt.compression.teacher.settings import TeacherSettings
    from mobilenmt.compression.teacher.spec import TeacherSpec

    settings = from_mapping(TeacherSettings, job["teacher"], "teacher")
    source, target = job["languages"]

    def opener() -> _Translate:
        checked = check_teacher(settings, source, target)
        machine = find_machine(settings)
        torch.set_num_threads(machine["threads"])
        teacher = open_teacher(TeacherSpec.of(settings, checked, target, 0, machine))
        return lambda lines: [candidates[0].text for candidates in teacher.translate(lines)]

    return opener


def _answer(value: Mapping[str, Any]) -> None:
    print(json.dumps(value), flush=True)


def _last_line(stream: IO[bytes]) -> str:
    stream.seek(0)
    lines = stream.read().decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


if __name__ == "__main__":
    _main()
