"""The command that studies how a model is best quantized."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from mobilenmt.pipeline_needs import need
from mobilenmt.runtime.errors import InputError


def quantize(
    checkpoint: Path,
    dev: list[Path] | None = None,
    out: Path | None = None,
    text: list[Path] | None = None,
    sensitivity: bool = False,
    scored: int = 0,
    size: str | None = None,
    equal: bool = False,
    compare: bool = False,
    variant: list[str] | None = None,
    against: list[str] | None = None,
    forms: str | None = None,
    clipping: Literal["max", "percentile", "mse"] = "mse",
    lines: int | None = None,
    probe: int = 100,
    sentences: int = 600,
    source_language: str | None = None,
    target_language: str | None = None,
    threads: int = 1,
) -> int:
    """Study how a checkpoint is best quantized: what each matrix costs, a mixture for a size, a table of all methods.

    Everything goes into a folder, as soon as it is found: killed at any moment, the same command goes on. Without
    --sensitivity, --size, --equal and --compare all of it is done, for a mixture of the size of the INT8 pack.

    Args:
        checkpoint: folder with a Hugging Face Marian model
        dev: dev text to score on, source, tab, reference; several, or the option several times
        out: folder for tables, pictures and packs
        text: parallel text for logit distances, GPTQ and AWQ, source, tab, target; by default the dev text
        sensitivity: measure what each matrix costs alone in each form
        scored: give BLEU and chrF, too, to so many of the most and of the least sensitive matrices
        size: choose a form for each matrix for a pack of this size, as in 6MB
        equal: the same for the size of the INT8 pack
        compare: make and score packs of all forms, clippings and methods
        variant: only this one of them; may be repeated
        against: another checkpoint to compare, NAME=FOLDER, such as one trained with rounding; may be repeated
        forms: what a matrix may be stored in, as in int8,int4-32; by default everything
        clipping: of sensitivities and mixtures
        lines: in comparisons, take this many lines of each dev file; mixtures are compared on all of them
        probe: pairs of the text that logit distances are measured on
        sentences: further pairs for GPTQ and AWQ
        source_language: code, if the checkpoint does not tell
        target_language: likewise
        threads: sentences translated at once, 0 for one a core
    """
    need("quantize", "torch", "transformers", "onnx", "sacrebleu", "matplotlib", "tqdm", "xopen", "filelock")
    from mobilenmt.compression.quantize.command import Request
    from mobilenmt.compression.quantize.command import quantize as run
    from mobilenmt.compression.quantize.study import StudySettings
    from mobilenmt.export.quantize.forms import FORMS
    from mobilenmt.export.quantize.settings import Quantization

    if out is None:
        raise InputError("name a folder for what is found: --out FOLDER")
    if size is not None and equal:
        raise InputError("give either --size or --equal, not both")
    others: list[tuple[str, Path]] = []
    for item in against or ():
        name, equals, folder = item.partition("=")
        if not (name and equals and folder):
            raise InputError(f"--against {item}: expected NAME=FOLDER")
        others.append((name, Path(folder)))
    compare = compare or bool(variant or against)
    everything = not (sensitivity or scored or size or equal or compare)
    request = Request(
        checkpoint,
        out,
        StudySettings(
            tuple(dev or ()),
            tuple(text or ()),
            probe,
            sentences,
            Quantization(clipping=clipping),
            (source_language or "", target_language or ""),
        ),
        sensitivity=sensitivity or bool(scored) or everything,
        scored=scored,
        size="equal" if equal or everything else size,
        compare=compare or everything,
        variants=tuple(variant or ()),
        checkpoints=tuple(others),
        forms=tuple(forms.split(",")) if forms is not None else tuple(FORMS),
        lines=lines,
        threads=threads,
    )
    print(run(request, lambda line: print(line, file=sys.stderr)))
    return 0
