"""Learns a joint tokenizer from text, and brings it into the layout of Marian checkpoints.

No piece holds a digit beside another character, nor a character of markup or placeholders (``{ } < > [ ] % $ # @ \\ _ =
& | ~ ^ ` *``) beside any but a space before it: numbers, ``{name}``, ``%s`` and ``<b>`` are spelled the same way
wherever they stand, so that a model can learn to copy them. The rule holds while pieces are learned; to apply them no
rule is needed, for there is no merge across such a character. So the tokenizer.json splits at spaces alone, which every
implementation of the format can do, fast.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from mobilenmt.compression.core.errors import VocabularyError

EOS, UNK, PAD = "</s>", "<unk>", "<pad>"
BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))
_SPACE = "▁"
_APART = r"\p{N}|▁?[{}<>\[\]%$#@\\_=&|~^`*]"


def train_tokenizer(
    texts: Iterable[str], alphabet: Sequence[str], *, size: int, max_piece_length: int
) -> dict[str, Any]:
    """Learn pieces from texts by byte pair encoding (Sennrich et al., ACL 2016); returns the content of tokenizer.json.

    In Marian's layout: bytes third, ``<pad>`` last, ``</s>`` appended to a sentence.

    :param texts: sentences of both languages.
    :param alphabet: characters that get a piece of their own; others count as spaces.
    :param size: number of pieces in all, special and byte pieces included.
    :param max_piece_length: in characters.
    :raises VocabularyError: the texts do not give as many pieces as were asked for.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token=UNK, byte_fallback=True))
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1,
        special_tokens=[EOS, UNK, *BYTE_PIECES],
        initial_alphabet=[_SPACE, *alphabet],
        limit_alphabet=len(alphabet) + 1,
        max_token_length=max_piece_length,
        min_frequency=2,
        show_progress=False,
    )
    metaspace = pre_tokenizers.Metaspace(_SPACE, prepend_scheme="always", split=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [metaspace, pre_tokenizers.Split(tokenizers.Regex(_APART), "isolated")]
    )
    known = set(alphabet) | {" "}
    try:
        tokenizer.train_from_iterator(_within(texts, known), trainer)
    except Exception as error:
        raise VocabularyError(f"the tokenizers library failed to train: {error}") from error
    data: dict[str, Any] = json.loads(tokenizer.to_str())
    found = len(data["model"]["vocab"]) + 1
    if found != size:
        raise VocabularyError(
            f"the text gives {found} pieces and size asks for {size}; lower it to {found} or less, or give more text"
        )
    data["model"]["vocab"][PAD] = size - 1
    data |= {"added_tokens": [], "pre_tokenizer": None}
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(data))
    tokenizer.pre_tokenizer = metaspace
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(_SPACE, "always")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", pair=f"$A $B {EOS}", special_tokens=[(EOS, 0)]
    )
    tokenizer.add_special_tokens([EOS, UNK, PAD])
    result: dict[str, Any] = json.loads(tokenizer.to_str())
    return result


def _within(texts: Iterable[str], known: set[str]) -> Iterable[str]:
    for text in texts:
        rare = set(text) - known
        yield text.translate(dict.fromkeys(map(ord, rare), " ")) if rare else text
