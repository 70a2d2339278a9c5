"""The command line, run as a user runs it: what it prints, what it leaves, and how it fails."""

from __future__ import annotations

import errno
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command_line import environment, fails, run
from mobilenmt import Translator, cli
from mobilenmt.commands import COMMANDS
from mobilenmt.lines import open_output
from mobilenmt.runtime.pack import Pack
from tiny_models import default_signals

# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_parser_and_functions_agree(name: str) -> None:
    """Every parameter is documented and every documented one exists; every option reaches the function."""
    function = COMMANDS[name]
    parameters = inspect.signature(function).parameters
    summary, _, helps = cli.parse_docstring(function)
    assert summary.endswith(".")
    assert list(helps) == list(parameters)
    actions = {action.dest: action for action in cli.build_command_parser(name)._actions if action.dest != "help"}
    assert set(actions) == set(parameters)
    for key, parameter in parameters.items():
        assert actions[key].help == helps[key]
        if parameter.default is not inspect.Parameter.empty:
            assert actions[key].default == parameter.default
    assert name in cli.build_parser().format_help()


def test_version_and_help() -> None:
    assert run("--version").stdout.startswith(b"mobilenmt 0.")
    assert b"translate" in run("--help").stdout
    assert run().returncode == 2


def test_a_list_is_positional_or_an_option_that_repeats() -> None:
    parser = cli.build_command_parser("evaluate")
    options = parser.parse_intermixed_args(
        ["--test", "a.tsv", "b.tsv", "--peer", "x=1", "--test", "c.tsv", "--peer", "y=2", "--", "pack"]
    )
    assert options.test == [Path("a.tsv"), Path("b.tsv"), Path("c.tsv")] and options.peer == ["x=1", "y=2"]
    assert parser.parse_intermixed_args(["pack"]).test is None
    options = cli.build_command_parser("compress").parse_intermixed_args(
        ["--set", "a=1", "recipe.toml", "--set", "b=2"]
    )
    assert (options.set, options.recipe) == (["a=1", "b=2"], Path("recipe.toml"))
    with pytest.raises(SystemExit):
        cli.build_command_parser("compress").parse_intermixed_args(["recipe.toml", "--until", "dinner"])


