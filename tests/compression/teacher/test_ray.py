"""The teacher's shards on a Ray cluster: what comes out is what the local engine makes, whoever is killed."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from test_teacher import PROCESS, corpus, translate

from mobilenmt.compression.core.errors import TeacherError
from mobilenmt.compression.teacher.check import check_teacher
from mobilenmt.compression.teacher.open import translate_here
from mobilenmt.compression.teacher.ray_engine import Worker
from mobilenmt.compression.teacher.shards import plan_shards
from mobilenmt.compression.teacher.spec import TeacherSpec
from mobilenmt.compression.teacher.stage import TEXT, TeacherSettings


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Process ids of the workers of the cluster that a process started."""
    session = os.getsid(process.pid)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes()
                same = os.getsid(int(entry.name)) == session or b"teacher-test" in (entry / "environ").read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::MapWorker") and same:
                found.append(int(entry.name))
    return found


def listening(port_files: tuple[str, ...] = ("/proc/net/tcp", "/proc/net/tcp6")) -> set[tuple[str, str]]:
    """(address, inode) of sockets that listen, but for those on loopback."""
    found = set()
    for file in port_files:
        for line in Path(file).read_text().splitlines()[1:]:
            fields = line.split()
            address = fields[1].split(":")[0]
            loopback = address in ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")
            if fields[3] == "0A" and not loopback:
                found.add((address, fields[9]))
    return found


