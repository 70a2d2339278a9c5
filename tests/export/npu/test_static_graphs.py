"""Static graphs: standard operators, fixed shapes, weights stored once, and what they compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from mobilenmt.export.checkpoint import load_checkpoint
from mobilenmt.export.export import export
from mobilenmt.export.graph import FLOAT, Graph
from mobilenmt.export.layers import ModelWriter
from mobilenmt.export.npu.groups import Group, groups
from mobilenmt.export.npu.plan import StaticSettings, parse_buckets
from mobilenmt.export.npu.ranges import Range
from mobilenmt.export.npu.recording import Sample, load_model, run, with_tensors
from mobilenmt.export.npu.sensitivity import Product, quantized
from mobilenmt.export.npu.verify import static_logits
from mobilenmt.export.npu.writer import StaticWriter, check_static, to_model
from mobilenmt.export.precision.int8 import Int8
from mobilenmt.export.quantize.quantizer import Quantizer
from mobilenmt.export.quantize.settings import Quantization
from mobilenmt.export.shortlist import Shortlist
from mobilenmt.export.weights import WeightStore
from mobilenmt.runtime.errors import CheckpointError, ExportError, InputError
from mobilenmt.runtime.onnx.static.host import Bucket
from mobilenmt.runtime.onnx.static.providers import REFERENCE
from mobilenmt.runtime.pack import Pack
from tiny_models import WORDS, encode, make_checkpoint, write_calibration

STANDARD = {name for name in onnx.defs.get_all_schemas() for name in [name.name] if name}


def graphs(pack: Path) -> dict[str, onnx.ModelProto]:
    return {path.name: onnx.load(path, load_external_data=False) for path in sorted(pack.glob("static-*.onnx"))}


def test_all_graphs_have_standard_operators_and_fixed_shapes_alone(static_pack: Path) -> None:
    found = graphs(static_pack)
    assert len(found) == 2 * 2 * 2  # parts, forms, buckets
    for name, model in found.items():
        assert {item.domain for item in model.opset_import} == {""}, name
        assert model.opset_import[0].version == (19 if ".float." in name else 21)
        assert {node.domain for node in model.graph.node} == {""}
        assert {node.op_type for node in model.graph.node} <= STANDARD
        assert not any(item.HasField("g") for node in model.graph.node for item in node.attribute)
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        shapes = {item.name: item.type.tensor_type.shape.dim for item in (*inferred.value_info, *inferred.output)}
        for value in (value for node in model.graph.node for value in node.output):
            assert all(dim.dim_value > 0 for dim in shapes[value]), (name, value)


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda graph: graph.op("MatMulNBits", "x", "x", "x", K=4, N=4, bits=8, block_size=16), "outside ONNX's own"),
        (lambda graph: graph.op("NonZero", "x"), "not fixed"),
    ],
)
def test_another_graph_is_refused(build: object, complaint: str) -> None:
    graph = Graph("wrong", WeightStore())
    graph.input("x", FLOAT, [4, 4])
    graph.output(build(graph), 0)  # type: ignore[operator]
    with pytest.raises(ExportError, match=complaint):
        check_static(onnx.helper.make_model(graph.to_graph(), opset_imports=[onnx.helper.make_opsetid("", 21)]))


def test_weights_lie_where_those_of_the_cpu_lie(static_pack: Path) -> None:
    def places(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
        return {
            item.name: tuple(entry.value for entry in item.external_data if entry.key != "location")
            for item in model.graph.initializer
            if item.external_data
        }

    def all_graphs(model: onnx.GraphProto) -> list[onnx.GraphProto]:
        inner = [item.g for node in model.node for item in node.attribute if item.HasField("g")]
        return [model, *(found for graph in inner for found in all_graphs(graph))]

    cpu = set()
    for name in ("encoder", "decoder", "greedy"):
        model = onnx.load(static_pack / f"{name}.onnx", load_external_data=False)
        for graph in all_graphs(model.graph):
            for item in graph.initializer:
                cpu.add(tuple(entry.value for entry in item.external_data if entry.key != "location"))
    for name, model in graphs(static_pack).items():
        matrices = [item for item in model.graph.initializer if item.data_type in (2, 3) and item.external_data]
        assert len(matrices) > 8
        assert {places(model)[item.name] for item in matrices} <= cpu, name


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("wide", [True, False])
def test_a_product_is_what_integers_give(tiny_checkpoint: Path, tmp_path: Path, bits: int, wide: bool) -> None:
    """Against integer arithmetic in numpy: activations, weights, bias and result are whole numbers."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    group = Group(("model.decoder.layers.0.fc2",), wide)
    read, given = Range(-1.1, 3.0, bits), Range(-2.0, 2.5, bits)
    store = WeightStore()
    writer = StaticWriter(
        ModelWriter(checkpoint, Int8(Quantizer(Quantization()))), {group.name: Product(read, given)}, "qdq"
    )
    graph = Graph("product", store)
    x = graph.input("x", FLOAT, [5, 64])
    graph.output(writer.linear(graph, x, group), FLOAT, [5, 32])
    (tmp_path / "product.onnx").write_bytes(to_model(graph, "qdq", "0").SerializeToString())
    store.write(tmp_path / "weights.bin")
    values = numbers(1, 5, 64)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (found,) = onnxruntime.InferenceSession(str(tmp_path / "product.onnx"), options).run(None, {"x": values})

    weight, scales = group.rounded(checkpoint, shortlist=False)
    most = 2**bits - 1
    whole = np.clip(np.rint(values / np.float32(read.scale)) + read.zero_point, 0, most).astype(np.int64)
    steps = (read.scale * scales).astype(np.float64)
    bias = np.rint(checkpoint["model.decoder.layers.0.fc2.bias"] / steps).astype(np.int64)
    sums = (whole - read.zero_point) @ weight.T.astype(np.int64) + bias
    result = np.clip(np.rint(sums * steps / given.scale) + given.zero_point, 0, most)
    expected = (result - given.zero_point) * given.scale
    assert np.abs(found - expected).max() <= given.scale * 1.01  # a tie may fall to either side
    assert np.abs(found - expected).mean() < given.scale * 0.02
    assert np.abs(weight).max() == 63
    assert found.std() > 10 * given.scale


