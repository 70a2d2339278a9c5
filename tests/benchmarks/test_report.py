"""Tables, budgets and plots show the figures of the JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from benchmarks.__main__ import main
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.settings import RESULTS
from benchmarks.report import budgets
from benchmarks.report.plots import plots
from benchmarks.report.tables import markdown, table

TAKEN = {"at": 0, "seconds": 1, "load average": [0.1]}


def content(ours: float, theirs: float) -> dict[str, Any]:
    """Results with one latency figure of two engines, and memory of ours and of Transformer-big."""
    rows = [
        {"engine": name, "threads": 1, "beam": 1, "length": length, "seconds": [[seconds * length / 30]] * 3}
        for length in (25, 30, 100)
        for name, seconds in (("ours-native", ours / 4), ("ours-int8", ours), ("ctranslate2-int8", theirs))
    ]
    parts = {"anonymous": 1, "own": 1, "rss": 1}
    memory = [
        {"engine": name, "steady": size, "peak": size, "peak working": size, "peak RSS": size, "steady parts": parts}
        for name, size in (("ours-native", 9_500_000), ("ours-int8", 14_000_000), ("big-optimum-fp32", 2_000_000_000))
    ]
    return {
        "machine": {"processor": "test", "flags": ["avx2"]},
        "versions": {"numpy": "1"},
        "parts": {"latency": {"taken": TAKEN, "rows": rows}, "memory": {"taken": TAKEN, "rows": memory}},
    }


def others() -> dict[str, Any]:
    """One row or two of every other part."""
    speeds = [
        {"engine": name, "threads": 1, "beam": 1, "batch": 32, "forced": forced, "seconds": [[seconds]]}
        for forced, seconds in ((True, 2.0), (False, 1.0))
        for name, seconds in (("ours-int8", seconds), ("ctranslate2-int8", 1.5 * seconds))
    ]
    scores = [
        {"engine": name, "beam": 1, "BLEU": bleu, "chrF": 50.0}
        for name, bleu in (("ours-native", 19.95), ("ours-int8", 20.0), ("ours-fp32", 20.5))
    ]
    same = {"first": "ours-fp32", "second": "torch-fp32", "same": 2, "of": 3, "tokens before they part": 0.5}
    sizes = {"engine": "ours-int8", "download bytes": 5e6, "installed bytes": 5e6, "model bytes": 5e6}
    operators = [{"beam": 1, "phase": "step", "operator": "MatMul", "nodes": 2, "microseconds": 7.5, "share": 1}]
    found: dict[str, dict[str, Any]] = {
        "throughput": {"rows": speeds, "sentences": 3, "words": 40, "tokens": 60},
        "endtoend": {"rows": [{"engine": "ours-int8", "seconds": [[0.01]]}], "sentences": 1},
        "cold": {"rows": [{"engine": "ours-int8", "seconds": [[0.2], [0.3]]}], "text": "Where?"},
        "size": {"rows": [sizes]},
        "breakdown": {"rows": operators},
        "agreement": {"rows": [same]},
        "batch": {"rows": [{"together": together, "same": 99, "of": 100} for together in (False, True)], "size": 32},
        "instructions": {"rows": [{"text": "Where?", "instructions": 16_000_000}]},
        "words": {"rows": [{"word": "cat", "text": "Katze Katze", "found": ["loops"]}], "words": 200, "most times": 5},
        "quality": {"rows": [score | {"file": "dev"} for score in scores], "means": scores, "signature": "13a"},
    }
    return {name: {"taken": TAKEN, **part} for name, part in found.items()}


def squeezed(text: str) -> str:
    """Without the blanks that line the columns up."""
    return re.sub(r" +", " ", text)


def judged(parts: dict[str, Any]) -> dict[str, str]:
    """Verdict of each budget."""
    return {budget.name: budget.judge(parts)[1] for budget in budgets.BUDGETS}


def test_budgets_are_met_not_met_or_not_measured() -> None:
    fast = judged(content(0.008, 0.024)["parts"])
    assert fast["greedy, 30 tokens, against CTranslate2 INT8"] == "met"
    assert fast["latency, 30 tokens, greedy"] == "met"
    assert fast["100 tokens against 25 tokens"] == "met"
    assert fast["memory added, steady"] == "met"
    assert fast["peak memory, less than Transformer-big"] == "met"
    assert fast["cold start, process start to translation"] == "not measured"
    assert fast["C core: latency, 30 tokens (asked of the shipped pack)"] == "met"
    assert fast["C core: greedy, 30 tokens, against CTranslate2 INT8"] == "met"
    assert fast["C core: memory added, steady (likewise)"] == "not met"
    assert fast["C core: memory added, at the peak (likewise)"] == "met"
    slow = judged(content(0.016, 0.024)["parts"])
    assert slow["greedy, 30 tokens, against CTranslate2 INT8"] == "not met"
    assert slow["latency, 30 tokens, greedy"] == "not met"
    assert {*judged({}).values()} == {"not measured"}
    bpe = content(0.008, 0.024)["parts"]
    bpe["memory"]["rows"].append({"engine": budgets.BPE, "steady": 16_500_000, "peak": 17_000_000})
    assert judged(bpe)["memory added, steady"] == "not met"
    shown = squeezed(budgets.one(content(0.008, 0.024)["parts"]))
    assert "| latency, 30 tokens, greedy | <= 10 ms | 8.00 ms | met |" in shown
    assert shown.count("\n") == len(budgets.BUDGETS) + 2


def test_budgets_of_the_other_parts() -> None:
    found = {budget.name: budget.judge(others()) for budget in budgets.BUDGETS}
    assert found["batch 32, 1 thread, against CTranslate2 INT8"] == (
        "1.50 and 1.50 (forced and natural lengths)",
        "met",
    )
    assert found["batch 32, 2 threads, against CTranslate2 INT8"] == ("", "not measured")
    assert found["lost against fp32, dev sets, greedy"] == ("20.00 against 20.50", "not met")
    assert found["C core: lost against INT8 by ONNX, dev sets, greedy"] == ("19.95 against 20.00", "met")
    assert found["C core: the same in chrF"][1] == "met"
    assert found["C core: instructions of a sentence of 17 words, AVX2"] == ("16.0 million", "not met")
    assert found["C core: lost against fp32, dev sets, greedy"][1] == "not met"
    assert found["cold start, process start to translation"] == ("0.250 s, 0.200 at best", "met")
    assert found["lines on which a batch gives the words of single sentences"] == ("99 of 100", "met")
    assert found["single words that loop or run on"] == ("cat", "not met")
    assert found["pack, all files"][1] == "met"


def test_budgets_stand_side_by_side_and_one_without_results_is_not_measured(tmp_path: Path) -> None:
    for folders in (found for columns in budgets.RECORDED.values() for found in columns.values()):
        for folder in folders:
            recorded = {"format": 1, **content(0.016, 0.024)}
            if folder not in ("", "epyc", "core"):
                recorded["parts"] = {}
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / "results.json").write_text(json.dumps(recorded), encoding="utf-8")
    text = squeezed(budgets.side_by_side(tmp_path))
    row = "16.00 ms: **not met** | not measured | 16.00 ms: **not met** |"
    assert f"| latency, 30 tokens, greedy | <= 10 ms | {row}" in text
    assert (
        "| cold start, process start to translation | <= 0.25 s | not measured | not measured | not measured |" in text
    )
    row = "(asked of the shipped pack) | <= 3 ms | 4.00 ms: **not met** | not measured | not measured |"
    assert f"| C core: latency, 30 tokens {row}" in text


def test_the_page_has_the_budgets_of_the_recorded_results() -> None:
    assert main(["budgets", "--check"]) == 0


def test_only_what_is_between_the_marks_is_replaced() -> None:
    first, last = budgets.MARKS
    page = f"before\n{first}old\n{last}after\n"
    made = budgets.insert(page, "new\n")
    assert made == f"before\n{first}\nnew\n\n{last}after\n"
    assert budgets.insert(made, "new\n") == made
    with pytest.raises(BenchmarkError, match="each of these lines once"):
        budgets.insert("before\n", "new\n")


def test_the_report_shows_the_figures_of_the_json() -> None:
    text = squeezed(markdown(content(0.008, 0.024), "the budgets\n"))
    assert "| mobilenmt INT8 | 6.67 / 6.67 | 8 / 8 | 26.7 / 26.7 |" in text
    assert "| CTranslate2 INT8 | 3.00 (3.00-3.00) | 3.00 (3.00-3.00) | 3.00 (3.00-3.00) |" in text
    assert "| Transformer-big, optimum fp32 | 2,000.0 |" in text
    assert "\n## Budgets\n\nthe budgets\n" in text
    assert "## Words a second" not in text


def test_the_report_shows_every_part() -> None:
    results = content(0.008, 0.024)
    results["parts"] |= others()
    text = squeezed(markdown(results, ""))
    for row in (
        "| mobilenmt INT8 | 20 |",  # words a second, forced
        "| mobilenmt INT8 | 10 | 10 | |",
        "| mobilenmt INT8 | 0.250 | 0.295 | 0.200 |",
        "| mobilenmt INT8 | 5.0 | 5.0 | 5.0 |",
        "| MatMul | 2 | 7.5 | 100.0% |",
        "| torch fp32 | mobilenmt fp32 | 2 of 3 | 50.0% |",
        "| together | 99 of 100 |",
        "| cat | Katze Katze | loops |",
        "| mobilenmt INT8 | 1 | 20.00 / 50.00 | 20.00 / 50.00 |",
    ):
        assert row in text, row
    assert text.count("\nTaken 1970-01-01 00:00 UTC") == len(results["parts"])


def test_a_cell_may_hold_a_bar() -> None:
    assert table(["a"], [["b|c"]]).splitlines()[2] == "| b\\|c |"
    assert table(["a"], []) == ""


def test_plots_need_only_the_parts_that_are_there(tmp_path: Path) -> None:
    assert [path.name for path in plots(content(0.008, 0.024), tmp_path)] == ["latency.png"]
    both = content(0.008, 0.024)
    both["parts"] |= others()
    assert [path.name for path in plots(both, tmp_path)] == ["latency.png", "throughput.png"]
    assert min(path.stat().st_size for path in tmp_path.iterdir()) > 1000


def test_recorded_reports_are_made_from_the_json_beside_them() -> None:
    found = sorted(RESULTS.rglob("results.json"))
    assert len(found) >= 4
    for file in found:
        recorded = json.loads(file.read_text(encoding="utf-8"))
        made = markdown(recorded, budgets.one(recorded["parts"]))
        assert file.with_suffix(".md").read_text(encoding="utf-8") == made, file
