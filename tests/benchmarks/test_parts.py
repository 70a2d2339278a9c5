"""Each part measures what it says."""

from __future__ import annotations

import mmap
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.harness import prepare
from benchmarks.harness.bench import Bench
from benchmarks.harness.environments import Environment
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.settings import Settings
from benchmarks.harness.worker import Worker
from benchmarks.parts import breakdown, footprint, words
from benchmarks.parts.memory import measure, resident

from mobilenmt.runtime.translator import Translation
from tiny_models import WORDS


def event(name: str, operator: str, start: float, duration: float) -> dict[str, Any]:
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": duration, "args": {"op_name": operator}}


def test_breakdown_counts_no_time_twice() -> None:
    events = [
        event("a", "MatMul", 0, 40),
        event("loop", "Loop", 50, 100),
        event("b", "MatMul", 55, 30),
        event("if", "If", 90, 40),
        event("c", "Add", 95, 25),
        event("d", "Cast", 150, 10),
        {"cat": "Session", "name": "model_run", "ts": 0, "dur": 200},
    ]
    rows = {(row["phase"], row["operator"]): row for row in breakdown.by_operator(events, sentences=1, steps=2)}
    times = {key: row["microseconds"] for key, row in rows.items()}
    assert times == {
        ("encoder", "MatMul"): 40,
        ("encoder", "Cast"): 10,
        ("loop", "Loop"): 30,  # 100 less the 30 and 40 of its nodes
        ("step", "MatMul"): 15,  # a step: half of what two steps took
        ("step", "If"): 7.5,
        ("step", "Add"): 12.5,
    }
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)
    assert rows["step", "Add"]["share"] == pytest.approx(25 / 150)


def test_the_profile_of_our_engine_has_both_phases(settings: Settings) -> None:
    found = breakdown.breakdown(Bench(settings))["rows"]
    assert {row["phase"] for row in found} >= {"encoder", "step"}
    assert sum(row["share"] for row in found) == pytest.approx(1)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="reads /proc")
def test_resident_pages_of_own_files_are_told_from_others(tmp_path: Path) -> None:
    size = 8 << 20
    own, other = tmp_path / "model" / "weights", tmp_path / "modeling"
    own.parent.mkdir()
    for file in (own, other):
        file.write_bytes(bytes(range(256)) * (size // 256))
    before = resident(os.getpid(), own.parent)
    with own.open("rb") as a, other.open("rb") as b:
        maps = [mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) for stream in (a, b)]
        assert sum(len(mapped[:]) for mapped in maps) == 2 * size  # reads every page
        found = resident(os.getpid(), own.parent) - before
        for mapped in maps:
            mapped.close()
    assert found.own == size
    assert found.counted < size + (size >> 1), "pages of other files do not count"


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="reads /proc")
@pytest.mark.parametrize("text", [True, False])
def test_memory_is_what_loading_and_work_add(text: bool, settings: Settings) -> None:
    path = prepare.artifact("pack-int8", settings)
    tokenizer = settings.checkpoint / "tokenizer.json" if text else None
    with Worker("ours-int8", path, 1, settings.pinned(1), tokenizer, load=False) as worker:
        found = measure(worker, path.resolve(), ["a line"], seconds=0.2)
    weights = (path / "weights.bin").stat().st_size
    assert 0 < found["steady parts"]["own"] < 2 * weights + 500_000, "pages of the pack"
    assert found["steady"] == found["steady parts"]["anonymous"] + found["steady parts"]["own"]
    assert found["peak"] >= found["peak working"] >= found["steady"] > 0


def test_cold_start_is_the_time_to_the_first_line() -> None:
    slow = "import time; time.sleep(0.3); print('slow'); time.sleep(0.2)"
    commands = {"slow": [sys.executable, "-c", slow], "fast": [sys.executable, "-c", "print('fast')"]}
    found = footprint.starts(commands, range(3), [])
    assert [(row["engine"], row["output"]) for row in found] == [("slow", "slow"), ("fast", "fast")]
    assert [len(row["seconds"]) for row in found] == [2, 2], "the first turn is not kept"
    assert min(turn[0] for turn in found[0]["seconds"]) > 0.3
    with pytest.raises(BenchmarkError, match="broken ended with status 3"):
        footprint.starts({"broken": [sys.executable, "-c", "raise SystemExit(3)"]}, range(1), [])


