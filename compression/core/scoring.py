"""BLEU and chrF by sacrebleu, one scorer for training and evaluation, so that both know the target language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mobilenmt.compression.core.errors import EvaluationError

_LONG_CODES = {"zho": "zh", "cmn": "zh", "yue": "zh", "jpn": "ja", "kor": "ko"}
"""Three-letter codes of the languages that sacrebleu has a tokenizer for; it knows them by two letters alone."""
_BY_CHARACTER = frozenset(("th", "tha", "lo", "lao", "km", "khm", "my", "mya", "bo", "bod", "dz", "dzo"))
"""Written without spaces between words, and sacrebleu has no tokenizer for them: a sentence would be one word."""


@dataclass(frozen=True)
class Score:
    """Scores of one system on one test set."""

    bleu: float
    """BLEU (Papineni et al. 2002), 0 to 100."""
    chrf: float
    """chrF (Popović 2015): characters up to six, no words, 0 to 100."""


class Scorer:
    """BLEU and chrF with sacrebleu's defaults for a target language (its tokenizer for Chinese, Japanese, Korean).

    Thai, Lao, Khmer, Burmese, Tibetan and Dzongkha, which sacrebleu would part at spaces, are scored by character.

    Raises EvaluationError if sacrebleu needs something for this language that is not installed.
    """

    def __init__(self, target_language: str | None = None) -> None:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF

        code = (target_language or "").partition("-")[0].partition("_")[0].lower()
        language = _LONG_CODES.get(code, code)
        try:
            self._bleu: Any = BLEU(trg_lang=language, tokenize="char" if language in _BY_CHARACTER else None)
        except (ImportError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise EvaluationError(f"sacrebleu cannot score {target_language}: {reason}") from None
        self._chrf: Any = CHRF()

    def score(self, outputs: Sequence[str], references: Sequence[str]) -> Score:
        """Scores of a whole set, one reference a sentence; ``outputs`` and ``references`` have one length."""
        if len(outputs) != len(references) or not outputs:
            raise EvaluationError(f"{len(outputs)} translations for {len(references)} references")
        bleu = self._bleu.corpus_score(list(outputs), [list(references)])
        chrf = self._chrf.corpus_score(list(outputs), [list(references)])
        return Score(round(bleu.score, 4), round(chrf.score, 4))

    def signatures(self) -> dict[str, str]:
        """sacrebleu's signatures; complete once something was scored."""
        return {"BLEU": str(self._bleu.get_signature()), "chrF": str(self._chrf.get_signature())}
