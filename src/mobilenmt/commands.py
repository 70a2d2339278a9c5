"""The commands, each a typed function whose docstring is its help; the parser is built from this table."""

from __future__ import annotations

import importlib
import json as json_module
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mobilenmt.runtime.errors import CheckpointError, EngineError, ExportError, InputError, PackError

if TYPE_CHECKING:
    from mobilenmt.runtime.manifest import PackManifest
    from mobilenmt.runtime.pack import Pack
    from mobilenmt.runtime.sections import Variant
    from mobilenmt.runtime.translation import Translation

DEFAULT_PACK = "en-de"
_BITS_LINES = 500


def translate(
    text: list[str],
    input: Path | None = None,  # the name of the option
    output: Path | None = None,
    pack: str = DEFAULT_PACK,
    beam: int | None = None,
    n_best: int = 1,
    threads: int = 1,
    together: bool = False,
    engine: Literal["auto", "native", "onnx"] = "auto",
    split: bool | None = None,
    unwrap: bool = False,
    target: str | None = None,
    encoding: str | None = None,
    format: str | None = None,
    glossary: Path | None = None,
    glossary_method: Literal["search", "placeholders"] = "search",
    keep: list[str] | None = None,
    no_keep: list[str] | None = None,
    json: bool = False,
    details: bool = False,
    time_limit: float | None = None,
) -> int:
    """Translate texts, a file, or standard input.

    Without TEXT, lines are read from --input or standard input; each input line gives one output line (with --unwrap
    each paragraph), flushed as soon as it is there. Lines end at \\n only. Text is UTF-8, in and out; what begins with
    a byte order mark of UTF-16 or UTF-32 is read as that. What is no text is replaced by U+FFFD.

    HTML, Markdown and subtitles (by --format or the ending of --input) are read, translated and written as a whole,
    with the markup, the line ends and the encoding that they had.

    Args:
        text: texts to translate, one line of output each; none to read lines instead
        input: read lines from this file instead of standard input
        output: write to this file, which appears when all is done, instead of standard output
        pack: name or path of the pack
        beam: hypotheses kept by beam search, 1 for greedy; by default what the pack says
        n_best: translations of each line, with --json
        threads: lines translated at once, 0 for one a core
        together: put lines through ONNX Runtime together, faster for files; a word may differ from the line alone
        engine: native is the C core, onnx ONNX Runtime, auto the first of them that can run the pack here
        split: translate each sentence of a line for itself, or lines whole; by default what the pack says
        unwrap: join the lines of paragraphs that were wrapped to a width; each paragraph gives one line
        target: code of the language to translate into, such as deu, for a pack with several
        encoding: encoding of the input and the output, such as utf-16 or cp1252
        format: text, html, markdown, srt or vtt; by default what the ending of --input says, else text
        glossary: file of terms: source, tab, target on each line, and a tab and the target of the plural if it differs
        glossary_method: how terms get in: a search for translations that hold them, or placeholders
        keep: keep what this regular expression finds, as a rule of this name; may be repeated
        no_keep: do not keep what the rule of this name finds; may be repeated
        json: write a JSON object a line: source, text, score, tokens, alternatives, flags, sentences
        details: with --json, give each sentence its confidence and links of words
        time_limit: end with an error when the run has taken so long; a file of --output does not appear then
    """
    from mobilenmt.documents import find_format, read_glossary, read_rules, translate_file
    from mobilenmt.lines import (
        check_encoding,
        decode_arguments,
        open_input,
        open_output,
        read_batches,
        unwrap_batches,
    )
    from mobilenmt.meter import Meter

    meter = Meter(time_limit, output)
    if text and input is not None:
        raise InputError("give either TEXT or --input, not both")
    if n_best > 1 and not json:
        raise InputError("--n-best needs --json: plain output has one translation a line")
    if details and not json:
        raise InputError("--details needs --json: plain output has no place for them")
    encoding = None if encoding is None else check_encoding(encoding)
    format = find_format(format, input)
    if unwrap and format != "text":
        raise InputError(f"--unwrap is for plain text: {format} says itself what a paragraph is")
    rules = read_rules(keep or (), no_keep or ())
    from mobilenmt.runtime.native import LIBRARY

    if engine == "onnx" or not LIBRARY.is_file():
        from mobilenmt.runtime.background import Background
        from mobilenmt.runtime.onnx.ort import load_onnxruntime

        Background(load_onnxruntime)  # half of its cold start; it loads while the rest is imported and the pack checked
    from mobilenmt.runtime.translator import Translator

    translator = Translator(pack, threads=threads, engine=engine)
    language = translator.pack.manifest.source_language
    terms = None if glossary is None else read_glossary(glossary, language, encoding)

    def render(sources: list[str]) -> list[str]:
        with meter.limited() as left:
            found = translator.translate_batch(
                sources,
                beam_size=beam,
                n_best=n_best,
                together=together,
                details=details,
                time_limit=left,
                progress=meter.sentences if meter.shown and format != "text" else None,
                split=split,
                unwrap=unwrap,
                target=target,
                keep=rules,
                glossary=terms,
                glossary_method=glossary_method,
                format=format,
            )
        if json:
            return [_json_line(source, item) for source, item in zip(sources, found, strict=True)]
        if format != "text":
            return [item.text for item in found]
        return [item.text.replace("\n", " ") for item in found]  # a TEXT may hold one; a line of output may not

    if format != "text" and not text:
        with meter.showing(input is not None):
            translate_file(input, output, encoding, lambda whole: render([whole])[0] + ("\n" if json else ""))
        return 0
    with open_output(output, encoding) as sink:
        if text:
            for item in decode_arguments(text):  # one by one: the first appears at once
                sink.write("".join(render([item])) + "\n")
                meter.add(1)
            return 0
        to_terminal = output is None and sys.stdout.isatty()  # which shows by itself how far it has come
        with open_input(input, encoding) as source, meter.showing(input is not None and not to_terminal):
            batches = read_batches(source)
            for lines, ended in unwrap_batches(batches) if unwrap else batches:
                sink.write("\n".join(render(lines)) + ("\n" if ended or json else ""))
                meter.add(len(lines))
    return 0


