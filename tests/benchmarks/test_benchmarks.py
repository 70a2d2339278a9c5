"""The benchmarks measure what they say: equal work for every engine, right statistics, nothing lost when stopped."""

from __future__ import annotations

import importlib.util
import json
import mmap
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from places import ROOT

sys.path.insert(0, str(ROOT))  # benchmarks/ is no part of the package

from benchmarks.__main__ import main
from benchmarks.engines.base import SPECS
from benchmarks.harness import prepare
from benchmarks.harness.bench import Bench
from benchmarks.harness.environments import Environment
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.results import Results, read, write_atomically
from benchmarks.harness.settings import Settings
from benchmarks.harness.text import Corpus, read_corpus
from benchmarks.harness.worker import Worker
from benchmarks.pack import arm, figures
from benchmarks.pack.restore import restored
from benchmarks.parts import breakdown, roofline
from benchmarks.parts.memory import resident
from benchmarks.report.bars import BARS, bars
from benchmarks.report.plots import plots
from benchmarks.report.report import markdown
from benchmarks.report.stats import growth, ratio, summarize

from benchmarks import ROOT
from benchmarks import run as runner
from mobilenmt.export.export import export
from mobilenmt.export.shortlist import Shortlist
from tiny_models import WORDS, make_checkpoint

