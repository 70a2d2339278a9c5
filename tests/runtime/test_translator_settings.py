"""A translator in other processes, and models with several target languages."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from collections import UserList, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilenmt import InputError, Translator
from mobilenmt.runtime.native import LIBRARY
from mobilenmt.runtime.reading import check_call
from mobilenmt.runtime.text.target import Targets
from places import SRC
from tiny_models import make_checkpoint

TEXT = "the dog sees\nthe cat runs"
ENGINES = ["onnx", *(["native"] if LIBRARY.is_file() else [])]


def test_a_pickle_is_a_path_and_settings(tiny_pack: Path, tmp_path: Path) -> None:
    translator = Translator(tiny_pack, threads=2, verify=False, engine="onnx")
    data = pickle.dumps(translator)
    assert len(data) < 1000
    for other in (pickle.loads(data), copy.copy(translator), copy.deepcopy(translator)):
        assert other is not translator and other.engine == "onnx" and other.pack.path == translator.pack.path
        assert other.translate(TEXT) == translator.translate(TEXT)


def test_a_spawned_process_in_another_folder_opens_it_anew(
    tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_pack.parent)
    translator = Translator(tiny_pack.name)
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).translate('the dog sees'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(translator),
        capture_output=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SRC), "PYTHONIOENCODING": "utf-8"},
    )
    assert done.stdout.decode().splitlines() == translator.translate("the dog sees").splitlines()


@pytest.mark.parametrize(
    "texts", [{"a"}, {"a": 1}, {0: "a"}, (text for text in ["a"]), iter(["a"]), map(str, [1]), None, 5, b"a"], ids=repr
)
def test_texts_that_are_no_sequence_are_refused(tiny_pack: Path, texts: Any) -> None:
    with pytest.raises(InputError, match="texts must be a sequence of strings"):
        Translator(tiny_pack).translate_batch(texts)


def test_texts_may_be_any_sequence(tiny_pack: Path) -> None:
    translator, wanted = Translator(tiny_pack), ["the dog", "a cat"]
    for texts in (tuple(wanted), UserList(wanted), deque(wanted), np.array(wanted)):
        assert translator.translate_batch(texts) == translator.translate_batch(wanted)


@pytest.fixture(scope="module")
def multi_pack(tmp_path_factory: pytest.TempPathFactory, make_pack: Callable[..., Path]) -> Path:
    checkpoint = make_checkpoint(tmp_path_factory.mktemp("multi") / "checkpoint")
    path = checkpoint / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    like = content["added_tokens"][0]
    for index, code in ((3, ">>deu<<"), (4, ">>nds<<")):
        content["model"]["vocab"][index][0] = code
        content["added_tokens"].append({**like, "id": index, "content": code})
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return make_pack(checkpoint, "int8")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_code_stands_before_every_segment(multi_pack: Path, engine: str) -> None:
    translator = Translator(multi_pack, engine=engine)
    assert translator.targets == ("deu", "nds")
    lines = ["the dog sees", "the cat runs"]

    def translate(text: str, target: str | None = None) -> str:
        return translator.translate_batch([text], target=target, max_length=9)[0].text  # a limit: no guard

    for code in ("deu", ">>nds<<"):
        own = f">>{code.strip('<>')}<<"
        expected = "\n".join(translate(f"{own} {line}") for line in lines)
        assert translate(TEXT, code) == translate(f"{own} {TEXT}") == expected
        assert list(translator.stream(TEXT, target=code)) == list(translator.stream(f"{own} {TEXT}"))
    assert translate(TEXT, "deu") != translate(TEXT, "nds") and translate(TEXT, "deu") != translate(TEXT)
    mixed = translate(f">>deu<< {lines[0]}\n>>nds<< {lines[1]}", "nds")
    assert mixed == f"{translate(lines[0], 'deu')}\n{translate(lines[1], 'nds')}"


def test_every_part_of_a_long_line_has_the_code(multi_pack: Path) -> None:
    translator = Translator(multi_pack)
    call = check_call(translator.pack.manifest, [], {"split": False}, beam_size=1)
    plan = translator._segments("the dog sees the cat. " * 60, translator._passage("deu", call), call)
    pieces = [piece for piece in plan if piece.ids is not None]
    assert len(pieces) > 2 and all(piece.ids is not None and piece.ids[0] == 3 for piece in pieces)
    assert max(len(piece.ids or ()) for piece in pieces) < translator.pack.manifest.model.max_positions


def test_a_wrong_code_names_those_there_are(multi_pack: Path, tiny_pack: Path) -> None:
    with pytest.raises(InputError, match="target 'fra' is unknown to this pack; it has deu, nds"):
        Translator(multi_pack).translate("the dog", target="fra")
    one = Translator(tiny_pack)
    assert one.targets == ()
    language = one.pack.manifest.target_language
    assert language is not None and one.translate(TEXT, target=language) == one.translate(TEXT)
    with pytest.raises(InputError, match=f"one target language \\({language}\\)"):
        one.translate("the dog", target="fra")
    with pytest.raises(InputError, match="code such as deu"):
        one.translate("the dog", target=5)  # type: ignore[arg-type]
    assert ">>" not in one.pack.file("tokenizer.json").read_text(encoding="utf-8")
    assert one._begin(">>deu<< the dog", {}) == ("", ">>deu<< the dog")  # no code here: ordinary text


def test_codes_are_read_once_and_only_when_needed() -> None:
    read: list[int] = []

    def content() -> bytes:
        read.append(1)
        return b'{"added_tokens":[{"content":">>deu<<"},{"content":">>zh_Hans<<"}],"vocab":{">>":1,"<<":2,">>deu<<":3}}'

    targets = Targets(content, "de")
    assert targets.check(None) == "" and targets.take("the dog") == ("", "the dog") and not read
    assert targets.encoder("", str.split)("the dog") == ["the", "dog"] and not read
    assert targets.codes == ("deu", "zh_Hans") and targets.check("zh_Hans") == "zh_Hans" and read == [1]
    assert targets.take("  >>deu<<  the") == ("deu", "   the")
    assert targets.take(">>fra<< the") == ("", ">>fra<< the")
    many = Targets(lambda: b"".join(b'">>a%d<<"' % i for i in range(60)), None)
    with pytest.raises(InputError, match="and 20 more"):
        many.check("deu")
