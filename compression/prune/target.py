"""What is to be left: a shape given in words or in bytes, checked against the model."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from mobilenmt.compression.core.errors import PruneError, RecipeError
from mobilenmt.compression.core.settings import from_mapping, shown
from mobilenmt.compression.plan.command import shape_for_bytes
from mobilenmt.compression.plan.units import parse_bytes
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.export.checkpoint import MarianConfig

_NOT_PRUNED = ("activation_function", "max_position_embeddings")


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


def parse_target(text: str, config: MarianConfig, vocabulary: int, tokenizer: Path | None = None) -> StudentShape:
    """The shape that ``d_model=192,encoder_layers=4`` or ``10MB`` asks of a model; what is not named stays.

    Args:
        text: keys of :class:`StudentShape`, or the size of the pack.
        config: the model's.
        vocabulary: pieces that will be left.
        tokenizer: folder of their tokenizer, so that a size counts it.

    Raises:
        CheckpointError: the tokenizer will not do.
        PruneError: it is neither, or no part of the model.
        PlanError: it is no size, or nothing so small is possible.
    """
    whole = shape_of(config)
    if re.match(r"\s*[\d.]", text, re.ASCII):
        return shape_for_bytes(whole, vocabulary, parse_bytes(text, "the size of the pack"), tokenizer=tokenizer)
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
