"""The manifest of a pack: what pack.json says, as dataclasses that check every value they are given.

The classes, here and in :mod:`mobilenmt.runtime.sections`, mirror the JSON objects one to one and are the definition of
the format; ``export`` builds them, the reader parses them with :func:`parse_manifest`. Every complaint is a
:class:`PackError` that starts with the path of the key, as in ``model.d_model: expected an integer from 1 to 65536,
found true``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

from mobilenmt.runtime.checks import integer, json_object, parse_json, shown, text
from mobilenmt.runtime.errors import PackError
from mobilenmt.runtime.sections import (
    LATER,
    Alignment,
    Confidence,
    FileEntry,
    GenerationDefaults,
    ModelInfo,
    QuantizationInfo,
    Section,
    Segmentation,
    TokenIds,
    pick,
)

__all__ = [
    "FORMAT_VERSION",
    "Alignment",
    "Confidence",
    "FileEntry",
    "GenerationDefaults",
    "ModelInfo",
    "PackManifest",
    "QuantizationInfo",
    "Segmentation",
    "TokenIds",
    "check_file_name",
    "parse_manifest",
]
from mobilenmt.runtime.text.forms import Placeholders

FORMAT = "mobilenmt-pack"
FORMAT_VERSION = (2, 1)
"""Version written. A reader refuses a newer first number; a newer second one only adds keys, which it ignores, and
files that need not be there."""
QUANTIZED_VERSION = (2, 2)
"""Written where a pack says ``quantization``."""

MANIFEST_NAME = "pack.json"
MANIFEST_LIMIT = 4 * 2**20
"""Most bytes of a pack.json; a real one has a few thousand."""

_FILE_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
_VERSION = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})")

LATER_SECTIONS: dict[str, type[Section]] = {
    "alignment": Alignment,
    "confidence": Confidence,
    "quantization": QuantizationInfo,
}

T = TypeVar("T")


@dataclass(frozen=True)
class PackManifest:
    """Everything pack.json says."""

    name: str
    source_language: str | None
    target_language: str | None
    precision: Literal["int8", "fp32"]
    model: ModelInfo
    tokens: TokenIds
    generation: GenerationDefaults
    segmentation: Segmentation = field(default_factory=Segmentation)
    """Optional in pack.json."""
    placeholders: Placeholders = field(default_factory=Placeholders)
    """Optional in pack.json: how what must be kept goes through the model."""
    alignment: Alignment | None = field(default=None, metadata=LATER)
    confidence: Confidence | None = field(default=None, metadata=LATER)
    quantization: QuantizationInfo | None = field(default=None, metadata=LATER)
    """None: every matrix is as ``precision`` says."""
    files: dict[str, FileEntry] = field(default_factory=dict)
    """By file name; pack.json itself is not among them."""
    card: dict[str, Any] = field(default_factory=dict)
    """For people: description, licence, training_data, scores, notes. Free in form, all optional."""
    tools: dict[str, str] = field(default_factory=dict)
    """Versions of the programs that wrote the pack."""
    format_version: tuple[int, int] = FORMAT_VERSION

    def __post_init__(self) -> None:
        text("name", self.name)
        for key in ("source_language", "target_language"):
            if getattr(self, key) is not None:
                text(key, getattr(self, key))
        if self.precision not in ("int8", "fp32"):
            raise PackError(f'precision: expected "int8" or "fp32", found {shown(self.precision)}')
        for key in ("files", "card", "tools"):
            json_object(key, getattr(self, key))
        for name in self.files:
            check_file_name(name)
        for tool, version in self.tools.items():
            text(f"tools.{shown(tool)}", version)
        if self.alignment is not None:
            integer("alignment.layer", self.alignment.layer, 0, self.model.decoder_layers - 1)
            integer("alignment.head", self.alignment.head or 0, 0, self.model.decoder_attention_heads - 1)
        source, target = self.model.source_vocab_size, self.model.target_vocab_size
        both = min(source, target)  # one id serves both sides: </s> ends the source too, padding fills both
        self._inside("tokens.start", self.tokens.start, target)
        self._inside("tokens.eos", self.tokens.eos, both)
        self._inside("tokens.pad", self.tokens.pad, both)
        self._inside("tokens.unk", self.tokens.unk, source)
        self._inside("generation.forced_eos_token_id", self.generation.forced_eos_token_id, target)
        self._inside("generation.forced_bos_token_id", self.generation.forced_bos_token_id, target)
        for key in ("bad_token_ids", "begin_suppress_tokens"):
            for index, token in enumerate(getattr(self.generation, key)):
                self._inside(f"generation.{key}[{index}]", token, target)

    @staticmethod
    def _inside(key: str, token: int | None, size: int) -> None:
        if token is not None and token >= size:
            raise PackError(f"{key}: id {token} lies outside a vocabulary of {size}")

    def with_files(self, files: Mapping[str, FileEntry]) -> PackManifest:
        """Return a copy that lists ``files``."""
        return replace(self, files=dict(files))

    @classmethod
    def from_dict(cls, data: object) -> PackManifest:
        """Read the whole of pack.json, version first so that a newer format is named as such."""
        top = json_object("the manifest", data)
        if top.get("format") != FORMAT:
            raise PackError(f'format: expected "{FORMAT}", found {shown(top.get("format"))}; this is no pack')
        version = _version(top.get("format_version"))
        values = pick(cls, {"card": {}, "tools": {}, "segmentation": {}, "placeholders": {}, **top})
        values["format_version"] = version
        values["model"] = _within("model", ModelInfo.from_dict, values["model"])
        values["tokens"] = _within("tokens", TokenIds.from_dict, values["tokens"])
        values["generation"] = _within("generation", GenerationDefaults.from_dict, values["generation"])
        values["segmentation"] = _within("segmentation", Segmentation.from_dict, values["segmentation"])
        values["placeholders"] = _within("placeholders", Placeholders.from_dict, values["placeholders"])
        for key, section in LATER_SECTIONS.items():
            if values.get(key) is not None:
                values[key] = _within(key, section.from_dict, values[key])
        files = json_object("files", values["files"])
        values["files"] = {check_file_name(n): _within(f"files.{n}", FileEntry.from_dict, e) for n, e in files.items()}
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the whole of pack.json, in the order a person reads it."""
        values = {"format": FORMAT, "format_version": "{}.{}".format(*self.format_version)}
        sections = {**vars(self), "files": {name: entry.to_dict() for name, entry in self.files.items()}}
        del sections["format_version"]
        later = {f.name for f in fields(self) if f.metadata}
        sections = {key: item for key, item in sections.items() if item is not None or key not in later}
        return values | {
            k: item.to_dict() if isinstance(item, Section | Placeholders) else item for k, item in sections.items()
        }


