"""A recipe that gives its student a size: planned once, the same for every stage, kept in the work folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from mobilenmt.compression.chain.chain import Chain
from mobilenmt.compression.chain.compress import plan
from mobilenmt.compression.chain.recipe import load_recipe
from mobilenmt.compression.core.errors import PlanError, RecipeError, StageError
from mobilenmt.compression.pack.estimate import estimate_pack_bytes, spare_bytes
from mobilenmt.compression.pack.stage import ExportSettings
from mobilenmt.compression.plan.cost import load_fit
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.compression.vocabulary.stage import VocabularySettings


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A few pairs are enough for the corpus; nothing is trained here."""
    pairs = (
        "the dog runs\tder Hund rennt\n",
        "a cat sleeps\teine Katze schläft\n",
        "the house is big\tdas Haus ist gross\n",
    )
    (tmp_path / "text.tsv").write_text("".join(pairs), encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(
        'name = "toy"\nsource_language = "en"\ntarget_language = "de"\n[corpus]\nmin_pairs = 1\nlanguage = false\n'
        '[[corpus.sources]]\npaths = ["text.tsv"]\n[student]\nsize = "2MB"\n'
    )
    return tmp_path / "recipe.toml"


def chain_of(recipe: Path, *changes: str) -> Chain:
    return Chain(load_recipe(recipe, changes), recipe.parent / "work")


def test_a_size_becomes_a_shape_and_a_vocabulary(recipe: Path) -> None:
    chain = chain_of(recipe)
    shape, pieces = chain.section(StudentShape), chain.section(VocabularySettings).size
    limit = ExportSettings().shortlist_for(pieces)
    planned = estimate_pack_bytes(shape, pieces, shortlist=limit)
    assert 1_800_000 < planned + spare_bytes(planned, pieces, tokenizer_known=False) <= 2_000_000
    assert chain.most_bytes == 2_000_000 and chain_of(recipe, "export.max_bytes=5").most_bytes == 5
    assert not chain.work.exists()  # a dry run writes nothing
    told = plan(chain).text(chain)
    assert f"plan: {shape.d_model} wide" in told and f"{pieces:,} pieces" in told and "for 2MB" in told


def test_what_is_given_stays(recipe: Path) -> None:
    changes = (
        "student.d_model=96", "student.decoder_layers=2", "student.decoder_attention_heads=6", "vocabulary.size=1500",
        "student.activation_function=swish", "student.max_position_embeddings=100",
    )  # fmt: skip
    chain = chain_of(recipe, *changes)
    shape = chain.section(StudentShape)
    assert (shape.d_model, shape.decoder_layers, shape.decoder_attention_heads) == (96, 2, 6)
    assert (shape.activation_function, shape.max_position_embeddings) == ("swish", 100)
    assert chain.section(VocabularySettings).size == 1500
    assert estimate_pack_bytes(shape, 1500) <= 2_000_000


def test_a_latency_and_a_memory_count(recipe: Path) -> None:
    chain = chain_of(recipe, "student.latency=0.2ms", "student.memory=1.5MB")
    shape, pieces = chain.section(StudentShape), chain.section(VocabularySettings).size
    assert load_fit().seconds(shape, pieces, ExportSettings().shortlist_for(pieces)) <= 2e-4


def test_a_recipe_without_a_size_is_as_it_was(recipe: Path) -> None:
    chain = chain_of(recipe, "student.size=", "student.d_model=64")
    assert chain.section(StudentShape) == StudentShape(d_model=64)
    assert chain.section(VocabularySettings).size == 8000
    assert chain.keep_plan() is None


def test_the_plan_is_made_once_and_kept(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = chain_of(recipe)
    wanted = chain.section(StudentShape)
    chain.run("corpus")
    kept = json.loads((chain.work / "plan" / "plan.json").read_text())["candidates"][0]
    assert kept["shape"] == asdict(wanted) and (chain.work / "plan" / "plan.png").is_file()

    def never(*arguments: object) -> None:
        raise AssertionError("planned again")

    monkeypatch.setattr("mobilenmt.compression.plan.resolve.search", never)
    again = chain_of(recipe)
    assert again.run("corpus").skipped
    assert again.section(StudentShape) == wanted
    assert again.section(VocabularySettings).size == kept["vocabulary"]


def test_another_size_is_an_error_until_forced(recipe: Path) -> None:
    first = chain_of(recipe)
    first.run("corpus")
    other = chain_of(recipe, "student.size=3MB")
    with pytest.raises(StageError, match=r"budget\.bytes was 2000000 and is 3000000"):
        other.run("corpus")
    kept = other.keep_plan(force=True)
    assert kept is not None and not kept.skipped
    assert other.run("corpus").skipped  # what nothing changed for is kept
    assert other.section(StudentShape) != first.section(StudentShape)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("student.size=ten", RecipeError, r"student\.size: expected bytes"),
        ("student.size=", RecipeError, r"student\.latency: give a size"),
        ("student.latency=3", RecipeError, r"student\.latency: expected a time"),
        ("student.d_model=0", RecipeError, "d_model: must be at least 1"),
        ("student.size=10kB", PlanError, "the smallest possible pack takes about"),
        ("student.fit=nowhere", PlanError, "no such fit"),
        ("student.d_model=90", PlanError, "heads must divide the width"),
    ],
)
def test_what_cannot_be_planned_is_said_before_anything_starts(
    recipe: Path, change: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        plan(chain_of(recipe, "student.latency=20ms", "student.encoder_attention_heads=4", change))
