"""The pieces of a checkpoint's vocabulary: text to ids on both sides, and any string to pieces."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mobilenmt.export import spm
from mobilenmt.export.checkpoint import MarianConfig
from mobilenmt.export.tokenizer import PreparedTokenizer, prepare_tokenizer
from mobilenmt.runtime.tokenizer import CONTROL_MARK, OUTPUT_MARK, clean_line


class Pieces:
    """A tokenizer.json, or OPUS-MT's two SentencePiece models with one vocabulary."""

    def __init__(self, folder: Path, config: MarianConfig) -> None:
        """Read the tokenizer of a checkpoint folder. Raises CheckpointError if there is none that its model can use."""
        import tokenizers

        self.folder = folder
        self.size, self.eos, self.pad = config.vocab_size, config.eos_token_id, config.pad_token_id

        def prepare(where: Path) -> PreparedTokenizer:
            return prepare_tokenizer(
                where, vocab_size=self.size, target_vocab_size=self.size, eos=self.eos, pad=self.pad, unk=None
            )

        prepared = prepare(folder)
        self.unk = 1 if prepared.unk_id is None else prepared.unk_id
        self.has_json = (folder / "tokenizer.json").is_file()
        self._source: Any = tokenizers.Tokenizer.from_str(prepared.source_json)
        self._target = self._source
        if not self.has_json:
            with tempfile.TemporaryDirectory() as name:
                turned = Path(name)  # a folder in which the target is the source
                for here, there in zip(spm.FILES, ("target.spm", "source.spm", "vocab.json"), strict=True):
                    shutil.copyfile(folder / there, turned / here)
                for path in folder.glob("tokenizer_config.json"):
                    shutil.copyfile(path, turned / path.name)
                self._target = tokenizers.Tokenizer.from_str(prepare(turned).source_json)

    def encode(self, texts: Sequence[str], *, target: bool = False) -> list[list[int]]:
        """Ids of texts, without </s>."""
        tokenizer = self._target if target else self._source
        found = tokenizer.encode_batch_fast([clean_line(text) for text in texts], add_special_tokens=False)
        return [[i if i < self.size else self.unk for i in item.ids] for item in found]

    @cached_property
    def bytes(self) -> tuple[int, ...]:
        """Ids of the pieces that are one byte each; empty where the vocabulary has none."""
        found = (self._source.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
        return tuple(index for index in found if index is not None)

    def name(self, index: int) -> str:
        """The piece of an id, without the mark of those that no text can spell; "" where there is none."""
        return str(self._source.id_to_token(index) or "").lstrip(CONTROL_MARK + OUTPUT_MARK)

    def spell(self, piece: str) -> list[list[int]]:
        """The ids that a string of another vocabulary is made of where it stands in a word, its word mark as it is.

        One list for each tokenizer that there is; what it cannot spell is unk.
        """
        found = []
        for tokenizer in dict.fromkeys((self._source, self._target)):
            ids = [token.id for token in tokenizer.model.tokenize(piece)]
            found.append([i if i < self.size else self.unk for i in ids])
        return found
