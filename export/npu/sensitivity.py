"""Which products run on 8-bit activations, which on 16, which in floating point: by what each costs alone.

The measure is the squared distance of all steps' logits from those of the fp32 model, over the square of their spread.
INT8 weights have a distance of their own; activations may add a share of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mobilenmt.export.checkpoint import Checkpoint
from mobilenmt.export.npu.groups import OUTPUT, Group
from mobilenmt.export.npu.ranges import Range, choose_range
from mobilenmt.export.npu.recording import Recorded, Sample, load_model, module_of, run, with_tensors
from mobilenmt.export.weights import Array

SHARE = 0.5
"""What activations may add to the distance that INT8 weights have."""
_SAMPLES = 8
FLOAT = 32
"""Bits of a product that is not quantized."""


@dataclass(frozen=True)
class Product:
    """How one product runs: the ranges of what it reads and gives, None in floating point."""

    read: Range | None = None
    given: Range | None = None

    @property
    def bits(self) -> int:
        """Of its activations."""
        return FLOAT if self.read is None else self.read.bits


@dataclass(frozen=True)
class Sensitivity:
    """What was measured: distances, see the module."""

    weights: float
    """Of INT8 weights alone."""
    alone: Mapping[str, float]
    """By product, of its 8-bit activations alone."""
    chosen: float
    """Of INT8 weights and the activations as chosen."""


def ranges(recorded: Recorded, bits: int) -> Product:
    """A product with so many bits."""
    found = []
    for side in (recorded.read, recorded.given):
        assert side.low is not None and side.high is not None
        found.append(choose_range(side.joined(), float(side.low.min()), float(side.high.max()), bits))
    return Product(*found)


def choose(
    reference: Checkpoint,
    smoothed: Checkpoint,
    products: Sequence[Group],
    recorded: Mapping[str, Recorded],
    samples: Sequence[Sample],
    *,
    shortlist: bool,
    share: float = SHARE,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Product], Sensitivity]:
    """Bits and ranges for every product.

    Args:
        reference: the model as it came, whose logits count.
        smoothed: the model whose weights are rounded.
        products: all of them.
        recorded: what they read and give.
        samples: sentences to measure on.
        shortlist: whether the output layer is stored as packs with a shortlist have it.
        share: what activations may add to the distance of the weights.
        report: receives a line.
    """
    places = np.unique(np.linspace(0, len(samples) - 1, min(_SAMPLES, len(samples))).astype(int))
    texts = [samples[place] for place in places]
    exact = load_model(reference)
    wanted = [run(exact, sample) for sample in texts]
    del exact
    model = load_model(with_tensors(smoothed, _rounded(smoothed, products, shortlist)))
    _round_output(model, smoothed, products, shortlist)

    def distance(chosen: Mapping[str, Product]) -> float:
        with quantized(model, products, chosen):
            found = [run(model, sample) for sample in texts]
        top = sum(float(np.square(a - b).sum()) for a, b in zip(found, wanted, strict=True))
        return top / sum(float(np.square(b - b.mean(axis=-1, keepdims=True)).sum()) for b in wanted)

    narrow = {group.name: ranges(recorded[group.name], 8) for group in products}
    broad = {group.name: ranges(recorded[group.name], 16) for group in products}
    weights = distance({})
    alone = {name: max(0.0, distance({name: product}) - weights) for name, product in narrow.items()}
    budget = share * weights
    chosen = dict(broad)
    spent = 0.0
    for name in sorted(alone, key=lambda name: alone[name]):
        spent += alone[name]
        if spent <= budget:
            chosen[name] = narrow[name]
    total = distance(chosen)
    while total > weights * (1 + 2 * share) and (left := [name for name in chosen if chosen[name].bits == 8]):
        worst = max(left, key=lambda name: alone[name])  # they cost more together than each alone
        chosen[worst] = broad[worst]
        total = distance(chosen)
    if total > weights * (1 + 2 * share):  # what 16 bits do not hold either stays in floating point
        costs = {name: distance({name: broad[name]}) - weights for name in broad}
        for name in sorted(costs, key=lambda name: -costs[name]):
            if costs[name] <= budget / len(costs):
                break
            chosen[name] = Product()
        total = distance(chosen)
    counts = [sum(product.bits == bits for product in chosen.values()) for bits in (8, 16, FLOAT)]
    report(
        f"activations of {counts[0]} products in 8 bits, {counts[1]} in 16, {counts[2]} in floating point: "
        f"logits within {total**0.5:.3f} of their spread, {weights**0.5:.3f} by the weights alone"
    )
    return chosen, Sensitivity(weights, alone, total)


def _rounded(checkpoint: Checkpoint, products: Sequence[Group], shortlist: bool) -> dict[str, Array]:
    """Weights as their INT8 form has them, under the names of the checkpoint."""
    found: dict[str, Array] = {}
    for group in products:
        if group.names == (OUTPUT,):
            continue
        values, scales = group.rounded(checkpoint, shortlist=shortlist)
        rows = np.split(values * scales[:, None], len(group.names))
        found.update({f"{name}.weight": part for name, part in zip(group.names, rows, strict=True)})
    return found


def _round_output(model: Any, checkpoint: Checkpoint, products: Sequence[Group], shortlist: bool) -> None:
    """The output layer in INT8; tables tied to it stay as they are, since their part is small."""
    import torch

    (group,) = [group for group in products if group.names == (OUTPUT,)]
    values, scales = group.rounded(checkpoint, shortlist=shortlist)
    model.lm_head.weight = torch.nn.Parameter(torch.from_numpy(values * scales[:, None]), requires_grad=False)


@contextmanager
def quantized(model: Any, products: Sequence[Group], chosen: Mapping[str, Product]) -> Iterator[None]:
    """A block in which a torch model rounds activations as the static graphs do."""
    import torch

    handles = []

    def rounded(values: Any, how: Range) -> Any:
        return torch.fake_quantize_per_tensor_affine(values, how.scale, how.zero_point, 0, 2**how.bits - 1)

    for group in products:
        product = chosen.get(group.name)
        if product is None or product.read is None or product.given is None:
            continue
        read, given = product.read, product.given
        for name in group.names:
            module = module_of(model, name)
            handles.append(
                module.register_forward_pre_hook(lambda module, inputs, how=read: (rounded(inputs[0], how),))
            )
            handles.append(module.register_forward_hook(lambda module, inputs, out, how=given: rounded(out, how)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
