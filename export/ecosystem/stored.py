"""The weights in a pack by name, and its matrices multiplied out.

This is the one place that knows how each form of a matrix lies in weights.bin (docs/pack-format.md): a form more is a
function more in ``_FORMS``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from mobilenmt.export.precision.blocks import ZERO_POINT
from mobilenmt.export.precision.int4 import unpack
from mobilenmt.runtime.errors import ExportError
from mobilenmt.runtime.onnx.ort import first_line
from mobilenmt.runtime.pack import Pack

Array = npt.NDArray[Any]
Stored = Mapping[str, Array]

TABLES = ("source_embedding", "target_embedding", "output_embedding")
_PARTS = r"\.int8\.rows|\.int4|\.multipliers|\.scale|\.scale\.blocks|\.bias"
_PART = re.compile(rf"((?:{'|'.join(TABLES)})(?:{_PARTS})?)\.(\d+)")
"""A table by the number of its rows, which some graphs read in part; translator.onnx reads all of them."""


def stored_weights(pack: Pack) -> dict[str, Array]:
    """Every weight of a pack by its name in weights.bin.

    Raises:
        ExportError: the pack is of format 1, whose weights have other names, or a graph cannot be read.
    """
    if pack.manifest.format_version < (2, 0):
        raise ExportError(f"{pack.path}: a pack of format 1; export its checkpoint again")
    path = pack.file("translator.onnx")  # what other graphs have beside it is for their kernels
    found: dict[str, Array] = {}
    try:
        for item in _initializers(onnx.load(str(path)).graph):
            name = item.name.removeprefix("phase.")
            part = _PART.fullmatch(name)
            found[part[1] if part else name] = numpy_helper.to_array(item)
    except Exception as error:  # protobuf, onnx and numpy each raise types of their own
        raise ExportError(f"{path}: cannot be read: {first_line(error)}") from None
    return found


def scaled_by_width(pack: Pack, width: int) -> bool:
    """Whether embeddings are multiplied by the square root of the model's width."""
    factor = np.float32(math.sqrt(width))
    model = onnx.load(str(pack.file("translator.onnx")), load_external_data=False)
    scalars = {item.name for item in model.graph.initializer if not item.dims and _float(item) == factor}
    return any(node.op_type == "Mul" and scalars.intersection(node.input) for node in model.graph.node)


def matrix(stored: Stored, name: str, rows: int, columns: int) -> Array:
    """A matrix or a table in fp32 [rows, columns].

    Raises:
        ExportError: the pack has no such matrix, or in a form or a shape that is not known here.
    """
    for form in _FORMS:
        values = form(stored, name, columns)
        if values is None:
            continue
        if values.shape != (rows, columns):
            break
        return np.ascontiguousarray(values, np.float32)
    raise ExportError(f"weights.bin has no matrix {name} [{rows}, {columns}] in a form that is known here")


def _float32(stored: Stored, name: str, columns: int) -> Array | None:
    return stored.get(name)


def _int8(stored: Stored, name: str, columns: int) -> Array | None:
    """Columns (the encoder's), or rows (a table's with a shortlist)."""
    values = stored.get(f"{name}.int8")
    if values is None:
        return None
    scaled: Array = (values if name in TABLES else values.T) * stored[f"{name}.scale"][:, None]
    return scaled


def _int8_blocks(stored: Stored, name: str, columns: int) -> Array | None:
    """Rows in blocks (the decoder's, a table's without a shortlist, all of 8 bits), the last one filled up."""
    blocks = stored.get(f"{name}.int8.rows", stored.get(f"{name}.int8.table"))
    if blocks is None:
        return None
    values = (blocks.astype(np.float32) - ZERO_POINT).reshape(len(blocks), -1)[:, :columns]
    scale = stored[f"{name}.scale"] if f"{name}.scale" in stored else stored[f"{name}.scale.blocks"][:, 0]
    scaled: Array = values * scale[:, None]
    return scaled


def _int4(stored: Stored, name: str, columns: int) -> Array | None:
    """4 bits in blocks with a multiplier each, the last one filled up."""
    packed = stored.get(f"{name}.int4", stored.get(f"{name}.int4.table"))
    if packed is None:
        return None
    multipliers = stored[f"{name}.multipliers"]
    values = unpack(packed.reshape(*multipliers.shape, -1)) * multipliers[:, :, None].astype(np.int8)
    scaled: Array = values.reshape(len(values), -1)[:, :columns].astype(np.float32) * stored[f"{name}.scale"][:, None]
    return scaled


_FORMS: tuple[Callable[[Stored, str, int], Array | None], ...] = (_float32, _int8, _int8_blocks, _int4)
"""Each gives fp32 [rows, columns], or None where the matrix has another form."""


def _initializers(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _initializers(attribute.g)


def _float(item: onnx.TensorProto) -> np.float32 | None:
    return np.float32(numpy_helper.to_array(item)) if item.data_type == onnx.TensorProto.FLOAT else None
