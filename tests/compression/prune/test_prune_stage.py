"""The stage in a recipe: the teacher becomes what the student starts from; killed, it begins again."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobilenmt.compression.chain.chain import Chain
from mobilenmt.compression.chain.compress import plan
from mobilenmt.compression.chain.recipe import load_recipe
from mobilenmt.compression.core.errors import RecipeError
from mobilenmt.compression.prune import prune as prune_module
from mobilenmt.compression.train.stage import distill_settings
from mobilenmt.export.checkpoint import load_checkpoint
from training_data import prunable, toy_pairs

RECIPE = """
name = "en-de"
source_language = "en"
target_language = "de"

[[corpus.sources]]
paths = ["text.tsv"]

[corpus]
min_pairs = 10

[vocabulary]
size = 420

[prune]
checkpoint = "teacher"
sentences = 100

[student]
d_model = 16
encoder_layers = 1
decoder_layers = 1
encoder_attention_heads = 2
decoder_attention_heads = 2
encoder_ffn_dim = 32
decoder_ffn_dim = 32
max_position_embeddings = 64

[distill]
threads = 1
steps = 2
batch_tokens = 256
accumulation = 1
max_tokens = 32
precision = "fp32"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    prunable(tmp_path / "teacher")
    extra = ["a quick brown fox jumps over it", "pack my box with five dozen jugs", "how vexingly the zebras quiz me"]
    pairs = toy_pairs(3000) + [(f"{text} {n}", f"{text} {n}") for text in extra for n in range(40)]
    (tmp_path / "text.tsv").write_text("".join("\t".join(pair) + "\n" for pair in pairs), encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return tmp_path / "recipe.toml"


def chain_of(recipe: Path, *overrides: str) -> Chain:
    return Chain(load_recipe(recipe, overrides), recipe.parent / "work")


def test_the_student_starts_from_the_pruned_teacher_also_after_a_kill(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = chain_of(recipe, "vocabulary.size=400")
    assert chain.stages == ("corpus", "vocabulary", "prune", "distill", "export")
    for stage in ("corpus", "vocabulary"):
        chain.run(stage)
    write = prune_module.write_model

    def killed(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(prune_module, "write_model", killed)
    with pytest.raises(KeyboardInterrupt):
        chain.run("prune")
    assert not chain.pruned_checkpoint.exists()
    monkeypatch.setattr(prune_module, "write_model", write)
    done = chain.run("prune")
    assert not done.skipped and done.summary["pieces"]["spelled"] > 0
    assert chain.run("prune").skipped
    made = load_checkpoint(chain.pruned_checkpoint)
    assert (made.config.d_model, made.config.vocab_size) == (16, 400)
    settings = distill_settings(chain)
    assert settings.initial == chain.pruned_checkpoint.absolute()
    trained = chain.run("distill")
    assert trained.summary["steps"] == 2


def test_rounds_are_trained_as_the_student_is(recipe: Path) -> None:
    """With the recipe's vocabulary, to which the model moves in the first round."""
    chain = chain_of(recipe, "vocabulary.size=400", "prune.rounds=2", "prune.round_steps=3")
    assert "in 2 rounds" in plan(chain).text(chain)
    for stage in ("corpus", "vocabulary"):
        chain.run(stage)
    done = chain.run("prune")
    assert [one["updates"] for one in done.summary["rounds"]] == [3]
    trained = load_checkpoint(chain.folder("prune") / "rounds" / "1" / "distill" / "checkpoint")
    assert trained.config.vocab_size == 400 and 16 <= trained.config.d_model < 32
    assert chain.run("distill").summary["steps"] == 2


def test_mistakes_are_known_before_anything_runs(recipe: Path) -> None:
    assert "to 420" not in plan(chain_of(recipe)).text(chain_of(recipe))
    assert "teacher to" in plan(chain_of(recipe)).text(chain_of(recipe))
    with pytest.raises(RecipeError, match="student: the shape is no part of the model: d_model is 32, 64 is wanted"):
        plan(chain_of(recipe, "student.d_model=64"))
    with pytest.raises(RecipeError, match=r"prune\.importance: expected one of"):
        plan(chain_of(recipe, "prune.importance=beauty"))
    with pytest.raises(RecipeError, match="nothing to prune"):
        plan(chain_of(recipe, "prune.checkpoint="))
