"""The checkpoint in a pack is the model that the pack runs: for every kind of pack, and for other tools."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilenmt.cli import main
from mobilenmt.export.checkpoint import Checkpoint, load_checkpoint, sinusoidal_positions
from mobilenmt.export.ecosystem.restore import restore
from mobilenmt.export.ecosystem.stored import TABLES, Stored, stored_weights
from mobilenmt.export.export import export
from mobilenmt.export.layers import unstacked_names
from mobilenmt.export.quantize.quantizer import Quantizer
from mobilenmt.export.quantize.settings import Quantization
from mobilenmt.export.shortlist import Shortlist
from mobilenmt.export.writer import write_manifest
from mobilenmt.runtime.errors import ExportError, PackError
from mobilenmt.runtime.pack import Pack
from mobilenmt.runtime.tokenizer import Tokenizer
from places import ROOT
from tiny_models import ENGLISH, WORDS, make_checkpoint, make_opus_checkpoint, sentences

SEPARATE = {"share_encoder_decoder_embeddings": False}
UNTIED = {"tie_word_embeddings": False}


def back(pack: Path, folder: Path) -> tuple[Path, Path]:
    """The checkpoint of a pack and the pack that is exported from it."""
    found = restore(pack, folder / "restored")
    (folder / "again").mkdir()
    again = export(found, folder / "again" / "en-de", precision=Pack.open(pack).manifest.precision).path
    return found, again


def different(pack: Path, again: Path) -> list[str]:
    """Names of files that are in one of them alone, or not the same in both; pack.json apart."""
    names = {file.name for folder in (pack, again) for file in folder.iterdir()} - {"pack.json"}
    assert names > {"weights.bin", "greedy.onnx", "tokenizer.json"}
    same = [n for n in names if (pack / n).exists() and (again / n).exists()]
    return sorted(names - {name for name in same if (pack / name).read_bytes() == (again / name).read_bytes()})


@pytest.mark.parametrize(
    ("precision", "shortlisted", "changes"),
    [
        ("int8", True, {}),
        ("int8", True, {"output_bias": False, "scale_embedding": False, "decoder_layers": 1}),
        ("int8", False, {"activation_function": "gelu"}),
        ("int8", False, {**SEPARATE, **UNTIED, "d_model": 20, "encoder_attention_heads": 2}),
        ("int8", False, {**UNTIED, "scale_embedding": False, "encoder_layers": 1}),
        ("fp32", False, SEPARATE),
        ("fp32", True, {}),
    ],
)
def test_a_restored_checkpoint_exports_to_the_same_bytes(
    precision: str, shortlisted: bool, changes: dict[str, Any], tmp_path: Path
) -> None:
    made = make_checkpoint(tmp_path / "made", **changes)
    size = json.loads((made / "config.json").read_text())["vocab_size"]
    lexical = np.random.default_rng(0).integers(2, size - 1, (size, 6))
    shortlist = Shortlist(np.arange(40), lexical) if shortlisted else False
    pack = export(made, tmp_path / "en-de", precision=precision, shortlist=shortlist).path
    found = restore(pack, tmp_path / "restored")
    assert (found / "shortlist.npz").exists() == shortlisted
    (tmp_path / "again").mkdir()
    given = Shortlist.load(found / "shortlist.npz") if shortlisted else False  # fp32 does not look for one itself
    again = export(found, tmp_path / "again" / "en-de", precision=precision, shortlist=given).path
    assert different(pack, again) == []


FORMS_OF_PACKS: dict[str, tuple[Quantization, bool, dict[str, Any]]] = {
    "int8-wide": (Quantization("int8-wide"), False, {}),
    "int8-wide, shortlist, width in no blocks": (Quantization("int8-wide"), True, {"d_model": 20, **UNTIED}),
    "int4-16, separate": (Quantization("int4-16", "mse"), False, {**SEPARATE, "d_model": 24}),
    "int4-32, shortlist": (Quantization("int4-32", "mse"), True, {"scale_embedding": False}),
    "int4-128, shortlist": (Quantization("int4-128", "percentile", 99.0), True, {}),
    "fp32": (Quantization("fp32"), False, UNTIED),
    "mixed": (
        Quantization("int8", matrices={"*fc2": "int4-32", "*self_attn*": "fp32", "*k_proj*": "int8-wide"}),
        False,
        {},
    ),
    "mixed tables": (
        Quantization("int4-16", matrices={"source_embedding": "fp32", "output_embedding": "int8-wide"}),
        False,
        {**SEPARATE, **UNTIED},
    ),
    "mixed tables, shortlist": (
        Quantization("int8", matrices={"target_embedding": "int4-16", "output_embedding": "fp32"}),
        True,
        {**SEPARATE, **UNTIED},
    ),
    "one scale, percentile": (Quantization("int8", "percentile", 99.0, "tensor"), True, {}),
}


@pytest.mark.parametrize("case", FORMS_OF_PACKS)
def test_packs_of_every_form_come_back_with_the_weights_that_engines_multiply_with(case: str, tmp_path: Path) -> None:
    settings, shortlisted, changes = FORMS_OF_PACKS[case]
    changes = {"encoder_layers": 1, "decoder_layers": 1, **changes}
    made = make_checkpoint(tmp_path / "made", **changes)
    loaded = load_checkpoint(made)
    size = loaded.config.vocab_size
    shortlist: Shortlist | bool = False
    if shortlisted:
        shortlist = Shortlist(np.arange(40), np.random.default_rng(0).integers(2, size - 1, (size, 6)))
    pack = export(made, tmp_path / "en-de", shortlist=shortlist, quantization=settings).path
    stored = stored_weights(Pack.open(pack))
    found = load_checkpoint(restore(pack, tmp_path / "restored"))
    once, again = Quantizer(settings), Quantizer(settings)
    wanted = dict(loaded.tensors) | multiplied_out(loaded, once, stored)
    assert found.tensors.keys() == wanted.keys()
    for name, value in found.tensors.items():
        np.testing.assert_array_equal(value, wanted[name], err_msg=name)
    # and what is rounded anew, as by an export of it, is the same integers, and scales to a rounding of fp32
    for name, value in multiplied_out(found, again, stored).items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-6, err_msg=name)
    assert once._made.keys() == again._made.keys()
    for name, rounded in once._made.items():
        if rounded.multipliers is None:  # where all blocks of a row have one, 9 * 6 is 8 * 6 and another scale
            np.testing.assert_array_equal(again._made[name].values, rounded.values, err_msg=name)


def test_a_restored_checkpoint_exports_to_a_pack_of_the_same_forms_and_weights(tmp_path: Path) -> None:
    settings = Quantization("int4-32", "mse", matrices={"*fc2": "fp32", "*fc1": "int8-wide", "*k_proj*": "int8"})
    pack = export(make_checkpoint(tmp_path / "made"), tmp_path / "en-de", quantization=settings)
    found = restore(pack.path, tmp_path / "restored")
    again = export(found, tmp_path / "again-en-de", quantization=settings)
    assert again.manifest.quantization == pack.manifest.quantization
    first, second = (stored_weights(item) for item in (pack, again))
    assert first.keys() == second.keys()
    for name, value in first.items():
        if ".int8" in name or not name.startswith(("model.", "source")):
            np.testing.assert_array_equal(second[name], value, err_msg=name)
    once, twice = (load_checkpoint(item) for item in (found, restore(again.path, tmp_path / "restored-again")))
    for name, value in once.tensors.items():
        np.testing.assert_allclose(twice[name], value, rtol=1e-6, err_msg=name)


def multiplied_out(checkpoint: Checkpoint, quantizer: Quantizer, stored: Stored) -> dict[str, Any]:
    """What the rounder gives for every matrix of a pack that is not fp32, by the checkpoint's names."""
    found: dict[str, Any] = {}
    joined = {name.removesuffix(".bias") for name in stored if name.startswith("model.") and name.endswith(".bias")}
    for name in joined:
        parts = [f"{part}.weight" for part in unstacked_names(name)]
        if "norm" in name or quantizer.form(name).kind == "fp32":
            continue
        whole = quantizer.round(name, np.concatenate([checkpoint[part] for part in parts])).weights()
        ends = np.cumsum([len(checkpoint[part]) for part in parts])[:-1]
        found |= zip(parts, np.split(whole, ends), strict=True)
    for name in TABLES:
        first = next(other for other in TABLES if checkpoint[other] is checkpoint[name])
        form = quantizer.form(first)
        if form.kind != "fp32":
            levels = 127 if form.kind == "int8" and "shortlist.common" not in stored else None
            found[name] = quantizer.round(first, checkpoint[first], levels).weights()
    return found


