"""Planning: sizes and times in words, bytes against packs that are made, prices found again, and the search."""

from __future__ import annotations

import itertools
import json
import math
import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilenmt import cli
from mobilenmt.compression.core.errors import PlanError, RecipeError
from mobilenmt.compression.pack.estimate import estimate_pack_bytes, native_bytes, spare_bytes, tokenizer_bytes
from mobilenmt.compression.pack.shortlist import ShortlistSettings
from mobilenmt.compression.plan.command import Request, make_plan, measure_machine, shape_for_bytes
from mobilenmt.compression.plan.cost import (
    CostFit,
    Load,
    latency_terms,
    load_fit,
    memory_terms,
    non_negative_least_squares,
    shipped_fits,
)
from mobilenmt.compression.plan.measure import Trial, fit
from mobilenmt.compression.plan.output import choose_shown
from mobilenmt.compression.plan.quality import (
    DIMENSIONS,
    DOUBT,
    NOISE,
    REFERENCE,
    REFERENCE_VOCABULARY,
    WORTH,
    Point,
    Quality,
    load_points,
    logs,
    prior_exponents,
)
from mobilenmt.compression.plan.random_pack import make_random_pack, save_tokenizer
from mobilenmt.compression.plan.search import ALIKE, Budget, Candidate, search
from mobilenmt.compression.plan.space import Space, is_inside
from mobilenmt.compression.plan.units import parse_bytes, parse_seconds
from mobilenmt.compression.train.size import count_parameters
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.runtime.translator import Translator
from tiny_models import make_checkpoint

SMALL = Space(
    fixed={"encoder_ffn_dim": 128, "decoder_ffn_dim": 128}, vocabularies=(1000, 2000, 4000), shortlist=None
)  # fmt: skip


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("10MB", 10_000_000),
        ("10 mb", 10_000_000),
        ("9.5MiB", 9_961_472),
        ("1kB", 1000),
        ("2 KiB", 2048),
        ("10_000_000", 10_000_000),
        ("5,000,000", 5_000_000),
        ("0.5GB", 500_000_000),
    ],
)
def test_bytes_as_people_write_them(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "ten", "10ms", "MB", "-5MB", "0MB", "1e9", "10 M B", "1" * 40, "0.1B", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="size: expected"):
        parse_bytes(text)


@pytest.mark.parametrize(("text", "seconds"), [("20ms", 0.02), ("0.5 s", 0.5), ("300us", 3e-4), ("300µs", 3e-4)])
def test_times_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["20", "ms", "0ms", "-1s", "20MB", ""])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="latency: expected"):
        parse_seconds(text)


# --- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "vocabulary", "common"),
    [
        (StudentShape(64, 3, 1, 2, 2, 128, 64), 700, 0),
        (StudentShape(96, 11, 2, 3, 3, 96, 192), 1000, 250),
        (StudentShape(48, 2, 3, 2, 2, 80, 144, max_position_embeddings=100), 900, 200),
        (StudentShape(128, 2, 2, 4, 4, 256, 128), 2000, 500),
    ],
)
def test_planned_bytes_are_those_of_the_pack(shape: StudentShape, vocabulary: int, common: int, tmp_path: Path) -> None:
    shortlist = ShortlistSettings(common=common, per_token=8) if common else None
    folder = save_tokenizer(vocabulary, tmp_path / "tokenizer")
    pack = make_random_pack(shape, vocabulary, tmp_path / "pack", shortlist=shortlist, tokenizer=folder)
    found = {name: entry.bytes for name, entry in pack.manifest.files.items()}
    files, table = tokenizer_bytes(folder, vocabulary)
    native = native_bytes(shape, vocabulary, table)
    assert (files, native) == (found["tokenizer.json"], found["native.bin"])
    told = estimate_pack_bytes(
        shape, vocabulary, shortlist=shortlist, tokenizer_bytes=files, native_bytes=native
    )  # fmt: skip
    assert told == pytest.approx(pack.total_bytes, rel=0.01)
    assert pack.total_bytes <= told + spare_bytes(told, vocabulary, tokenizer_known=True)
    graphs = pack.total_bytes - found["weights.bin"] - files - native
    without = told - files - native
    assert abs(without - graphs - found["weights.bin"]) < 0.03 * graphs  # weights are exact, graphs are not


def test_a_pack_of_random_weights_translates(tmp_path: Path) -> None:
    shape = StudentShape(32, 1, 1, 2, 2, 64, 64)
    pack = make_random_pack(shape, 500, tmp_path / "pack", shortlist=ShortlistSettings(common=50, per_token=4))
    assert pack.manifest.model.parameters == count_parameters(shape, 500)
    with_core, with_graphs = (Translator(pack.path, engine=engine) for engine in ("native", "onnx"))
    assert with_core.translate("the dog") == with_graphs.translate("the dog")


