"""What is to be left: a shape given in words or in bytes, checked against the model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from mobilenmt.compression.core.errors import PruneError, RecipeError
from mobilenmt.compression.core.settings import from_mapping, shown
from mobilenmt.compression.pack.estimate import estimate_pack_bytes
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.export.checkpoint import MarianConfig

_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*(B|kB|KB|MB|GB)", re.ASCII)
_UNITS = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_NOT_PRUNED = ("activation_function", "max_position_embeddings")
_STEP = 16  # of widths: what kernels and blocks of weights like
_FFN_STEP = 64


def shape_of(config: MarianConfig) -> StudentShape:
    """The shape of a model. Raises PruneError if a student cannot have it."""
    try:
        values = {item.name: getattr(config, item.name) for item in fields(StudentShape)}
        return from_mapping(StudentShape, {**values, "activation_function": activation_of(config)}, "the model:")
    except RecipeError as error:
        raise PruneError(str(error)) from None


def activation_of(config: MarianConfig | StudentShape) -> str:
    """Name of a model's activation, as shapes have it: silu is another name of swish."""
    return "swish" if config.activation_function == "silu" else config.activation_function


def parse_target(text: str, config: MarianConfig, vocabulary: int) -> StudentShape:
    """The shape that ``d_model=192,encoder_layers=4`` or ``10MB`` asks of a model; what is not named stays.

    Args:
        text: keys of :class:`StudentShape`, or the size of the pack.
        config: the model's.
        vocabulary: pieces that will be left.

    Raises:
        PruneError: it is neither, or no part of the model, or nothing so small is possible.
    """
    whole = shape_of(config)
    if found := _BYTES.fullmatch(text.strip()):
        return shape_for_bytes(whole, vocabulary, int(float(found[1]) * _UNITS[found[2]]))
    changes: dict[str, Any] = {}
    numbers = [item.name for item in fields(StudentShape) if item.name not in _NOT_PRUNED]
    for item in text.split(","):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise PruneError(
                f"{shown(item)}: expected a shape, as in d_model=192,encoder_layers=4, or a size, as in 10MB"
            )
        if key not in numbers:
            raise PruneError(f"{shown(key)} is nothing that can be pruned; known: {', '.join(numbers)}")
        if not re.fullmatch(r"\d{1,9}", value, re.ASCII):
            raise PruneError(f"{key}: expected an integer, found {shown(value)}")
        if key in changes:
            raise PruneError(f"{key} is given twice")
        changes[key] = int(value)
    try:
        shape = replace(whole, **changes)
    except RecipeError as error:
        raise PruneError(str(error)) from None
    check_target(shape, config)
    return shape


def check_target(shape: StudentShape, config: MarianConfig | StudentShape) -> None:
    """PruneError unless the shape is a part of the model; every difference is named."""
    wrong = []
    for item in fields(StudentShape):
        wanted, there = getattr(shape, item.name), getattr(config, item.name)
        if item.name == "activation_function":
            if wanted != activation_of(config):
                wrong.append(f"{item.name} is {activation_of(config)}, {wanted} is wanted")
        elif item.name != "max_position_embeddings" and wanted > there:  # sinusoids are there for any
            wrong.append(f"{item.name} is {there}, {wanted} is wanted")
    if not wrong:
        for side in ("encoder", "decoder"):
            name = f"{side}_attention_heads"
            wanted, there = (one.d_model // getattr(one, name) for one in (shape, config))
            if wanted > there:
                least = -(-shape.d_model // there)
                wrong.append(
                    f"{getattr(shape, name)} {side} heads of a width of {shape.d_model} have {wanted} channels each, "
                    f"the model's have {there}: at least {least} heads are wanted"
                )
    if wrong:
        raise PruneError(f"the shape is no part of the model: {'; '.join(wrong)}")


def shape_for_bytes(whole: StudentShape, vocabulary: int, most: int) -> StudentShape:
    """A shape inside a model's whose INT8 pack (without a shortlist) takes ``most`` bytes at most.

    Of all widths, inner widths and depths on a grid, the largest among those that are easiest on the model: inner
    widths fall first, width and depth, which cost most, last. This is the place for a better planner.

    Raises PruneError if nothing is so small; it says how small the smallest is.
    """
    candidates = [(estimate_pack_bytes(shape, vocabulary), shape) for shape in _grid(whole)]
    fitting = [(size, shape) for size, shape in candidates if size <= most]
    if not fitting:
        least = min(size for size, _ in candidates)
        raise PruneError(
            f"{most:,} bytes are too few: the smallest shape in this model with {vocabulary:,} pieces gives a pack of "
            f"about {least:,}; a smaller vocabulary (--vocabulary) makes it smaller"
        )
    return min(fitting, key=lambda pair: (round(_distance(pair[1], whole), 1), -pair[0]))[1]


def _grid(whole: StudentShape) -> Iterator[StudentShape]:
    tried = set()
    for width in {whole.d_model, *range(_STEP, whole.d_model, _STEP)}:
        encoder_heads = _heads(width, whole.d_model, whole.encoder_attention_heads)
        decoder_heads = _heads(width, whole.d_model, whole.decoder_attention_heads)
        if encoder_heads is None or decoder_heads is None:
            continue
        for share in range(4, 17):
            inner = {
                side: _rounded(getattr(whole, f"{side}_ffn_dim") * share / 16, getattr(whole, f"{side}_ffn_dim"))
                for side in ("encoder", "decoder")
            }
            for encoder in range(1, whole.encoder_layers + 1):
                for decoder in range(1, whole.decoder_layers + 1):
                    shape = replace(
                        whole,
                        d_model=width,
                        encoder_layers=encoder,
                        decoder_layers=decoder,
                        encoder_attention_heads=encoder_heads,
                        decoder_attention_heads=decoder_heads,
                        encoder_ffn_dim=inner["encoder"],
                        decoder_ffn_dim=inner["decoder"],
                    )
                    if shape not in tried:
                        tried.add(shape)
                        yield shape


def _heads(width: int, whole: int, heads: int) -> int | None:
    """Most heads that a width can have, none of them wider than the model's."""
    size = whole // heads
    if width % size == 0:
        return width // size
    return heads if width % heads == 0 else None


def _rounded(value: float, whole: int) -> int:
    return min(whole, max(_FFN_STEP, round(value / _FFN_STEP) * _FFN_STEP))


def _distance(shape: StudentShape, whole: StudentShape) -> float:
    """How hard a shape is on a model, in shares of it that go; a layer counts more than as much width."""
    gone = {
        item.name: 1 - getattr(shape, item.name) / getattr(whole, item.name)
        for item in fields(StudentShape)
        if item.name not in _NOT_PRUNED
    }
    return float(
        8 * gone["d_model"] ** 2
        + gone["encoder_ffn_dim"] ** 2 / 2
        + gone["decoder_ffn_dim"] ** 2 / 2
        + 4 * gone["encoder_layers"] ** 2
        + 4 * gone["decoder_layers"] ** 2
    )
