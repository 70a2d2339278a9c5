"""How large a student becomes, from its shape alone: parameters, and bytes of its pack."""

from __future__ import annotations

from mobilenmt.compression.student import StudentShape

PIECE_BYTES = 29
"""Of tokenizer.json a piece of a BPE vocabulary takes about this much, its merge included (8,000 pieces: 228 kB)."""
BYTE_PIECES_BYTES = 4_000
"""What the 256 pieces of single bytes take."""
GRAPH_BYTES = (33_000, 11_150, 22_200)
"""Graphs and manifest take about this much, and as much more for each encoder and each decoder layer."""


def count_parameters(shape: StudentShape, vocabulary: int) -> int:
    """Trained weights of a MarianMTModel of this shape, the tied embedding once; sinusoidal positions are none."""
    return _matrices(shape, vocabulary) + _vectors(shape)


def estimate_pack_bytes(
    shape: StudentShape, vocabulary: int, precision: str = "int8", *, tokenizer_bytes: int | None = None
) -> int:
    """Bytes of all files of a pack, within a few percent.

    INT8: a byte for each element of a matrix and a 4-byte scale for each block of its rows; vectors are fp32.

    Args:
        shape: dimensions of the student.
        vocabulary: pieces, ``<pad>`` included.
        precision: ``int8`` or ``fp32``.
        tokenizer_bytes: size of tokenizer.json if it is known.
    """
    from mobilenmt.export.precision import block_size

    element = 4.0 if precision == "fp32" else 1 + 4 / block_size(shape.d_model)
    weights = element * _matrices(shape, vocabulary) + 4 * _vectors(shape)
    fixed, encoder, decoder = GRAPH_BYTES
    graphs = fixed + encoder * shape.encoder_layers + decoder * shape.decoder_layers
    if tokenizer_bytes is None:
        tokenizer_bytes = BYTE_PIECES_BYTES + PIECE_BYTES * max(0, vocabulary - 256)
    return int(weights) + graphs + tokenizer_bytes


def _matrices(shape: StudentShape, vocabulary: int) -> int:
    d = shape.d_model
    encoder = shape.encoder_layers * (4 * d * d + 2 * d * shape.encoder_ffn_dim)
    decoder = shape.decoder_layers * (8 * d * d + 2 * d * shape.decoder_ffn_dim)
    return vocabulary * d + encoder + decoder


def _vectors(shape: StudentShape) -> int:
    """Biases, and the two vectors of each layer norm."""
    d = shape.d_model
    encoder = shape.encoder_layers * (4 * d + shape.encoder_ffn_dim + d + 2 * 2 * d)
    decoder = shape.decoder_layers * (8 * d + shape.decoder_ffn_dim + d + 3 * 2 * d)
    return encoder + decoder