# --- prices -----------------------------------------------------------------------------------------------------------


def test_non_negative_least_squares_is_the_best_of_all_subsets() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        matrix, target = generator.normal(size=(12, 5)), generator.normal(size=12)
        best = np.inf
        for chosen in itertools.chain.from_iterable(itertools.combinations(range(5), n) for n in range(6)):
            x = np.zeros(5)
            if chosen:
                x[list(chosen)] = np.linalg.lstsq(matrix[:, chosen], target, rcond=None)[0]
            if (x >= 0).all():
                best = min(best, float(np.linalg.norm(matrix @ x - target)))
        found = non_negative_least_squares(matrix, target)
        assert (found >= 0).all()
        assert np.linalg.norm(matrix @ found - target) == pytest.approx(best, rel=1e-9)


def test_a_fit_finds_the_prices_that_times_were_made_of() -> None:
    """Times that are exactly a sum of terms; prices found must predict those of a model that was not among them."""
    priced = {"sentence": 2e-5, "encoder products": 3e-12, "step bytes": 9e-12, "step layers": 4e-7}
    rows = []
    caches = (1 << 20, 32 << 20)
    draw = random.Random(3)
    for _ in range(30):
        width = 32 * draw.randint(2, 12)
        shape = StudentShape(width, draw.randint(1, 12), draw.randint(1, 6), 2, 2, 2 * width, 3 * width)
        trial = Trial(shape, 1000 * draw.randint(1, 9), draw.choice([None, ShortlistSettings()]))
        seconds = []
        for n, m in ((30, 30), (10, 20), (60, 8)):
            terms = latency_terms(shape, trial.vocabulary, trial.shortlist, Load(n, m), caches)
            seconds.append([n, m, sum(priced[name] * terms[name] for name in priced)])
        terms = memory_terms(shape, trial.vocabulary, trial.shortlist, Load(), native_bytes(shape, trial.vocabulary))
        rows.append({"trial": asdict(trial), "kernels": "k", "seconds": seconds, "bytes": 5e5 + 1.5 * terms["blocks"]})
    found = fit(rows, caches)
    assert found.latency_residuals is not None and found.latency_residuals.largest < 1e-3
    for name, price in found.latency.items():
        assert price == pytest.approx(priced.get(name, 0.0), rel=1e-2, abs=1e-14), name
    shape = StudentShape(400, 20, 3, 4, 4, 700, 900)
    terms = latency_terms(shape, 5000, None, Load(40, 50), caches)
    wanted = sum(priced[name] * terms[name] for name in priced)
    assert found.seconds(shape, 5000, None, Load(40, 50)) == pytest.approx(wanted, rel=1e-2)


def test_more_work_never_costs_less() -> None:
    prices = load_fit()
    shape = StudentShape(192, 6, 2, 4, 4, 768, 768)
    larger = {
        "d_model": 256, "encoder_layers": 7, "decoder_layers": 3, "encoder_ffn_dim": 800, "decoder_ffn_dim": 800
    }  # fmt: skip
    for shortlist in (None, ShortlistSettings()):
        time, memory = prices.seconds(shape, 8000, shortlist), prices.bytes(shape, 8000, shortlist, 200_000)
        for name, value in larger.items():
            other = replace(shape, **{name: value})  # type: ignore[arg-type]
            assert prices.seconds(other, 8000, shortlist) > time, name
            assert prices.bytes(other, 8000, shortlist, 200_000) >= memory, name
        assert prices.seconds(shape, 8000, shortlist, Load(40, 30)) > time
        assert prices.seconds(shape, 8000, shortlist, Load(30, 40)) > time


def test_shipped_fits_can_be_read_and_say_how_good_they_are() -> None:
    assert "epyc-zen5" in shipped_fits()
    for name in shipped_fits():
        found = load_fit(name)
        assert found.latency_residuals is not None and found.latency_residuals.median <= 0.15
        assert found.memory_residuals is None or found.memory_residuals.median <= 0.15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"latency": {}}, "no price"),
        ({"latency": {"coffee": 1.0}}, "'coffee' is nothing"),
        ({"latency": {"sentence": -1.0}}, "0 or more"),
        ({"memory": {"blocks": math.nan}}, "finite number"),
        ({"kernels": 3}, "expected a text"),
        ({"surprise": 1}, "no such setting"),
    ],
)
def test_a_damaged_fit_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    path.write_text(json.dumps({**asdict(load_fit()), **change}))
    with pytest.raises((PlanError, RecipeError), match=message):
        load_fit(path)


