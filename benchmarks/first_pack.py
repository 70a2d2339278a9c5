"""Figures of a pack: parity with torch, INT8 against fp32, batches, cold start, memory, single words, size, latency.

    python benchmarks/first_pack.py parity --checkpoint DIR --test FILE.tsv
    python benchmarks/first_pack.py int8 --checkpoint DIR --test FILE.tsv FILE.tsv [--lines 1000]
    python benchmarks/first_pack.py batch | cold | memory | words | size | latency [--pack en-de]
    qemu-x86_64 -cpu Haswell python benchmarks/first_pack.py outputs --test FILE.tsv --lines 50 > haswell.json
    python benchmarks/first_pack.py compare --test FILE.tsv --lines 50 --files here.json haswell.json

Test files are TSV: source, tab, reference. Each subcommand prints one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

if importlib.util.find_spec("mobilenmt") is None:  # run from a checkout, or on an emulated processor
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

Figures = dict[str, Any]


def read_pairs(files: list[Path], lines: int) -> Iterator[tuple[str, list[str], list[str]]]:
    """Name, sources and references of each test file, its first ``lines`` lines."""
    for file in files:
        rows = [line.split("\t") for line in file.read_text(encoding="utf-8").split("\n") if line][:lines]
        yield file.stem, [row[0] for row in rows], [row[1] for row in rows]


def export_pack(checkpoint: Path, folder: Path, precision: str) -> Path:
    """Export into ``folder``, once."""
    from mobilenmt.export.export import export

    out = folder / precision
    return out if out.exists() else export(checkpoint, out, precision=precision, name="en-de").path


def parity(options: argparse.Namespace) -> Figures:
    """fp32 pack against ``MarianMTModel.generate``: lines with the same ids, greedy and beam 4."""
    import torch
    from transformers import MarianMTModel

    from mobilenmt.runtime.engine import Engine
    from mobilenmt.runtime.pack import Pack
    from mobilenmt.runtime.tokenizer import Tokenizer

    model = MarianMTModel.from_pretrained(options.checkpoint).eval()
    sources = [line for _, lines, _ in read_pairs(options.test, 200 // len(options.test)) for line in lines]
    figures: Figures = {"lines": len(sources)}
    with tempfile.TemporaryDirectory() as folder:
        pack = Pack.open(export_pack(options.checkpoint, Path(folder), "fp32"))
        manifest = pack.manifest
        tokenizer = Tokenizer(pack.file("tokenizer.json"), manifest.tokens, manifest.model.source_vocab_size)
        engine = Engine(pack)
        limit = 128
        for beams in (1, 4):
            ids = [tokenizer.encode(source) for source in sources]
            found = engine.generate(ids, max_lengths=[limit] * len(ids), beam_size=beams)
            different = []
            for index, (source, (ours,)) in enumerate(zip(ids, found, strict=True)):
                theirs = model.generate(
                    torch.tensor([[*source, manifest.tokens.eos]]), num_beams=beams, do_sample=False, max_length=limit
                )[0].tolist()[1:]
                theirs = theirs[: theirs.index(manifest.tokens.eos)]
                if list(ours.ids) != theirs:
                    different.append(index)
            figures[f"beam {beams}: same"] = len(ids) - len(different)
            figures[f"beam {beams}: different lines"] = different
    return figures


def int8(options: argparse.Namespace) -> Figures:
    """BLEU and chrF of the INT8 and the fp32 pack, greedy, by test file and in the mean."""
    import sacrebleu

    from mobilenmt import Translator

    figures: Figures = {}
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        packs = {name: Translator(export_pack(options.checkpoint, Path(folder), name)) for name in ("fp32", "int8")}
        for name, sources, references in read_pairs(options.test, options.lines):
            scores = {}
            for precision, translator in packs.items():
                texts = [item.text for item in translator.translate_batch(sources)]
                scores[precision] = (
                    sacrebleu.corpus_bleu(texts, [references]).score,
                    sacrebleu.corpus_chrf(texts, [references]).score,
                )
            loss = [fp32 - quantized for fp32, quantized in zip(scores["fp32"], scores["int8"], strict=True)]
            losses.append(loss)
            figures[name] = {"lines": len(sources), **scores, "lost BLEU, chrF": loss}
    figures["mean lost BLEU, chrF"] = [statistics.mean(column) for column in zip(*losses, strict=True)]
    return figures


def batch(options: argparse.Namespace) -> Figures:
    """INT8, 32 sentences at once against one at a time: lines with the same words, BLEU of both."""
    import sacrebleu

    from mobilenmt import Translator

    translator = Translator(options.pack)
    figures: Figures = {}
    same = total = 0
    for name, sources, references in read_pairs(options.test, options.lines):
        alone = [translator.translate(source) for source in sources]
        together = [
            item.text
            for start in range(0, len(sources), 32)
            for item in translator.translate_batch(sources[start : start + 32])
        ]
        equal = sum(a == b for a, b in zip(alone, together, strict=True))
        bleu = [sacrebleu.corpus_bleu(texts, [references]).score for texts in (alone, together)]
        figures[name] = {"same": equal, "lines": len(sources), "BLEU alone, together": bleu}
        same, total = same + equal, total + len(sources)
    return {**figures, "same": same / total}


def cold(options: argparse.Namespace) -> Figures:
    """Seconds from the start of a process to its first line of output, to its end, and those of the libraries alone."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    commands = {
        "translate": [sys.executable, "-m", "mobilenmt", "translate", "--pack", options.pack, "Where is the station?"],
        "import onnxruntime alone": [sys.executable, "-c", "import onnxruntime"],
        "import mobilenmt": [sys.executable, "-c", "import mobilenmt"],
        "python alone": [sys.executable, "-c", "pass"],
    }
    samples: dict[str, list[float]] = {name: [] for name in (*commands, "translate, process ended")}
    for turn in range(options.repeat + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
                assert child.stdout is not None
                child.stdout.readline()
                first = time.perf_counter() - start
            if turn:  # the first writes bytecode
                samples[name].append(first)
                if name == "translate":
                    samples["translate, process ended"].append(time.perf_counter() - start)
    return {name: {"median": statistics.median(found), "best": min(found)} for name, found in samples.items()}


def memory(options: argparse.Namespace) -> Figures:
    """MB (10^6) added while translating: anonymous memory and resident pages of the pack's own files.

    Added to a process that has the libraries loaded and a trivial session open. Read from outside, so that the
    measurement does not count itself.
    """
    from mobilenmt.runtime.pack import Pack

    folder = str(Pack.open(options.pack).path.resolve())
    script = [sys.executable, __file__, "memory-child", "--pack", options.pack]
    with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()
        before = smaps(child.pid, folder)
        child.stdin.write("translate\n")
        child.stdin.flush()
        samples = []
        while not select.select([child.stdout], [], [], 0)[0]:
            samples.append(smaps(child.pid, folder))
            time.sleep(0.005)
        after = smaps(child.pid, folder)
        child.stdin.close()
    added = [(now[0] - before[0] + now[1] - before[1]) / 1e6 for now in (*samples, after)]
    return {
        "steady MB": added[-1],
        "peak MB": max(added),
        "steady, anonymous": (after[0] - before[0]) / 1e6,
        "steady, pages of the pack": (after[1] - before[1]) / 1e6,
        "RSS before, after, peak MB": [before[2] / 1e6, after[2] / 1e6, max(now[2] for now in samples) / 1e6],
        "samples": len(samples),
    }


def memory_child(options: argparse.Namespace) -> None:
    """The measured process of ``memory``: libraries and a trivial session first, then a translator at work."""
    import numpy as np
    import onnxruntime
    import tokenizers  # noqa: F401

    from mobilenmt.runtime.translator import Translator

    trivial = onnxruntime.InferenceSession(_trivial_model(), providers=["CPUExecutionProvider"])
    trivial.run(None, {"x": np.zeros(1, np.float32)})
    print("idle", flush=True)
    sys.stdin.readline()
    translator = Translator(options.pack)
    start = time.perf_counter()
    while time.perf_counter() - start < 5:
        for sentence in SENTENCES:
            translator.translate(sentence)
    print("done", flush=True)
    sys.stdin.readline()
    sys.exit(0)


def smaps(process: int, folder: str) -> tuple[int, int, int]:
    """Bytes of anonymous memory, of resident pages of files below ``folder``, and of all that is resident."""
    anonymous = own = rss = 0
    inside = False
    for line in Path(f"/proc/{process}/smaps").read_text().split("\n"):
        head, _, tail = line.partition(" ")
        if head and not head.endswith(":"):
            inside = folder in line
        elif head == "Rss:":
            size = int(tail.split()[0]) * 1024
            rss += size
            own += size if inside else 0
        elif head == "Anonymous:":
            size = int(tail.split()[0]) * 1024
            anonymous += size
            own -= size if inside else 0
    return anonymous, own, rss


def _trivial_model() -> bytes:
    """Identity of one float, as the bytes of an ONNX model (written out, since the runtime has no onnx package)."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    info = [
        field(n, field(1, c) + field(2, field(1, b"\x08\x01\x12\x04\x0a\x02\x08\x01")))
        for n, c in ((11, b"x"), (12, b"y"))
    ]
    node = field(1, field(1, b"x") + field(2, b"y") + field(4, b"Identity"))
    graph = field(7, node + field(2, b"g") + info[0] + info[1])
    return b"\x08\x0a" + graph + field(8, b"\x10\x15")


def words(options: argparse.Namespace) -> Figures:
    """200 single words, 50 of them made up: how many loop, how many give more than five times the source's length."""
    from mobilenmt import Translator
    from mobilenmt.runtime.guard import is_degenerate

    translator = Translator(options.pack)
    chosen = (Path(__file__).parent / "words.txt").read_text(encoding="utf-8").split()
    found = translator.translate_batch(chosen)
    longest = sorted(((len(item.text) / len(word), word, item.text) for word, item in zip(chosen, found, strict=True)))
    loops = [
        word for word, item in zip(chosen, found, strict=True) if is_degenerate([], [hash(t) for t in item.tokens])
    ]
    flagged = {w: [item.text, *item.flags] for w, item in zip(chosen, found, strict=True) if item.flags}
    return {
        "words": len(chosen),
        "loop": loops,
        "more than 5 times the source": [item for item in longest if item[0] > 5],
        "longest": longest[-5:],
        "flagged": flagged,
    }


def size(options: argparse.Namespace) -> Figures:
    """Bytes of the pack and of our wheel, installed, without packs."""
    from mobilenmt.runtime.pack import Pack

    pack = Pack.open(options.pack)
    root = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, str(root)]
        subprocess.run(pip, check=True, capture_output=True)
        files = [path for path in Path(folder).rglob("*") if path.is_file() and "models" not in path.parts]
        code = sum(path.stat().st_size for path in files if "__pycache__" not in path.parts)
        cached = sum(path.stat().st_size for path in files)
    parameters = pack.manifest.model.parameters
    return {
        "pack bytes": pack.total_bytes,
        "bytes a parameter": pack.total_bytes / parameters,
        "installed wheel without packs": code,
        "with bytecode": cached,
    }


