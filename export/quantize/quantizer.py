"""The matrices of one pack, each rounded once, whichever graphs read it."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from mobilenmt.export.quantize.forms import Form
from mobilenmt.export.quantize.rounding import Array, Rounded, round_matrix
from mobilenmt.export.quantize.settings import Quantization
from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.sections import QuantizationInfo

TABLES = ("source_embedding", "target_embedding", "output_embedding")
"""Names of tables; tied ones have the first one's."""


def round_named(settings: Quantization, name: str, weight: Array, levels: int | None = None) -> Rounded:
    """The matrix ``weight`` [N, K] called ``name``, rounded as ``settings`` say; ``levels`` as :func:`round_matrix`
    takes them."""
    return round_matrix(
        weight,
        settings.form_of(name),
        clipping=settings.clipping,
        percentile=settings.percentile,
        granularity=settings.granularity,
        levels=levels,
    )


class Quantizer:
    """Rounds matrices as ``settings`` say.

    Args:
        settings: forms and clipping.
        rounded: matrices that are rounded already, by the exporter's names: they are stored as they are.
    """

    def __init__(self, settings: Quantization, rounded: Mapping[str, Rounded] | None = None) -> None:
        self.settings = settings
        self._given = dict(rounded or {})
        self._made: dict[str, Rounded] = {}
        self.forms: dict[str, Form] = {}
        """Of every matrix that was asked for, by name."""
        if settings.method != "nearest" and not self._given:
            raise InputError(
                f"method {settings.method} rounds with a text that calibrates: mobilenmt quantize; "
                "an export alone rounds to the nearest"
            )

    @property
    def plain(self) -> bool:
        """Whether the pack is as packs were before there was a choice."""
        return self.settings.plain and not self._given

    @property
    def all_tables_int8(self) -> bool:
        """Whether embeddings and output layer are all of one form, ``int8``."""
        return all(self.settings.form_of(name).kind == "int8" for name in TABLES)

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
                found.check(form, weight.shape, levels)
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
            self._made[name] = found
            return found
        found = self._made.get(name)
        if found is None:
            found = self._made[name] = round_named(self.settings, name, weight, levels)
        return found

    def check_names(self) -> None:
        """After all graphs are built: whether every name and pattern stands for a matrix.

        Raises:
            InputError: one does not.
        """
        for pattern in (*self.settings.matrices, *self._given):
            if not any(name == pattern or fnmatchcase(name, pattern) for name in self.forms):
                raise InputError(
                    f"matrices: this checkpoint has none called {pattern!r}; it has {', '.join(sorted(self.forms))}"
                )

    def section(self) -> QuantizationInfo | None:
        """What pack.json says of it; None for a pack that is as packs always were."""
        if self.plain:
            return None
        s = self.settings
        others = {name: form.name for name, form in sorted(self.forms.items()) if form.name != s.form}
        return QuantizationInfo(s.form, s.clipping, s.granularity, s.method, others)

    def weights(self) -> dict[str, Array] | None:
        """fp32 [N, K] of every matrix as both engines multiply with it, by name, those in fp32 left out; None where
        :meth:`section` is None."""
        if self.plain:
            return None
        return {name: found.weights() for name, found in self._made.items()}
