"""Teachers that transformers runs: what all share, and encoder-decoder models of any family."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mobilenmt.compression.core.errors import TeacherError
from mobilenmt.compression.teacher.languages import find_code
from mobilenmt.compression.teacher.loading import language_codes, load_config, load_tokenizer, prefix_of
from mobilenmt.compression.teacher.sampling import RowSampler
from mobilenmt.compression.teacher.spec import Candidate, TeacherSpec
from mobilenmt.compression.teacher.text import length_limit
from mobilenmt.runtime.guard import is_degenerate

if TYPE_CHECKING:
    import torch


class TransformersTeacher:
    """What both kinds share: loading, batches by length, generate(), and what is read from its output."""

    def __init__(self, spec: TeacherSpec, model_class: str) -> None:
        import torch
        import transformers

        self._spec = spec
        self._settings = spec.settings
        if spec.device == "cpu":
            torch.set_num_threads(spec.threads)
        self._config = load_config(spec.settings)
        self._tokenizer = load_tokenizer(spec.settings)
        try:
            model, report = getattr(transformers, model_class).from_pretrained(
                spec.settings.checkpoint,
                dtype=getattr(torch, spec.dtype),
                output_loading_info=True,
                trust_remote_code=False,
            )
            self._model = model.eval().to(spec.device)
        except Exception as error:
            lines = str(error).strip().splitlines()
            raise TeacherError(
                f"{spec.settings.checkpoint}: the teacher cannot be loaded on {spec.device} as {spec.dtype}: "
                f"{lines[0][:300] if lines else type(error).__name__}"
            ) from error
        self._check_weights(report)
        self._generation = self._generation_config()
        eos = self._generation.eos_token_id
        self._ends = frozenset(eos if isinstance(eos, list) else [] if eos is None else [eos])
        self._special = frozenset(self._tokenizer.all_special_ids)
        pad = self._tokenizer.pad_token_id
        if pad is None:
            pad = self._generation.pad_token_id
        self._pad: int = pad if pad is not None else min(self._ends, default=0)
        self._generation.pad_token_id = self._pad

    def translate(self, sources: Sequence[str]) -> list[list[Candidate]]:
        """Translate sources, in batches of similar length."""
        inputs = self._encode(sources)
        plain = self._plain_ids(sources)
        room = self._room()
        limits = [self._limit(len(ids), len(inputs[index]), room) for index, ids in enumerate(plain)]
        results: list[list[Candidate]] = [[] for _ in sources]
        fitting: list[int] = []
        for index, ids in enumerate(plain):
            if self._special.intersection(ids) - {self._tokenizer.unk_token_id}:
                results[index] = [Candidate("", 0, "markers")]
            elif not self._fits(len(inputs[index]), room):
                results[index] = [Candidate("", 0, "source_too_long")]
            else:
                fitting.append(index)
        lengths = [len(inputs[index]) for index in fitting]
        for batch in batches(lengths, self._settings.batch_tokens, self._settings.copies):
            chosen = [fitting[index] for index in batch]
            outputs = self._generate(
                [inputs[index] for index in chosen],
                [sources[index] for index in chosen],
                max(limits[index] for index in chosen),
            )
            for index, rows in zip(chosen, outputs, strict=True):
                results[index] = [self._candidate(sources[index], plain[index], row, limits[index]) for row in rows]
        return results

    # -- what the two kinds do differently ----------------------------------------------------------------------------

    def _encode(self, sources: Sequence[str]) -> list[list[int]]:
        """What the model reads for each source."""
        raise NotImplementedError

    def _fits(self, tokens: int, room: int | None) -> bool:
        raise NotImplementedError

    def _limit(self, source_tokens: int, input_tokens: int, room: int | None) -> int:
        """Most tokens generated, the end token counted."""
        raise NotImplementedError

    def _prompt_length(self, batch: torch.Tensor) -> int:
        """Tokens at the head of an output that were not generated."""
        raise NotImplementedError

    _left: bool
    """Padding goes in front."""

    def _text(self, ids: Sequence[int], source: str) -> str:
        found: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return found

    def _ended(self, ids: Sequence[int]) -> bool:
        """Whether an output without an end token is whole all the same."""
        return False

    def _extra(self) -> dict[str, Any]:
        """Further arguments of generate()."""
        return {}

    # -- shared -------------------------------------------------------------------------------------------------------

    def _plain_ids(self, sources: Sequence[str]) -> list[list[int]]:
        """Ids of the sources alone."""
        found: list[list[int]] = self._tokenizer(list(sources), add_special_tokens=False, verbose=False)["input_ids"]
        return found

    def _room(self) -> int | None:
        """Positions of the model; None where there is no limit (relative positions)."""
        if self._spec.family == "t5":
            return None
        found = getattr(self._config, "max_position_embeddings", None)
        return found if isinstance(found, int) and found > 1 else None

    def _generate(self, inputs: Sequence[list[int]], sources: Sequence[str], limit: int) -> list[list[list[int]]]:
        """Generated ids of each input's candidates, cut behind the end token."""
        import torch

        settings = self._settings
        repeat = settings.n_best if settings.search == "sample" else 1
        rows = [ids for ids in inputs for _ in range(repeat)]
        width = max(len(ids) for ids in rows)
        batch = torch.full((len(rows), width), self._pad, dtype=torch.long)
        mask = torch.zeros_like(batch)
        for index, ids in enumerate(rows):
            place = slice(width - len(ids), width) if self._left else slice(0, len(ids))
            batch[index, place] = torch.tensor(ids, dtype=torch.long)
            mask[index, place] = 1
        generation = copy.deepcopy(self._generation)
        generation.max_new_tokens = limit
        extra = self._extra()
        if settings.search == "sample":
            keys = [_key(self._spec.seed, source, number) for source in sources for number in range(repeat)]
            extra["logits_processor"] = [RowSampler(keys, settings.temperature, settings.top_p)]
        with torch.inference_mode():
            output = self._model.generate(
                batch.to(self._spec.device),
                attention_mask=mask.to(self._spec.device),
                generation_config=generation,
                use_model_defaults=False,  # or what we set to a default, such as no sampling, would count as unset
                **extra,
            )
        found = [self._cut(row) for row in output[:, self._prompt_length(batch) :].tolist()]
        each = len(found) // len(sources)
        return [found[start : start + each] for start in range(0, len(found), each)]

    def _cut(self, row: list[int]) -> list[int]:
        for index, token in enumerate(row):
            if token in self._ends:
                return row[: index + 1]
        while row and row[-1] == self._pad:
            row.pop()
        return row

    def _candidate(self, source: str, plain: Sequence[int], row: Sequence[int], limit: int) -> Candidate:
        words = [token for token in row if token not in self._special and token not in self._ends]
        flaw = ""
        if is_degenerate(plain, words):
            flaw = "looped"
        # A length reached is a limit reached, though the last token be a forced end.
        elif len(row) >= limit and not self._ended(row):
            flaw = "too_long"
        return Candidate(self._text(row, source), len(row), flaw)

    def _generation_config(self) -> Any:
        """The checkpoint's own, with our search in place of its sampling."""
        settings = self._settings
        found = copy.deepcopy(self._model.generation_config)
        found.do_sample, found.temperature, found.top_p, found.top_k = False, 1.0, 1.0, 50
        found.num_beams = settings.beams
        found.num_return_sequences = settings.n_best if settings.search in ("n_best", "nearest") else 1
        found.return_dict_in_generate = False
        found.max_length = 20  # transformers' default: max_new_tokens rules, and nothing warns of two limits
        found.min_length = 0
        if settings.beams == 1:
            found.early_stopping, found.length_penalty = False, 1.0  # of beams alone; set, they draw a warning
        elif settings.length_penalty is not None:
            found.length_penalty = settings.length_penalty
        return found

    def _check_weights(self, report: dict[str, Any]) -> None:
        """A model that transformers filled up with random numbers would translate into noise, and not say so."""
        name = self._settings.checkpoint
        missing = sorted(report.get("missing_keys") or ())
        if missing:
            raise TeacherError(
                f"{name}: {len(missing)} weights are missing, such as {missing[0]}; the download is incomplete, or the "
                "checkpoint is of another architecture than its config.json says"
            )
        if self._spec.family != "t5":  # mT5's tokenizers name more extra ids than the model has
            self._check_ids(self._tokenizer.get_vocab().values())

    def _check_ids(self, ids: Iterable[int]) -> None:
        rows = self._model.get_input_embeddings().weight.shape[0]
        largest = max(ids, default=0)
        if largest >= rows:
            raise TeacherError(
                f"{self._settings.checkpoint}: the tokenizer has ids up to {largest}, the model {rows} embeddings; "
                "they do not belong together"
            )