def outputs(options: argparse.Namespace) -> Figures:
    """Greedy translations with their scores, to be compared between processors (see ``compare``)."""
    import platform

    from mobilenmt import Translator

    translator = Translator(options.pack)
    sources = [line for _, lines, _ in read_pairs(options.test, options.lines) for line in lines]
    found = [translator.translate_batch([source])[0] for source in sources]
    texts = [item.text for item in found]
    return {"machine": platform.machine(), "texts": texts, "scores": [item.score for item in found]}


def compare(options: argparse.Namespace) -> Figures:
    """Outputs of several processors (files that ``outputs`` wrote): the first against each other one."""
    import sacrebleu

    references = [line for _, _, lines in read_pairs(options.test, options.lines) for line in lines]
    runs = {str(file): json.loads(file.read_text(encoding="utf-8")) for file in options.files}
    first = next(iter(runs.values()))
    return {
        name: {
            "lines": len(run["texts"]),
            "same words as the first": sum(a == b for a, b in zip(run["texts"], first["texts"], strict=True)),
            "largest distance of scores": max(abs(a - b) for a, b in zip(run["scores"], first["scores"], strict=True)),
            "BLEU": sacrebleu.corpus_bleu(run["texts"], [references]).score,
            "chrF": sacrebleu.corpus_chrf(run["texts"], [references]).score,
        }
        for name, run in runs.items()
    }


