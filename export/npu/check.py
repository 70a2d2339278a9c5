"""How much of a pack's static graphs each provider would take: by ONNX Runtime's checker, and by our tables.

The graphs are looked at as a provider gets them: after ONNX Runtime has computed once what follows from weights alone.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from mobilenmt.export.npu.tables import NAMES, Table, Values, load_table
from mobilenmt.runtime.errors import ExportError, InputError
from mobilenmt.runtime.onnx.ort import first_line, load_onnxruntime
from mobilenmt.runtime.pack import Pack
from mobilenmt.runtime.sections import Variant, static_file

PARTS = ("encoder", "decoder")
_INLINE = 1024  # bytes: shapes must stay in the graph


@dataclass(frozen=True)
class Verdict:
    """What one checker says of one graph and one provider."""

    graph: str
    provider: str
    checker: str
    nodes: int
    taken: int
    partitions: int
    on_cpu: dict[str, int]
    """Operator, and why it stays on the CPU -> nodes."""

    def line(self) -> str:
        """For people."""
        left = "; ".join(f"{count} {what}" for what, count in self.on_cpu.items())
        return (
            f"{self.graph}: {self.provider} by {self.checker}: {self.taken} of {self.nodes} nodes in "
            f"{self.partitions} partition{'s' * (self.partitions != 1)}" + (f"; on the CPU {left}" if left else "")
        )

    def to_dict(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def check_pack(pack: Pack, tables: Sequence[str] = NAMES, buckets: Sequence[int] | None = None) -> Iterator[Verdict]:
    """A verdict for every graph, provider and checker.

    Raises:
        InputError: the pack has no static graphs, or not those of a bucket, or there is no such table.
        ExportError: a graph cannot be opened.
    """
    variant = pack.manifest.variant
    if variant is None:
        raise InputError(f"{pack.path}: the pack has no static graphs; mobilenmt export --target npu writes them")
    for size in buckets or ():
        if size not in variant.source:
            raise InputError(f"{pack.path}: there are no graphs for {size} tokens, but for {_list(variant.source)}")
    chosen = [load_table(name) for name in tables]
    for source in buckets or variant.source:
        for form in variant.forms:
            readers = [table for table in chosen if table.form == form]
            for part in PARTS if readers else ():
                name = static_file(part, form, source)
                yield from _check_graph(pack, variant, name, readers)


def _check_graph(pack: Pack, variant: Variant, name: str, tables: Sequence[Table]) -> Iterator[Verdict]:
    graph = opened(pack.file(name), fold=".float." in name)
    (opset,) = [item.version for item in onnx.load(pack.file(name), load_external_data=False).opset_import]
    for table in tables:
        if opset > table.opset:
            raise ExportError(f"{name}: operator set {opset} is newer than {table.name} takes, {table.opset}")
        own = _ours(name, graph, table)
        theirs = _onnx_runtimes(name, graph, table)
        yield from (item for item in (theirs, own) if item is not None)


def opened(path: Path, *, fold: bool) -> onnx.GraphProto:
    """A graph after ONNX Runtime's basic optimizations, with the shapes of its values; ``fold`` as the providers of the
    form ``float`` get it."""
    ort = load_onnxruntime()
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.optimized_model_filepath = str(Path(folder) / path.name)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        entry = "session.optimized_model_external_initializers_min_size_in_bytes"
        options.add_session_config_entry(entry, str(_INLINE))
        if fold:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            model = onnx.load(options.optimized_model_filepath, load_external_data=False)
            return onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        except Exception as error:  # onnxruntime raises many types of its own
            raise ExportError(f"{path}: ONNX Runtime {ort.__version__} cannot open it: {first_line(error)}") from error


def _ours(name: str, graph: onnx.GraphProto, table: Table) -> Verdict:
    from onnxruntime.tools.mobile_helpers.usability_checker import check_partitioning

    values = Values(graph)
    reasons: Counter[str] = Counter()
    refused: dict[str, bool] = {}

    class Checker:
        """What check_partitioning asks."""

        def is_op_supported(self, node: onnx.NodeProto) -> bool:
            reason = table.refusal(node, values)
            if node.name not in refused:
                refused[node.name] = reason is not None
                if reason is not None:
                    reasons[f"{node.op_type} ({reason})"] += 1
            return reason is None

    info = check_partitioning(graph, Checker(), True, table.rank)
    return Verdict(
        name, table.name, "our table", info.num_nodes, info.num_supported_nodes, info.num_partitions, dict(reasons)
    )


def _onnx_runtimes(name: str, graph: onnx.GraphProto, table: Table) -> Verdict | None:
    """The mobile usability checker's, which knows two of the providers."""
    from onnxruntime.tools.mobile_helpers import usability_checker as checker

    model = onnx.ModelProto(graph=graph)
    if table.provider == "NnapiExecutionProvider":
        info = checker.check_nnapi_partitions(model, True)
    elif table.provider == "CoreMLExecutionProvider":
        info = checker.check_coreml_partitions(model, True, "coreml_supported_mlprogram_ops.md")
    else:
        return None
    left = Counter(node.op_type for node in graph.node if f"ai.onnx:{node.op_type}" in info.unsupported_ops)
    return Verdict(
        name,
        table.name,
        "ONNX Runtime's checker",
        info.num_nodes,
        info.num_supported_nodes,
        info.num_partitions,
        {f"{operator} (not in its list)": count for operator, count in left.items()},
    )


def _list(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
