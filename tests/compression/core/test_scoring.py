"""Scores: the tokenizer of sacrebleu is the one that the target language needs."""

from __future__ import annotations

import pytest

from absent import without_japanese_and_korean
from mobilenmt.compression.core.errors import EvaluationError
from mobilenmt.compression.core.scoring import Scorer

sacrebleu = pytest.importorskip("sacrebleu")

CHINESE = ["今天天气很好，我们去公园散步。", "火车站在哪里？", "他昨天买了一本新书。"]
CHINESE_OUTPUTS = ["今天天气很好，我们去花园散步。", "火车站在哪儿？", "他昨天买了一本书。"]
THAI = ["วันนี้อากาศดีมาก เราไปเดินเล่นที่สวนสาธารณะกัน", "สถานีรถไฟอยู่ที่ไหน", "เมื่อวานเขาซื้อหนังสือเล่มใหม่"]
THAI_OUTPUTS = ["วันนี้อากาศดีมากเราไปเดินที่สวนสาธารณะกัน", "สถานีรถไฟอยู่ไหน", "เมื่อวานเขาซื้อหนังสือใหม่"]


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [
        (None, "13a"),
        ("", "13a"),
        ("de", "13a"),
        ("pt-BR", "13a"),
        ("zh", "zh"),
        ("zh-Hant", "zh"),
        ("zho_Hans", "zh"),
        ("cmn", "zh"),
        ("th", "char"),
        ("tha_Thai", "char"),
        ("km", "char"),
    ],
)
def test_the_tokenizer_is_that_of_the_language(language: str | None, tokenizer: str) -> None:
    scorer = Scorer(language)
    scorer.score(["一 二 三 四 五"], ["一 二 三 四 五"])
    assert f"tok:{tokenizer}|" in scorer.signatures()["BLEU"]


@pytest.mark.parametrize(
    ("language", "tokenizer", "outputs", "references"),
    [("zh", "zh", CHINESE_OUTPUTS, CHINESE), ("th", "char", THAI_OUTPUTS, THAI)],
)
def test_text_without_spaces_scores_by_what_it_has_in_common(
    language: str, tokenizer: str, outputs: list[str], references: list[str]
) -> None:
    found = Scorer(language).score(outputs, references).bleu
    assert found == pytest.approx(sacrebleu.corpus_bleu(outputs, [references], tokenize=tokenizer).score, abs=1e-4)
    assert found > 40 > 10 > Scorer("de").score(outputs, references).bleu


@pytest.mark.parametrize(("language", "extra"), [("ja", "ja"), ("jpn_Jpan", "ja"), ("ko", "ko"), ("kor", "ko")])
def test_what_sacrebleu_lacks_for_a_language_is_told_in_one_line(
    language: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_japanese_and_korean(monkeypatch)
    with pytest.raises(EvaluationError, match=rf"cannot score {language}: .*sacrebleu\[{extra}\]") as caught:
        Scorer(language)
    assert "\n" not in str(caught.value)


def test_as_many_translations_as_references() -> None:
    for outputs, references in ((["a"], ["a", "b"]), ([], [])):
        with pytest.raises(EvaluationError, match=f"{len(outputs)} translations for {len(references)} references"):
            Scorer("de").score(outputs, references)
