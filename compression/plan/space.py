"""Which shapes there are to choose from: a grid, what was fixed by hand, and what fits inside a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mobilenmt.compression.core.errors import PlanError, RecipeError
from mobilenmt.compression.pack.shortlist import ShortlistSettings
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.compression.vocabulary.stage import SMALLEST
from mobilenmt.export.quantize.settings import Quantization

WIDTHS = (64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 448, 512, 576, 640, 768, 896, 1024)
INNER = (1.0, 1.5, 2.0, 3.0, 4.0)
"""Inner widths of the feed-forward layers, as multiples of the width."""
ENCODER_LAYERS, DECODER_LAYERS = 24, 6
VOCABULARIES = (1000, 2000, 3000, 4000, 6000, 8000, 12000, 16000, 24000, 32000)
_HEAD_WIDTHS = (64, 48, 32)
_STEP = 64  # of inner widths


@dataclass(frozen=True)
class Space:
    """What a search may choose."""

    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Fields of :class:`StudentShape` that are given."""
    vocabularies: tuple[int, ...] = VOCABULARIES
    """Numbers of pieces."""
    inside: StudentShape | None = None
    """A model that the shape must be a part of, for pruning: no dimension is larger, and no head wider."""
    precision: str = "int8"
    quantization: Quantization | None = None
    """Forms of the matrices of an int8 pack; None for int8 of all of them."""
    shortlist: ShortlistSettings | None = field(default_factory=ShortlistSettings)
    """Of packs with at least four times as many pieces as are common; None for none."""
    tokenizers: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Pieces -> bytes of tokenizer.json and of its table in native.bin, where they are known."""

    def __post_init__(self) -> None:
        if not self.vocabularies:
            raise PlanError("vocabulary: name a number of pieces")
        for pieces in self.vocabularies:
            if not SMALLEST <= pieces <= 1 << 20 and pieces not in self.tokenizers:
                raise PlanError(f"vocabulary: expected {SMALLEST} to {1 << 20:,} pieces, found {pieces}")
        for name in self.fixed:
            if name not in StudentShape.__dataclass_fields__:
                raise PlanError(f"{name} is no dimension of a student")

    def shortlist_for(self, vocabulary: int) -> ShortlistSettings | None:
        """The shortlist of a pack with so many pieces; None if it gets none."""
        due = self.precision == "int8" and self.shortlist is not None and vocabulary >= 4 * self.shortlist.common
        return self.shortlist if due else None

    def layers(self, side: str) -> range:
        """Numbers of layers of a side."""
        name = f"{side}_layers"
        if name in self.fixed:
            return range(self.fixed[name], self.fixed[name] + 1)
        most = ENCODER_LAYERS if side == "encoder" else DECODER_LAYERS
        return range(1, (most if self.inside is None else getattr(self.inside, name)) + 1)

    def slices(self) -> Iterator[StudentShape]:
        """Shapes of one layer a side, for every width and every pair of inner widths. PlanError if there is none."""
        found = False
        for width in self._widths():
            for encoder in self._inner(width, "encoder"):
                for decoder in self._inner(width, "decoder"):
                    shape = self._shape(width, encoder, decoder)
                    if shape is not None:
                        found = True
                        yield shape
        if not found:
            given = ", ".join(f"{key} {value}" for key, value in self.fixed.items())
            raise PlanError(f"no shape has {given or 'such dimensions'}: heads must divide the width")

    def _widths(self) -> list[int]:
        if "d_model" in self.fixed:
            return [self.fixed["d_model"]]
        if self.inside is None:
            return list(WIDTHS)
        whole = self.inside.d_model
        return sorted({whole, *(width for width in range(32, whole, 16) if width % 32 == 0 or whole <= 128)})

    def _inner(self, width: int, side: str) -> list[int]:
        name = f"{side}_ffn_dim"
        if name in self.fixed:
            return [self.fixed[name]]
        if self.inside is None:
            return sorted({max(_STEP, round(width * factor / _STEP) * _STEP) for factor in INNER})
        whole = getattr(self.inside, name)
        return sorted({min(whole, max(_STEP, round(whole * eighths / 8 / _STEP) * _STEP)) for eighths in range(2, 9)})

    def _shape(self, width: int, encoder: int, decoder: int) -> StudentShape | None:
        values: dict[str, Any] = {"d_model": width, "encoder_ffn_dim": encoder, "decoder_ffn_dim": decoder}
        for side in ("encoder", "decoder"):
            heads = self._heads(width, side)
            if heads is None:
                return None
            values |= {f"{side}_attention_heads": heads, f"{side}_layers": self.layers(side)[0]}
        base = self.inside or StudentShape()
        kept = {name: getattr(base, name) for name in ("activation_function", "max_position_embeddings")}
        try:
            shape = StudentShape(**{**kept, **values, **self.fixed})
        except RecipeError:
            return None
        return shape if self.inside is None or is_inside(shape, self.inside) else None

    def _heads(self, width: int, side: str) -> int | None:
        """As many heads as make them as wide as is usual; inside a model, as many of its own as the width has."""
        name = f"{side}_attention_heads"
        if name in self.fixed:
            return int(self.fixed[name])
        if self.inside is None:
            return next((width // size for size in _HEAD_WIDTHS if width % size == 0 and width > size), 1)
        heads: int = getattr(self.inside, name)
        size = self.inside.d_model // heads
        if width % size == 0:
            return width // size
        return heads if width % heads == 0 else None


def is_inside(shape: StudentShape, whole: StudentShape) -> bool:
    """Whether pruning can make ``shape`` of ``whole``: nothing is larger, no head is wider."""
    numbers = [name for name in shape.__dataclass_fields__ if name.endswith(("_model", "_layers", "_heads", "_dim"))]
    heads = ("encoder_attention_heads", "decoder_attention_heads")
    return all(getattr(shape, name) <= getattr(whole, name) for name in numbers) and all(
        shape.d_model // getattr(shape, name) <= whole.d_model // getattr(whole, name) for name in heads
    )


def with_layers(shape: StudentShape, encoder: Any, decoder: Any) -> StudentShape:
    """The shape with other numbers of layers."""
    return replace(shape, encoder_layers=int(encoder), decoder_layers=int(decoder))
