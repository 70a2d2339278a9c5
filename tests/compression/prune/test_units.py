"""Importance, choice of channels, targets, calibration text: against references of their own, and bad input."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mobilenmt.compression.core.errors import CorpusError, PlanError, PruneError, RecipeError
from mobilenmt.compression.pack.estimate import estimate_pack_bytes, native_bytes, tokenizer_bytes
from mobilenmt.compression.prune.calibrate import calibrate, measure_loss, read_texts
from mobilenmt.compression.prune.closed_forms import fewer_products, fewer_values, solve
from mobilenmt.compression.prune.flow import collect
from mobilenmt.compression.prune.importance import score
from mobilenmt.compression.prune.network import Network
from mobilenmt.compression.prune.select import choose_channels
from mobilenmt.compression.prune.settings import HowToPrune
from mobilenmt.compression.prune.target import check_target, parse_target, shape_of
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.export.checkpoint import load_checkpoint, sinusoidal_positions
from training_data import opened, prunable, toy_pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prunable(tmp_path_factory.mktemp("model") / "checkpoint")


def test_a_gates_gradient_is_the_change_of_the_loss_when_it_closes_a_little(folder: Path) -> None:
    network, _, calibration = opened(folder)
    network = Network(network.config, {name: value.double() for name, value in network.weights.items()})
    batch = calibration.batches[0]
    found = collect(network, [batch], objective="loss")
    for name, weight, columns in (
        ("encoder.1.ffn.inner", "model.encoder.layers.1.fc2.weight", [3]),
        ("decoder.0.encoder_attn.heads", "model.decoder.layers.0.encoder_attn.out_proj.weight", [*range(8, 16)]),
    ):
        losses = []
        for gate in (1 - 1e-6, 1 + 1e-6):
            changed = {**network.weights, weight: network.weights[weight].clone()}
            changed[weight][:, columns] *= gate
            one = Network(network.config, changed)
            with torch.inference_mode():
                losses.append(one.sentence_losses(one.states(batch), batch.labels))
        wanted = (losses[1] - losses[0]) / 2e-6
        torch.testing.assert_close(found.gates[name][:, columns].sum(1).double(), wanted, rtol=1e-3, atol=1e-4)


def test_a_trajectory_is_the_mean_squared_change_behind_a_gate(folder: Path) -> None:
    """Random projections agree in the mean with what closing the gate a little does to states and output."""
    network, _, calibration = opened(folder)
    batches = calibration.batches[:1]
    batch, name, weight = batches[0], "encoder.0.ffn.inner", "model.encoder.layers.0.fc2.weight"
    drawn = [
        collect(network, batches, objective="trajectory", seed=seed).gates[name].square().mean(0) for seed in range(16)
    ]
    found = torch.stack(drawn).mean(0)
    for unit in (0, 5):
        passes = []
        for gate in (0.995, 1.005):
            changed = {**network.weights, weight: network.weights[weight].clone()}
            changed[weight][:, unit] *= gate
            heard: dict[str, torch.Tensor] = {}

            def tap(place: str, values: torch.Tensor, mask: torch.Tensor, heard=heard) -> torch.Tensor:  # type: ignore[no-untyped-def]
                if place.endswith("ffn.state"):
                    heard[place] = values * mask[..., None]
                return values

            one = Network(network.config, changed)
            with torch.inference_mode():
                logs = one.logits(one.states(batch, tap)).log_softmax(-1)
            passes.append((heard, logs))
        total = torch.zeros(len(batch.source))
        for place in passes[0][0]:
            low, high = passes[0][0][place], passes[1][0][place]
            change = ((high - low) / 0.01).square().sum(2) / high.square().sum(2).clamp_min(1e-20)
            total += change.sum(1) / 4  # layers
        slope = (passes[1][1] - passes[0][1]) / 0.01
        fisher = (passes[1][1].exp() * slope.square()).sum(2) * batch.target_mask
        total += fisher.sum(1)
        assert float(found[unit]) == pytest.approx(float(total.mean()), rel=0.35)


def test_magnitude_is_the_norm_of_a_units_weights(folder: Path) -> None:
    network, _, calibration = opened(folder)
    stored = load_checkpoint(folder).tensors
    found = score("magnitude", network, calibration)
    first, second = stored["model.encoder.layers.0.fc1.weight"], stored["model.encoder.layers.0.fc2.weight"]
    np.testing.assert_allclose(
        found.neurons["encoder.0.ffn"], np.sqrt((first**2).sum(1) + (second**2).sum(0)), rtol=1e-5
    )
    prefix = "model.decoder.layers.1.encoder_attn"
    head = sum(float((stored[f"{prefix}.{name}_proj.weight"][8:16] ** 2).sum()) for name in "qkv")
    head += float((stored[f"{prefix}.out_proj.weight"][:, 8:16] ** 2).sum())
    assert float(found.heads["decoder.1.encoder_attn"][1]) == pytest.approx(head**0.5, rel=1e-5)


def test_channels_are_the_best_choice_of_all(folder: Path) -> None:
    """Against every choice there is: score, less what sinusoids change by; sines stay sines, in their order."""
    scores = torch.rand(12, generator=torch.Generator().manual_seed(3)) * 2
    old, new = (sinusoidal_positions(50, width).astype(np.float64) for width in (12, 8))

    def worth(channels: tuple[int, ...], half: int) -> float:
        change = sum(((old[:, c] - new[:, half * 4 + i]) ** 2).mean() for i, c in enumerate(channels))
        return float(scores[list(channels)].sum() / scores.mean()) - change

    wanted = [
        max(itertools.combinations(range(half * 6, half * 6 + 6), 4), key=lambda one: worth(one, half))
        for half in (0, 1)
    ]
    assert choose_channels(scores, 8).tolist() == [*wanted[0], *wanted[1]]
    assert choose_channels(scores, 12).tolist() == list(range(12))
    best = [*scores[:6].argsort(descending=True)[:4].sort().values.tolist()]
    assert choose_channels(scores, 8, position_weight=0.0).tolist()[:4] == best


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("d_model=64", "no part of the model: d_model is 32, 64 is wanted"),
        ("d_model=24,encoder_layers=7", "encoder_layers is 2, 7 is wanted"),
        ("d_model=18", "encoder_attention_heads: 4 does not divide d_model 18"),
        (
            "d_model=24,encoder_attention_heads=2",
            "2 encoder heads of a width of 24 have 12 channels each, the model's have 8: at least 3",
        ),
        ("d_model=15,encoder_attention_heads=3,decoder_attention_heads=3", "d_model: must be even"),
        ("width=16", "'width' is nothing that can be pruned; known: d_model, encoder_layers"),
        ("d_model=16,d_model=8", "d_model is given twice"),
        ("d_model=x", "d_model: expected an integer, found 'x'"),
        ("d_model=0", "d_model: must be at least 1"),
        ("small", "expected a shape, as in d_model=192,encoder_layers=4, or a size, as in 10MB"),
    ],
)
def test_a_target_that_will_not_do_is_one_clear_line(folder: Path, target: str, message: str) -> None:
    with pytest.raises(PruneError, match=message):
        parse_target(target, load_checkpoint(folder).config, 500)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("1kB", "1,000 bytes are too few: the smallest possible pack takes about .* 500 pieces"),
        ("0MB", "the size of the pack: expected 1 byte or more, found '0MB'"),
        ("10 apples", "the size of the pack: expected bytes, as in 10MB or 9.5MiB, found '10 apples'"),
    ],
)
def test_a_size_that_will_not_do_is_one_clear_line(folder: Path, target: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        parse_target(target, load_checkpoint(folder).config, 500)


def test_a_size_gives_a_part_of_the_model_that_keeps_it(folder: Path) -> None:
    shape = StudentShape(d_model=256, encoder_ffn_dim=1024, decoder_ffn_dim=768)
    whole = replace(load_checkpoint(folder).config, **asdict(shape))
    for most in ("3MB", "5 MB", "8000000"):
        found = parse_target(most, whole, 8000)
        check_target(found, whole)
        assert 0.9 * float(most[0]) * 1e6 < estimate_pack_bytes(found, 8000) <= float(most[0]) * 1e6
    assert parse_target("1GB", whole, 8000) == shape_of(whole)


def test_a_size_counts_the_tokenizer_that_is_there(folder: Path) -> None:
    config = load_checkpoint(folder).config  # 344 pieces: fewer than any that is trained
    files, table = tokenizer_bytes(folder, config.vocab_size)
    shape = parse_target("190kB", config, config.vocab_size, folder)
    native = native_bytes(shape, config.vocab_size, table)
    assert (
        0.8 * 190_000
        < estimate_pack_bytes(shape, config.vocab_size, tokenizer_bytes=files, native_bytes=native)
        <= 190_000
    )


def test_settings_out_of_range_are_refused() -> None:
    for name, value in (("sentences", 0), ("ridge", -1.0), ("tokens", 1), ("position_weight", float("nan"))):
        with pytest.raises(RecipeError, match=name):
            HowToPrune(**{name: value})  # type: ignore[arg-type]


def test_text_that_will_not_do_is_one_clear_line(folder: Path, tmp_path: Path) -> None:
    network, pieces, _ = opened(folder)
    config = network.config
    with pytest.raises(PruneError, match="the text is too short: 9 different pairs"):
        calibrate(toy_pairs(9), pieces, config)
    with pytest.raises(PruneError, match="the text is too short: 9 different pairs"):
        calibrate(toy_pairs(9) * 100, pieces, config)
    chinese = [(f"这是第{number}句话", f"это предложение номер {number}") for number in range(60)]
    with pytest.raises(PruneError, match=r"the model's vocabulary lacks .* of the source side"):  # it spells bytes
        calibrate(chinese, pieces, config)
    german = [("Das ist nicht der Hund, und es ist auch nicht die Katze", "This is not the dog and it is in the house")]
    with pytest.raises(PruneError, match="the source side is said to be 'en' but reads like 'de'"):
        calibrate(german * 300, pieces, config, languages=("en", "de"))
    with pytest.raises(CorpusError, match="no such file"):
        read_texts([tmp_path / "nothing.tsv"], 10)
    (tmp_path / "one.tsv").write_text("no tab here\n" * 20)
    with pytest.raises(CorpusError, match="are no pairs"):
        read_texts([tmp_path / "one.tsv"], 10)


def test_a_model_that_overflows_is_refused(folder: Path) -> None:
    network, _, calibration = opened(folder)
    weights = {**network.weights, "model.encoder.layers.0.fc1.bias": torch.full((48,), 3e38)}
    weights["model.encoder.layers.0.fc2.weight"] = network.weights["model.encoder.layers.0.fc2.weight"] * 1e4
    with pytest.raises(PruneError, match="NaN"):
        measure_loss(Network(network.config, weights), calibration)


def test_a_model_that_a_student_cannot_hold_is_refused(tmp_path: Path) -> None:
    untied = load_checkpoint(prunable(tmp_path / "untied", tie_word_embeddings=False))
    with pytest.raises(PruneError, match="not one table"):
        Network.of(untied)
    assert shape_of(untied.config).d_model == 32


def test_closed_forms_agree_with_numpy() -> None:
    generator = np.random.default_rng(5)
    inputs, targets = generator.normal(size=(200, 6)), generator.normal(size=(200, 4))
    parts = [(torch.from_numpy(inputs[i::2]).float(), torch.from_numpy(targets[i::2]).float()) for i in (0, 1)]
    weight, bias = solve(parts, torch.zeros(4, 6), torch.zeros(4), 0.0)
    wanted = np.linalg.lstsq(np.hstack([inputs, np.ones((200, 1))]), targets, rcond=None)[0]
    np.testing.assert_allclose(weight.numpy(), wanted[:-1].T, atol=1e-3)
    np.testing.assert_allclose(bias.numpy(), wanted[-1], atol=1e-3)
    queries, keys = generator.normal(size=(50, 6)), generator.normal(size=(40, 6))
    a, b = fewer_products(torch.from_numpy(queries.T @ queries), torch.from_numpy(keys.T @ keys), 4)
    u, s, v = np.linalg.svd(queries @ keys.T)
    np.testing.assert_allclose((queries @ a.numpy()) @ (keys @ b.numpy()).T, u[:, :4] * s[:4] @ v[:4], atol=1e-8)
    out = generator.normal(size=(9, 6))
    basis, back = fewer_values(torch.from_numpy(queries.T @ queries), torch.from_numpy(out), 4)
    u, s, v = np.linalg.svd(queries @ out.T, full_matrices=False)
    np.testing.assert_allclose(queries @ basis.numpy() @ back.numpy().T, u[:, :4] * s[:4] @ v[:4], atol=1e-8)
