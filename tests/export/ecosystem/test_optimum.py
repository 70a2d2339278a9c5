"""optimum's export opens where it is meant to, and gives torch's ids there: optimum itself, and transformers.js."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilenmt.cli import main
from mobilenmt.export.ecosystem import optimum_export
from mobilenmt.export.ecosystem.optimum_export import export_with_optimum
from mobilenmt.runtime.errors import CheckpointError, ExportError
from tiny_models import ENGLISH, WORDS, make_checkpoint, make_opus_checkpoint, sentences

KINDS: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "student": (make_checkpoint, [" ".join(WORDS[i % 30 : i % 30 + 2 + i % 9]) for i in range(100)]),
    "opus": (make_opus_checkpoint, sentences(ENGLISH, 3, 100)),
}
LENGTH = 12


@pytest.fixture(scope="module", params=KINDS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A checkpoint, its folder by optimum, which the exporter compared with torch on three lines, and 100 lines."""
    make, lines = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = make(folder / "checkpoint")
    (folder / "lines.txt").write_text("\n".join(lines[:3]), encoding="utf-8")
    out = folder / "onnx-folder"
    assert main(["export", "--via", "optimum", str(checkpoint), str(out), "--check", str(folder / "lines.txt")]) == 0
    return checkpoint, out, lines


def reference(checkpoint: Path, lines: list[str]) -> list[tuple[list[int], list[int]]]:
    """Source ids and torch's greedy ids of each line, with the checkpoint's own tokenizer."""
    import torch
    from transformers import AutoTokenizer, MarianMTModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = MarianMTModel.from_pretrained(checkpoint).eval()
    found = []
    for line in lines:
        ids = [*tokenizer(line, add_special_tokens=False).input_ids, 0]
        output = model.generate(torch.tensor([ids]), num_beams=1, do_sample=False, max_length=LENGTH)
        found.append((ids, output[0].tolist()))
    return found


def one_thread() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def test_ortmodel_gives_the_ids_of_torch_on_100_lines(exported: tuple[Path, Path, list[str]]) -> None:
    from optimum.onnxruntime import ORTModelForSeq2SeqLM
    from transformers import AutoTokenizer

    checkpoint, out, lines = exported
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    graphs = {
        f"onnx/{stem}{kind}.onnx" for stem in ("encoder_model", "decoder_model_merged") for kind in ("", "_quantized")
    }
    assert {name for name in names if name.endswith(".onnx")} == graphs
    assert names - graphs >= {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = AutoTokenizer.from_pretrained(out)
    model = ORTModelForSeq2SeqLM.from_pretrained(out, subfolder="onnx", session_options=one_thread())
    for line, (source, wanted) in zip(lines, reference(checkpoint, lines), strict=True):
        inputs = tokenizer(line, return_tensors="pt")
        assert inputs["input_ids"][0].tolist() == source, line
        given = {key: inputs[key] for key in ("input_ids", "attention_mask")}
        assert model.generate(**given, num_beams=1, do_sample=False, max_length=LENGTH)[0].tolist() == wanted, line


def test_ortmodel_opens_the_int8_graphs_where_they_stand_alone(
    exported: tuple[Path, Path, list[str]], tmp_path: Path
) -> None:
    from optimum.onnxruntime import ORTModelForSeq2SeqLM

    out = shutil.copytree(exported[1], tmp_path / "int8", ignore=shutil.ignore_patterns("*model.onnx", "*merged.onnx"))
    model = ORTModelForSeq2SeqLM.from_pretrained(out, subfolder="onnx")
    assert model.encoder.path.name == "encoder_model_quantized.onnx"
    import torch

    assert model.generate(torch.tensor([[5, 6, 7, 0]]), num_beams=1, max_length=9).shape[1] > 1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "q8"])
