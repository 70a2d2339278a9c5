"""Cold start of fresh processes, and bytes: of packages, installed, and of models."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.engines.base import SPECS, STUDENT
from benchmarks.harness.bench import Bench
from benchmarks.harness.environments import environment_for
from benchmarks.harness.errors import expect
from benchmarks.harness.worker import environment, pinning

TEXT = "Where is the train station?"


def cold(bench: Bench) -> dict[str, Any]:
    """Seconds from the start of a process to its first line: interpreter, imports, model, one short sentence.

    Bytecode is there (the first turn writes it) and files are in the system's cache, as on a machine in use.
    """
    settings = bench.settings
    commands = {}
    for name, path in bench.paths(STUDENT).items():
        python = str(environment_for(name, settings.build).python)
        if name == "ours-int8":
            commands[name] = [python, "-m", "mobilenmt", "translate", "--pack", str(path), TEXT]
        else:
            commands[name] = [python, "-m", "benchmarks.parts.once", name, str(path), str(bench.tokenizer_json), TEXT]
    if "ours-int8" in commands:
        python = commands["ours-int8"][0]
        commands["python alone"] = [python, "-c", "print()"]
        commands["import onnxruntime"] = [python, "-c", "import onnxruntime; print()"]
    seconds, outputs = starts(commands, bench.progress(range(settings.turns + 1), "cold start"), settings.pinned(1))
    rows = [{"engine": name, "output": outputs[name], "seconds": found} for name, found in seconds.items()]
    return {"text": TEXT, "rows": rows}


def starts(
    commands: dict[str, list[str]], turns: Iterable[int], cores: list[int]
) -> tuple[dict[str, list[list[float]]], dict[str, str]]:
    """Seconds from the start of each command to its first line, in alternation, and that line; turn 0 is not kept."""
    seconds: dict[str, list[list[float]]] = {name: [] for name in commands}
    outputs = {}
    for turn in turns:
        for name, command in commands.items():
            start = time.perf_counter()
            with subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                env=environment(1, harness="benchmarks.parts.once" in command),
                preexec_fn=pinning(cores),
                text=True,
            ) as child:
                assert child.stdout is not None
                outputs[name] = child.stdout.readline().strip()
                first = time.perf_counter() - start
            expect(child.returncode == 0, f"cold start of {name} ended with status {child.returncode} (see above)")
            if turn:
                seconds[name].append([first])
    return seconds, outputs


def size(bench: Bench) -> dict[str, Any]:
    """Bytes to download and to install for each engine, tokenizer counted, and bytes of its model files."""
    rows = []
    for name, path in bench.progress(bench.paths(tuple(SPECS)).items(), "size"):
        place = environment_for(name, bench.settings.build)
        rows.append(
            {
                "engine": name,
                "download bytes": place.wheel_bytes,
                "installed bytes": place.installed_bytes,
                "model bytes": model_bytes(name, path),
            }
        )
    return {"rows": rows}


def model_bytes(name: str, path: Path) -> int:
    """Bytes of the files that the engine reads. For ours the whole pack; a peer's checkpoint without its tokenizer.

    optimum's folder holds a merged decoder beside the two that it was merged from; the ones it opens are counted.
    """
    if "optimum" in name:
        quantized = any(path.glob("*quantized.onnx"))
        merged = any(path.glob("decoder_model_merged.onnx"))
        stems = ["encoder_model"]
        stems += ["decoder_model_merged"] if merged and not quantized else ["decoder_model", "decoder_with_past_model"]
        suffix = "_quantized" if quantized else ""
        files = [file for stem in stems for file in path.glob(f"{stem}{suffix}.onnx*")]
    elif name.startswith("torch"):
        files = list(path.glob("*.safetensors")) + list(path.glob("*.bin"))
    else:
        files = [file for file in path.iterdir() if file.is_file()]
    return sum(file.stat().st_size for file in files)
