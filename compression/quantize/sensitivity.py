"""What each matrix costs alone in each form: how far the model's distributions move."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from mobilenmt.compression.core.errors import QuantizeError
from mobilenmt.compression.core.progress import progress
from mobilenmt.compression.prune.network import Batch, Network
from mobilenmt.compression.quantize.matrices import TABLE, Matrix, StoredNetwork, matrices, round_as
from mobilenmt.compression.quantize.store import Results
from mobilenmt.export.quantize.forms import FORMS
from mobilenmt.export.quantize.settings import Quantization


class Probe:
    """Compares models with one in fp32 on a text, with the references as decoder input ("teacher forcing").

    Raises QuantizeError if the model gives no numbers.
    """

    def __init__(self, network: Network, batches: Sequence[Batch]) -> None:
        self.network, self.batches = network, batches
        self._memories: list[list[torch.Tensor]] = []
        self._wanted: list[torch.Tensor] = []
        with torch.inference_mode():
            for batch in batches:
                memories = self._encode(batch)
                states = network.decode(batch, memories[-1])[batch.target_mask]
                if not bool(states.isfinite().all()):
                    raise QuantizeError("the model gives NaN on the text: its weights are too large for a forward pass")
                self._memories.append(memories)
                self._wanted.append(functional.log_softmax(network.logits(states), -1))
        self.tokens = sum(map(len, self._wanted))
        """Target tokens that are compared."""

    def _encode(self, batch: Batch) -> list[torch.Tensor]:
        """States in front of each encoder layer, and behind the last one."""
        memories = []

        def keep(name: str, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            if name == "encoder.in" or name.endswith(".ffn.state"):
                memories.append(values)
            return values

        self.network.encode(batch, keep)
        return memories

    def distance(self, other: Network, *, first: int | None = None) -> float:
        """Mean Kullback-Leibler divergence of ``other`` from the fp32 model, in nats a target token.

        Args:
            other: of the same shape.
            first: the first encoder layer in which it is another model; the number of layers where the encoder is the
                same; None where the embedding is another already.
        """
        total = 0.0
        with torch.inference_mode():
            for batch, memories, wanted in zip(self.batches, self._memories, self._wanted, strict=True):
                memory = (
                    other.encode(batch) if first is None else other.encode(batch, first=first, states=memories[first])
                )
                found = functional.log_softmax(other.logits(other.decode(batch, memory)[batch.target_mask]), -1)
                total += float(functional.kl_div(found, wanted, reduction="sum", log_target=True))
        return max(0.0, total / self.tokens)


def first_layer(matrix: Matrix, layers: int) -> int | None:
    """The first of ``layers`` encoder layers that a matrix is part of, as :meth:`Probe.distance` takes it."""
    if matrix.name == TABLE:
        return None
    parts = matrix.name.split(".")
    return int(parts[3]) if parts[1] == "encoder" else layers


@dataclass(frozen=True)
class Sensitivity:
    """Of one matrix in one form."""

    matrix: Matrix
    form: str
    distance: float
    """Nats a token, everything else in fp32."""


def measure(
    probe: Probe, forms: Sequence[str], settings: Quantization, results: Results, *, shortlist: bool = False
) -> list[Sensitivity]:
    """Measure every matrix in every form, but those that ``results`` has already; fp32 costs nothing.

    Args:
        probe: the model and its text.
        forms: names of forms.
        settings: how to clip; its forms are not looked at.
        results: keeps what is found.
        shortlist: whether packs will have one.
    """
    found: list[Sensitivity] = []
    layers = probe.network.layers("encoder")
    todo = [(matrix, form) for matrix in matrices(probe.network.config) for form in forms]
    with progress("sensitivity", "matrices in a form", total=len(todo)) as bar:
        for matrix, form in todo:
            key = f"{matrix.name} {form}"
            if FORMS[form].kind == "fp32":
                distance = 0.0
            elif key in results:
                distance = results[key]["distance"]
            else:
                chosen = Quantization(form, settings.clipping, settings.percentile, settings.granularity)
                rounded = round_as(probe.network.weights, matrix, chosen, shortlist=shortlist)
                assert rounded is not None
                stored = StoredNetwork.build(probe.network, {matrix.name: rounded})
                distance = probe.distance(stored, first=first_layer(matrix, layers))
                if not math.isfinite(distance):
                    raise QuantizeError(f"{matrix.name} in {form}: the model gives NaN on the text")
                results.add(key, {"matrix": matrix.name, "form": form, "distance": distance})
            found.append(Sensitivity(matrix, form, distance))
            bar.update(1)
    return found


def by_matrix(found: Sequence[Sensitivity]) -> dict[str, dict[str, float]]:
    """Matrix -> form -> distance."""
    table: dict[str, dict[str, float]] = {}
    for one in found:
        table.setdefault(one.matrix.name, {})[one.form] = one.distance
    return table


def extremes(table: Mapping[str, Mapping[str, float]], form: str, count: int) -> list[str]:
    """The ``count`` most and the ``count`` least sensitive matrices in a form, the most sensitive first."""
    order = sorted(table, key=lambda name: -table[name][form])
    return order if len(order) <= 2 * count else [*order[:count], *order[len(order) - count :]]


def markdown(table: Mapping[str, Mapping[str, float]], scores: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each matrix, in the order of the model; distances in thousandths of a nat."""
    forms = list(next(iter(table.values())))
    told = ["matrix", *forms, *(["BLEU, chrF lost"] if scores else [])]
    lines = [_row(told), _row(["---"] * len(told))]
    for name, distances in table.items():
        cells = [f"`{name}`", *(f"{1e3 * distances[form]:.3f}" for form in forms)]
        if scores:
            lost = scores.get(name)
            cells.append("" if lost is None else f"{lost['bleu']:+.2f}, {lost['chrf']:+.2f}")
        lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
