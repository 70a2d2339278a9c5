"""Offline neural machine translation that fits a phone.

    from mobilenmt import Translator

    with Translator("en-de") as translator:
        print(translator.translate("Where is the train station?"))

Importing this package costs next to nothing: each name below is loaded at its first use, and numpy, onnxruntime and
tokenizers with the first ``Translator``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobilenmt.runtime.errors import (
        CheckpointError,
        DeadlineError,
        EngineError,
        ExportError,
        InputError,
        MobileNMTError,
        PackError,
        PackNotFoundError,
        StoppedError,
    )
    from mobilenmt.runtime.pack import Pack
    from mobilenmt.runtime.text.glossary import Glossary
    from mobilenmt.runtime.text.kept import Rules
    from mobilenmt.runtime.translation import Translation
    from mobilenmt.runtime.translator import Translator

__version__ = "0.2.0"

__all__ = [
    "CheckpointError",
    "DeadlineError",
    "EngineError",
    "ExportError",
    "Glossary",
    "InputError",
    "MobileNMTError",
    "Pack",
    "PackError",
    "PackNotFoundError",
    "Rules",
    "StoppedError",
    "Translation",
    "Translator",
    "__version__",
]

# Public name -> the module that defines it. A test asserts that this, __all__ and the imports above agree.
_HOMES = {
    "CheckpointError": "mobilenmt.runtime.errors",
    "DeadlineError": "mobilenmt.runtime.errors",
    "EngineError": "mobilenmt.runtime.errors",
    "ExportError": "mobilenmt.runtime.errors",
    "Glossary": "mobilenmt.runtime.text.glossary",
    "InputError": "mobilenmt.runtime.errors",
    "MobileNMTError": "mobilenmt.runtime.errors",
    "Pack": "mobilenmt.runtime.pack",
    "PackError": "mobilenmt.runtime.errors",
    "PackNotFoundError": "mobilenmt.runtime.errors",
    "Rules": "mobilenmt.runtime.text.kept",
    "Translation": "mobilenmt.runtime.translation",
    "StoppedError": "mobilenmt.runtime.errors",
    "Translator": "mobilenmt.runtime.translator",
}


def __getattr__(name: str) -> object:
    """Load a public name at its first use (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
