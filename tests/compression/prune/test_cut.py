"""Cutting: what nothing depends on can go without a trace, and what is left is fitted to what the model did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mobilenmt.compression.prune import network as network_module
from mobilenmt.compression.prune.cut import cut
from mobilenmt.compression.prune.importance import KINDS, Scores, score
from mobilenmt.compression.prune.network import EMBEDDING, Network, prefix_of, sublayers
from mobilenmt.compression.prune.reconstruct import Reconstruction
from mobilenmt.compression.prune.select import choose_layers, select
from mobilenmt.compression.prune.target import parse_target
from training_data import opened, prunable

KEPT = [*range(8), *range(16, 24)]  # half of the sines, half of the cosines
GONE = [*range(8, 16), *range(24, 32)]
ALL = {"encoder": range(2), "decoder": range(2)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prunable(tmp_path_factory.mktemp("model") / "checkpoint")


def logits(network: Network, batch: network_module.Batch) -> torch.Tensor:
    with torch.inference_mode():
        return network.logits(network.states(batch))[batch.target_mask]


def alike(found: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert float((found - wanted).abs().max()) <= tolerance * float(wanted.abs().max())


def test_the_network_computes_what_transformers_does(folder: Path) -> None:
    from transformers import MarianMTModel

    network, _, calibration = opened(folder)
    model = MarianMTModel.from_pretrained(folder).eval()
    for batch in calibration.batches:
        with torch.inference_mode():
            wanted = model(
                input_ids=batch.source, attention_mask=batch.source_mask, decoder_input_ids=batch.decoder_input
            ).logits[batch.target_mask]
        alike(logits(network, batch), wanted)


@pytest.mark.parametrize("scale", [True, False])
def test_the_same_shape_is_the_same_model_whatever_its_embeddings_are_scaled_by(tmp_path: Path, scale: bool) -> None:
    network, _, calibration = opened(prunable(tmp_path / "model", scale_embedding=scale))
    shape = parse_target("d_model=32", network.config, 0)
    pruned = cut(network, shape, select(network, shape, score("random", network, calibration)))
    assert pruned.config.scale_embedding
    batch = calibration.batches[0]
    alike(logits(pruned, batch), logits(network, batch))


def with_copies(network: Network, heads: int) -> Network:
    """A model half of whose channels are copies that nothing reads, and half of whose heads' channels are zero: what
    is left is ``heads`` heads, which is a half of them or all of them with half the channels."""
    weights = {name: value.clone() for name, value in network.weights.items()}
    lost = [*range(16, 32)] if heads == 2 else [index for index in range(32) if index % 8 >= 4]
    weights[EMBEDDING][:, GONE] = weights[EMBEDDING][:, KEPT]
    for _, place, kind in sublayers(network):
        prefix = prefix_of(place)
        second = f"{prefix}.fc2" if kind == "ffn" else f"{prefix}.out_proj"
        for name in ["fc1"] if kind == "ffn" else ["q_proj", "k_proj", "v_proj"]:
            weights[f"{prefix}.{name}.weight"][:, GONE] = 0
            if kind != "ffn":
                weights[f"{prefix}.{name}.weight"][lost] = 0
                weights[f"{prefix}.{name}.bias"][lost] = 0
        norm = f"{prefix}.final_layer_norm" if kind == "ffn" else f"{prefix}_layer_norm"
        for name in (f"{second}.weight", f"{second}.bias", f"{norm}.weight", f"{norm}.bias"):
            weights[name][GONE] = weights[name][KEPT]
        if place == "decoder.1.ffn":  # the tied table reads all channels
            weights[f"{norm}.weight"][GONE] = 0
            weights[f"{norm}.bias"][GONE] = 0
    return Network(network.config, weights)


@pytest.mark.parametrize("heads", [2, 4])
def test_width_and_heads_that_nothing_reads_go_without_a_trace(
    folder: Path, monkeypatch: pytest.MonkeyPatch, heads: int
) -> None:
    """Attention's and the embeddings' scales change with the width, and the logits do not."""
    monkeypatch.setattr(network_module, "sinusoidal_positions", lambda n, d: np.zeros((n, d), np.float32))
    network, _, calibration = opened(folder)
    network = with_copies(network, heads)
    shape = parse_target(
        f"d_model=16,encoder_attention_heads={heads},decoder_attention_heads={heads}", network.config, 0
    )
    found = score("activation", network, calibration)
    width = torch.zeros(32)
    width[KEPT] = 1.0
    scores = Scores(width, found.heads, found.queries, found.values, found.neurons)
    selection = select(network, shape, scores, position_weight=0.0)
    assert selection.width.tolist() == KEPT
    pruned = cut(network, shape, selection)
    fitted = Reconstruction(network, pruned, ALL, selection, ridge=0.01).fit(calibration.batches)
    for batch in calibration.batches:
        alike(logits(pruned, batch), logits(network, batch))
        alike(logits(fitted, batch), logits(network, batch), 1e-3)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "random"])
def test_neurons_without_weights_go_first_and_without_a_trace(folder: Path, kind: str) -> None:
    network, _, calibration = opened(folder)
    weights = {name: value.clone() for name, value in network.weights.items()}
    empty = {}
    for side, place, name in sublayers(network):
        if name == "ffn":
            count = getattr(network.config, f"{side}_ffn_dim")
            lost = torch.randperm(count, generator=torch.Generator().manual_seed(len(empty)))[:16]
            empty[place] = set(lost.tolist())
            for part in ("fc1.weight", "fc1.bias"):
                weights[f"{prefix_of(place)}.{part}"][lost] = 0
            weights[f"{prefix_of(place)}.fc2.weight"][:, lost] = 0
    network = Network(network.config, weights)
    shape = parse_target("encoder_ffn_dim=32,decoder_ffn_dim=48", network.config, 0)
    selection = select(network, shape, score(kind, network, calibration))
    if kind == "magnitude":  # others cannot tell them from neurons that the text does not excite
        assert not any(lost & set(selection.neurons[place].tolist()) for place, lost in empty.items())
    pruned = cut(network, shape, selection)
    for batch in calibration.batches:
        alike(logits(pruned, batch), logits(network, batch))


def test_a_layer_that_changes_nothing_is_the_one_that_goes(folder: Path) -> None:
    network, _, calibration = opened(folder)
    weights = {name: value.clone() for name, value in network.weights.items()}
    for kind in ("self_attn.out_proj", "fc2"):
        for part in ("weight", "bias"):
            weights[f"model.encoder.layers.1.{kind}.{part}"].zero_()
    for norm in ("self_attn_layer_norm", "final_layer_norm"):  # a norm of what is normed already
        weights[f"model.encoder.layers.1.{norm}.weight"].fill_(1)
        weights[f"model.encoder.layers.1.{norm}.bias"].zero_()
    weights["model.encoder.layers.0.final_layer_norm.weight"].fill_(1)
    weights["model.encoder.layers.0.final_layer_norm.bias"].zero_()
    network = Network(network.config, weights)
    shape = parse_target("encoder_layers=1", network.config, 0)
    for kind in KINDS:
        if kind != "random":
            layers = choose_layers(network, shape, calibration.batches, score(kind, network, calibration).layers)
            assert layers == {"encoder": [0], "decoder": [0, 1]}, kind
    layers = {"encoder": [0], "decoder": [0, 1]}
    shallow = network.with_layers(layers)
    assert shallow.config.encoder_layers == 1
    alike(logits(shallow, calibration.batches[0]), logits(network, calibration.batches[0]), 1e-4)


def test_the_loss_chooses_the_layer_it_misses_least(folder: Path) -> None:
    network, _, calibration = opened(folder)
    shape = parse_target("encoder_layers=1,decoder_layers=1", network.config, 0)
    kept = choose_layers(network, shape, calibration.batches, None)
    losses = {layer: network.without("decoder", layer).loss(calibration.batches) for layer in (0, 1)}
    assert kept["decoder"] == [max(losses, key=lambda layer: losses[layer])]
    rest = network.with_layers({"decoder": kept["decoder"]})
    losses = {layer: rest.without("encoder", layer).loss(calibration.batches) for layer in (0, 1)}
    assert kept["encoder"] == [max(losses, key=lambda layer: losses[layer])]


@pytest.mark.parametrize(
    ("target", "matrices"),
    [
        ("encoder_ffn_dim=24,decoder_ffn_dim=32", True),
        ("d_model=24", True),
        ("encoder_layers=1", True),
        ("d_model=24", False),
    ],
)
def test_a_fit_brings_states_of_other_text_nearer_to_the_models(folder: Path, target: str, matrices: bool) -> None:
    network, _, calibration = opened(folder, pairs=500)
    fitting, other = calibration.batches[:-1:2], calibration.batches[1::2]
    shape = parse_target(target, network.config, 0)
    layers = choose_layers(network, shape, fitting, score("activation", network, calibration).layers)
    shallow = network.with_layers(layers)
    selection = select(shallow, shape, score("activation", shallow, calibration))
    pruned = cut(shallow, shape, selection)
    fitted = Reconstruction(network, pruned, layers, selection, ridge=0.01, matrices=matrices).fit(fitting)

    def error(one: Network) -> float:
        factor = (network.config.d_model / shape.d_model) ** 0.5
        with torch.inference_mode():
            return sum(
                float((one.states(batch) * factor - network.states(batch)[..., selection.width]).square().sum())
                for batch in other
            )

    assert error(fitted) < 0.9 * error(pruned)
