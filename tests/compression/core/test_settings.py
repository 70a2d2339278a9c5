"""Settings and recipes: what is accepted, and what each mistake is told in one line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pytest

from make_recipe_page import descriptions, render
from mobilenmt.compression.chain.recipe import load_recipe
from mobilenmt.compression.chain.table import sections, settings_class
from mobilenmt.compression.core.errors import RecipeError
from mobilenmt.compression.core.settings import _REMOVED, PATH_IF_THERE, Override, from_mapping, to_mapping
from mobilenmt.runtime.errors import MobileNMTError
from places import ROOT


@dataclass(frozen=True)
class Source:
    path: Path
    weight: float = 1.0


@dataclass(frozen=True)
class Sample:
    steps: int
    rate: float = 0.1
    fast: bool = False
    kind: Literal["a", "b"] = "a"
    label: str | None = None
    files: tuple[Source, ...] = ()
    span: tuple[int, int] = (0, 1)
    weights: dict[str, float] = field(default_factory=dict)
    model: str = field(default="", metadata={PATH_IF_THERE: True})
    limit: int | Literal["all"] = "all"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise RecipeError(f"steps: expected at least 1, found {self.steps}")
        if self.span[0] > self.span[1]:
            raise ValueError("the span is empty")


def build(raw: dict[str, Any], base: Path | None = None) -> Sample:
    return from_mapping(Sample, raw, "recipe.toml: sample", base=base)


def test_every_supported_type_survives_the_way_through_json(tmp_path: Path) -> None:
    raw = {
        "steps": 3,
        "rate": 2,
        "fast": True,
        "kind": "b",
        "label": "x",
        "files": [{"path": "a.tsv", "weight": 3}, {"path": "/b.tsv"}],
        "span": [1, 5],
        "weights": {"tatoeba:en-de": 3, "b": 0.5},
        "limit": 7,
    }
    found = build(raw, tmp_path)
    assert found.files == (Source(tmp_path / "a.tsv", 3.0), Source(Path("/b.tsv"), 1.0))
    assert (found.rate, found.span, found.weights, found.limit) == (2.0, (1, 5), {"tatoeba:en-de": 3.0, "b": 0.5}, 7)
    assert isinstance(found.rate, float) and isinstance(found.weights["tatoeba:en-de"], float)
    assert build(json.loads(json.dumps(to_mapping(found)))) == found


def test_defaults_and_none() -> None:
    assert build({"steps": 1, "label": None}) == Sample(steps=1)


def test_a_name_becomes_a_path_only_if_something_lies_there(tmp_path: Path) -> None:
    (tmp_path / "opus").mkdir()
    assert build({"steps": 1, "model": "opus"}, tmp_path).model == str(tmp_path / "opus")
    assert build({"steps": 1, "model": "owner/opus"}, tmp_path).model == "owner/opus"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"steps": "x"}, "recipe.toml: sample.steps: expected an integer, found 'x'"),
        ({"steps": True}, "sample.steps: expected an integer, found true"),
        ({"steps": 1.0}, "sample.steps: expected an integer, found 1.0"),
        ({"steps": 1, "rate": "1"}, "sample.rate: expected a number, found '1'"),
        ({"steps": 1, "rate": float("nan")}, "sample.rate: expected a finite number"),
        ({"steps": 1, "fast": 1}, "sample.fast: expected true or false, found 1"),
        ({"steps": 1, "kind": "c"}, "sample.kind: expected one of 'a', 'b', found 'c'"),
        ({"steps": 1, "label": 5}, "sample.label: expected a text, found 5"),
        ({"steps": 1, "files": "a.tsv"}, "sample.files: expected a list, found 'a.tsv'"),
        ({"steps": 1, "files": ["a.tsv"]}, "sample.files[0]: expected a table of settings, found 'a.tsv'"),
        ({"steps": 1, "files": [{"weight": 1}]}, "sample.files[0].path: missing"),
        ({"steps": 1, "files": [{"path": 3}]}, "sample.files[0].path: expected a path, found 3"),
        ({"steps": 1, "span": [1]}, "sample.span: expected a list of 2, found 1"),
        ({"steps": 1, "span": [2, 1]}, "recipe.toml: sample: the span is empty"),
        ({"steps": 1, "weights": [1]}, "sample.weights: expected a table, found a list"),
        ({"steps": 1, "weights": {"a": "x"}}, "sample.weights.a: expected a number, found 'x'"),
        ({"steps": 1, "limit": "some"}, "sample.limit: expected an integer or one of 'all', found 'some'"),
        ({"steps": 0}, "recipe.toml: sample.steps: expected at least 1, found 0"),
        ({}, "recipe.toml: sample.steps: missing"),
        ({"steps": 1, "stepz": 1}, "recipe.toml: sample.stepz: no such setting; known here: steps, rate"),
    ],
)
def test_a_mistake_is_named_with_its_place(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build(raw)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value) and isinstance(caught.value, MobileNMTError)


def test_an_override_is_read_as_its_setting_wants() -> None:
    raw = {"steps": Override("3"), "label": Override("12"), "files": Override('[{path = "a"}]'), "kind": Override("b")}
    found = build(raw)
    assert (found.steps, found.label, found.files, found.kind) == (3, "12", (Source(Path("a")),), "b")
    with pytest.raises(RecipeError, match="expected an integer, found 'many'"):
        build({"steps": Override("many")})
    with pytest.raises(RecipeError, match="expected an integer"):
        build({"steps": Override("3\nother = 4")})


RECIPE = 'name = "en-de"\nsource_language = "en"\ntarget_language = "de"\n'


def test_a_recipe_with_overrides(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE + "seed = 7\n[corpus]\nmax_words = 80\n")
    recipe = load_recipe(path, ["corpus.max_words=90", "corpus.min_words=2", "name=tiny", "seed="])
    assert (recipe.name, recipe.seed, recipe.source_language) == ("tiny", 1, "en")
    assert recipe.sections["corpus"] == {"max_words": "90", "min_words": "2"}
    assert recipe.has("corpus") and not recipe.has("teacher")


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("name = ", [], "not valid TOML"),
        (RECIPE + "[corpsu]\n", [], "recipe.toml: corpsu: no such setting or section; known:"),
        (RECIPE + "corpus = 3\n", [], "recipe.toml: corpus: expected a table"),
        ('name = "en-de"\nsource_language = "en"\n', [], "recipe.toml: target_language: missing"),
        (RECIPE, ["source_language=English"], "recipe.toml: source_language: expected a code"),
        (RECIPE, ["name=a/b"], "recipe.toml: name: expected letters"),
        (RECIPE, ["seed=-1"], "recipe.toml: seed: expected an integer from 0"),
        (RECIPE, ["seed"], "--set seed: expected section.key=value"),
        (RECIPE, ["name.x=1"], "name is not a table"),
    ],
)
def test_a_broken_recipe_is_told_in_one_line(text: str, overrides: list[str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    assert message in str(caught.value)


def test_a_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        load_recipe(tmp_path / "recipe.toml")
    with pytest.raises(RecipeError, match="a folder"):
        load_recipe(tmp_path)


# --- the page of all settings -----------------------------------------------------------------------------------------


def test_the_reference_lists_every_setting_with_its_type_and_default() -> None:
    """The page is made by ``python docs/tools/make_recipe_page.py``; wording alone may lag behind."""
    page = ROOT / "docs" / "recipe.md"

    def rows(text: str) -> list[tuple[str, ...]]:
        return [tuple(line.split("|")[1:4]) for line in text.splitlines() if line.startswith(("|", "#"))]

    assert len(rows(render())) > 100
    assert rows(page.read_text(encoding="utf-8")) == rows(render())


def test_every_setting_has_its_line_of_text() -> None:
    assert {"corpus", "distill", "export"} <= set(sections())
    for section in sections():
        cls = settings_class(section)
        missing = {item.name for item in fields(cls)} - set(descriptions(cls))
        assert not missing, f"{section}: {missing}"


def test_a_removed_setting_is_told_with_what_to_do_instead() -> None:
    for key, instead in _REMOVED.items():
        section, name = key.split(".")
        assert name not in {item.name for item in fields(settings_class(section))}
        with pytest.raises(RecipeError) as caught:
            from_mapping(settings_class(section), {name: "x"}, f"recipe.toml: {section}")
        assert str(caught.value) == f"recipe.toml: {key}: was removed: {instead}"
