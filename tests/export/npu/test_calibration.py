"""What static graphs are calibrated with: texts, ranges, SmoothQuant, sensitivity; and what check-npu says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest
import torch

from mobilenmt.cli import main
from mobilenmt.export.checkpoint import load_checkpoint
from mobilenmt.export.npu.check import check_pack
from mobilenmt.export.npu.compare import compare_static
from mobilenmt.export.npu.groups import Group, groups
from mobilenmt.export.npu.ranges import Range, choose_range
from mobilenmt.export.npu.recording import (
    Activation,
    Recorded,
    Sample,
    load_model,
    make_samples,
    read_lines,
    record,
)
from mobilenmt.export.npu.recording import (
    run as run_model,
)
from mobilenmt.export.npu.sensitivity import choose
from mobilenmt.export.npu.smoothing import parent_of, smooth, smooth_factors
from mobilenmt.export.npu.tables import NAMES, Values, load_table
from mobilenmt.runtime.errors import ExportError, InputError
from mobilenmt.runtime.manifest import TokenIds
from mobilenmt.runtime.pack import Pack
from mobilenmt.runtime.tokenizer import Tokenizer
from tiny_models import WORDS, write_calibration


def tokenizer_of(checkpoint: Path) -> Tokenizer:
    config = load_checkpoint(checkpoint).config
    return Tokenizer(checkpoint / "tokenizer.json", TokenIds(config.pad_token_id, 0, config.pad_token_id, 1), 10**6)


# -- texts ----------------------------------------------------------------------------------------------------------


def test_lines_are_taken_evenly_up_to_the_tab_and_once(tmp_path: Path) -> None:
    text = tmp_path / "text.tsv"
    text.write_text("".join(f"word {n:03}\tWort\n" for n in range(200)) + "word 000\t\n\n123\n")
    assert read_lines(text, 20) == [f"word {n:03}" for n in range(0, 200, 10)]


def test_texts_of_no_use_are_refused(tmp_path: Path, tiny_checkpoint: Path) -> None:
    text = tmp_path / "text.txt"
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_lines(text)
    text.write_bytes(b"\xff\xfe\n" * 40)
    with pytest.raises(InputError, match="not UTF-8"):
        read_lines(text)
    text.write_text("one\ntwo\n" * 40)
    with pytest.raises(InputError, match="2 different lines with words are too short"):
        read_lines(text)
    checkpoint = load_checkpoint(tiny_checkpoint)
    with pytest.raises(InputError, match=r"another language .*lacks letters of 100% of the lines"):
        make_samples(checkpoint, None, tokenizer_of(tiny_checkpoint), ["это по-русски", "и это тоже"])


def test_a_model_that_copies_says_that_the_text_is_in_another_language(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    start = checkpoint.config.decoder_start_token_id

    def copy(_: object, __: object, sources: list[tuple[int, ...]]) -> list[tuple[tuple[int, ...], float]]:
        return [((start, *source), -0.1) for source in sources]

    monkeypatch.setattr("mobilenmt.export.npu.recording._translate", copy)
    with pytest.raises(InputError, match="another language than the model reads: it copies 100%"):
        make_samples(checkpoint, None, tokenizer_of(tiny_checkpoint), ["the dog runs"])


# -- recording ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tiny_checkpoint: Path) -> tuple[list[Sample], dict[str, Recorded]]:
    checkpoint = load_checkpoint(tiny_checkpoint)
    model = load_model(checkpoint)
    samples = make_samples(
        checkpoint, model, tokenizer_of(tiny_checkpoint), [" ".join(WORDS[n : n + 5]) for n in range(9)]
    )
    return samples, record(checkpoint, model, groups(checkpoint), samples)


def test_what_a_product_reads_and_gives_is_recorded(
    tiny_checkpoint: Path, recorded: tuple[list[Sample], dict[str, Recorded]]
) -> None:
    """The first product of the encoder: its input is embeddings and positions, worked out by hand."""
    checkpoint, (samples, found) = load_checkpoint(tiny_checkpoint), recorded
    model = load_model(checkpoint)
    with torch.no_grad():
        rows = []
        for sample in samples:
            ids = torch.tensor([sample.source])
            encoder = model.get_encoder()
            embedded = encoder.embed_tokens(ids) * encoder.embed_scale + encoder.embed_positions(ids.shape)
            rows.append(embedded[0].numpy())
    first = groups(checkpoint)[0]
    assert np.allclose(found[first.name].read.high, np.concatenate(rows).max(axis=0), atol=1e-5)
    assert np.allclose(found[first.name].read.low, np.concatenate(rows).min(axis=0), atol=1e-5)
    weight, bias = first.weight(checkpoint), first.bias(checkpoint)
    assert np.allclose(found[first.name].given.high, (np.concatenate(rows) @ weight.T + bias).max(axis=0), atol=1e-4)
    assert found["model.encoder.layers.0.fc1"].given.low.min() == 0  # behind its ReLU
    assert found["output"].given.high.shape == (checkpoint.config.decoder_vocab_size,)


def test_an_activation_that_is_no_number_is_refused(tiny_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    model = load_model(checkpoint)
    with torch.no_grad():
        model.model.encoder.layers[1].fc1.weight.fill_(3e38)
    with pytest.raises(ExportError, match=r"activations of model\.encoder\.layers\.1\.fc1 are NaN or infinite"):
        record(checkpoint, model, groups(checkpoint), [Sample((3, 4, 0), (3, 4, 5))])


# -- ranges and smoothing -------------------------------------------------------------------------------------------


def test_8_bits_leave_out_what_is_rare_and_16_bits_nothing() -> None:
    rows = np.random.default_rng(0).normal(size=(2000, 500)).astype(np.float32)
    rows[0, 0], rows[1, 1] = 25.0, -40.0
    narrow, broad = (choose_range(rows, -40.0, 25.0, bits) for bits in (8, 16))
    assert narrow.high < 6 and narrow.low > -6
    assert broad.low == -50.0 and broad.high == 31.25
    assert np.abs(broad.round(rows) - rows).max() <= broad.scale / 1.9
    for found in (narrow, broad):
        assert found.round(np.zeros(3, np.float32)).tolist() == [0.0, 0.0, 0.0]
    plain = rows[2:]
    assert choose_range(plain, float(plain.min()), float(plain.max()), 8, (50.0, 100.0)).high > 3


def test_rounding_is_that_of_onnx() -> None:
    how = Range(-1.3, 2.9, 8)
    values = np.linspace(-3, 4, 1001, dtype=np.float32)
    node = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])],
        "pair",
        [onnx.helper.make_tensor_value_info("x", 1, [1001])],
        [onnx.helper.make_tensor_value_info("y", 1, [1001])],
        [
            onnx.numpy_helper.from_array(np.float32(how.scale), "s"),
            onnx.numpy_helper.from_array(np.uint8(how.zero_point), "z"),
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    (found,) = onnx.reference.ReferenceEvaluator(model).run(None, {"x": values})
    assert np.array_equal(how.round(values), found)


@pytest.mark.parametrize(("low", "high"), [(0.1, 1.0), (-1.0, -0.1), (float("nan"), 1.0), (0.0, float("inf"))])
def test_a_range_without_zero_or_end_is_refused(low: float, high: float) -> None:
    with pytest.raises(ExportError, match="range of activations"):
        Range(low, high, 8)


def test_factors_are_those_of_the_paper() -> None:
    """SmoothQuant, equation 4: max|X|^alpha / max|W|^(1 - alpha); a channel that is silent keeps its own."""
    pytest.importorskip("onnx_neural_compressor")
    random = np.random.default_rng(0)
    rows = random.normal(size=(300, 12)).astype(np.float32) * np.geomspace(0.1, 20, 12, dtype=np.float32)
    rows[:, 5] = 0
    weight = random.normal(size=(20, 12)).astype(np.float32)
    (found,) = smooth_factors({"a": (rows, weight)}, 0.5).values()
    expected = np.sqrt(np.abs(rows).max(axis=0) / np.abs(weight).max(axis=0))
    expected[5] = 1
    assert np.allclose(found, expected, rtol=0.02)


def test_without_onnx_neural_compressor_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx_neural_compressor.algorithms.smoother.core", None)
    with pytest.raises(ExportError, match=r"install the extra 'npu', on Python 3\.11 or 3\.12"):
        smooth_factors({"a": (np.ones((2, 3), np.float32), np.ones((4, 3), np.float32))}, 0.5)


def test_smoothing_changes_the_ranges_and_not_the_model(
    tiny_checkpoint: Path, recorded: tuple[list[Sample], dict[str, Recorded]]
) -> None:
    pytest.importorskip("onnx_neural_compressor")
    checkpoint, (samples, before) = load_checkpoint(tiny_checkpoint), recorded
    products = groups(checkpoint)
    smoothed, after = smooth(checkpoint, products, before)
    plain, other = (run_model(load_model(item), samples[0]) for item in (checkpoint, smoothed))
    assert np.abs(plain - other).max() < 1e-3 * plain.std()
    again = record(smoothed, load_model(smoothed), products, samples)
    for name, item in again.items():
        for side in ("read", "given"):
            one, two = getattr(item, side), getattr(after[name], side)
            assert np.allclose(one.high, two.high, rtol=1e-3, atol=1e-3), name
            assert np.allclose(one.low, two.low, rtol=1e-3, atol=1e-3), name

    def uneven(item: Activation) -> float:
        most = np.maximum(np.abs(item.low), np.abs(item.high))
        return float(most.max() / most[most > 0].mean())

    name = "model.encoder.layers.0.fc2"
    assert uneven(after[name].read) < uneven(before[name].read)


def test_what_a_factor_cannot_pass_through_is_left_alone() -> None:
    assert parent_of(Group(("layer.fc2",), True), "relu") == "layer.fc1"
    assert parent_of(Group(("layer.fc2",), True), "gelu") is None
    assert parent_of(Group(("layer.self_attn.out_proj",), True), "gelu") == "layer.self_attn.v_proj"
    assert parent_of(Group(("layer.fc1",), True), "relu") is None


def test_what_costs_most_gets_more_bits(
    tiny_checkpoint: Path, recorded: tuple[list[Sample], dict[str, Recorded]]
) -> None:
    checkpoint, (samples, found) = load_checkpoint(tiny_checkpoint), recorded
    products = groups(checkpoint)
    chosen, measured = choose(checkpoint, checkpoint, products, found, samples, shortlist=False, share=0.3)
    bits = {name: product.bits for name, product in chosen.items()}
    assert set(bits.values()) == {8, 16}
    worst = max(measured.alone[name] for name in bits if bits[name] == 8)
    assert worst <= min(measured.alone[name] for name in bits if bits[name] == 16)
    assert measured.chosen < measured.weights * 1.6
    none, measured = choose(checkpoint, checkpoint, products, found, samples, shortlist=False, share=0.0)
    assert all(product.bits > 8 for name, product in none.items() if measured.alone[name] > 0)
    assert len({product.bits for product in none.values()} - {8}) >= 1


# -- check-npu ------------------------------------------------------------------------------------------------------


def test_every_provider_of_npus_takes_each_graph_in_one_piece(static_pack: Path) -> None:
    found = list(check_pack(Pack.open(static_pack), buckets=(16,)))
    npus = [verdict for verdict in found if verdict.provider != "XNNPACK"]
    assert len(npus) == 2 * (1 + 2 + 2)  # QNN by our table, NNAPI and CoreML by both
    for verdict in npus:
        assert verdict.partitions == 1, verdict.line()
        assert verdict.nodes - verdict.taken == sum(verdict.on_cpu.values()) <= 4, verdict.line()
        assert all(reason.startswith(("Gather (", "Cast (")) for reason in verdict.on_cpu), verdict.line()


def test_tables_name_their_sources_and_refuse_what_breaks_a_rule() -> None:
    for name in NAMES:
        table = load_table(name)
        assert table.version and all(source.startswith("https://") for source in table.sources)
    with pytest.raises(InputError, match="no table of operators for 'npu'"):
        load_table("npu")
    info = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node
    nodes = [
        node("Gather", ["table", "ids"], ["rows"]),
        node("Loop", ["ids"], ["loop"]),
        node("Gemm", ["rows", "rows"], ["a"]),
        node("Gemm", ["rows", "weight"], ["b"], alpha=2.0),
        node("Gemm", ["rows", "weight"], ["c"]),
        node("Add", ["deep", "deep"], ["d"]),
        node("QuickGelu", ["rows"], ["e"], domain="com.microsoft"),
    ]
    graph = onnx.helper.make_graph(
        nodes, "graph", [info("ids", 7, [1]), info("deep", 1, [1] * 6)], [], [], value_info=[info("rows", 1, [1, 4])]
    )
    graph.initializer.append(onnx.numpy_helper.from_array(np.ones((3, 4), np.uint8), "table"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), "weight"))
    qnn, values = load_table("qnn"), Values(graph)
    assert [qnn.refusal(item, values) for item in nodes] == [
        "not of uint8",
        "no such operator in the table",
        "input 1 is not constant",
        "alpha, beta, transA or the shape of the bias",
        None,
        "more than 5 axes",
        "com.microsoft is not ONNX's own",
    ]


def test_a_comparison_counts_words_and_time(static_pack: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.tsv"
    text.write_text("".join(f"{WORDS[n]} {WORDS[n + 1]}\t{WORDS[n + 2]}\n" for n in range(8)))
    found = compare_static(Pack.open(static_pack), text, 6)
    assert found.sentences == 6
    assert 1 <= found.same <= 6
    assert list(found.milliseconds) == ["16", "32"]
    assert found.between == pytest.approx(100, abs=99) and found.cpu_chrf is not None
    assert "lines" in found.lines()[0] and len(found.lines()) == 4


def test_the_command_line(
    static_pack: Path, tiny_pack: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*arguments: object) -> str:
        assert main([*map(str, arguments)]) == 2
        shown = capsys.readouterr()
        assert shown.out == "" and len(shown.err.splitlines()) == 1
        return shown.err

    assert main(["check-npu", str(static_pack), "--bucket", "16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["graphs"]
    assert {item["partitions"] for item in found if item["provider"] != "XNNPACK"} == {1}
    assert main(["info", str(static_pack)]) == 0
    shown = capsys.readouterr().out
    assert "static graphs:" in shown and "QNNExecutionProvider: not in this onnxruntime, the CPU graphs run" in shown
    assert "no static graphs" in fails("check-npu", tiny_pack)
    assert "no graphs for 64 tokens, but for 16, 32" in fails("check-npu", static_pack, "--bucket", 64)
    out = tmp_path / "out"
    arguments = ("export", tiny_checkpoint, out)
    assert "needs --calibration" in fails(*arguments, "--target", "npu")
    assert "need --target npu" in fails(*arguments, "--buckets", "32")
    arguments = (*arguments, "--target", "npu", "--calibration")
    assert "cannot be read: No such file" in fails(*arguments, tmp_path / "none")
    text = write_calibration(tmp_path / "text.txt")
    assert "numbers with commas" in fails(*arguments, text, "--buckets", "32,y")
    assert "INT8 packs, not of fp32" in fails(*arguments, text, "--precision", "fp32")
    assert not out.exists()
