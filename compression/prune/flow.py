"""What flows through a model on a text, and the gradients there: the statistics that importance is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from mobilenmt.compression.core.progress import progress
from mobilenmt.compression.prune.network import SIDES, Batch, Network, Tensor, sublayers


@dataclass
class Collected:
    """Sums over a text, by the places of :data:`~mobilenmt.compression.prune.network.Tap`."""

    attentions: tuple[str, ...]
    feed_forwards: tuple[str, ...]
    sizes: dict[str, Tensor] = field(default_factory=dict)
    """Mean absolute value of each unit, over tokens."""
    squares: dict[str, Tensor] = field(default_factory=dict)
    """Mean square."""
    products: dict[str, Tensor] = field(default_factory=dict)
    """Mean of \\|value times gradient\\|."""
    gates: dict[str, Tensor] = field(default_factory=dict)
    """[sentences, units]: gradient for a gate on each unit, summed over a sentence's tokens."""
    turned: dict[str, list[float]] = field(default_factory=dict)
    """Of each layer, 1 - cosine of the states before and behind it."""
    skipped: dict[str, list[float]] = field(default_factory=dict)
    """Of each layer, the mean over sentences of \\|first-order change of the objective\\| if states passed by it."""
    skipped_squares: dict[str, list[float]] = field(default_factory=dict)
    """The same squared."""

    def over_states(self, values: Mapping[str, Tensor]) -> Tensor:
        """Sum of some values over all places of residual states, [D]. Squares of sizes, so that none goes missing."""
        return torch.stack([value for name, value in values.items() if _is_state(name)]).sum(0)


def collect(network: Network, batches: Sequence[Batch], *, objective: str = "", seed: int = 0) -> Collected:
    """Run a text through a network.

    Args:
        network: the model.
        batches: the text.
        objective: ``loss`` (negative log-likelihood), ``trajectory`` (random projections of the states behind each
            layer and of the output), or "" for no gradients.
        seed: of the projections.
    """
    found = Collected(
        tuple(place for _, place, kind in sublayers(network) if kind != "ffn"),
        tuple(place for _, place, kind in sublayers(network) if kind == "ffn"),
    )
    gates: dict[str, list[Tensor]] = {}
    sums: dict[str, dict[str, Tensor]] = {"sizes": {}, "squares": {}, "products": {}}
    counts: dict[str, int] = {}
    generator = torch.Generator().manual_seed(seed)
    skipped: dict[tuple[str, int], list[Tensor]] = {}
    turned: dict[tuple[str, int], list[Tensor]] = {}
    with progress("importance", "sentences", total=sum(len(batch.source) for batch in batches)) as bar:
        for batch in batches:
            heard: dict[str, Tensor] = {}
            masks: dict[str, Tensor] = {}

            def tap(name: str, values: Tensor, mask: Tensor) -> Tensor:
                if objective and not values.requires_grad:
                    values = values.detach().requires_grad_()
                heard[name], masks[name] = values, mask  # noqa: B023 (called before the loop goes on)
                return values

            with torch.set_grad_enabled(bool(objective)):
                states = network.states(batch, tap)
                if objective:
                    goal = (
                        network.sentence_losses(states, batch.labels).sum()
                        if objective == "loss"
                        else _projected(network, batch, states, heard, masks, generator)
                    )
                    gradients = dict(zip(heard, torch.autograd.grad(goal, list(heard.values())), strict=True))
            with torch.no_grad():
                for name, values in heard.items():
                    mask = masks[name][..., None]
                    counts[name] = counts.get(name, 0) + int(mask.sum())
                    _add(sums["sizes"], name, (values.abs() * mask).sum((0, 1)))
                    _add(sums["squares"], name, (values.square() * mask).sum((0, 1)))
                    if objective:
                        product = values * gradients[name] * mask
                        _add(sums["products"], name, product.abs().sum((0, 1)))
                        gates.setdefault(name, []).append(product.sum(1))
                for side in SIDES:
                    for layer in range(network.layers(side)):
                        name = f"{side}.{layer}.ffn.state"
                        before = heard[f"{side}.{layer - 1}.ffn.state" if layer else f"{side}.in"]
                        mask = masks[name]
                        cosine = torch.cosine_similarity(before, heard[name], dim=2)
                        turned.setdefault((side, layer), []).append((1 - cosine)[mask])
                        if objective:
                            change = ((before - heard[name]) * gradients[name]).sum(2) * mask
                            skipped.setdefault((side, layer), []).append(change.sum(1))
            bar.update(len(batch.source))
    for kind, total in sums.items():
        setattr(found, kind, {name: value / counts[name] for name, value in total.items()})
    found.gates = {name: torch.cat(parts) for name, parts in gates.items()}
    for side in SIDES:
        layers = [(side, layer) for layer in range(network.layers(side))]
        found.turned[side] = [float(torch.cat(turned[layer]).mean()) for layer in layers]
        if objective:
            changes = [torch.cat(skipped[layer]) for layer in layers]
            found.skipped[side] = [float(change.abs().mean()) for change in changes]
            found.skipped_squares[side] = [float(change.square().mean()) for change in changes]
    return found


def _is_state(name: str) -> bool:
    return name.endswith((".state", ".in"))


def _add(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    sums[name] = sums[name] + value if name in sums else value


def _projected(
    network: Network,
    batch: Batch,
    states: Tensor,
    heard: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    generator: torch.Generator,
) -> Tensor:
    """A random number whose squared gradient is, in the mean, the squared relative change of the states behind each
    layer and the second-order change of the output's distribution (Fisher), summed over tokens."""
    total = states.new_zeros(())
    ends = [name for name in heard if name.endswith("ffn.state")]
    for name in ends:
        values, mask = heard[name], masks[name]
        signs = torch.randint(0, 2, values.shape, generator=generator) * 2.0 - 1.0
        norm = values.detach().square().sum(2, keepdim=True).sqrt()
        total = total + (signs * values / norm * mask[..., None]).sum() / math.sqrt(len(ends))
    with torch.no_grad():
        chances = network.logits(states).softmax(-1).flatten(0, 1)
        drawn = torch.multinomial(chances, 1, generator=generator).view(batch.labels.shape)
        drawn[~batch.target_mask] = -100
    return total + network.sentence_losses(states, drawn).sum()
