"""The command that plans a student; it trains nothing and reads no text."""

from __future__ import annotations

import sys
from pathlib import Path

from mobilenmt.pipeline_needs import need
from mobilenmt.runtime.errors import InputError


def plan(
    size: str | None = None,
    latency: str | None = None,
    memory: str | None = None,
    from_: Path | None = None,
    vocabulary: str | None = None,
    tokens: int = 30,
    shortlist: bool = True,
    fit: str | None = None,
    points: Path | None = None,
    json: Path | None = None,
    plot: Path | None = None,
    measure: Path | None = None,
    packs: Path | None = None,
) -> int:
    """Find the shape of a student for a size, a latency and a memory, or measure what models cost on this machine.

    Says bytes to a percent, time and memory by prices of a machine, and ranks shapes by what is known of trained ones.
    What it recommends is printed as sections of a recipe; in a recipe, student.size = "10MB" does the same.

    Args:
        size: of the pack, all files, as in 10MB or 9.5MiB
        latency: most time for one sentence, greedy, one thread, as in 20ms
        memory: most memory added to a process while it translates, as in 15MB
        from_: only shapes that this checkpoint can be pruned to
        vocabulary: numbers of pieces to try, as in 4000,8000; by default 1,000 to 32,000, or the checkpoint's
        tokens: of the sentence that latency and memory are of, source and target
        shortlist: packs have a shortlist where their vocabulary is large enough for the usual one
        fit: prices of a machine, JSON of --measure, or the name of one that comes along
        points: JSON of trained models to rank by, instead of those that come along
        json: write all candidates into this file
        plot: draw them into this file, size against latency
        measure: run models of random weights here and write this machine's prices into this JSON file
        packs: with --measure, folder that keeps these models; where it has them, nothing but the runtime is needed
    """
    from mobilenmt.compression.core.errors import PlanError

    if measure is not None:
        if packs is None or not (packs / "trials.json").is_file():
            need("plan", "onnx")
        from mobilenmt.compression.plan.command import measure_machine

        found = measure_machine(measure, packs, lambda line: print(line, file=sys.stderr))
        told = [
            f"{what} {residuals.median:.1%} in the median, {residuals.largest:.0%} at most"
            for what, residuals in (("latency", found.latency_residuals), ("memory", found.memory_residuals))
            if residuals
        ]
        print(f"{measure}: {found.machine}, {found.kernels}; off by: {'; '.join(told)}")
        if size is None:
            return 0
        fit = str(measure) if fit is None else fit
    if size is None:
        raise InputError("give a size, as in --size 10MB, or --measure OUT.json")
    from mobilenmt.compression.plan.command import Request, make_plan
    from mobilenmt.compression.plan.cost import DEFAULT_FIT, Load
    from mobilenmt.compression.plan.output import render, save_json, save_plot, to_json

    need("plan", *(("matplotlib",) if plot else ()), *(("onnx",) if from_ else ()))
    try:
        pieces = tuple(int(item) for item in vocabulary.split(",")) if vocabulary is not None else ()
    except ValueError:
        raise PlanError(f"--vocabulary {vocabulary}: expected numbers of pieces, as in 4000,8000") from None
    load = Load(tokens, tokens)
    request = Request(size, latency, memory, from_, pieces, fit or DEFAULT_FIT, points, shortlist, load)
    made = make_plan(request)
    if json is not None:
        save_json(json, to_json(made.candidates, made.budget, made.fit, made.quality, made.load))
    if plot is not None:
        save_plot(plot, made.candidates, made.budget)
    print(render(made.candidates, made.budget, made.fit, made.quality, made.load))
    return 0
