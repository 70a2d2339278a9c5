"""Packs of every form: what both engines find is what torch finds with the weights that are stored, at their size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import MarianMTModel

from mobilenmt.export.checkpoint import load_checkpoint
from mobilenmt.export.export import export
from mobilenmt.export.layers import unstacked_names
from mobilenmt.export.quantize.forms import FORMS
from mobilenmt.export.quantize.quantizer import Quantizer
from mobilenmt.export.quantize.rounding import Rounded, round_matrix
from mobilenmt.export.quantize.settings import Quantization
from mobilenmt.export.shortlist import Shortlist
from mobilenmt.export.verify import StepRunner, put_weights
from mobilenmt.runtime.errors import InputError, PackError
from mobilenmt.runtime.hypothesis import SearchOptions
from mobilenmt.runtime.manifest import parse_manifest
from mobilenmt.runtime.native.engine import NativeEngine
from mobilenmt.runtime.onnx.engine import Engine
from mobilenmt.runtime.pack import Pack
from tiny_models import make_checkpoint

CASES: dict[str, tuple[Quantization, bool, dict[str, Any]]] = {
    "int8-wide": (Quantization("int8-wide"), False, {}),
    "int8-wide, shortlist": (Quantization("int8-wide"), True, {"d_model": 21, "encoder_attention_heads": 3}),
    "int4-16": (Quantization("int4-16", "mse"), False, {"d_model": 24, "decoder_ffn_dim": 33}),
    "int4-32, shortlist": (Quantization("int4-32", "mse"), True, {}),
    "int4-128": (Quantization("int4-128"), False, {"tie_word_embeddings": False}),
    "fp32, shortlist": (Quantization("fp32"), True, {}),
    "mixed": (
        Quantization("int8", matrices={"*fc2": "int4-32", "*self_attn*": "fp32", "*k_proj*": "int8-wide"}),
        False,
        {"decoder_layers": 3},
    ),
    "mixed tables, shortlist": (
        Quantization("int8", matrices={"target_embedding": "int4-16", "output_embedding": "fp32"}),
        True,
        {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
    ),
    "one scale": (Quantization("int8", "percentile", 99.9, "tensor"), True, {}),
}


@pytest.fixture(scope="module", params=CASES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Pack, Quantization]:
    """A checkpoint, its pack, and what it was made with. The export itself compares logits with torch's."""
    settings, shortlist, shape = CASES[request.param]
    folder = tmp_path_factory.mktemp("forms")
    if shape.get("d_model") == 21:
        shape = {**shape, "decoder_attention_heads": 1}
    checkpoint = make_checkpoint(folder / "checkpoint", **shape)
    size = load_checkpoint(checkpoint).config.vocab_size
    random = np.random.default_rng(0)
    candidates = Shortlist(np.arange(0, 60), random.integers(2, size - 1, (size, 4)))
    pack = export(checkpoint, folder / "en-de", shortlist=candidates if shortlist else False, quantization=settings)
    return checkpoint, pack, settings


def stored(pack: Pack) -> Iterator[tuple[str, int, int]]:
    """Name, place and bytes of every tensor of weights.bin that a graph reads."""

    def walk(graph: onnx.GraphProto) -> Iterator[tuple[str, int, int]]:
        for tensor in graph.initializer:
            where = {entry.key: entry.value for entry in tensor.external_data}
            if where:
                yield tensor.name.removeprefix("phase."), int(where["offset"]), int(where["length"])
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    yield from walk(attribute.g)

    for path in sorted(pack.path.glob("*.onnx")):
        yield from walk(onnx.load(str(path), load_external_data=False).graph)


def test_both_engines_find_what_torch_finds(made: tuple[Path, Pack, Quantization]) -> None:
    """Scores that an engine gives its outputs are torch's for the same ids; activations are INT8, so not to the bit."""
    checkpoint, pack, settings = made
    quantizer = Quantizer(settings)
    model = MarianMTModel.from_pretrained(checkpoint).eval()
    put_weights(model, _weights(checkpoint, quantizer, pack))
    size = model.config.vocab_size
    random = np.random.default_rng(1)
    sources = [random.integers(2, size - 1, length).tolist() for length in (9, 4, 1, 14)]
    same = 0
    for beams in (1, 4):
        options = SearchOptions(beams, beams)
        found = [
            engine.generate(sources, [16] * len(sources), options) for engine in (Engine(pack), NativeEngine(pack))
        ]
        same += sum(a[0].ids == b[0].ids for a, b in zip(*found, strict=True))
        for engine in found:
            for source, hypotheses in zip(sources, engine, strict=True):
                best = hypotheses[0]
                wanted = _score(model, source, [*best.ids], best.score, pack)
                assert abs(best.score - wanted) < 0.35, (beams, best, wanted)
    assert same >= 4  # of eight: random weights choose by little


