"""Settings of a pack's matrices: what a recipe's ``[export]``, the command line and the study share."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

from mobilenmt.export.quantize.forms import Clipping, Form, Granularity, find_form
from mobilenmt.runtime.errors import InputError

Method = Literal["nearest", "gptq", "awq"]


@dataclass(frozen=True)
class Quantization:
    """How matrices are stored, and how they are rounded."""

    form: str = "int8"
    """Of every matrix that ``matrices`` does not name: int8, int8-wide, int4-16, int4-32, int4-64, int4-128, fp32."""
    clipping: Clipping = "max"
    """What the largest integer stands for: the largest magnitude, a percentile of the magnitudes, or what gives the
    least squared error."""
    percentile: float = 99.99
    """For ``clipping = "percentile"``: from 50 to 100."""
    granularity: Granularity = "channel"
    """A scale for each output (``channel``), or one for the whole matrix (``tensor``)."""
    matrices: Mapping[str, str] = field(default_factory=dict)
    """Name of a matrix, or a pattern with ``*`` and ``?`` -> its form; the first that fits counts. Names are the
    exporter's: ``source_embedding`` (the one table of a tied model), ``model.encoder.layers.0.fc2``,
    ``model.decoder.layers.1.self_attn.q_proj+k_proj+v_proj``."""
    method: Method = "nearest"
    """How values are chosen. With anything but ``nearest`` the exporter must be given them ready."""

    def __post_init__(self) -> None:
        find_form(self.form)
        for key, allowed in (("clipping", Clipping), ("granularity", Granularity), ("method", Method)):
            if getattr(self, key) not in get_args(allowed):
                raise InputError(f"{key}: expected one of {', '.join(get_args(allowed))}, found {getattr(self, key)!r}")
        number = isinstance(self.percentile, int | float) and not isinstance(self.percentile, bool)
        if not number or not 50 <= self.percentile <= 100:
            raise InputError(f"percentile: expected a number from 50 to 100, found {self.percentile!r}")
        if not isinstance(self.matrices, Mapping):
            raise InputError(f"matrices: expected names and forms, found {self.matrices!r}")
        for pattern, name in self.matrices.items():
            try:
                find_form(name)
            except InputError as error:
                raise InputError(f"matrices: {pattern}: {error}") from None

    @property
    def plain(self) -> bool:
        """Whether packs say nothing of it: what every INT8 pack was before there was a choice."""
        return self == Quantization(percentile=self.percentile)

    def form_of(self, name: str) -> Form:
        """The form of the matrix called ``name``."""
        found = next((form for pattern, form in self.matrices.items() if fnmatchcase(name, pattern)), self.form)
        return find_form(found)

    def to_dict(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON has it; the form always."""
        usual = Quantization()
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["matrices"] = dict(self.matrices)
        if self.clipping != "percentile":
            del values["percentile"]
        return {key: value for key, value in values.items() if key == "form" or value != getattr(usual, key)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Quantization:
        """From keys of the fields' names.

        Raises:
            InputError: a key that there is not, or a value that is not allowed.
        """
        known = [item.name for item in fields(cls)]
        for key in values:
            if key not in known:
                raise InputError(f"there is no setting {key!r} of quantization; settings: {', '.join(known)}")
        return cls(**values)

    @classmethod
    def load(cls, path: Path) -> Quantization:
        """Read a TOML file, or a JSON file if its name ends in ``.json``, with the fields as keys.

        Raises:
            InputError: it cannot be read, or says something that is not allowed.
        """
        try:
            text = path.read_text(encoding="utf-8")
            values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        except (OSError, ValueError) as error:  # both libraries' own are ValueErrors
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{path}: settings of quantization cannot be read: {reason}") from None
        if not isinstance(values, dict):
            raise InputError(f"{path}: expected settings of quantization by name")
        try:
            return cls.from_dict(values)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