def latency(options: argparse.Namespace) -> Figures:
    """Milliseconds a sentence at batch 1 and one thread, greedy, for 30 source and 30 target tokens."""
    from mobilenmt.runtime.engine import Engine
    from mobilenmt.runtime.ort import SessionConfig
    from mobilenmt.runtime.pack import Pack

    engine = Engine(Pack.open(options.pack), SessionConfig(threads=1))
    source = list(range(100, 129))  # 29 and the end token
    samples: dict[int, list[float]] = {1: [], 4: []}
    for turn in range(options.repeat + 3):
        for beams, found in samples.items():
            start = time.perf_counter()
            engine.generate([source], max_lengths=[31], min_length=31, beam_size=beams)
            if turn >= 3:
                found.append((time.perf_counter() - start) * 1000)
    return {f"beam {beams} median ms": statistics.median(found) for beams, found in samples.items()}


SENTENCES = (
    "Where is the train station?",
    "I would like a cup of coffee and a piece of cake, please.",
    "A man in a blue shirt is standing on a ladder cleaning a window.",
    "Can you tell me how much the ticket to Berlin costs and when the next train leaves?",
    "Yes.",
    "The weather was so bad yesterday that we stayed at home all day and played cards with our neighbours.",
)
COMMANDS = {
    "parity": parity,
    "int8": int8,
    "batch": batch,
    "cold": cold,
    "memory": memory,
    "memory-child": memory_child,
    "words": words,
    "size": size,
    "latency": latency,
    "outputs": outputs,
    "compare": compare,
}


def main() -> None:
    """Run one subcommand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--pack", default="en-de", help="name or path of a pack")
    parser.add_argument("--checkpoint", type=Path, help="Marian checkpoint folder")
    parser.add_argument("--test", type=Path, nargs="*", default=[], help="TSV files: source, tab, reference")
    parser.add_argument("--lines", type=int, default=1000, help="lines of each test file")
    parser.add_argument("--repeat", type=int, default=15, help="measured turns")
    parser.add_argument("--files", type=Path, nargs="*", default=[], help="JSON files to compare")
    options = parser.parse_args()
    figures = COMMANDS[options.command](options)
    print(json.dumps(figures, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