class Seq2SeqTeacher(TransformersTeacher):
    """Marian, M2M100, NLLB, mBART, T5 and any other encoder-decoder model."""

    _left = False

    def __init__(self, spec: TeacherSpec) -> None:
        super().__init__(spec, "AutoModelForSeq2SeqLM")
        family, tokenizer = spec.family, self._tokenizer
        self._prefix = ""
        self._start: dict[str, int] = {}
        if family in ("t5", "seq2seq"):
            self._prefix = prefix_of(spec.settings, self._config, spec.source_code, spec.target_code)
        elif family == "marian" and (codes := language_codes(family, tokenizer)):
            code = find_code(spec.target_code, codes, "target_language", spec.settings.checkpoint)
            self._prefix = f"{code} "
        elif family in ("m2m_100", "nllb", "mbart"):
            tokenizer.src_lang = spec.source_code
            by_code = getattr(tokenizer, "lang_code_to_id", None) or {}
            code = spec.target_code
            target: int = by_code[code] if code in by_code else tokenizer.convert_tokens_to_ids(code)
            if family == "mbart" and not type(tokenizer).__name__.startswith("MBart50"):
                self._start = {"decoder_start_token_id": target}  # mBART-25 begins with the language itself
            else:
                self._generation.forced_bos_token_id = target
            self._check_ids([target, *self._encode(["a"])[0]])

    def _encode(self, sources: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = self._tokenizer([self._prefix + source for source in sources], verbose=False)[
            "input_ids"
        ]
        eos = self._config.eos_token_id
        if self._spec.family in ("marian", "t5", "seq2seq"):
            # A bare tokenizer.json without a template (as our students have) leaves the end token to the caller.
            found = [ids if eos is None or eos in ids[-1:] else [*ids, eos] for ids in found]
        return found

    def _fits(self, tokens: int, room: int | None) -> bool:
        return room is None or tokens <= room

    def _limit(self, source_tokens: int, input_tokens: int, room: int | None) -> int:
        forced = self._generation.forced_bos_token_id is not None
        found = length_limit(self._settings, source_tokens, None) + forced
        return found if room is None else min(found, room - 1)  # the start token takes a position

    def _prompt_length(self, batch: torch.Tensor) -> int:
        return 1

    def _text(self, ids: Sequence[int], source: str) -> str:
        forced = self._generation.forced_bos_token_id
        if forced is not None and ids[:1] == [forced]:
            ids = ids[1:]  # the language, which not every tokenizer knows as a special token
        return super()._text(ids, source)

    def _extra(self) -> dict[str, Any]:
        return dict(self._start)


def batches(lengths: Sequence[int], tokens: int, copies: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, the longest first, so that little is padding.

    A batch holds at most ``tokens`` tokens, padding and ``copies`` of each row counted, but at least one row.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch and (len(batch) + 1) * lengths[batch[0]] * copies > tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _key(seed: int, source: str, number: int) -> bytes:
    """What a sample's random numbers are derived from."""
    text = f"{seed}\0{number}\0{source}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()
