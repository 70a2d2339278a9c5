"""ONNX Runtime as a phone wants it: telemetry off, one thread, little memory."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mobilenmt.runtime.errors import EngineError, InputError

if TYPE_CHECKING:
    import onnxruntime

_TELEMETRY = "ORT_DISABLE_TELEMETRY"


def load_onnxruntime() -> ModuleType:
    """Import onnxruntime with its telemetry off.

    From version 1.29 on it reports usage and writes a database below the home folder unless ``ORT_DISABLE_TELEMETRY=1``
    is set before the import; nothing turns all of it off afterwards, so an earlier import is warned about.
    """
    if os.environ.get(_TELEMETRY) != "1":
        if "onnxruntime" in sys.modules:
            warnings.warn(
                f"onnxruntime was imported before mobilenmt and without {_TELEMETRY}=1, so its telemetry is on; "
                f"set {_TELEMETRY}=1 in the environment, or create the Translator before importing onnxruntime",
                RuntimeWarning,
                stacklevel=2,
            )
        os.environ[_TELEMETRY] = "1"
    return importlib.import_module("onnxruntime")


@dataclass(frozen=True)
class SessionConfig:
    """How graphs are run. The defaults suit a phone: one thread, no memory held back for the next sentence."""

    threads: int = 1
    """Sentences worked on at once; 0 takes one a core. One sentence has too little work to share: two threads inside
    its operators were slower than one."""
    providers: Sequence[str] | None = None
    """Execution providers of ONNX Runtime in order of preference; the CPU is added as the last resort."""
    arena: bool = False
    """Keep freed memory for later sentences: a little faster, a few megabytes more."""
    static: bool = False
    """Take a pack's static graphs on the CPU, too, where no provider wants them: for tests and comparisons."""

    def __post_init__(self) -> None:
        if isinstance(self.threads, bool) or not isinstance(self.threads, int) or not 0 <= self.threads <= 1024:
            raise InputError(f"threads must be an integer from 0 (one a core) to 1024, not {self.threads!r}")
        names = () if self.providers is None else self.providers
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise InputError(f"providers must be a sequence of names, not {self.providers!r}")
        object.__setattr__(self, "providers", tuple(names))  # a list may change before the next graph is opened


def check_providers(config: SessionConfig) -> None:
    """Raise InputError for a provider that this onnxruntime does not have."""
    available = load_onnxruntime().get_available_providers()
    unknown = [name for name in config.providers or () if name not in available]
    if unknown:
        raise InputError(f"execution provider {', '.join(unknown)} is not available; available: {', '.join(available)}")


def open_session(
    path: Path, config: SessionConfig, *, fold: bool = False, arena: bool | None = None
) -> onnxruntime.InferenceSession:
    """Open a graph whose weights lie in a file beside it, to be memory-mapped.

    ``fold`` computes what follows from weights alone once, now, instead of at every run. ``arena`` overrides the
    configuration's.

    Raises:
        InputError: a provider that this onnxruntime does not have.
        EngineError: onnxruntime refuses the graph.
    """
    ort = load_onnxruntime()
    check_providers(config)
    wanted = config.providers or ()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # The graphs are written in the fused form already: optimizers find nothing else of use and cost start-up time.
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_BASIC if fold else level.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = config.arena if arena is None else arena
    options.enable_mem_pattern = False  # plans for fixed shapes; ours change with every sentence and step
    options.log_severity_level = 3
    providers = list(dict.fromkeys([*wanted, "CPUExecutionProvider"]))
    try:
        return ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime raises many types of its own, none with a useful base
        raise EngineError(
            f"{path}: ONNX Runtime {ort.__version__} cannot open this graph: {first_line(error)}"
        ) from error


def shrinking() -> onnxruntime.RunOptions:
    """Options of a run that gives what its arena took back to the system at the end."""
    options = load_onnxruntime().RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def first_line(error: Exception) -> str:
    """The part of a runtime's message that a person can read."""
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


def release_memory() -> None:
    """Give freed memory back to the system where the C library keeps it (glibc); elsewhere nothing happens."""
    import ctypes  # numpy has loaded it already

    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return
    trim(0)
