"""The tensors of a pack, as its graphs name them: where each lies in weights.bin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import onnx

from mobilenmt.export.native.tokenizer import NotExpressible
from mobilenmt.runtime.manifest import PackManifest

_GRAPHS = ("encoder", "decoder", "greedy", "batch", "translator")


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies in weights.bin."""

    offset: int
    shape: tuple[int, ...]


class Tensors:
    """The tensors that a pack's graphs read from weights.bin, by their names in the exporter."""

    def __init__(self, folder: Path, manifest: PackManifest) -> None:
        self._found: dict[str, Stored] = {}
        self.model = manifest.model
        self.factor = 1.0
        for stem in _GRAPHS:
            path = folder / f"{stem}.onnx"
            if path.is_file():
                self._collect(onnx.load(str(path), load_external_data=False).graph, "")

    def _collect(self, graph: onnx.GraphProto, prefix: str) -> None:
        for tensor in graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                where = {entry.key: entry.value for entry in tensor.external_data}
                stored = Stored(int(where.get("offset", 0)), tuple(tensor.dims))
                self._found.setdefault(tensor.name.removeprefix(prefix), stored)
            elif not tensor.dims and tensor.data_type == onnx.TensorProto.FLOAT:
                # Without a shortlist the graph multiplies embeddings by the square root of their width, if at all.
                value = float(onnx.numpy_helper.to_array(tensor))
                if math.isclose(value, math.sqrt(self.model.d_model), rel_tol=1e-6):
                    self.factor = value
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    self._collect(attribute.g, f"{attribute.g.name}.")

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def __getitem__(self, name: str) -> Stored:
        if name not in self._found:
            raise NotExpressible(f"its graphs have no tensor {name}")
        return self._found[name]

    def has_table(self, name: str) -> bool:
        """Whether a table goes by this name; tied ones go by the first one's."""
        return any(found == name or found.startswith(f"{name}.") for found in self._found)

    def first(self, *names: str) -> Stored:
        """The first of several names that is there."""
        return self[next((name for name in names if name in self), names[-1])]
