"""The corpus stage: what stays, what goes, what is told about it, and that a kill or a full disk spoils nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from array import array
from pathlib import Path

import pytest

from made_up_pairs import make_pairs, write_tsv
from mobilenmt.compression.core.errors import CorpusError, RecipeError, StageError
from mobilenmt.compression.core.pairs import Pair, read_pairs
from mobilenmt.compression.core.settings import from_mapping
from mobilenmt.compression.core.stage import StageResult
from mobilenmt.compression.core.tag_weights import Repeater, weight_of
from mobilenmt.compression.corpus import stage as corpus
from mobilenmt.compression.corpus.readers import Source
from mobilenmt.compression.corpus.stage import CorpusSettings, run

PAIRS = make_pairs(300)


def make(folder: Path, *sources: Source, force: bool = False, seed: int = 1, **settings: object) -> StageResult:
    chosen = CorpusSettings(sources=sources, **settings)  # type: ignore[arg-type]
    return run(chosen, folder, languages=("en", "de"), seed=seed, force=force)


def test_pairs_stay_in_their_order_with_their_tags(tmp_path: Path) -> None:
    first = write_tsv(tmp_path / "first.tsv", [(*pair, "books:a") if n % 2 else pair for n, pair in enumerate(PAIRS)])
    second = write_tsv(tmp_path / "second.tsv", [(f"  Well,  {a} ", f"Nun, {b}") for a, b in PAIRS])
    result = make(tmp_path / "out", Source(paths=(first,)), Source(paths=(second,), tag="chat"))
    found = list(read_pairs(tmp_path / "out/pairs.tsv.zst"))
    assert found[:2] == [Pair(*PAIRS[0], "first"), Pair(*PAIRS[1], "books:a")]
    assert found[300] == Pair(f"Well, {PAIRS[0][0]}", f"Nun, {PAIRS[0][1]}", "chat")
    assert len(found) == 600
    assert result.summary["pairs"] == result.summary["read"] == 600
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.name[0] != "." and p.suffix != ".json") == [
        "dropped.tsv",
        "pairs.tsv.zst",
        "report.md",
    ]


def test_the_report_accounts_for_every_line(tmp_path: Path) -> None:
    bad = [
        ("only one column",),
        ("Yes", "Ja, und das ist eine sehr lange Antwort auf eine kurze Frage, die niemand stellt"),
        ("This was never translated at all", "This was never translated at all"),
        (PAIRS[5][1], PAIRS[5][0]),
        PAIRS[0],
        ("the &amp; sign", "das Zeichen"),
        ("...", "..."),
        ("She lives in Paris today.", "Sie lebt heute in Paris."),
        ("a ted talk", "ein Vortrag", "ted"),
    ]
    first = write_tsv(tmp_path / "first.tsv", [*PAIRS[:200], *bad])
    second = write_tsv(tmp_path / "second.tsv", [*PAIRS[150:], ("x", "y", "z", "w")])
    test = write_tsv(tmp_path / "test.tsv", [("she lives in Paris, today", "…")])
    sources = (Source(paths=(first, second)),)
    result = make(tmp_path / "out", *sources, held_out=(tmp_path / "te?t.tsv",), weights={"ted*": 0.0})

    report = json.loads((tmp_path / "out/report.json").read_text())
    files = {file["name"]: file for file in report["files"]}
    assert files["first.tsv"]["malformed_lines"] == ["201: no tab"]
    assert files["first.tsv"]["dropped"] == {
        "ratio": 1,
        "identical": 1,
        "language": 1,
        "duplicate": 1,
        "markup": 1,
        "empty": 1,
        "held_out": 1,
        "weight": 1,
    }
    assert files["second.tsv"]["dropped"] == {"duplicate": 50}
    for file in (*files.values(), report):
        kept = file.get("kept", file.get("pairs"))
        assert file["read"] == kept + file["malformed"] + sum(file["dropped"].values())
    assert report["pairs"] == 300 == result.summary["pairs"] == report["tags"]["first"] + report["tags"]["second"]

    rows = [line.split("\t") for line in (tmp_path / "out/dropped.tsv").read_text(encoding="utf-8").splitlines()]
    assert rows[0] == ["rule", "file", "line", "source", "target"]
    assert ["identical", "first.tsv", "203", *bad[2]] in rows
    assert ["held_out", "first.tsv", "208", *bad[7]] in rows
    assert ["malformed", "second.tsv", "151", "x ⇥ y ⇥ z ⇥ w", "4 columns; expected source, target and tag"] in rows
    assert sum(row[0] == "duplicate" for row in rows) == 20  # a sample
    text = (tmp_path / "out/report.md").read_text(encoding="utf-8")
    assert "Malformed lines of first.tsv: 201: no tab" in text and "300 of 360 pairs kept" in text
    assert test.exists()


def test_the_first_of_equal_pairs_stays(tmp_path: Path) -> None:
    text = {"a": "the first sentence", "b": "the second sentence", "1": "der erste Satz", "2": "der zweite Satz"}
    lines = [(text[code[0]], text[code[1]], str(n)) for n, code in enumerate(("a1", "a2", "a1", "b1", "a2"))]
    path = write_tsv(tmp_path / "x.tsv", lines)
    make(tmp_path / "out", Source(paths=(path,)), min_pairs=1)
    assert [tuple(pair) for pair in read_pairs(tmp_path / "out/pairs.tsv.zst")] == [lines[n] for n in (0, 1, 3)]


def test_duplicates_of_long_streams_are_those_a_set_finds() -> None:
    choose = random.Random(3)
    hashes = [choose.choice([0, 2**64 - 1, choose.getrandbits(64) >> choose.choice((0, 52))]) for _ in range(20_000)]
    seen: set[int] = set()
    expected = [value in seen or seen.add(value) is not None for value in hashes]
    assert corpus.came_before(array("Q", hashes)).tolist() == expected
    assert 4000 < sum(expected) < 19_000


def test_two_runs_give_the_same_files_and_a_third_is_skipped(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "x.tsv", [*PAIRS, *PAIRS[:100], *[("...", f"{n}") for n in range(100)]])
    results = [make(tmp_path / name, Source(paths=(path,))) for name in ("one", "two", "one")]
    assert [result.skipped for result in results] == [False, False, True]
    for name in ("pairs.tsv.zst", "report.json", "report.md", "dropped.tsv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    make(tmp_path / "other seed", Source(paths=(path,)), seed=2)
    assert (tmp_path / "other seed/pairs.tsv.zst").read_bytes() == (tmp_path / "one/pairs.tsv.zst").read_bytes()
    assert (tmp_path / "other seed/dropped.tsv").read_bytes() != (tmp_path / "one/dropped.tsv").read_bytes()


def test_weights_may_change_without_reading_the_corpus_again(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "x.tsv", PAIRS)
    make(tmp_path / "out", Source(paths=(path,), tag="x"))
    assert make(tmp_path / "out", Source(paths=(path,), tag="x", weight=3)).skipped
    assert make(tmp_path / "out", Source(paths=(path,), tag="x"), weights={"x": 0.5, "y*": 2}).skipped
    with pytest.raises(StageError, match=r"left out\.x was not there and is true"):
        make(tmp_path / "out", Source(paths=(path,), tag="x"), weights={"x": 0})
    with pytest.raises(StageError, match="max_characters was 900 and is 80"):
        make(tmp_path / "out", Source(paths=(path,), tag="x"), max_characters=80)
    with pytest.raises(StageError, match=r"source 1 x\.tsv"):
        write_tsv(path, PAIRS[:200])
        make(tmp_path / "out", Source(paths=(path,), tag="x"))
    assert not make(tmp_path / "out", Source(paths=(path,), tag="x"), max_characters=80, force=True).skipped


def test_too_little_text_is_an_error_that_says_where_it_went(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "x.tsv", [*PAIRS[:60], *[("...", str(n)) for n in range(90)]])
    with pytest.raises(
        CorpusError, match=r"only 60 of 150 pairs are left.*min_pairs is 100; dropped: empty 90 .*report"
    ):
        make(tmp_path / "out", Source(paths=(path,)))
    assert not (tmp_path / "out/pairs.tsv.zst").exists() and not (tmp_path / "out/manifest.json").exists()
    assert (tmp_path / "out/report.md").exists()


def test_a_third_column_that_is_no_tag_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_MOST_TAGS", 100)
    path = write_tsv(tmp_path / "x.tsv", [(*pair, f"line {number}") for number, pair in enumerate(PAIRS)])
    with pytest.raises(CorpusError, match=r"x\.tsv: more than 100 different tags, such as 'line 100'"):
        make(tmp_path / "out", Source(paths=(path,)))
    make(tmp_path / "tagged", Source(paths=(path,), tag="x"))


def test_swapped_columns_are_refused_at_once(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "x.tsv", [(target, source) for source, target in PAIRS])
    with pytest.raises(CorpusError, match="the source side is said to be 'en' but reads like 'de'"):
        make(tmp_path / "out", Source(paths=(path,)))


def test_a_killed_run_is_done_again_with_the_same_result(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "x.tsv", make_pairs(10_000, seed=4))
    code = (
        "import sys; from pathlib import Path; from mobilenmt.compression.corpus.stage import *;"
        "from mobilenmt.compression.corpus.readers import Source;"
        f"run(CorpusSettings(sources=(Source(paths=(Path({str(path)!r}),)),)), Path(sys.argv[1]),"
        "languages=('en', 'de'))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out")], env=environment)
    while process.poll() is None and not list((tmp_path / "out").glob("scratch.tmp-*/kept*")):
        time.sleep(0.01)
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was over before the kill"
    assert list((tmp_path / "out").glob("*.tmp-*")) and not (tmp_path / "out/pairs.tsv.zst").exists()
    make(tmp_path / "out", Source(paths=(path,)))
    make(tmp_path / "undisturbed", Source(paths=(path,)))
    assert not list((tmp_path / "out").glob("*.tmp-*"))
    for name in ("pairs.tsv.zst", "report.json", "dropped.tsv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on file sizes")
def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "x.tsv", make_pairs(6_000, seed=5))
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000));"
        "from pathlib import Path; from mobilenmt.compression.corpus.stage import *;"
        "from mobilenmt.compression.corpus.readers import Source\n"
        f"try: run(CorpusSettings(sources=(Source(paths=(Path({str(path)!r}),)),)), Path({str(tmp_path / 'out')!r}),"
        "languages=('en', 'de'))\n"
        "except CorpusError as error: print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.endswith("cannot be written: File too large\n") and done.stdout.count("\n") == 1
    assert not list((tmp_path / "out").glob("*.tmp-*")) and not (tmp_path / "out/pairs.tsv.zst").exists()


def test_a_weight_for_a_tag_that_is_nowhere_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(*pair, "good" if n % 2 else "bad") for n, pair in enumerate(PAIRS)]
    source = Source(paths=(write_tsv(tmp_path / "x.tsv", rows),))
    make(tmp_path / "out", source, weights={"g*": 2, "bad": 0})
    assert "warning" not in capsys.readouterr().err
    assert make(tmp_path / "out", source, weights={"goood": 2, "g*": 3, "bad": 0}, force=True)
    told = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert told == ["warning: corpus.weights: no pair is left with a tag 'goood'; tags: good, bad"]
    make(tmp_path / "all", source)
    assert make(tmp_path / "all", source, weights={"goood": 2}).skipped
    assert "no pair is left with a tag 'goood'" in capsys.readouterr().err


# --- settings and weights -------------------------------------------------------------------------------------------


def test_settings_from_a_recipe() -> None:
    raw = {
        "sources": [{"paths": ["a.tsv"], "tag": "a", "weight": 3}, {"paths": ["b.en", "b.de"], "format": "moses"}],
        "held_out": ["test/*.tsv"],
        "max_characters": 80,
        "weights": {"msdocs*": 0.5, "a": 2},
    }
    settings = from_mapping(CorpusSettings, raw, "recipe.toml: corpus", base=Path("/data"))
    assert settings.sources[0].paths == (Path("/data/a.tsv"),)
    assert settings.held_out == (Path("/data/test/*.tsv"),)
    assert settings.weights == {"msdocs*": 0.5, "a": 2.0}
    del raw["weights"]
    assert from_mapping(CorpusSettings, raw, "recipe.toml: corpus").weights == {"a": 3.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": []}, "corpus.sources: expected at least one"),
        (
            {"sources": [{"paths": ["a"], "tag": "x", "weight": 2}, {"paths": ["b"], "tag": "x"}]},
            "two with the tag 'x'",
        ),
        ({"weights": {"a": -1}}, "corpus.weights: 'a': expected 0 to 1000, found -1"),
        ({"weights": {"a": 1e9}}, "corpus.weights: 'a': expected 0 to 1000, found 1000000000"),
        ({"min_pairs": 0}, "corpus.min_pairs: expected at least 1"),
        ({"max_ratio": 0.1}, "corpus.max_ratio: expected at least 1"),
        ({"min_word": 3}, "corpus.min_word: no such setting"),
    ],
)
def test_settings_are_checked(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        from_mapping(CorpusSettings, {"sources": [{"paths": ["a.tsv"]}], **changes}, "recipe.toml: corpus")


def test_weights_go_by_tag_then_by_the_first_pattern() -> None:
    weights = {"docs*": 0.5, "docs:human": 2.0, "*": 0.1}
    assert [weight_of(tag, weights) for tag in ("docs:human", "docs:x", "chat")] == [2.0, 0.5, 0.1]
    assert weight_of("chat", {"docs*": 0.5}) == 1.0


def test_a_weight_is_met_on_average_and_does_not_depend_on_order() -> None:
    pairs = [Pair(*pair, "t") for pair in make_pairs(4000, seed=7)]
    repeater = Repeater({"t": 2.25}, 1, "weight")
    times = {pair: repeater.times(pair) for pair in pairs}
    assert set(times.values()) == {2, 3}
    assert abs(sum(times.values()) / 4000 - 2.25) < 0.03
    again = Repeater({"t": 2.25}, 1, "weight")
    assert all(again.times(pair) == times[pair] for pair in reversed(pairs))
    assert Repeater({"t": 0.0}, 1, "weight").times(pairs[0]) == 0
