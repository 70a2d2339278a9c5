"""Which sentences go through the graph together, and up to which length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

# Sentences that go through batch.onnx together, and their source tokens, padding counted. More are slower on one core:
# their keys, values and candidates outgrow its cache, the sooner the longer the sentences are.
MOST_SENTENCES = 16
_TOKENS = 640


def usual_limit(source: int) -> int:
    """A limit, start token counted, that nearly all translations of ``source`` tokens keep to."""
    return source + source // 2 + 8


def groups(lengths: Sequence[int], rows: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, longest first, so that little is padding.

    They do not depend on the number of threads, as what an INT8 pack says of sentences together does not.

    Args:
        lengths: source tokens of each sentence, the end token counted.
        rows: most sentences in a batch.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        left = len(order) - start
        most = max(1, min(rows, _TOKENS // lengths[order[start]]))
        if most < left < 2 * most:  # two of like size rather than a full one and a rest
            most = -(-left // 2)
        yield order[start : start + most]
        start += most
