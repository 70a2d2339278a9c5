"""Runs the teacher step in a process of its own, so that a test can kill it: arguments are JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mobilenmt.compression.teacher.stage import TeacherSettings, run
from mobilenmt.runtime.errors import MobileNMTError


def main() -> int:
    """Run; print the summary, or the one line of an error."""
    arguments = json.loads(sys.argv[1])
    limit = arguments.pop("file_size", None)
    if limit is not None:  # writing beyond it fails, as on a full disk
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    pairs, folder = Path(arguments.pop("pairs")), Path(arguments.pop("folder"))
    try:
        result = run(TeacherSettings(**arguments), pairs=pairs, folder=folder, languages=("en", "de"))
    except MobileNMTError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(dict(result.summary)))
    return 0


if __name__ == "__main__":  # Ray's workers import this file again
    sys.exit(main())
