"""Packs of several sizes from one recipe: one teacher; planned, pruned, distilled, exported for each; one report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mobilenmt import cli
from mobilenmt.compression.chain.chain import Chain
from mobilenmt.compression.chain.recipe import load_recipe
from mobilenmt.compression.chain.sizes import chains_of_sizes
from mobilenmt.compression.core.errors import RecipeError
from mobilenmt.compression.plan.space import is_inside
from mobilenmt.compression.train.settings import TeacherModelSettings
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.export.checkpoint import load_checkpoint
from mobilenmt.export.verify import verify_against_torch
from places import ROOT
from tiny_models import make_checkpoint
from training_data import toy_pairs, write_dev

pytest.importorskip("sacrebleu")

SIZES = {"200kB": 200_000, "300 kB": 300_000}
DIMENSIONS = (
    "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads",
    "encoder_ffn_dim", "decoder_ffn_dim", "max_position_embeddings",
)  # fmt: skip
CHANGES = (
    *(f"student.{name}=" for name in DIMENSIONS),
    "vocabulary.size=420",
    "teacher_model.steps=12",
    "prune.sentences=100",
    "distill.steps=3",
    "distill.dev_every=3",
    "teacher.search=greedy",
    "teacher.beam_size=",
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's recipe with other text."""
    folder = tmp_path_factory.mktemp("sizes")
    (folder / "text").mkdir()
    shutil.copy(ROOT / "examples" / "toy" / "recipe.toml", folder)
    extra = ["a quick brown fox jumps over it", "pack my box with five dozen jugs", "how vexingly the zebras quiz me"]
    pairs = toy_pairs(3000) + [(f"{text} {n}", f"{text} {n}") for text in extra for n in range(40)]
    (folder / "text" / "train.tsv").write_text("".join("\t".join(pair) + "\n" for pair in pairs), encoding="utf-8")
    write_dev(folder / "text" / "dev.tsv", 12, seed=7)
    write_dev(folder / "text" / "test.tsv", 12, seed=8)
    return folder / "recipe.toml"


def options(*sizes: str) -> list[str]:
    return [*(f"--set={change}" for change in CHANGES), *sizes]


def test_one_teacher_gives_a_pack_of_each_size(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = toy.parent / "work"
    command = ["compress", str(toy), "--work", str(work), *options(*(f"--size={size}" for size in SIZES))]
    assert cli.main(command) == 0, capsys.readouterr().err
    told = capsys.readouterr()
    assert told.out.splitlines() == [str(work / "report.html"), str(work / "report.md")]
    assert told.err.count("teacher_model (done before)") == 1  # of two chains
    common = {path.parent.name for path in work.glob("*/manifest.json")}
    assert common == {"corpus", "vocabulary", "teacher_model", "teacher"}
    teacher = load_checkpoint(work / "teacher_model" / "checkpoint").config
    shapes = []
    for size, most in SIZES.items():
        own = work / size.replace(" ", "")
        names = {path.parent.name for path in own.glob("*/manifest.json")}
        assert names == {"plan", "prune", "distill", "export", "evaluate"}
        pack = own / "export" / "toy"
        assert 0.8 * most < sum(path.stat().st_size for path in pack.iterdir()) <= most
        planned = json.loads((own / "plan" / "plan.json").read_text())["candidates"][0]
        assert planned["bytes"] == pytest.approx(sum(path.stat().st_size for path in pack.iterdir()), rel=0.02)
        shape = StudentShape(**planned["shape"])
        shapes.append(shape)
        pruned = load_checkpoint(own / "prune" / "checkpoint").config
        assert {name: getattr(pruned, name) for name in DIMENSIONS} == {n: getattr(shape, n) for n in DIMENSIONS}
        assert shape.d_model <= teacher.d_model and shape.encoder_layers <= teacher.encoder_layers
        report = (own / "report.md").read_text(encoding="utf-8")
        assert "has not begun" not in report and "| corpus |" in report
        verify_against_torch(pack, load_checkpoint(own / "distill" / "checkpoint"))
    assert shapes[0] != shapes[1]
    both = (work / "report.md").read_text(encoding="utf-8")
    assert "200kB" in both and "300kB" in both
    assert cli.main(command) == 0  # all is done before
    assert "(0." not in capsys.readouterr().err


def test_a_recipe_that_prunes_plans_inside_the_model(toy: Path, tmp_path: Path) -> None:
    chain = Chain(load_recipe(toy, [*CHANGES, "student.size=100MB"]), tmp_path / "work")
    whole = chain.section(TeacherModelSettings).shape
    assert chain.section(StudentShape) == whole  # as large as can be
    smaller = Chain(load_recipe(toy, [*CHANGES, "student.size=250kB"]), tmp_path / "work").section(StudentShape)
    assert is_inside(smaller, whole) and smaller != whole
    named = make_checkpoint(tmp_path / "named")
    changes = [*CHANGES, "student.size=100MB", f"prune.checkpoint={named}"]
    found = Chain(load_recipe(toy, changes), tmp_path / "work").section(StudentShape)
    config = load_checkpoint(named).config
    assert (found.d_model, found.encoder_layers, found.encoder_ffn_dim) == (
        config.d_model, config.encoder_layers, config.encoder_ffn_dim,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "change", "message"),
    [
        (["200kB", "200 kB"], "", "--size: 200 kB is given twice"),
        (["small"], "", "--size: expected bytes, as in 10MB or 9.5MiB, found 'small'"),
        (["200kB"], "vocabulary.size=", "say how large it is in vocabulary.size"),
    ],
)
def test_sizes_that_will_not_do_are_one_clear_line(toy: Path, sizes: list[str], change: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        chains_of_sizes(toy, toy.parent / "none", sizes, [*CHANGES, *([change] if change else [])])


def test_nothing_begins_if_one_of_the_sizes_is_impossible(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compress", str(toy), "--work", str(tmp_path / "work"), *options("--size=300kB", "--size=10kB")]
    assert cli.main(command) == 2
    assert "10,000 bytes are too few: the smallest possible pack takes about" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
