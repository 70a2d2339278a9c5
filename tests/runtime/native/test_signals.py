"""What a handler of a signal raises ends a search of the C core, and comes out as it is: whenever it comes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command_line import environment
from mobilenmt.runtime.native import LIBRARY
from tiny_models import default_signals

pytestmark = [
    pytest.mark.skipif(not LIBRARY.is_file(), reason=f"the C core was not compiled: {LIBRARY} is not there"),
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals"),
]

_STRESS = """
import itertools, os, random, signal, sys, time
from mobilenmt.runtime.hypothesis import SearchOptions
from mobilenmt.runtime.native.engine import NativeEngine
from mobilenmt.runtime.pack import Pack

class OfTheirOwn(Exception): pass
class Beyond(BaseException): pass

KINDS = [OfTheirOwn, Beyond, KeyboardInterrupt, SystemExit]
random.seed(int(os.environ["SEED"]))
sent = kind = None

def handler(number, frame):
    global sent
    sent = time.monotonic()
    raise kind("now")

signal.signal(signal.SIGALRM, handler)
pack = Pack.open(os.environ["PACK"])
engines = [NativeEngine(pack), NativeEngine(pack, threads=2)]
sources = [[5 + (i * j) % 20 for j in range(1, 9)] for i in range(64)]
limits = [60] * len(sources)
one, four = SearchOptions(min_length=60), SearchOptions(4, min_length=60)
want = engines[0].generate(sources[:3], limits[:3], one)
worst = 0.0
for turn in range(int(os.environ["TURNS"])):
    kind, engine = KINDS[turn % 4], engines[turn // 4 % 2]
    way, until = turn // 8 % 3, time.monotonic() + 60
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0002, 0.05))
        while time.monotonic() < until:
            if way == 2:
                for _ in engine.steps(sources[0], max_length=60): pass
            else:
                engine.generate(sources, limits, four if way else one)
        sys.exit(f"turn {turn}: {kind} was lost")
    except BaseException as error:
        if type(error) is not kind or error.args != ("now",):
            raise
        worst = max(worst, time.monotonic() - sent)
assert engines[0].generate(sources[:3], limits[:3], one) == want
print(f"{worst:.3f}")
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_a_handler_raises_ends_the_search(seed: int, tiny_pack: Path) -> None:
    """48 signals at random times, greedy, with a beam and as a stream, by one thread and two."""
    done = subprocess.run(
        [sys.executable, "-c", _STRESS],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment(PACK=str(tiny_pack), SEED=str(seed), TURNS="48"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) < 3  # seconds; a search of all sentences with a beam takes less, but they come for ever


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("beam", [1, 4])
def test_a_command_ends_at_once(number: int, code: int, beam: int, tiny_pack: Path, tmp_path: Path) -> None:
    """At a random moment of a long search; nothing is half written, and nothing is said."""
    source, out = tmp_path / "source", tmp_path / "out"
    out.mkdir()
    source.write_text("the dog sees the cat and the cat sees the dog\n" * 300_000)
    command = [sys.executable, "-m", "mobilenmt", "translate", "--pack", str(tiny_pack), "--beam", str(beam)]
    for _ in range(3):
        with subprocess.Popen(
            [*command, "--input", str(source), "--output", str(out / "text")],
            stderr=subprocess.PIPE,
            env=environment(),
            preexec_fn=default_signals,
        ) as child:
            assert child.stderr is not None
            until = time.monotonic() + 60
            while not any(path.stat().st_size for path in out.iterdir()):
                assert time.monotonic() < until and child.poll() is None, "nothing was written"
                time.sleep(0.02)
            time.sleep(random.uniform(0, 0.1))
            os.kill(child.pid, number)
            assert child.wait(30) == code
            assert child.stderr.read() == b""
        assert list(out.iterdir()) == []