def test_model_files_are_those_that_an_engine_opens(tmp_path: Path) -> None:
    names = ["encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx", "tokenizer.json"]
    names += ["model.safetensors", "decoder_model_merged.onnx"]
    for name in names:
        (tmp_path / name).touch()

    def opened(engine: str) -> set[str]:
        return {file.name for file in footprint.model_files(engine, tmp_path)}

    assert opened("ours-int8") == {*names}
    assert opened("torch-fp32") == {"model.safetensors"}
    assert opened("optimum-fp32") == {"encoder_model.onnx", "decoder_model_merged.onnx"}
    quantized = {f"{stem}_quantized.onnx" for stem in ("encoder_model", "decoder_model", "decoder_with_past_model")}
    for name in quantized:
        (tmp_path / name).touch()
    assert opened("optimum-int8") == quantized


def test_installed_bytes_leave_out_bytecode_and_packs(tmp_path: Path) -> None:
    """Packs are distributions of their own, which say so by an entry point."""
    place = Environment(tmp_path)
    for name, content in {
        "numpy/a.py": bytes(10),
        "numpy/a.pyc": bytes(100),
        "mobilenmt/runtime/a.py": bytes(1000),
        "mobilenmt/pipeline_commands.py": bytes(5000),
        "mobilenmt/compression/a/b.py": bytes(20000),
        "a_pack/weights.bin": bytes(10**6),
        "a_pack-1.dist-info/METADATA": b"Name: a-pack\nVersion: 1\n",
        "a_pack-1.dist-info/entry_points.txt": b"[mobilenmt.packs]\nen-de = a_pack\n",
        "a_pack-1.dist-info/RECORD": b"a_pack/weights.bin,,\n"
        + b"".join(b"a_pack-1.dist-info/%s,,\n" % name for name in (b"METADATA", b"entry_points.txt", b"RECORD")),
    }.items():
        file = place.site / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    assert place.installed_bytes == 26010
    assert place.our_bytes == 1000


def test_a_batch_gives_the_words_of_single_sentences(settings: Settings) -> None:
    found = words.batch(Bench(settings))
    assert found["rows"][0] == {"together": False, "same": 12, "of": 12}
    assert found["rows"][1]["together"] and 0 <= found["rows"][1]["same"] <= 12


def test_single_words_that_loop_or_run_on_are_found(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def __init__(self, pack: Path) -> None: ...

        def translate_batch(self, words: list[str]) -> list[Translation]:
            plain = [Translation("y", 0.0, ("y",)) for _ in words[3:]]
            long = "x" * (5 * len(words[1]) + 1)
            special = [("so so", ("so",) * 9, ()), (long, ("x",), ()), ("z", ("z",), ("cut",))]
            return [Translation(text, 0.0, tokens, (), flags) for text, tokens, flags in special] + plain

    monkeypatch.setattr(words, "Translator", Fake)
    found = words.words(Bench(settings))
    assert found["words"] == 200
    assert [row["found"] for row in found["rows"]] == [["loops"], ["too long"], ["cut"]]


def test_int8_is_compared_with_fp32_of_the_same_engine(settings: Settings, tmp_path: Path) -> None:
    """A model with random weights: all that is certain is what is compared, and that ours and torch agree in fp32."""
    bench = Bench(replace(settings, engines=("ours-int8", "ours-fp32", "torch-fp32")))
    rows = {(row["first"], row["second"]): row for row in words.agreement(bench)["rows"]}
    assert {*rows} == {("ours-fp32", "torch-fp32"), ("ours-fp32", "ours-int8")}
    assert rows["ours-fp32", "torch-fp32"] == {
        "first": "ours-fp32",
        "second": "torch-fp32",
        "same": 12,
        "of": 12,
        "tokens before they part": 1.0,
    }


def test_quality_scores_each_engine_on_each_file(settings: Settings, tmp_path: Path) -> None:
    files = tuple(tmp_path / f"{name}.tsv" for name in ("one", "two"))
    for file in files:
        file.write_text("\n".join(f"{word}\t{word} {word}" for word in WORDS[:5]), encoding="utf-8")
    found = words.quality(Bench(replace(settings, dev=files, dev_lines=3)))
    names = ["ours-int8", "ctranslate2-int8", "mobilenmt INT8, Translator"]
    assert [(row["engine"], row["file"]) for row in found["rows"]] == [(n, f) for n in names for f in ("one", "two")]
    assert found["lines"] == {"one": 3, "two": 3}
    assert [mean["engine"] for mean in found["means"]] == names
    for mean in found["means"]:
        scores = [row["chrF"] for row in found["rows"] if row["engine"] == mean["engine"]]
        assert mean["chrF"] == pytest.approx(sum(scores) / 2)
    with pytest.raises(BenchmarkError, match="needs --dev"):
        words.quality(Bench(settings))
