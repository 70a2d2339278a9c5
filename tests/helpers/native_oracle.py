"""transformers' ``generate`` over the logits of :class:`native_reference.Reference`: what a search has to find."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, MarianConfig, MarianMTModel
from transformers.modeling_outputs import Seq2SeqLMOutput

from native_reference import Reference


class Oracle(MarianMTModel):  # type: ignore[misc]
    """A model whose own weights play no part."""

    def __init__(self, reference: Reference) -> None:
        size = reference.vocabulary
        start = reference.start
        super().__init__(
            MarianConfig(
                vocab_size=size, d_model=4, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
                decoder_attention_heads=1, encoder_ffn_dim=4, decoder_ffn_dim=4, max_position_embeddings=8,
                pad_token_id=start, eos_token_id=reference.eos, decoder_start_token_id=start,
                forced_eos_token_id=None,
            )
        )  # fmt: skip
        self.reference = reference
        self.generation_config = GenerationConfig()  # or it would add a forced end

    def forward(self, decoder_input_ids: Any = None, **_: Any) -> Seq2SeqLMOutput:
        """Logits of the last position, -inf for tokens that are no candidates."""
        logits = torch.full((len(decoder_input_ids), 1, self.reference.vocabulary), -torch.inf)
        for row, tokens in zip(logits, decoder_input_ids.tolist(), strict=True):
            candidates = torch.from_numpy(self.reference.candidates)
            row[0, candidates] = torch.from_numpy(self.reference.step(tuple(tokens)).logits)[candidates]
        return Seq2SeqLMOutput(logits=logits)

    def search(self, ids: list[int], *, prefix: tuple[int, ...] = (), **settings: Any) -> list[tuple[list[int], float]]:
        """Hypotheses: tokens between start and end, and the score (of a beam search)."""
        reference = self.reference
        reference.encode(ids)
        banned = {"bad_words_ids": [[token] for token in reference.bad]} if reference.bad else {}
        config = GenerationConfig(
            pad_token_id=reference.start, eos_token_id=reference.eos, decoder_start_token_id=reference.start,
            use_cache=False, do_sample=False, return_dict_in_generate=True, output_scores=True,
            **{"num_return_sequences": settings.get("num_beams", 1), **banned, **settings},
        )  # fmt: skip
        start = torch.tensor([[reference.start, *prefix]])
        with torch.no_grad():
            found = self.generate(torch.tensor([[2, 0]]), decoder_input_ids=start, generation_config=config)
        scores = found.sequences_scores.tolist() if config.num_beams > 1 else [np.nan]
        rows = [row[1:] for row in found.sequences.tolist()]
        return [
            (row[: row.index(reference.eos)] if reference.eos in row else row, score)
            for row, score in zip(rows, scores, strict=True)
        ]
