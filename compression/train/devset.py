"""Evaluation while training: dev sets, greedy translation in batches of one length, BLEU and chrF, and the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenmt.compression.core.errors import TrainingError
from mobilenmt.compression.core.scoring import Score, Scorer
from mobilenmt.compression.core.streams import open_regular
from mobilenmt.compression.dataset.batches import Array, by_length, make_batch
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch
    from transformers import MarianMTModel

BATCH_TOKENS, BATCH_SENTENCES = 4096, 256


@dataclass(frozen=True)
class DevSet:
    """Sentences and their reference translations."""

    name: str
    sources: tuple[str, ...]
    references: tuple[str, ...]


def read_dev_sets(paths: Sequence[Path], lines: int) -> list[DevSet]:
    """Read TSV files: source, target, anything further is ignored. ``lines`` of each, evenly spaced; 0 for all.

    Raises TrainingError: a file is missing, not text, empty, or a line has no two columns.
    """
    sets: list[DevSet] = []
    for path in paths:
        try:
            with open_regular(path) as stream:
                rows = stream.read().decode("utf-8-sig").removesuffix("\n").split("\n")
        except FileNotFoundError:
            raise TrainingError(f"{path}: no such dev file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise TrainingError(f"{path}: cannot be read as UTF-8 text: {error}") from None
        pairs = []
        for number, row in enumerate(rows, 1):
            columns = row.rstrip("\r").split("\t")
            if len(columns) < 2 or not columns[0].strip() or not columns[1].strip():
                raise TrainingError(f"{path}, line {number}: a source and a target with a tab between are expected")
            pairs.append((columns[0], columns[1]))
        if lines and lines < len(pairs):
            pairs = [pairs[index * len(pairs) // lines] for index in range(lines)]
        name = path.stem
        if any(known.name == name for known in sets):
            raise TrainingError(f"{path}: two dev files are called {name}; rename one")
        sources, references = zip(*pairs, strict=True)
        sets.append(DevSet(name, sources, references))
    return sets


class _Tokenized:
    """Pairs in memory, as the dataset on disk gives them."""

    def __init__(self, sources: list[list[int]], targets: list[list[int]]) -> None:
        self._sides = sources, targets
        self.source_lengths, self.target_lengths = (np.array([len(ids) for ids in side]) for side in self._sides)
        self.longest = np.maximum(self.source_lengths, self.target_lengths)

    def __len__(self) -> int:
        return len(self.longest)

    def gather(self, indices: Array, pad: int) -> tuple[Array, Array]:
        """Padded int64 arrays [B, S] and [B, T] of some sentences."""
        found = []
        for side in self._sides:
            rows = [side[index] for index in indices.tolist()]
            longest = max(map(len, rows))
            found.append(np.array([row + [pad] * (longest - len(row)) for row in rows], np.int64))
        return found[0], found[1]


class DevEvaluator:
    """Translates dev sets greedily with a model under training, and scores them for the vocabulary's target language.

    Raises EvaluationError if sacrebleu needs something for this language that is not installed.
    """

    def __init__(self, sets: Sequence[DevSet], vocabulary: Vocabulary, max_positions: int) -> None:
        self.sets = sets
        self.pad = vocabulary.pad
        self.max_positions = max_positions
        self.vocabulary = vocabulary
        self.scorer = Scorer(vocabulary.languages[1])
        sources = [source for dev in sets for source in dev.sources]
        encoded = [[*ids[: max_positions - 1], vocabulary.eos] for ids in vocabulary.encode_batch(sources)]
        self._encoded = encoded
        references = vocabulary.encode_batch([reference for dev in sets for reference in dev.references])
        self._pairs = _Tokenized(encoded, [[*ids[: max_positions - 1], vocabulary.eos] for ids in references])
        self._batches = list(by_length(np.array([len(ids) for ids in encoded]), BATCH_TOKENS, BATCH_SENTENCES))

    def translate(self, model: MarianMTModel, rank: int = 0, world: int = 1) -> dict[int, str]:
        """Translations by number of sentence (all sets, one after the other); the share of process ``rank``."""
        import torch

        training = model.training
        model.train(False)
        found = {}
        with torch.inference_mode():
            for batch in self._batches[rank::world]:
                longest = max(len(self._encoded[index]) for index in batch)
                rows = [self._encoded[index] + [self.pad] * (longest - len(self._encoded[index])) for index in batch]
                source = torch.tensor(rows, device=model.device)
                output = model.generate(
                    input_ids=source,
                    attention_mask=source != self.pad,
                    num_beams=1,
                    do_sample=False,
                    max_length=min(self.max_positions, 2 * longest + 10),
                )
                for index, ids in zip(batch.tolist(), output[:, 1:].tolist(), strict=True):
                    found[index] = self.vocabulary.decode(ids)
        model.train(training)
        return found

    def loss(self, model: MarianMTModel, dtype: torch.dtype, rank: int = 0, world: int = 1) -> tuple[float, int]:
        """Negative log-likelihood of the references, summed in nats, and its tokens, ``</s>`` included.

        It tells models apart long before their BLEU does. References longer than the model has positions for are cut.

        Args:
            model: the model.
            dtype: type of its matrix products.
            rank: number of this process, which reads its share.
            world: how many processes there are.
        """
        import torch

        from mobilenmt.compression.train.forward import hidden_states
        from mobilenmt.compression.train.loss import LossWeights, fused_loss

        training, total, tokens = model.training, 0.0, 0
        model.train(False)
        table, bias = model.model.shared.weight, model.final_logits_bias
        assert isinstance(bias, torch.Tensor)
        with torch.no_grad():
            for chosen in list(by_length(self._pairs.longest, BATCH_TOKENS, BATCH_SENTENCES))[rank::world]:
                batch = make_batch(self._pairs, chosen, self.pad, None)
                source, mask, start, positions, labels = (
                    None if array is None else torch.from_numpy(array).to(model.device)
                    for array in (batch.source, batch.source_mask, batch.decoder_input, batch.positions, batch.labels)
                )
                assert source is not None and start is not None and labels is not None
                states = hidden_states(model, source, mask, start, dtype)
                states = states.reshape(-1, states.shape[-1])
                if positions is not None:
                    states = states.index_select(0, positions)
                _, sums = fused_loss(states, table, bias, labels, LossWeights(), dtype=dtype)
                total, tokens = total + float(sums[0]), tokens + batch.tokens
        model.train(training)
        return total, tokens

    def score(self, translations: dict[int, str]) -> dict[str, Score]:
        """BLEU and chrF of each dev set, by its name."""
        scores, start = {}, 0
        for dev in self.sets:
            hypotheses = [translations[start + index] for index in range(len(dev.sources))]
            scores[dev.name] = self.scorer.score(hypotheses, dev.references)
            start += len(dev.sources)
        return scores


def mean_score(scores: dict[str, Score], metric: str) -> float:
    """Mean over the dev sets."""
    return sum(float(getattr(score, metric)) for score in scores.values()) / len(scores)


def to_json(scores: dict[str, Score]) -> dict[str, dict[str, Any]]:
    """Scores as plain mappings."""
    return {name: asdict(score) for name, score in scores.items()}