def export(
    checkpoint: Path,
    out: Path,
    precision: Literal["int8", "fp32"] = "int8",
    force: bool = False,
    name: str | None = None,
    source_language: str | None = None,
    target_language: str | None = None,
    card: Path | None = None,
    split: bool = True,
    form: str | None = None,
    clipping: Literal["max", "percentile", "mse"] | None = None,
    percentile: float | None = None,
    granularity: Literal["channel", "tensor"] | None = None,
    quantization: Path | None = None,
    target: Literal["cpu", "npu"] = "cpu",
    calibration: Path | None = None,
    buckets: str | None = None,
    via: Literal["mobilenmt", "optimum"] = "mobilenmt",
    check: Path | None = None,
) -> int:
    """Make a pack from a Hugging Face Marian checkpoint, and verify it against torch.

    With --target npu the pack has static graphs, too, for the NPUs of phones; its other graphs run as ever. It needs
    --calibration and the extra 'npu'.
    With --via optimum a folder as the hub has them instead, by optimum's own exporter and quantizer, for what reads no
    packs: ORTModelForSeq2SeqLM, transformers.js. int8 puts INT8 graphs beside the fp32 ones.

    Args:
        checkpoint: folder with config.json, weights, and tokenizer.json or OPUS-MT's source.spm, target.spm, vocab.json
        out: folder to write, or a name ending in .zip
        precision: int8 for use, fp32 as the reference
        force: replace a pack that is already there
        name: the pack's name; by default that of OUT
        source_language: language code; by default from the tokenizer's configuration or a name like en-de
        target_language: likewise
        card: JSON file with what people should know: description, licence, training_data, scores, notes
        split: let hosts translate sentence by sentence; --no-split for a model that learned from longer texts
        form: how an int8 pack stores its matrices: int8, int8-wide, int4-16, int4-32, int4-64, int4-128, fp32
        clipping: what the largest integer stands for: the largest magnitude, a percentile, or the least squared error
        percentile: with --clipping percentile, of the magnitudes of a row, from 50 to 100
        granularity: a scale for each output of a matrix, or one for the whole matrix
        quantization: TOML or JSON file with these settings, and with a form for each matrix (docs/compress/quantize.md)
        target: cpu for the graphs that run anywhere, npu for static ones besides
        calibration: for npu, a text in the source language, a sentence a line; what follows a tab does not count
        buckets: for npu, the source lengths in tokens to have graphs for, 32,64,128 by default
        via: optimum for its own ONNX export
        check: with --via optimum, a file of sentences, one a line, whose greedy ids must be torch's
    """
    if target == "cpu" and (calibration is not None or buckets is not None):
        raise InputError("--calibration and --buckets need --target npu")
    if target == "npu" and calibration is None:
        raise InputError("--target npu needs --calibration: a text in the source language, a sentence a line")
    _need_export("export")
    if via == "optimum":
        ours: dict[str, object] = {"name": name, "card": card}
        ours |= {"source-language": source_language, "target-language": target_language}
        ours |= {"form": form, "clipping": clipping, "percentile": percentile, "granularity": granularity}
        ours |= {"quantization": quantization, "target": None if target == "cpu" else target}
        unused = [f"--{key}" for key, value in ours.items() if value is not None] + ["--no-split"] * (not split)
        if unused:
            raise InputError(f"--via optimum makes no pack: it takes no {', '.join(unused)}")
        return _export_with_optimum(checkpoint, out, precision, force, check)
    if check is not None:
        raise InputError("--check is for --via optimum; a pack is compared with torch by mobilenmt evaluate")
    from mobilenmt.export.checkpoint import read_json
    from mobilenmt.export.export import export as run_export
    from mobilenmt.export.quantize.settings import Quantization

    static = None
    if calibration is not None:
        from mobilenmt.export.npu.plan import StaticSettings, parse_buckets

        static = StaticSettings(calibration, parse_buckets(buckets))
    if card is not None and not card.is_file():
        raise CheckpointError(f"{card}: no such card file")
    chosen = {"form": form, "clipping": clipping, "percentile": percentile, "granularity": granularity}
    given = {key: value for key, value in chosen.items() if value is not None}
    settings = Quantization() if quantization is None else Quantization.load(quantization)
    settings = Quantization.from_dict(settings.to_dict() | given)
    _quiet_transformers()
    steps: list[str] = []
    pack = run_export(
        checkpoint,
        out,
        precision=precision,
        force=force,
        name=name,
        source_language=source_language,
        target_language=target_language,
        card=None if card is None else read_json(card),
        sentences=split,
        quantization=settings,
        static=static,
        report=_progress(steps),
    )
    per_parameter = pack.total_bytes / pack.manifest.model.parameters
    print(f"{out}: {pack.total_bytes:,} bytes, {per_parameter:.3f} a parameter; {steps[-1]}")
    return 0


