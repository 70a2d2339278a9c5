"""The floor: bytes of weights that a token needs, over the bytes a second that one core can read."""

from __future__ import annotations

import json
import math
import statistics
import time
import timeit
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engines.base import SPECS
from benchmarks.harness.bench import Bench
from benchmarks.harness.worker import pinned

_WORKING_SETS = (1 << 20, 8 << 20, 256 << 20)
_SECONDS = 0.5
_BYTES = {"int8": 1, "fp32": 4}
_ROWS_ONLY = ("Gather", "GatherBlockQuantized")


def roofline(bench: Bench) -> dict[str, Any]:
    """Weight bytes a token of every engine, read bandwidth by size of the data, and the time that this allows."""
    rows = []
    with pinned(bench.settings.pinned(1)):
        bandwidth = {str(size): read_bandwidth(size) for size in _WORKING_SETS}
    for name, path in bench.paths(tuple(SPECS)).items():
        source = "dimensions"
        if SPECS[name].ours:
            # greedy.onnx; candidates of a shortlist, gathered for each sentence (0.2 MB), come on top
            needed, source = graph_bytes(path / "greedy.onnx"), "graph"
        elif name.startswith("big"):
            needed = dimension_bytes(path / "config.json", 4)
        else:
            needed = dimension_bytes(bench.settings.checkpoint / "config.json", _BYTES[name.rpartition("-")[2]])
        size = min(_WORKING_SETS, key=lambda size: abs(np.log(size / needed)))
        rows.append(
            {
                "engine": name,
                "weight bytes a token": needed,
                "from": source,
                "working set": size,
                "floor seconds a token": needed / bandwidth[str(size)],
            }
        )
    return {"rows": rows, "bytes a second": bandwidth}


def read_bandwidth(size: int) -> float:
    """Bytes a second at which one thread reads ``size`` bytes again and again: the dot product of an array with itself.

    8 MB fit the caches of most processors, as a model of that size does between two steps; 256 MB fit none.
    """
    data = np.ones(size // 4, np.float32)
    timer = timeit.Timer(lambda: np.dot(data, data))
    rounds = max(1, (64 << 20) // size)
    samples: list[float] = []
    end = time.perf_counter() + _SECONDS
    while not samples or time.perf_counter() < end:
        samples.append(timer.timeit(rounds) / rounds)
    return size / statistics.median(samples)


def dimension_bytes(config_json: Path, each: int) -> int:
    """Bytes of the matrices that one decoder step multiplies with, from a Marian configuration.

    A layer has four square matrices of self-attention, two of cross-attention (keys and values are made once a
    sentence) and two of the feed-forward part; then comes the output layer.
    """
    config = json.loads(config_json.read_text(encoding="utf-8"))
    width, vocabulary = config["d_model"], config.get("decoder_vocab_size") or config["vocab_size"]
    layer = 6 * width * width + 2 * width * config["decoder_ffn_dim"]
    return int(each * (config["decoder_layers"] * layer + width * vocabulary))


def graph_bytes(model: Path) -> int:
    """Bytes of the initializers that the nodes inside the graph's loop read, each once; of a gathered one, one row."""
    import onnx

    needed: dict[str, int] = {}
    _collect(onnx.load(str(model), load_external_data=False).graph, {}, False, needed)
    return sum(needed.values())


def _collect(graph: Any, outer: dict[str, Any], inside: bool, needed: dict[str, int]) -> None:
    """Add what the nodes of a graph read to ``needed``, if it stands ``inside`` a loop, and what its subgraphs do."""
    from onnx.helper import tensor_dtype_to_np_dtype

    known = outer | {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for position, name in enumerate(node.input):
            if inside and name in known:
                tensor = known[name]
                rows = tensor.dims[0] if position == 0 and node.op_type in _ROWS_ONLY and tensor.dims else 1
                size = math.prod(tensor.dims) * tensor_dtype_to_np_dtype(tensor.data_type).itemsize
                needed[name] = max(needed.get(name, 0), size // max(1, rows))
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _collect(attribute.g, known, inside or node.op_type == "Loop", needed)
