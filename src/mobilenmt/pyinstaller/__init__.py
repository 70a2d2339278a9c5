"""What PyInstaller is told about mobilenmt; it asks by the entry point ``hook-dirs`` of its group ``pyinstaller40``."""

from __future__ import annotations

from pathlib import Path


def hook_folders() -> list[str]:
    """The folder of hook-mobilenmt.py, this one."""
    return [str(Path(__file__).parent)]
