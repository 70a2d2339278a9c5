"""weights.bin: every weight of a pack once, referred to by all its graphs as external data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

Array = npt.NDArray[Any]

WEIGHTS_FILE = "weights.bin"
_ALIGNMENT = 64  # a cache line; ONNX Runtime maps the enclosing pages itself


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies in weights.bin (``offset`` and ``nbytes`` in bytes) and how a graph reads it."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    nbytes: int

    def proto(self) -> onnx.TensorProto:
        """The ONNX initializer that points at this tensor's bytes."""
        tensor = onnx.TensorProto()
        tensor.name = self.name
        tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(self.dtype)
        tensor.dims.extend(self.shape)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", WEIGHTS_FILE), ("offset", str(self.offset)), ("length", str(self.nbytes))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
        return tensor


class WeightStore:
    """Collects tensors by name while graphs are built; a name added twice must mean the same bytes."""

    def __init__(self) -> None:
        self._tensors: dict[str, StoredTensor] = {}
        self._chunks: list[Array] = []
        self._by_bytes: dict[bytes, int] = {}
        self._size = 0

    def __getitem__(self, name: str) -> StoredTensor:
        return self._tensors[name]

    def add(self, name: str, array: Array) -> StoredTensor:
        """Store ``array`` under ``name``; equal bytes are stored once, whatever their names and shapes."""
        if name in self._tensors:
            return self._tensors[name]
        array = np.ascontiguousarray(array)
        key = hashlib.sha256(array.data).digest()
        offset = self._by_bytes.get(key)
        if offset is None:
            offset = -(-self._size // _ALIGNMENT) * _ALIGNMENT
            self._by_bytes[key] = offset
            self._chunks.append(array)
            self._size = offset + array.nbytes
        stored = StoredTensor(name, array.shape, array.dtype, offset, array.nbytes)
        self._tensors[name] = stored
        return stored

    def rows(self, name: str, of: str, count: int) -> StoredTensor:
        """Name the first ``count`` rows of the tensor ``of``: other graphs may want fewer of the same bytes."""
        whole = self._tensors[of]
        part = StoredTensor(
            name, (count, *whole.shape[1:]), whole.dtype, whole.offset, whole.nbytes // whole.shape[0] * count
        )
        return self._tensors.setdefault(name, part)

    @property
    def nbytes(self) -> int:
        """Size of weights.bin."""
        return self._size

    def write(self, path: Path) -> None:
        """Write weights.bin: little-endian, each tensor at a multiple of 64 bytes."""
        with path.open("wb") as file:
            for array in self._chunks:
                file.write(b"\0" * (-file.tell() % _ALIGNMENT))
                file.write(array.tobytes())
