"""Weights so large that numbers overflow, or that are no numbers: every kernel set does the same, or says the same."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from native import NativeError
from native_core import PACK, Core, Output
from native_files import FLOATS, NORM, UINT16, Made

MODELS: dict[str, dict[str, Any]] = {
    "relu": {"output_bias": True, "width": 20, "hidden": (40, 24)},
    "gelu": {"activation": 1, "pre_norm": True, "trained_positions": True, "renormalize": True, "bad": (0, 3)},
    "mish": {"activation": 10, "lexical": UINT16, "heads": (1, 2)},
}
VALUES = (1e10, 1e17, -3e38, 1e-30, float("inf"), float("nan"))


def damaged(maker: Made, weights: bytes, record: bytes, value: float) -> list[bytes]:
    """Weights with a factor on the scales, or on the values of floats, of a record and on its biases."""
    kind, rows, columns, _, values, scale, bias, step = struct.unpack("<4I3Q2I", record)[:8]
    spans = []
    if kind in (NORM, FLOATS):
        spans.append((values, rows * columns, 1))
    elif kind:
        spans.append((scale, rows, step))
    if kind and bias < 2**64 - 1:
        spans.append((bias, rows, 1))
    found = []
    for start, count, stride in spans:
        floats = np.frombuffer(weights, "<f4", (count - 1) * stride + 1, start).copy()
        with np.errstate(over="ignore", invalid="ignore"):
            floats[::stride] *= np.float32(value)
        found.append(weights[:start] + floats.tobytes() + weights[start + floats.nbytes :])
    return found


@pytest.mark.parametrize("name", MODELS)
def test_every_kernel_set_does_the_same(name: str, core: Core) -> None:
    """In every tensor by itself; both ends are reached: outputs, and the error."""
    maker = Made(**MODELS[name])
    native, weights = maker.files()
    ended: dict[bool, int] = {True: 0, False: 0}

    def translate(kernels: str, content: bytes) -> list[Output] | str:
        model = core.open_memory(native, content, kernels)
        try:
            found = [
                model.translate([[4, 5, 6, 0], [0]], max_length=6, beam_size=beams, alignment=1) for beams in (1, 2)
            ]
            return found[0] + found[1]
        except NativeError as error:
            assert error.status == PACK and "overflow" in str(error)
            return str(error)
        finally:
            model.close()

    assert "scalar" in core.kernels
    for index, record in enumerate(maker.records):
        for value in VALUES:
            for content in damaged(maker, weights, record, value):
                wanted = translate("scalar", content)
                ended[isinstance(wanted, str)] += 1
                for kernels in core.kernels:
                    assert translate(kernels, content) == wanted, (kernels, index, value)
    assert min(ended.values()) > 20


def test_a_context_works_after_an_overflow(core: Core) -> None:
    """One sentence has a token whose embedding overflows, another has not."""
    maker = Made(trained_positions=True, source=20, target=30)
    native, weights = maker.files()
    scale, step = struct.unpack("<4I3Q2I", maker.records[0])[5], struct.unpack("<4I3Q2I", maker.records[0])[7]
    at = scale + 4 * step * 7
    content = weights[:at] + struct.pack("<f", 1e38) + weights[at + 4 :]
    model = core.open_memory(native, content)
    with model.context() as context:
        wanted = context.translate([[4, 5, 0]])
        with pytest.raises(NativeError, match="overflow"):
            context.translate([[4, 5, 0], [7, 5, 0]])
        assert context.translate([[4, 5, 0]]) == wanted
    model.close()
