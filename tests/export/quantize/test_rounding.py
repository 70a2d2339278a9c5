"""Rounding: the scales that each way of clipping gives, against plain searches; nothing outside a form's range."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mobilenmt.export.quantize.forms import FORMS, LEVELS, MULTIPLIERS, NIBBLE_LEVELS, find_form
from mobilenmt.export.quantize.quantizer import Quantizer
from mobilenmt.export.quantize.rounding import Rounded, round_matrix
from mobilenmt.export.quantize.settings import Quantization
from mobilenmt.runtime.errors import InputError

Array = npt.NDArray[Any]
BLOCKY = [name for name in FORMS if name.startswith("int4")]


def matrix(rows: int = 6, columns: int = 40, seed: int = 0) -> Array:
    """Rows of different sizes, with some values far out, as trained matrices have them."""
    random = np.random.default_rng(seed)
    values = random.standard_t(3, (rows, columns)) * np.geomspace(0.01, 2, rows)[:, None]
    return values.astype(np.float32)


def error(weight: Array, rounded: Rounded) -> float:
    return float(np.square(rounded.weights().astype(np.float64) - weight).sum())


def nearest(row: Array, scale: float, levels: int) -> Array:
    """Each value tried against every integer, one by one."""
    grid = scale * np.arange(-levels, levels + 1)
    return grid[np.abs(row[:, None] - grid).argmin(axis=1)]


@pytest.mark.parametrize("name", ["int8", "int8-wide"])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_max_clips_nothing_and_gives_the_nearest_integers(name: str, granularity: Any) -> None:
    weight, form = matrix(), find_form(name)
    found = round_matrix(weight, form, granularity=granularity)
    whole = np.full(len(weight), np.abs(weight).max())
    most = np.abs(weight).max(axis=1) if granularity == "channel" else whole
    np.testing.assert_allclose(found.scales, most / form.levels, rtol=1e-6)
    for row, scale, values in zip(weight, found.scales, found.weights(), strict=True):
        np.testing.assert_allclose(values, nearest(row, float(scale), form.levels), atol=1e-6)


def test_a_percentile_clips_what_lies_beyond_it() -> None:
    weight = matrix(columns=1000)
    found = round_matrix(weight, FORMS["int8"], clipping="percentile", percentile=99.0)
    for row, values, scale in zip(weight, found.values, found.scales, strict=True):
        limit = np.sort(np.abs(row))[989:991]  # the 99th percentile of a thousand lies between these two
        assert limit[0] <= scale * LEVELS <= limit[1]
        assert (np.abs(values[np.abs(row) > limit[1]]) == LEVELS).all()
    whole = round_matrix(weight, FORMS["int8"], clipping="percentile", percentile=99.0, granularity="tensor")
    assert len(set(whole.scales.tolist())) == 1
    assert np.isclose(whole.scales[0] * LEVELS, np.percentile(np.abs(weight), 99.0), rtol=1e-6)


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_mse_finds_what_a_plain_search_finds(granularity: Any) -> None:
    weight = matrix()
    found = round_matrix(weight, FORMS["int8"], clipping="mse", granularity=granularity)
    groups = weight if granularity == "channel" else weight.reshape(1, -1)
    wanted = 0.0
    for row in groups.astype(np.float64):
        scale = np.abs(row).max() / LEVELS
        wanted += min(np.square(nearest(row, s * scale, LEVELS) - row).sum() for s in np.arange(0.2, 1.0001, 0.01))
    assert error(weight, found) == pytest.approx(wanted, rel=1e-3)
    if granularity == "channel":
        assert error(weight, found) < error(weight, round_matrix(weight, FORMS["int8"]))


@pytest.mark.parametrize("name", BLOCKY)
def test_mse_of_blocks_finds_what_a_plain_search_finds(name: str) -> None:
    form = FORMS[name]
    weight = matrix(rows=3, columns=3 * form.block // 2)  # the last block is half full
    found = round_matrix(weight, form, clipping="mse")
    wanted = 0.0
    for row in weight.astype(np.float64):
        scale = np.abs(row).max() / LEVELS
        blocks = np.split(row, range(form.block, len(row), form.block))
        wanted += min(
            sum(
                min(
                    np.square(nearest(block, share * scale * m, NIBBLE_LEVELS) - block).sum()
                    for m in range(1, MULTIPLIERS + 1)
                )
                for block in blocks
            )
            for share in np.arange(0.6, 1.0001, 0.02)
        )
    assert error(weight, found) == pytest.approx(wanted, rel=1e-3)
    assert error(weight, found) < error(weight, round_matrix(weight, form))


@pytest.mark.parametrize("name", BLOCKY)
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("clipping", ["max", "percentile", "mse"])
def test_blocks_stay_in_range_and_max_clips_nothing(name: str, granularity: Any, clipping: Any) -> None:
    form, weight = FORMS[name], matrix(columns=200)
    found = round_matrix(weight, form, clipping=clipping, granularity=granularity)
    found.check(form, weight.shape)
    assert np.abs(found.integers()).max() <= LEVELS
    if clipping == "max":
        step = np.repeat(found.multipliers, form.block, axis=1)[:, :200] * found.scales[:, None]  # type: ignore[arg-type]
        assert (np.abs(found.weights() - weight) <= step * 0.501).all()


@pytest.mark.parametrize("name", [name for name in FORMS if name != "fp32"])
@pytest.mark.parametrize("clipping", ["max", "percentile", "mse"])
def test_zeros_are_zeros(name: str, clipping: Any) -> None:
    weight = np.zeros((3, 20), np.float32)
    weight[1, 3] = 1e-40
    found = round_matrix(weight, FORMS[name], clipping=clipping)
    assert not found.weights().any()


def test_bytes_of_a_form_are_those_of_its_arrays() -> None:
    for name in BLOCKY:
        found = round_matrix(matrix(6, 40), FORMS[name])
        assert found.multipliers is not None
        packed = 6 * found.multipliers.shape[1] * FORMS[name].block // 2
        assert FORMS[name].bytes(6, 40) == [packed, found.multipliers.nbytes, found.scales.nbytes]
    assert FORMS["int8"].bytes(6, 40) == [240, 24]
    assert FORMS["int8-wide"].bytes(6, 40) == [6 * 48, 24]
    assert FORMS["fp32"].bytes(6, 40) == [960]


def test_patterns_choose_forms_and_the_first_that_fits_counts() -> None:
    settings = Quantization("int4-32", matrices={"*.fc2": "int8", "model.encoder.*": "fp32"})
    assert settings.form_of("model.encoder.layers.0.fc2").name == "int8"
    assert settings.form_of("model.encoder.layers.0.fc1").name == "fp32"
    assert settings.form_of("source_embedding").name == "int4-32"
    assert not settings.plain
    assert Quantization().plain


def test_settings_say_themselves_again(tmp_path: Any) -> None:
    settings = Quantization("int4-64", "percentile", 99.9, "tensor", {"*embedding": "int8"})
    assert Quantization.from_dict(settings.to_dict()) == settings
    assert Quantization().to_dict() == {"form": "int8"}
    file = tmp_path / "forms.toml"
    file.write_text('form = "int4-64"\nclipping = "percentile"\npercentile = 99.9\ngranularity = "tensor"\n')
    with file.open("a") as more:
        more.write('[matrices]\n"*embedding" = "int8"\n')
    assert Quantization.load(file) == settings


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"form": "int3"}, "there is no form 'int3'"),
        ({"form": 4}, "there is no form 4"),
        ({"clipping": "min"}, "clipping: expected one of max, percentile, mse"),
        ({"percentile": 3}, "percentile: expected a number from 50 to 100"),
        ({"percentile": True}, "percentile: expected a number"),
        ({"granularity": "row"}, "granularity: expected one of channel, tensor"),
        ({"matrices": {"fc1": "int5"}}, "matrices: fc1: there is no form 'int5'"),
        ({"matrices": "fc1"}, "matrices: expected names and forms"),
        ({"method": "best"}, "method: expected one of"),
        ({"bits": 4}, "there is no setting 'bits'"),
    ],
)
def test_wrong_settings_say_what_is_wrong(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Quantization.from_dict(values)


@pytest.mark.parametrize("content", ["form = ", '["int8"]', "\xff"])
def test_a_file_of_settings_that_is_none_is_named(content: str, tmp_path: Any) -> None:
    for file in (tmp_path / "forms.toml", tmp_path / "forms.json"):
        file.write_text(content, encoding="latin-1")
        with pytest.raises(InputError, match=file.name):
            Quantization.load(file)
    with pytest.raises(InputError, match="cannot be read"):
        Quantization.load(tmp_path / "absent.toml")


def test_what_is_rounded_already_is_taken_as_it_is() -> None:
    weight = matrix()
    given = round_matrix(weight, FORMS["int4-16"], clipping="mse")
    taker = Quantizer(Quantization("int4-16", method="gptq"), {"a": given})
    assert taker.round("a", weight * 2) is given
    with pytest.raises(InputError, match=r"b: it is not rounded as int4-32: blocks of 16"):
        Quantizer(Quantization("int4-32"), {"b": given}).round("b", weight)
    with pytest.raises(InputError, match=r"expected int8 \[6, 39\]"):
        taker.round("a", weight[:, :39])
    with pytest.raises(InputError, match="method awq"):
        Quantizer(Quantization(method="awq"))


@pytest.mark.parametrize("name", [name for name in FORMS if name != "fp32"])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("clipping", ["max", "percentile", "mse"])
def test_what_integers_were_multiplied_out_to_gives_the_same_integers(
    name: str, clipping: Any, granularity: Any
) -> None:
    weight = np.concatenate([matrix(rows=60, columns=72, seed=3), np.zeros((1, 72), np.float32)])
    settings: dict[str, Any] = {"clipping": clipping, "percentile": 98.0, "granularity": granularity}
    first = round_matrix(weight, FORMS[name], **settings)
    assert error(weight, first) > 0
    again = round_matrix(first.weights(), FORMS[name], **settings)
    again.check(FORMS[name], weight.shape)
    np.testing.assert_allclose(again.weights(), first.weights(), rtol=1e-6)
    if name != "int4-128":  # where a row is one block, 8 * 6 and a scale are as good as 9 * 6 and another
        np.testing.assert_array_equal(again.integers(), first.integers())
