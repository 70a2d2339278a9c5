"""A recipe: one TOML file that describes a whole chain, from text to a pack.

Its sections are looked up when they are asked for: reading a recipe imports no stage, and stages import nothing heavy.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mobilenmt.compression.chain.table import section_of, sections, settings_class
from mobilenmt.compression.core.errors import RecipeError
from mobilenmt.compression.core.settings import Override, from_mapping, shown
from mobilenmt.compression.core.streams import open_regular

_LANGUAGE = re.compile(r"[a-z]{2,3}([-_][A-Za-z0-9]{2,8})*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,98}")
_LARGEST = 2**63 - 1

S = TypeVar("S")


@dataclass(frozen=True)
class Recipe:
    """A recipe as read, its sections not yet built."""

    name: str
    """Name of the pack that comes out, as in ``en-de``."""
    source_language: str
    """Code of the language translated from."""
    target_language: str
    """Code of the language translated into."""
    seed: int = 1
    """Everything random is derived from it."""
    path: Path = Path("recipe.toml")
    """The file it was read from; relative paths in it start from its folder."""
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The tables of the file, overrides included."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise RecipeError(f"name: expected letters, digits, '.', '_' and '-', found {shown(self.name)}")
        for key in ("source_language", "target_language"):
            if not _LANGUAGE.fullmatch(getattr(self, key)):
                raise RecipeError(f"{key}: expected a code like 'en' or 'pt-BR', found {shown(getattr(self, key))}")
        if not 0 <= self.seed <= _LARGEST:
            raise RecipeError(f"seed: expected an integer from 0 to {_LARGEST}, found {self.seed}")

    def has(self, section: str) -> bool:
        """Whether the recipe has this section."""
        return section in self.sections

    def section(self, settings: type[S], **defaults: Any) -> S:
        """Build the settings of the section that a class describes; one that the recipe lacks is all defaults.

        Args:
            settings: the class of the section, as in ``CorpusSettings``.
            defaults: values for keys that the recipe lacks.

        Raises RecipeError for unknown keys, wrong types, values out of range, and a missing key without a default.
        """
        return self._build(section_of(settings), settings, defaults)

    def check(self, name: str) -> None:
        """Build a section and throw it away. Raises as :meth:`section` does."""
        self._build(name, settings_class(name), {})

    def _build(self, name: str, cls: type[S], defaults: Mapping[str, Any]) -> S:
        given = {**defaults, **self.sections.get(name, {})}
        return from_mapping(cls, given, f"{self.path.name}: {name}", base=self.path.parent.absolute())


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file.

    Args:
        path: the TOML file.
        overrides: ``section.key=value`` each, as on the command line: the value is a text where the setting is one,
            TOML otherwise; nothing after the ``=`` takes the key out. They count as if they stood in the file.

    Raises:
        RecipeError: no such file, not TOML, an unknown key or section, or an override without ``=``.
    """
    try:
        with open_regular(path) as stream:
            raw = tomllib.load(stream)
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe") from None
    except IsADirectoryError:
        raise RecipeError(f"{path}: a folder, not a recipe") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from None
    for item in overrides:
        _override(raw, item)
    known_sections = sections()
    found = {key: raw.pop(key) for key in list(raw) if key in known_sections}
    for key, value in found.items():
        if not isinstance(value, Mapping):
            raise RecipeError(f"{path.name}: {key}: expected a table of settings, found {shown(value)}")
    own = {"name", "source_language", "target_language", "seed"}
    unknown = [key for key in raw if key not in own]
    if unknown:
        known = ", ".join((*sorted(own), *known_sections))
        raise RecipeError(f"{path.name}: {unknown[0]}: no such setting or section; known: {known}")
    return from_mapping(Recipe, {**raw, "path": path, "sections": found}, f"{path.name}:")


def _override(raw: dict[str, Any], item: str) -> None:
    key, equals, value = item.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise RecipeError(f"--set {item}: expected section.key=value")
    table: Any = raw
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {item}: {part} is not a table")
    if value:
        table[parts[-1]] = Override(value)
    else:
        table.pop(parts[-1], None)
