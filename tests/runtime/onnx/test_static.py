"""Static graphs at work: the words they give, in which bucket, and what runs where they cannot."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from command_line import environment
from mobilenmt import InputError, PackError, Translator
from mobilenmt.runtime.errors import EngineError
from mobilenmt.runtime.hypothesis import SearchOptions
from mobilenmt.runtime.onnx.engine import Engine
from mobilenmt.runtime.onnx.ort import SessionConfig
from mobilenmt.runtime.onnx.static import host as host_module
from mobilenmt.runtime.onnx.static import providers
from mobilenmt.runtime.pack import Pack
from mobilenmt.runtime.sections import Variant
from tiny_models import WORDS, encode

STATIC = SessionConfig(static=True)
QNN = "QNNExecutionProvider"
TEXTS = [" ".join(WORDS[start : start + count]) for start, count in ((0, 1), (3, 5), (9, 9), (14, 20), (2, 7))]
LONG = " ".join(WORDS[:34])  # longer than the largest bucket of 32


def greedy_by_hand(pack: Pack, source: list[int], steps: int, index: int = 0) -> list[int]:
    """The likeliest tokens one after the other, bad ones left out, up to the end token."""
    variant = pack.manifest.variant
    assert variant is not None
    bucket = host_module.Bucket(pack, variant, index, providers.REFERENCE)
    bucket.encode(source, pack.manifest.tokens.eos)
    token, found = pack.manifest.tokens.start, []
    for _ in range(steps):
        logits = bucket.step([token])[0]
        logits[list(pack.manifest.generation.bad_token_ids)] = -np.inf
        token = int(logits.argmax())
        if token == pack.manifest.tokens.eos:
            break
        found.append(token)
    return found


def search(engine: Engine, sources: list[list[int]], limit: int = 24, **options: Any) -> list[list[tuple[int, ...]]]:
    found = engine.generate(sources, [limit] * len(sources), SearchOptions(**options))
    return [[output.ids for output in outputs] for outputs in found]


@pytest.fixture(scope="module")
def pack(static_pack: Path) -> Pack:
    return Pack.open(static_pack)


@pytest.fixture(scope="module")
def sources(pack: Pack) -> list[list[int]]:
    return encode(pack, TEXTS)


@pytest.fixture(scope="module")
def usual(pack: Pack, sources: list[list[int]]) -> list[list[tuple[int, ...]]]:
    """What the CPU's graphs say."""
    return search(Engine(pack), sources)


def caught(call: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What a call gives, and its warnings."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = call()
    return found, [str(item.message) for item in seen]


def test_the_words_are_those_of_a_search_by_hand(pack: Pack, sources: list[list[int]]) -> None:
    found = search(Engine(pack, STATIC), sources)
    for source, outputs in zip(sources, found, strict=True):
        index = 0 if len(source) < 16 else 1
        assert list(outputs[0]) == greedy_by_hand(pack, source, 22, index)  # the last of 23 is forced
    assert len({outputs[0] for outputs in found}) > 1


def test_score_limit_and_flags_are_those_of_the_stepwise_search(pack: Pack, sources: list[list[int]]) -> None:
    """The rules are one piece of code; here against the CPU's graphs, whose scores are near."""
    one, other = (Engine(pack, config).generate(sources, [6] * len(sources)) for config in (STATIC, None))
    for ours, usual in zip(one, other, strict=True):
        assert ours[0].generated <= 5
        assert ours[0].at_limit == (ours[0].generated == 5)
        if ours[0].ids == usual[0].ids:
            assert ours[0].score == pytest.approx(usual[0].score, abs=0.3)
            assert ours[0].flags == usual[0].flags


def test_rules_of_a_call_hold(pack: Pack, sources: list[list[int]]) -> None:
    engine = Engine(pack, STATIC)
    first = search(engine, sources)
    banned = first[1][0][0]
    assert all(banned not in outputs[0] for outputs in search(engine, sources, forbidden=(banned,)))
    assert all(len(outputs[0]) >= 8 for outputs in search(engine, sources, min_length=10))
    given = engine.generate(sources, [24] * len(sources), SearchOptions(), [[5, 6]] * len(sources))
    assert all(outputs[0].ids[:2] == (5, 6) for outputs in given)
    detailed = engine.generate(sources[:1], [24], SearchOptions(token_scores=True, alignment=True))[0][0]
    assert len(detailed.token_scores or ()) == detailed.generated
    assert len(detailed.alignment or ()) == len(detailed.ids)


def test_beams_run_on_the_cpus_graphs(pack: Pack, sources: list[list[int]]) -> None:
    assert search(Engine(pack, STATIC), sources, beam_size=3, n_best=2) == search(
        Engine(pack), sources, beam_size=3, n_best=2
    )


def test_threads_take_turns(pack: Pack, sources: list[list[int]]) -> None:
    alone = search(Engine(pack, STATIC), sources * 3)
    assert search(Engine(pack, SessionConfig(threads=4, static=True)), sources * 3) == alone


def test_buckets_by_source_and_by_output() -> None:
    variant = Variant("static", (16, 32), (20, 40), ("qdq",), {"8": 1})
    assert [variant.bucket(*size) for size in ((16, 20), (17, 1), (3, 21), (32, 40), (33, 1), (3, 41))] == [
        0,
        1,
        1,
        1,
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "dynamic"),
        ("source", [32, 16]),
        ("source", []),
        ("source", [16, 10**9]),
        ("target", [40]),
        ("forms", "qdq"),
        ("bits", {"8": -1}),
    ],
)
def test_a_variant_that_makes_no_sense_is_refused(pack: Pack, key: str, value: object) -> None:
    section = {**pack.manifest.to_dict()["variant"], key: value}
    with pytest.raises(PackError, match=r"source|kind|forms|bits|target"):
        Variant.from_dict(section)


