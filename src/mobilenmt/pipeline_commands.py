"""The commands of the pipeline; :mod:`mobilenmt.commands` lists them, and imports this module when one is asked for."""

from __future__ import annotations

import json as json_module
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Optional

from mobilenmt.compression.chain.table import STAGES, find_stage
from mobilenmt.compression.core.context import EVERY_STAGE_NEEDS
from mobilenmt.pipeline_needs import need as _need
from mobilenmt.pipeline_plan import plan
from mobilenmt.pipeline_quantize import quantize
from mobilenmt.runtime.errors import InputError

__all__ = ["plan", "quantize"]  # commands that stand elsewhere

if TYPE_CHECKING:
    from mobilenmt.compression.chain.chain import Chain

_STAGE_HELP = """{help}

Args:
    recipe: TOML file that describes the chain
    work: folder for all results; by default work/NAME, with the recipe's name
    set: replace a setting of the recipe, as in {name}.{example}; may be repeated
    force: begin the stage again
"""


def compress(
    recipe: Path,
    work: Path | None = None,
    set: list[str] | None = None,  # the name of the option
    until: str | None = None,
    size: list[str] | None = None,
    dry_run: bool = False,
    force: bool = False,
) -> int:
    """Make a pack from text: run every stage of a recipe that is not done yet, and write a report.

    Each stage has a folder of its own; --dry-run lists those of a recipe. Killed at any moment, the same command goes
    on where it was.

    Args:
        recipe: TOML file that describes the chain
        work: folder for all results; by default work/NAME, with the recipe's name
        set: replace a setting of the recipe, as in distill.steps=1000; may be repeated
        until: end behind this stage
        size: plan the student for a pack of this size, as in 10MB; may be repeated: several packs of one teacher. What
            follows the teacher lies in WORK/SIZE then
        dry_run: check everything that can be checked, print the plan and its sizes, and do nothing
        force: make stages again whose settings or inputs changed since they were made; without it that is an error
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError(
            "accelerate launch is for mobilenmt distill and mobilenmt teacher --train, not for the whole chain"
        )
    chain = _chain("compress", recipe, work, set)
    if size:
        from mobilenmt.compression.chain.sizes import chains_of_sizes, compress_all, plan_all

        chains = chains_of_sizes(recipe, chain.work, size, set or ())
        if dry_run:
            print(plan_all(chains, until=until))
        else:
            print(*compress_all(chains, until=until, force=force), sep="\n")
        return 0
    from mobilenmt.compression.chain.compress import compress as run
    from mobilenmt.compression.chain.compress import plan

    if dry_run:
        print(plan(chain, until=until).text(chain))
        return 0
    run(chain, until=until, force=force)
    print(chain.work / "report.html", chain.work / "report.md", sep="\n")
    return 0


# The stages are a table, which a type hint in the source cannot name; the command line offers them as choices.
compress.__annotations__["until"] = Optional[Literal[tuple(STAGES)]]  # noqa: UP045


def teacher(
    recipe: Path,
    work: Path | None = None,
    set: list[str] | None = None,
    engine: Literal["local", "ray"] | None = None,
    address: str | None = None,
    train: bool = False,
    force: bool = False,
) -> int:
    """Translate the corpus with the teacher of a recipe, for the student to learn from.

    Args:
        recipe: TOML file that describes the chain
        work: folder for all results; by default work/NAME, with the recipe's name
        set: replace a setting of the recipe, as in teacher.beam_size=4; may be repeated
        engine: local for this process, ray for the workers of a Ray cluster; the text is the same
        address: Ray cluster to join, host:port or auto; by default one is started on this machine
        train: train the teacher itself, as [teacher_model] says, and do not translate yet
        force: begin the stage again
    """
    told = [
        *(set or ()),
        *(f"teacher.{key}={value}" for key, value in (("engine", engine), ("address", address)) if value),
    ]
    return _stage("teacher_model" if train else "teacher", recipe, work, told, force)


def shortlist(
    checkpoint: Path, text: list[Path] | None = None, sentences: int = 50_000, common: int = 500, per_token: int = 16
) -> int:
    """Learn which target tokens may translate which source tokens, so that a pack's output layer need not try them all.

    The checkpoint translates the text; what it says goes into shortlist.npz beside its weights, where mobilenmt export
    finds it. Packs with a shortlist are faster and say nearly always the same words.

    Args:
        checkpoint: folder with a Hugging Face Marian model
        text: files of source sentences, one a line, up to the first tab (plain, gz, xz or zst); may be repeated
        sentences: translate this many of them, taken evenly; tens of thousands are needed
        common: most frequent target tokens, candidates for every sentence
        per_token: candidates for each source token
    """
    _need("shortlist", "torch", "transformers", "onnx", "tqdm", "zstandard")
    _quiet()
    from mobilenmt.compression.pack.shortlist import ShortlistSettings, make_shortlist, read_texts, sample_lines
    from mobilenmt.export.shortlist import FILE_NAME

    if not text:
        raise InputError("give source sentences of the kind the model is for: --text FILE")
    if sentences < 1:
        raise InputError(f"sentences must be at least 1, not {sentences}")
    settings = ShortlistSettings(common=common, per_token=per_token)
    lines = sample_lines(read_texts(text), sentences)
    found, coverage = make_shortlist(checkpoint, lines, settings=settings, progress=True)
    found.save(checkpoint / FILE_NAME)
    print(
        f"{checkpoint / FILE_NAME}: {coverage.candidates:.0f} candidates a sentence, "
        f"{coverage.tokens:.2%} of the tokens and {coverage.sentences:.1%} of the sentences of other text covered"
    )
    return 0


def prune(
    checkpoint: Path,
    out: Path,
    to: str = "",
    text: list[Path] | None = None,
    importance: Literal["magnitude", "activation", "gradient", "taylor", "trajectory", "random"] = "gradient",
    depth: Literal["loss", "magnitude", "activation", "gradient", "taylor", "trajectory", "random"] = "loss",
    reconstruct: Literal["least_squares", "norms", "none"] = "least_squares",
    sentences: int = 1000,
    vocabulary: Path | None = None,
    drop_unused: bool = False,
    force: bool = False,
) -> int:
    """Prune a checkpoint to a smaller one: layers, heads, neurons, channels, pieces. No training; that comes after.

    What comes out is a checkpoint like the one that went in, with a report (prune.md) beside its weights. Give it to
    distill.initial of a recipe to train it; in a recipe [prune] does all that.

    Args:
        checkpoint: folder with a Hugging Face Marian model
        out: folder for the pruned one
        to: what is to be left: a shape, as in d_model=192,encoder_layers=4 (what is not named stays), or the size of
            its INT8 pack, as in 10MB
        text: parallel text to measure importance on, source, tab, target (plain, gz, xz or zst); may be repeated
        importance: what says how much a channel, a head or a neuron matters
        depth: the same for layers
        reconstruct: fit what is left to what the whole model does on the text
        sentences: pairs of the text to use
        vocabulary: move the model to the tokenizer of this folder
        drop_unused: drop the pieces that the text does not use
        force: replace the folder OUT if it is there
    """
    _need("prune", "torch", "transformers", "matplotlib", "tqdm", "xopen")
    _quiet()
    from mobilenmt.compression.prune.command import prune as run

    if not to:
        raise InputError("say what is to be left: --to d_model=192,encoder_layers=4, or --to 10MB")
    if not text:
        raise InputError("give parallel text to measure importance on: --text FILE, source, tab, target")
    print(
        run(
            checkpoint,
            out,
            to,
            text,
            {"importance": importance, "depth": depth, "reconstruct": reconstruct, "sentences": sentences},
            vocabulary=vocabulary,
            drop_unused=drop_unused,
            force=force,
        )
    )
    return 0


def report(runs: list[Path], output: Path | None = None, markdown: Path | None = None) -> int:
    """Report on runs of mobilenmt compress, finished or not, side by side, as one HTML page.

    What each stage did and cost, learning curves, what was pruned, size, quality, time and memory of every model and
    which of them nothing else beats, what each step cost in quality, and examples. The page needs nothing else.

    Args:
        runs: work folders, as many as you like
        output: the page; by default report.html, of one run in its work folder, of several in this folder
        markdown: also write the report as Markdown, without pictures
    """
    _need("report", "jinja2")
    from mobilenmt.compression.report.report import HTML
    from mobilenmt.compression.report.report import report as run

    if not runs:
        raise InputError("name at least one work folder of mobilenmt compress")
    page = output or (runs[0] / HTML if len(runs) == 1 else Path(HTML))
    run(runs, page, markdown)
    print(*(path for path in (page, markdown) if path is not None), sep="\n")
    return 0


def calibrate(pack: str, test: list[Path] | None = None, threads: int = 1, dry_run: bool = False) -> int:
    """Fit the confidence of a pack on dev text, show what it finds, and write it into the pack.

    Sentences are translated greedily; an output is bad below a sentence chrF of 30. Precision and recall of finding bad
    outputs are those on sentences that were held out.

    Args:
        pack: name or path of the pack, a folder or a zip
        test: dev text, source, tab, reference; some thousands of lines of the kinds it is for; may be repeated
        threads: sentences translated at once, 0 for one a core
        dry_run: print, and leave the pack as it is
    """
    _need("calibrate", "sacrebleu", "onnx")
    from dataclasses import replace

    from mobilenmt.compression.evaluate.calibrate import calibrate as run
    from mobilenmt.export.alignment.heads import read_texts
    from mobilenmt.export.native.upgrade import rewrite
    from mobilenmt.runtime.onnx.ort import SessionConfig
    from mobilenmt.runtime.opening import open_engine
    from mobilenmt.runtime.pack import Pack

    if not test:
        raise InputError("give dev text: --test FILE, source, tab, reference")
    opened = Pack.open(pack)
    _, engine, tokenizer = open_engine(opened, "auto", SessionConfig(threads))
    found = run(engine, tokenizer, read_texts(test, 0)[0])
    print(
        f"{found.sentences} sentences, {found.bad} with a chrF below {found.parameters.chrf:g}; "
        f"expected calibration error {found.expected_error:.3f}"
    )
    for row in found.thresholds:
        print(
            f"confidence below {row.threshold:.2f}: {row.flagged:5} outputs, precision {row.precision:.2f}, "
            f"recall {row.recall:.2f}"
        )
    if not dry_run:
        rewrite(pack, opened, replace(opened.manifest, confidence=found.parameters), {}, report=print)
    return 0


def evaluate(
    model: str,
    test: list[Path] | None = None,
    lines: int | None = None,
    beam: int | None = None,
    peer: list[str] | None = None,
    reverse: bool = False,
    source_language: str | None = None,
    target_language: str | None = None,
    threads: int = 1,
    out: Path | None = None,
    json: bool = False,
) -> int:
    """Score a pack or a checkpoint on test sets: BLEU and chrF by sacrebleu, speed, size and memory.

    A peer's output file belongs to the test set of as many lines; if there are several, to the one whose name its own
    begins with.

    Args:
        model: name or path of a pack, or a checkpoint folder
        test: test sets, TSV files: source, tab, reference; several, or the option several times
        lines: take this many lines of each test set, the first ones
        beam: hypotheses kept by beam search, 1 for greedy; by default what the pack says
        peer: another system's output to score along, one line a sentence; may be repeated
        reverse: the test sets have the reference first
        source_language: code, for a checkpoint that translates between many languages; by default the pack's
        target_language: likewise; also chooses how sacrebleu parts words in Chinese, Japanese and Korean
        threads: sentences translated at once, 0 for one a core
        out: also write scores.json, scores.md, scores.png and all translations into this folder
        json: print a JSON object instead of tables
    """
    _need("evaluate", "sacrebleu", "tqdm", *(("matplotlib",) if out else ()))
    from mobilenmt.compression.evaluate.evaluate import EvaluateSettings, find_model
    from mobilenmt.compression.evaluate.evaluate import evaluate as run

    if not test:
        raise InputError("give test sets: --test FILE.tsv")
    peers: dict[str, tuple[Path, ...]] = {}
    for item in peer or ():
        name, equals, file = item.partition("=")
        if not (name and equals and file):
            raise InputError(f"--peer {item}: expected NAME=FILE")
        peers[name] = (*peers.get(name, ()), Path(file))
    settings = EvaluateSettings(test=tuple(test), reverse=reverse, lines=lines, beam=beam, threads=threads, peers=peers)
    if find_model(model).needs_torch:
        _need("evaluate", "torch", "transformers", "onnx")
        _quiet()
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # before, not after, an hour of translating
    found = run({_label(model): model}, settings, source_language=source_language, target_language=target_language)
    if out is not None:
        found.write(out)
    print(json_module.dumps(found.to_dict(), indent=1) if json else found.table(), end="\n" if json else "")
    return 0


def _stage(name: str, recipe: Path, work: Path | None, overrides: list[str] | None, force: bool) -> int:
    chain = _chain(name, recipe, work, overrides)
    result = chain.run(name, force=force)
    if os.environ.get("RANK", "0") == "0":  # accelerate launch: the first process speaks for all
        print(chain.told(result))
    return 0


def _chain(command: str, recipe: Path, work: Path | None, overrides: list[str] | None) -> Chain:
    stages = STAGES if command == "compress" else (command,)
    reports = ("jinja2",) if command == "compress" else ()
    needs = dict.fromkeys(module for name in stages for module in find_stage(name).needs)
    _need(command, *EVERY_STAGE_NEEDS, *needs, *reports)
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    _quiet()
    from mobilenmt.compression.chain.chain import Chain
    from mobilenmt.compression.chain.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    return Chain(loaded, work or Path("work") / loaded.name)


def _label(model: str) -> str:
    path = Path(model)
    return path.resolve().name if path.exists() else model


def _quiet() -> None:
    """Keep libraries from talking: what goes wrong is said by us, in one line."""
    import logging
    import warnings

    if os.environ.get("MOBILENMT_DEBUG") != "1":
        warnings.simplefilter("ignore")
        logging.getLogger("torch").setLevel(logging.ERROR)
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("RAY_DEDUP_LOGS", "1")


def __getattr__(name: str) -> Callable[..., int]:
    """The command of a stage that has none of its own here: made from what the stage says of itself (PEP 562)."""
    if name not in STAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    stage = find_stage(name)

    def command(recipe: Path, work: Path | None = None, set: list[str] | None = None, force: bool = False) -> int:
        return _stage(name, recipe, work, set, force)

    command.__name__ = name
    command.__doc__ = _STAGE_HELP.format(help=stage.help, name=name, example=stage.example)
    return command