SOURCES = [[5, 9, 20, 7], [30, 31, 8], [12, 40, 41, 42, 6, 10, 11]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint that CTranslate2 converts faithfully: its row of <pad>, with which decoding starts, is zero."""
    import torch
    from transformers import MarianMTModel

    folder = make_checkpoint(tmp_path_factory.mktemp("bench") / "checkpoint")
    model = MarianMTModel.from_pretrained(folder)
    with torch.no_grad():
        model.model.shared.weight[-1] = 0
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "sentences.txt"
    file.write_text("\n".join(" ".join(WORDS[i : i + 4 + i % 9]) for i in range(12)), encoding="utf-8")
    return file


@pytest.fixture
def settings(checkpoint: Path, sentences: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(
        checkpoint=checkpoint,
        sentences=sentences,
        out=tmp_path / "out",
        build=tmp_path_factory.getbasetemp() / "build",
        engines=("ours-int8", "ctranslate2-int8"),
        lengths=(3, 6),
        beams=(1,),
        batches=(4,),
        threads=(1,),
        turns=2,
        turn_seconds=0.0,
    )


# -- statistics --------------------------------------------------------------------------------------------------------


def test_summary_is_numpys_percentiles() -> None:
    values = [3.0, 1.0, 2.0, 10.0, 4.0, 7.0]
    found = summarize([values[:2], values[2:]])
    assert (found.median, found.best, found.count) == (3.5, 1.0, 6)
    assert found.p95 == pytest.approx(np.percentile(values, 95))
    with pytest.raises(ValueError, match="no samples"):
        summarize([[]])


def test_ratio_is_paired_by_turn() -> None:
    """A busy machine slows both in a turn: their ratio stays exact, and its interval closed."""
    busy = [1.0, 5.0, 2.0, 9.0, 1.5]
    found = ratio([[3 * value] for value in busy], [[value] for value in busy])
    assert (found.value, found.low, found.high) == pytest.approx((3, 3, 3))


def test_ratio_interval_widens_with_noise() -> None:
    random = np.random.default_rng(0)
    rows = [[[float(value)] for value in random.normal(mean, 0.1, 30)] for mean in (2.0, 1.0)]
    found = ratio(*rows)
    assert found.low < found.value < found.high
    assert 1.8 < found.low < 2 < found.high < 2.2


def test_growth_finds_the_polynomial() -> None:
    lengths = [5, 10, 30, 75, 100]
    fit = growth(lengths, [0.004 + 0.0002 * n + 1e-6 * n * n for n in lengths])
    assert (fit.fixed, fit.linear, fit.quadratic) == pytest.approx((0.004, 0.0002, 1e-6))
    assert growth(lengths, [0.001 * n for n in lengths]).exponent == pytest.approx(1)
    with pytest.raises(ValueError, match="three lengths"):
        growth([5, 10], [1.0, 2.0])


# -- sources -----------------------------------------------------------------------------------------------------------


def test_slices_have_the_length_and_differ() -> None:
    corpus = Corpus(("a", "b"), (list(range(60)), list(range(60, 100))))
    stream = corpus.slices(30)
    found = [next(stream) for _ in range(8)]
    assert {len(row) for row in found} == {29}
    assert all(a != b for a, b in pairwise(found))
    with pytest.raises(BenchmarkError, match="too few"):
        next(corpus.slices(80))


def test_batches_hold_every_sentence_once_longest_first() -> None:
    corpus = Corpus(tuple("abcdefg"), tuple(list(range(n)) for n in (3, 9, 1, 4, 4, 7, 2)))
    batches = corpus.batches(3)
    assert sorted(index for batch in batches for index in batch) == list(range(7))
    assert [len(corpus.ids[index]) for batch in batches for index in batch] == [9, 7, 4, 4, 3, 2, 1]


def test_own_sentences_are_many_different_and_of_all_lengths() -> None:
    lines = (ROOT / "benchmarks" / "sentences.en.txt").read_text(encoding="utf-8").splitlines()
    lengths = [len(line.split()) for line in lines]
    assert len(set(lines)) == len(lines) >= 300
    assert min(lengths) == 3 and max(lengths) == 60
    for low in range(3, 60, 10):
        assert sum(low <= length < low + 10 for length in lengths) >= 25, low


# -- engines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("name", ["ours-int8", "ctranslate2-int8", "torch-fp32", "torch-int8"])
def test_every_engine_generates_the_forced_length(name: str, beam: int, settings: Settings) -> None:
    path = prepare.artifact(SPECS[name].artifact, settings)
    engine = SPECS[name].load(str(path), 1)
    for length in (2, 9):
        result = engine.run(engine.prepare(SOURCES), beam, length, length)
        assert engine.steps(result) == [length] * len(SOURCES)


def test_every_engine_gets_the_same_ids_and_chooses_the_same_words(settings: Settings) -> None:
    found = {}
    for name in ("ours-fp32", "ctranslate2-fp32", "torch-fp32"):
        engine = SPECS[name].load(str(prepare.artifact(SPECS[name].artifact, settings)), 1)
        found[name] = [ids[:19] for ids in engine.ids(engine.run(engine.prepare(SOURCES), 1, 0, 20))]
    assert found["ours-fp32"] == found["torch-fp32"] == found["ctranslate2-fp32"]


def test_artifacts_are_made_once_and_again_for_another_checkpoint(settings: Settings, tmp_path: Path) -> None:
    first = prepare.artifact("ct2-int8", settings)
    before = first.stat().st_mtime_ns
    assert prepare.artifact("ct2-int8", settings) == first
    assert first.stat().st_mtime_ns == before
    other = make_checkpoint(tmp_path / "other", seed=5)
    changed = replace(settings, checkpoint=other)
    assert prepare.artifact("ct2-int8", changed) != first


def test_a_failed_conversion_leaves_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: Settings, out: Path) -> None:
        out.mkdir()
        (out / "half").write_text("x")
        raise ImportError("no such package")

    monkeypatch.setitem(prepare._MAKERS, "half-made", fail)
    with pytest.raises(BenchmarkError, match="not installed"):
        prepare.artifact("half-made", settings)
    assert not any(path.is_file() for path in settings.build.glob("half-made*/**/*"))


def test_a_worker_answers_as_the_engine_does_and_its_end_is_reported(settings: Settings) -> None:
    path = str(prepare.artifact("pack-int8", settings))
    engine = SPECS["ours-int8"].load(path, 1)
    wanted = engine.ids(engine.run(SOURCES, 1, 0, 20))
    with Worker("ours-int8", path, 1, settings.pinned(1)) as worker:
        answer = worker.generate(SOURCES, max_length=20, warm=1, calls=3)
        assert answer.ids == wanted
        assert len(answer.seconds) == 3 and min(answer.seconds) > 0
        with pytest.raises(BenchmarkError, match="ours-int8: its process ended"):
            worker.generate([[10**6]], max_length=20)


# -- runs --------------------------------------------------------------------------------------------------------------


def test_a_run_writes_samples_report_and_plots(settings: Settings) -> None:
    results = runner.run(settings, ["latency", "throughput"])
    content = read(results.path)
    rows = content["parts"]["latency"]["rows"]
    assert [(row["engine"], row["length"]) for row in rows] == [
        (engine, length) for length in (3, 6) for engine in ("ours-int8", "ctranslate2-int8")
    ]
    assert all(len(row["seconds"]) == 2 for row in rows)
    forced = [row for row in content["parts"]["throughput"]["rows"] if row["forced"]]
    assert len({row["generated"] for row in forced}) == 1, "every engine did the same work"
    text = results.path.with_suffix(".md").read_text(encoding="utf-8")
    assert "CTranslate2 INT8" in text and "## Bars" in text
    if importlib.util.find_spec("matplotlib"):
        assert (settings.out / "latency.png").stat().st_size > 1000


def test_a_stopped_run_goes_on_with_what_is_missing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def part(name: str, fails: bool = False) -> Callable[[Bench], dict[str, Any]]:
        def measure(bench: Bench) -> dict[str, Any]:
            calls.append(name)
            if fails:
                raise KeyboardInterrupt
            return {"rows": []}

        return measure

    monkeypatch.setattr(runner, "PARTS", {"one": part("one"), "two": part("two", fails=True)})
    with pytest.raises(KeyboardInterrupt):
        runner.run(settings)
    assert list(read(settings.out / "results.json")["parts"]) == ["one"]
    monkeypatch.setattr(runner, "PARTS", {"one": part("one"), "two": part("two")})
    runner.run(settings, resume=True)
    assert calls == ["one", "two", "two"]
    assert list(read(settings.out / "results.json")["parts"]) == ["one", "two"]


def test_a_part_that_fails_does_not_stop_the_others(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(bench: Bench) -> dict[str, Any]:
        raise BenchmarkError("no network")

    monkeypatch.setattr(runner, "PARTS", {"one": fail, "two": lambda bench: {"rows": []}})
    with pytest.raises(BenchmarkError, match="one: no network"):
        runner.run(settings)
    assert list(read(settings.out / "results.json")["parts"]) == ["two"]


def test_more_threads_than_cores_are_refused(settings: Settings) -> None:
    with pytest.raises(BenchmarkError, match="2 threads need as many cores"):
        replace(settings, threads=(2,), cores=(0,))


def test_results_of_other_settings_are_not_mixed(settings: Settings) -> None:
    Results.start(settings, resume=False).add("one", {"rows": []}, 0.0)
    with pytest.raises(BenchmarkError, match="another setting"):
        Results.start(replace(settings, turns=7), resume=True)


def test_a_file_is_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "results.json"
    write_atomically(file, "whole")

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(file, "other")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert file.read_text() == "whole"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--checkpoint", "/nowhere", "--quick"], "is no checkpoint"),
        (["run", "--pack", "/nowhere", "--quick"], "/nowhere"),
        (["run", "--sentences", "/nowhere", "--quick"], "there is no file"),
        (["run", "--engines", "bing", "--quick"], "no engine bing"),
        (["report", "/nowhere/results.json"], "cannot be read"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], message: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[0] == "run" and not {"--checkpoint", "--pack"} & {*arguments}:
        arguments = [*arguments, "--checkpoint", str(checkpoint)]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1


def test_an_unknown_part_is_refused(settings: Settings) -> None:
    with pytest.raises(BenchmarkError, match="no part speed"):
        runner.run(settings, ["speed"])


def test_the_readme_names_every_part_command_and_engine() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for name in (*runner.PARTS, *figures.COMMANDS, *SPECS):
        assert f"`{name}`" in text, name


# -- the checkpoint in a pack ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"output_bias": False, "scale_embedding": False, "decoder_layers": 1}])
def test_a_pack_gives_back_a_checkpoint_that_exports_to_the_same_pack(changes: dict[str, Any], tmp_path: Path) -> None:
    from transformers import AutoTokenizer, MarianMTModel

    made = make_checkpoint(tmp_path / "made", **changes)
    size = json.loads((made / "config.json").read_text())["vocab_size"]
    random = np.random.default_rng(0)
    shortlist = Shortlist(np.arange(0, 40), random.integers(2, size - 1, (size, 6)))
    pack = export(made, tmp_path / "en-de", shortlist=shortlist).path
    found = restored(pack, tmp_path / "build")
    (tmp_path / "again").mkdir()
    again = export(found, tmp_path / "again" / "en-de").path
    for file in sorted(pack.iterdir()):
        if file.name != "pack.json":
            assert (again / file.name).read_bytes() == file.read_bytes(), file.name
    weights, wanted = (MarianMTModel.from_pretrained(folder).state_dict() for folder in (found, made))
    assert weights.keys() == wanted.keys()
    for name, value in wanted.items():
        error = np.abs(weights[name].numpy() - value.numpy()).max()
        assert error <= np.abs(value.numpy()).max() / 63 / 2 * 1.001, name
    line = " ".join(WORDS[:9])
    theirs, ours = (AutoTokenizer.from_pretrained(folder) for folder in (made, found))
    assert ours(line, add_special_tokens=False).input_ids == theirs(line, add_special_tokens=False).input_ids
    assert (ours.eos_token_id, ours.pad_token_id, ours.unk_token) == (0, size - 1, theirs.unk_token)
    assert restored(pack, tmp_path / "build") == found


def test_a_pack_of_another_kind_is_not_taken_apart(tiny_pack: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="name the checkpoint it was made from"):
        restored(tiny_pack, tmp_path)
    assert list(tmp_path.iterdir()) == []


# -- report ------------------------------------------------------------------------------------------------------------


def content(ours: float, theirs: float) -> dict[str, Any]:
    """Results with one latency figure of two engines, and memory of ours and of Transformer-big."""
    taken = {"at": 0, "seconds": 1, "load average": [0.1]}
    rows = [
        {"engine": name, "threads": 1, "beam": 1, "length": length, "seconds": [[seconds * length / 30]] * 3}
        for length in (25, 30, 100)
        for name, seconds in (("ours-int8", ours), ("ctranslate2-int8", theirs))
    ]
    parts = {"anonymous": 1, "own": 1, "rss": 1, "private": 1}
    memory = [
        {"engine": name, "steady": size, "peak": size, "peak working": size, "peak RSS": size, "steady parts": parts}
        for name, size in (("ours-int8", 14_000_000), ("big-optimum-fp32", 2_000_000_000))
    ]
    return {
        "machine": {"processor": "test", "flags": ["avx2"]},
        "versions": {"numpy": "1"},
        "parts": {"latency": {"taken": taken, "rows": rows}, "memory": {"taken": taken, "rows": memory}},
    }


def judged(text: str) -> dict[str, str]:
    """Last cell by first cell of every row."""
    rows = [line.strip("| ").split(" | ") for line in text.split("\n") if line.startswith("| ")]
    return {row[0]: row[-1].strip(" |") for row in rows}


def test_bars_say_met_not_met_or_not_measured() -> None:
    fast = judged(bars(content(0.008, 0.024)["parts"]))
    assert fast["greedy, 30 tokens, against CTranslate2 INT8"] == "met"
    assert fast["latency, 30 tokens, greedy"] == "met"
    assert fast["100 tokens against 25 tokens"] == "met"
    assert fast["memory added"] == "met"
    assert fast["peak memory, less than Transformer-big"] == "met"
    assert fast["cold start"] == "not measured"
    slow = judged(bars(content(0.016, 0.024)["parts"]))
    assert slow["greedy, 30 tokens, against CTranslate2 INT8"] == "not met"
    assert slow["latency, 30 tokens, greedy"] == "not met"
    assert len(fast) == len(BARS) + 1


def test_the_report_shows_the_figures_of_the_json() -> None:
    text = markdown(content(0.008, 0.024))
    assert "| mobilenmt INT8 | 6.67 / 6.67 | 8 / 8 | 26.7 / 26.7 |" in text
    assert "| CTranslate2 INT8 | 3.00 (3.00-3.00) | 3.00 (3.00-3.00) | 3.00 (3.00-3.00) |" in text
    assert "| Transformer-big, optimum fp32 | 2,000.0 |" in text
    assert "## Throughput" not in text


def test_plots_need_only_the_parts_that_are_there(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert sorted(path.name for path in plots(content(0.008, 0.024), tmp_path)) == ["latency.png", "memory.png"]


# -- parts -------------------------------------------------------------------------------------------------------------


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


def test_graph_bytes_are_those_of_the_decoders_weights(settings: Settings) -> None:
    """The matrices by the model's dimensions, and a little more: biases, norms, positions."""
    matrices = roofline.dimension_bytes(settings.checkpoint / "config.json", 4)
    found = roofline.graph_bytes(prepare.artifact("pack-fp32", settings) / "translator.onnx")
    assert matrices < found < 1.25 * matrices


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


def test_processors_are_compared_line_by_line(settings: Settings, sentences: Path) -> None:
    pack = str(prepare.artifact("pack-int8", settings))
    here = arm.outputs(pack, sentences, 5)
    other = json.loads(json.dumps(here))
    other["beams"]["1"]["ids"][2] = [*other["beams"]["1"]["ids"][2], 9]
    other["beams"]["1"]["texts"][2] += " x"
    other["beams"]["1"]["scores"][0] += 0.25
    rows = {(row["run"], row["beam"]): row for row in arm.compare({"here": here, "there": other})}
    assert rows["here", 1]["same ids"] == rows["there", 4]["same ids"] == 5
    changed = rows["there", 1]
    assert (changed["same ids"], changed["same words"], changed["same source ids"]) == (4, 4, 5)
    assert changed["largest distance of scores, same ids"] == pytest.approx(0.25)
    assert "| there | 1 | 5 | 5 | 4 | 4 |" in arm.markdown(list(rows.values()))


def test_installed_bytes_leave_out_bytecode_and_packs(tmp_path: Path) -> None:
    place = Environment(tmp_path)
    for name, size in (("numpy/a.py", 10), ("numpy/a.pyc", 100), ("mobilenmt/models/en-de/w.bin", 1000)):
        file = place.site / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(size))
    assert place.installed_bytes == 10


def test_corpus_ids_have_no_end_token(checkpoint: Path, sentences: Path) -> None:
    corpus = read_corpus(sentences, checkpoint / "tokenizer.json")
    assert len(corpus.ids) == 12
    assert all(row and row[-1] != 0 for row in corpus.ids)
