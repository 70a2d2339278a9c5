"""From a checkpoint and a text to what static graphs of it look like, and the graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from mobilenmt.export.checkpoint import Checkpoint
from mobilenmt.export.graph import Graph
from mobilenmt.export.layers import ModelWriter
from mobilenmt.export.npu.graphs import build_static_decoder, build_static_encoder
from mobilenmt.export.npu.groups import groups
from mobilenmt.export.npu.recording import load_model, make_samples, read_lines, record
from mobilenmt.export.npu.sensitivity import Product, Sensitivity, choose
from mobilenmt.export.npu.smoothing import smooth
from mobilenmt.export.npu.writer import FORMS, StaticWriter, check_static_activation, to_model
from mobilenmt.export.weights import WeightStore
from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.sections import Variant, static_file
from mobilenmt.runtime.tokenizer import Tokenizer

BUCKETS = (32, 64, 128)
_MORE_STEPS = 16


@dataclass(frozen=True)
class StaticSettings:
    """What ``export --target npu`` is told.

    Raises:
        InputError: the buckets make no sense.
    """

    calibration: Path
    """Text in the source language, a sentence a line; what follows a tab does not count."""
    buckets: tuple[int, ...] | None = None
    """Source tokens, the end token counted, that there are graphs for; None for those of ``BUCKETS`` that fit."""
    smooth: bool = True

    def __post_init__(self) -> None:
        if self.buckets is not None:
            wrong = [size for size in self.buckets if type(size) is not int or size < 8]
            if wrong or not self.buckets or list(self.buckets) != sorted(set(self.buckets)):
                raise InputError(f"buckets must be different numbers from 8 on, ascending, not {self.buckets!r}")

    def fitting(self, positions: int) -> tuple[int, ...]:
        """The buckets for a model with so many positions.

        Raises:
            InputError: one that was asked for is longer.
        """
        if self.buckets is None:
            return tuple(size for size in BUCKETS if size <= positions) or (positions,)
        if self.buckets[-1] > positions:
            raise InputError(f"a bucket of {self.buckets[-1]} tokens is longer than the model's {positions} positions")
        return self.buckets


@dataclass(frozen=True)
class StaticPlan:
    """What was found out."""

    checkpoint: Checkpoint
    """Smoothed."""
    products: dict[str, Product]
    sensitivity: Sensitivity
    variant: Variant


def plan_static(
    checkpoint: Checkpoint,
    settings: StaticSettings,
    tokenizer: Tokenizer,
    *,
    shortlist: bool,
    report: Callable[[str], None] = lambda line: None,
) -> StaticPlan:
    """Record activations on real text, smooth them, and choose bits and ranges.

    Raises:
        InputError: the calibration text or the buckets are of no use with this model.
        CheckpointError: the model has a part without static operators.
        ExportError: onnx-neural-compressor is missing, or an activation is NaN.
    """
    config = checkpoint.config
    sources = settings.fitting(config.max_position_embeddings)
    check_static_activation(config.activation_function)
    lines = read_lines(settings.calibration)
    products = groups(checkpoint)
    model = load_model(checkpoint)
    samples = make_samples(checkpoint, model, tokenizer, lines, report)
    recorded = record(checkpoint, model, products, samples)
    del model
    smoothed = checkpoint
    if settings.smooth:
        smoothed, recorded = smooth(checkpoint, products, recorded)
    chosen, sensitivity = choose(checkpoint, smoothed, products, recorded, samples, shortlist=shortlist, report=report)
    targets = tuple(min(2 * size + _MORE_STEPS, config.max_position_embeddings) for size in sources)
    bits = {name: product.bits for name, product in chosen.items()}
    variant = Variant(
        "static", sources, targets, FORMS, {str(n): list(bits.values()).count(n) for n in set(bits.values())}
    )
    return StaticPlan(smoothed, chosen, sensitivity, variant)


def static_graphs(
    plan: StaticPlan, model: ModelWriter, store: WeightStore, producer_version: str
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """File name and model of every static graph; their weights go to ``store``.

    Raises:
        ExportError: one would not be static.
    """
    variant = plan.variant
    for form in FORMS:
        writer = StaticWriter(model, plan.products, form)
        for source, target in zip(variant.source, variant.target, strict=True):
            name = static_file("encoder", form, source)
            graph = build_static_encoder(writer, Graph(name.removesuffix(".onnx"), store), source)
            yield name, to_model(graph, form, producer_version)
            name = static_file("decoder", form, source)
            graph = build_static_decoder(writer, Graph(name.removesuffix(".onnx"), store), source, target)
            yield name, to_model(graph, form, producer_version)


def parse_buckets(text: str | None) -> tuple[int, ...] | None:
    """``"32,64"`` as numbers.

    Raises:
        InputError: it is something else.
    """
    if text is None:
        return None
    try:
        found: Sequence[int] = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"buckets must be numbers with commas between, such as 32,64,128, not {text!r}") from None
    return tuple(found)