def _export_with_optimum(checkpoint: Path, out: Path, precision: str, force: bool, check: Path | None) -> int:
    from mobilenmt.export.ecosystem.optimum_export import export_with_optimum

    lines: list[str] = []
    if check is not None:
        try:
            lines = [line for line in check.read_text(encoding="utf-8").split("\n") if line.strip()]
        except UnicodeError as error:
            raise InputError(f"{check}: not UTF-8: {error}") from None
        if not lines:
            raise InputError(f"{check}: there is nothing to translate")
    _quiet_transformers()
    steps: list[str] = []
    export_with_optimum(checkpoint, out, precision=precision, force=force, lines=lines, report=_progress(steps))
    total = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(_printable(f"{out}: {total:,} bytes; {steps[-1]}"))
    return 0


def restore(pack: str, out: Path) -> int:
    """Turn a pack back into a Hugging Face Marian checkpoint, which transformers opens and other tools convert.

    It computes what the pack does: what rounding to INT8 took is not in it. The export of it is the same pack.

    Args:
        pack: name or path of the pack, a folder or a zip
        out: folder to write, which must not be there yet
    """
    _need_export("restore")
    from mobilenmt.export.ecosystem.restore import restore as run_restore

    _quiet_transformers()
    steps: list[str] = []
    run_restore(pack, out, report=_progress(steps))
    print(_printable(f"{out}: {'; '.join(steps[1:])}"))
    return 0


def upgrade(pack: str) -> int:
    """Give an INT8 pack made by an earlier version its native.bin, so that the C core can run it.

    The pack changes in its place: native.bin and pack.json are written, everything else stays.

    Args:
        pack: name or path of the pack, a folder or a zip
    """
    _need_onnx("upgrade")
    from mobilenmt.export.native.upgrade import upgrade as run_upgrade

    run_upgrade(pack, report=lambda line: print(_printable(line)))
    return 0


