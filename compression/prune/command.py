"""``mobilenmt prune``: files in, files out, a few lines to read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mobilenmt.compression.core.errors import PruneError, RecipeError
from mobilenmt.compression.core.settings import from_mapping
from mobilenmt.compression.prune.calibrate import read_texts
from mobilenmt.compression.prune.prune import prune as run
from mobilenmt.compression.prune.report import MARKDOWN
from mobilenmt.compression.prune.settings import HowToPrune
from mobilenmt.compression.prune.target import parse_target
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.export.checkpoint import MarianConfig, read_json
from mobilenmt.runtime.errors import CheckpointError, InputError


def prune(
    checkpoint: Path,
    out: Path,
    to: str,
    text: Sequence[Path],
    how: Mapping[str, Any],
    *,
    vocabulary: Path | None = None,
    drop_unused: bool = False,
    force: bool = False,
) -> str:
    """Prune a checkpoint folder to ``out``; returns what to print.

    Args:
        checkpoint: the model.
        out: the new folder.
        to: a shape or a size; see :func:`~mobilenmt.compression.prune.target.parse_target`.
        text: files of pairs.
        how: fields of :class:`HowToPrune`.
        vocabulary: folder of the tokenizer to move to.
        drop_unused: drop pieces that the text does not use.
        force: replace what is at ``out``.

    Raises:
        InputError: options that contradict one another, or something is at ``out``.
        CheckpointError, CorpusError, PruneError, VocabularyError: see
            :func:`~mobilenmt.compression.prune.prune.prune`.
    """
    if vocabulary is not None and drop_unused:
        raise InputError("give either --vocabulary or --drop-unused, not both")
    if out.exists() and not force and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already; name another folder, or replace it with --force")
    _check_place(out)
    try:
        settings = from_mapping(HowToPrune, how, "--")
    except RecipeError as error:
        raise InputError(str(error).replace("--.", "--")) from None
    if not checkpoint.is_dir():
        raise CheckpointError(f"{checkpoint}: no such checkpoint folder")
    raw = read_json(checkpoint / "config.json", f"{checkpoint} is no checkpoint: it has no config.json")
    config = MarianConfig.from_dict(raw)
    pieces = config.decoder_vocab_size if vocabulary is None else Vocabulary.load(vocabulary).size
    shape = parse_target(to, config, pieces, vocabulary or checkpoint)
    texts = read_texts(text, settings.sentences)
    if not texts:
        raise PruneError(f"{text[0]}: no pairs in it; source, tab, target on each line are expected")
    report = run(checkpoint, out, shape, texts, settings, vocabulary=vocabulary, drop_unused=drop_unused)
    before, after, losses = report.before, report.after, report.losses
    return (
        f"{out}: {after['parameters']:,} of {before['parameters']:,} parameters, loss on the text "
        f"{losses['before']:.3f} before and {losses['after']:.3f} after, {report.seconds:.0f} s; see {out / MARKDOWN}"
    )


def _check_place(out: Path) -> None:
    """PruneError if no folder can be made there: better now than when all is done."""
    there = out.absolute().parent
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise PruneError(f"{out}: cannot be written: {there} is no folder")
    try:
        with tempfile.TemporaryDirectory(prefix=".mobilenmt-", dir=there):
            pass
    except OSError as error:
        raise PruneError(f"{out}: cannot be written: {error.strerror or error}") from None
