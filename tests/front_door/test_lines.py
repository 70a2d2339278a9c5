"""src/mobilenmt/lines.py: encodings of what is read and written."""

from __future__ import annotations

import codecs
import io
import os
from pathlib import Path

import pytest

from mobilenmt.lines import Sink, Source, check_encoding, open_input, read_batches
from mobilenmt.runtime.errors import InputError

TEXT = "Größe: 5 €\r\nzweite Zeile 😀\n\nvierte, ohne Ende"


def lines_of(path: Path, encoding: str | None = None) -> list[str]:
    with open_input(path, encoding) as source:
        return [line for lines, _ in read_batches(source) for line in lines]


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
        (b"", "utf-8"),
    ],
)
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, mark: bytes, encoding: str) -> None:
    path = tmp_path / "text"
    path.write_bytes(mark + TEXT.encode(encoding))
    assert lines_of(path) == TEXT.split("\n")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp1252", "gb18030", "utf-7"])
def test_an_encoding_that_is_named_is_read_and_written(tmp_path: Path, encoding: str) -> None:
    text = TEXT.replace("😀", "") if encoding == "cp1252" else TEXT
    path = tmp_path / "text"
    path.write_bytes(text.encode(encoding))
    assert lines_of(path, check_encoding(encoding)) == text.split("\n")
    stream = io.BytesIO()
    sink = Sink(stream, "out", check_encoding(encoding))
    for part in text.splitlines(keepends=True):
        sink.write(part)
    assert stream.getvalue().decode(encoding) == text
    assert stream.getvalue().count(codecs.BOM_UTF16) == text.encode(encoding).count(codecs.BOM_UTF16)  # one mark


@pytest.mark.parametrize("data", [b"\xff", b"\xfe\xff", b"\xff\xfe", b"\x00", b"", b"\xff\xfe\x00", b"\x00\x00\xfe"])
def test_short_inputs_that_begin_like_a_mark_end(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "text"
    path.write_bytes(data)
    assert len(lines_of(path)) <= 1


def test_a_mark_may_come_byte_by_byte() -> None:
    reading, writing = os.pipe()
    source = Source(reading, "pipe")
    data = codecs.BOM_UTF16_BE + "äh\n".encode("utf-16-be")
    for byte in data:
        os.write(writing, bytes([byte]))
    os.close(writing)
    assert [line for lines, _ in read_batches(source) for line in lines] == ["äh"]
    os.close(reading)


def test_what_is_no_text_is_replaced_with_one_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"caf\xe9 \x81 \x8d\n")
    assert lines_of(path, "cp1252") == ["café \ufffd \ufffd"]
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1 and f"{path} is not all CP1252" in warning


def test_what_the_output_lacks_is_a_question_mark_with_one_warning(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.BytesIO()
    sink = Sink(stream, "out.txt", "latin-1")
    sink.write("„Grüße“")
    sink.write("→")
    assert stream.getvalue() == b"?Gr\xfc\xdfe??"
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1 and "out.txt" in warning and "LATIN-1" in warning


@pytest.mark.parametrize("name", ["utf-99", "hex", "rot13", "", "a" * 1000, "utf\0"])
def test_what_is_no_encoding_is_one_clear_line(name: str) -> None:
    with pytest.raises(InputError, match="is no encoding of text; try utf-8"):
        check_encoding(name)
