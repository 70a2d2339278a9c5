"""The manifest of a pack: what pack.json says, as dataclasses that check every value they are given.

The classes mirror the JSON objects one to one and are the definition of the format; ``export`` builds them, the reader
parses them with :func:`parse_manifest`. Every complaint is a :class:`PackError` that starts with the path of the key,
as in ``model.d_model: expected an integer from 1 to 65536, found true``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self, TypeVar, cast

from mobilenmt.runtime.checks import integer, json_object, parse_json, shown, text
from mobilenmt.runtime.errors import PackError
from mobilenmt.runtime.text.forms import Placeholders

FORMAT = "mobilenmt-pack"
FORMAT_VERSION = (2, 1)
"""Version written. A reader refuses a newer first number; a newer second one only adds keys, which it ignores, and
files that need not be there."""

MANIFEST_NAME = "pack.json"
MANIFEST_LIMIT = 4 * 2**20
"""Most bytes of a pack.json; a real one has a few thousand."""

_LARGEST_COUNT = 2**31 - 1  # ids and dimensions are int32 on every platform that reads packs
_LARGEST_FILE = 2**40  # bytes
_FILE_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})")

T = TypeVar("T")


class _Section:
    """A JSON object whose keys are the fields of a dataclass."""

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """Read the JSON object; keys of later versions are passed over.

        Raises:
            PackError: it is no object, a key is missing, or a value is not what the class allows.
        """
        return cls(**_pick(cls, data))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        values = asdict(cast(Any, self))
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


@dataclass(frozen=True)
class ModelInfo(_Section):
    """Dimensions of the network, named as in a Hugging Face Marian configuration."""

    architecture: str
    d_model: int
    """Width of embeddings and hidden states."""
    encoder_layers: int
    decoder_layers: int
    encoder_attention_heads: int
    decoder_attention_heads: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    activation_function: str
    source_vocab_size: int
    target_vocab_size: int
    max_positions: int
    """Most tokens of one sequence, ``</s>`` and the start token included."""
    parameters: int
    """Weights of the checkpoint, a tied matrix counted once."""

    def __post_init__(self) -> None:
        text("architecture", self.architecture)
        text("activation_function", self.activation_function)
        for key in ("d_model", "encoder_ffn_dim", "decoder_ffn_dim", "max_positions"):
            integer(key, getattr(self, key), 1, 2**20)
        for key in ("encoder_layers", "decoder_layers"):
            integer(key, getattr(self, key), 1, 1024)
        for key in ("source_vocab_size", "target_vocab_size"):
            integer(key, getattr(self, key), 1, _LARGEST_COUNT)
        integer("parameters", self.parameters, 1, 2**40)
        for key in ("encoder_attention_heads", "decoder_attention_heads"):
            heads = integer(key, getattr(self, key), 1, self.d_model)
            if self.d_model % heads:
                raise PackError(f"{key}: {heads} heads do not divide a d_model of {self.d_model}")


@dataclass(frozen=True)
class TokenIds(_Section):
    """Ids with a meaning of their own."""

    start: int
    """The decoder's first input."""
    eos: int
    pad: int
    unk: int | None
    """None when the tokenizer can spell everything."""

    def __post_init__(self) -> None:
        for key in ("start", "eos", "pad"):
            integer(key, getattr(self, key), 0, _LARGEST_COUNT)
        if self.unk is not None:
            integer("unk", self.unk, 0, _LARGEST_COUNT)


@dataclass(frozen=True)
class GenerationDefaults(_Section):
    """How the checkpoint wants to be decoded; the meaning is that of Hugging Face's ``generate``."""

    num_beams: int = 1
    length_penalty: float = 1.0
    """Exponent of the length by which a beam's log-probability is divided."""
    early_stopping: bool | Literal["never"] = False
    renormalize_logits: bool = False
    forced_eos_token_id: int | None = None
    bad_token_ids: tuple[int, ...] = ()
    """Ids that are never generated."""
    max_length: int = 256
    """Most target tokens, the start token included."""

    def __post_init__(self) -> None:
        integer("num_beams", self.num_beams, 1, 1024)
        integer("max_length", self.max_length, 1, _LARGEST_COUNT)
        penalty: object = self.length_penalty
        if isinstance(penalty, bool) or not isinstance(penalty, int | float) or not -100 <= penalty <= 100:
            raise PackError(f"length_penalty: expected a number from -100 to 100, found {shown(penalty)}")
        object.__setattr__(self, "length_penalty", float(penalty))  # JSON from other writers says 1, not 1.0
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise PackError(f'early_stopping: expected true, false or "never", found {shown(self.early_stopping)}')
        if not isinstance(self.renormalize_logits, bool):
            raise PackError(f"renormalize_logits: expected true or false, found {shown(self.renormalize_logits)}")
        if self.forced_eos_token_id is not None:
            integer("forced_eos_token_id", self.forced_eos_token_id, 0, _LARGEST_COUNT)
        if isinstance(self.bad_token_ids, list):  # as JSON has it
            object.__setattr__(self, "bad_token_ids", tuple(self.bad_token_ids))
        if not isinstance(self.bad_token_ids, tuple):
            raise PackError(f"bad_token_ids: expected a list of integers, found {shown(self.bad_token_ids)}")
        for index, token in enumerate(self.bad_token_ids):
            integer(f"bad_token_ids[{index}]", token, 0, _LARGEST_COUNT)


