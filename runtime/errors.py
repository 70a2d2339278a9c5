"""Every error this project raises on purpose.

All derive from :class:`MobileNMTError`, so an application catches one type and the command line prints one line.
A message says what was wrong, where, and what to do about it.
"""

from __future__ import annotations


class MobileNMTError(Exception):
    """Base of all errors raised by mobilenmt."""


class InputError(MobileNMTError, ValueError):
    """An argument is of the wrong type or outside its range."""


class PackError(MobileNMTError):
    """A pack is damaged, incomplete, hostile or made for a newer reader."""


class PackNotFoundError(PackError):
    """No pack lies at the given path or under the given name."""


class EngineError(MobileNMTError):
    """An engine is not there, refused a pack or failed while running it."""


class StoppedError(MobileNMTError):
    """The caller's ``stop`` ended a call before it was done."""


class DeadlineError(MobileNMTError, TimeoutError):
    """The time given for a call was over before it was done."""


class CheckpointError(MobileNMTError):
    """A checkpoint folder is missing something, or holds something we cannot use."""


class ExportError(MobileNMTError):
    """A pack could not be written or did not pass its own verification."""
