"""The teacher's shards on a Ray cluster, through Ray Data.

Ray Data rather than bare tasks: its pool of workers, each of which loads the teacher once, grows and shrinks with the
cluster; a shard whose worker is lost is given to another one; shards are handed out as fast as they are taken. The
driver reads the corpus and writes the shards, so workers share no disk with it: requests and lines travel by Ray. What
a worker needs is mobilenmt and the checkpoint, under the same path.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mobilenmt.compression.core.errors import TeacherError
from mobilenmt.compression.teacher.shards import ShardPlan, ShardText, unpack_items

if TYPE_CHECKING:
    from mobilenmt.compression.teacher.settings import TeacherSettings
    from mobilenmt.compression.teacher.spec import TeacherSpec

_STORE_BYTES = 256 << 20  # of a cluster started here; requests and lines are small, and Ray spills what is more
_IN_FLIGHT = 2  # shards given to a worker at once, so that it never waits; above 1.75, or Ray's pool would not grow


_CONNECT_SECONDS = 10.0


class Worker:
    """Translates shards; one process each, made by Ray."""

    def __init__(self, spec: TeacherSpec) -> None:
        from mobilenmt.compression.teacher.open import open_teacher

        self._spec = spec
        self._teacher = open_teacher(spec)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A shard's request translated; pickled, for a lone surrogate could not travel as text."""
        from mobilenmt.compression.teacher.text import translate_shard

        items = unpack_items(row["request"])
        return {"shard": pickle.dumps(translate_shard(self._teacher, int(row["number"]), items, self._spec))}


def translate_on_ray(spec: TeacherSpec, plan: ShardPlan, pending: Sequence[int]) -> Iterator[ShardText]:
    """Translate shards on a cluster; yields them in any order.

    Raises:
        TeacherError: Ray is not installed or not reached, or a worker met an error (its own is quoted).
    """
    with connected(spec.settings) as ray:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # ours counts sentences, and those of earlier runs
        rows = [{"number": number, "request": request} for number, request in plan.requests(pending)]
        workers = spec.settings.workers or None
        pool = ray.data.ActorPoolStrategy(
            min_size=1, max_size=workers, initial_size=1, max_tasks_in_flight_per_actor=_IN_FLIGHT
        )
        gpus = {"num_gpus": 1} if spec.device.startswith("cuda") else {}
        shards = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            Worker, fn_constructor_args=(spec,), compute=pool, num_cpus=spec.threads, **gpus
        )
        del rows
        try:
            for row in shards.iter_rows():
                yield pickle.loads(row["shard"])
        except (ray.exceptions.RayError, RuntimeError) as error:
            raise TeacherError(f"the Ray engine stopped: {_cause(error)}; the finished shards are kept") from error


@contextlib.contextmanager
def connected(settings: TeacherSettings) -> Iterator[Any]:
    """Yield the module ray, connected: to the cluster joined already, to the one at the address, or to a new one."""
    ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    if settings.address and settings.address != "auto":
        _check_address(settings.address)
    try:
        if settings.address:
            ray.init(address=settings.address, logging_level=logging.ERROR, log_to_driver=False)
        else:
            cores = os.cpu_count() or 1
            ray.init(
                num_cpus=max(cores, settings.workers * max(1, settings.threads)),  # as many workers as were asked for
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    except Exception as error:  # ConnectionError, RuntimeError, ValueError, and those of gRPC
        where = f"the Ray cluster at {settings.address!r}" if settings.address else "a Ray cluster on this machine"
        raise TeacherError(f"teacher.address: {where} cannot be reached: {_cause(error)}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def has_gpu(settings: TeacherSettings) -> bool:
    """Whether the cluster has a GPU."""
    if not settings.address:  # it will be started on this machine
        import torch

        return torch.cuda.is_available()
    with connected(settings) as ray:
        return float(ray.cluster_resources().get("GPU", 0)) > 0


def _check_address(address: str) -> None:
    """Ray itself would try for minutes, deaf to Ctrl-C, to reach a cluster that is not there."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in address:
        raise TeacherError(f"teacher.address: expected 'host:port' or 'auto', found {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise TeacherError(
            f"teacher.address: nothing answers at {address!r} ({getattr(error, 'strerror', None) or error}); "
            "is the head node up (ray start --head), and the port open to this machine?"
        ) from error


def _import_ray() -> Any:
    """Import ray so that it reports nothing, and, for a cluster of its own, listens on loopback alone."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # errors come as exceptions; the rest is of no use here
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # of no concern to us; without it a warning
    if "ray" not in sys.modules:
        # What Ray does on Windows and macOS: every server of a local cluster binds to 127.0.0.1.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise TeacherError(
            f"engine = 'ray' needs the extra 'ray' (in a checkout of mobilenmt, pip install '.[ray]'): {error}"
        ) from error
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # after its import, which sets it
    return ray


def _cause(error: BaseException) -> str:
    """What a worker raised, out of the text in which Ray wraps it: its traceback, and Ray's own remarks."""
    texts = [str(error)]
    inner: BaseException | None = error
    while inner is not None:
        inner = getattr(inner, "cause", None) or inner.__cause__
        texts.append(str(inner) if isinstance(inner, BaseException) else "")
        inner = inner if isinstance(inner, BaseException) else None
    raised = [
        match[2]
        for text in texts
        for match in re.finditer(r"^\s*([\w.]*\w*(?:Error|Exception)): (\S.*)$", text, re.MULTILINE)
        if not match[1].startswith("ray.")
    ]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (raised[-1] if raised else lines[-1] if lines else type(error).__name__)[:300]
