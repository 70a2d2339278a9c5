"""Rows of the output layer that a shortlist leaves out: encoder.onnx hands over those of its candidates alone."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobilenmt.runtime.onnx.rows import Array

_OUTPUT = 2  # the number of its record in native.bin
_SIGNED, _BIASED = 3, 2  # kinds of records: int8, and uint8 with zero point 128
_NO_BIAS = 2**64 - 1


@dataclass(frozen=True)
class OutputLayer:
    """The output layer of an INT8 pack, as docs/core/native-format.md says where it lies in weights.bin.

    ``values`` int8 [V, D], ``scale`` fp32 [V], ``bias`` fp32 [V] or None.
    """

    values: Array
    scale: Array
    bias: Array | None

    @classmethod
    def read(cls, folder: Path) -> OutputLayer | None:
        """That of a pack; None where no native.bin tells of it."""
        try:
            native = (folder / "native.bin").read_bytes()
            (records,) = struct.unpack_from("<I", native, 96)
            kind, count, columns, stride, values, scale, bias, step = struct.unpack_from(
                "<4I3QI", native, records + 48 * _OUTPUT
            )
            if kind not in (_SIGNED, _BIASED):
                return None
            weights = np.memmap(folder / "weights.bin", np.uint8, "r")
            rows: Array = np.ndarray((count, columns), np.uint8, weights, values, (stride, 1))
            return cls(
                (rows ^ np.uint8(0x80 if kind == _BIASED else 0)).view(np.int8),
                np.ndarray((count,), "<f4", weights, scale, (4 * step,)).copy(),
                None if bias == _NO_BIAS else np.ndarray((count,), "<f4", weights, bias).copy(),
            )
        except (OSError, ValueError, TypeError, struct.error):
            return None

    def add(
        self, fixed: Mapping[str, Array], candidates: Array, tokens: Sequence[int]
    ) -> tuple[dict[str, Array], Array]:
        """What encoder.onnx gave, and the candidates, with the rows of ``tokens`` among them.

        Nothing is added where the rows there are not those of this layer.
        """
        new = np.setdiff1d(np.array(tokens, np.int64), candidates)
        names = "candidate_columns", "candidate_scale"
        values, scale = self.values, self.scale
        if not len(new) or not set(names) <= set(fixed):
            return dict(fixed), candidates
        columns = fixed[names[0]]
        if not (np.array_equal(columns.T, values[candidates]) and np.array_equal(fixed[names[1]], scale[candidates])):
            return dict(fixed), candidates
        more = {names[0]: values[new].T, names[1]: scale[new]}
        if "candidate_offset" in fixed:
            # the bias, less what a shift of the input comes to, which the candidates tell
            sums = scale * values.sum(axis=1, dtype=np.int32)
            bias = np.zeros(len(scale), np.float32) if self.bias is None else self.bias
            known = candidates[np.abs(sums[candidates]).argmax()]
            place = int(np.flatnonzero(candidates == known)[0])
            shift = (bias[known] - fixed["candidate_offset"][place]) / (sums[known] or 1)
            more["candidate_offset"] = (bias[new] - shift * sums[new]).astype(np.float32)
        grown = {name: np.concatenate([fixed[name], value], axis=-1) for name, value in more.items()}
        return {**fixed, **grown}, np.concatenate([candidates, new])