@dataclass(frozen=True)
class Segmentation(_Section):
    """How a host cuts texts for this model."""

    sentences: bool = True
    """Whether it translates sentence by sentence. True for a model that learned from pairs of sentences, which drops
    some of several at once; a pack that does not say was made of such a model, as nearly all are."""

    @classmethod
    def from_dict(cls, data: object) -> Segmentation:
        """Read the JSON object; what is not said has its default."""
        return super().from_dict({**cls().to_dict(), **json_object("the value", data)})

    def __post_init__(self) -> None:
        if not isinstance(self.sentences, bool):
            raise PackError(f"sentences: expected true or false, found {shown(self.sentences)}")


@dataclass(frozen=True)
class FileEntry(_Section):
    """Size and content of one file of a pack."""

    bytes: int
    sha256: str
    """64 lower-case hexadecimal digits."""

    def __post_init__(self) -> None:
        integer("bytes", self.bytes, 0, _LARGEST_FILE)
        if not isinstance(self.sha256, str) or not _SHA256.fullmatch(self.sha256):
            raise PackError(f"sha256: expected 64 lower-case hexadecimal digits, found {shown(self.sha256)}")


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
    segmentation: Segmentation = Segmentation()
    """Optional in pack.json."""
    placeholders: Placeholders = field(default_factory=Placeholders)
    """Optional in pack.json: how what must be kept goes through the model."""
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
        source, target = self.model.source_vocab_size, self.model.target_vocab_size
        both = min(source, target)  # one id serves both sides: </s> ends the source too, padding fills both
        self._inside("tokens.start", self.tokens.start, target)
        self._inside("tokens.eos", self.tokens.eos, both)
        self._inside("tokens.pad", self.tokens.pad, both)
        self._inside("tokens.unk", self.tokens.unk, source)
        self._inside("generation.forced_eos_token_id", self.generation.forced_eos_token_id, target)
        for index, token in enumerate(self.generation.bad_token_ids):
            self._inside(f"generation.bad_token_ids[{index}]", token, target)

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
        values = _pick(cls, {"card": {}, "tools": {}, "segmentation": {}, "placeholders": {}, **top})
        values["format_version"] = version
        values["model"] = _within("model", ModelInfo.from_dict, values["model"])
        values["tokens"] = _within("tokens", TokenIds.from_dict, values["tokens"])
        values["generation"] = _within("generation", GenerationDefaults.from_dict, values["generation"])
        values["segmentation"] = _within("segmentation", Segmentation.from_dict, values["segmentation"])
        values["placeholders"] = _within("placeholders", Placeholders.from_dict, values["placeholders"])
        files = json_object("files", values["files"])
        values["files"] = {check_file_name(n): _within(f"files.{n}", FileEntry.from_dict, e) for n, e in files.items()}
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the whole of pack.json, in the order a person reads it."""
        values = {"format": FORMAT, "format_version": "{}.{}".format(*self.format_version)}
        sections = {**vars(self), "files": {name: entry.to_dict() for name, entry in self.files.items()}}
        del sections["format_version"]
        return values | {
            k: item.to_dict() if isinstance(item, _Section | Placeholders) else item for k, item in sections.items()
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


def _pick(cls: type[Any], data: object) -> dict[str, Any]:
    """The values of a dataclass's fields out of a JSON object; keys of later versions are passed over."""
    found = json_object("the value", data)
    missing = [f.name for f in fields(cls) if f.name not in found]
    if missing:
        raise PackError(f"{', '.join(missing)}: missing")
    return {f.name: found[f.name] for f in fields(cls)}


def _within(key: str, read: Callable[[object], T], data: object) -> T:
    try:
        return read(data)
    except PackError as error:
        raise PackError(f"{key}.{error}") from None
