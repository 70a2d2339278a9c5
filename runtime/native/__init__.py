"""The C core, and what Python needs to speak to it (docs/core/engine.md)."""

from __future__ import annotations

import sys
from pathlib import Path

LIBRARY = Path(__file__).with_name("_native" + {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so"))
"""Where the library lies, if it was compiled."""
