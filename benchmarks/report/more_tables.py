"""Markdown tables of memory, bytes, cold start, operators, the floor, words and quality."""

from __future__ import annotations

from typing import Any

from benchmarks.report.stats import growth, ratio, summarize
from benchmarks.report.tables import Row, label, milliseconds, pick, table, times, values


def grows(part: Row) -> str:
    """How the latency part's times grow with the length, greedy and at one thread."""
    rows = []
    for engine in values(part["rows"], "engine"):
        chosen = [row for row in part["rows"] if (row["engine"], row["threads"], row["beam"]) == (engine, 1, 1)]
        lengths = [row["length"] for row in chosen]
        if len(set(lengths)) < 3:
            continue
        fit = growth(lengths, [summarize(row["seconds"]).median for row in chosen])
        short, long = pick(chosen, length=25), pick(chosen, length=100)
        quotient = times(ratio(long["seconds"], short["seconds"])) if short and long else ""
        cells = [milliseconds(fit.fixed), milliseconds(fit.linear), f"{fit.quadratic * 1e6:.2f}"]
        rows.append([label(engine), *cells, f"{fit.exponent:.2f}", quotient])
    header = ["engine", "fixed, ms", "a token, ms", "a token squared, us", "exponent", "100 against 25 tokens"]
    return f"\nGreedy, one thread; least squares over all lengths.\n\n{table(header, rows)}" if rows else ""


def memory(part: Row) -> str:
    """Megabytes (10^6 bytes) added to the idle process."""
    found = [(label(row["engine"]), row) for row in part["rows"]]
    if part.get("bpe"):
        found.insert(1, ("mobilenmt INT8, BPE tokenizer of the same size", part["bpe"]))
    header = ["engine", "steady", "peak", "peak at work", "private, steady", "model's pages, steady", "RSS added, peak"]
    cells = [
        [
            name,
            *(
                f"{value / 1e6:,.1f}"
                for value in (
                    row["steady"],
                    row["peak"],
                    row["peak working"],
                    row["steady parts"]["anonymous"],
                    row["steady parts"]["own"],
                    row["peak RSS"],
                )
            ),
        ]
        for name, row in found
    ]
    return (
        "\nMB added to an idle process with the libraries loaded and a trivial session open: anonymous memory "
        "(private) plus resident pages of the model's own files (mapped, shared by processes).\n"
        f"\n{table(header, cells)}"
    )


def cold(part: Row) -> str:
    """Seconds to the first line of a fresh process."""
    rows = []
    for row in part["rows"]:
        found = summarize(row["seconds"])
        rows.append([label(row["engine"]), *(f"{value:.3f}" for value in (found.median, found.p95, found.best))])
    head = f'\nSeconds from process start to the translation of "{part["text"]}", one thread.\n'
    return f"{head}\n{table(['process', 'median', '95th percentile', 'best'], rows)}"


def size(part: Row) -> str:
    """Megabytes of packages and models."""
    keys = ("download bytes", "installed bytes", "model bytes")
    rows = [[label(row["engine"]), *(f"{row[key] / 1e6:,.1f}" for key in keys)] for row in part["rows"]]
    header = ["engine", "packages to download, MB", "installed, MB", "model, MB"]
    return f"\nWhat a user installs, tokenizer and dependencies counted.\n\n{table(header, rows)}"


def endtoend(part: Row) -> str:
    """Milliseconds a sentence, text in and text out."""
    ours = pick(part["rows"], engine="ours-int8")
    rows = []
    for row in part["rows"]:
        found = summarize(row["seconds"])
        compared = times(ratio(row["seconds"], ours["seconds"])) if ours and row is not ours else ""
        rows.append([label(row["engine"]), milliseconds(found.median), milliseconds(found.p95), compared])
    head = f"\n{part['sentences']} sentences, one at a time, greedy, one thread; the model ends the output.\n"
    return f"{head}\n{table(['engine', 'median, ms', '95th percentile, ms', 'times slower than ours'], rows)}"


def breakdown(part: Row) -> str:
    """Microseconds by operator of the encoder and of a step."""
    text = "\nThe profiler adds time to every node, so that shares are more trustworthy than sums.\n"
    names = {"encoder": "encoder and frame, once a sentence", "loop": "loop, once a sentence", "step": "one step"}
    for beam in values(part["rows"], "beam"):
        for phase, title in names.items():
            chosen = [row for row in part["rows"] if (row["beam"], row["phase"]) == (beam, phase)]
            total = sum(row["microseconds"] for row in chosen)
            share = sum(row["share"] for row in chosen)
            rows = [
                [row["operator"], f"{row['nodes']:.3g}", f"{row['microseconds']:.1f}", f"{100 * row['share']:.1f} %"]
                for row in chosen
                if row["share"] >= 0.002
            ]
            rows.append(["all", f"{sum(row['nodes'] for row in chosen):.3g}", f"{total:.1f}", f"{100 * share:.1f} %"])
            header = [f"beam {beam}: {title}", "nodes", "microseconds", "share of the sentence"]
            text += f"\n{table(header, rows)}" if chosen else ""
    return text


def roofline(part: Row) -> str:
    """Bytes a token, and what the machine's bandwidth makes of them."""
    speeds = ", ".join(
        f"{int(size) / (1 << 20):.0f} MiB: {speed / 1e9:.1f} GB/s" for size, speed in part["bytes a second"].items()
    )
    rows = [
        [
            label(row["engine"]),
            f"{row['weight bytes a token'] / 1e6:.2f}",
            f"{row['floor seconds a token'] * 1e6:,.0f}",
            f"{row['floor seconds a token'] * 30e3:,.1f}",
        ]
        for row in part["rows"]
    ]
    header = ["engine", "weights read a token, MB", "floor a token, us", "floor of 30 tokens' steps, ms"]
    return f"\nOne thread reads, by size of the data, {speeds}.\n\n{table(header, rows)}"


def agreement(part: Row) -> str:
    """Which engines choose the same words."""
    rows = [
        [
            label(row["second"]),
            label(row["first"]),
            f"{row['same']} of {row['of']}",
            f"{100 * row['tokens before they part']:.1f} %",
        ]
        for row in part["rows"]
    ]
    header = ["engine", "against", "sentences with the same words", "tokens before the first difference"]
    return f"\nGreedy, one sentence at a time, the same ids in.\n\n{table(header, rows)}"


def quality(part: Row) -> str:
    """BLEU and chrF by file and in the mean."""
    found: list[dict[str, Any]] = part["rows"]
    files = values(found, "file")
    rows = []
    for mean in part["means"]:
        cells = [pick(found, engine=mean["engine"], beam=mean["beam"], file=file) for file in files]
        shown = [f"{cell['BLEU']:.2f} / {cell['chrF']:.2f}" if cell else "" for cell in cells]
        rows.append([label(mean["engine"]), mean["beam"], f"{mean['BLEU']:.2f} / {mean['chrF']:.2f}", *shown])
    return f"\nBLEU / chrF ({part['signature']}).\n\n{table(['engine', 'beam', 'mean', *files], rows)}"
