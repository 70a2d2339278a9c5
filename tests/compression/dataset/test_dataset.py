"""The packed dataset holds exactly the ids of its pairs, by weight, and gives them back fast and padded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from made_up_pairs import make_pairs
from mobilenmt.compression.core import progress
from mobilenmt.compression.core.errors import CorpusError, VocabularyError
from mobilenmt.compression.core.pairs import Pair, PairWriter
from mobilenmt.compression.dataset import dataset as dataset_module
from mobilenmt.compression.dataset import shards
from mobilenmt.compression.dataset.augment import SHARES, AugmentSettings
from mobilenmt.compression.dataset.dataset import PackedDataset, build_dataset
from mobilenmt.compression.vocabulary.stage import VocabularySettings, run
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary

PAIRS = [Pair(*pair, "even" if n % 2 else "odd") for n, pair in enumerate(make_pairs(1500))]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "pairs.tsv.zst"
    with PairWriter(path) as writer:
        for pair in PAIRS:
            writer.write(pair)
    return path


@pytest.fixture(scope="module")
def vocabulary(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary") / "v"
    run(VocabularySettings(size=500), folder, pairs=corpus, languages=("en", "de"))
    return folder


def build(corpus: Path, vocabulary: Path, folder: Path, **changes: object) -> PackedDataset:
    arguments = {"weights": {}, "augment": None, "seed": 1, "max_tokens": 100, **changes}
    return build_dataset(corpus, vocabulary, folder, **arguments)  # type: ignore[arg-type]


def texts(dataset: PackedDataset, vocabulary: Path) -> list[tuple[str, str]]:
    known = Vocabulary.load(vocabulary)
    return [
        (known.decode(dataset.source(n).tolist()), known.decode(dataset.target(n).tolist()))
        for n in range(len(dataset))
    ]


def test_every_pair_is_there_in_order_and_closed(corpus: Path, vocabulary: Path, tmp_path: Path) -> None:
    dataset = build(corpus, vocabulary, tmp_path / "d")
    assert texts(dataset, vocabulary) == [pair[:2] for pair in PAIRS]
    known = Vocabulary.load(vocabulary)
    for n in (0, 7, len(PAIRS) - 1):
        assert dataset.source(n).tolist() == [*known.encode(PAIRS[n].source), 0]
        assert dataset.target(n).tolist() == [*known.encode(PAIRS[n].target), 0]
    for lengths, side in ((dataset.source_lengths, dataset.source), (dataset.target_lengths, dataset.target)):
        assert lengths.dtype == np.int32
        assert lengths.tolist() == [len(side(n)) for n in range(len(dataset))]
    assert dataset.card["tokens"]["source"] == int(dataset.source_lengths.sum())
    assert (tmp_path / "d/source.bin").stat().st_size == 2 * dataset.card["tokens"]["source"]
    assert not list((tmp_path / "d").glob("*.tmp-*"))


def test_a_batch_is_the_padded_sentences(corpus: Path, vocabulary: Path, tmp_path: Path) -> None:
    dataset = build(corpus, vocabulary, tmp_path / "d")
    rows = [5, 1499, 0, 5, 77]
    source, target = dataset.gather(rows, pad=499)
    for batch, side in ((source, dataset.source), (target, dataset.target)):
        width = max(len(side(n)) for n in rows)
        expected = [side(n).tolist() + [499] * (width - len(side(n))) for n in rows]
        assert batch.dtype == np.int64 and batch.tolist() == expected
    assert dataset.gather(np.array([], dtype=np.int64), pad=0)[0].shape == (0, 0)
    for bad in ([1500], [-1]):
        with pytest.raises(IndexError, match="the dataset has 1500 pairs"):
            dataset.gather(bad, pad=0)


def test_weights_repeat_and_thin_out(corpus: Path, vocabulary: Path, tmp_path: Path) -> None:
    dataset = build(corpus, vocabulary, tmp_path / "d", weights={"e*": 3.0, "odd": 0.5})
    counted = Counter(texts(dataset, vocabulary))
    assert {counted[pair[:2]] for pair in PAIRS if pair.tag == "even"} == {3}
    assert {counted[pair[:2]] for pair in PAIRS if pair.tag == "odd"} == {0, 1}
    assert abs(sum(counted[pair[:2]] for pair in PAIRS if pair.tag == "odd") - 375) < 60
    with pytest.raises(CorpusError, match="no pair is left for training"):
        build(corpus, vocabulary, tmp_path / "none", weights={"*": 0.0})


def test_augmented_pairs_come_on_top(corpus: Path, vocabulary: Path, tmp_path: Path) -> None:
    augment = AugmentSettings(**{**dict.fromkeys(SHARES, 0.0), "all_caps": 0.1, "sentences": 0.1})
    dataset = build(corpus, vocabulary, tmp_path / "d", augment=augment)
    counts = dataset.card["counts"]
    assert counts["plain"] == 1500 and counts["pairs"] == len(dataset)
    assert 100 < counts["all_caps"] < 200 and 100 < counts["sentences"] < 200
    assert len(dataset) == 1500 + sum(counts[kind] for kind in counts if kind not in ("plain", "pairs", "too_long"))
    found = texts(dataset, vocabulary)
    assert sum(source.isupper() and target.isupper() for source, target in found) == counts["all_caps"]
    assert {pair[:2] for pair in PAIRS} <= set(found)
    assert not (tmp_path / "d/manifest.json").exists()


def test_long_pairs_are_left_out_and_counted(corpus: Path, vocabulary: Path, tmp_path: Path) -> None:
    whole = build(corpus, vocabulary, tmp_path / "whole")
    longest = np.maximum(whole.source_lengths, whole.target_lengths)
    limit = int(np.median(longest))
    dataset = build(corpus, vocabulary, tmp_path / "d", max_tokens=limit)
    assert len(dataset) == int((longest <= limit).sum())
    assert dataset.card["counts"]["too_long"] == int((longest > limit).sum())
    assert max(dataset.source_lengths.max(), dataset.target_lengths.max()) == limit


def test_special_tokens_cannot_be_written_in_text(vocabulary: Path, tmp_path: Path) -> None:
    with PairWriter(tmp_path / "p.tsv.zst") as writer:
        writer.write(Pair("a </s> <pad> b <unk>", "x </s> 世 <0x41>"))
    dataset = build(tmp_path / "p.tsv.zst", vocabulary, tmp_path / "d")
    assert dataset.source(0).tolist().count(0) == dataset.target(0).tolist().count(0) == 1
    assert not {1, 499} & {*dataset.source(0).tolist(), *dataset.target(0).tolist()}
    assert texts(dataset, vocabulary) == [("a </s> <pad> b <unk>", "x </s> 世 <0x41>")]


def test_a_finished_dataset_is_taken_as_it_is_and_a_changed_one_is_built_anew(
    corpus: Path, vocabulary: Path, tmp_path: Path
) -> None:
    build(corpus, vocabulary, tmp_path / "d")
    stamp = (tmp_path / "d/source.bin").stat().st_mtime_ns
    build(corpus, vocabulary, tmp_path / "d")
    assert (tmp_path / "d/source.bin").stat().st_mtime_ns == stamp
    changed = build(corpus, vocabulary, tmp_path / "d", weights={"odd": 0.0})
    assert len(changed) == 750 and (tmp_path / "d/source.bin").stat().st_mtime_ns != stamp


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FILES = {"source.bin", "target.bin", "source_offsets.npy", "target_offsets.npy", "dataset.json"}


def test_two_builds_are_equal_byte_by_byte(corpus: Path, vocabulary: Path, tmp_path: Path) -> None:
    for name, tokenizer in (("a", vocabulary), ("b", vocabulary / "tokenizer.json")):
        build(corpus, tokenizer, tmp_path / name, weights={"odd": 1.5}, augment=AugmentSettings())
    assert contents(tmp_path / "a").keys() == FILES
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_bytes_do_not_depend_on_processes_or_shards(
    corpus: Path, vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    real = subprocess.Popen

    def popen(*arguments: object, **options: object) -> object:
        started.append(arguments)
        return real(*arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(dataset_module, "usable_cores", lambda: 2)
    for name, pairs, processes in (("whole", 50_000, 2), ("one", 130, 1), ("two", 130, 3000)):
        monkeypatch.setattr(shards, "PAIRS", pairs)
        build(corpus, vocabulary, tmp_path / name, augment=AugmentSettings(), max_tokens=40, processes=processes)
        assert len(started) == (2 if name == "two" else 0)  # one shard is not worth a process
    assert contents(tmp_path / "whole").keys() == FILES
    assert contents(tmp_path / "whole") == contents(tmp_path / "one") == contents(tmp_path / "two")
    assert json.loads(contents(tmp_path / "two")["dataset.json"])["counts"]["too_long"] > 0


def test_no_more_processes_start_than_there_are_shards(
    corpus: Path, vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, started = subprocess.Popen, []

    def popen(*arguments: object, **options: object) -> object:
        started.append(real(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(dataset_module, "usable_cores", lambda: 64)
    monkeypatch.setattr(shards, "PAIRS", 800)
    build(corpus, vocabulary, tmp_path / "d", processes=64)
    assert 1 <= len(started) <= 2
    assert all(process.returncode == 0 for process in started)


INTERRUPTED_BUILD = """
import os, signal, subprocess, sys, time
from pathlib import Path
from mobilenmt.compression.dataset import dataset, shards

