"""How much each unit of a model matters: one score for each residual channel, head, channel of a head, and neuron.

Scores are compared within a place alone (the heads of one attention, the neurons of one layer, the channels of the
model), so their scale is their own. What the kinds are: :class:`~mobilenmt.compression.prune.settings.HowToPrune`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from mobilenmt.compression.core.errors import PruneError
from mobilenmt.compression.prune.calibrate import Calibration
from mobilenmt.compression.prune.flow import Collected, collect
from mobilenmt.compression.prune.network import EMBEDDING, SIDES, Network, Tensor, prefix_of, sublayers


@dataclass(frozen=True)
class Scores:
    """More is more important."""

    width: Tensor
    """[D], residual channels."""
    heads: Mapping[str, Tensor]
    """[heads] of each attention, by place."""
    queries: Mapping[str, Tensor]
    """[D], pairs of a query and a key channel, by place; those of a head stand side by side."""
    values: Mapping[str, Tensor]
    """[D], pairs of a value and an output channel, by place."""
    neurons: Mapping[str, Tensor]
    """[F] of each feed-forward layer, by place."""
    layers: Mapping[str, Tensor] = field(default_factory=dict)
    """[layers] of each side."""


def score(kind: str, network: Network, calibration: Calibration, *, seed: int = 0) -> Scores:
    """Scores of one kind.

    Args:
        kind: a key of :data:`KINDS`.
        network: the whole model.
        calibration: text to measure on; unused by kinds that need none.
        seed: of what is drawn.

    Raises PruneError if a score is no number.
    """
    found = KINDS[kind](network, calibration, seed)
    every = [found.width]
    for part in (found.heads, found.queries, found.values, found.neurons, found.layers):
        every += part.values()
    if not all(torch.isfinite(value).all() for value in every):
        raise PruneError(f"importance by {kind} is NaN: activations or gradients of the model overflow on the text")
    return found


def by_magnitude(network: Network, calibration: Calibration, seed: int) -> Scores:
    """Square root of the summed squares of the weights that go with a unit (Han et al. 2015, by structures)."""
    weights = network.weights
    width = weights[EMBEDDING].square().sum(0)
    heads, queries, values, neurons = {}, {}, {}, {}
    layers = {side: torch.zeros(network.layers(side)) for side in SIDES}
    for side, place, kind in sublayers(network):
        prefix = prefix_of(place)
        if kind == "ffn":
            first, second = weights[f"{prefix}.fc1.weight"].square(), weights[f"{prefix}.fc2.weight"].square()
            neurons[place] = (first.sum(1) + second.sum(0)).sqrt()
            width = width + first.sum(0) + second.sum(1)
            whole = first.sum() + second.sum()
        else:
            square = {name: weights[f"{prefix}.{name}_proj.weight"].square() for name in ("q", "k", "v", "out")}
            # what q and k, and v and out, give together is a product
            queries[place] = (square["q"].sum(1) * square["k"].sum(1)).sqrt()
            values[place] = (square["v"].sum(1) * square["out"].sum(0)).sqrt()
            per_unit = square["q"].sum(1) + square["k"].sum(1) + square["v"].sum(1) + square["out"].sum(0)
            heads[place] = per_unit.view(network.heads(side), -1).sum(1).sqrt()
            width = width + sum(square[name].sum(0) for name in "qkv") + square["out"].sum(1)
            whole = per_unit.sum()
        layers[side][int(place.split(".")[1])] += whole
    return Scores(width.sqrt(), heads, queries, values, neurons, layers)


def by_activation(network: Network, calibration: Calibration, seed: int) -> Scores:
    """Mean size of what flows through a unit; of a channel over all layer norms, of a layer how far it turns states."""
    found = collect(network, calibration.batches)
    return Scores(
        width=found.over_states(found.sizes).sqrt(),
        heads={place: _by_head(network, place, found.squares[f"{place}.heads"]).sqrt() for place in found.attentions},
        queries={place: found.sizes[f"{place}.q"] * found.sizes[f"{place}.k"] for place in found.attentions},
        values={place: found.sizes[f"{place}.heads"] for place in found.attentions},
        neurons={place: found.sizes[f"{place}.inner"] for place in found.feed_forwards},
        layers={side: torch.tensor(found.turned[side]) for side in SIDES},
    )


def by_gradient(network: Network, calibration: Calibration, seed: int) -> Scores:
    """Mean squared gradient, over sentences, of the loss for a gate on the unit that stands at 1."""
    return _of_gates(network, collect(network, calibration.batches, objective="loss"))


def by_trajectory(network: Network, calibration: Calibration, seed: int) -> Scores:
    """The same for random projections of the states behind every layer, and of the output's distribution: in the mean
    the squared change of all of them for a small change of the gate."""
    return _of_gates(network, collect(network, calibration.batches, objective="trajectory", seed=seed))


def by_taylor(network: Network, calibration: Calibration, seed: int) -> Scores:
    """Mean of \\|activation times gradient of the loss\\| over tokens."""
    found = collect(network, calibration.batches, objective="loss")
    return Scores(
        width=found.over_states(found.products),
        heads={place: _by_head(network, place, found.products[f"{place}.heads"]) for place in found.attentions},
        queries={place: found.products[f"{place}.q"] for place in found.attentions},
        values={place: found.products[f"{place}.heads"] for place in found.attentions},
        neurons={place: found.products[f"{place}.inner"] for place in found.feed_forwards},
        layers={side: torch.tensor(found.skipped[side]) for side in SIDES},
    )


def by_chance(network: Network, calibration: Calibration, seed: int) -> Scores:
    """Random numbers."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(count: int) -> Tensor:
        return torch.rand(count, generator=generator)

    width = network.config.d_model
    attentions = [(side, place) for side, place, kind in sublayers(network) if kind != "ffn"]
    return Scores(
        width=drawn(width),
        heads={place: drawn(network.heads(side)) for side, place in attentions},
        queries={place: drawn(width) for _, place in attentions},
        values={place: drawn(width) for _, place in attentions},
        neurons={
            place: drawn(getattr(network.config, f"{side}_ffn_dim"))
            for side, place, kind in sublayers(network)
            if kind == "ffn"
        },
        layers={side: drawn(network.layers(side)) for side in SIDES},
    )


KINDS: Mapping[str, Callable[[Network, Calibration, int], Scores]] = {
    "magnitude": by_magnitude,
    "activation": by_activation,
    "gradient": by_gradient,
    "taylor": by_taylor,
    "trajectory": by_trajectory,
    "random": by_chance,
}


def _of_gates(network: Network, found: Collected) -> Scores:
    def squared(gates: Tensor) -> Tensor:
        return gates.square().mean(0)

    heads = {place: squared(_by_head(network, place, found.gates[f"{place}.heads"])) for place in found.attentions}
    return Scores(
        width=found.over_states({name: squared(gates) for name, gates in found.gates.items()}),
        heads=heads,
        queries={place: squared(found.gates[f"{place}.q"]) for place in found.attentions},
        values={place: squared(found.gates[f"{place}.heads"]) for place in found.attentions},
        neurons={place: squared(found.gates[f"{place}.inner"]) for place in found.feed_forwards},
        layers={side: torch.tensor(found.skipped_squares[side]) for side in SIDES},
    )


def _by_head(network: Network, place: str, values: Tensor) -> Tensor:
    """Sums over the channels of each head, [..., heads]."""
    return values.reshape(*values.shape[:-1], network.heads(place.split(".")[0]), -1).sum(-1)
