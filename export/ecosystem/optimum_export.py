"""optimum's own ONNX export of a checkpoint, laid out as the hub's ONNX folders are.

``ORTModelForSeq2SeqLM.from_pretrained`` and transformers.js open such a folder: config.json, generation_config.json and
the tokenizer at its root, below ``onnx/`` the encoder and the merged decoder (one graph for the first step and the
later ones), each in fp32 and, ``_quantized``, in INT8 as optimum's ORTQuantizer makes it. It is several times the size
of a pack and slower (benchmarks/README.md); it is for tools that read nothing else.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mobilenmt.export import spm
from mobilenmt.export.checkpoint import Checkpoint, load_checkpoint
from mobilenmt.export.ecosystem.folder import new_folder
from mobilenmt.export.ecosystem.optimum_check import STEMS, check_folder
from mobilenmt.export.ecosystem.tokenizer import plain_tokenizer
from mobilenmt.export.tokenizer import checkpoint_tokenizer
from mobilenmt.runtime.errors import ExportError, MobileNMTError
from mobilenmt.runtime.onnx.ort import first_line

OURS = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *(*spm.FILES, spm.TARGET_VOCABULARY, "README.md"),
    *("onnx/*.onnx", "onnx/*.onnx_data"),
)
"""What such a folder holds, for ``force``."""
_GRAPHS = ("encoder_model", "decoder_model", "decoder_with_past_model")
_INT8 = "_quantized"


def export_with_optimum(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    precision: str = "int8",
    force: bool = False,
    lines: Sequence[str] = (),
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write a Hugging Face Marian checkpoint as optimum exports it, and verify it before it gets its name.

    Args:
        checkpoint: folder as for :func:`mobilenmt.export.export.export`.
        out: folder to write.
        precision: ``fp32`` for those graphs alone, ``int8`` for INT8 graphs beside them.
        force: replace such a folder.
        lines: sentences whose greedy ids must be torch's; one of ours if there are none.
        report: receives a line about each step.

    Raises:
        CheckpointError: as for a pack.
        ExportError: optimum is missing or fails, ``out`` exists or cannot be written, or what was written does not
            translate as torch does.
    """
    main_export, quantizer, config, merge = _optimum()
    loaded = load_checkpoint(Path(checkpoint))
    with new_folder(out, replace=OURS if force else ()) as folder, TemporaryDirectory() as work:
        _write_tokenizer(loaded, folder)
        raw = Path(work) / "raw"
        graphs = folder / "onnx"
        graphs.mkdir()
        try:
            report("exporting fp32 graphs with optimum")
            with _quiet():
                main_export(str(loaded.path), output=str(raw), task="text2text-generation-with-past", device="cpu")
            for name in ("config.json", "generation_config.json"):
                shutil.copy(raw / name, folder / name)
            if precision == "int8":
                report("quantizing them with ORTQuantizer")
                with _quiet():
                    for stem in _GRAPHS:
                        of = quantizer.from_pretrained(raw, file_name=f"{stem}.onnx")
                        of.quantize(save_dir=raw / "int8", quantization_config=config, file_suffix=_INT8[1:])
                    # The merged graph itself cannot be quantized: its weights lie outside the branches of its If.
                    first, later = (raw / "int8" / f"{stem}{_INT8}.onnx" for stem in _GRAPHS[1:])
                    merge(first, later, save_path=graphs / f"{STEMS[1]}{_INT8}.onnx", strict=False)
                _move(raw / "int8" / f"{_GRAPHS[0]}{_INT8}.onnx", graphs)
            for stem in STEMS:
                _move(raw / f"{stem}.onnx", graphs)
            shutil.rmtree(raw)
            report(check_folder(folder, loaded, lines, int8=precision == "int8"))
        except MobileNMTError:
            raise
        except Exception as error:  # optimum, torch, onnx and onnxruntime each raise types of their own
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's
            raise ExportError(f"optimum cannot export {loaded.path}: {first_line(error)}") from error
    return Path(out)


def _optimum() -> tuple[Callable[..., Any], Any, Any, Callable[..., Any]]:
    """Of optimum: the exporter, the quantizer and its configuration, and what merges decoders."""
    try:
        with _quiet():
            from optimum.exporters.onnx import main_export
            from optimum.onnx import merge_decoders
            from optimum.onnxruntime import ORTQuantizer
            from optimum.onnxruntime.configuration import AutoQuantizationConfig
    except ImportError as error:
        raise ExportError(
            f"export --via optimum needs optimum ({error}): install the extra 'optimum' "
            "(in a checkout of mobilenmt, pip install '.[optimum]')"
        ) from None
    # seven bits: more would overflow, silently, on x86 processors without VNNI; the folder runs anywhere
    config = AutoQuantizationConfig.avx2(is_static=False, per_channel=False)
    return main_export, ORTQuantizer, config, merge_decoders


def _move(path: Path, folder: Path) -> None:
    """A graph, with the file of its weights if it is too large to hold them."""
    for item in (path, path.with_name(f"{path.name}_data")):
        if item.exists():
            shutil.move(item, folder / item.name)


def _write_tokenizer(loaded: Checkpoint, folder: Path) -> None:
    """tokenizer.json for all tools; OPUS-MT's own files beside it, which Python prefers then.

    transformers.js reads tokenizer.json alone, also for a MarianTokenizer; with two vocabularies there is none.
    """
    config = loaded.config
    prepared = checkpoint_tokenizer(loaded)
    settings = spm.read_config(loaded.path)
    kept = {key: value for key, value in settings.items() if key in ("source_lang", "target_lang", "separate_vocabs")}
    ids = {"eos_token": config.eos_token_id, "unk_token": prepared.unk_id, "pad_token": config.pad_token_id}
    content, roles = plain_tokenizer(json.loads(prepared.source_json), ids, config.vocab_size)
    files = [name for name in (*spm.FILES, spm.TARGET_VOCABULARY) if (loaded.path / name).is_file()]
    marian = len(files) >= len(spm.FILES) and (
        prepared.target_json is not None or not (loaded.path / "tokenizer.json").is_file()
    )
    name = "MarianTokenizer" if marian else "PreTrainedTokenizerFast"
    values = {"tokenizer_class": name, **roles, **kept, "model_max_length": config.max_position_embeddings}
    _write(folder / "tokenizer_config.json", values)
    _write(folder / "special_tokens_map.json", roles)
    if marian:
        for file in files:
            shutil.copyfile(loaded.path / file, folder / file)
    if prepared.target_json is None:
        _write(folder / "tokenizer.json", content)


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the pages of warnings of tracing, which ask nothing of anybody."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
