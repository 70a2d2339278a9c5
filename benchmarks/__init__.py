"""Side by side with other engines: speed, memory, size and words from one checkpoint on one machine in one run.

Run from the root of the repository: ``script/bench`` for everything, ``python -m benchmarks --help`` for the parts.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # both before any library is imported
os.environ["HF_HUB_OFFLINE"] = "1"

if importlib.util.find_spec("mobilenmt") is None:  # run from a checkout, or on an emulated processor
    sys.path.insert(0, str(ROOT / "src"))
