"""The data files of the text rules, each read at its first use."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("rules")


@functools.cache
def load(name: str) -> dict[str, Any]:
    """The content of ``rules/<name>.json``; whoever gets it leaves it as it is."""
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return content


def filled(pattern: str, sets: Mapping[str, str]) -> str:
    """A pattern with what «NAME» in it stands for; a set may name others."""
    while (whole := re.sub("«([A-Z]+)»", lambda match: sets[match[1]], pattern)) != pattern:
        pattern = whole
    return pattern


def has(name: str) -> bool:
    """Whether there is such a file."""
    return (FOLDER / f"{name}.json").is_file()


def base_language(code: str) -> str:
    """The language of a code such as ``de-AT`` or ``zh_Hans``, in small letters."""
    return code.replace("_", "-").partition("-")[0].lower()