def rounded_model(pack: Path, checkpoint_path: Path) -> tuple[object, object]:
    """The checkpoint in torch, all its weights rounded, as a model without smoothing has them."""
    checkpoint = load_checkpoint(checkpoint_path)
    changed, table = {}, None
    for group in groups(checkpoint):
        values, scales = group.rounded(checkpoint, shortlist=False)
        rows = values * scales[:, None]
        if group.name == "output":
            table = rows
            continue
        changed.update(
            {f"{name}.weight": part for name, part in zip(group.names, np.split(rows, len(group.names)), strict=True)}
        )
    model = load_model(with_tensors(checkpoint, changed))
    with torch.no_grad():
        model.model.shared.weight.copy_(torch.from_numpy(table))
    return checkpoint, model


@pytest.fixture(scope="module")
def rough_pack(tiny_checkpoint: Path, calibration: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without smoothing, so that its weights are the checkpoint's."""
    out = tmp_path_factory.mktemp("rough") / "en-de"
    return export(tiny_checkpoint, out, static=StaticSettings(calibration, (16, 32), smooth=False)).path


def a_sample(pack: Pack, words: int) -> Sample:
    (ids,) = encode(pack, [" ".join(WORDS[3 : 3 + words])])
    tokens = pack.manifest.tokens
    return Sample((*ids, tokens.eos), (tokens.start, *ids[:10]))


@pytest.mark.parametrize("index", [0, 1])
def test_unrounded_activations_give_what_torch_gives(rough_pack: Path, tiny_checkpoint: Path, index: int) -> None:
    pack = Pack.open(rough_pack)
    _, model = rounded_model(rough_pack, tiny_checkpoint)
    sample = a_sample(pack, 9)
    wanted = run(model, sample)
    found = static_logits(pack, pack.manifest.variant, index, "float", sample)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < 1e-4 * wanted.std()


def test_rounded_activations_are_near_torch(rough_pack: Path, tiny_checkpoint: Path) -> None:
    pack = Pack.open(rough_pack)
    _, model = rounded_model(rough_pack, tiny_checkpoint)
    sample = a_sample(pack, 9)
    wanted = run(model, sample)
    found = static_logits(pack, pack.manifest.variant, 0, "qdq", sample)
    assert 1e-4 < np.abs(found - wanted).max() / wanted.std() < 0.3


def test_what_fills_up_a_bucket_changes_nothing(static_pack: Path) -> None:
    pack = Pack.open(static_pack)
    sample = a_sample(pack, 5)
    small, large = (static_logits(pack, pack.manifest.variant, index, "qdq", sample) for index in (0, 1))
    assert np.abs(small - large).max() < 0.02 * small.std()  # a rounded value may fall to either side
    small, large = (static_logits(pack, pack.manifest.variant, index, "float", sample) for index in (0, 1))
    assert np.abs(small - large).max() < 1e-4 * small.std()


def test_a_shortlist_allows_what_the_cpu_allows(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", output_bias=False)
    vocabulary = load_checkpoint(checkpoint).config.vocab_size
    common = np.arange(0, vocabulary - 1, 9)
    lexical = np.random.default_rng(0).integers(1, vocabulary - 1, (vocabulary, 3))
    shortlist = Shortlist(common=common, lexical=lexical)
    text = write_calibration(tmp_path / "text.txt")
    pack = export(checkpoint, tmp_path / "pack", shortlist=shortlist, static=StaticSettings(text, (16,), smooth=False))
    (ids,) = encode(pack, ["the dog runs here"])
    bucket = Bucket(pack, pack.manifest.variant, 0, REFERENCE)
    bucket.encode(ids, 0)
    there = np.flatnonzero(np.isfinite(bucket.step([pack.manifest.tokens.start])[0]))
    assert there.tolist() == sorted({*common.tolist(), *lexical[[*ids, 0]].ravel().tolist()})


@pytest.mark.parametrize("text", ["", "32,x", "32;64", "8,8", "64,32", "4"])
def test_buckets_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="buckets must be"):
        StaticSettings(Path("text"), parse_buckets(text))


def test_a_bucket_longer_than_the_models_positions_is_refused(
    tiny_checkpoint: Path, calibration: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"bucket of 128 tokens is longer than the model's 64 positions"):
        export(tiny_checkpoint, tmp_path / "pack", static=StaticSettings(calibration, (32, 128)))
    assert StaticSettings(calibration).fitting(64) == (32, 64)
    assert StaticSettings(calibration).fitting(20) == (20,)
    assert not list(tmp_path.iterdir())


def test_a_function_outside_the_tables_is_refused(calibration: Path, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", activation_function="mish", encoder_layers=1)
    with pytest.raises(CheckpointError, match=r"'mish' needs operators outside the providers' tables"):
        export(checkpoint, tmp_path / "pack", static=StaticSettings(calibration, (16,)))


def test_quantized_rounds_what_a_module_reads_and_gives(tiny_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    model = load_model(checkpoint)
    group = Group(("model.encoder.layers.0.fc1",), wide=True)
    read, given = Range(-1.0, 1.0, 8), Range(0.0, 2.0, 8)
    x = numbers(3, 4, 32)
    module = model.get_submodule(group.names[0])
    with quantized(model, [group], {group.name: Product(read, given)}), torch.no_grad():
        found = module(torch.from_numpy(x)).numpy()
        exact = (torch.from_numpy(read.round(x)) @ module.weight.T + module.bias).numpy()
    assert np.abs(found - given.round(exact)).max() <= given.scale * 1.01
    assert found.min() == 0  # the range does the work of a ReLU
