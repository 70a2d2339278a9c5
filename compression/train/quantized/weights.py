"""The student's matrices as the exporter will round them: its own rounding, of the matrices that it stores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mobilenmt.compression.core.pack_forms import PackForms
from mobilenmt.export.quantize.forms import LEVELS, WIDE_LEVELS
from mobilenmt.export.quantize.rounding import round_matrix

if TYPE_CHECKING:
    from transformers import MarianMTModel

TABLE = "source_embedding"
"""What the exporter calls the one table of a tied model."""


class RoundedWeights:
    """What :meth:`refresh` last made of the weights.

    Args:
        student: its parameters are read, never changed.
        forms: what the pack will store.
        dtype: of the matrix products.
    """

    def __init__(self, student: MarianMTModel, forms: PackForms, dtype: torch.dtype) -> None:
        self.forms, self.dtype = forms, dtype
        self._table_levels = LEVELS if forms.shortlist else WIDE_LEVELS
        self.matrices = matrices(student)
        """The exporter's names, and the parameters that are stacked in each."""
        self._table = self.matrices[TABLE][0]
        self._values: dict[torch.Tensor, torch.Tensor] = {}

    def value(self, parameter: torch.Tensor) -> torch.Tensor | None:
        """A parameter, rounded: the table in fp32, others in the type of the products; None for one that stays as it
        is."""
        return self._values.get(parameter)

    def rounds(self, name: str) -> bool:
        """Whether the matrix the exporter calls ``name`` is stored in integers."""
        return self.forms.quantization.form_of(name).kind != "fp32"

    def refresh(self) -> None:
        """Round the weights as they are now. Optimizers change them in ways that torch keeps no count of, so whoever
        changes them calls this."""
        for parameter, value in self.exact():
            self._values[parameter] = value if parameter is self._table else value.to(self.dtype)

    def exact(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Each rounded parameter with its value in fp32, on its device."""
        q = self.forms.quantization
        for name, parameters in self.matrices.items():
            form = q.form_of(name)
            if form.kind == "fp32":
                continue
            parts = [parameter.detach().float().cpu().numpy() for parameter in parameters]
            rounded = round_matrix(
                np.concatenate(parts) if len(parts) > 1 else parts[0],
                form,
                clipping=q.clipping,
                percentile=q.percentile,
                granularity=q.granularity,
                levels=self._table_levels if name == TABLE and form.kind == "int8" else None,
            )
            weights = torch.from_numpy(rounded.weights()).to(parameters[0].device)
            yield from zip(parameters, torch.split(weights, [len(part) for part in parts]), strict=True)


def matrices(student: MarianMTModel) -> dict[str, list[torch.Tensor]]:
    """The exporter's names of all matrices -> the parameters that are stacked in each, in their order."""
    layers = {f"model.{side}.layers": getattr(student.model, side).layers for side in ("encoder", "decoder")}
    found = {TABLE: [student.model.shared.weight]}
    for prefix, members in layers.items():
        for index, layer in enumerate(members):
            found |= _group(layer, f"{prefix}.{index}", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"])
            rest = ["self_attn.out_proj", "fc1", "fc2"]
            if prefix == "model.decoder.layers":
                rest += ["encoder_attn.q_proj", "encoder_attn.out_proj"]
            for name in rest:
                found |= _group(layer, f"{prefix}.{index}", [name])
    # Keys and values of all decoder layers are one matrix, which is multiplied once a sentence.
    names = [
        f"model.decoder.layers.{index}.encoder_attn.{part}_proj"
        for index in range(student.config.decoder_layers)
        for part in "kv"
    ]
    found |= _group(student, "", names)
    return found


def _group(module: Any, prefix: str, names: Sequence[str]) -> dict[str, list[torch.Tensor]]:
    from mobilenmt.export.layers import stacked_name

    name = stacked_name(names)
    weights = [module.get_submodule(member).weight for member in names]
    return {f"{prefix}.{name}" if prefix else name: weights}