def test_pack_json_says_what_is_there(pack: Pack) -> None:
    data = pack.manifest.to_dict()
    assert data["format_version"] == "2.2"
    assert data["variant"]["source"] == [16, 32]
    assert data["variant"]["forms"] == ["qdq", "float"]
    assert sum(data["variant"]["bits"].values()) == 2 * 4 + 1 + 2 * 6 + 1


# -- what runs where they cannot ------------------------------------------------------------------------------------


def test_a_provider_that_is_not_here_leaves_the_cpu_and_one_warning(
    pack: Pack, sources: list[list[int]], usual: list[list[tuple[int, ...]]]
) -> None:
    config = SessionConfig(providers=[QNN, "CPUExecutionProvider"])
    found, seen = caught(lambda: (engine := Engine(pack, config)) and [search(engine, sources) for _ in range(2)])
    assert found == [usual, usual]
    assert len(seen) == 1
    assert f"{QNN} is not in this onnxruntime" in seen[0]
    assert "graphs for the CPU run instead" in seen[0]


def test_the_translator_falls_back_too(static_pack: Path) -> None:
    translator, seen = caught(lambda: Translator(static_pack, providers=[QNN, "CPUExecutionProvider"]))
    assert (translator.engine, len(seen)) == ("onnx", 1)
    assert translator.translate("the dog runs") == Translator(static_pack, engine="onnx").translate("the dog runs")


def pretend(monkeypatch: pytest.MonkeyPatch, make: Callable[..., Any]) -> list[dict[str, Any]]:
    """As if onnxruntime had QNN; ``make`` stands for what opens its sessions. Gives what it was called with."""
    real, calls = onnxruntime.InferenceSession, []

    def session(path: str, options: Any, **more: Any) -> Any:
        names = [item[0] if isinstance(item, tuple) else item for item in more["providers"]]
        if not {*names} & {*providers.PROVIDERS}:
            return real(path, options, **more)
        calls.append({"path": path, **more})
        return make(lambda: real(path, options, providers=["CPUExecutionProvider"]))

    here = onnxruntime.get_available_providers()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*here, *providers.PROVIDERS])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return calls


class Pretender:
    """A session that says a provider of NPUs runs it."""

    def __init__(self, inner: Any, fail: bool = False) -> None:
        self._inner, self._fail = inner, fail

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def get_providers(self) -> list[str]:
        return [*providers.PROVIDERS, "CPUExecutionProvider"]

    def run_with_iobinding(self, binding: Any) -> None:
        if self._fail:
            raise RuntimeError("the NPU is hot\nand more")
        self._inner.run_with_iobinding(binding)


