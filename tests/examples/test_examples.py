"""The recipes in examples/en-de and sizes: each passes every check beforehand, and its pack fits what it promises."""

from __future__ import annotations

import lzma
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import environment
from made_up_pairs import make_pairs, write_tsv
from mobilenmt.compression.chain.chain import Chain
from mobilenmt.compression.chain.compress import compress, plan
from mobilenmt.compression.chain.recipe import load_recipe
from mobilenmt.compression.chain.sizes import chains_of_sizes
from mobilenmt.compression.chain.table import settings_class
from mobilenmt.compression.core.pairs import Pair, PairWriter
from mobilenmt.compression.train.stage import distill_settings
from mobilenmt.compression.train.student import StudentShape, make_student, save_checkpoint
from mobilenmt.compression.vocabulary.stage import VocabularySettings
from mobilenmt.compression.vocabulary.stage import run as train_vocabulary
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.runtime.pack import Pack
from places import ROOT

pytest.importorskip("sacrebleu")

RECIPES = ROOT / "examples" / "en-de"
TAGS = ("tatoeba:t.en-de", "msdocs_sxs:msdocs_HT.en-de", "multi30k:m.en-de")
STARTS = {"cpu.toml": StudentShape(192, 4, 1, 4, 4, 768, 768)}
"""Recipes that go on from a checkpoint of another one, and its shape."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The recipes, beside stand-ins for their text."""
    for file in (*RECIPES.glob("*.toml"), RECIPES / "card.json"):
        shutil.copy(file, tmp_path)
    pairs = make_pairs(1500)
    train, rest = pairs[:1200], pairs[1200:]
    (tmp_path / "data" / "train").mkdir(parents=True)
    for number, part in enumerate(("human", "machine", "docs")):
        text = "".join(
            f"{a}\t{b}\t{TAGS[(number + line) % 3]}\n" for line, (a, b) in enumerate(train[number * 400 :][:400])
        )
        with lzma.open(tmp_path / "data" / "train" / f"en-de.{part}.tsv.xz", "wt", encoding="utf-8") as stream:
            stream.write(text)
    for kind, names in (
        ("dev", ("flores_dev", "multi30k_val", "newstest2013", "tatoeba1000")),
        ("test", ("flores200_devtest", "multi30k_2016", "newstest2014_sacrebleu2737", "tatoeba1000")),
    ):
        (tmp_path / "data" / "eval" / kind).mkdir(parents=True)
        for name in names:
            write_tsv(tmp_path / "data" / "eval" / kind / f"{name}.en-de.tsv", rest[:20])
            rest = rest[20:]
    (tmp_path / "data" / "eval" / "peers").mkdir()
    for test in ("flores200_devtest", "newstest2014_sacrebleu2737"):
        for peer in ("bergamot-tiny", "bergamot-base-memory", "google", "microsoft"):
            (tmp_path / "data" / "eval" / "peers" / f"{test}.{peer}.de").write_text("Hallo.\n" * 20, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", sorted(path.name for path in RECIPES.glob("*.toml")))
def test_every_recipe_is_ready_to_start(folder: Path, name: str) -> None:
    chain = Chain(load_recipe(folder / name), folder / "run")
    if name in STARTS:
        _checkpoint(folder, STARTS[name], chain.recipe.section(settings_class("teacher_model")).initial)
    found = plan(chain)
    assert found.warnings == ()
    assert 3_000_000 < found.pack_bytes <= 10_000_000
    assert found.stages[0] == "corpus" and found.stages[-1] == "evaluate"
    assert {path.parent.name for path in chain.recipe.section(settings_class("evaluate")).test} == {"test"}
    for settings in [
        distill_settings(chain),
        *(chain.recipe.section(settings_class(key)) for key in ("teacher_model",) if chain.recipe.has(key)),
    ]:
        assert {path.parent.name for path in settings.dev} == {"dev"}  # nothing is chosen by a test set
    assert [str(path) for path in chain.recipe.section(settings_class("corpus")).held_out] == [
        str(folder / "data/eval/*/*.tsv")
    ]


def test_the_recipe_of_three_sizes_is_ready_to_start(folder: Path) -> None:
    shutil.copy(ROOT / "examples" / "sizes" / "recipe.toml", folder)
    _checkpoint(folder, StudentShape(256, 6, 2, 4, 4, 1024, 768), folder / "start")
    sizes = {"5MB": 5_000_000, "10MB": 10_000_000, "20MB": 20_000_000}
    chains = chains_of_sizes(folder / "recipe.toml", folder / "run", list(sizes), ["vocabulary.size=500"])
    for chain, most in zip(chains, sizes.values(), strict=True):
        found = plan(chain)
        assert found.warnings == ()
        assert 0.9 * most < found.pack_bytes <= most
        wanted = ["corpus", "vocabulary", "teacher_model", "prune", "distill", "export", "evaluate"]
        assert list(found.stages) == wanted  # the teacher writes no text: it is heard word by word
        evaluated = chain.recipe.section(settings_class("evaluate"))
        trained = [distill_settings(chain), chain.recipe.section(settings_class("teacher_model"))]
        assert {path.parent.name for part in (*trained, evaluated) for path in part.dev} == {"dev"}
        assert evaluated.test == ()


@pytest.mark.slow
def test_the_recipe_for_an_accelerator_runs_from_end_to_end(folder: Path) -> None:
    """All of gpu.toml, small: what needs hours must not fail at its last stage for a mistake in the recipe."""
    shape = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    training = {"steps": 12, "batch_tokens": 1024, "dev_every": 6, "warmup_steps": 4, "threads": 1, "device": "cpu"}
    small = [f"student.{key}={value}" for key, value in shape.items()]
    small += [f"teacher_model.shape.{key}={value}" for key, value in {**shape, "decoder_layers": 2}.items()]
    small += [f"{section}.{key}={value}" for section in ("teacher_model", "distill") for key, value in training.items()]
    small += ["teacher_model.average_every=3", "vocabulary.size=500", "teacher.threads=1", "teacher.batch_tokens=2048"]
    chain = Chain(load_recipe(folder / "gpu.toml", small), folder / "run")
    results = compress(chain, report=lambda line: None)
    assert list(results) == list(chain.stages)
    assert set(results["evaluate"].summary["scores"]) >= {"student fp32", "pack", "teacher", "google"}
    assert Pack.open(chain.pack, verify=True).manifest.model.d_model == 32


def _checkpoint(folder: Path, shape: StudentShape, path: Path) -> None:
    with PairWriter(folder / "pairs.tsv.zst") as writer:
        for source, target in make_pairs(300):
            writer.write(Pair(source, target, "t"))
    settings = VocabularySettings(size=500)
    result = train_vocabulary(settings, folder / "vocabulary", pairs=folder / "pairs.tsv.zst", languages=("en", "de"))
    vocabulary = Vocabulary.load(result.folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(make_student(shape, vocabulary, seed=1), vocabulary, path)


def test_user_text_is_made_from_dev_sets(tiny_pack: Path, tmp_path: Path) -> None:
    write_tsv(tmp_path / "dev.tsv", [*make_pairs(20), ("Where is it?", "Wo ist es?"), ("Here it is.", "Hier ist es.")])
    (tmp_path / "words.tsv").write_text("house\tHaus\nhouse\tGebäude\n", encoding="utf-8")
    command = [sys.executable, RECIPES / "user_text.py", tiny_pack, "--dev", tmp_path / "dev.tsv"]
    done = subprocess.run(
        [*map(str, command), "--words", str(tmp_path / "words.tsv")], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    rows = dict(line.strip("| ").split(" | ") for line in done.stdout.splitlines() if not line.startswith("|---"))
    assert rows.pop("text") == tiny_pack.name and len(rows) == 15
    for name in ("as it is", "IN CAPITALS", "two sentences"):
        assert len([float(score) for score in rows[name].split(" / ")]) == 2
    assert rows["emoji at the end"].endswith("%") and rows["a single word"] in ("0%", "100%")
