"""Errors of the pipeline; all derive from :class:`MobileNMTError`, so the command line prints one line for each."""

from __future__ import annotations

from mobilenmt.runtime.errors import MobileNMTError


class RecipeError(MobileNMTError, ValueError):
    """A recipe or an override of it has an unknown key, a value of the wrong type, or one outside its range."""


class StageError(MobileNMTError):
    """A stage's folder belongs to something else, is in use, was made with other settings, or is damaged."""


class CorpusError(MobileNMTError):
    """Text is missing, unreadable or too little to go on with."""


class VocabularyError(MobileNMTError):
    """A tokenizer could not be trained, or does not follow the conventions of Marian checkpoints."""


class TeacherError(MobileNMTError):
    """A teacher could not be loaded, or cannot translate between the two languages."""


class TrainingError(MobileNMTError):
    """Training cannot start, cannot go on from what lies in its folder, or diverged."""


class StoppedError(TrainingError):
    """A signal asked training to stop, and its state was saved."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        """What the command line ends with: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""


class PruneError(MobileNMTError):
    """A checkpoint cannot be pruned to what was asked for, or there is too little to go by."""


class QuantizeError(MobileNMTError):
    """A study of a model's quantization cannot be made, or nothing fits into a budget."""


class PlanError(MobileNMTError, ValueError):
    """No shape fits into a budget, a budget is no size or time, or a fit of a machine will not do."""


class EvaluationError(MobileNMTError):
    """A model, a test set or a peer's output cannot be scored."""


class ReportError(MobileNMTError):
    """A folder that is to be reported on is no work folder, or what lies in it is damaged."""