def refuse(open_it: Callable[[], Any]) -> Any:
    raise RuntimeError("no such device\nat line 1")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (refuse, f"{QNN} refuses .*: no such device;"),
        (lambda open_it: open_it(), f"{QNN} did not take"),
        (lambda open_it: Pretender(open_it(), fail=True), "the static graphs failed: the NPU is hot;"),
    ],
)
def test_a_provider_that_fails_leaves_the_cpu_and_one_warning(
    pack: Pack,
    sources: list[list[int]],
    usual: list[list[tuple[int, ...]]],
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[..., Any],
    complaint: str,
) -> None:
    pretend(monkeypatch, make)
    config = SessionConfig(providers=[QNN])
    found, seen = caught(lambda: (engine := Engine(pack, config)) and [search(engine, sources) for _ in range(2)])
    assert found == [usual, usual]
    assert len(seen) == 1
    assert re.search(complaint, seen[0])


def test_a_provider_that_is_here_gets_its_form_and_its_options(
    pack: Pack, sources: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = pretend(monkeypatch, lambda open_it: Pretender(open_it()))
    wanted = search(Engine(pack, STATIC), sources)
    found, seen = caught(lambda: search(Engine(pack, SessionConfig(providers=[QNN])), sources))
    assert (found, seen) == (wanted, [])
    assert {Path(call["path"]).name for call in calls} == {
        f"static-{part}.qdq.{size}.onnx" for part in ("encoder", "decoder") for size in (16, 32)
    }
    calls.clear()
    search(Engine(pack, SessionConfig(providers=["CoreMLExecutionProvider"])), sources[:1])
    assert [Path(call["path"]).name for call in calls] == [
        "static-encoder.float.16.onnx",
        "static-decoder.float.16.onnx",
    ]
    (name, options), last = calls[0]["providers"]
    assert (name, options["ModelFormat"], last) == ("CoreMLExecutionProvider", "MLProgram", "CPUExecutionProvider")


def test_a_source_longer_than_the_largest_bucket_runs_on_the_cpu(pack: Pack, sources: list[list[int]]) -> None:
    long = encode(pack, [LONG])[0]
    assert len(long) >= 32
    several = [sources[0], long, sources[1], long]
    engine = Engine(pack, STATIC)
    found, seen = caught(lambda: [search(engine, several) for _ in range(2)])
    assert found[0] == found[1]
    assert found[0][1] == search(Engine(pack), [long])[0]
    assert found[0][0] == search(engine, sources[:1])[0]
    assert len(seen) == 1
    assert "longer than the largest static graph (32 and 64)" in seen[0]


def test_an_unknown_provider_is_refused(pack: Pack, tiny_pack: Path) -> None:
    for providers_ in (["NoSuchProvider"], [QNN, "NoSuchProvider"]):
        with pytest.raises(InputError, match=r"NoSuchProvider is not available; available: "):
            Engine(pack, SessionConfig(providers=providers_))
    with pytest.raises(InputError, match=f"{QNN} is not available"):  # there is nothing static to fall back from
        Engine(Pack.open(tiny_pack), SessionConfig(providers=[QNN]))


def test_a_missing_file_is_a_damaged_pack(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "static_file", lambda *_: "no-such.onnx")
    with pytest.raises(PackError, match=r"no file .*no-such\.onnx"):
        Engine(pack, STATIC)


def test_nan_is_a_failure(
    pack: Pack, sources: list[list[int]], usual: list[list[tuple[int, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "REFERENCE", providers.REFERENCE.of("float"))  # rounding would make numbers of it
    engine = Engine(pack, STATIC)
    bucket = engine._static._bucket(0)
    encode_it = bucket.encode

    def spoil(source: list[int], eos: int) -> None:
        encode_it(source, eos)
        bucket._caches[0]["key.0"].fill(np.nan)

    bucket.encode = spoil
    found, seen = caught(lambda: search(engine, sources))
    assert found == usual
    assert len(seen) == 1 and "the static graphs give NaN" in seen[0]


def test_a_plug_in_is_found_by_its_devices(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        ep_name = QNN

    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: [Device()], raising=False)
    assert providers.is_here(QNN)
    with pytest.raises(EngineError, match=f"{QNN} refuses"):  # this one is none: what matters is that it was asked
        providers.open_static(pack.file("static-encoder.qdq.16.onnx"), providers.PROVIDERS[QNN])


def test_a_pack_without_static_graphs_loads_nothing_of_them(tiny_pack: Path) -> None:
    code = (
        f"import sys; from mobilenmt import Translator; Translator({str(tiny_pack)!r}, engine='onnx').translate('the');"
        "sys.exit(any('static' in name for name in sys.modules if name.startswith('mobilenmt')))"
    )
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == 0
