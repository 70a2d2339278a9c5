"""Cold start of fresh processes, and bytes: of packages, installed, and of models."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.engines.base import SPECS, STUDENT
from benchmarks.harness.bench import Bench
from benchmarks.harness.environments import environment_for
from benchmarks.harness.errors import expect
from benchmarks.harness.worker import child_command, start
from benchmarks.parts.speed import Row, take_turns

TEXT = "Where is the train station?"


def cold(bench: Bench) -> dict[str, Any]:
    """Seconds from the start of a process to its first line: interpreter, imports, model, one short sentence.

    Bytecode is there (the first turn writes it) and files are in the system's cache, as on a machine in use.
    """
    settings = bench.settings
    commands: dict[str, list[str]] = {}
    for name, path in bench.paths(STUDENT).items():
        python = environment_for(name, settings.build).python
        commands[name] = [*child_command(name, path, 1, bench.tokenizer_json, python), TEXT]
        if name in ("ours-native", "ours-int8"):
            translate = [str(python), "-m", "mobilenmt", "translate", "--engine", SPECS[name].engine]
            commands[name] = [*translate, "--pack", str(path), TEXT]
        if name == "ours-int8":
            commands["python alone"] = [str(python), "-c", "print()"]
            commands["import onnxruntime"] = [str(python), "-c", "import onnxruntime; print()"]
    turns = bench.progress(range(settings.turns + 1), "cold start")
    return {"text": TEXT, "rows": starts(commands, turns, settings.pinned(1))}


def starts(commands: Mapping[str, Sequence[str]], turns: Iterable[int], cores: Sequence[int]) -> list[Row]:
    """First line of each command and seconds from its start to that, in alternation; turn 0 is not kept."""
    outputs: dict[str, str] = {}

    def work(name: str, turn: int, first: bool) -> list[float]:
        began = time.perf_counter()
        with start(commands[name], 1, cores, harness="benchmarks.engines.child" in commands[name]) as child:
            assert child.stdout is not None
            outputs[name] = child.stdout.readline().strip()
            seconds = time.perf_counter() - began
        expect(child.returncode == 0, f"cold start of {name} ended with status {child.returncode} (see above)")
        return [seconds]

    return [
        row | {"output": outputs[row["engine"]]} for row in take_turns({each: each for each in commands}, turns, work)
    ]


def size(bench: Bench) -> dict[str, Any]:
    """Bytes to download and to install for each engine, tokenizer counted, of our engine alone, and of its model."""
    rows = []
    for name, path in bench.progress(bench.paths(tuple(SPECS)).items(), "size"):
        place = environment_for(name, bench.settings.build)
        model = sum(file.stat().st_size for file in model_files(name, path))
        packages = {"download bytes": place.wheel_bytes, "installed bytes": place.installed_bytes}
        rows.append({"engine": name, **packages, "our bytes": place.our_bytes, "model bytes": model})
    return {"rows": rows}


def model_files(name: str, path: Path) -> list[Path]:
    """The files that the engine reads. For ours the whole pack; a peer's checkpoint without its tokenizer.

    optimum's folder holds a merged decoder beside the two that it was merged from; the ones it opens are counted.
    """
    if "optimum" in name:
        suffix = "_quantized" if any(path.glob("*quantized.onnx")) else ""
        merged = not suffix and any(path.glob("decoder_model_merged.onnx"))
        decoders = ["decoder_model_merged"] if merged else ["decoder_model", "decoder_with_past_model"]
        return [file for stem in ("encoder_model", *decoders) for file in path.glob(f"{stem}{suffix}.onnx*")]
    if name.startswith("torch"):
        return [*path.glob("*.safetensors"), *path.glob("*.bin")]
    return [file for file in path.iterdir() if file.is_file()]
