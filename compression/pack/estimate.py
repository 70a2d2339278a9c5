"""How many bytes the pack of a student takes, from its shape alone.

weights.bin and native.bin follow from the shape to the byte, a line of the cache or two aside. The graphs are as many
nodes a layer whatever its width. What a tokenizer takes depends on its text: for one that is there it is counted
(:func:`tokenizer_bytes`), for one to be trained it is what BPE of English and German took.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mobilenmt.compression.train.size import count_in_matrices, count_in_vectors
from mobilenmt.compression.train.student import StudentShape

if TYPE_CHECKING:
    from mobilenmt.compression.pack.shortlist import ShortlistSettings

_PIECES = (256, 1_000, 2_000, 4_000, 6_000, 8_000, 12_000, 16_000, 24_000, 32_000)
_TOKENIZER_BYTES = (4_000, 19_654, 46_658, 104_396, 164_860, 227_464, 358_086, 494_140, 771_104, 1_052_980)
"""Of tokenizer.json by its pieces: BPE of 200,000 pairs of English and German, 96 letters."""
_TABLE_BYTES = (4_300, 24_264, 51_768, 108_640, 166_864, 226_160, 346_456, 468_480, 714_936, 963_848)
"""Of the same tokenizers' tables in native.bin."""
GRAPH_BYTES = {"int8": (44_900, 14_950, 31_900), "fp32": (34_600, 12_300, 22_800)}
"""The five graphs and pack.json take about this much, and as much more for each encoder and each decoder layer."""
SHORTLIST_GRAPH_BYTES = 5_100
"""What a shortlist adds to the graphs."""
_LINE = 64  # bytes; tensors of weights.bin begin at multiples


@dataclass(frozen=True)
class PackParts:
    """Bytes of a pack by what they grow with: ``fixed + encoder * encoder layers + decoder * decoder layers``."""

    fixed: int
    encoder: int
    decoder: int

    def total(self, encoder_layers: int, decoder_layers: int) -> int:
        """Bytes of all files."""
        return self.fixed + self.encoder * encoder_layers + self.decoder * decoder_layers


def estimate_pack_bytes(
    shape: StudentShape,
    vocabulary: int,
    precision: str = "int8",
    *,
    shortlist: ShortlistSettings | None = None,
    tokenizer_bytes: int | None = None,
    native_bytes: int | None = None,
) -> int:
    """Bytes of all files of a pack, within a percent if its tokenizer is like those this was measured with.

    INT8: a byte for each element of a matrix, and fp32 scales for its rows; vectors are fp32.

    Args:
        shape: dimensions of the student.
        vocabulary: pieces, ``<pad>`` included.
        precision: ``int8`` or ``fp32``.
        shortlist: sizes of the pack's shortlist; None for a pack without one.
        tokenizer_bytes: size of tokenizer.json if it is known.
        native_bytes: likewise of native.bin.
    """
    table = None
    if native_bytes is not None:
        table = native_bytes - _native_beside_table(shape.encoder_layers, shape.decoder_layers)
    parts = pack_parts(
        shape, vocabulary, precision, shortlist=shortlist, tokenizer_bytes=tokenizer_bytes, table_bytes=table
    )
    return parts.total(shape.encoder_layers, shape.decoder_layers)


def pack_parts(
    shape: StudentShape,
    vocabulary: int,
    precision: str = "int8",
    *,
    shortlist: ShortlistSettings | None = None,
    tokenizer_bytes: int | None = None,
    table_bytes: int | None = None,
) -> PackParts:
    """What :func:`estimate_pack_bytes` sums, for any number of layers; those of ``shape`` are not looked at.

    Args:
        shape: dimensions of the student.
        vocabulary: pieces.
        precision: ``int8`` or ``fp32``.
        shortlist: sizes of the pack's shortlist; None for a pack without one.
        tokenizer_bytes: size of tokenizer.json if it is known.
        table_bytes: likewise of the tokenizer's table in native.bin.
    """
    graphs, encoder, decoder = GRAPH_BYTES[precision]
    if tokenizer_bytes is None:
        tokenizer_bytes = _by_pieces(vocabulary, _TOKENIZER_BYTES)
    if precision == "fp32":
        one = StudentShape(**{**vars(shape), "encoder_layers": 1, "decoder_layers": 1})
        two = StudentShape(**{**vars(shape), "encoder_layers": 2, "decoder_layers": 1})
        three = StudentShape(**{**vars(shape), "encoder_layers": 1, "decoder_layers": 2})
        base, more, deeper = (4 * (count_in_matrices(s, vocabulary) + count_in_vectors(s)) for s in (one, two, three))
        positions = 4 * shape.max_position_embeddings * shape.d_model  # int8 packs hold the sinusoids of a few rows
        fixed = base - (more - base) - (deeper - base) + positions + graphs + tokenizer_bytes
        return PackParts(fixed, more - base + encoder, deeper - base + decoder)
    if table_bytes is None:
        table_bytes = _by_pieces(vocabulary, _TABLE_BYTES)
    fixed = _aligned(_table_and_positions(shape, vocabulary, shortlist)) + graphs + tokenizer_bytes + table_bytes
    fixed += _native_beside_table(0, 0) + (SHORTLIST_GRAPH_BYTES if shortlist is not None else 0)
    records = [_native_beside_table(*layers) - _native_beside_table(0, 0) for layers in ((2, 0), (0, 2))]
    return PackParts(
        fixed,
        _aligned(_encoder_layer(shape)) + encoder + records[0] // 2,
        _aligned(_decoder_layer(shape)) + decoder + records[1] // 2,
    )


