"""Dev sets: scored for the target language of the vocabulary, so that the best weights are told from the first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mobilenmt.compression.train.devset import DevEvaluator, DevSet
from mobilenmt.compression.train.student import make_student
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from training_data import SHAPE, toy_pairs, toy_vocabulary

sacrebleu = pytest.importorskip("sacrebleu")

REFERENCES = ("今天天气很好，我们去公园散步。", "火车站在哪里？", "他昨天买了一本新书。")
OUTPUTS = ("今天天气很好，我们去花园散步。", "火车站在哪儿？", "他昨天买了一本书。")
SOURCES = ("the weather is fine today", "where is the station", "he bought a new book")


def vocabulary_for(target: str, folder: Path) -> Vocabulary:
    toy_vocabulary(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "source_lang": "en", "target_lang": target}), encoding="utf-8")
    return Vocabulary.load(folder)


def test_chinese_is_scored_as_chinese(tmp_path: Path) -> None:
    sets = [DevSet("one", SOURCES[:1], REFERENCES[:1]), DevSet("rest", SOURCES[1:], REFERENCES[1:])]
    scores = DevEvaluator(sets, vocabulary_for("zh", tmp_path), 64).score(dict(enumerate(OUTPUTS)))
    assert list(scores) == ["one", "rest"]
    for name, part in (("one", slice(1)), ("rest", slice(1, None))):
        outputs, references = list(OUTPUTS[part]), [list(REFERENCES[part])]
        wanted = sacrebleu.corpus_bleu(outputs, references, tokenize="zh").score
        assert wanted > 30
        assert scores[name].bleu == pytest.approx(wanted, abs=1e-4)
        assert scores[name].chrf == pytest.approx(sacrebleu.corpus_chrf(outputs, references).score, abs=1e-4)


def test_better_chinese_has_a_higher_bleu(tmp_path: Path) -> None:
    """With spaces between words as the only measure all three are 0, and the first weights would stay the best."""
    evaluator = DevEvaluator([DevSet("dev", SOURCES, REFERENCES)], vocabulary_for("zh-Hans", tmp_path), 64)
    worse = ("今天我去公园。", "车站在哪里？", "他买书。")
    found = [evaluator.score(dict(enumerate(texts)))["dev"].bleu for texts in (worse, OUTPUTS, REFERENCES)]
    assert 0 < found[0] < found[1] < found[2] == pytest.approx(100)


def test_loss_is_that_of_transformers_over_all_references(tmp_path: Path) -> None:
    """Whatever share of them a process reads, and whether the model is training or not."""
    vocabulary = toy_vocabulary(tmp_path)
    sources, references = zip(*toy_pairs(40), strict=True)
    evaluator = DevEvaluator([DevSet("dev", sources, references)], vocabulary, 64)
    model: Any = make_student(SHAPE, vocabulary, seed=2, dropout=0.3)
    parts = [evaluator.loss(model, torch.float32, rank, 3) for rank in range(3)]
    assert model.training
    wanted, tokens = 0.0, 0
    model.eval()
    for source, reference in zip(sources, references, strict=True):
        ids, labels = (torch.tensor([[*vocabulary.encode(text), vocabulary.eos]]) for text in (source, reference))
        start = torch.cat([torch.tensor([[vocabulary.pad]]), labels[:, :-1]], 1)
        with torch.no_grad():
            logits = model(input_ids=ids, decoder_input_ids=start).logits[0, :, :-1]  # <pad> is never generated
        wanted += float(torch.nn.functional.cross_entropy(logits, labels[0], reduction="sum"))
        tokens += labels.shape[1]
    whole = evaluator.loss(model, torch.float32)
    assert whole[1] == tokens == sum(part[1] for part in parts)
    assert whole[0] == pytest.approx(wanted, rel=1e-4)
    assert sum(part[0] for part in parts) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("language", ["de", ""])
def test_other_languages_keep_the_usual_tokenizer(language: str, tmp_path: Path) -> None:
    references = ("Der Hund sieht zwei Katzen.", "Wo ist der Bahnhof?", "Heute nicht, danke!")
    outputs = ["Der Hund sieht die Katzen.", "Wo ist der Bahnhof?", "Heute nein, danke!"]
    evaluator = DevEvaluator([DevSet("dev", SOURCES, references)], vocabulary_for(language, tmp_path), 64)
    wanted = sacrebleu.corpus_bleu(outputs, [list(references)]).score
    assert evaluator.score(dict(enumerate(outputs)))["dev"].bleu == pytest.approx(wanted, abs=1e-4)