def started(*arguments, **options):
    process = real(*arguments, **options)
    time.sleep(0.15)  # the worker imports its libraries
    os.killpg(0, signal.SIGINT)
    return process

real, subprocess.Popen, shards.PAIRS = subprocess.Popen, started, 500
dataset.usable_cores = lambda: 2
signal.signal(signal.SIGINT, signal.default_int_handler)
pairs, vocabulary, folder = map(Path, sys.argv[1:])
try:
    dataset.build_dataset(pairs, vocabulary, folder, weights={}, augment=None, seed=1, max_tokens=100)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(os.name != "posix", reason="signals a group of processes")
def test_an_early_ctrl_c_is_not_told_by_the_processes_that_tokenize(
    corpus: Path, vocabulary: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", INTERRUPTED_BUILD, str(corpus), str(vocabulary), str(tmp_path / "d")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, start_new_session=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
    assert "Traceback" not in done.stderr, done.stderr


SLOW_BUILD = """
import sys, time
from pathlib import Path
from mobilenmt.compression.dataset import dataset, shards

def slowly(path):
    for pair in real(path):
        time.sleep(0.002)
        yield pair

real, dataset.read_pairs, shards.PAIRS = dataset.read_pairs, slowly, 100
pairs, vocabulary, folder = map(Path, sys.argv[1:])
dataset.build_dataset(pairs, vocabulary, folder, weights={}, augment=None, seed=1, max_tokens=100, processes=2)
"""


def test_a_killed_build_goes_on_with_the_shards_that_are_done(
    corpus: Path, vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SLOW_BUILD, str(corpus), str(vocabulary), str(tmp_path / "killed")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as process:
        for _ in range(3000):
            if len(list((tmp_path / "killed" / "shards").glob("*.npz"))) >= 3:
                break
            time.sleep(0.01)
        process.kill()
        assert process.wait(60) == -9
    time.sleep(0.5)  # its processes end with it
    done = {path for path in (tmp_path / "killed" / "shards").glob("*.npz") if ".tmp-" not in path.name}
    assert 3 <= len(done) < 15 and not (tmp_path / "killed" / "dataset.json").exists()
    monkeypatch.setattr(shards, "PAIRS", 100)
    made, real = [], shards.make_shard

    def counted(job: shards.Job, request: bytes) -> None:
        made.append(job.path(request))
        real(job, request)

    monkeypatch.setattr(shards, "make_shard", counted)
    build(corpus, vocabulary, tmp_path / "killed", processes=1)
    assert len(made) == 15 - len(done) and not done & set(made)
    monkeypatch.undo()
    build(corpus, vocabulary, tmp_path / "whole")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_damaged_shards_are_made_anew_in_the_same_run(
    corpus: Path, vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "PAIRS", 500)
    with monkeypatch.context() as patch, pytest.raises(CorpusError, match="no room"):

        def full(*_: object) -> int:
            raise OSError(28, "no room")

        patch.setattr(dataset_module, "_merge", full)
        build(corpus, vocabulary, tmp_path / "d")
    one, two, three = (tmp_path / "d" / "shards").iterdir()
    data = bytearray(one.read_bytes())
    data[len(data) // 2] ^= 1
    one.write_bytes(data)
    two.write_bytes(b"")
    three.unlink()
    (three / "in the way").mkdir(parents=True)
    build(corpus, vocabulary, tmp_path / "d")
    build(corpus, vocabulary, tmp_path / "whole")
    assert contents(tmp_path / "d") == contents(tmp_path / "whole")


def test_a_tokenizing_process_that_ends_by_itself_is_one_clear_error(
    corpus: Path, vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "PAIRS", 500)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(dataset_module, "usable_cores", lambda: 2)
    with pytest.raises(CorpusError, match="a process that tokenizes ended with 1; out of memory"):
        build(corpus, vocabulary, tmp_path / "d", processes=2)


def test_changed_shares_or_a_damaged_dataset_are_made_anew(corpus: Path, vocabulary: Path, tmp_path: Path) -> None:
    augment = AugmentSettings()
    build(corpus, vocabulary, tmp_path / "d", augment=augment)
    first = contents(tmp_path / "d")
    build(corpus, vocabulary, tmp_path / "d", augment=AugmentSettings(all_caps=0.5))
    assert contents(tmp_path / "d")["source.bin"] != first["source.bin"]
    (tmp_path / "d" / "source.bin").write_bytes(b"")
    build(corpus, vocabulary, tmp_path / "d", augment=augment)
    assert contents(tmp_path / "d") == first


def test_other_languages_are_another_dataset(corpus: Path, vocabulary: Path, tmp_path: Path) -> None:
    other = tmp_path / "v"  # the rules of upper case are Turkish there
    other.mkdir()
    (other / "tokenizer.json").write_bytes((vocabulary / "tokenizer.json").read_bytes())
    config = json.loads((vocabulary / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps({**config, "source_lang": "tr"}))
    augment = AugmentSettings(**{**dict.fromkeys(SHARES, 0.0), "all_caps": 0.5})
    build(corpus, vocabulary, tmp_path / "d", augment=augment)
    build(corpus, other, tmp_path / "d", augment=augment)
    build(corpus, other, tmp_path / "fresh", augment=augment)
    assert contents(tmp_path / "d") == contents(tmp_path / "fresh")


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(
    corpus: Path, vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shards, "PAIRS", 100)
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    build(corpus, vocabulary, tmp_path / "often", processes=1)
    told = capsys.readouterr().err
    assert told.count("\n") > 10 and "\r" not in told and told.endswith("\n")
    assert all(line.startswith("tokenize: ") and " pairs [" in line for line in told.splitlines())
    assert told.splitlines()[-1].startswith("tokenize: 1.50k pairs")
    monkeypatch.setattr(progress, "SECONDS", 30.0)
    build(corpus, vocabulary, tmp_path / "seldom", processes=1)
    assert capsys.readouterr().err.count("\n") == 2  # begun, and done


def test_damage_is_told(corpus: Path, vocabulary: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"none: no complete dataset .*build it anew"):
        PackedDataset(tmp_path / "none")
    build(corpus, vocabulary, tmp_path / "d")
    ids = (tmp_path / "d/target.bin").read_bytes()
    (tmp_path / "d/target.bin").write_bytes(ids[:-2])
    with pytest.raises(CorpusError, match=r"target\.bin and target_offsets\.npy do not fit"):
        PackedDataset(tmp_path / "d")
    (tmp_path / "d/target.bin").unlink()
    with pytest.raises(CorpusError, match="no complete dataset"):
        PackedDataset(tmp_path / "d")
    card = json.loads((tmp_path / "d/dataset.json").read_text())
    (tmp_path / "d/dataset.json").write_text(json.dumps({**card, "format": 9}))
    with pytest.raises(CorpusError, match="a dataset of format 9; this version reads 1"):
        PackedDataset(tmp_path / "d")
    with pytest.raises(CorpusError, match="no such file"):
        build(tmp_path / "none.tsv.zst", vocabulary, tmp_path / "e")
    with pytest.raises(VocabularyError, match="no such file"):
        build(corpus, tmp_path / "none", tmp_path / "e")
    assert not (tmp_path / "e/dataset.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on file sizes")
def test_a_full_disk_leaves_no_dataset(corpus: Path, vocabulary: Path, tmp_path: Path) -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from pathlib import Path; from mobilenmt.compression.dataset.dataset import *\n"
        f"try: build_dataset(Path({str(corpus)!r}), Path({str(vocabulary)!r}), Path({str(tmp_path / 'd')!r}),"
        "weights={}, augment=None, seed=1, max_tokens=100)\n"
        "except CorpusError as error: print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.endswith("the dataset cannot be written: File too large\n")
    assert "Traceback" not in done.stderr, done.stderr
    assert [path for path in (tmp_path / "d").rglob("*") if path.is_file()] == []


def test_reading_keeps_a_million_tokens_a_second(corpus: Path, vocabulary: Path, tmp_path: Path) -> None:
    dataset = build(corpus, vocabulary, tmp_path / "d", weights={"*": 4.0})
    order = np.random.default_rng(1).permutation(len(dataset))
    begin, tokens = time.process_time(), 0
    for at in range(0, len(order), 128):
        rows = order[at : at + 128]
        dataset.gather(rows, pad=499)
        tokens += int(dataset.source_lengths[rows].sum() + dataset.target_lengths[rows].sum())
    assert tokens / (time.process_time() - begin) > 1e6
