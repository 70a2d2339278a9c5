"""A new stage is one object and one line of the table: section, command, --until and settings page come from it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from mobilenmt import cli
from mobilenmt.compression.chain import table
from mobilenmt.compression.chain.chain import Chain
from mobilenmt.compression.chain.compress import compress, plan
from mobilenmt.compression.chain.recipe import load_recipe
from mobilenmt.compression.core.context import Context, Stage
from mobilenmt.compression.core.errors import RecipeError
from mobilenmt.compression.core.stage import StageResult, run_stage


@dataclass(frozen=True)
class CountSettings:
    """Counts to a number."""

    to: int = 3
    """The last number."""


def count(context: Context, force: bool) -> StageResult:
    settings = context.section(CountSettings)
    folder = context.folder("count")
    return run_stage(
        folder, name="count", settings=settings, inputs={}, work=lambda where: {"sum": sum(range(settings.to + 1))}
    )


STAGE = Stage("count", CountSettings, count, lambda context, to_do: f"to {context.section(CountSettings).to}", "Count.")


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    module = ModuleType("counting_stage")
    module.STAGE = STAGE  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "counting_stage", module)
    monkeypatch.setitem(table.STAGES, "count", "counting_stage:STAGE")  # the one line
    (tmp_path / "text.tsv").write_text("A dog.\tEin Hund.\n")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'name = "en-de"\nsource_language = "en"\ntarget_language = "de"\n'
        '[[corpus.sources]]\npaths = ["text.tsv"]\n[count]\nto = 4\n'
    )
    return Chain(load_recipe(recipe), tmp_path / "work")


def test_a_recipe_has_its_section_and_refuses_what_it_does_not_know(chain: Chain) -> None:
    assert chain.section(CountSettings) == CountSettings(to=4)
    with pytest.raises(RecipeError, match="count"):
        load_recipe(chain.recipe.path, ["count.too=1"]).section(CountSettings)


def test_it_runs_and_is_told_in_the_plan(chain: Chain) -> None:
    assert chain.stages[-1] == "count"
    assert "to 4" in plan(chain).text(chain)
    assert chain.run("count").summary == {"sum": 10}
    assert chain.run("count").skipped
    with pytest.raises(RecipeError, match="count"):
        compress(chain, until="nothing", report=lambda line: None)


def test_it_has_a_command(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["count", str(chain.recipe.path), "--work", str(chain.work), "--set", "count.to=5"]) == 0
    assert json.loads((chain.work / "count" / "manifest.json").read_text())["summary"] == {"sum": 15}
    assert "count" in capsys.readouterr().out
