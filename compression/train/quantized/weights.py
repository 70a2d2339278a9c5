"""The student's matrices as the exporter will round them: its own rounding, of the matrices that it stores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from mobilenmt.compression.core.pack_forms import PackForms
from mobilenmt.export.quantize.forms import LEVELS, WIDE_LEVELS
from mobilenmt.export.quantize.quantizer import round_named

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
            levels = self._table_levels if name == TABLE and form.kind == "int8" else None
            rounded = round_named(q, name, np.concatenate(parts) if len(parts) > 1 else parts[0], levels)
            weights = torch.from_numpy(rounded.weights()).to(parameters[0].device)
            yield from zip(parameters, torch.split(weights, [len(part) for part in parts]), strict=True)


def matrices(student: MarianMTModel) -> dict[str, list[torch.Tensor]]:
    """The exporter's names of all matrices -> the parameters that are stacked in each, in their order."""
    from mobilenmt.export.layers import stacked_name, stacks

    found = {TABLE: [student.model.shared.weight]}
    for names in stacks(student.config.encoder_layers, student.config.decoder_layers):
        found[stacked_name(names)] = [student.get_submodule(name).weight for name in names]
    return found
