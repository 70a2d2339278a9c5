"""The whole chain on a made-up language: text in, a pack out, as good as its teacher; and what stops it beforehand."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Literal, NamedTuple

import html5lib
import numpy as np
import onnx
import pytest

from command_line import environment
from mobilenmt import Translator, cli
from mobilenmt.compression.chain.chain import Chain
from mobilenmt.compression.chain.recipe import load_recipe
from mobilenmt.compression.chain.table import STAGES
from mobilenmt.compression.core.errors import RecipeError
from mobilenmt.compression.core.pairs import read_pairs
from mobilenmt.compression.pack.estimate import estimate_pack_bytes
from mobilenmt.compression.pack.shortlist import ShortlistSettings
from mobilenmt.compression.pack.stage import ExportSettings
from mobilenmt.compression.teacher.stage import settings_of
from mobilenmt.compression.train.size import count_parameters
from mobilenmt.compression.train.stage import distill_settings
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.export.export import export
from mobilenmt.export.shortlist import Shortlist
from mobilenmt.runtime.pack import Pack
from places import ROOT
from tiny_models import default_signals, make_checkpoint

pytest.importorskip("sacrebleu")

TOY = ROOT / "examples" / "toy"
ITS_STAGES = tuple(name for name in STAGES if name != "prune")  # the example prunes nothing
MAX_PROCESSOR_SECONDS = 120


def make_text() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_text", TOY / "make_text.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_text"] = module  # its NamedTuple looks for it there
    spec.loader.exec_module(module)
    return module


def compress(*arguments: object, **options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mobilenmt", "compress", *map(str, arguments)]
    env = environment(PYTHONWARNINGS="default", **options)
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with its text."""
    folder = tmp_path_factory.mktemp("example") / "toy"
    shutil.copytree(TOY, folder, ignore=shutil.ignore_patterns("text", "work", "__pycache__"))
    make_text().main(folder / "text")
    return folder


class Made(NamedTuple):
    work: Path
    recipe: Path
    seconds: float
    """Processor time of the command and of the processes it started."""


