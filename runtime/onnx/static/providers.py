"""Which execution providers want a pack's static graphs, in which form, and what runs where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenmt.runtime.errors import EngineError
from mobilenmt.runtime.onnx.ort import SessionConfig, first_line, load_onnxruntime

if TYPE_CHECKING:
    import onnxruntime

    from mobilenmt.runtime.sections import Variant

CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class StaticProvider:
    """How a provider wants static graphs; the operators that it takes are in ``export/npu/tables``."""

    name: str
    form: str
    """Of the graphs, as :class:`mobilenmt.runtime.sections.Variant` has them."""
    fold: bool
    """Turn weights into numbers when a graph is opened, since the provider takes no DequantizeLinear."""
    options: Mapping[str, str] = field(default_factory=dict)

    def of(self, form: str) -> StaticProvider:
        """The same with another form."""
        return replace(self, form=form)


PROVIDERS = {
    item.name: item
    for item in (
        StaticProvider("QNNExecutionProvider", "qdq", fold=False),
        # Its older format, NeuralNetwork, lacks ReduceMean and products of two activations.
        StaticProvider(
            "CoreMLExecutionProvider", "float", True, {"ModelFormat": "MLProgram", "RequireStaticInputShapes": "1"}
        ),
        StaticProvider("NnapiExecutionProvider", "float", fold=True),
    )
}
"""XNNPACK is not among them: it would multiply in fp32 on the CPU what the CPU's graphs multiply in INT8."""
REFERENCE = StaticProvider(CPU, "qdq", fold=True)
"""On the CPU, for tests and comparisons: what the pairs around products say, computed in fp32."""


def static_provider(config: SessionConfig, variant: Variant | None) -> StaticProvider | None:
    """The first provider of a configuration that wants static graphs, where a pack has those it wants."""
    if variant is None:
        return None
    wanted = [PROVIDERS[name] for name in config.providers or () if name in PROVIDERS]
    if not wanted and config.static:
        wanted = [REFERENCE]
    return next((provider for provider in wanted if provider.form in variant.forms), None)


def is_here(name: str) -> bool:
    """Whether this onnxruntime has a provider: built in, or registered as a plug-in."""
    ort = load_onnxruntime()
    return name in ort.get_available_providers() or bool(_devices(ort, name))


def open_static(path: Path, provider: StaticProvider) -> onnxruntime.InferenceSession:
    """Open a static graph.

    Raises:
        EngineError: the provider is not here, or refuses it.
    """
    ort = load_onnxruntime()
    name = provider.name
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    if provider.fold:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    extra: dict[str, Any] = {}
    devices = _devices(ort, name)
    built_in = name in ort.get_available_providers()
    if not built_in and not devices:
        raise EngineError(f"{name} is not in this onnxruntime (it has {', '.join(ort.get_available_providers())})")
    try:
        if built_in:
            extra["providers"] = [(name, dict(provider.options)), *([CPU] if name != CPU else [])]
        else:
            options.add_provider_for_devices(devices, dict(provider.options))
        # without its own way of falling back, which prints to stdout
        session = ort.InferenceSession(str(path), options, enable_fallback=0, **extra)
    except Exception as error:  # onnxruntime raises many types of its own
        raise EngineError(f"{name} refuses {path.name}: {first_line(error)}") from error
    if name not in session.get_providers():
        raise EngineError(f"{name} did not take {path.name}")
    return session


def what_runs_where(variant: Variant) -> list[str]:
    """A line for each provider that would take static graphs, for people."""
    found = []
    for name, provider in PROVIDERS.items():
        if provider.form not in variant.forms:
            found.append(f"{name}: the CPU graphs, since the pack has no graphs of the form {provider.form}")
        elif is_here(name):
            found.append(f"{name}: static graphs, form {provider.form}; the rest on the CPU")
        else:
            found.append(f"{name}: not in this onnxruntime, the CPU graphs run; elsewhere form {provider.form}")
    return found


def others(providers: Sequence[str] | None) -> tuple[str, ...]:
    """The providers that the graphs of the CPU are given."""
    return tuple(name for name in providers or () if name not in PROVIDERS)


def _devices(ort: Any, name: str) -> list[Any]:
    """Devices of a provider that a program has registered as a plug-in, as QNN's is since its version 2."""
    find = getattr(ort, "get_ep_devices", None)
    return [] if find is None else [device for device in find() if device.ep_name == name]
