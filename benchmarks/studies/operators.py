"""Microseconds of single operators of ONNX Runtime, one thread: what the engine's choices rest on.

    python -m benchmarks.studies.operators [--only matrix norm attention candidates loop] [--width 256] [--repeat 60]

Each figure is the best of ``--repeat`` runs of a graph that holds the operator many times, with weights of its own each
time, divided by their number. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

_RANDOM = np.random.default_rng(0)
Node = Callable[[int], tuple[list[onnx.NodeProto], dict[str, Any]]]


def floats(*shape: int) -> Any:
    """Random fp32."""
    return _RANDOM.standard_normal(shape).astype(np.float32)


def measure(node: Node, feeds: dict[str, Any], copies: int, repeat: int) -> float:
    """Microseconds of one of ``copies`` nodes; each writes ``y<number>``."""
    nodes, initializers = [], []
    for number in range(copies):
        made, weights = node(number)
        nodes += made
        initializers += [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feeds.items()
    ]
    last = helper.make_tensor_value_info(f"y{copies - 1}", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "operators", inputs, [last], initializers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        session.run(None, feeds)
        best = min(best, time.perf_counter() - start)
    return best / copies * 1e6


def blockwise(columns: int, rows: int) -> Node:
    """MatMulNBits, 8 bits, blocks of 128."""

    def node(number: int) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
        stored = _RANDOM.integers(1, 255, (rows, columns // 128, 128), dtype=np.uint8)
        names = [f"w{number}", f"s{number}"]
        settings = {"K": columns, "N": rows, "bits": 8, "block_size": 128, "accuracy_level": 4}
        made = helper.make_node("MatMulNBits", ["x", *names], [f"y{number}"], domain="com.microsoft", **settings)
        return [made], dict(zip(names, (stored, floats(rows, columns // 128)), strict=True))

    return node


def dynamic(columns: int, rows: int, kind: type = np.int8) -> Node:
    """DynamicQuantizeMatMul, one scale an output; int8, or uint8 with a zero point."""

    def node(number: int) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
        values = {f"w{number}": _RANDOM.integers(1, 127, (columns, rows)).astype(kind), f"s{number}": floats(rows)}
        if kind is np.uint8:
            values[f"z{number}"] = np.full(rows, 128, np.uint8)
        made = helper.make_node("DynamicQuantizeMatMul", ["x", *values], [f"y{number}"], domain="com.microsoft")
        return [made], values

    return node


def plain(operator: str, *inputs: str, domain: str = "", outputs: int = 1, **more: Any) -> Node:
    """Any node without weights of its own; its first output is ``y<number>``."""

    def node(number: int) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
        names = [f"y{number}", *(f"y{number}_{index}" for index in range(1, outputs))]
        return [helper.make_node(operator, list(inputs), names, domain=domain, **more)], {}

    return node


def matrix(width: int, repeat: int) -> str:
    """Kernels for a matrix by the rows that it meets."""
    shapes = ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width))
    lines = []
    for rows in (1, 4, 30):
        for name, kernel in (
            ("MatMulNBits", blockwise),
            ("DynamicQuantizeMatMul int8", dynamic),
            ("DynamicQuantizeMatMul uint8", lambda k, n: dynamic(k, n, np.uint8)),
        ):
            found = [measure(kernel(k, n), {"x": floats(1, rows, k)}, 40, repeat) for k, n in shapes]
            lines.append([name, str(rows), *(f"{value:.1f}" for value in found)])
    return _table(["kernel", "rows", *(f"{k} x {n}" for k, n in shapes)], lines)


def norm(width: int, repeat: int) -> str:
    """The fused residual and norm against two nodes."""
    lines = []
    for rows in (1, 30):
        feeds = {"x": floats(1, rows, width), "z": floats(1, rows, width), "g": floats(width), "b": floats(width)}
        fused = plain("SkipLayerNormalization", "x", "z", "g", "b", domain="com.microsoft", epsilon=1e-5)
        alone = plain("LayerNormalization", "x", "g", "b", epsilon=1e-5)
        single = {name: feeds[name] for name in ("x", "g", "b")}
        parts = [
            measure(fused, feeds, 40, repeat),
            measure(plain("Add", "x", "z"), {name: feeds[name] for name in ("x", "z")}, 40, repeat)
            + measure(alone, single, 40, repeat),
        ]
        lines.append([str(rows), *(f"{value:.1f}" for value in parts)])
    return _table(["rows", "SkipLayerNormalization", "Add and LayerNormalization"], lines)


def attention(width: int, repeat: int) -> str:
    """Self-attention of one new token, 4 heads: projections split first, or taken as they come."""
    lines = []
    for past in (1, 15, 29):
        cache = {"k": floats(1, 4, past, width // 4), "v": floats(1, 4, past, width // 4)}

        def split(number: int) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
            parts = [f"{part}{number}" for part in ("q_", "k_", "v_")]
            inputs = [*parts, "", "", "", "k", "v"]
            outputs = [f"y{number}", f"pk{number}", f"pv{number}"]
            return [
                helper.make_node("Split", ["x"], parts, axis=-1, num_outputs=3),
                helper.make_node("MultiHeadAttention", inputs, outputs, domain="com.microsoft", num_heads=4),
            ], {}

        inputs = ("x", "", "", "k", "v", "before", "after")
        heads = {"num_heads": 4, "kv_num_heads": 4}
        grouped = plain("GroupQueryAttention", *inputs, domain="com.microsoft", outputs=3, **heads)
        counts = {"before": np.array([past], np.int32), "after": np.array(past + 1, np.int32)}
        feeds = {"x": floats(1, 1, 3 * width), **cache}
        found = [measure(split, feeds, 40, repeat), measure(grouped, {**feeds, **counts}, 40, repeat)]
        lines.append([str(past), *(f"{value:.1f}" for value in found)])
    return _table(["tokens before", "Split and MultiHeadAttention", "GroupQueryAttention"], lines)


def candidates(width: int, repeat: int) -> str:
    """The output layer: all 8,000 tokens, or candidates gathered for the sentence."""
    lines = []
    for rows in (1, 4):
        x = {"x": floats(1, rows, width)}
        lines.append(["MatMulNBits", "8000", str(rows), f"{measure(blockwise(width, 8000), x, 8, repeat):.1f}"])
        for count in (500, 1000):
            fp32 = plain("FusedMatMul", "x", "w", domain="com.microsoft", transB=1)
            feeds = {**x, "w": floats(count, width)}
            lines.append(["fp32 rows", str(count), str(rows), f"{measure(fp32, feeds, 10, repeat):.1f}"])
            stored = _RANDOM.integers(1, 255, (width, count), dtype=np.uint8)
            feeds = {**x, "w": stored, "s": floats(count), "z": np.full(count, 128, np.uint8)}
            uint8 = plain("DynamicQuantizeMatMul", "x", "w", "s", "z", domain="com.microsoft")
            lines.append(["uint8 columns", str(count), str(rows), f"{measure(uint8, feeds, 10, repeat):.1f}"])
    return _table(["output layer", "tokens", "rows", "us"], lines)


def loop(width: int, repeat: int) -> str:
    """What a node and a step of a Loop cost by themselves: Add of one row, in a body that carries six values."""

    def step(nodes: int) -> float:
        kind = onnx.TensorProto.FLOAT
        names = [f"s{index}" for index in range(6)]
        body = [helper.make_node("Identity", ["go"], ["on"])]
        body += [helper.make_node("Add", [name, "one"], [f"{name}_"]) for name in names]
        chain = ["x", *(f"n{index}" for index in range(nodes))]
        body += [helper.make_node("Add", [a, "one"], [b]) for a, b in itertools.pairwise(chain)]
        inputs = [
            helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
            *(helper.make_tensor_value_info(name, kind, None) for name in names),
        ]
        outputs = [
            helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, []),
            *(helper.make_tensor_value_info(f"{name}_", kind, None) for name in names),
            helper.make_tensor_value_info(chain[-1], kind, None),
        ]
        inner = helper.make_graph(body, "body", inputs, outputs)

        def node(number: int) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
            results = [*(f"{name}{number}" for name in names), f"y{number}"]
            made = helper.make_node("Loop", ["steps", "yes", *(["x"] * 6)], results, body=inner)
            return [made], {"steps": np.array(100), "yes": np.array(True), "one": np.float32(1)}

        return measure(node, {"x": floats(1, 1, width)}, 1, repeat) / 100

    base, more = step(1), step(51)
    return _table(["a step of a loop, us", "a node in it, us"], [[f"{base:.1f}", f"{(more - base) / 50:.2f}"]])


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


TABLES = {"matrix": matrix, "norm": norm, "attention": attention, "candidates": candidates, "loop": loop}


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=60)
    options = parser.parse_args()
    for name in options.only:
        function = TABLES[name]
        print(f"{(function.__doc__ or '').strip()}\n\n{function(options.width, options.repeat)}", flush=True)


if __name__ == "__main__":
    main()