@pytest.fixture(scope="module")
def made(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """What one call of the command makes of the example."""
    work = tmp_path_factory.mktemp("made") / "work"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = compress(toy / "recipe.toml", "--work", work)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(work / "report.md")
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Made(work, toy / "recipe.toml", seconds)


def stamps(work: Path) -> dict[str, int]:
    """When each stage was finished."""
    return {path.parent.name: path.stat().st_mtime_ns for path in work.glob("*/manifest.json")}


def test_text_and_vocabulary_are_made_without_the_libraries_of_training(toy: Path, tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys(["accelerate", "matplotlib", "onnx", "sacrebleu", "torch", "transformers"]))
from mobilenmt import cli
rest = [{str(toy / "recipe.toml")!r}, "--work", {str(tmp_path / "work")!r}]
sys.exit(cli.main(["corpus", *rest]) or cli.main(["vocabulary", *rest]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment())
    assert (done.returncode, (tmp_path / "work" / "vocabulary" / "tokenizer.json").is_file()) == (0, True), done.stderr


# --- the chain --------------------------------------------------------------------------------------------------------


def test_the_student_is_as_good_as_its_teacher(made: Made) -> None:
    scores = json.loads((made.work / "evaluate" / "scores.json").read_text())
    found = {system["name"]: system["scores"] for system in scores["systems"]}
    assert set(found) == {"student fp32", "pack", "teacher"}
    for name in ("dev", "test"):
        teacher = found["teacher"][name]["bleu"]
        assert teacher > 90  # it has learned the language, so that the comparison means something
        assert found["student fp32"][name]["bleu"] >= teacher - 2
        assert found["pack"][name]["bleu"] >= teacher - 2
    assert made.seconds < MAX_PROCESSOR_SECONDS


def test_the_pack_translates_sentences_it_has_never_seen(made: Made) -> None:
    text = make_text()
    known = {source for pairs in text.sentences().values() for source, _ in pairs}
    phrases = [text.Phrase("two", "old", "dog"), text.Phrase("the", "red", "bird"), text.Phrase("three", "", "woman")]
    pairs = [
        text.translate(one, verb, other, form)
        for one in phrases
        for other in phrases
        for verb in ("see", "help")
        for form in ("past", "never", "question")
        if one != other
    ]
    fresh = [pair for pair in pairs if pair[0] not in known]
    assert len(fresh) > 20
    translator = Translator(made.work / "export" / "toy")
    found = [item.text for item in translator.translate_batch([source for source, _ in fresh])]
    right = sum(text == target for text, (_, target) in zip(found, fresh, strict=True))
    assert right >= 0.9 * len(fresh)


def test_the_pack_says_what_it_is_made_of(made: Made) -> None:
    pack = Pack.open(made.work / "export" / "toy")
    manifest = pack.manifest
    assert (manifest.name, manifest.source_language, manifest.target_language) == ("toy", "en", "qaa")
    assert manifest.precision == "int8"
    assert manifest.card["training_data"] == [{"corpus": "toy", "pairs": 700}]


def test_a_report_for_people_and_one_for_programs(made: Made) -> None:
    text = (made.work / "report.md").read_text()
    for word in (
        "# toy: en to qaa",
        "| corpus | pairs | 700 |",
        "## Scores",
        "tok:13a",
        "Lost by the pack",
        "student fp32",
    ):
        assert word in text
    page = (made.work / "report.html").read_text(encoding="utf-8")
    html5lib.HTMLParser(strict=True).parse(page)
    for word in ("<h1>toy: en to qaa</h1>", "700 pairs", "student fp32", "Learning curves", "Examples", "distilled"):
        assert word in page
    assert "not a whole run" not in page
    value = json.loads((made.work / "report.json").read_text())
    assert list(value["stages"]) == list(ITS_STAGES)
    assert value["stages"]["export"]["parameters"] == value["stages"]["distill"]["parameters"]


def test_done_is_done(made: Made) -> None:
    before = stamps(made.work)
    assert set(before) == set(ITS_STAGES)
    done = compress(made.recipe, "--work", made.work)
    assert done.returncode == 0, done.stderr
    assert stamps(made.work) == before
    assert done.stderr.count("done before") == len(ITS_STAGES)


def test_a_pack_that_came_out_larger_than_it_may_is_said(made: Made) -> None:
    done = compress(made.recipe, "--work", made.work, "--set", "export.max_bytes=100000")
    assert done.returncode == 0
    took = Pack.open(made.work / "export" / "toy").total_bytes
    assert f"takes {took:,} bytes, {took - 100_000:,} more than the 100,000 it may" in done.stderr


def test_a_change_is_refused_and_with_force_only_its_stages_are_made_again(made: Made) -> None:
    before = stamps(made.work)
    change = ("--set", "evaluate.test=[]", "--set", "evaluate.teacher=false")
    done = compress(made.recipe, "--work", made.work, *change)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert (
        "evaluate was made with other settings" in last
        and "--force" in last
        and "teacher was true and is false" in last
    )
    assert stamps(made.work) == before
    done = compress(made.recipe, "--work", made.work, *change, "--force")
    assert done.returncode == 0, done.stderr
    after = stamps(made.work)
    assert {stage for stage in ITS_STAGES if after[stage] != before[stage]} == {"evaluate"}


def test_ctrl_c_ends_with_130_and_the_next_call_goes_on(toy: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    options = ("--work", work, "--until", "teacher_model", "--set", "teacher_model.steps=14", "--set")
    arguments = [toy / "recipe.toml", *options, "teacher_model.log_every=1"]
    command = [sys.executable, "-m", "mobilenmt", "compress", *map(str, arguments)]
    env = environment(PYTHONWARNINGS="default")
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=env, preexec_fn=default_signals) as child:
        log = work / "teacher_model" / "log.jsonl"
        for _ in range(2400):
            if log.is_file() and log.read_text().count("\n") >= 3:
                break
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        assert child.stderr is not None
        told = child.stderr.read().decode()
        assert child.wait(60) == 130
    assert "Traceback" not in told and told.splitlines()[-1].startswith("mobilenmt: error: stopped by Ctrl-C")
    done = compress(*arguments)
    assert done.returncode == 0, done.stderr
    assert "corpus (done before)" in done.stderr and "teacher_model (done before)" not in done.stderr
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == 14  # went on where it was: no update twice


# --- before the start -------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    assert cli.main(["compress", str(toy / "recipe.toml"), "--work", str(work), "--dry-run"]) == 0
    text = capsys.readouterr().out
    for word in (*ITS_STAGES, "to do", "149,184 parameters", "bytes", "GB free"):
        assert word in text
    assert not work.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["distill.stepz=3"], ["recipe.toml: distill.stepz", "no such setting"]),
        (["student.d_model=wide"], ["student.d_model", "expected an integer, found 'wide'"]),
        (["student.d_model=66"], ["encoder_attention_heads", "4 does not divide"]),
        (["corpus.sources=[{paths = ['none.tsv']}]"], ["none.tsv", "no such file"]),
        (["distill.dev=['none.tsv']"], ["none.tsv"]),
        (["distill.dev=['/dev/zero']"], ["/dev/zero", "not a regular file"]),
        (["evaluate.dev=['/dev/zero']"], ["/dev/zero", "not a regular file"]),
        (["corpus.held_out=['.']"], ["corpus.held_out", "Is a directory"]),
        (["evaluate.test=['none.tsv']"], ["none.tsv"]),
        (["evaluate.peers={x = ['recipe.toml']}"], ["recipe.toml", "fit no one test set"]),
        (["export.card='none.json'"], ["none.json", "card"]),
        (["export.card='make_text.py'"], ["make_text.py", "card"]),
        (["teacher.checkpoint=./nowhere/model"], ["nowhere/model", "no such checkpoint"]),
        (["distill.initial='text'"], ["distill.initial", "no checkpoint folder"]),
        (["distill.max_tokens=512"], ["512", "max_position_embeddings"]),
        (["source_language=English"], ["source_language", "expected a code"]),
        (["vocabulary.size=12"], ["vocabulary.size"]),
    ],
)
def test_mistakes_are_told_before_anything_is_made(
    change: list[str], words: list[str], toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    options = [part for item in change for part in ("--set", item)]
    assert cli.main(["compress", str(toy / "recipe.toml"), "--work", str(work), *options]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith("mobilenmt: error: ")
    assert all(word in told for word in words), told
    assert not work.exists()


def test_a_stage_that_the_recipe_lacks(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.toml"
    lines = (toy / "recipe.toml").read_text().replace('"text/', f'"{toy}/text/')
    recipe.write_text(lines.replace("[teacher_model.shape]", "[unknown]").replace("[teacher_model]", "[teacher_modl]"))
    assert cli.main(["compress", str(recipe)]) == 2
    assert "teacher_modl: no such setting or section" in capsys.readouterr().err
    head, _, rest = lines.partition("[teacher_model]")
    recipe.write_text(head + "[student]" + rest.partition("[student]")[2])
    chain = Chain(load_recipe(recipe), tmp_path / "work")
    assert chain.stages == ("corpus", "vocabulary", "distill", "export", "evaluate")
    assert chain.text == chain.pairs  # no teacher: the references
    for arguments in (["compress", str(recipe), "--until", "teacher"], ["teacher", str(recipe), "--train"]):
        assert cli.main(arguments) == 2
        assert "no" in capsys.readouterr().err


def test_the_whole_chain_is_no_command_for_several_processes(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["compress", str(toy / "recipe.toml")]) == 2
    assert "accelerate launch is for mobilenmt distill" in capsys.readouterr().err


@pytest.mark.parametrize("work", ["file", "file/x", "link"])
def test_a_work_folder_that_cannot_be_is_noticed_beforehand(
    work: str, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    assert cli.main(["compress", str(toy / "recipe.toml"), "--dry-run", "--work", str(tmp_path / work)]) == 2
    assert f"{tmp_path / work.removesuffix('/x')} is no folder" in capsys.readouterr().err


def test_a_recipe_that_is_no_regular_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert cli.main(["compress", str(tmp_path / "pipe"), "--dry-run"]) == 2
    assert "not a regular file" in capsys.readouterr().err


def test_a_full_disk_is_noticed_beforehand(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10**6, used=10**6, free=1000))
    assert cli.main(["compress", str(toy / "recipe.toml"), "--work", str(tmp_path / "work")]) == 2
    assert "make room" in capsys.readouterr().err


def test_a_pack_that_will_be_too_large_is_warned_of(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compress", str(toy / "recipe.toml"), "--dry-run", "--work", str(tmp_path / "work"), "--set"]
    assert cli.main([*arguments, "export.max_bytes=100000"]) == 0
    assert "warning: the pack will take about" in capsys.readouterr().out
    assert cli.main([*arguments, "export.max_bytes=1000000"]) == 0
    assert "warning" not in capsys.readouterr().out


def test_the_teacher_of_a_chain_is_the_one_trained_in_it(toy: Path, tmp_path: Path) -> None:
    chain = Chain(load_recipe(toy / "recipe.toml", ["distill.word_level=0.5"]), tmp_path / "work")
    own = tmp_path / "work" / "teacher_model" / "checkpoint"
    assert Path(settings_of(chain).checkpoint) == own and distill_settings(chain).teacher == own
    elsewhere = Chain(load_recipe(toy / "recipe.toml", ["teacher.checkpoint=owner/model"]), tmp_path / "work")
    assert settings_of(elsewhere).checkpoint == "owner/model"
    with pytest.raises(RecipeError, match=r"teacher\.quantize: only for the teacher that"):
        settings_of(
            Chain(load_recipe(toy / "recipe.toml", ["teacher.checkpoint=a", "teacher.quantize=true"]), tmp_path)
        )


def test_a_quantized_teacher_translates_as_its_pack_does(made: Made, toy: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for stage in ("corpus", "vocabulary", "teacher_model"):
        shutil.copytree(made.work / stage, work / stage)
    chain = Chain(load_recipe(toy / "recipe.toml", ["teacher.quantize=true", "teacher.search=greedy"]), work)
    chain.run("teacher")
    pack = Pack.open(work / "teacher_pack" / chain.recipe.name, verify=True)
    assert pack.manifest.precision == "int8"
    translator = Translator(pack.path)
    pairs = list(read_pairs(chain.text))[:50]
    same = [translator.translate(pair.source) == pair.target for pair in pairs]
    assert sum(same) >= 45  # put together, sentences share a scale


def test_a_teacher_that_translates_nothing_gives_the_student_layers_and_distributions(
    toy: Path, tmp_path: Path
) -> None:
    changes = ["distill.text=references", "distill.word_level=0.5", "distill.initial_layers=spread"]
    chain = Chain(load_recipe(toy / "recipe.toml", changes), tmp_path / "work")
    assert chain.stages == ("corpus", "vocabulary", "teacher_model", "distill", "export", "evaluate")
    assert chain.text == chain.pairs
    found = distill_settings(chain)
    assert found.initial == found.teacher == chain.teacher_checkpoint.absolute()
    with pytest.raises(RecipeError, match=r"distill\.text is 'references'"):
        chain.run("teacher")


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [
        StudentShape(d_model=64, encoder_layers=3, decoder_layers=1, encoder_ffn_dim=96, decoder_ffn_dim=32),
        StudentShape(),
    ],
)
def test_parameters_are_counted_as_torch_counts_them(shape: StudentShape) -> None:
    import torch
    from transformers import MarianConfig, MarianMTModel

    fields = {name: getattr(shape, name) for name in shape.__dataclass_fields__}
    with torch.device("meta"):
        model = MarianMTModel(MarianConfig(**fields, vocab_size=700, decoder_vocab_size=700, pad_token_id=699))
    trained = {id(item): item.numel() for name, item in model.named_parameters() if "embed_positions" not in name}
    assert count_parameters(shape, 700) == sum(trained.values())


@pytest.mark.parametrize("pack", ["tiny", "shipped"])
def test_pack_bytes_are_estimated_within_a_few_percent(pack: str, made: Made) -> None:
    shipped = ROOT / "models" / "en-de"
    opened = Pack.open(made.work / "export" / "toy" if pack == "tiny" else shipped)
    model = opened.manifest.model
    shape = StudentShape(
        **{name: getattr(model, name) for name in StudentShape.__dataclass_fields__ if hasattr(model, name)}
    )
    graph = onnx.load(str(opened.file("greedy.onnx")), load_external_data=False).graph
    lexical = [tensor.dims for tensor in graph.initializer if tensor.name == "shortlist.lexical"]
    assert bool(lexical) == (pack == "shipped")
    sizes = ShortlistSettings(per_token=lexical[0][1]) if lexical else None
    found = estimate_pack_bytes(shape, model.source_vocab_size, "int8", shortlist=sizes)
    assert found == pytest.approx(opened.total_bytes, rel=0.05)
    tokenizer = opened.manifest.files["tokenizer.json"].bytes
    found = estimate_pack_bytes(shape, model.source_vocab_size, "int8", shortlist=sizes, tokenizer_bytes=tokenizer)
    assert found == pytest.approx(opened.total_bytes, rel=0.01)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize(
    ("width", "limited", "close"),
    [
        (32, True, 0.01),  # a block a row
        (48, True, 0.01),  # three blocks a row
        (24, False, 0.05),  # no whole number of blocks
    ],
)
def test_pack_bytes_are_estimated_for_every_width_and_precision(
    width: int, limited: bool, close: float, precision: Literal["int8", "fp32"], tmp_path: Path
) -> None:
    shape = StudentShape(
        d_model=width,
        encoder_layers=2,
        decoder_layers=1,
        encoder_ffn_dim=2 * width,
        decoder_ffn_dim=3 * width,
        max_position_embeddings=64,
    )
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **asdict(shape), output_bias=False)
    limited = limited and precision == "int8"
    chosen = Shortlist(np.arange(20), np.zeros((344, 6), np.int32)) if limited else False
    pack = export(checkpoint, tmp_path / "pack", precision=precision, shortlist=chosen)
    found = estimate_pack_bytes(
        shape,
        344,
        precision,
        shortlist=ShortlistSettings(common=20, per_token=6) if limited else None,
        tokenizer_bytes=pack.manifest.files["tokenizer.json"].bytes,
        native_bytes=pack.manifest.files["native.bin"].bytes if precision == "int8" else None,
    )
    assert found == pytest.approx(pack.total_bytes, rel=close)


def test_the_estimate_knows_when_a_pack_gets_a_shortlist() -> None:
    settings = ExportSettings()
    assert settings.shortlist_for(2000) is settings.shortlist and settings.shortlist_for(1999) is None
    assert ExportSettings(shortlist_sentences=0).shortlist_for(8000) is None
    assert ExportSettings(precision="fp32").shortlist_for(8000) is None
