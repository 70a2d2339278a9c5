"""The parts of pack.json, as dataclasses that check what they are given: see :mod:`mobilenmt.runtime.manifest`."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self, cast

from mobilenmt.runtime.checks import integer, json_object, number, shown, text
from mobilenmt.runtime.errors import PackError

LARGEST_COUNT = 2**31 - 1  # ids and dimensions are int32 on every platform that reads packs
_LARGEST_FILE = 2**40  # bytes
_SHA256 = re.compile(r"[0-9a-f]{64}")
MOST_PENALTY = 10
"""Either way; beyond, the scores of long outputs leave the range of a float. People use 0 to 2."""
LATER = {"later": True}
"""Marks a key that packs of format 2.0 lack."""


class Section:
    """A JSON object whose keys are the fields of a dataclass."""

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """Read the JSON object; keys of later versions are passed over.

        Raises:
            PackError: it is no object, a key is missing, or a value is not what the class allows.
        """
        return cls(**pick(cls, data))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object, without later keys that say nothing."""
        values = asdict(cast(Any, self))
        for item in fields(cast(Any, self)):
            if item.metadata and values[item.name] == item.default:
                del values[item.name]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


@dataclass(frozen=True)
class ModelInfo(Section):
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
            integer(key, getattr(self, key), 1, LARGEST_COUNT)
        integer("parameters", self.parameters, 1, 2**40)
        for key in ("encoder_attention_heads", "decoder_attention_heads"):
            heads = integer(key, getattr(self, key), 1, self.d_model)
            if self.d_model % heads:
                raise PackError(f"{key}: {heads} heads do not divide a d_model of {self.d_model}")


@dataclass(frozen=True)
class TokenIds(Section):
    """Ids with a meaning of their own."""

    start: int
    """The decoder's first input."""
    eos: int
    pad: int
    unk: int | None
    """None when the tokenizer can spell everything."""

    def __post_init__(self) -> None:
        for key in ("start", "eos", "pad"):
            integer(key, getattr(self, key), 0, LARGEST_COUNT)
        if self.unk is not None:
            integer("unk", self.unk, 0, LARGEST_COUNT)


@dataclass(frozen=True)
class GenerationDefaults(Section):
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
    min_length: int = field(default=0, metadata=LATER)
    """No end token before this many tokens, the start token included."""
    no_repeat_ngram_size: int = field(default=0, metadata=LATER)
    """No n-gram of this many tokens comes twice, the start token included; 0 for no such rule."""
    forced_bos_token_id: int | None = field(default=None, metadata=LATER)
    """The first token generated."""
    begin_suppress_tokens: tuple[int, ...] = field(default=(), metadata=LATER)
    """Ids that are not the first token, behind a forced one."""

    def __post_init__(self) -> None:
        integer("num_beams", self.num_beams, 1, 1024)
        integer("max_length", self.max_length, 1, LARGEST_COUNT)
        penalty = number("length_penalty", self.length_penalty, -MOST_PENALTY, MOST_PENALTY)
        object.__setattr__(self, "length_penalty", penalty)  # JSON from other writers says 1, not 1.0
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise PackError(f'early_stopping: expected true, false or "never", found {shown(self.early_stopping)}')
        if not isinstance(self.renormalize_logits, bool):
            raise PackError(f"renormalize_logits: expected true or false, found {shown(self.renormalize_logits)}")
        if self.forced_eos_token_id is not None:
            integer("forced_eos_token_id", self.forced_eos_token_id, 0, LARGEST_COUNT)
        integer("min_length", self.min_length, 0, LARGEST_COUNT)
        integer("no_repeat_ngram_size", self.no_repeat_ngram_size, 0, LARGEST_COUNT)
        if self.forced_bos_token_id is not None:
            integer("forced_bos_token_id", self.forced_bos_token_id, 0, LARGEST_COUNT)
        for key in ("bad_token_ids", "begin_suppress_tokens"):
            tokens = getattr(self, key)
            if isinstance(tokens, list):  # as JSON has it
                object.__setattr__(self, key, tuple(tokens))
            elif not isinstance(tokens, tuple):
                raise PackError(f"{key}: expected a list of integers, found {shown(tokens)}")
            for index, token in enumerate(tokens):
                integer(f"{key}[{index}]", token, 0, LARGEST_COUNT)


