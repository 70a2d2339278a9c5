"""A confidence is a probability: fitted where the truth is known, it says how often outputs are good."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from mobilenmt import InputError, Pack, PackError
from mobilenmt.cli import main
from mobilenmt.compression.evaluate.calibrate import calibrate, fit
from mobilenmt.runtime.hypothesis import Hypothesis, confidence
from mobilenmt.runtime.manifest import Confidence
from mobilenmt.runtime.onnx.engine import Engine
from mobilenmt.runtime.opening import open_tokenizer
from tiny_models import WORDS


def outputs(count: int, parameters: Confidence) -> tuple[list[Hypothesis], np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Outputs with random token scores, good as often as the parameters say."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(count):
        scores = -random.gamma(1.0, random.uniform(0.1, 1.5), random.integers(1, 30))
        found.append(Hypothesis((5,), 0.0, len(scores), (), tuple(map(float, scores))))
    chances = np.array([confidence(item, parameters) for item in found])
    return found, random.random(count) < chances


def test_the_parameters_that_made_the_data_are_found() -> None:
    true = Confidence(bias=2.5, mean=2.0, least=0.3, length=0.2)
    found = fit(*outputs(20_000, true))
    for key in ("bias", "mean", "least", "length"):
        assert getattr(found.parameters, key) == pytest.approx(getattr(true, key), abs=0.25)
    assert found.expected_error < 0.02
    assert [row.threshold for row in found.thresholds] == [0.1, 0.25, 0.5, 0.75, 0.9]
    recalls = [row.recall for row in found.thresholds]
    assert recalls == sorted(recalls) and recalls[-1] > 0.8
    assert found.thresholds[2].precision > 0.6


def test_scores_that_say_nothing_give_the_share_of_the_good() -> None:
    found, _ = outputs(4000, Confidence(0.0, 0.0, 0.0, 0.0))
    good = np.random.default_rng(1).random(4000) < 0.3
    calibration = fit(found, good)
    values = [confidence(item, calibration.parameters) for item in found]
    assert np.mean(values) == pytest.approx(good.mean(), abs=0.01)
    assert np.std(values) < 0.05


def test_a_confidence_is_from_0_to_1() -> None:
    for scores in ((0.0,), (-math.inf,), (-1e30, -1.0), (-0.1,) * 300):
        for weight in (-1e6, 0.0, 1e6):
            parameters = Confidence(weight, weight, weight, weight)
            assert 0.0 <= confidence(Hypothesis((), 0.0, 1, (), scores), parameters) <= 1.0
    with pytest.raises(InputError, match="token_scores"):
        confidence(Hypothesis((), 0.0, 1), Confidence(0, 0, 0, 0))
    with pytest.raises(PackError, match="mean"):
        Confidence(0.0, math.nan, 0.0, 0.0)


def lines(count: int) -> list[tuple[str, str]]:
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, random.integers(2, 7))) for _ in range(count)]
    return [(text, text) for text in texts]


def test_what_cannot_be_calibrated_says_why(tiny_pack: Path) -> None:
    pack = Pack.open(tiny_pack)
    with pytest.raises(InputError, match="199 sentences are too few"):
        calibrate(Engine(pack), open_tokenizer(pack), lines(199))
    with pytest.raises(InputError, match="all outputs are good"):
        fit([Hypothesis((), 0.0, 1, (), (-1.0,))] * 300, np.ones(300, bool))


def test_the_command_writes_it_into_the_pack(
    tiny_pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the references are what the pack itself says, so that there are good outputs and bad ones."""
    from mobilenmt import Translator

    folder = Path(shutil.copytree(tiny_pack, tmp_path / "pack"))
    translator = Translator(folder)
    file = tmp_path / "dev.tsv"
    rows = [
        (source, translator.translate_batch([source], max_length=19)[0].text if number % 3 else target)
        for number, (source, target) in enumerate(lines(240))
    ]
    file.write_text("".join(f"{source}\t{' '.join(target.split())}\n" for source, target in rows), encoding="utf-8")
    assert main(["calibrate", str(folder), "--test", str(file), "--dry-run"]) == 0
    assert Pack.open(folder).manifest.confidence is None
    assert main(["calibrate", str(folder), "--test", str(file)]) == 0
    out = capsys.readouterr().out
    assert "precision" in out and "240 sentences" in out
    stored = json.loads((folder / "pack.json").read_text())["confidence"]
    assert Pack.open(folder).manifest.confidence == Confidence(**stored)
    assert main(["calibrate", str(folder)]) == 2
