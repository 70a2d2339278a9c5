"""A checkpoint folder in, a smaller checkpoint folder out."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from mobilenmt.compression.core.cores import free_cores
from mobilenmt.compression.core.errors import PruneError
from mobilenmt.compression.prune.calibrate import Texts
from mobilenmt.compression.prune.network import BIAS, EMBEDDING, SIDES, Network
from mobilenmt.compression.prune.one_shot import prune_network
from mobilenmt.compression.prune.pieces import Pieces
from mobilenmt.compression.prune.report import PruneReport, write_report
from mobilenmt.compression.prune.settings import HowToPrune
from mobilenmt.compression.prune.vocabulary import keep_rows, move, smaller_tokenizer, used_pieces
from mobilenmt.compression.train.hidden.matching import of_pruned, write_matches
from mobilenmt.compression.train.student import TOKENIZER_FILES, StudentShape
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.export import spm
from mobilenmt.export.checkpoint import load_checkpoint, read_json
from mobilenmt.runtime.atomic import atomic_path


def prune(
    checkpoint: Path,
    out: Path,
    shape: StudentShape,
    texts: Texts,
    how: HowToPrune,
    *,
    vocabulary: Path | None = None,
    drop_unused: bool = False,
    languages: tuple[str, str] = ("", ""),
    seed: int = 0,
) -> PruneReport:
    """Prune a Marian checkpoint to a smaller one, with a report beside its weights.

    Args:
        checkpoint: folder of the model.
        out: the new folder; it appears when all is done, in place of what was there.
        shape: what is to be left.
        texts: pairs to calibrate on, and to tell which pieces are used.
        how: importance, reconstruction, amounts of text.
        vocabulary: folder with the tokenizer.json to move to; None keeps the model's.
        drop_unused: drop pieces that no text uses. Not together with ``vocabulary``.
        languages: codes of source and target; "" for what the checkpoint says.
        seed: of what is drawn.

    Raises:
        CheckpointError: the folder is no Marian checkpoint, or a damaged one.
        PruneError, CorpusError, VocabularyError: the shape, the text or the tokenizer will not do; the disk refuses.
    """
    begin = time.monotonic()
    torch.set_num_threads(free_cores())
    if out.resolve() == checkpoint.resolve():
        raise PruneError(f"{out}: the model itself; name another folder for what comes out")
    loaded = load_checkpoint(checkpoint)
    network = Network.of(loaded)
    parameters, pieces = loaded.parameters, Pieces(checkpoint, loaded.config)
    config = spm.read_config(checkpoint)
    known = tuple(str(given or config.get(key) or "") for given, key in zip(languages, _LANGUAGE_KEYS, strict=True))
    moved = None if vocabulary is None else Vocabulary.load(vocabulary)
    kept = used_pieces(pieces, texts) if drop_unused and moved is None else None
    del loaded
    found = prune_network(network, shape, texts, pieces, how, languages=(known[0], known[1]), seed=seed)
    before = network.config
    del network
    smaller, told = found.network, {"same": pieces.size, "spelled": 0, "guessed": 0}
    if moved is not None:
        smaller, told = move(smaller, pieces, moved)
    elif kept is not None:
        smaller, told = keep_rows(smaller, kept), {"same": len(kept), "spelled": 0, "guessed": 0}
    report = PruneReport.of(
        before, found, smaller.config, how, (parameters, smaller.parameters), told, seconds=time.monotonic() - begin
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(out) as temporary:
            temporary.mkdir()
            write_model(smaller, checkpoint, temporary)
            if moved is not None:
                _copy(moved.path.parent, temporary, TOKENIZER_FILES)
            else:
                _copy(checkpoint, temporary, (*TOKENIZER_FILES, *spm.FILES))
                if kept is not None:
                    (temporary / "tokenizer.json").write_text(smaller_tokenizer(pieces, kept), encoding="utf-8")
            depth = {side: getattr(before, f"{side}_layers") for side in SIDES}
            match = of_pruned(found.layers, depth, report.channels)
            write_matches(temporary, checkpoint, match)
            write_report(report, found.scores, found.selection, temporary)
    except (OSError, SafetensorError) as error:
        raise PruneError(f"{out}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
    return report


_LANGUAGE_KEYS = ("source_lang", "target_lang")


def _copy(folder: Path, there: Path, names: Sequence[str]) -> None:
    for name in names:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, there / name)


def write_model(network: Network, origin: Path, folder: Path) -> None:
    """Write config.json, generation_config.json and model.safetensors, in the names that transformers reads.

    Args:
        network: what is written.
        origin: checkpoint folder it comes from, for what its configurations say beside dimensions and ids.
        folder: where to.
    """
    from safetensors.torch import save_file

    config = network.config
    changed = {name: getattr(config, name) for name in config.__dataclass_fields__}
    raw = {**read_json(origin / "config.json"), **changed, "num_hidden_layers": config.encoder_layers}
    raw |= {"dtype": "float32"}
    raw.pop("torch_dtype", None)
    _renumber(raw, config)
    (folder / "config.json").write_text(_text(raw), encoding="utf-8")
    given = origin / "generation_config.json"
    generation = read_json(given) if given.is_file() else {}
    generation |= {
        "pad_token_id": config.pad_token_id,
        "eos_token_id": config.eos_token_id,
        "decoder_start_token_id": config.decoder_start_token_id,
    }
    _renumber(generation, config)
    generation["max_length"] = min(int(generation.get("max_length") or 512), config.max_position_embeddings)
    generation["bad_words_ids"] = [[config.pad_token_id]]
    (folder / "generation_config.json").write_text(_text(generation), encoding="utf-8")
    weights = {name: value.contiguous() for name, value in network.weights.items() if name != EMBEDDING}
    weights["model.shared.weight"] = network.weights[EMBEDDING].contiguous()
    assert weights[BIAS].dtype == torch.float32
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _renumber(raw: dict[str, Any], config: Any) -> None:
    """Ids that a configuration may name follow the vocabulary."""
    for name, value in (("forced_eos_token_id", config.eos_token_id), ("bos_token_id", config.eos_token_id)):
        if raw.get(name) is not None:
            raw[name] = value
    if "bad_words_ids" in raw:
        raw["bad_words_ids"] = [[config.pad_token_id]]


def _text(raw: dict[str, Any]) -> str:
    return json.dumps(raw, indent=2, ensure_ascii=False) + "\n"
