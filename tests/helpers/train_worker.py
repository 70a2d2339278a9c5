"""Trains a tiny model again and again in children of one process, so that a hundred runs pay for one start of torch.

Reads a folder and a number of seconds a line from stdin; a child trains in the folder and is killed after that time (0:
never). Answers ``killed``, ``done``, or the error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from mobilenmt.compression.train.settings import TrainSettings
from mobilenmt.compression.train.train import train
from training_data import job_for, toy_dataset, toy_pairs, toy_vocabulary, write_dev

SETTINGS: dict[str, Any] = {
    "steps": 40,
    "batch_tokens": 300,
    "accumulation": 2,
    "max_tokens": 40,
    "warmup_steps": 10,
    "log_every": 7,
    "dev_every": 16,
    "average_last": 2,
    "average_every": 15,
    "save_every": 8,
    "save_seconds": 0.1,
    "threads": 1,
    "device": "cpu",
}


def run(root: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """Train in ``folder``; vocabulary and dev set lie in ``root``."""
    vocabulary = toy_vocabulary(root / "vocabulary")
    dev = write_dev(root / "dev.tsv", 6)
    settings = TrainSettings(**{**SETTINGS, "dev": (dev,), **changes})
    dataset = toy_dataset(vocabulary, toy_pairs(200))
    return train(job_for(settings, vocabulary, seed=3), dataset, folder)


def main() -> None:
    root = Path(sys.argv[1])
    changes = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    print("ready", flush=True)
    for line in sys.stdin:
        folder, seconds = line.rstrip("\n").split("\t")
        child = os.fork()
        if not child:
            try:
                if float(seconds):
                    threading.Thread(target=_kill_after, args=(float(seconds),), daemon=True).start()
                run(root, Path(folder), **changes)
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", flush=True)
                os._exit(3)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            print("killed", flush=True)
        elif status == 0:
            print("done", flush=True)


def _kill_after(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
