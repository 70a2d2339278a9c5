"""``python -m mobilenmt``: the command line."""

from __future__ import annotations

from mobilenmt.cli import entry

if __name__ == "__main__":
    entry()