FORMS = ("int8", "int8-wide", "int4-16", "int4-32", "int4-64", "int4-128", "fp32")
"""How a matrix may be stored; docs/pack-format.md."""


@dataclass(frozen=True)
class QuantizationInfo(Section):
    """How the matrices of a pack are stored and were rounded, where it is not as in every pack of format 2.1."""

    form: str
    """Of every matrix that ``matrices`` does not name."""
    clipping: str = "max"
    granularity: str = "channel"
    method: str = "nearest"
    matrices: dict[str, str] = field(default_factory=dict)
    """Name of a matrix -> its form."""

    def __post_init__(self) -> None:
        for key in ("clipping", "granularity", "method"):
            text(key, getattr(self, key))
        json_object("matrices", self.matrices)
        for key, form in {"form": self.form, **{f"matrices.{k}": v for k, v in self.matrices.items()}}.items():
            if form not in FORMS:
                raise PackError(
                    f"{key}: {shown(form)} is no form this version of mobilenmt knows ({', '.join(FORMS)}); "
                    "update mobilenmt"
                )


@dataclass(frozen=True)
class Alignment(Section):
    """Whose cross-attention says which source token a target token is from."""

    layer: int
    """Of the decoder, from 0."""
    head: int | None
    """Of the layer, from 0; None for the mean of its heads."""
    later: int
    """1: a token looks there in the step behind it, where it is what the decoder reads; 0: in its own."""
    aer: float | None = None
    """Alignment error rate against a statistical aligner, where it was measured."""

    def __post_init__(self) -> None:
        integer("layer", self.layer, 0, 1023)
        if self.head is not None:
            integer("head", self.head, 0, 2**20)
        integer("later", self.later, 0, 1)
        if self.aer is not None:
            number("aer", self.aer, 0, 1)


@dataclass(frozen=True)
class Confidence(Section):
    """How token scores become the probability that an output is good: a logistic function, fitted on dev text.

    Good is a chrF of ``chrf`` at least against a reference. See :func:`mobilenmt.runtime.hypothesis.confidence`.
    """

    bias: float
    mean: float
    """Weight of the mean log-probability of the tokens."""
    least: float
    """Weight of the least of them."""
    length: float
    """Weight of the logarithm of their number."""
    chrf: float = 30.0

    def __post_init__(self) -> None:
        for key in ("bias", "mean", "least", "length"):
            number(key, getattr(self, key), -1e6, 1e6)
        number("chrf", self.chrf, 0, 100)


@dataclass(frozen=True)
class FileEntry(Section):
    """Size and content of one file of a pack."""

    bytes: int
    sha256: str
    """64 lower-case hexadecimal digits."""

    def __post_init__(self) -> None:
        integer("bytes", self.bytes, 0, _LARGEST_FILE)
        if not isinstance(self.sha256, str) or not _SHA256.fullmatch(self.sha256):
            raise PackError(f"sha256: expected 64 lower-case hexadecimal digits, found {shown(self.sha256)}")


def pick(cls: type[Any], data: object) -> dict[str, Any]:
    """The values of a dataclass's fields out of a JSON object; keys of later versions are passed over."""
    found = json_object("the value", data)
    missing = [f.name for f in fields(cls) if f.name not in found and not f.metadata]
    if missing:
        raise PackError(f"{', '.join(missing)}: missing")
    return {f.name: found[f.name] for f in fields(cls) if f.name in found}


@dataclass(frozen=True)
class Segmentation(Section):
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
