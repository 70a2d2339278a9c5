"""The whole: a checkpoint folder in, a checkpoint folder out that every reader opens; the command; bad input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from command_line import environment
from mobilenmt import cli
from mobilenmt.compression.prune.prune import prune
from mobilenmt.compression.prune.settings import HowToPrune
from mobilenmt.compression.prune.target import parse_target
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.export.checkpoint import load_checkpoint
from mobilenmt.export.export import export
from tiny_models import default_signals
from training_data import opened, prunable, toy_pairs, write_dev

TARGET = "d_model=24,encoder_layers=1,encoder_attention_heads=3,encoder_ffn_dim=32,decoder_ffn_dim=48"

TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prunable(tmp_path_factory.mktemp("model") / "checkpoint")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dev(tmp_path_factory.mktemp("text") / "text.tsv", 120)


@pytest.fixture(scope="module")
def pruned(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "pruned"
    shape = parse_target(TARGET, load_checkpoint(model).config, 0)
    prune(model, out, shape, toy_pairs(100), HowToPrune())
    return out


def test_transformers_opens_it_and_says_what_the_network_says(pruned: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM

    opened_model, told = AutoModelForSeq2SeqLM.from_pretrained(pruned, output_loading_info=True)
    assert not any(told.values())
    network, _, calibration = opened(pruned)
    batch = calibration.batches[0]
    with torch.inference_mode():
        wanted = network.logits(network.states(batch))
        found = opened_model.eval()(
            input_ids=batch.source, attention_mask=batch.source_mask, decoder_input_ids=batch.decoder_input
        ).logits
    torch.testing.assert_close(found[batch.target_mask], wanted[batch.target_mask], rtol=1e-4, atol=1e-4)
    raw = json.loads((pruned / "config.json").read_text())
    assert (raw["d_model"], raw["encoder_layers"], raw["num_hidden_layers"], raw["encoder_ffn_dim"]) == (24, 1, 1, 32)


def test_it_exports_and_ctranslate2_says_the_same(pruned: Path, tmp_path: Path) -> None:
    pack = export(pruned, tmp_path / "en-de", precision="int8")
    assert pack.manifest.model.parameters == load_checkpoint(pruned).parameters
    ctranslate2 = pytest.importorskip("ctranslate2")
    from transformers import MarianMTModel

    (pruned / "tokenizer_config.json").write_text(json.dumps(TOKENIZER))
    ctranslate2.converters.TransformersConverter(str(pruned)).convert(str(tmp_path / "ct2"))
    (pruned / "tokenizer_config.json").unlink()
    translator = ctranslate2.Translator(str(tmp_path / "ct2"), compute_type="float32")
    vocabulary = Vocabulary.load(pruned)
    reference = MarianMTModel.from_pretrained(pruned).eval()
    for ids in ([5, 9, 12, 0], [20, 21, 0]):
        with torch.inference_mode():
            wanted = reference.generate(torch.tensor([ids]), num_beams=1, max_length=12)[0].tolist()
        expected = [index for index in wanted if index not in (vocabulary.pad, vocabulary.eos)]
        found = translator.translate_batch([vocabulary.pieces(ids)], beam_size=1, max_decoding_length=len(expected))
        assert found[0].hypotheses[0] == vocabulary.pieces(expected)


def test_a_report_lies_beside_the_weights(pruned: Path) -> None:
    told = json.loads((pruned / "prune.json").read_text())
    assert told["before"]["parameters"] > told["after"]["parameters"] == load_checkpoint(pruned).parameters
    assert len(told["channels"]) == 24 and len(told["layers"]["encoder"]) == 1
    gone = 1 - told["layers"]["encoder"][0]
    page = (pruned / "prune.md").read_text()
    assert f"| encoder.{gone}.ffn | nothing: the layer is gone |" in page
    assert (pruned / "prune.png").read_bytes().startswith(b"\x89PNG")


def command(*arguments: object) -> int:
    return cli.main(["prune", *map(str, arguments)])


def test_the_command_prunes_and_moves_the_vocabulary(
    model: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from test_pruned_vocabulary import bpe

    new = bpe(tmp_path / "new")
    assert command(model, tmp_path / "out", "--to", "d_model=16", "--text", text, "--vocabulary", new) == 0
    assert "parameters, loss on the text" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "out").config.vocab_size == 400
    assert command(model, tmp_path / "out", "--to", "d_model=16", "--text", text) == 2
    assert "is there already" in capsys.readouterr().err


def test_what_will_not_do_is_one_line_and_leaves_nothing(
    model: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    broken = prunable(tmp_path / "broken")
    from safetensors.torch import load_file, save_file

    weights = load_file(broken / "model.safetensors")
    weights["model.encoder.layers.0.fc1.weight"][0, 0] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "short.tsv").write_text("the dog\tder Hund\n" * 3)
    cases = [
        ((model, out, "--text", text), "say what is to be left"),
        ((model, out, "--to", "d_model=16"), "give parallel text"),
        ((model, out, "--to", "d_model=64", "--text", text), "d_model is 32, 64 is wanted"),
        ((model, text / "out", "--to", "d_model=16", "--text", text), f"cannot be written: {text} is no folder"),
        ((broken, out, "--to", "d_model=16", "--text", text), "NaN"),
        ((model, out, "--to", "d_model=16", "--text", tmp_path / "short.tsv"), "too short"),
        ((tmp_path / "nothing", out, "--to", "d_model=16", "--text", text), "no such checkpoint folder"),
        ((model, out, "--to", "d_model=16", "--text", text, "--sentences", "0"), "sentences: must be from 1"),
    ]
    for arguments, message in cases:
        assert command(*arguments) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("mobilenmt: error:") and message in last
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "t5"}')
    assert command(other, out, "--to", "d_model=16", "--text", text) == 2
    assert "'t5' is not supported" in capsys.readouterr().err
    assert not out.exists() and not list(tmp_path.glob("*.tmp-*"))


def test_a_full_disk_is_one_line_and_leaves_what_was_there(model: Path, text: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: configuration fits, weights do not."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    code = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from mobilenmt import cli
sys.exit(cli.main(sys.argv[1:]))
"""
    arguments = ["prune", str(model), str(out), "--to", "d_model=16", "--text", str(text), "--force"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, env=environment()
    )
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and last.startswith(f"mobilenmt: error: {out}: cannot be written"), done.stderr
    assert [path.name for path in out.iterdir()] == ["old"] and not list(tmp_path.glob("*tmp-*"))


def test_killed_at_any_moment_it_leaves_the_old_or_the_new(model: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    called = [sys.executable, "-m", "mobilenmt", "prune", model, out, "--to", "d_model=16", "--text", text]
    process = subprocess.Popen(
        [*map(str, called)], env=environment(), stderr=subprocess.DEVNULL, preexec_fn=default_signals
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out.tmp-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    process.wait()
    if out.exists():
        load_checkpoint(out)
    assert not list(tmp_path.glob("*.tmp-*"))
