"""Measuring the trainer: trials at equal tokens, and the profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmarks.training.common import Setting, tokens_of
from benchmarks.training.profile import operations, report
from benchmarks.training.trials import combinations, dev_batches, run, table, tokens_to

from mobilenmt.compression.train.settings import DistillSettings
from training_data import SHAPE, toy_dataset, toy_pairs, toy_vocabulary, write_dev

CURVE = [(10, 5.0), (20, 4.0), (40, 3.0)]


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    vocabulary = toy_vocabulary(tmp_path / "vocabulary")
    settings = DistillSettings(
        batch_tokens=300,
        accumulation=2,
        max_tokens=40,
        learning_rate=6e-3,
        warmup_steps=10,
        schedule="constant",
        dropout=0.0,
        ema_decay=0.9,
        dev=(write_dev(tmp_path / "dev.tsv", 20),),
        threads=1,
        device="cpu",
    )
    return Setting(settings, SHAPE, 3, vocabulary, toy_dataset(vocabulary, toy_pairs(200)))  # type: ignore[arg-type]


def test_a_trial_learns_and_two_are_equal(setting: Setting) -> None:
    dev = dev_batches(setting)
    assert sum(batch.tokens for batch in dev) > 20
    first, second = run(setting, 12_000, dev), run(setting, 12_000, dev)
    assert first["curve"] == second["curve"]
    assert first["updates"] == 40 and 9_000 < first["tokens"] <= 12_000
    assert first["curve"][-1][1] < first["curve"][0][1] - 0.5
    assert len(first["curve"]) == 12


@pytest.mark.parametrize(("loss", "tokens"), [(5.5, 10.0), (4.5, 15.0), (3.25, 35.0), (2.9, None)])
def test_tokens_to_a_loss_are_interpolated(loss: float, tokens: float | None) -> None:
    assert tokens_to(CURVE, loss) == tokens


def test_the_table_compares_with_the_best_of_the_first_try() -> None:
    def item(kind: int, name: str, curve: Any) -> dict[str, Any]:
        return {"try": kind, "values": {"a": name}, "updates": 4, "tokens": 40, "seconds": 2.0, "curve": curve}

    lines = table([item(0, "x", CURVE), item(0, "y", [(20, 5.0), (40, 3.5)]), item(1, "z", [(20, 3.0), (40, 2.0)])])
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines.split("\n")[2:]]
    assert cells[0] == ["a x", "4", "0.00", "3.0000 *", "0.00", "1.00", "20"]
    assert cells[1][3:6] == ["3.5000", "-", "-"]
    assert cells[2][3:6] == ["2.0000 *", "0.00", "2.00"]


def test_values_are_combined() -> None:
    assert combinations(["a=1,2", "b=x"]) == [{"a": "1", "b": "x"}, {"a": "2", "b": "x"}]


def test_operations_of_products() -> None:
    assert operations("aten::mm", [[3, 4], [4, 5]]) == 120
    assert operations("aten::baddbmm", [[1, 3, 5], [2, 3, 4], [2, 4, 5], [], []]) == 240
    assert operations("mkldnn::_linear_pointwise", [[3, 4], [5, 4], [5], []]) == 120
    assert operations("aten::add", [[3, 4], [3, 4]]) == 0


def test_the_profile_tells_speed_phases_and_operators(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    updater = setting.updater()
    work = next(setting.batches())
    assert tokens_of(work) <= 300 and len(work) == 2
    report(updater, setting.batches(), 3)
    out = capsys.readouterr().out
    assert "target tokens a second" in out
    for name in ("data", "forward", "backward", "optimizer", "aten::mm"):
        assert name in out
