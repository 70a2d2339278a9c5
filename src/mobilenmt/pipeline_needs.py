"""What a command needs that is not installed."""

from __future__ import annotations

import importlib.util

from mobilenmt.runtime.errors import MobileNMTError


def need(command: str, *modules: str) -> None:
    """MobileNMTError that names those of the modules of the extra ``compress`` that are missing here."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise MobileNMTError(
            f"mobilenmt {command} needs {', '.join(missing)}, not installed here: install the extra 'compress' "
            "(in a checkout of mobilenmt, pip install '.[compress]')"
        )
