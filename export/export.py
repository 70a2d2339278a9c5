"""From a checkpoint to a verified pack: load, quantize, write five graphs and their weights once, check them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from mobilenmt.export.checkpoint import Checkpoint, load_checkpoint, read_json
from mobilenmt.export.layers import check_activation
from mobilenmt.export.writer import PackWriter
from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.manifest import (
    FORMAT_VERSION,
    QUANTIZED_VERSION,
    ModelInfo,
    PackManifest,
    Segmentation,
    TokenIds,
)
from mobilenmt.runtime.pack import Pack
from mobilenmt.runtime.sections import STATIC_SINCE
from mobilenmt.runtime.text.forms import Placeholders
from mobilenmt.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from mobilenmt.export.npu.plan import StaticPlan, StaticSettings
    from mobilenmt.export.quantize.quantizer import Quantizer
    from mobilenmt.export.quantize.rounding import Rounded
    from mobilenmt.export.quantize.settings import Quantization
    from mobilenmt.export.shortlist import Shortlist

PRECISIONS = ("fp32", "int8")
_LANGUAGES = re.compile(r"([a-z]{2,3})-([a-z]{2,3})")


def export(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    precision: str = "int8",
    force: bool = False,
    name: str | None = None,
    source_language: str | None = None,
    target_language: str | None = None,
    card: dict[str, Any] | None = None,
    placeholders: Placeholders | None = None,
    shortlist: Shortlist | bool = True,
    sentences: bool = True,
    pairs: Sequence[tuple[str, str]] = (),
    quantization: Quantization | None = None,
    rounded: Mapping[str, Rounded] | None = None,
    static: StaticSettings | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Pack:
    """Write a Hugging Face Marian checkpoint folder as a pack, and verify it before it gets its name.

    Args:
        checkpoint: folder with config.json, model.safetensors or pytorch_model.bin, and tokenizer.json or OPUS-MT's
            source.spm, target.spm and vocab.json.
        out: folder to write, or a name that ends in ``.zip``.
        precision: ``int8`` for use, ``fp32`` as the reference.
        force: replace a pack that is there already.
        name: the pack's name; by default that of ``out``.
        source_language, target_language: codes; by default from the tokenizer's configuration or a name like ``en-de``.
        card: what people should know: ``description``, ``licence``, ``training_data``, ``scores``, ``notes``.
        placeholders: which forms the model was trained to copy; None where it was trained on none, as OPUS-MT.
        shortlist: candidates for the output layer; True for those of a shortlist.npz beside the checkpoint's weights,
            if there is one and the pack is int8; False for all tokens.
        sentences: whether hosts are to translate sentence by sentence, as a model of sentence pairs needs it.
        pairs: parallel sentences, some thousands, to find the attention head that aligns best, as
            :func:`mobilenmt.export.alignment.heads.measure_heads` does; without them an alignment is where the heads of
            the decoder's last layer look in the mean.
        quantization: forms of the matrices of an int8 pack, and how they are rounded; None for int8 of all of them.
        rounded: matrices that are rounded already, by the exporter's names, which are stored as they are.
        static: write the variant for NPUs, too: graphs of fixed shapes, calibrated on a text; INT8 alone.
        report: receives a line about each step.

    Raises:
        CheckpointError: the checkpoint is missing something, or holds something that cannot be exported.
        ExportError: ``out`` exists, cannot be written, or what was written does not translate as torch does.
        InputError: an argument makes no sense.
    """
    from mobilenmt.export.quantize.quantizer import Quantizer
    from mobilenmt.export.quantize.settings import Quantization
    from mobilenmt.export.shortlist import FILE_NAME as SHORTLIST
    from mobilenmt.export.shortlist import Shortlist

    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    quantizer = Quantizer(quantization or Quantization(), rounded)
    if precision == "fp32" and not quantizer.settings.plain:
        raise InputError("an fp32 pack keeps every matrix as it is: forms and clipping are for precision int8")
    if card is not None and not isinstance(card, dict):
        raise InputError(f"card must be a JSON object, not {type(card).__name__}")
    if static is not None and precision != "int8":
        raise InputError(f"static graphs for NPUs are of INT8 packs, not of {precision}")
    if static is not None and not quantizer.plain:
        raise InputError("static graphs for NPUs read the integers of plain int8: leave out forms and clipping")
    loaded = load_checkpoint(Path(checkpoint))
    check_activation(loaded.config.activation_function)
    candidates = shortlist if isinstance(shortlist, Shortlist) else None
    if shortlist is True and precision == "int8" and (loaded.path / SHORTLIST).is_file():
        candidates = Shortlist.load(loaded.path / SHORTLIST)
    if candidates is not None:
        candidates.check(loaded.config, loaded.generation.bad_token_ids, loaded.generation.forced_eos_token_id)
    with PackWriter(out, force=force) as writer:
        unk = _write_tokenizer(loaded, writer)
        plan = None
        if static is not None:
            from mobilenmt.export.npu.plan import plan_static

            report("calibrating static graphs")
            tokens = _token_ids(loaded, unk)
            tokenizer = Tokenizer(writer.path("tokenizer.json"), tokens, loaded.config.vocab_size)
            plan = plan_static(loaded, static, tokenizer, shortlist=candidates is not None, report=report)
            loaded = plan.checkpoint
        report(f"writing {precision} graphs and weights")
        write_graphs(loaded, precision, candidates, writer, quantizer, plan)
        section = quantizer.section()
        pack_name = name or Path(os.path.abspath(out)).name.removesuffix(".zip")  # noqa: PTH100
        source, target = _languages(loaded.path, pack_name, source_language, target_language)
        manifest = PackManifest(
            name=pack_name,
            source_language=source,
            target_language=target,
            precision=cast(Literal["int8", "fp32"], precision),
            model=model_info(loaded),
            tokens=_token_ids(loaded, unk),
            generation=loaded.generation,
            segmentation=Segmentation(sentences),
            placeholders=placeholders or Placeholders(),
            quantization=section,
            format_version=FORMAT_VERSION if section is None else QUANTIZED_VERSION,
            card=card or {},
            tools=tool_versions(),
        )
        if plan is not None:
            version = max(manifest.format_version, STATIC_SINCE)
            manifest = replace(manifest, variant=plan.variant, format_version=version)
        from mobilenmt.export.native.file import NATIVE_FILE, native_bytes

        native = native_bytes(writer.path(NATIVE_FILE).parent, manifest, report=report)
        if native is not None:
            writer.path(NATIVE_FILE).write_bytes(native)
        folder = writer.seal(manifest)
        from mobilenmt.export.verify import verify_against_torch

        verified = verify_against_torch(folder, loaded, quantizer.weights())
        if plan is not None:
            from mobilenmt.export.npu.verify import verify_static

            verify_static(folder, loaded)
        if pairs:
            from mobilenmt.export.alignment.heads import choose_head

            chosen = choose_head(Pack.open(folder), pairs, report=report)
            manifest = replace(manifest, alignment=chosen)
            native = native_bytes(folder, manifest)
            if native is not None:
                writer.path(NATIVE_FILE).write_bytes(native)
            writer.seal(manifest)
        report(verified)
        path = writer.commit()
    return Pack.open(path)


def write_graphs(
    checkpoint: Checkpoint,
    precision: str,
    shortlist: Shortlist | None,
    writer: PackWriter,
    quantizer: Quantizer | None = None,
    static: StaticPlan | None = None,
) -> None:
    """Write the five graphs of a checkpoint, those of its variant for NPUs, and weights.bin, unchecked.

    Raises:
        InputError: settings name a matrix that the checkpoint does not have.
    """
    from mobilenmt.export.batch import build_batch
    from mobilenmt.export.decoder import build_decoder
    from mobilenmt.export.encoder import build_encoder
    from mobilenmt.export.graph import Graph
    from mobilenmt.export.greedy import build_greedy
    from mobilenmt.export.layers import ModelWriter
    from mobilenmt.export.precision.float32 import Float32
    from mobilenmt.export.precision.mixed import Mixed
    from mobilenmt.export.quantize.quantizer import Quantizer
    from mobilenmt.export.quantize.settings import Quantization
    from mobilenmt.export.search import build_translator
    from mobilenmt.export.weights import WEIGHTS_FILE, WeightStore

    quantizer = quantizer or Quantizer(Quantization())
    compact = not quantizer.plain  # the graphs are a tenth of a pack of 4 bits; those of others stay as they are
    store = WeightStore()
    model = ModelWriter(checkpoint, Float32() if precision == "fp32" else Mixed(quantizer), shortlist)
    builders = {
        "greedy": build_greedy,
        "batch": build_batch,
        "translator": build_translator,
        "encoder": build_encoder,
        "decoder": build_decoder,
    }
    for stem, build in builders.items():
        proto = build(model, Graph(stem, store, compact=compact)).to_model(tool_versions()["mobilenmt"])
        writer.path(f"{stem}.onnx").write_bytes(proto.SerializeToString(deterministic=True))
    if precision == "int8":
        quantizer.check_names()
    if static is not None:
        from mobilenmt.export.npu.plan import static_graphs

        for name, proto in static_graphs(static, model, store, tool_versions()["mobilenmt"]):
            writer.path(name).write_bytes(proto.SerializeToString(deterministic=True))
    writer.reserve(store.nbytes)
    store.write(writer.path(WEIGHTS_FILE))


def _token_ids(checkpoint: Checkpoint, unk: int | None) -> TokenIds:
    config = checkpoint.config
    return TokenIds(config.decoder_start_token_id, config.eos_token_id, config.pad_token_id, unk)


def _write_tokenizer(checkpoint: Checkpoint, writer: PackWriter) -> int | None:
    """Write the tokenizer files; returns the id of the unknown token, if there is one."""
    from mobilenmt.export.tokenizer import checkpoint_tokenizer

    prepared = checkpoint_tokenizer(checkpoint)
    writer.path("tokenizer.json").write_text(prepared.source_json, encoding="utf-8")
    if prepared.target_json is not None:
        writer.path("tokenizer.target.json").write_text(prepared.target_json, encoding="utf-8")
    return prepared.unk_id


def model_info(checkpoint: Checkpoint) -> ModelInfo:
    """What pack.json says of a checkpoint's dimensions."""
    config = checkpoint.config
    names = {field.name for field in fields(ModelInfo)}
    return ModelInfo(
        architecture="marian",
        source_vocab_size=config.vocab_size,
        target_vocab_size=config.decoder_vocab_size,
        max_positions=config.max_position_embeddings,
        parameters=checkpoint.parameters,
        **{name: value for name, value in vars(config).items() if name in names},
    )


def _languages(checkpoint: Path, name: str, source: str | None, target: str | None) -> tuple[str | None, str | None]:
    """What the caller says, else the tokenizer's configuration, else a name like ``en-de``."""
    file = checkpoint / "tokenizer_config.json"
    config = read_json(file) if file.exists() else {}
    match = _LANGUAGES.fullmatch(name)
    found = []
    for given, key, group in ((source, "source_lang", 1), (target, "target_lang", 2)):
        value = given or config.get(key) or (match[group] if match else None)
        found.append(value if isinstance(value, str) else None)
    return found[0], found[1]


def tool_versions() -> dict[str, str]:
    """Package -> version, of those that have a part in a pack."""
    versions = {}
    for package in ("mobilenmt", "onnx", "onnxruntime", "torch", "transformers", "tokenizers", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            from mobilenmt import __version__

            versions[package] = __version__ if package == "mobilenmt" else "unknown"
    return versions