def align(pack: str, text: list[Path] | None = None, lines: int = 1000, dry_run: bool = False) -> int:
    """Find the attention head of a pack that aligns words best, and let the pack name it.

    The decoder reads the target side of parallel text; where its heads look is compared with a statistical aligner
    (IBM model 2 as fast_align has it, both directions put together), which all of the text teaches. Error rates of all
    heads are printed, those of the mean of a layer's heads too, each for a token's own step and the one behind it.

    Args:
        pack: name or path of the pack
        text: files of parallel text, source, tab, target; some thousands of lines, dev text will do; may be repeated
        lines: compare the heads on so many lines, taken evenly from the first file
        dry_run: print, and leave the pack as it is
    """
    _need_onnx("align")
    from mobilenmt.export.alignment.heads import describe, measure_heads, read_texts
    from mobilenmt.export.native.upgrade import set_alignment
    from mobilenmt.runtime.pack import Pack

    if not text:
        raise InputError("give parallel text: --text FILE, source, tab, target")
    if lines < 1:
        raise InputError(f"lines must be at least 1, not {lines}")
    texts, count = read_texts(text, lines)
    found = measure_heads(Pack.open(pack), texts, count)
    for head in found.heads:
        print(describe(head))
    if not dry_run:
        set_alignment(pack, found.best, report=lambda line: print(_printable(line)))
    return 0


def check_npu(
    pack: str,
    bucket: int | None = None,
    compare: Path | None = None,
    lines: int = 500,
    json: bool = False,
) -> int:
    """Say how much of a pack's static graphs the NPUs of phones would take.

    ONNX Runtime's own mobile usability checker and our tables of operators, from the documentation of NNAPI, CoreML,
    QNN (HTP) and XNNPACK, look at every graph: nodes taken, in how many partitions, and what stays on the CPU and why.
    No NPU is needed, and none is asked.

    Args:
        pack: name or path of the pack
        bucket: look at the graphs for so many source tokens alone
        compare: translate this file's lines with the static graphs, on the CPU, and with the CPU's own; compare the
            words and the time, and with a reference behind a tab chrF too
        lines: take so many lines of it, evenly
        json: print a JSON object
    """
    _need_onnx("check-npu")
    if lines < 1:
        raise InputError(f"lines must be at least 1, not {lines}")
    from mobilenmt.export.npu.check import check_pack
    from mobilenmt.runtime.pack import Pack

    opened = Pack.open(pack)
    verdicts = list(check_pack(opened, buckets=None if bucket is None else (bucket,)))
    compared = None
    if compare is not None:
        from mobilenmt.export.npu.compare import compare_static

        compared = compare_static(opened, compare, lines)
    if json:
        found = {"graphs": [verdict.to_dict() for verdict in verdicts]}
        print(json_module.dumps(found | ({} if compared is None else {"compared": compared.to_dict()}), indent=2))
        return 0
    for line in [verdict.line() for verdict in verdicts] + ([] if compared is None else compared.lines()):
        print(_printable(line))
    return 0


def info(pack: str, json: bool = False) -> int:
    """Show what a pack is: languages, dimensions, bytes, licence, scores.

    Args:
        pack: name or path of the pack
        json: print a JSON object
    """
    from mobilenmt.runtime.pack import Pack

    opened = Pack.open(pack, verify=False)
    manifest = opened.manifest
    if json:
        total = opened.total_bytes
        sizes = {"total_bytes": total, "bytes_per_parameter": round(total / manifest.model.parameters, 4)}
        here = {"engine_here": dict(zip(("engine", "kernels", "reason"), _engine_here(opened), strict=True))}
        print(json_module.dumps({"path": str(opened.path), **here, **sizes, **manifest.to_dict()}, indent=2))
        return 0
    for label, value in _facts(opened, manifest):
        print(f"{label + ':':<16}{_printable(str(value))}")
    return 0


