"""Every family of teachers, in batches, says what plain transformers code says for each sentence alone."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilenmt.compression.core.errors import TeacherError
from mobilenmt.compression.teacher.check import check_teacher
from mobilenmt.compression.teacher.fingerprint import fingerprint
from mobilenmt.compression.teacher.languages import find_code, language_name, same_language
from mobilenmt.compression.teacher.open import open_teacher
from mobilenmt.compression.teacher.sampling import RowSampler, uniform
from mobilenmt.compression.teacher.seq2seq import batches
from mobilenmt.compression.teacher.settings import TeacherSettings
from mobilenmt.compression.teacher.spec import Candidate, TeacherSpec
from tiny_teachers import make_teacher, sentences

MACHINE = {"device": "cpu", "dtype": "float32", "threads": 1}
PREFIX = "translate English to German: "
PROMPT = "English: {text}\nGerman:"
TOKENS = 14
FAMILIES = ("marian", "opus", "opus_many", "m2m_100", "nllb", "mbart", "mbart50", "t5", "seq2seq", "chat", "plain")


@pytest.fixture(scope="module")
def teacher_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = make_teacher(family, tmp_path_factory.mktemp("teachers") / family)
        return made[family]

    return get


def settings_for(family: str, checkpoint: Path, **changes: Any) -> TeacherSettings:
    values: dict[str, Any] = {
        "checkpoint": str(checkpoint),
        "prefix": PREFIX if family == "t5" else None,
        "prompt": PROMPT if family == "plain" else "",
        "max_length_ratio": 0.0,  # every source has the same limit, so batches end where single sentences end
        "max_length_extra": TOKENS,
        "batch_tokens": 150,
        **changes,
    }
    return TeacherSettings(**values)


def spec_for(settings: TeacherSettings, seed: int = 1) -> TeacherSpec:
    return TeacherSpec.of(settings, check_teacher(settings, "en", "de"), "de", seed, MACHINE)


@functools.cache
def load(folder: Path, decoder_only: bool) -> tuple[Any, Any]:
    import transformers

    kind: Any = transformers.AutoModelForCausalLM if decoder_only else transformers.AutoModelForSeq2SeqLM
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    return tokenizer, kind.from_pretrained(folder)


def plain_generate(family: str, folder: Path, source: str, **search: Any) -> list[tuple[str, int]]:
    """What the documentation of transformers tells a user to write, one sentence at a time: texts and token counts."""
    tokenizer, model = load(folder, family in ("chat", "plain"))
    search = {"do_sample": False, "max_new_tokens": TOKENS, "pad_token_id": tokenizer.pad_token_id, **search}
    if family in ("chat", "plain"):
        text = PROMPT.format(text=source)
        if family == "chat":
            request = (
                "Translate the following text from English to German. "
                f"Answer with the translation only, without explanations.\n\n{source}"
            )
            messages = [{"role": "user", "content": request}]
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        if family == "plain":
            search.update(stop_strings=["\n"], tokenizer=tokenizer)
        outputs = model.generate(**inputs, **search)[:, inputs["input_ids"].shape[1] :]
    else:
        codes = {"m2m_100": ("en", "de"), "nllb": ("eng_Latn", "deu_Latn")}.get(family, ("en_XX", "de_DE"))
        if family == "t5":
            source = PREFIX + source
        elif family == "opus_many":
            source = f">>deu<< {source}"
        elif family == "marian":
            source += "</s>"  # its tokenizer adds none
        elif family in ("m2m_100", "nllb", "mbart", "mbart50"):
            tokenizer.src_lang = codes[0]
            key = "decoder_start_token_id" if family == "mbart" else "forced_bos_token_id"
            search[key] = tokenizer.convert_tokens_to_ids("__de__" if family == "m2m_100" else codes[1])
            search["max_new_tokens"] += family != "mbart"  # the language is forced, it takes no word's place
        inputs = tokenizer(source, return_tensors="pt", return_token_type_ids=False)
        outputs = model.generate(**inputs, **search)[:, 1:]
    ends, pad = model.config.eos_token_id, tokenizer.pad_token_id
    counts = []
    for row in outputs.tolist():
        while len(row) > 1 and row[-1] == pad:
            row.pop()
        counts.append(row.index(ends) + 1 if ends in row else len(row))
    texts = tokenizer.batch_decode(outputs, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return list(zip(texts, counts, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_family_says_what_transformers_says_one_by_one(family: str, teacher_of: Callable[[str], Path]) -> None:
    folder = teacher_of(family)
    settings = settings_for(family, folder, search="n_best", beam_size=3, n_best=2, length_penalty=0.0)
    spec = spec_for(settings)
    assert spec.family == {"opus": "marian", "opus_many": "marian", "mbart50": "mbart", "plain": "chat"}.get(
        family, family
    )
    sources = sentences(9)
    found = open_teacher(spec).translate(sources)
    from mobilenmt.compression.teacher.text import clean_answer

    ended = 0
    for source, candidates in zip(sources, found, strict=True):
        wanted = plain_generate(family, folder, source, num_beams=3, num_return_sequences=2, length_penalty=0.0)
        assert len(candidates) == 2
        for candidate, (text, tokens) in zip(candidates, wanted, strict=True):
            assert candidate.text == (clean_answer(text, source) if spec.family == "chat" else text)
            assert candidate.tokens == tokens
            ended += candidate.tokens < TOKENS
    assert ended > 0, "no output ended by itself, so the end token was not tested"


@pytest.mark.parametrize("family", ["opus", "nllb", "chat"])
def test_greedy_search_says_what_transformers_says(family: str, teacher_of: Callable[[str], Path]) -> None:
    folder = teacher_of(family)
    sources = sentences(7)
    found = open_teacher(spec_for(settings_for(family, folder, search="greedy"))).translate(sources)
    from mobilenmt.compression.teacher.text import clean_answer

    for source, (candidate,) in zip(sources, found, strict=True):
        ((text, tokens),) = plain_generate(family, folder, source)
        assert candidate.text == (clean_answer(text, source) if family == "chat" else text)
        assert candidate.tokens == tokens


def test_sampling_depends_on_source_and_seed_alone(teacher_of: Callable[[str], Path]) -> None:
    settings = settings_for("opus", teacher_of("opus"), search="sample", n_best=3, top_p=0.9, temperature=0.7)
    sources = sentences(8)
    teacher = open_teacher(spec_for(settings))
    together = teacher.translate(sources)
    alone = [teacher.translate([source])[0] for source in reversed(sources)][::-1]
    assert together == alone
    assert len({candidate.text for candidates in together for candidate in candidates}) > 12
    assert open_teacher(spec_for(settings, seed=2)).translate(sources) != together


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_row_sampler_draws_from_the_distribution(top_p: float) -> None:
    import torch

    logits = torch.tensor([2.0, 0.0, 1.0, -1.0, 1.5])
    temperature = 0.8
    rows = 20_000
    sampler = RowSampler([number.to_bytes(8, "little") for number in range(rows)], temperature, top_p)
    drawn = sampler(torch.zeros(rows, 1, dtype=torch.long), logits.expand(rows, -1)).argmax(-1).tolist()
    probabilities = torch.softmax(logits / temperature, -1).tolist()
    order = sorted(range(5), key=lambda token: -probabilities[token])
    kept: list[int] = []
    while sum(probabilities[token] for token in kept) < top_p - 1e-9 and len(kept) < 5:
        kept.append(order[len(kept)])
    total = sum(probabilities[token] for token in kept)
    counts = Counter(drawn)
    assert set(counts) == set(kept)
    for token in kept:
        wanted = probabilities[token] / total
        assert abs(counts[token] / rows - wanted) < 4 * (wanted * (1 - wanted) / rows) ** 0.5


def test_row_sampler_sorts_all_of_a_flat_distribution() -> None:
    import torch

    scores = torch.zeros(400, 5000)
    sampler = RowSampler([bytes([number % 256, number // 256]) for number in range(400)], 1.0, 0.9)
    drawn = sampler(torch.zeros(400, 1, dtype=torch.long), scores).argmax(-1)
    assert len(set(drawn.tolist())) > 350  # beyond the thousand tokens that are looked at first
    assert 0 <= uniform(b"key", 3) < 1


def test_batches_hold_their_tokens_and_every_index_once() -> None:
    lengths = [5, 1, 9, 3, 3, 200, 7]
    found = list(batches(lengths, 40, 2))
    assert sorted(index for batch in found for index in batch) == list(range(7))
    assert found == [[5], [2, 6], [0, 3, 4, 1]], "a row too long goes alone, the others by length while they fit"
    assert list(batches([1] * 9, 4, 1)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert list(batches([], 4, 1)) == []


def test_long_sources_markers_loops_and_limits_are_told(teacher_of: Callable[[str], Path]) -> None:
    folder = teacher_of("opus")
    teacher = open_teacher(spec_for(settings_for("opus", folder, search="greedy", max_length_extra=2)))
    found = teacher.translate(["the house " * 60, "the </s> house", *sentences(12)])
    assert found[0] == [Candidate("", 0, "source_too_long")]
    assert found[1] == [Candidate("", 0, "markers")]
    rest = [candidate for candidates in found[2:] for candidate in candidates]
    assert all((candidate.tokens >= 2) == (candidate.flaw == "too_long") for candidate in rest)
    assert any(candidate.flaw for candidate in rest)


def test_pack_teacher_says_what_the_translator_says(tiny_fp32_pack: Path) -> None:
    from mobilenmt.runtime.translator import Translator

    settings = TeacherSettings(
        checkpoint=str(tiny_fp32_pack), search="n_best", n_best=3, beam_size=3, max_length_ratio=0, max_length_extra=20
    )
    spec = spec_for(settings)
    assert spec.family == "pack"
    # Words alone: numbers and marks at the end are what the translator puts back, whatever the model says.
    sources = [text.rpartition(" ")[0] for text in sentences(9)]
    with Translator(tiny_fp32_pack) as translator:
        wanted = translator.translate_batch(sources, beam_size=3, n_best=2, max_length=21)
    for candidates, translation in zip(open_teacher(spec).translate(sources), wanted, strict=True):
        assert len(candidates) == 3
        texts = list(dict.fromkeys(item.text for item in candidates))  # the translator shows no text twice
        assert texts[:2] == [translation.text, translation.alternatives[0].text]


# -- what is refused before it costs hours ----------------------------------------------------------------------------


def refused(settings: TeacherSettings, source: str = "en", target: str = "de") -> str:
    with pytest.raises(TeacherError) as caught:
        check_teacher(settings, source, target)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_folder_without_tokenizer_weights_or_configuration(tmp_path: Path, teacher_of: Callable[[str], Path]) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(teacher_of("seq2seq"), folder)
    settings = TeacherSettings(checkpoint=str(folder))
    (folder / "model.safetensors").rename(tmp_path / "weights")
    assert "has no weights" in refused(settings)
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer" in refused(settings)
    (folder / "config.json").write_text('{"model_type": "no_such_thing"}')
    (folder / "vocab.txt").write_text("a")
    (tmp_path / "weights").rename(folder / "model.safetensors")
    assert "configuration cannot be loaded" in refused(settings)
    (folder / "config.json").unlink()
    assert "it has no config.json" in refused(settings)
    assert "no such checkpoint folder" in refused(TeacherSettings(checkpoint=str(tmp_path / "nowhere" / "at" / "all")))
    assert "nor a model on the hub" in refused(TeacherSettings(checkpoint="nobody/nothing"))


def test_damaged_tokenizer_is_one_error(tmp_path: Path, teacher_of: Callable[[str], Path]) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(teacher_of("seq2seq"), folder)
    (folder / "tokenizer.json").write_text("{}")
    assert "no tokenizer that can be loaded" in refused(TeacherSettings(checkpoint=str(folder)))


def test_unknown_languages_name_near_ones(teacher_of: Callable[[str], Path]) -> None:
    nllb = TeacherSettings(checkpoint=str(teacher_of("nllb")))
    assert "'zh' may mean zho_Hans, zho_Hant" in refused(nllb, target="zh")
    assert "near it: deu_Latn" in refused(TeacherSettings(checkpoint=nllb.checkpoint, target_language="deu_Latin"))
    assert "srp_Cyrl" in refused(nllb, target="sr_Latn"), "another script is another language to a reader"
    assert "needs a language code; set teacher.target_language" in refused(nllb, target="")
    assert "knows no language 'xx'" in refused(TeacherSettings(checkpoint=str(teacher_of("m2m_100"))), target="xx")
    many = TeacherSettings(checkpoint=str(teacher_of("opus_many")))
    assert check_teacher(many, "en", "pt-BR").target_code == ">>por<<"
    assert "knows no language 'it'" in refused(many, target="it")
    assert check_teacher(nllb, "en", "de")[1:] == ("eng_Latn", "deu_Latn")


def test_t5_needs_its_prefix(tmp_path: Path, teacher_of: Callable[[str], Path]) -> None:
    import json
    import shutil

    folder = tmp_path / "t5"
    shutil.copytree(teacher_of("t5"), folder)
    settings = TeacherSettings(checkpoint=str(folder))
    assert "set teacher.prefix" in refused(settings)
    config = json.loads((folder / "config.json").read_text())
    config["task_specific_params"] = {"translation_en_to_de": {"prefix": PREFIX}}
    (folder / "config.json").write_text(json.dumps(config))
    assert check_teacher(settings, "en", "de").family == "t5"
    assert "set teacher.prefix" in refused(settings, target="fr")


def test_chat_model_needs_template_or_prompt(tmp_path: Path, teacher_of: Callable[[str], Path]) -> None:
    import shutil

    assert "no chat template" in refused(TeacherSettings(checkpoint=str(teacher_of("plain"))))
    folder = tmp_path / "chat"
    shutil.copytree(teacher_of("chat"), folder)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('system role not supported') }}")
    assert "system role not supported" in refused(TeacherSettings(checkpoint=str(folder)))


def test_architecture_that_cannot_translate(tmp_path: Path, teacher_of: Callable[[str], Path]) -> None:
    import json
    import shutil

    folder = tmp_path / "bert"
    shutil.copytree(teacher_of("seq2seq"), folder)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "clip_text_model", "architectures": ["CLIPTextModel"], "vocab_size": 340})
    )
    assert "CLIPTextModel cannot translate" in refused(TeacherSettings(checkpoint=str(folder)))
    assert "of the family 'chat', not 'marian'" in refused(
        TeacherSettings(checkpoint=str(teacher_of("chat")), family="marian")
    )


def test_incomplete_weights_are_refused(tmp_path: Path, teacher_of: Callable[[str], Path]) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "copy"
    shutil.copytree(teacher_of("t5"), folder)
    tensors = load_file(folder / "model.safetensors")
    lost = next(name for name in tensors if "decoder.block.1" in name)
    del tensors[lost]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    settings = settings_for("t5", folder)
    with pytest.raises(TeacherError, match="1 weights are missing"):
        open_teacher(spec_for(settings))


def test_pack_of_other_languages_and_sampling_are_refused(tiny_pack: Path) -> None:
    assert "the pack translates en to de" in refused(TeacherSettings(checkpoint=str(tiny_pack)), target="fr")
    assert "a pack cannot sample" in refused(TeacherSettings(checkpoint=str(tiny_pack), search="sample"))


def test_languages() -> None:
    codes = ["en_XX", "de_DE", "pt_XX"]
    assert find_code("pt-BR", codes, "target_language", "m") == "pt_XX"
    assert find_code("de_DE", codes, "target_language", "m") == "de_DE"
    assert find_code("zh-Hant", ["zho_Hans", "zho_Hant"], "target_language", "m") == "zho_Hant"
    assert same_language("deu_Latn", "de") and not same_language("nl", "de")
    assert language_name("de") == "German" and language_name("Low German") == "Low German"


def test_fingerprint_follows_content(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    large = bytearray(17 << 20)
    (folder / "model.safetensors").write_bytes(large)
    first = fingerprint(str(folder))
    large[-1] = 1
    (folder / "model.safetensors").write_bytes(large)
    assert fingerprint(str(folder)) != first
    assert fingerprint("some/name") == "some/name"
