"""The vocabulary: one tokenizer for both languages, in the layout that Marian checkpoints and their readers rely on.

``</s>`` is 0, ``<unk>`` 1, the 256 byte pieces follow, then the pieces found in the text, ``<pad>`` is last. Text is
taken as it is (no normalizer); a space becomes ``▁``; a character outside the alphabet is spelled by its UTF-8 bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenmt.compression.core.errors import VocabularyError
from mobilenmt.compression.vocabulary.training import EOS, PAD, UNK
from mobilenmt.export.tokenizer import prepare_tokenizer
from mobilenmt.runtime.errors import CheckpointError
from mobilenmt.runtime.tokenizer import clean

if TYPE_CHECKING:
    import tokenizers

_LAYOUT = str.maketrans("\t\n\r", "   ")


class Vocabulary:
    """A trained vocabulary, for turning training text into ids: exactly the ids that the runtime gives.

    Text is cleaned as the runtime cleans it, and ``</s>`` in a sentence is four ordinary characters.
    """

    def __init__(self, path: Path, tokenizer: tokenizers.Tokenizer, size: int, config: Mapping[str, Any]) -> None:
        """See :meth:`load`."""
        self.path = path
        """tokenizer.json"""
        self.size = size
        self.eos = 0
        self.unk = 1
        self.pad = size - 1
        self.languages = (str(config.get("source_lang") or ""), str(config.get("target_lang") or ""))
        """Codes of the source and the target language, "" where tokenizer_config.json names none."""
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read a vocabulary folder, or the tokenizer.json in it.

        :raises VocabularyError: it is missing, damaged, or does not follow the conventions.
        """
        import tokenizers

        path = Path(path)
        if path.is_dir() or path.suffix != ".json":
            path = path / "tokenizer.json"
        try:
            size = tokenizers.Tokenizer.from_file(str(path)).get_vocab_size()
        except Exception as error:  # tokenizers raises nothing more exact
            reason = "no such file" if not path.is_file() else error
            raise VocabularyError(f"{path}: cannot be read as a tokenizer: {reason}") from error
        try:
            prepared = prepare_tokenizer(
                path.parent, vocab_size=size, target_vocab_size=size, eos=0, pad=size - 1, unk=1
            )
        except CheckpointError as error:
            raise VocabularyError(str(error)) from error
        tokenizer = tokenizers.Tokenizer.from_str(prepared.source_json)
        for index, name in ((0, EOS), (1, UNK), (size - 1, PAD)):
            found = (tokenizer.id_to_token(index) or "").lstrip("\uffff")
            if found != name:
                raise VocabularyError(f"{path}: id {index} is {found!r}; Marian checkpoints have {name} there")
        try:
            config = json.loads((path.parent / "tokenizer_config.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            config = {}
        except ValueError as error:
            raise VocabularyError(f"{path.parent / 'tokenizer_config.json'}: not JSON: {error}") from error
        return cls(path, tokenizer, size, config if isinstance(config, dict) else {})

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without </s>."""
        ready = [clean(text).translate(_LAYOUT) for text in texts]
        return [list(found.ids) for found in self._tokenizer.encode_batch_fast(ready, add_special_tokens=False)]

    def encode(self, text: str) -> list[int]:
        """Ids of one text, without </s>."""
        return self.encode_batch([text])[0]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special ones are skipped."""
        special = {self.eos, self.unk, self.pad}
        return str(self._tokenizer.decode([i for i in ids if i not in special], skip_special_tokens=False))

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The pieces of ids."""
        return [(self._tokenizer.id_to_token(i) or "").lstrip("\uffff") for i in ids]
