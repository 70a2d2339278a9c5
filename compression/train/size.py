"""How many weights a model has, from its shape alone."""

from __future__ import annotations

from mobilenmt.compression.train.student import StudentShape


def count_parameters(shape: StudentShape, vocabulary: int) -> int:
    """Trained weights of a MarianMTModel of this shape, the tied embedding once; sinusoidal positions are none."""
    return count_in_matrices(shape, vocabulary) + count_in_vectors(shape)


def count_in_matrices(shape: StudentShape, vocabulary: int) -> int:
    """Elements of all matrices, the tied embedding once."""
    d = shape.d_model
    encoder = shape.encoder_layers * (4 * d * d + 2 * d * shape.encoder_ffn_dim)
    decoder = shape.decoder_layers * (8 * d * d + 2 * d * shape.decoder_ffn_dim)
    return vocabulary * d + encoder + decoder


def count_in_vectors(shape: StudentShape) -> int:
    """Biases, and the two vectors of each layer norm."""
    d = shape.d_model
    encoder = shape.encoder_layers * (4 * d + shape.encoder_ffn_dim + d + 2 * 2 * d)
    decoder = shape.decoder_layers * (8 * d + shape.decoder_ffn_dim + d + 3 * 2 * d)
    return encoder + decoder
