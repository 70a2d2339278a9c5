"""The teacher step: shards, kills, equal sources, what becomes of bad translations, errors before hours are spent."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sacrebleu

from mobilenmt.compression.core.errors import RecipeError, StageError, TeacherError
from mobilenmt.compression.core.pairs import Pair, PairWriter, read_pairs
from mobilenmt.compression.core.settings import from_mapping
from mobilenmt.compression.teacher.shards import Item, ShardStore, pack_items, plan_shards, unpack_items
from mobilenmt.compression.teacher.spec import Candidate, TeacherSpec
from mobilenmt.compression.teacher.stage import TEXT, TeacherSettings, run
from mobilenmt.compression.teacher.text import clean_answer, translate_shard
from places import HELPERS
from tiny_teachers import make_teacher, sentences

PROCESS = HELPERS / "teacher_process.py"


def write_pairs(path: Path, pairs: Sequence[Pair]) -> Path:
    with PairWriter(path) as writer:
        for pair in pairs:
            writer.write(pair)
    return path


def corpus(path: Path, count: int) -> Path:
    return write_pairs(path, [Pair(text, f"das {text}", f"tag{i % 3}") for i, text in enumerate(sentences(count))])


def translate(settings: TeacherSettings, pairs: Path, folder: Path, **arguments: Any) -> dict[str, Any]:
    result = run(settings, pairs=pairs, folder=folder, languages=("en", "de"), **arguments)
    return dict(result.summary)


def start(**arguments: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(PROCESS), json.dumps(arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


class Parrot:
    """A teacher whose candidates are given."""

    def __init__(self, answers: dict[str, list[Candidate]]) -> None:
        self._answers = answers

    def translate(self, sources: Sequence[str]) -> list[list[Candidate]]:
        return [self._answers[source] for source in sources]


def spec_for(**settings: Any) -> TeacherSpec:
    return TeacherSpec(TeacherSettings("teacher", **settings), "marian", "en", "de", "de", 1, "cpu", "float32", 1)


# -- equal sources, shards --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("all_targets", [False, True])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_plan_gathers_equal_sources(tmp_path: Path, size: int, all_targets: bool) -> None:
    chance = random.Random(size)
    pairs = [Pair(f"s{chance.randrange(60)}", f"t{chance.randrange(4)}", f"c{chance.randrange(3)}") for _ in range(300)]
    wanted: dict[str, list[tuple[str, str]]] = {}
    for source, target, tag in pairs:
        targets = wanted.setdefault(source, [])
        if (target, tag) not in targets and (all_targets or tag not in [known for _, known in targets]):
            targets.append((target, tag))
    plan = plan_shards(write_pairs(tmp_path / "pairs.tsv.zst", pairs), size, all_targets=all_targets)
    requests = dict(plan.requests(range(plan.shards)))
    items = [item for number in range(plan.shards) for item in unpack_items(requests[number])]
    assert items == [Item(source, tuple(targets)) for source, targets in wanted.items()]
    assert [plan.size(number) for number in requests] == [len(unpack_items(request)) for request in requests.values()]
    some = [number for number in range(plan.shards) if number % 3 == 1]
    assert dict(plan.requests(some)) == {number: requests[number] for number in some}


def test_requests_carry_any_text() -> None:
    items = [Item('a "b" \u2028 \ud800 €', (("c\\", ""), ("", "tag")))]
    assert unpack_items(pack_items(items)) == items


def test_damaged_or_unlisted_shards_are_made_again(tmp_path: Path, tiny_pack: Path) -> None:
    pairs = corpus(tmp_path / "pairs.tsv.zst", 60)
    settings = TeacherSettings(str(tiny_pack), shard_size=10, search="greedy")
    folder = tmp_path / "teacher"
    translate(settings, pairs, folder)
    wanted = (folder / TEXT).read_bytes()
    (folder / "manifest.json").unlink()
    (folder / TEXT).unlink()
    shards = folder / "shards"
    damaged = bytearray((shards / "00001.tsv.zst").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (shards / "00001.tsv.zst").write_bytes(damaged)
    (shards / "00003.tsv.zst").unlink()
    index = shards / "index.jsonl"
    lines = index.read_bytes().splitlines(keepends=True)
    index.write_bytes(b"".join(lines[:5]) + lines[5][:20])  # the last line was cut off by a kill
    kept = {name: (shards / name).stat().st_mtime_ns for name in ("00000.tsv.zst", "00002.tsv.zst", "00004.tsv.zst")}
    plan = plan_shards(pairs, 10, all_targets=False)
    assert ShardStore(shards, plan).pending() == [1, 3, 5]
    summary = translate(settings, pairs, folder)
    assert (folder / TEXT).read_bytes() == wanted
    assert kept == {name: (shards / name).stat().st_mtime_ns for name in kept}, "what was finished is done again"
    assert summary["sources"] == summary["pairs"] == 60


def test_shards_of_another_corpus_are_not_taken(tmp_path: Path, tiny_pack: Path) -> None:
    settings = TeacherSettings(str(tiny_pack), shard_size=10, search="greedy")
    folder = tmp_path / "teacher"
    translate(settings, corpus(tmp_path / "a.tsv.zst", 20), folder)
    with pytest.raises(StageError, match="input pairs changed"):
        translate(settings, corpus(tmp_path / "b.tsv.zst", 21), folder)
    translate(settings, corpus(tmp_path / "b.tsv.zst", 21), folder, force=True)
    assert len(list(read_pairs(folder / TEXT))) == 21


# -- what becomes of candidates ---------------------------------------------------------------------------------------


def test_bad_translations_fall_back_to_the_reference_or_go() -> None:
    answers = {
        "good": [Candidate("gut", 2)],
        "empty": [Candidate(" \n", 1)],
        "loop": [Candidate("a a a a a a", 7, "looped")],
        "long": [Candidate("lang", 9, "too_long")],
        "tabs": [Candidate("ein\tzwei\nDrei ", 4)],
    }
    items = [Item(source, ((f"ref {source}", "x"), (f"ref2 {source}", "y"))) for source in answers]
    found = translate_shard(Parrot(answers), 3, items, spec_for(search="greedy"))
    assert found.number == 3
    assert [pair for pair in found.pairs if pair.source == "good"] == [("good", "gut", "x"), ("good", "gut", "y")]
    assert [pair for pair in found.pairs if pair.source == "loop"] == [
        ("loop", "ref loop", "x"),
        ("loop", "ref2 loop", "y"),
    ]
    assert ("tabs", "ein zwei Drei", "x") in found.pairs
    counts = {key: value for key, value in found.counts.items() if value}
    assert counts == {"tokens": 23, "empty": 1, "looped": 1, "too_long": 1, "reference": 3}
    dropped = translate_shard(Parrot(answers), 0, items, spec_for(search="greedy", on_bad="drop"))
    assert {pair.source for pair in dropped.pairs} == {"good", "tabs"}
    assert dropped.counts["dropped"] == 3 and dropped.counts["reference"] == 0


def test_nearest_is_what_sacrebleu_scores_highest() -> None:
    texts = [
        "der Hund läuft heute",
        "ein Hund schläft",
        "die Katze ist hier und schläft",
        "der kleine Hund schläft hier",
    ]
    references = ["der Hund schläft hier heute", "die kleine Katze schläft", "Hund"]
    answers = {"s": [Candidate(text, 4) for text in texts] + [Candidate(references[0], 4, "too_long")]}
    item = Item("s", tuple((reference, f"c{i}") for i, reference in enumerate(references)))
    spec = spec_for(search="nearest", n_best=4)
    pairs = translate_shard(Parrot(answers), 0, [item], spec).pairs
    for pair, reference in zip(pairs, references, strict=True):
        scores = [sacrebleu.sentence_chrf(text, [reference]).score for text in texts]
        assert pair.target == texts[scores.index(max(scores))]
    assert len({pair.target for pair in pairs}) > 1


def test_corpora_that_are_not_to_be_translated_keep_all_their_targets(tmp_path: Path) -> None:
    answers = {"a": [Candidate("A", 2)], "both": [Candidate("B", 3)]}
    pairs = [
        Pair("a", "x", "talk:1"),
        Pair("b", "y1", "news:1"),
        Pair("both", "z1", "news:1"),
        Pair("b", "y2", "news:2"),
    ]
    pairs += [Pair("both", "z2", "talk:2"), Pair("both", "z3", "news:1")]
    plan = plan_shards(write_pairs(tmp_path / "pairs.tsv.zst", pairs), 10, all_targets=True)
    ((_, request),) = plan.requests([0])
    found = translate_shard(Parrot(answers), 0, unpack_items(request), spec_for(search="greedy", tags=("talk:*",)))
    kept = [
        Pair("b", "y1", "news:1"),
        Pair("b", "y2", "news:2"),
        Pair("both", "z1", "news:1"),
        Pair("both", "z3", "news:1"),
    ]
    assert sorted(found.pairs) == sorted([*kept, Pair("a", "A", "talk:1"), Pair("both", "B", "talk:2")])
    assert {key: value for key, value in found.counts.items() if value} == {"tokens": 5, "kept": 1}


def test_n_best_gives_different_lines_only() -> None:
    answers = {"s": [Candidate("a", 2), Candidate("b", 2), Candidate("a ", 3), Candidate("", 1)]}
    found = translate_shard(Parrot(answers), 0, [Item("s", (("r", "x"),))], spec_for(search="n_best", n_best=4))
    assert found.pairs == [("s", "a", "x"), ("s", "b", "x")]
    assert found.counts["reference"] == 0 and found.counts["empty"] == 1


@pytest.mark.parametrize(
    ("answer", "source", "wanted"),
    [
        ("  Der Hund. \n", "The dog.", "Der Hund."),
        ("<think>\nhm, dog\n</think>\n\nDer Hund.", "The dog.", "Der Hund."),
        ("<think>\nhm, dog", "The dog.", ""),
        ("Here is the translation:\n\nDer Hund.", "The dog.", "Der Hund."),
        ("Zwei Dinge:\n(Note: two things)", "Two things:", "Zwei Dinge:"),
        ('"Der Hund."', "The dog.", "Der Hund."),
        ("„Der Hund.“", "The dog.", "Der Hund."),
        ('"Der Hund."', '"The dog."', '"Der Hund."'),
        ('"Ja" und "nein"', "Yes and no in quotes", '"Ja" und "nein"'),
        ("```\nDer Hund.\n```", "The dog.", "Der Hund."),
        ("Der Hund.\n\nThis means: the dog.", "The dog.", "Der Hund."),
        ("", "The dog.", ""),
    ],
)
def test_answers_are_stripped_to_the_translation(answer: str, source: str, wanted: str) -> None:
    assert clean_answer(answer, source) == wanted


# -- the stage --------------------------------------------------------------------------------------------------------


def test_stage_skips_when_done_and_refuses_other_settings(tmp_path: Path, tiny_pack: Path) -> None:
    pairs = corpus(tmp_path / "pairs.tsv.zst", 30)
    settings = TeacherSettings(str(tiny_pack), shard_size=8)
    folder = tmp_path / "teacher"
    summary = translate(settings, pairs, folder)
    assert summary["sources"] == 30 and summary["family"] == "pack" and summary["seconds"] > 0
    again = run(settings, pairs=pairs, folder=folder, languages=("en", "de"))
    assert again.skipped and dict(again.summary) == summary
    with pytest.raises(StageError, match="beam_size was 4 and is 5"):
        translate(TeacherSettings(str(tiny_pack), shard_size=8, beam_size=5), pairs, folder)
    elsewhere = TeacherSettings(str(tiny_pack), shard_size=8, engine="ray", workers=3)
    assert run(elsewhere, pairs=pairs, folder=folder, languages=("en", "de")).skipped


def test_mistake_found_early_leaves_nothing_to_force(tmp_path: Path, tiny_pack: Path) -> None:
    pairs = corpus(tmp_path / "pairs.tsv.zst", 5)
    folder = tmp_path / "teacher"
    with pytest.raises(TeacherError, match="cannot sample"):
        translate(TeacherSettings(str(tiny_pack), search="sample"), pairs, folder)
    assert translate(TeacherSettings(str(tiny_pack)), pairs, folder)["sources"] == 5


def test_empty_corpus_is_one_error(tmp_path: Path, tiny_pack: Path) -> None:
    with pytest.raises(TeacherError, match="no sentences in it"):
        translate(TeacherSettings(str(tiny_pack)), write_pairs(tmp_path / "p.tsv.zst", []), tmp_path / "teacher")


def test_teacher_that_says_nothing_is_one_error(tmp_path: Path, tiny_pack: Path) -> None:
    settings = TeacherSettings(str(tiny_pack), max_length_ratio=0, max_length_extra=1, max_length=2, on_bad="drop")
    with pytest.raises(TeacherError, match="none of 5 sources was left"):
        translate(settings, corpus(tmp_path / "p.tsv.zst", 5), tmp_path / "teacher")


def test_disk_that_is_too_small_is_told_before_the_work(
    tmp_path: Path, tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(TeacherError, match="MB free; make room"):
        translate(TeacherSettings(str(tiny_pack)), corpus(tmp_path / "p.tsv.zst", 50), tmp_path / "teacher")
    assert not list((tmp_path / "teacher" / "shards").glob("*.zst"))


@pytest.mark.skipif(sys.platform != "linux", reason="limits file sizes as Linux does")
def test_full_disk_keeps_what_is_finished(tmp_path: Path, tiny_pack: Path) -> None:
    chance = random.Random(1)
    short, long = sentences(40, longest=1), [f"{chance.getrandbits(800):x}" for _ in range(60)]  # does not compress
    pairs = write_pairs(tmp_path / "p.tsv.zst", [Pair(text, "ein Haus", "") for text in [*short, *long]])
    wanted = tmp_path / "wanted"
    settings: dict[str, Any] = {"checkpoint": str(tiny_pack), "shard_size": 20, "search": "greedy", "threads": 1}
    translate(TeacherSettings(**settings), pairs, wanted)
    sizes = [(wanted / "shards" / f"{number:05d}.tsv.zst").stat().st_size for number in range(5)]
    limit = max(*sizes[:2], 1480) + 20  # the index and the stage's own files must fit
    assert sizes[2] > limit, "the disk is never full"
    folder = tmp_path / "teacher"
    process = start(pairs=str(pairs), folder=str(folder), file_size=limit, **settings)
    error = process.communicate()[1].decode()
    assert process.returncode == 1
    assert "the disk is full; the finished shards are kept" in error and "Traceback" not in error
    assert sorted(path.name for path in (folder / "shards").glob("*.zst")) == ["00000.tsv.zst", "00001.tsv.zst"]
    translate(TeacherSettings(**settings), pairs, folder)
    assert (folder / TEXT).read_bytes() == (wanted / TEXT).read_bytes()
    assert not list(folder.rglob("*.tmp-*"))


def kill_and_resume(settings: dict[str, Any], pairs: Path, folder: Path, kills: int) -> int:
    """Kill -9 at random moments, then let it finish; returns how many kills left some shards done and some not."""
    chance = random.Random(kills)
    index = folder / "shards" / "index.jsonl"
    finished: dict[str, int] = {}
    between = 0

    def listed() -> int:
        return index.read_bytes().count(b"\n") if index.exists() else 0

    for _ in range(kills):
        before = listed()
        begin = time.monotonic()
        process = start(pairs=str(pairs), folder=str(folder), **settings)
        # Some kills come while it starts, the others around the writing of a shard.
        wanted = chance.choice([0, 1, 1, 1, 2])
        while wanted and listed() < before + wanted and process.poll() is None:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.7 if not wanted else (time.monotonic() - begin) / 20))
        process.kill()
        process.communicate()
        between += process.returncode == -9 and 0 < listed() < SHARDS
        entries = index.read_bytes().splitlines()[: listed()] if index.exists() else []
        files = [folder / "shards" / f"{json.loads(line)['shard']:05d}.tsv.zst" for line in entries]
        now = {path.name: path.stat().st_mtime_ns for path in files}
        assert finished.items() <= now.items(), "a finished shard was lost or made again"
        finished = now
    process = start(pairs=str(pairs), folder=str(folder), **settings)
    process.communicate()
    assert process.returncode == 0
    return between


SHARDS = 50


def check_kills(teacher: Path, tmp_path: Path, kills: int, **settings: Any) -> None:
    pairs = corpus(tmp_path / "pairs.tsv.zst", SHARDS * 10)
    settings = {"checkpoint": str(teacher), "shard_size": 10, "threads": 1, **settings}
    translate(TeacherSettings(**settings), pairs, tmp_path / "undisturbed")
    between = kill_and_resume(settings, pairs, tmp_path / "killed", kills)
    for name in [TEXT, *(f"shards/{number:05d}.tsv.zst" for number in range(SHARDS))]:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    assert not list((tmp_path / "killed").rglob("*.tmp-*"))
    assert between > kills / 3, "too few kills came between two shards: the test proves nothing"


def test_killed_and_resumed_gives_the_same_bytes(tmp_path: Path, tiny_pack: Path) -> None:
    check_kills(tiny_pack, tmp_path, 3, search="n_best", n_best=2, beam_size=2)


@pytest.mark.slow
def test_killed_twenty_times_gives_the_same_bytes(tmp_path: Path, tiny_pack: Path) -> None:
    check_kills(tiny_pack, tmp_path, 20, search="n_best", n_best=2, beam_size=2)


@pytest.mark.slow
def test_torch_teacher_killed_twenty_times_gives_the_same_bytes(tmp_path: Path) -> None:
    teacher = make_teacher("opus", tmp_path / "opus")
    check_kills(teacher, tmp_path, 20, search="sample", n_best=2, top_p=0.9, max_length=12)


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "checkpoint: missing"),
        ({"checkpoint": ""}, "checkpoint: name a checkpoint folder"),
        ({"checkpoint": "x", "search": "nearest"}, "n_best: nearest needs at least 2"),
        ({"checkpoint": "x", "n_best": 3}, "n_best: beam gives one translation"),
        ({"checkpoint": "x", "beam_size": 0}, "beam_size: must be at least 1"),
        ({"checkpoint": "x", "top_p": 0.0}, "top_p: must be above 0"),
        ({"checkpoint": "x", "temperature": 0}, "temperature: must be above 0"),
        ({"checkpoint": "x", "prompt": "Translate!"}, "prompt: {text} is missing"),
        ({"checkpoint": "x", "prompt": "{text} {style}"}, "prompt: unknown {style}"),
        ({"checkpoint": "x", "prompt": "{text"}, "prompt: "),
        ({"checkpoint": "x", "address": "auto"}, "address: only with engine"),
        ({"checkpoint": "x", "family": "gpt"}, "family: expected one of"),
        ({"checkpoint": "x", "beams": 4}, "beams: no such setting"),
    ],
)
def test_settings_are_checked(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        from_mapping(TeacherSettings, raw, "recipe.toml: teacher")
    assert str(caught.value).startswith("recipe.toml: teacher.") and message in str(caught.value)


def test_settings_import_nothing_heavy() -> None:
    code = (
        "import sys, mobilenmt.compression.teacher.stage as t; t.TeacherSettings('x');"
        "print([m for m in ('torch', 'transformers', 'ray', 'onnxruntime', 'sacrebleu', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