def test_light_commands_load_nothing_of_the_pipeline(tiny_pack: Path) -> None:
    code = f"""
import sys
from mobilenmt import cli
assert cli.main(["translate", "--pack", {str(tiny_pack)!r}, "the dog"]) == 0
assert cli.main(["info", {str(tiny_pack)!r}]) == 0
heavy = ("mobilenmt.compression", "mobilenmt.pipeline", "mobilenmt.export")
loaded = {{name for name in sys.modules if name.startswith(heavy)}}
loaded |= {{"torch", "transformers", "sacrebleu", "tqdm", "zstandard", "tomllib"}} & set(sys.modules)
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("compress", "filelock, xopen, matplotlib, sacrebleu, torch, onnx"),
        ("corpus", "filelock, xopen"),
        ("vocabulary", "filelock, xopen"),
        ("teacher_model", "filelock, xopen, matplotlib, sacrebleu, torch"),
        ("teacher", "filelock, xopen, onnx, sacrebleu, torch"),
        ("distill", "filelock, xopen, matplotlib, sacrebleu, torch"),
        ("evaluate", "sacrebleu"),
        ("shortlist", "torch, onnx"),
    ],
)
def test_without_the_extra_one_line_says_what_a_command_lacks(
    command: str, missing: str, tiny_pack: Path, tmp_path: Path
) -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys(["filelock", "xopen", "matplotlib", "sacrebleu", "torch", "onnx"]))
from mobilenmt import cli
sys.exit(cli.main({[command, str(tiny_pack)]!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, env=environment(), cwd=tmp_path
    )
    fails(done, f"mobilenmt {command} needs {missing}, not installed", "extra 'compress'", "pip install '.[compress]'")


# --- translate --------------------------------------------------------------------------------------------------------


def test_each_argument_gives_a_line(tiny_pack: Path) -> None:
    done = run("translate", "--pack", tiny_pack, "the dog", "", "two cats")
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().split("\n")
    assert len(lines) == 4 and lines[1] == "" and lines[3] == ""


def test_texts_and_options_mix_and_a_text_is_one_line(tiny_pack: Path) -> None:
    plain = run("translate", "--pack", tiny_pack, "--beam", 2, "the\ndog", "--", "-cats").stdout
    assert plain.count(b"\n") == 2
    assert run("translate", "the\ndog", "--beam", 2, "--pack", tiny_pack, "--", "-cats").stdout == plain
    assert run("translate", "the\ndog", "--beam", 2, "the dog", "--pack", tiny_pack).stdout.count(b"\n") == 2
    assert run("translate", "--be", 2, "x").returncode == 2


def test_sentences_by_the_pack_or_by_an_option(tiny_pack: Path) -> None:
    alone = [run("translate", "--pack", tiny_pack, text).stdout.strip() for text in ("the dog.", "Two cats.", "Where?")]
    text = "the dog. Two cats. Where?"
    by_sentence = run("translate", "--pack", tiny_pack, text).stdout.strip()
    assert by_sentence == b" ".join(alone) == run("translate", "--pack", tiny_pack, "--split", text).stdout.strip()
    for option, count in (("--split", 3), ("--no-split", 1)):
        found = json.loads(run("translate", "--pack", tiny_pack, "--json", option, text).stdout)
        assert len(found["sentences"]) == count


def test_unwrap_gives_a_line_for_each_paragraph(tiny_pack: Path) -> None:
    wrapped = (
        "the dog sees the cat in the house here today and\nthe cat sees the dog there.\n\n- one\n- two\n\n"
        "the dog sees the cat in the house here today and\nthe cat sees the dog there."
    )
    joined = wrapped.replace("and\n", "and ")
    expected = run("translate", "--pack", tiny_pack, stdin=joined.encode()).stdout
    assert run("translate", "--pack", tiny_pack, "--unwrap", stdin=wrapped.encode()).stdout == expected
    assert run("translate", "--pack", tiny_pack, "--unwrap", stdin=f"{wrapped}\n".encode()).stdout == expected + b"\n"
    assert expected.count(b"\n") == 5 and run("translate", "--pack", tiny_pack, "--unwrap").stdout == b""


def test_invalid_utf8_in_an_argument_is_replaced(tiny_pack: Path) -> None:
    done = run("translate", "--pack", tiny_pack, "--json", "caf\udce9 x", "\udcff", "a\u2028b")
    assert done.stderr.count(b"\n") == 1 and b"warning" in done.stderr
    objects = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [item["source"] for item in objects] == ["caf\ufffd x", "\ufffd", "a\u2028b"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["translate x --pack", "info", "verify"])
def test_standard_output_full_or_closed(command: str, tiny_pack: Path) -> None:
    closed = 2 if command.startswith("translate") else 0  # what only reports has nobody to report to
    for where, code in (("/dev/full", 2), ("&-", closed)):
        shell = f"{sys.executable} -m mobilenmt {command} '{tiny_pack}' >{where}"
        done = subprocess.run(["bash", "-c", shell], capture_output=True, check=False, env=environment())
        assert done.returncode == code, done
        assert done.stderr.count(b"\n") == (1 if code else 0), done
        assert b"unexpected" not in done.stderr


def test_short_memory_is_no_mistake_of_the_program(
    tiny_pack: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(*arguments: Any, **options: Any) -> int:
        raise MemoryError

    monkeypatch.setattr(Pack, "open", none)
    assert cli.main(["info", str(tiny_pack)]) == 2
    assert capsys.readouterr().err == "mobilenmt: error: the system gives no more memory\n"


def test_lines_end_at_line_feeds_only_and_keep_their_number(tiny_pack: Path) -> None:
    text = "the dog\r\n\n one\x0btwo \n\x85\nwhere\u2028here\n  \nlast"
    done = run("translate", "--pack", tiny_pack, stdin=text.encode())
    found = done.stdout.decode().split("\n")
    assert len(found) == text.count("\n") + 1  # no final line end, as in the input
    assert found[0].endswith("\r")
    assert found[1] == "" and found[3] == "\x85" and found[5] == "  "
    assert found[2].startswith(" ") and found[2].endswith(" ") and "\x0b" in found[2]
    assert "\u2028" in found[4]


def test_invalid_utf8_gives_one_warning(tiny_pack: Path) -> None:
    done = run("translate", "--pack", tiny_pack, "--json", stdin=b"the \xff dog\nok\n\xfe\xff\n")
    assert done.returncode == 0
    assert len(done.stderr.decode().splitlines()) == 1 and b"warning" in done.stderr
    objects = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert objects[0]["source"] == "the \ufffd dog"
    assert set(objects[0]) == {"source", "text", "score", "tokens", "alternatives", "flags", "sentences"}


def test_a_line_is_answered_before_the_pipe_closes(tiny_pack: Path) -> None:
    command = [sys.executable, "-m", "mobilenmt", "translate", "--pack", str(tiny_pack)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as child:
        assert child.stdin is not None and child.stdout is not None
        for _ in range(2):
            child.stdin.write(b"the dog\n")
            child.stdin.flush()
            assert child.stdout.readline().endswith(b"\n")
        child.stdin.close()
        assert child.wait(20) == 0


def test_files_in_and_out(tiny_pack: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "quelle ü.txt", tmp_path / "ziel ü.txt"
    source.write_text("the dog\n" * 200)
    target.write_text("old")
    done = run("translate", "--pack", tiny_pack, "--input", source, "--output", target)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    lines = target.read_text().split("\n")
    assert len(lines) == 201 and len(set(lines[:-1])) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name, target.name]


def test_output_keeps_permissions_and_links(tiny_pack: Path, tmp_path: Path) -> None:
    secret, link, new = tmp_path / "secret", tmp_path / "link", tmp_path / "new"
    secret.write_text("old")
    secret.chmod(0o600)
    link.symlink_to(secret)
    assert run("translate", "--pack", tiny_pack, "--output", link, "the dog").returncode == 0
    assert link.is_symlink() and secret.stat().st_mode & 0o777 == 0o600 and secret.read_text() != "old"
    assert run("translate", "--pack", tiny_pack, "--output", new, "the dog").returncode == 0
    (tmp_path / "usual").touch()
    assert new.stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("how", [">", ">>"])
def test_output_to_an_open_file_goes_on_where_it_stands(name: str, how: str, tiny_pack: Path, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("precious\n")
    (tmp_path / "link").symlink_to("/dev/stdout")
    command = f"{sys.executable} -m mobilenmt translate --pack '{tiny_pack}' --output {name} 'the dog'"
    shell = f"(echo before; {command}; echo after) {how}log"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, check=False, cwd=tmp_path, env=environment())
    assert (done.returncode, done.stderr) == (0, b"")
    lines = (tmp_path / "log").read_text().splitlines()
    expected = run("translate", "--pack", tiny_pack, "the dog").stdout.decode().rstrip("\n")
    assert lines == ["precious"] * (how == ">>") + ["before", expected, "after"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "log"]


def test_output_to_a_link_to_itself_is_told(tiny_pack: Path, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    fails(run("translate", "--pack", tiny_pack, "--output", loop, "the dog"), f"{loop}: Too many levels")
    assert loop.is_symlink()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_with_the_name_of_the_output(tiny_pack: Path, tmp_path: Path) -> None:
    fails(run("translate", "--pack", tiny_pack, "--output", "/dev/full", "the dog"), "/dev/full: No space left")
    (tmp_path / "lines").write_text("the dog\n" * 4000)
    out = tmp_path / "out"
    command = (
        f"{sys.executable} -m mobilenmt translate --pack '{tiny_pack}' --input '{tmp_path}/lines' --output '{out}'"
    )
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 8; {command}"], capture_output=True, check=False, env=environment()
    )
    fails(done, f"{out}: File too large")
    assert [path.name for path in tmp_path.iterdir()] == ["lines"]


def test_a_temporary_name_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: int = 0) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(PermissionError) as caught, open_output(tmp_path / "out"):
        pass
    assert caught.value.filename == str(tmp_path / "out")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="to root nothing is read-only")
def test_a_read_only_output_is_left_alone(tiny_pack: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("old")
    kept.chmod(0o400)
    fails(run("translate", "--pack", tiny_pack, "--output", kept, "the dog"), "read-only")
    assert kept.read_text() == "old"


def test_n_best(tiny_pack: Path) -> None:
    done = run("translate", "--pack", tiny_pack, "--json", "--beam", 3, "--n-best", 3, "the dog")
    value = json.loads(done.stdout)
    scores = [value["score"], *(item["score"] for item in value["alternatives"])]
    assert 1 < len(scores) <= 3 and scores == sorted(scores, reverse=True)
    texts = [value["text"], *(item["text"] for item in value["alternatives"])]
    assert len(set(texts)) == len(texts)


def test_encoding_and_target(tiny_pack: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes("the dog\r\nthe cat\r\n".encode("utf-16"))
    plain = run("translate", "--pack", tiny_pack, "the dog").stdout.strip()
    marked = run("translate", "--pack", tiny_pack, "--input", source)
    assert (marked.returncode, marked.stderr) == (0, b"") and marked.stdout.splitlines()[0] == plain
    run("translate", "--pack", tiny_pack, "--input", source, "--encoding", "UTF-16", "--output", target)
    assert target.read_bytes().decode("utf-16").splitlines() == marked.stdout.decode().splitlines()
    fails(run("translate", "--pack", tiny_pack, "--encoding", "utf-99", "the dog"), "--encoding: 'utf-99'")
    fails(run("translate", "--pack", tiny_pack, "--target", "xx", "the dog"), "one target language")


def test_a_reader_that_leaves_is_no_error(tiny_pack: Path, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("the dog and the cat\n" * 3000)
    shell = f"{sys.executable} -m mobilenmt translate --pack {tiny_pack} --input {tmp_path / 'lines'} | head -n 1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, check=False, env=environment())
    assert done.stderr == b"" and done.stdout.count(b"\n") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupt_leaves_nothing_behind(number: int, code: int, tiny_pack: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mobilenmt", "translate", "--pack", str(tiny_pack), "--output", "out.txt"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(),
        preexec_fn=default_signals,
    ) as child:
        assert child.stdin is not None and child.stderr is not None
        child.stdin.write(b"the dog\n")
        child.stdin.flush()
        for _ in range(200):
            if any(path.stat().st_size for path in tmp_path.iterdir()):
                break
            time.sleep(0.05)
        else:
            pytest.fail("nothing was written, so there is nothing to leave behind")
        child.send_signal(number)
        assert child.wait(20) == code
        assert child.stderr.read() == b""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["translate", "--pack", "nope", "x"], ["nope", "looked in"]),
        (["translate", "--input", "missing.txt"], ["missing.txt"]),
        (["translate", "--output", "no/such/folder", "x"], ["no such folder"]),
        (["translate", "--output", ".", "x"], ["is a folder"]),
        (["translate", "--beam", "0", "x"], ["beam_size"]),
        (["translate", "--beam", "1000", "x"], ["beam_size"]),
        (["translate", "--threads", "-1", "x"], ["threads"]),
        (["translate", "--n-best", "2", "x"], ["--json"]),
        (["info", "nope"], ["nope"]),
        (["verify", "nope"], ["nope"]),
        (["export", "missing", "out"], ["missing", "no such checkpoint"]),
        ([], ["COMMAND", "--help"]),
        (["nope"], ["'nope'", "'translate'"]),
        (["translate", "--beam", "four", "x"], ["--beam", "'four'", "mobilenmt translate --help"]),
        (["translate", "--frobnicate", "x"], ["--frobnicate"]),
        (["info"], ["PACK"]),
    ],
)
def test_wrong_use_gives_one_line(arguments: list[str], words: list[str], tiny_pack: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mobilenmt", *arguments]
    packs = {"MOBILENMT_PACKS": str(tiny_pack.parent)}
    done = subprocess.run(command, capture_output=True, check=False, cwd=tmp_path, env=environment(**packs))
    fails(done, *words)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_pack_gives_one_line(tiny_pack: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "en-de"
    for name, damage, word in (
        ("weights.bin", lambda data: data[:-1], "weights.bin"),
        ("translator.onnx", lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:], "SHA-256"),
        ("pack.json", lambda data: data.replace(b'"2.1"', b'"3.0"'), "update mobilenmt"),
        ("pack.json", lambda data: b"[" * 100_000, "pack.json"),
    ):
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(tiny_pack, damaged)
        (damaged / name).write_bytes(damage((damaged / name).read_bytes()))
        fails(run("verify", damaged), word)


# --- info, verify, export ---------------------------------------------------------------------------------------------


def test_info_and_verify(tiny_pack: Path) -> None:
    text = run("info", tiny_pack).stdout.decode()
    for word in ("languages", "en -> de", "weights.bin", "total", "parameters"):
        assert word in text
    value = json.loads(run("info", tiny_pack, "--json").stdout)
    assert value["total_bytes"] == sum(path.stat().st_size for path in tiny_pack.iterdir())
    here = value["engine_here"]
    assert here["engine"] == Translator(tiny_pack).engine
    assert (here["kernels"] is None) == (here["engine"] == "onnx") == (here["reason"] is not None)
    done = run("verify", tiny_pack)
    assert done.returncode == 0 and b"ok" in done.stdout


def test_info_says_why_the_core_is_not_used(tiny_pack: Path, tmp_path: Path) -> None:
    pack = shutil.copytree(tiny_pack, tmp_path / "old")
    manifest = json.loads((pack / "pack.json").read_text())
    del manifest["files"]["native.bin"]
    (pack / "pack.json").write_text(json.dumps(manifest))
    (pack / "native.bin").unlink()
    here = json.loads(run("info", pack, "--json").stdout)["engine_here"]
    assert here["engine"] == "onnx" and here["kernels"] is None and "native.bin" in here["reason"]
    assert here["reason"] in run("info", pack).stdout.decode()


def test_info_takes_a_card_of_any_form(tiny_pack: Path, tmp_path: Path) -> None:
    pack = tmp_path / "en-de"
    shutil.copytree(tiny_pack, pack)
    manifest = json.loads((pack / "pack.json").read_text())
    manifest["card"] = {"training_data": 5, "notes": "one \x1b[31m", "scores": [], "licence": {"a": "ü\n"}}
    (pack / "pack.json").write_text(json.dumps(manifest))
    done = run("info", pack, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\x1b" not in done.stdout and b"pack.json" in done.stdout
    assert "bytes_per_parameter" in json.loads(run("info", pack, "--json").stdout)


def test_export_makes_a_pack_and_replaces_only_with_force(tiny_checkpoint: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.json"
    card.write_text('{"licence": "CC0"}')
    out = tmp_path / "de-en"
    done = run("export", tiny_checkpoint, out, "--card", card)
    assert done.returncode == 0, done.stderr.decode()
    value = json.loads(run("info", out, "--json").stdout)
    assert (value["card"], value["source_language"]) == ({"licence": "CC0"}, "de")
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    failed = run("export", tiny_checkpoint, out)
    assert failed.returncode == 2 and b"--force" in failed.stderr and b"Traceback" not in failed.stderr
    assert before == {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert run("export", tiny_checkpoint, out, "--force", "--precision", "fp32").returncode == 0


def test_a_full_disk_leaves_nothing(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real: Callable[..., Any] = Path.write_bytes

    def write_bytes(path: Path, data: bytes) -> int:
        if path.name == "decoder.onnx":
            raise OSError(28, "No space left on device", str(path))
        return int(real(path, data))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert cli.main(["export", str(tiny_checkpoint), str(tmp_path / "out")]) == 2
    assert "disk" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