def test_transformers_js_gives_the_ids_of_torch(
    exported: tuple[Path, Path, list[str]], dtype: str, tmp_path: Path
) -> None:
    """Needs node, and TRANSFORMERS_JS: the folder in which @huggingface/transformers was installed with
    ``npm install --ignore-scripts``."""
    home = os.environ.get("TRANSFORMERS_JS")
    if shutil.which("node") is None or home is None:
        pytest.skip("needs node, and TRANSFORMERS_JS=FOLDER with npm's @huggingface/transformers in it")
    checkpoint, out, lines = exported
    pairs = list(zip(lines, reference(checkpoint, lines), strict=True))
    pairs = [(line, pair) for line, pair in pairs if 1 not in pair[0]]  # pieces without an id: tokenizer.json has none
    assert len(pairs) > 20
    lines, wanted = [line for line, _ in pairs], [pair for _, pair in pairs]
    (tmp_path / "lines.json").write_text(json.dumps([{"text": line, "length": LENGTH} for line in lines]))
    module = Path(home) / "node_modules/@huggingface/transformers/dist/transformers.node.mjs"
    script = Path(__file__).with_name("translate.mjs")
    command = ["node", str(script), str(module), str(out), dtype, str(tmp_path / "lines.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    assert [item["source"] for item in found] == [source for source, _ in wanted]
    same = sum(item["ids"] == ids for item, (_, ids) in zip(found, wanted, strict=True))
    assert same == len(lines) if dtype == "fp32" else same > 0  # random weights: INT8 parts from fp32 early


def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    out = tmp_path / "out"

    def refused(*arguments: object) -> str:
        capsys.readouterr()
        assert main(["export", "--via", "optimum", str(checkpoint), str(out), *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert {path.name for path in tmp_path.iterdir()} <= {"checkpoint", "empty.txt", "mine"}
        return error

    assert "it takes no --name, --no-split" in refused("--name", "x", "--no-split")
    assert "it takes no --form, --target" in refused("--form", "int8", "--target", "npu", "--calibration", "text")
    assert "need --target npu" in refused("--buckets", "32")
    (tmp_path / "empty.txt").write_text("\n")
    assert "empty.txt: there is nothing to translate" in refused("--check", tmp_path / "empty.txt")
    assert main(["export", str(checkpoint), str(out), "--check", str(tmp_path / "empty.txt")]) == 2
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        export_with_optimum(tmp_path / "none", out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ExportError, match="mine exists already"):
        export_with_optimum(checkpoint, tmp_path / "mine")
    with pytest.raises(ExportError, match=r"mine is not replaced: it holds letter\.txt"):
        export_with_optimum(checkpoint, tmp_path / "mine", force=True)

    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("no such operator\nand more")

    monkeypatch.setattr(optimum_export, "_optimum", lambda: (broken, None, None, None))
    with pytest.raises(ExportError, match=r"optimum cannot export .*: no such operator$"):
        export_with_optimum(checkpoint, out)
    monkeypatch.undo()
    monkeypatch.setitem(__import__("sys").modules, "optimum.exporters.onnx", None)
    assert "install the extra 'optimum'" in refused()


def test_graphs_that_translate_otherwise_are_noticed(exported: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    from mobilenmt.export.checkpoint import load_checkpoint
    from mobilenmt.export.ecosystem.optimum_check import check_folder

    checkpoint, out, lines = exported
    other = make_checkpoint(tmp_path / "other", seed=9, **_sizes(checkpoint))
    kept = ("tokenizer*", "*.spm", "*vocab.json", "generation_config.json")
    for path in (path for pattern in kept for path in checkpoint.glob(pattern)):
        shutil.copy(path, other / path.name)
    with pytest.raises(ExportError, match="into other ids than torch"):
        check_folder(out, load_checkpoint(other), lines[:3], int8=False)


def _sizes(checkpoint: Path) -> dict[str, Any]:
    config = json.loads((checkpoint / "config.json").read_text())
    names = ("vocab_size", "max_position_embeddings", "pad_token_id", "decoder_start_token_id")
    return {name: config[name] for name in names}