def run_on_ray(pairs: Path, folder: Path, settings: dict[str, Any], *, kill: bool) -> tuple[int, str, list[int]]:
    """Run on a cluster of two workers; ``kill`` one after the first shards. Return code, errors, and who was killed."""
    before = listening()
    open_sockets: set[tuple[str, str]] = set()
    arguments = {"pairs": str(pairs), "folder": str(folder), "engine": "ray", "workers": 2, **settings}
    environment = {**os.environ, "MOBILENMT_TEST": "teacher-test"}
    process = subprocess.Popen(
        [sys.executable, str(PROCESS), json.dumps(arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=environment,
    )
    killed: list[int] = []
    try:
        while process.poll() is None and not killed:
            time.sleep(0.02)
            workers = workers_of(process)
            index = folder / "shards" / "index.jsonl"
            if workers and index.exists() and index.read_bytes().count(b"\n") >= 2 and (not kill or len(workers) == 2):
                open_sockets |= listening() - before
                if not kill:
                    break
                os.kill(workers[0], signal.SIGKILL)
                killed.append(workers[0])
        error = process.communicate(timeout=240)[1].decode()
    finally:
        if process.poll() is None:
            process.kill()
    assert not open_sockets, f"the local cluster listens on other addresses than loopback: {open_sockets}"
    return process.returncode, error, killed


def test_worker_gives_what_the_local_engine_gives(tmp_path: Path, tiny_pack: Path) -> None:
    """What travels to a worker and back, without the cluster."""
    pairs = corpus(tmp_path / "pairs.tsv.zst", 40)
    settings = TeacherSettings(str(tiny_pack), shard_size=15, threads=1, search="n_best", n_best=2)
    machine = {"device": "cpu", "dtype": "pack", "threads": 1}
    spec = TeacherSpec.of(settings, check_teacher(settings, "en", "de"), "de", 1, machine)
    plan = plan_shards(pairs, 15, all_targets=False)
    worker = Worker(pickle.loads(pickle.dumps(spec)))
    requests = list(plan.requests(range(3)))
    rows = [worker({"number": number, "request": request}) for number, request in reversed(requests)]
    for shard, row in zip(translate_here(spec, plan, range(3)), reversed(rows), strict=True):
        found = pickle.loads(row["shard"])
        assert (found.number, found.pairs, found.counts) == (shard.number, shard.pairs, shard.counts)


needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray[data] is not installed")
in_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks for workers in /proc")


@needs_ray
@in_proc
@pytest.mark.slow
def test_two_workers_one_killed_give_what_the_local_engine_gives(tmp_path: Path, tiny_pack: Path) -> None:
    pairs = corpus(tmp_path / "pairs.tsv.zst", 600)
    settings: dict[str, Any] = {"checkpoint": str(tiny_pack), "shard_size": 15, "threads": 1, "beam_size": 4}
    translate(TeacherSettings(**settings), pairs, tmp_path / "local")
    code, error, killed = run_on_ray(pairs, tmp_path / "ray", settings, kill=True)
    assert code == 0, error
    assert killed, "no worker was killed: the test proves nothing"
    assert (tmp_path / "ray" / TEXT).read_bytes() == (tmp_path / "local" / TEXT).read_bytes()
    assert "Traceback" not in error


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1025", "nowhere", "ray://127.0.0.1:1025", "127.0.0.1:99999999"])
def test_cluster_that_is_not_there_is_one_error(tmp_path: Path, tiny_pack: Path, address: str) -> None:
    settings = TeacherSettings(str(tiny_pack), engine="ray", address=address)
    with pytest.raises(TeacherError, match=r"teacher\.address: "):
        translate(settings, corpus(tmp_path / "pairs.tsv.zst", 5), tmp_path / "teacher")


@needs_ray
@pytest.mark.slow
def test_error_of_a_worker_is_one_error(tmp_path: Path, tiny_pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"checkpoint": str(tiny_pack), "engine": "ray", "workers": 1}
    arguments = {"pairs": str(corpus(tmp_path / "p.tsv.zst", 5)), "folder": str(tmp_path / "teacher"), **settings}
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.py").write_text(
        "import sys\n"
        "if any('default_worker' in part for part in sys.orig_argv):\n"
        "    import mobilenmt.runtime.onnx.engine as engine\n"
        "    from mobilenmt.runtime.errors import EngineError\n"
        "    def fail(*_, **__):\n"
        "        raise EngineError('no memory left in this test')\n"
        "    engine.Engine.generate = fail\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    process = subprocess.run([sys.executable, str(PROCESS), json.dumps(arguments)], capture_output=True, text=True)
    assert process.returncode == 1
    assert (
        "TeacherError: the Ray engine stopped: " in process.stderr and "no memory left in this test" in process.stderr
    )
    assert "Traceback" not in process.stderr


@needs_ray
@in_proc
@pytest.mark.slow
def test_nodes_that_join_and_leave_change_nothing(tmp_path: Path, tiny_pack: Path) -> None:
    pairs = corpus(tmp_path / "pairs.tsv.zst", 900)
    settings: dict[str, Any] = {"checkpoint": str(tiny_pack), "shard_size": 15, "threads": 1, "beam_size": 4}
    translate(TeacherSettings(**settings), pairs, tmp_path / "local")
    script = tmp_path / "cluster.py"
    script.write_text(
        "import os, sys\n"
        "os.environ.update(RAY_USAGE_STATS_ENABLED='0', RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER='0')\n"
        "from ray.cluster_utils import Cluster\n"
        "def head(): return Cluster(initialize_head=True, head_node_args={'num_cpus': 0, 'include_dashboard': False})\n"
        "cluster, nodes = head(), []\n"
        "print(cluster.address, flush=True)\n"
        "for line in sys.stdin:\n"
        "    if line == 'add\\n': nodes.append(cluster.add_node(num_cpus=1))\n"
        "    if line == 'remove\\n': cluster.remove_node(nodes.pop(0), allow_graceful=False)\n"
        "    print('done', flush=True)\n"
        "cluster.shutdown()\n"
    )
    cluster = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert cluster.stdin is not None and cluster.stdout is not None

    def tell(order: str) -> None:
        assert cluster.stdin is not None and cluster.stdout is not None
        cluster.stdin.write(order + "\n")
        cluster.stdin.flush()
        assert cluster.stdout.readline() == "done\n"

    try:
        address = cluster.stdout.readline().strip()
        tell("add")
        folder = tmp_path / "ray"
        arguments = {"pairs": str(pairs), "folder": str(folder), "engine": "ray", "address": address, **settings}
        process = subprocess.Popen(
            [sys.executable, str(PROCESS), json.dumps(arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        index = folder / "shards" / "index.jsonl"

        def wait_for(shards: int) -> None:
            while process.poll() is None and not (index.exists() and index.read_bytes().count(b"\n") >= shards):
                time.sleep(0.02)

        wait_for(3)
        tell("add")
        wait_for(8)
        assert process.poll() is None, "it was done before a node left: the test proves nothing"
        tell("remove")
        error = process.communicate(timeout=300)[1].decode()
    finally:
        cluster.stdin.close()
        cluster.wait(60)
    assert process.returncode == 0, error
    assert (folder / TEXT).read_bytes() == (tmp_path / "local" / TEXT).read_bytes()
