"""Parallel text of every format is read line by line, and what is no pair is told with its line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from mobilenmt.compression.core.errors import CorpusError, RecipeError
from mobilenmt.compression.core.pairs import Pair, PairWriter, read_pairs
from mobilenmt.compression.core.settings import from_mapping
from mobilenmt.compression.core.streams import count_lines
from mobilenmt.compression.corpus.readers import Malformed, Row, Source, check, expand, parts_of

Item = Row | Malformed
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
}


def read(source: Source) -> list[Item]:
    return [item for part in parts_of(source) for item in part.read()]


@pytest.mark.parametrize("ending", COMPRESS)
def test_tsv_of_every_compression_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"talks.en-de.tsv{ending}"
    path.write_bytes(COMPRESS[ending](b"a cat\teine Katze\ntwo\tzwei\tted:x\n"))
    assert read(Source(paths=(path,))) == [Row(1, "a cat", "eine Katze", ""), Row(2, "two", "zwei", "ted:x")]
    [part] = parts_of(Source(paths=(path,)))
    assert (part.tag, part.fixed_tag, part.size) == ("talks.en-de", False, path.stat().st_size)
    assert count_lines(path) == 2


def test_compression_is_known_by_content_not_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes(gzip.compress(b"a\tb\n") + gzip.compress(b"c\td\n"))
    assert [item.number for item in read(Source(paths=(path,)))] == [1, 2]
    path.write_bytes(COMPRESS[".zst"](b"a\tb\n") + COMPRESS[".zst"](b"c\td"))
    assert read(Source(paths=(path,))) == [Row(1, "a", "b", ""), Row(2, "c", "d", "")]


@pytest.mark.parametrize("ending", [".gz", ".xz", ".bz2", ".zst"])
@pytest.mark.parametrize("cut", [0.5, 0.98])
def test_a_file_that_was_cut_short_is_an_error_not_an_end(tmp_path: Path, ending: str, cut: float) -> None:
    path = tmp_path / f"x.tsv{ending}"
    data = COMPRESS[ending]("".join(f"line {n * 7919 % 10007}\tZeile {n}\n" for n in range(20000)).encode())
    path.write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(CorpusError, match=r"x\.tsv.*cannot be read behind line \d+: .*fetch it again"):
        read(Source(paths=(path,)))


def test_lines_end_at_lf_alone_and_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes("\ufeffa\u2028b\tc\u0085d\r\nx\x0cy\tz\x1ew\n".encode())
    assert read(Source(paths=(path,))) == [Row(1, "a\u2028b", "c\u0085d", ""), Row(2, "x\x0cy", "z\x1ew", "")]


def test_lines_that_are_no_pairs_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes(b"one\teins\nno tab\n\n\xff\xfe\tx\na\tb\tc\td\ntwo\tzwei")
    items = read(Source(paths=(path,)))
    assert [(item.number, item.reason) for item in items if isinstance(item, Malformed)] == [
        (2, "no tab"),
        (3, "no tab"),
        (4, "not UTF-8"),
        (5, "4 columns; expected source, target and tag"),
    ]
    assert [item.source for item in items if isinstance(item, Row)] == ["one", "two"]


def test_moses_files_are_known_by_their_names(tmp_path: Path) -> None:
    paths = (tmp_path / "talks.en", tmp_path / "talks.de.gz")
    paths[0].write_bytes(b"one\ntwo\tx\nthree\n")
    paths[1].write_bytes(gzip.compress(b"eins\nzwei\n\xff\n"))
    first, second, third = read(Source(paths=paths))
    assert (first, second) == (Row(1, "one", "eins", ""), Row(2, "two\tx", "zwei", ""))
    assert isinstance(third, Malformed) and (third.number, third.reason) == (3, "not UTF-8")
    [part] = parts_of(Source(paths=paths, tag="ted"))
    assert (part.name, part.tag, part.fixed_tag) == ("talks.en | talks.de.gz", "ted", True)


def test_moses_files_of_different_lengths_are_refused_before_they_are_read(tmp_path: Path) -> None:
    paths = (tmp_path / "x.en", tmp_path / "x.de")
    paths[0].write_text("a\n" * 5000)
    paths[1].write_text("a\n" * 4999)
    [part] = parts_of(Source(paths=paths))
    with pytest.raises(CorpusError, match=r"x\.en has 5000 lines and .*x\.de has 4999"):
        check(part)
    with pytest.raises(CorpusError, match="different numbers of lines"):
        list(part.read())


def test_json_lines_with_keys_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows = [
        {"translation": {"en": "one", "de": "eins"}, "origin": "ted"},
        {"translation": {"en": "two\nlines", "de": "zwei"}},
        {"translation": {"en": "no other"}},
        {"translation": {"en": "three", "de": 3}},
        {"translation": "none"},
    ]
    text = "\n".join(json.dumps(row) for row in rows) + '\n\n{"cut":\n'
    path.write_text(text)
    source = Source(paths=(path,), source_key="translation.en", target_key="translation.de", tag_key="origin")
    items = read(source)
    assert items[:2] == [Row(1, "one", "eins", "ted"), Row(2, "two lines", "zwei", "")]
    assert [(item.number, item.reason) for item in items[2:] if isinstance(item, Malformed)] == [
        (3, "no text under 'translation.de'"),
        (4, "no text under 'translation.de'"),
        (5, "no text under 'translation.en'"),
        (7, "not JSON"),
    ]


def test_datasets_on_the_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    count = 2500
    table = {"source": [f"s{n}" for n in range(count)], "target": [f"t{n}" for n in range(count)], "other": [0] * count}
    table["target"][7] = None  # type: ignore[call-overload]
    datasets.Dataset.from_dict(table).save_to_disk(tmp_path / "plain")
    items = read(Source(paths=(tmp_path / "plain",)))
    assert [item.number for item in items] == list(range(1, count + 1))
    assert items[-1] == Row(count, f"s{count - 1}", f"t{count - 1}", "")
    assert isinstance(items[7], Malformed)

    nested = datasets.Dataset.from_dict({"translation": [{"en": "one", "de": "eins"}]})
    datasets.DatasetDict({"train": nested, "test": nested}).save_to_disk(tmp_path / "nested")
    keys = {"source_key": "translation.en", "target_key": "translation.de"}
    assert read(Source(paths=(tmp_path / "nested",), **keys)) == [Row(1, "one", "eins", "")]
    for source, message in (
        (Source(paths=(tmp_path / "nested",), split="dev", **keys), "no split 'dev'; set split to one of train, test"),
        (Source(paths=(tmp_path / "nested",)), "has no column 'source' but translation"),
        (Source(paths=(tmp_path,)), "not a dataset saved with save_to_disk"),
    ):
        with pytest.raises(CorpusError, match=message):
            read(source)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.tsv", b"", r"x\.tsv: empty"),
        ("x.tsv", "gut\tschön\n".encode("utf-16") * 50, r"\d+ of the first \d+ lines are no pairs \(line 1: "),
        ("x.tsv", ("a\tübel\n" * 300).encode("latin-1"), r"300 of the first 300 lines .*line 1: not UTF-8"),
        ("x.tsv", b"just text\n" * 10, r"10 of the first 10 lines .*no tab.*is the format right\?"),
        ("x.jsonl", b"a\tb\n" * 10, r"not JSON"),
        ("x.csv", b"a,b\n", r"x\.csv: its name does not tell its format"),
    ],
)
def test_a_wrong_file_is_refused_by_its_beginning(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        for part in parts_of(Source(paths=(tmp_path / name,))):
            check(part)


def test_a_pattern_stands_for_its_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.tsv", "a.tsv", "c.txt", "[x].tsv"):
        (tmp_path / name).write_text("a\tb\n")
    assert [part.name for part in parts_of(Source(paths=(tmp_path / "?.tsv",)))] == ["a.tsv", "b.tsv"]
    assert expand(tmp_path / "[x].tsv") == [tmp_path / "[x].tsv"]
    with pytest.raises(CorpusError, match=r"\*\.gz: no file matches"):
        expand(tmp_path / "*.gz")
    with pytest.raises(CorpusError, match=r"none\.tsv: no such file"):
        parts_of(Source(paths=(tmp_path / "none.tsv",)))
    with pytest.raises(CorpusError, match=r"none\.en: no such file"):
        parts_of(Source(paths=(tmp_path / "none.en", tmp_path / "none.de"), format="moses"))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"paths": []}, "where.paths: expected at least one path"),
        ({"paths": ["a.en"], "format": "moses"}, "where.paths: format 'moses' takes .* found 1"),
        ({"paths": ["a.tsv"], "format": "csv"}, "where.format: expected one of"),
        ({"paths": ["a.tsv"], "weight": -1, "tag": "x"}, "where.weight: expected 0 to 1000"),
        ({"paths": ["a.tsv"], "weight": 1e300, "tag": "x"}, "where.weight: expected 0 to 1000"),
        ({"paths": ["a.tsv"], "weight": 2}, "where.weight: needs a tag"),
        ({"paths": ["a.tsv"], "tag": ""}, "where.tag: expected a text"),
    ],
)
def test_settings_of_a_source_are_checked(raw: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        from_mapping(Source, raw, "where")


# --- the file of pairs between the stages ---------------------------------------------------------------------------


def test_pairs_come_back_as_they_were_written(tmp_path: Path) -> None:
    pairs = [Pair("a", "b"), Pair("", "ü 😀\u2028\u0085\x0b", "t:x"), Pair("nul \x00", "\ufeff", " ")]
    with PairWriter(tmp_path / "p.tsv.zst") as writer:
        for pair in pairs:
            writer.write(pair)
        writer.write(Pair("a\tb\r\nc", "d\ud83d\ude00 \ud800"))
    assert list(read_pairs(tmp_path / "p.tsv.zst")) == [*pairs, Pair("a b c", "d😀 \ufffd")]
    assert writer.count == 4


def test_a_file_of_pairs_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "p.tsv.zst"
    with pytest.raises(KeyboardInterrupt), PairWriter(path) as writer:
        writer.write(Pair("a", "b"))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with PairWriter(path) as writer:
        for number in range(1000):
            writer.write(Pair(f"a{number * number}", "b"))
    whole = path.read_bytes()
    for broken in (whole[:-1], whole[: len(whole) // 2], whole[:-9] + b"\0" + whole[-8:], b"a\tb\n", b"\xff\t\t\n"):
        path.write_bytes(broken)
        with pytest.raises(CorpusError, match=r"p\.tsv\.zst: .*make the file anew"):
            list(read_pairs(path))
    with pytest.raises(CorpusError, match="no such file"):
        list(read_pairs(tmp_path / "none"))
    with pytest.raises(CorpusError, match="cannot be written"), PairWriter(tmp_path / "none" / "p"):
        pass