def _weights(checkpoint: Path, quantizer: Quantizer, pack: Pack) -> dict[str, Any]:
    """fp32 [N, K] by the exporter's names: of what the graphs read, from the checkpoint's own."""
    loaded = load_checkpoint(checkpoint)
    shortlist = any(name == "shortlist.common" for name, _, _ in stored(pack))
    names = {name.removesuffix(".bias") for name, _, _ in stored(pack) if name.startswith("model.") and ".bias" in name}
    found: dict[str, Any] = {}
    for name in sorted(name for name in names if "norm" not in name):
        if quantizer.form(name).kind != "fp32":
            whole = np.concatenate([loaded[f"{part}.weight"] for part in unstacked_names(name)])
            found[name] = quantizer.round(name, whole).weights()
    tables = ("source_embedding", "target_embedding", "output_embedding")
    for name in tables:
        first = next(other for other in tables if loaded[other] is loaded[name])
        form = quantizer.form(first)
        if form.kind != "fp32":
            levels = 127 if form.kind == "int8" and not shortlist else None
            found[first] = quantizer.round(first, loaded[first], levels).weights()
    return found


def _score(model: Any, source: list[int], ids: list[int], told: float, pack: Pack) -> float:
    """What torch gives these ids: the mean of log-probabilities over the candidates of the source."""
    tokens = np.array([[*source, 0]], np.int64)
    allowed = StepRunner(pack).encode(tokens, np.array([tokens.shape[1]])).get("candidates")
    start = model.config.decoder_start_token_id
    scores = []
    for target in ([*ids, 0], ids):  # ended, or cut off by the limit
        inputs = torch.tensor([[start, *target[:-1]]])
        with torch.no_grad():
            logits = model(input_ids=torch.from_numpy(tokens), decoder_input_ids=inputs).logits[0].double()
        never = torch.full_like(logits, -torch.inf)
        if allowed is not None:
            keep = torch.from_numpy(allowed)
            never[:, keep] = logits[:, keep]
            logits = never
        else:
            logits[:, model.config.pad_token_id] = -torch.inf
        steps = logits.log_softmax(-1)[range(len(target)), target]
        if len(target) == 15:
            steps[-1] = 0.0  # forced
        scores.append(float(steps.sum()) / max(1, len(target)))
    return min(scores, key=lambda score: abs(score - told))


def test_every_matrix_takes_the_bytes_of_its_form(made: tuple[Path, Pack, Quantization]) -> None:
    checkpoint, pack, settings = made
    loaded = load_checkpoint(checkpoint)
    sizes: dict[str, dict[int, int]] = {}
    for name, place, size in stored(pack):
        sizes.setdefault(name, {})[place] = size
    checked = 0
    for index in range(loaded.config.encoder_layers):
        name = f"model.encoder.layers.{index}.fc2"
        rows, columns = loaded[f"{name}.weight"].shape
        form = settings.form_of(name)
        parts = [part for part in sizes if part == name or (part.startswith(f"{name}.") and ".bias" not in part)]
        found = {place: size for part in parts for place, size in sizes[part].items()}
        assert sorted(found.values()) == sorted(form.bytes(rows, columns)), parts
        checked += 1
    assert checked


def test_pack_json_says_the_forms(made: tuple[Path, Pack, Quantization]) -> None:
    _, pack, settings = made
    content = json.loads((pack.path / "pack.json").read_text(encoding="utf-8"))
    assert content["format_version"] == "2.2"
    assert content["quantization"]["form"] == settings.form
    assert content["quantization"]["clipping"] == settings.clipping
    for name, form in content["quantization"]["matrices"].items():
        assert form == settings.form_of(name).name != settings.form
    content["quantization"]["form"] = "int3"
    with pytest.raises(PackError, match=r"quantization.form: .*int3.* is no form this version of mobilenmt knows"):
        parse_manifest(json.dumps(content).encode())


def test_a_name_that_is_no_matrix_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    settings = Quantization(matrices={"model.encoder.layers.9.fc1": "fp32"})
    with pytest.raises(InputError, match=r"none called 'model.encoder.layers.9.fc1'; it has .*layers.0.fc1"):
        export(tiny_checkpoint, tmp_path / "out", quantization=settings)
    with pytest.raises(InputError, match="fp32 pack keeps every matrix"):
        export(tiny_checkpoint, tmp_path / "out", precision="fp32", quantization=Quantization("int4-32"))
    assert not (tmp_path / "out").exists()


def test_what_was_rounded_elsewhere_is_stored_as_it_is(tiny_checkpoint: Path, tmp_path: Path) -> None:
    name = "model.encoder.layers.0.fc1"
    weight = load_checkpoint(tiny_checkpoint)[f"{name}.weight"]
    given = round_matrix(weight[::-1], FORMS["int4-16"])
    settings = Quantization("int4-16", method="gptq")
    pack = export(tiny_checkpoint, tmp_path / "en-de", quantization=settings, rounded={name: given})
    place = {part: where for part, where, _ in stored(pack)}[f"{name}.scale"]
    weights = (pack.path / "weights.bin").read_bytes()
    np.testing.assert_array_equal(np.frombuffer(weights, "<f4", len(given.scales), place), given.scales)
    assert pack.manifest.quantization is not None
    assert pack.manifest.quantization.method == "gptq"
    wrong = Rounded(given.values, given.scales)
    with pytest.raises(InputError, match=f"{name}: it is not rounded as int4-16"):
        export(tiny_checkpoint, tmp_path / "out", quantization=settings, rounded={name: wrong})
