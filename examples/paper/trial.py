"""Text, vocabularies and the teacher's translations, each made once, and the training of one configuration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import MarianMTModel

from mobilenmt.compression.core.pairs import PairWriter, read_pairs
from mobilenmt.compression.core.stage import run_stage
from mobilenmt.compression.core.tag_weights import Repeater
from mobilenmt.compression.corpus import stage as corpus_stage
from mobilenmt.compression.dataset.batches import by_length
from mobilenmt.compression.dataset.dataset import PackedDataset, build_dataset
from mobilenmt.compression.teacher import stage as teacher_stage
from mobilenmt.compression.train.devset import DevSet, read_dev_sets
from mobilenmt.compression.train.job import TrainingJob
from mobilenmt.compression.train.train import train
from mobilenmt.compression.vocabulary import stage as vocabulary_stage
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from study import Study
from variants import load_plain, maker

Report = Callable[[str], None]
TEXT_SEED = 1
"""Of text and vocabularies, which are the same for every seed of training."""


class Trials:
    """The trials of a study.

    Args:
        study: what is tried.
        work: folder of ``corpus``, ``text``, ``vocabulary-N``, ``teacher``, ``dataset-TEXT-N`` and ``runs/NAME-SEED``.
        report: receives a line now and then.
    """

    def __init__(self, study: Study, work: Path, report: Report = print) -> None:
        self.study, self.work, self.report = study, work, report

    def text(self) -> Path:
        """Pairs of the references: a share of the cleaned corpus, one pair of each source."""
        study, folder = self.study, self.work / "text"
        corpus = corpus_stage.run(study.corpus, self.work / "corpus", languages=study.languages, seed=TEXT_SEED)
        source = corpus.folder / "pairs.tsv.zst"

        def work(folder: Path) -> Mapping[str, Any]:
            repeater, seen, words = Repeater(study.share, TEXT_SEED, "paper"), set(), 0
            with PairWriter(folder / "pairs.tsv.zst") as writer:
                for pair in read_pairs(source):
                    if pair.source not in seen and repeater.times(pair):
                        seen.add(pair.source)
                        writer.write(pair)
                        words += pair.source.count(" ") + 1
            return {"pairs": len(seen), "source words": words}

        settings = {"share": study.share}
        run_stage(folder, name="text", settings=settings, inputs={"pairs": source}, work=work)
        return folder / "pairs.tsv.zst"

    def vocabulary(self, size: int) -> Path:
        """Folder of the vocabulary of a size, learned from the references."""
        folder = self.work / f"vocabulary-{size}"
        settings = vocabulary_stage.VocabularySettings(size=size)
        languages = self.study.languages
        vocabulary_stage.run(settings, folder, pairs=self.text(), languages=languages, seed=TEXT_SEED)
        return folder

    def teacher(self) -> Path:
        """Pairs of the same sources with the teacher's translations."""
        folder = self.work / "teacher"
        teacher_stage.run(
            self.study.teacher, pairs=self.text(), folder=folder, languages=self.study.languages, seed=TEXT_SEED
        )
        return folder / "text.tsv.zst"

    def dataset(self, text: Literal["references", "teacher"], size: int) -> PackedDataset:
        """A text in pieces of a vocabulary."""
        pairs = self.text() if text == "references" else self.teacher()
        training, vocabulary = self.study.training, self.vocabulary(size)
        return build_dataset(
            pairs,
            vocabulary,
            self.work / f"dataset-{pairs.parent.name}-{size}",
            weights={},
            augment=None,
            seed=TEXT_SEED,
            max_tokens=training.max_tokens,
            processes=training.threads,
        )

    def folder(self, name: str, seed: int) -> Path:
        """Where a run lies."""
        return self.work / "runs" / f"{name}-{seed}"

    def run(self, name: str, seed: int) -> dict[str, Any]:
        """Train and score a configuration with a seed, go on with it, or find it done."""
        study, configuration = self.study, self.study.configurations[name]
        pairs = self.text() if configuration.text == "references" else self.teacher()
        dataset = self.dataset(configuration.text, configuration.vocabulary)
        share = _target_tokens(dataset) / _target_tokens(self.dataset("references", study.counted_in))
        settings = dataclasses.replace(  # evaluated at the end alone: nothing is chosen by the dev sets
            study.training,
            batch_tokens=round(study.training.batch_tokens * share),
            dropout=configuration.dropout,
            dev=study.dev,
            dev_lines=0,
            dev_every=study.training.steps or 1,  # never None: Study sees to it
        )
        vocabulary = self.vocabulary(configuration.vocabulary)
        make = maker(configuration.variant)
        job = TrainingJob(configuration.shape, settings, pairs, vocabulary, seed=seed, report=self.report, make=make)

        def work(folder: Path) -> Mapping[str, Any]:
            return _work(job, dataset, folder)

        described = {**job.described(), "variant": configuration.variant}
        result = run_stage(
            self.folder(name, seed), name="paper", settings=described, inputs=job.inputs(), work=work, scratch=("run",)
        )
        return dict(result.summary)


def _target_tokens(dataset: PackedDataset) -> int:
    return int(dataset.card["tokens"]["target"])


def _work(job: TrainingJob, dataset: PackedDataset, folder: Path) -> dict[str, Any]:
    found = train(job, dataset, folder / "run")
    model = load_plain(folder / "run" / "checkpoint")
    sets = read_dev_sets(job.settings.dev, 0)
    bits = bits_per_character(model, Vocabulary.load(job.vocabulary), sets)
    scores = {name: {**score, "bits": bits[name]} for name, score in found["scores"].items()}
    kept = {key: found[key] for key in ("steps", "tokens", "parameters", "skipped_updates")}
    return {**kept, "scores": scores, "epochs": round(found["tokens"] / _target_tokens(dataset), 2)}


def bits_per_character(
    model: MarianMTModel, vocabulary: Vocabulary, sets: Sequence[DevSet], tokens: int = 4096
) -> dict[str, float]:
    """Cross-entropy of each set's references in bits a character, which vocabularies of any size share.

    Raises TrainingError through ``read_dev_sets`` alone; sentences beyond the model's positions are cut.
    """
    limit, pad = int(model.config.max_position_embeddings), vocabulary.pad
    found = {}
    for dev in sets:
        sides = [
            [[*ids[: limit - 1], vocabulary.eos] for ids in vocabulary.encode_batch(texts)]
            for texts in (list(dev.sources), list(dev.references))
        ]
        lengths = torch.tensor([[len(ids) for ids in side] for side in sides]).amax(0).numpy()
        nats = 0.0
        for batch in by_length(lengths, tokens, 256):
            source, target = (
                torch.nn.utils.rnn.pad_sequence(
                    [torch.tensor(side[index]) for index in batch], batch_first=True, padding_value=pad
                )
                for side in sides
            )
            before = torch.cat([torch.full_like(target[:, :1], pad), target[:, :-1]], 1)
            with torch.inference_mode():
                logits = model(input_ids=source, attention_mask=source != pad, decoder_input_ids=before).logits
            logits = logits[..., :pad]  # as the loss leaves it out: the last piece
            kept = target != pad
            nats += float(torch.nn.functional.cross_entropy(logits[kept].float(), target[kept], reduction="sum"))
        found[dev.name] = round(nats / math.log(2) / sum(len(text) for text in dev.references), 5)
    return found