def test_a_machine_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tiny models, end to end: packs, processes, a fit, its file."""
    monkeypatch.setattr("mobilenmt.compression.plan.measure._REPEATS", 2)
    trials = (
        Trial(StudentShape(32, 1, 1, 2, 2, 64, 64), 500),
        Trial(StudentShape(64, 2, 1, 2, 2, 64, 128), 600, ShortlistSettings(common=50, per_token=4)),
    )
    told: list[str] = []
    found = measure_machine(tmp_path / "fit.json", tmp_path / "packs", told.append, trials)
    assert load_fit(tmp_path / "fit.json") == found and len(told) == 4
    assert 1e-6 < found.seconds(trials[0].shape, 500, None) < 1.0
    with pytest.raises(PlanError, match="packs of other models"):
        measure_machine(None, tmp_path / "packs", told.append, trials[:1])


# --- quality ----------------------------------------------------------------------------------------------------------


def test_the_prior_holds_the_papers_model_for_the_best_of_its_size() -> None:
    """No dimension is worth more for its parameters than another, and all together as much as the size is."""
    weights = prior_exponents()

    def count(values: Any) -> float:
        d, encoder, decoder, inner, outer, pieces = np.exp(values)
        return float(
            pieces * d + encoder * (4 * d * d + 2 * d * inner) + decoder * (8 * d * d + 2 * d * outer)
        )  # fmt: skip

    point = logs(REFERENCE, REFERENCE_VOCABULARY)
    for index in range(len(DIMENSIONS)):
        step = np.zeros(len(DIMENSIONS))
        step[index] = 1e-6
        growth = (math.log(count(point + step)) - math.log(count(point - step))) / 2e-6
        assert weights[index] == pytest.approx(WORTH * growth, rel=1e-6)


def test_points_move_the_prediction_as_bayes_says() -> None:
    """Against the posterior of differences within a group, worked out in another way: by the function space."""
    shapes = [StudentShape(192, layers, 2, 4, 4, 768, 768) for layers in (2, 6, 12)]
    bleus = [20.0, 24.0, 27.0]
    points = [Point("g", shape, 8000, bleu, "made up") for shape, bleu in zip(shapes, bleus, strict=True)]
    other = Point("alone", shapes[0], 4000, 99.0, "made up")
    quality = Quality([*points, other])
    assert quality.informative == 3 and quality.points == 4
    rows = np.array([logs(shape, 8000) for shape in shapes])
    differences = np.array([rows[1] - rows[0], rows[2] - rows[0]])
    seen = np.log([bleus[1] / bleus[0], bleus[2] / bleus[0]])
    prior = np.diag((DOUBT * prior_exponents()) ** 2)
    noise = NOISE**2 * (np.eye(2) + np.ones((2, 2)))
    gain = prior @ differences.T @ np.linalg.inv(differences @ prior @ differences.T + noise)
    wanted = prior_exponents() + gain @ (seen - differences @ prior_exponents())
    assert quality.exponents == pytest.approx(wanted, rel=1e-6)
    shallow = replace(REFERENCE, encoder_layers=3)
    before, after = (model.predict(shallow, 8000) for model in (Quality(), quality))
    assert after.high / after.low < before.high / before.low


def test_points_that_contradict_the_prior_by_far_count_little() -> None:
    """A deep decoder 70 % ahead, as in models that have hardly begun to learn, must not flatten every encoder."""
    shapes = [StudentShape(128, 6, 1, 4, 4, 256, 256), StudentShape(128, 3, 3, 4, 4, 256, 256)]
    points = [Point("early", shape, 2000, bleu, "made up") for shape, bleu in zip(shapes, (9.5, 16.4), strict=True)]
    quality = Quality(points)
    (times,) = quality.surprises.values()
    distance = logs(shapes[1], 2000) - logs(shapes[0], 2000)
    off = math.log(16.4 / 9.5) - distance @ prior_exponents()
    expected = 2 * NOISE**2 + float((distance * DOUBT * prior_exponents()) @ (distance * DOUBT * prior_exponents()))
    assert times == pytest.approx(abs(off) / math.sqrt(expected))
    assert all(quality.exponents > 0.5 * prior_exponents())
    assert quality.exponents[2] > prior_exponents()[2]  # they still say which way
    best = search(Budget(10_000_000), Space(), load_fit(), quality)[0].shape
    assert best.encoder_layers >= 4 * best.decoder_layers
    likely = [replace(one, bleu=bleu) for one, bleu in zip(points, (9.5, 9.4), strict=True)]
    assert not Quality(likely).surprises


def test_the_reference_is_its_own_measure_and_doubt_grows_with_distance() -> None:
    quality = Quality(load_points())
    same = quality.predict(REFERENCE, REFERENCE_VOCABULARY)
    assert same.share == pytest.approx(1.0) and same.low < 1 < same.high
    near = quality.predict(replace(REFERENCE, encoder_layers=11), 8000)
    far = quality.predict(replace(REFERENCE, encoder_layers=2), 8000)
    assert far.share < near.share < 1
    assert far.high / far.low > near.high / near.low > same.high / same.low * 0.999


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nothing", "cannot be read as points"),
        ('{"points": []}', "format"),
        ('{"format": 1, "points": [{"group": "g"}]}', r"points\[0\]"),
        (
            '{"format": 1, "points": [{"group": "g", "shape": {}, "vocabulary": 9, "bleu": 0, "source": ""}]}',
            "more than 0",
        ),
    ],
)
def test_damaged_points_are_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "points.json").write_text(content)
    with pytest.raises((PlanError, RecipeError), match=message):
        load_points(tmp_path / "points.json")


# --- the search -------------------------------------------------------------------------------------------------------


def _all(space: Space, prices: CostFit, quality: Quality) -> list[Candidate]:
    """Every shape of a space, one by one."""
    found = []
    for vocabulary in space.vocabularies:
        for shape in space.slices():
            for encoder in space.layers("encoder"):
                for decoder in space.layers("decoder"):
                    one = replace(shape, encoder_layers=encoder, decoder_layers=decoder)
                    shortlist = space.shortlist_for(vocabulary)
                    native = native_bytes(one, vocabulary)
                    found.append(
                        Candidate(
                            one,
                            vocabulary,
                            shortlist is not None,
                            estimate_pack_bytes(one, vocabulary, shortlist=shortlist),
                            prices.seconds(one, vocabulary, shortlist),
                            prices.bytes(one, vocabulary, shortlist, native),
                            count_parameters(one, vocabulary),
                            quality.predict(one, vocabulary),
                        )
                    )
    return found


def test_the_search_finds_what_trying_everything_finds() -> None:
    prices, quality = load_fit(), Quality(load_points())
    space = replace(SMALL, fixed={**SMALL.fixed, "d_model": 128}, shortlist=ShortlistSettings())
    budget = Budget(2_500_000, 0.0006, 4_000_000)
    fitting = [
        one
        for one in _all(space, prices, quality)
        if one.bytes <= budget.bytes and one.seconds <= 0.0006 and (one.memory or 0) <= 4_000_000
    ]
    best = max(math.log(one.quality.low) for one in fitting)
    wanted = min(
        (one for one in fitting if math.log(one.quality.low) >= best - ALIKE), key=lambda one: one.seconds
    )  # fmt: skip
    first, *others = search(budget, space, prices, quality)
    assert (first.shape, first.vocabulary, first.bytes) == (wanted.shape, wanted.vocabulary, wanted.bytes)
    assert first.seconds == pytest.approx(wanted.seconds) and first.memory == pytest.approx(wanted.memory, abs=1)
    for one in others:
        assert one.bytes <= budget.bytes and one.seconds <= 0.0006 and (one.memory or 0) <= 4_000_000
        for other in others:
            beaten = (
                other.quality.low >= one.quality.low
                and other.bytes <= one.bytes
                and other.seconds <= one.seconds
                and (other.memory or 0) <= (one.memory or 0)
            )
            assert other is one or not beaten


def test_the_plan_follows_the_paper() -> None:
    """10 MB: a small vocabulary, a narrow and deep encoder, a shallow decoder, nearly all of the budget used."""
    first = search(Budget(10_000_000), Space(), load_fit(), Quality())[0]
    assert 9_500_000 < first.bytes <= 10_000_000
    assert first.shape.d_model <= 320 and first.vocabulary <= 12_000
    assert first.shape.encoder_layers >= 4 * first.shape.decoder_layers


def test_impossible_budgets_say_what_is_possible() -> None:
    prices, quality = load_fit(), Quality()
    with pytest.raises(PlanError, match="10,000 bytes are too few: the smallest possible pack takes about") as told:
        search(Budget(10_000), SMALL, prices, quality)
    smallest = int(str(told.value).split("about ")[1].split(" ")[0].replace(",", ""))
    least = min(one.bytes for one in _all(replace(SMALL, vocabularies=(1000,)), prices, quality))
    assert smallest == math.ceil(least + spare_bytes(least, 1000, tokenizer_known=False))
    assert search(Budget(smallest), SMALL, prices, quality)[0].bytes == least
    with pytest.raises(PlanError, match=f"takes about {smallest:,}"):
        search(Budget(smallest - 1), SMALL, prices, quality)
    with pytest.raises(PlanError, match="the fastest takes about"):
        search(Budget(5_000_000, 1e-6), SMALL, prices, quality)
    with pytest.raises(PlanError, match="the leanest takes about"):
        search(Budget(5_000_000, None, 1000), SMALL, prices, quality)
    with pytest.raises(PlanError, match="heads must divide"):
        search(Budget(5_000_000), Space(fixed={"d_model": 90, "encoder_attention_heads": 4}), prices, quality)


def test_a_fit_without_memory_plans_without_it() -> None:
    """As it is where the system does not tell what a process holds."""
    prices = replace(load_fit(), memory={}, memory_residuals=None)
    found = search(Budget(2_000_000), SMALL, prices, Quality())
    assert all(one.memory is None for one in found)
    with pytest.raises(PlanError, match="has no memory in it"):
        search(Budget(2_000_000, None, 10**7), SMALL, prices, Quality())


def test_sentences_longer_than_a_model_are_refused() -> None:
    with pytest.raises(PlanError, match="longer than the model's positions, 256"):
        search(Budget(2_000_000), SMALL, load_fit(), Quality(), Load(300, 30))


def test_shapes_inside_a_model_are_parts_of_it() -> None:
    whole = StudentShape(256, 6, 2, 4, 4, 1024, 768)
    shape = shape_for_bytes(whole, 8000, 5_000_000)
    assert is_inside(shape, whole) and shape.d_model // shape.encoder_attention_heads <= 64
    assert 4_500_000 < estimate_pack_bytes(shape, 8000) <= 5_000_000
    assert (shape.encoder_layers, shape.decoder_layers) >= (
        5,
        2,
    )  # a proxy of trained shapes would drop a decoder layer
    assert shape_for_bytes(whole, 8000, 10**9) == whole
    with pytest.raises(PlanError, match="the smallest possible pack"):
        shape_for_bytes(whole, 8000, 100_000)
    assert not is_inside(replace(whole, encoder_attention_heads=2), whole)  # its heads are wider


def test_a_plan_from_a_checkpoint_counts_its_own_tokenizer(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", d_model=64, encoder_layers=3)
    made = make_plan(Request("330kB", checkpoint=checkpoint))
    first = made.candidates[0]
    assert first.vocabulary == 344 and first.shape.d_model <= 64 and first.shape.encoder_layers <= 3
    files, table = tokenizer_bytes(checkpoint, 344)
    native = native_bytes(first.shape, 344, table)
    assert first.bytes == estimate_pack_bytes(first.shape, 344, tokenizer_bytes=files, native_bytes=native)


def test_few_are_shown_and_the_recommended_one_first() -> None:
    found = search(Budget(5_000_000), SMALL, load_fit(), Quality())
    shown = choose_shown(found, 6)
    assert shown[0] is found[0] and len(shown) <= 6 and len(set(map(id, shown))) == len(shown)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_a_recipe_and_writes_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--json", str(tmp_path / "plan.json"), "--plot", str(tmp_path / "plan.png")]
    assert cli.main(["plan", "--size", "2MB", "--vocabulary", "1000,2000", *options]) == 0
    out = capsys.readouterr().out
    assert "[student]" in out and "promises nothing" in out and "1,000" in out
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["budget"]["bytes"] == 2_000_000 and all(one["bytes"] <= 2_000_000 for one in found["candidates"])
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give a size"),
        (["--size", "ten"], "--size: expected bytes"),
        (["--size", "10kB"], "the smallest possible pack"),
        (["--size", "10MB", "--latency", "20"], "--latency: expected a time"),
        (["--size", "10MB", "--memory", "1kB"], "the leanest takes"),
        (["--size", "10MB", "--vocabulary", "many"], "--vocabulary many"),
        (["--size", "10MB", "--vocabulary", "5"], "expected 400 to"),
        (["--size", "10MB", "--fit", "nowhere.json"], "no such fit"),
        (["--size", "10MB", "--tokens", "1"], "expected 2 to"),
        (["--size", "10MB", "--from", "nowhere"], "nowhere is no checkpoint"),
    ],
)
def test_what_the_command_cannot_do_it_says_in_a_line(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
