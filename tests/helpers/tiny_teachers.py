"""Teachers of each family with random weights, and a tokenizer of the family's own class, made for a test run."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from tiny_models import WORDS, make_checkpoint

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SMALL: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
}


def sentences(count: int, longest: int = 9) -> list[str]:
    """Different sentences of words the tokenizers know, of varied length."""
    found: list[str] = []
    for number in range(count):
        length = 1 + number % longest
        words = [WORDS[(number * 7 + place * (3 + number % 5)) % len(WORDS)] for place in range(length)]
        found.append(f"{' '.join(words)} {number}.")
    return found


_SEEDS = {"m2m_100": 2, "nllb": 2, "mbart": 2, "mbart50": 2, "t5": 1}
"""Of weights whose outputs end at varied lengths."""


def make_teacher(family: str, folder: Path) -> Path:
    """Write a checkpoint of a family.

    ``marian`` (ours: a bare tokenizer.json), ``opus``, ``opus_many`` (with target languages), ``m2m_100``, ``nllb``,
    ``mbart``, ``mbart50``, ``t5``, ``seq2seq`` (a BART), ``chat``, ``plain`` (a chat model without a template).
    """
    import torch

    if family == "marian":
        from transformers import MarianMTModel

        make_checkpoint(folder)
        marian: Any = MarianMTModel.from_pretrained(folder)
        marian.final_logits_bias[0, 0] = 3.0
        marian.save_pretrained(folder)
        return folder
    folder.mkdir(parents=True)
    torch.manual_seed(_SEEDS.get(family, 0))
    tokenizer = _tokenizer(family, folder)
    model = _model(family, tokenizer)
    eos = tokenizer.eos_token_id
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed_positions" not in name:
                parameter.normal_(0.0, 0.3)
        # Without training the end is as rare as any token; a longer vector makes it one of the likeliest.
        if family in ("opus", "opus_many"):
            model.final_logits_bias[0, eos] = 3.5 if family == "opus" else 2.0
        else:
            model.get_output_embeddings().weight[eos] *= 4
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(family: str, folder: Path) -> Any:
    import transformers

    if family in ("chat", "plain", "seq2seq"):
        return _byte_level(family)
    spm = folder / "spiece.model"
    spm.write_bytes(_sentencepiece())
    if family == "t5":
        return transformers.T5Tokenizer(str(spm), extra_ids=0, legacy=False)
    if family == "nllb":
        return transformers.NllbTokenizer(str(spm))
    if family == "mbart":
        return transformers.MBartTokenizer(str(spm))
    if family == "mbart50":
        return transformers.MBart50Tokenizer(str(spm))
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    pieces = [processor.id_to_piece(index) for index in range(3, processor.get_piece_size())]
    vocabulary = folder / "vocab.json"
    if family == "m2m_100":
        vocabulary.write_text(json.dumps({p: i for i, p in enumerate(["<s>", "<pad>", "</s>", "<unk>", *pieces])}))
        # the published tokenizers list the languages as special tokens
        languages = transformers.models.m2m_100.tokenization_m2m_100.FAIRSEQ_LANGUAGE_CODES["m2m100"]
        return transformers.M2M100Tokenizer(
            str(vocabulary), str(spm), additional_special_tokens=[f"__{code}__" for code in languages]
        )
    assert family in ("opus", "opus_many")
    languages = [">>deu<<", ">>fra<<", ">>por<<"] if family == "opus_many" else []
    vocabulary.write_text(
        json.dumps({p: i for i, p in enumerate(["</s>", "<unk>", *pieces, *languages, "<pad>"])}), encoding="utf-8"
    )
    return transformers.MarianTokenizer(str(spm), str(spm), str(vocabulary), source_lang="en", target_lang="de")


def _model(family: str, tokenizer: Any) -> Any:
    import transformers

    size = max(len(tokenizer), *getattr(tokenizer, "lang_code_to_id", {"": 0}).values(), 0) + 1
    if family in ("opus", "opus_many"):
        size = len(tokenizer)  # the padding is the last one
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    if family in ("opus", "opus_many"):
        config = transformers.MarianConfig(
            vocab_size=size, **_SMALL, **ids, decoder_start_token_id=size - 1, forced_eos_token_id=None
        )
        model = transformers.MarianMTModel(config)
        model.generation_config.bad_words_ids = [[size - 1]]
        return model
    if family in ("nllb", "m2m_100"):
        return transformers.M2M100ForConditionalGeneration(
            transformers.M2M100Config(vocab_size=size, **_SMALL, **ids, bos_token_id=0, decoder_start_token_id=2)
        )
    if family in ("mbart", "mbart50"):
        start = {"decoder_start_token_id": 2} if family == "mbart50" else {}
        return transformers.MBartForConditionalGeneration(
            transformers.MBartConfig(vocab_size=size, **_SMALL, **ids, forced_eos_token_id=None, **start)
        )
    if family == "seq2seq":
        return transformers.BartForConditionalGeneration(
            transformers.BartConfig(
                vocab_size=size, **_SMALL, **ids, bos_token_id=ids["eos_token_id"], forced_eos_token_id=None
            )
        )
    if family == "t5":
        return transformers.T5ForConditionalGeneration(
            transformers.T5Config(
                vocab_size=size, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, **ids, decoder_start_token_id=0
            )
        )
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=512,
            bos_token_id=None,
            **ids,
        )
    )
    # as chat models are published
    model.generation_config.update(do_sample=True, temperature=0.6, top_k=20, top_p=0.8)
    return model


def _sentencepiece() -> bytes:
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences(400)),
        model_writer=out,
        vocab_size=120,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return out.getvalue()


def _byte_level(family: str) -> Any:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(sentences(300), trainer)
    if family == "seq2seq":
        inner.post_processor = processors.TemplateProcessing(single="$A <|im_end|>", special_tokens=[("<|im_end|>", 2)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|pad|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    if family == "chat":
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