def tokenizer_bytes(tokenizer: Path, pieces: int) -> tuple[int, int]:
    """Bytes of a tokenizer in a pack: of its tokenizer.json, and of its table in native.bin.

    Args:
        tokenizer: a folder with a tokenizer.json in a student's layout.
        pieces: how many it has.

    Raises:
        CheckpointError: there is none, or it will not do.
    """
    from mobilenmt.export.native.tokenizer import NotExpressible, tokenizer_table
    from mobilenmt.export.tokenizer import prepare_tokenizer
    from mobilenmt.runtime.manifest import TokenIds

    pad = pieces - 1
    found = prepare_tokenizer(tokenizer, vocab_size=pieces, target_vocab_size=pieces, eos=0, pad=pad, unk=None)
    try:
        table = tokenizer_table(found.source_json, TokenIds(start=pad, eos=0, pad=pad, unk=found.unk_id), pieces)
    except NotExpressible:
        return len(found.source_json.encode()), 0
    return len(found.source_json.encode()), len(table)


def native_bytes(shape: StudentShape, vocabulary: int, table_bytes: int | None = None) -> int:
    """Bytes of native.bin of an int8 pack, of which ``table_bytes`` are the tokenizer's, if they are known."""
    table = _by_pieces(vocabulary, _TABLE_BYTES) if table_bytes is None else table_bytes
    return _native_beside_table(shape.encoder_layers, shape.decoder_layers) + table


def _native_beside_table(encoder_layers: int, decoder_layers: int) -> int:
    """Bytes of native.bin without its tokenizer: header, the one banned id, a record of 48 bytes a tensor."""
    return 256 + -(-48 * (12 + 6 * encoder_layers + 10 * decoder_layers) // _LINE) * _LINE


def _by_pieces(vocabulary: int, known: tuple[int, ...]) -> int:
    """Between the vocabularies that were measured, and beyond them as the nearest two go on."""
    last = len(_PIECES) - 1
    place = min(max(1, sum(pieces < vocabulary for pieces in _PIECES)), last)
    (x, y), (z, w) = ((_PIECES[i], known[i]) for i in (place - 1, place))
    return max(y, round(y + (w - y) * (vocabulary - x) / (z - x))) if vocabulary > x else y


def _aligned(tensors: Iterable[int]) -> int:
    return sum(-(-size // _LINE) * _LINE for size in tensors)


def _table_and_positions(shape: StudentShape, vocabulary: int, shortlist: ShortlistSettings | None) -> list[int]:
    """Bytes of each tensor that is there once: the embedding, which a shortlist takes rows of, and the sinusoids."""
    d = shape.d_model
    positions = [8 * d * -(-shape.max_position_embeddings // 16) // 2, 32 * d, 32 * d]
    if shortlist is None:
        values, *scales = _blockwise(vocabulary, d)
        return [*positions, values, scales[0]]
    scales = [4 * vocabulary] * 3  # of rows as embeddings, of rows as outputs, and an offset of outputs
    lexical = (2 if vocabulary <= 2**16 else 4) * shortlist.per_token * vocabulary
    shifted_norm = 4 * d
    return [*positions, vocabulary * d, *scales, lexical, vocabulary, shifted_norm]


def _encoder_layer(shape: StudentShape) -> list[int]:
    d, inner = shape.d_model, shape.encoder_ffn_dim
    matrices = [*_wide(3 * d, d), *_wide(d, d), *_wide(inner, d), *_wide(d, inner)]
    return [*matrices, *_biases(3 * d, d, inner, d), *[4 * d] * 4]


def _decoder_layer(shape: StudentShape) -> list[int]:
    d, inner = shape.d_model, shape.decoder_ffn_dim
    sizes = ((3 * d, d), (d, d), (d, d), (d, d), (inner, d), (d, inner))
    matrices = [size for rows, columns in sizes for size in _blockwise(rows, columns)]
    return [*_wide(2 * d, d), *matrices, *_biases(2 * d, *(rows for rows, _ in sizes)), *[4 * d] * 6]


def _wide(rows: int, columns: int) -> list[int]:
    return [rows * columns, 4 * rows]


def _biases(*rows: int) -> list[int]:
    return [4 * count for count in rows]


def _blockwise(rows: int, columns: int) -> list[int]:
    """Where the decoder runs, rows lie in blocks: bytes of values, of a scale for each block, and, where a row is of
    several blocks, of one for the row, for the kernel that takes it so."""
    from mobilenmt.export.quantize.forms import block_size

    size = block_size(columns)
    blocks = -(-columns // size)
    return [rows * blocks * size, 4 * rows * blocks, *([4 * rows] if blocks > 1 else [])]