def parse_manifest(content: bytes) -> PackManifest:
    """Read the bytes of a pack.json from anywhere; PackError for everything that is not a manifest."""
    return PackManifest.from_dict(parse_json(content))


def check_file_name(name: str) -> str:
    """Return ``name`` if it may name a file of a pack: one plain ASCII name, no folder, no hidden file."""
    if not isinstance(name, str) or not _FILE_NAME.fullmatch(name) or name == MANIFEST_NAME:
        raise PackError(f"files: {shown(name)} may not name a file of a pack; allowed are letters, digits and . _ -")
    return name


def _version(value: object) -> tuple[int, int]:
    match = _VERSION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise PackError(f'format_version: expected "MAJOR.MINOR", found {shown(value)}')
    version = int(match[1]), int(match[2])
    if version[0] > FORMAT_VERSION[0]:
        ours = "{}.{}".format(*FORMAT_VERSION)
        raise PackError(
            f"format_version: the pack has format {value}, this version of mobilenmt reads up to {ours}; "
            "update mobilenmt or export the pack again"
        )
    if version[0] < 1:
        raise PackError(f"format_version: there is no format {value}")
    return version


def _within(key: str, read: Callable[[object], T], data: object) -> T:
    try:
        return read(data)
    except PackError as error:
        raise PackError(f"{key}.{error}") from None