def test_transformers_opens_a_restored_checkpoint_and_its_weights_are_within_a_rounding(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, MarianMTModel

    made = make_checkpoint(tmp_path / "made")
    found = restore(export(made, tmp_path / "en-de").path, tmp_path / "restored")
    weights, wanted = (MarianMTModel.from_pretrained(folder).state_dict() for folder in (found, made))
    assert weights.keys() == wanted.keys()
    for name, value in wanted.items():
        error = np.abs(weights[name].numpy() - value.numpy()).max()
        assert error <= np.abs(value.numpy()).max() / 63 / 2 * 1.001, name
    line = " ".join(WORDS[:9])
    theirs, ours = (AutoTokenizer.from_pretrained(folder) for folder in (made, found))
    ids = ours(line).input_ids
    assert ids == [*theirs(line, add_special_tokens=False).input_ids, 0]
    assert (ours.eos_token_id, ours.pad_token_id, ours.unk_token) == (
        0,
        len(wanted["model.shared.weight"]) - 1,
        theirs.unk_token,
    )
    assert ours.decode(ids, skip_special_tokens=True) == line


def test_trained_positions_card_and_generation_come_back(tmp_path: Path) -> None:
    import torch
    from safetensors.numpy import load_file
    from transformers import GenerationConfig, MarianMTModel

    made = make_checkpoint(tmp_path / "made", generation={"num_beams": 3, "length_penalty": 0.5, "min_length": 4})
    model = MarianMTModel.from_pretrained(made)
    model._keys_to_ignore_on_save = None
    with torch.no_grad():
        model.model.decoder.embed_positions.weight.add_(0.5)
    model.save_pretrained(made)
    pack = export(made, tmp_path / "en-de", card={"licence": "CC0"}, source_language="en").path
    found, again = back(pack, tmp_path)
    assert different(pack, again) == []
    tensors = load_file(found / "model.safetensors")
    assert np.allclose(tensors["model.decoder.embed_positions.weight"], sinusoidal_positions(64, 32) + 0.5)
    assert "model.encoder.embed_positions.weight" not in tensors
    generation = GenerationConfig.from_pretrained(found)
    assert (generation.num_beams, generation.length_penalty, generation.min_length) == (3, 0.5, 4)
    assert json.loads((found / "card.json").read_text()) == {"licence": "CC0"}
    assert json.loads((found / "tokenizer_config.json").read_text())["source_lang"] == "en"


@pytest.mark.parametrize("separate", [False, True])
def test_an_opus_checkpoint_comes_back_with_the_ids_that_its_tokenizer_gives(separate: bool, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    made = make_opus_checkpoint(tmp_path / "made", separate=separate)
    pack = export(made, tmp_path / "en-de").path
    found, again = back(pack, tmp_path)
    # One vocabulary: pieces without an id, which the pack reads as <unk>, have no place in a Hugging Face tokenizer.
    assert different(pack, again) == ([] if separate else ["native.bin", "tokenizer.json"])
    assert (found / "source.spm").exists() == separate
    opened = Pack.open(pack)
    manifest, theirs = opened.manifest, AutoTokenizer.from_pretrained(found)
    ours = Tokenizer(opened.file("tokenizer.json"), manifest.tokens, manifest.model.source_vocab_size)
    lines = [
        line for line in [*sentences(ENGLISH, 9, 60), "a ß, a grün 世界"] if separate or 1 not in ours.encode(line)
    ]
    assert len(lines) > 20
    for line in lines:
        assert theirs(line).input_ids == [*ours.encode(line), 0]


def test_ctranslate2_converts_it_into_the_same_translations(tmp_path: Path) -> None:
    import ctranslate2
    import torch
    from ctranslate2.converters import TransformersConverter
    from transformers import MarianMTModel

    made = make_checkpoint(tmp_path / "made")
    model = MarianMTModel.from_pretrained(made)
    with torch.no_grad():
        model.model.shared.weight[-1] = 0  # it starts from zeros, whatever <pad> is
    model.save_pretrained(made)
    found = restore(export(made, tmp_path / "en-de").path, tmp_path / "restored")
    TransformersConverter(str(found)).convert(str(tmp_path / "ct2"))
    translator = ctranslate2.Translator(str(tmp_path / "ct2"), device="cpu")
    pieces = json.loads((tmp_path / "ct2" / "shared_vocabulary.json").read_text())
    restored = MarianMTModel.from_pretrained(found).eval()
    for start in range(3, 30, 3):
        source = list(range(start, start + 7))
        wanted = restored.generate(torch.tensor([[*source, 0]]), num_beams=1, max_length=20, do_sample=False)
        tokens = [[pieces[token] for token in (*source, 0)]]
        result = translator.translate_batch(tokens, beam_size=1, max_decoding_length=19)
        words = [pieces[token] for token in wanted[0].tolist()[1:] if token]
        assert result[0].hypotheses[0][: len(words)] == words


def test_a_zip_and_a_pack_without_the_graphs_that_a_phone_needs_not(tiny_pack: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "en-de.zip", "w") as archive:
        for path in tiny_pack.iterdir():
            archive.write(path, path.name)
    whole = restore(tmp_path / "en-de.zip", tmp_path / "whole")
    lean = shutil.copytree(tiny_pack, tmp_path / "lean")
    for name in ("batch.onnx", "encoder.onnx", "decoder.onnx"):
        (lean / name).unlink()
    write_manifest(lean, Pack.open(tiny_pack).manifest)
    steps: list[str] = []
    found = restore(lean, tmp_path / "restored", report=steps.append)
    assert any("every tensor is there" in step for step in steps)
    from safetensors.numpy import load_file

    theirs, ours = (load_file(folder / "model.safetensors") for folder in (whole, found))
    assert theirs.keys() == ours.keys()
    assert all(np.array_equal(ours[name], value) for name, value in theirs.items())


def test_bad_input_is_one_line_and_leaves_nothing(
    tiny_pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["restore", str(tiny_pack), str(tmp_path / "written")]) == 0
    assert "verified: hashes, graphs" in capsys.readouterr().out
    assert main(["restore", str(tiny_pack), str(tmp_path / "written")]) == 2
    assert "written exists already" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "written")
    with pytest.raises(ExportError, match=r"tiny-1\.0: a pack of format 1; export its checkpoint again"):
        restore(ROOT / "tests" / "golden" / "tiny-1.0", tmp_path / "out")
    with pytest.raises(PackError, match="no pack"):
        restore(tmp_path / "missing", tmp_path / "out")
    with pytest.raises(ExportError, match="there is no folder"):
        restore(tiny_pack, tmp_path / "none" / "out")
    damaged = shutil.copytree(tiny_pack, tmp_path / "damaged")
    (damaged / "translator.onnx").write_bytes(b"no graph")
    write_manifest(damaged, Pack.open(tiny_pack).manifest)
    with pytest.raises(ExportError, match=r"translator\.onnx: cannot be read"):
        restore(damaged, tmp_path / "out")
    shutil.copy(tiny_pack / "translator.onnx", damaged / "translator.onnx")
    (damaged / "weights.bin").write_bytes((tiny_pack / "weights.bin").read_bytes()[:5000])
    write_manifest(damaged, Pack.open(tiny_pack).manifest)
    with pytest.raises(ExportError, match="cannot be read"):
        restore(damaged, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ExportError, match="exists already; choose another path"):
        restore(tiny_pack, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"damaged", "out"}
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
