"""How the placeholders look that a model copies: the key ``placeholders`` of pack.json, and defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mobilenmt.runtime.errors import InputError, PackError

Form = str | tuple[str, ...]
"""How placeholders look: a text with ``#`` for the number (``<x id="#"/>``), or a list of ready ones that look like
words or numbers to a model which never saw a placeholder."""

DEFAULT_FORMS: tuple[Form, ...] = (
    ("71046", "82053", "93168", "14275", "25387", "36492", "47519", "58624"),
    "[#]",
    ("AB-7104", "CD-8205", "EF-9316", "GH-1427", "JK-2538", "LM-3649", "NP-4752", "QR-5863"),
)
"""For a model of which nothing is known: the best of 21 forms on models that were not trained to copy them."""

TRAINED_FORM = '<x id="#"/>'
"""What augmented training data hold the most of, and models trained on them copy best."""

_LONGEST = 40


@dataclass(frozen=True)
class Placeholders:
    """What a model does with what must be kept."""

    forms: tuple[Form, ...] = ()
    """Forms of placeholders that it copies, the best first; those for unknown models are tried after them."""
    copied: tuple[str, ...] = ()
    """Names of rules whose spans it copies without a placeholder, besides numbers."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "forms", tuple(check_form(form) for form in self.forms))
        if not all(isinstance(name, str) for name in self.copied):
            raise InputError(f"copied: expected names of rules, found {self.copied!r}")
        object.__setattr__(self, "copied", tuple(self.copied))

    @property
    def tried(self) -> tuple[Form, ...]:
        """All forms in the order in which they are tried."""
        return (*self.forms, *(form for form in DEFAULT_FORMS if form not in self.forms))

    @classmethod
    def from_dict(cls, data: object) -> Placeholders:
        """Read the JSON object of pack.json; what is not said has its default, keys of later versions are passed over.

        Raises:
            PackError: it is none, or holds what is no form.
        """
        if not isinstance(data, dict):
            raise PackError("expected an object with forms and copied")
        values: list[Sequence[Any]] = []
        for key in ("forms", "copied"):
            value = data.get(key, [])
            if not isinstance(value, list) or len(value) > 100:
                raise PackError(f"{key}: expected a list")
            values.append(value)
        try:
            return cls(tuple(values[0]), tuple(values[1]))
        except InputError as error:
            raise PackError(f"forms: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        forms = [form if isinstance(form, str) else list(form) for form in self.forms]
        return {"forms": forms, "copied": list(self.copied)}


def check_form(form: object) -> Form:
    """Give the form if it is one.

    Raises:
        InputError: it has no number, is empty, or lists one placeholder twice.
    """
    if isinstance(form, str):
        if form.count("#") != 1 or form != form.strip() or not 1 < len(form) <= _LONGEST:
            raise InputError(f"a form of placeholders is 2 to {_LONGEST} characters with one #, not {form!r}")
        return form
    if not isinstance(form, list | tuple) or not form or not all(isinstance(item, str) and item for item in form):
        raise InputError(f"a form of placeholders is a text with # or a list of texts, not {form!r}")
    if len(set(form)) < len(form) or max(map(len, form)) > _LONGEST:
        raise InputError(f"the placeholders of a form differ and have up to {_LONGEST} characters: {form!r}")
    return tuple(form)
