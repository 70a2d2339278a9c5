"""Settings as frozen dataclasses: built from TOML or JSON with every key and type checked, and turned back into JSON.

A settings class checks its ranges in ``__post_init__`` and raises ``RecipeError("key: what is wrong")``;
:func:`from_mapping` puts in front where the value came from.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from mobilenmt.compression.core.errors import RecipeError

T = TypeVar("T")

PATH_IF_THERE = "path_if_there"
"""Key of ``dataclasses.field(metadata={PATH_IF_THERE: True})`` for a text that is a path or a name, such as a model's:
it becomes an absolute path if something lies there, and stays as it is otherwise."""

_NAMES: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
    type(None): "nothing",
}


_REMOVED = {
    "augment.dictionary": "make it a source of the corpus, with a tag and a weight of its own",
    "augment.lower_case_target": "only sources lose their capitals now; leave it out",
    "augment.title_case_target": "only sources are written Like A Title now; leave it out",
    "augment.sentences_characters": "the length of joined sentences is fixed now; leave it out",
    "corpus.duplicates": "equal pairs always go, and nothing else; leave it out",
    "corpus.max_words": "use max_characters",
    "corpus.max_word_characters": "the rule gained nothing; leave it out",
    "corpus.max_markup": "the rule gained nothing; leave it out",
    "corpus.min_letters": "the rule gained nothing; leave it out",
    "teacher.nearest_metric": "chrF chooses always; leave it out",
    "vocabulary.model": "vocabularies are always BPE; leave it out",
}
"""Settings of earlier recipes, and what to do instead."""


class Override(str):
    """A value from the command line: the text itself where a text is wanted, TOML where anything else is."""

    __slots__ = ()

    def parsed(self) -> Any:
        """Return the value as TOML reads it, or the text if it is not TOML."""
        try:
            found = tomllib.loads(f"value = {self}")
        except (tomllib.TOMLDecodeError, RecursionError):
            return str(self)
        return found["value"] if len(found) == 1 else str(self)  # a line end in it could bring further keys


def from_mapping(cls: type[T], raw: Mapping[str, Any], where: str, *, base: Path | None = None) -> T:
    """Build a frozen dataclass, and those nested in it, from what TOML or JSON holds.

    Supported types of fields: int, float, bool, str, Path, ``tuple[X, ...]``, ``tuple[X, Y]``, ``dict[str, X]``,
    ``X | None`` and other unions, Literal, and dataclasses of these. An integer is taken for a float.

    Args:
        cls: the dataclass.
        raw: keys and values; an :class:`Override` is parsed when its field is known.
        where: what messages begin with, such as ``recipe.toml: corpus``; a key follows after a point
            (after a space if ``where`` ends in a colon).
        base: the folder that relative paths start from; None leaves them as they are.

    Raises:
        RecipeError: an unknown or missing key, a wrong type, or a value that the class refuses.
    """
    if not isinstance(raw, Mapping):
        raise RecipeError(f"{where.rstrip(':')}: expected a table of settings, found {shown(raw)}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    unknown = [key for key in raw if key not in fields]
    if unknown:
        here = join(where, str(unknown[0]))
        removed = _REMOVED.get(here.rpartition(": ")[2])
        known = ", ".join(fields) or "nothing"
        raise RecipeError(
            f"{here}: {f'was removed: {removed}' if removed else f'no such setting; known here: {known}'}"
        )
    values: dict[str, Any] = {}
    for name, field in fields.items():
        here = join(where, name)
        if name in raw:
            values[name] = _convert(hints[name], raw[name], here, base)
            if field.metadata.get(PATH_IF_THERE) and isinstance(values[name], str) and values[name]:
                values[name] = _path_if_there(values[name], base)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise RecipeError(f"{here}: missing; it has no default")
    try:
        return cls(**values)
    except ValueError as error:  # RecipeError is one
        message = str(error)
        head = re.match(r"(\w+)", message)
        separator = "." if head and head[1] in fields else ": "
        if where.endswith(":"):
            separator = " "
        raise RecipeError(f"{where}{separator}{message}") from None


def to_mapping(settings: object, path_as: Callable[[Path], str] = str) -> Any:
    """Return a settings object as JSON's own types: dataclasses and mappings as dict, tuples as list, paths as text."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        found = {}
        for field in dataclasses.fields(settings):
            value = getattr(settings, field.name)
            if field.metadata.get(PATH_IF_THERE) and isinstance(value, str) and Path(value).is_absolute():
                value = Path(value)
            found[field.name] = to_mapping(value, path_as)
        return found
    if isinstance(settings, Mapping):
        return {str(key): to_mapping(value, path_as) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [to_mapping(item, path_as) for item in settings]
    if isinstance(settings, Path):
        return path_as(settings)
    if settings is None or isinstance(settings, bool | int | float | str):
        return settings
    raise TypeError(f"a setting cannot be a {type(settings).__name__}")


def join(where: str, key: str) -> str:
    """Name of a key for a message: ``recipe.toml: corpus`` and ``max_words`` give ``recipe.toml: corpus.max_words``."""
    if not where:
        return key
    return f"{where} {key}" if where.endswith(":") else f"{where}.{key}"


def shown(value: object) -> str:
    """A short form of any value for a message."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, str):
        return repr(str(value) if len(value) <= 60 else f"{value[:60]}…")
    if isinstance(value, int | float):
        return str(value)[:40]
    if isinstance(value, Mapping):
        return "a table"
    return "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"


def _convert(hint: Any, raw: Any, where: str, base: Path | None) -> Any:
    if hint is Any or hint is object:
        return raw  # an override waits for the class that knows its type
    if isinstance(raw, Override):
        raw = str(raw) if _wants_text(hint) else raw.parsed()
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return _convert_union(typing.get_args(hint), raw, where, base)
    if origin is Literal:
        choices = typing.get_args(hint)
        if any(raw == choice and type(raw) is type(choice) for choice in choices):
            return raw
        raise RecipeError(f"{where}: expected one of {', '.join(map(repr, choices))}, found {shown(raw)}")
    if origin is tuple and isinstance(raw, list | tuple):
        return _convert_tuple(typing.get_args(hint), raw, where, base)
    if _is_mapping(hint) and isinstance(raw, Mapping):
        _, value_hint = typing.get_args(hint)
        return {str(key): _convert(value_hint, value, join(where, str(key)), base) for key, value in raw.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(raw, hint):
            return raw
        return from_mapping(hint, raw, where, base=base)
    if hint is float and isinstance(raw, int | float) and not isinstance(raw, bool):
        if not math.isfinite(raw):
            raise RecipeError(f"{where}: expected a finite number, found {shown(raw)}")
        return float(raw)
    if hint is Path and isinstance(raw, str | Path):
        return _path(raw, where, base)
    if isinstance(hint, type) and type(raw) is hint:
        return raw
    raise RecipeError(f"{where}: expected {_expected(hint)}, found {shown(raw)}")


def _convert_union(members: tuple[Any, ...], raw: Any, where: str, base: Path | None) -> Any:
    if raw is None and type(None) in members:
        return None
    members = tuple(member for member in members if member is not type(None))
    if len(members) == 1:
        return _convert(members[0], raw, where, base)
    for member in members:
        try:
            return _convert(member, raw, where, base)
        except RecipeError:
            if isinstance(raw, Mapping) and dataclasses.is_dataclass(member):
                raise  # its own message says more
    raise RecipeError(f"{where}: expected {' or '.join(map(_expected, members))}, found {shown(raw)}")


def _convert_tuple(members: tuple[Any, ...], raw: list[Any] | tuple[Any, ...], where: str, base: Path | None) -> Any:
    if len(members) == 2 and members[1] is Ellipsis:
        members = (members[0],) * len(raw)
    if len(members) != len(raw):
        raise RecipeError(f"{where}: expected a list of {len(members)}, found {len(raw)}")
    return tuple(
        _convert(member, item, f"{where}[{index}]", base)
        for index, (member, item) in enumerate(zip(members, raw, strict=True))
    )


def _is_mapping(hint: Any) -> bool:
    return typing.get_origin(hint) in (dict, Mapping)


def _wants_text(hint: Any) -> bool:
    members = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    texts = [member for member in members if member is not type(None)]
    return all(
        member in (str, Path)
        or (typing.get_origin(member) is Literal and all(isinstance(item, str) for item in typing.get_args(member)))
        for member in texts
    )


def _expected(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is tuple:
        return "a list"
    if _is_mapping(hint) or dataclasses.is_dataclass(hint):
        return "a table"
    if origin is Literal:
        return f"one of {', '.join(map(repr, typing.get_args(hint)))}"
    return _NAMES.get(hint, f"a {getattr(hint, '__name__', hint)}")


def _path(raw: str | Path, where: str, base: Path | None) -> Path:
    text = str(raw)
    if not text or "\0" in text:
        raise RecipeError(f"{where}: expected a path, found {shown(text)}")
    path = Path(text)
    if path.parts[:1] and path.parts[0].startswith("~"):
        try:
            path = path.expanduser()
        except RuntimeError:
            raise RecipeError(f"{where}: {shown(text)}: no such user") from None
    return path if base is None else base / path


def _path_if_there(text: str, base: Path | None) -> str:
    try:
        path = Path(text).expanduser()
        there = (base or Path()) / path
        return str(there.absolute()) if there.exists() else text
    except (OSError, RuntimeError, ValueError):
        return text
