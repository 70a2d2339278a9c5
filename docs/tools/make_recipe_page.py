"""The page docs/recipe.md, made from the settings classes and their docstrings."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mobilenmt.compression.chain.recipe import Recipe
from mobilenmt.compression.chain.table import sections, settings_class

_HEAD = """# Recipes: every setting

A recipe is a TOML file with the keys below at its top and a table for each section; [compress.md](compress.md) explains
how they work together. Unknown keys and wrong types are errors. Relative paths start from the recipe's folder. On the
command line `--set section.key=value` replaces a setting. This page is made from the source:
`.venv-test/bin/python docs/tools/make_recipe_page.py > docs/recipe.md`, in the environment that `script/test` makes.
"""


def render() -> str:
    """The page as Markdown."""
    parts = [_HEAD, *_table("", Recipe, {"path", "sections"})]
    for section in sections():
        cls = settings_class(section)
        parts += [f"\n## [{section}]\n", *_prose(cls), *_table(section, cls, set())]
    return "\n".join(parts) + "\n"


def _prose(cls: type) -> list[str]:
    return [" ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split()), ""]


def _table(section: str, cls: type, without: set[str]) -> list[str]:
    """Rows of a class; a class inside it, or in a list of it, follows in a table of its own."""
    hints, texts = typing.get_type_hints(cls), descriptions(cls)
    lines = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    nested: list[tuple[str, type]] = []
    for field in dataclasses.fields(cls):
        if field.name in without:
            continue
        inner = _nested(hints[field.name])
        if inner is not None:
            nested.append((f"{section}.{field.name}", inner))
        kind, meaning = _kind(hints[field.name]), texts.get(field.name, "")
        lines.append(f"| {field.name} | {kind} | {_default(field)} | {meaning.replace('|', '&#124;')} |")
    for name, inner in nested:
        lines += [f"\n### [{name}]\n", *_prose(inner), *_table(name, inner, set())]
    return lines


def descriptions(cls: type) -> dict[str, str]:
    """Field -> the docstring under it, of a dataclass and its bases."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        found.update(_documented(body.body))
    return found


def _documented(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for statement, following in itertools.pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            yield statement.target.id, " ".join(following.value.value.replace("``", "`").split())


def _nested(hint: Any) -> type | None:
    members = [hint, *typing.get_args(hint)]
    return next((item for item in members if isinstance(item, type) and dataclasses.is_dataclass(item)), None)


def _kind(hint: Any) -> str:
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_kind(item) for item in members if item is not type(None))
    if origin is typing.Literal:
        return ", ".join(f"`{item}`" for item in members)
    if origin is tuple:
        return f"list of {_kind(members[0])}"
    if origin is not None:
        return f"table of {_kind(members[1])}"
    if dataclasses.is_dataclass(hint):
        return "table"
    names = {int: "integer", float: "number", bool: "true, false", str: "text", Path: "path"}
    return names.get(hint, str(hint))


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "required"
    if value is None or (isinstance(value, tuple | dict | str) and not value):
        return ""
    if dataclasses.is_dataclass(value):
        return "see below"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else f"{value}"


if __name__ == "__main__":
    print(render(), end="")