def verify(pack: str, bits: Path | None = None, lines: int | None = None) -> int:
    """Check every file of a pack against its SHA-256, and translate a sentence with it.

    With --bits the C core translates the file's lines by all kernels that run here, alone, together, on threads and as
    a stream; ids and scores must be the same bit for bit, and the digest is that of every other machine.

    Args:
        pack: name or path of the pack
        bits: file of source sentences, one a line, up to the first tab; empty ones do not count
        lines: with --bits, take so many of them, evenly; 500 if not given
    """
    if lines is not None and bits is None:
        raise InputError("--lines needs --bits: it says how many lines of that file are taken")
    lines = _BITS_LINES if lines is None else lines
    if lines < 1:
        raise InputError(f"--lines must be at least 1, not {lines}")
    from mobilenmt.runtime.translator import Translator

    translator = Translator(pack, verify=True)
    found = translator.translate_batch(["Hello!"])[0]
    files = len(translator.pack.manifest.files)
    print(_printable(f"{translator.pack.path}: ok, {files} files, 'Hello!' becomes {found.text!r}"))
    if bits is None:
        return 0
    from mobilenmt.bits import compare_bits

    try:
        texts = [line.partition("\t")[0] for line in bits.read_text(encoding="utf-8").split("\n")]
    except UnicodeError as error:
        raise InputError(f"{bits}: not UTF-8: {error}") from None
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise InputError(f"{bits}: there is nothing to translate")
    chosen = [texts[index * len(texts) // lines] for index in range(lines)] if lines < len(texts) else texts
    wrong = compare_bits(translator.pack, chosen, print)
    if wrong:
        raise EngineError(f"{wrong} of the ways differ: a fault of the C core, please report it")
    return 0


class CommandTable(Mapping[str, Callable[..., int]]):
    """Name -> function. What stands elsewhere is imported when it is asked for, not before.

    A stage of the chain is a command too, unless one of that name does more: export takes any checkpoint. The stages
    are looked up last, so that a translation loads nothing of the pipeline.
    """

    def __init__(self, here: Mapping[str, Callable[..., int]], pipeline: Sequence[str]) -> None:
        self._here = here
        self._pipeline = pipeline

    def __getitem__(self, name: str) -> Callable[..., int]:
        if name in self._here:
            return self._here[name]
        if name not in self._pipeline and name not in self._stages():
            raise KeyError(name)
        found: Callable[..., int] = getattr(importlib.import_module("mobilenmt.pipeline_commands"), name)
        return found

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys((*self._here, *self._pipeline[:1], *self._stages(), *self._pipeline))

    def __len__(self) -> int:
        return len(list(iter(self)))

    @staticmethod
    def _stages() -> Collection[str]:
        from mobilenmt.compression.chain.table import STAGES

        return STAGES


COMMANDS = CommandTable(
    {
        "translate": translate,
        "info": info,
        "verify": verify,
        "export": export,
        "restore": restore,
        "upgrade": upgrade,
        "align": align,
        "check-npu": check_npu,
    },
    ("compress", "teacher", "evaluate", "plan", "prune", "quantize", "report", "shortlist", "calibrate"),
)


def _json_line(source: str, found: Translation) -> str:
    line = json_module.dumps({"source": source, **found.to_dict()}, ensure_ascii=False, allow_nan=False)
    for character in "\x85\u2028\u2029":  # many readers of JSON lines end a line here as well
        line = line.replace(character, f"\\u{ord(character):04x}")
    return line


def _printable(text: str) -> str:
    """Text for a terminal of any encoding: a card of foreign origin sends it no escape sequences."""
    encoding = sys.stdout.encoding if sys.stdout is not None else "ascii"
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _engine_here(pack: Pack) -> tuple[str, str | None, str | None]:
    """What would run the pack on this machine: the engine's name, the core's kernels, and why it is not the core."""
    from mobilenmt.runtime.onnx.ort import SessionConfig
    from mobilenmt.runtime.opening import why_not_native

    try:
        reason = why_not_native(pack, SessionConfig(), try_it=True)
    except PackError as error:
        return "none", None, f"the pack is damaged: {error}"
    if reason is not None:
        return "onnx", None, reason
    from mobilenmt.runtime.native.library import load_library

    return "native", load_library().mn_kernels(0).decode(), None


def _facts(pack: Pack, manifest: PackManifest) -> list[tuple[str, Any]]:
    from mobilenmt.runtime.manifest import MANIFEST_NAME

    model, card = manifest.model, manifest.card
    version = ".".join(map(str, manifest.format_version))
    dimensions = (
        f"{model.architecture}, width {model.d_model}, "
        f"{model.encoder_layers} encoder and {model.decoder_layers} decoder layers, "
        f"FFN {model.encoder_ffn_dim} and {model.decoder_ffn_dim}, "
        f"vocabulary {model.source_vocab_size} and {model.target_vocab_size}, {model.max_positions} positions"
    )
    engine, kernels, reason = _engine_here(pack)
    name = {"native": f"the C core, kernels {kernels}", "onnx": "ONNX Runtime"}.get(engine, engine)
    facts: list[tuple[str, Any]] = [
        ("pack", f"{manifest.name} ({pack.path})"),
        ("languages", f"{manifest.source_language or 'unknown'} -> {manifest.target_language or 'unknown'}"),
        ("format", f"{version}, {manifest.precision}"),
        *_forms(manifest),
        ("model", dimensions),
        ("parameters", f"{model.parameters:,}"),
        ("engine here", name if reason is None else f"{name}: {reason}"),
    ]
    if manifest.variant is not None:
        facts += _static_facts(manifest.variant)
    sizes = {name: entry.bytes for name, entry in manifest.files.items()}
    sizes[MANIFEST_NAME] = pack.total_bytes - sum(sizes.values())
    facts += [(name, f"{size:>12,} bytes") for name, size in sizes.items()]
    facts.append(("total", f"{pack.total_bytes:>12,} bytes, {pack.total_bytes / model.parameters:.3f} a parameter"))
    for key in ("description", "licence"):
        if card.get(key):
            facts.append((key, card[key]))
    for item in _listed(card.get("training_data")):
        facts.append(("trained on", ", ".join(map(str, item.values())) if isinstance(item, dict) else item))
    scores = card.get("scores")
    for name, score in scores.items() if isinstance(scores, dict) else ():
        shown = ", ".join(f"{k} {v}" for k, v in score.items()) if isinstance(score, dict) else score
        facts.append(("score", f"{name}: {shown}"))
    facts += [("note", note) for note in _listed(card.get("notes"))]
    return facts


def _forms(manifest: PackManifest) -> list[tuple[str, str]]:
    """How matrices are stored, where it is not as in every pack of old; names of one form together."""
    found = manifest.quantization
    if found is None:
        return []
    by_form: dict[str, list[str]] = {}
    for name, form in found.matrices.items():
        by_form.setdefault(form, []).append(name)
    how = ", ".join(value for value in (found.clipping, f"a scale for each {found.granularity}", found.method))
    lines = [("matrices", f"{found.form} ({how})")]
    return lines + [("matrices", f"{form}: {', '.join(names)}") for form, names in by_form.items()]


def _need_export(name: str) -> None:
    try:
        import onnx  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"{name} needs more than the runtime ({error}): install the extra 'export' "
            "(in a checkout of mobilenmt, pip install '.[export]')"
        ) from None


def _progress(steps: list[str]) -> Callable[[str], None]:
    """What takes the lines of a command that takes a while, and keeps them in ``steps``."""

    def report(line: str) -> None:
        steps.append(line)
        if sys.stderr.isatty():  # for a person who waits; a script gets the result alone
            print(_printable(line), file=sys.stderr)

    return report


def _static_facts(variant: Variant) -> list[tuple[str, Any]]:
    from mobilenmt.runtime.onnx.static.providers import what_runs_where

    sizes = ", ".join(
        f"{source} source tokens and {target} steps"
        for source, target in zip(variant.source, variant.target, strict=True)
    )
    bits = ", ".join(f"{count} in {name} bits" for name, count in sorted(variant.bits.items(), key=lambda b: int(b[0])))
    facts = [("static graphs", f"for {sizes}; forms {', '.join(variant.forms)}; activations of products: {bits}")]
    return facts + [("on an NPU", line) for line in what_runs_where(variant)]


def _need_onnx(name: str) -> None:
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ExportError(f"{name} reads the graphs of a pack ({error}): install the package 'onnx'") from None


def _listed(value: object) -> list[Any]:
    """A card is free in form: a list is one, nothing is an empty one, anything else its only item."""
    return value if isinstance(value, list) else [value] if value else []


def _quiet_transformers() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
