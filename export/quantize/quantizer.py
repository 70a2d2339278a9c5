"""The matrices of one pack, each rounded once, whichever graphs read it."""

from __future__ import annotations

from collections.abc import Mapping

from mobilenmt.export.quantize.forms import Form
from mobilenmt.export.quantize.rounding import Array, Rounded, round_matrix
from mobilenmt.export.quantize.settings import Quantization
from mobilenmt.runtime.errors import InputError


class Quantizer:
    """Rounds matrices as ``settings`` say.

    Args:
        settings: forms and clipping.
        rounded: matrices that are rounded already, by the exporter's names: they are stored as they are.
    """

    def __init__(self, settings: Quantization, rounded: Mapping[str, Rounded] | None = None) -> None:
        self.settings = settings
        self._given = dict(rounded or {})
        self._known: dict[tuple[str, int], Rounded] = {}
        self.forms: dict[str, Form] = {}
        """Of every matrix that was asked for, by name."""
        if settings.method != "nearest" and not self._given:
            raise InputError(
                f"method {settings.method} rounds with a text that calibrates: mobilenmt quantize; "
                "an export alone rounds to the nearest"
            )

    def form(self, name: str) -> Form:
        """The form of a matrix."""
        return self.forms.setdefault(name, self.settings.form_of(name))

    def round(self, name: str, weight: Array, levels: int | None = None) -> Rounded:
        """The matrix ``weight`` [N, K] in its form; ``levels`` as :func:`round_matrix` takes them.

        Raises:
            InputError: what was given rounded is no such matrix.
        """
        form = self.form(name)
        found = self._given.get(name)
        if found is not None:
            try:
                found.check(form, weight.shape)
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
            return found
        key = name, levels or form.levels
        if key not in self._known:
            s = self.settings
            self._known[key] = round_matrix(
                weight,
                form,
                clipping=s.clipping,
                percentile=s.percentile,
                granularity=s.granularity,
                levels=levels,
            )
        return self._known[key]
