"""Greedy search over static graphs: sentences into buckets, caches in buffers that are bound once."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mobilenmt.runtime.errors import EngineError
from mobilenmt.runtime.hypothesis import Hypothesis
from mobilenmt.runtime.onnx.ort import first_line
from mobilenmt.runtime.onnx.rows import Array, Rules
from mobilenmt.runtime.onnx.static.providers import StaticProvider, open_static
from mobilenmt.runtime.onnx.stepwise import greedy, greedy_hypothesis
from mobilenmt.runtime.pack import Pack
from mobilenmt.runtime.sections import Variant, static_file

if TYPE_CHECKING:
    import onnxruntime

MASKED = -1e4
"""Added to the score of what is not there: its softmax is 0, and half precision has the number."""


class StaticHost:
    """The static graphs of one pack with one provider. Safe to use from several threads, which take turns.

    A bucket is opened when a sentence first needs it. What fails is told once, as a RuntimeWarning, and the caller
    takes the pack's graphs for the CPU.
    """

    def __init__(self, pack: Pack, variant: Variant, provider: StaticProvider) -> None:
        self._pack, self._variant, self._provider = pack, variant, provider
        self._buckets: dict[int, Bucket] = {}
        self._lock = threading.Lock()
        self._failed = self._warned = False

    def open(self) -> bool:
        """Open the smallest bucket, as a trial; whether there is one."""
        return self._bucket(0) is not None

    def search(
        self,
        source: Sequence[int],
        max_length: int,
        penalty: float,
        rules: Rules,
        check: Callable[[], None] = lambda: None,
    ) -> Hypothesis | None:
        """The output for a source without its end token, as the stepwise search gives it.

        None where the CPU has to do it: the source or the output is longer than the largest bucket, or the provider
        failed.
        """
        index = self._variant.bucket(len(source) + 1, max_length - 1)
        if index is None:
            if not self._failed and not self._warned:
                self._warned = True
                self._warn(
                    f"a source of {len(source) + 1} tokens with an output of up to {max_length} is longer than the "
                    f"largest static graph ({self._variant.source[-1]} and {self._variant.target[-1]}): such ones run "
                    "on the CPU"
                )
            return None
        bucket = self._bucket(index)
        if bucket is None:
            return None
        manifest = self._pack.manifest
        with bucket.lock:
            pairs = []
            try:
                bucket.encode(source, manifest.tokens.eos)
                for pair in greedy(bucket.step, manifest, max_length, rules):
                    check()
                    pairs.append(pair)
            except EngineError as error:
                self._give_up(error)
                return None
        return greedy_hypothesis(pairs, max_length, penalty, rules.eos)

    def _bucket(self, index: int) -> Bucket | None:
        with self._lock:
            if self._failed:
                return None
            if index not in self._buckets:
                try:
                    self._buckets[index] = Bucket(self._pack, self._variant, index, self._provider)
                except EngineError as error:
                    self._give_up(error)
                    return None
            return self._buckets[index]

    def _give_up(self, error: EngineError) -> None:
        if not self._failed:
            self._failed = True
            self._warn(f"{error}; the pack's graphs for the CPU run instead")

    def _warn(self, message: str) -> None:
        warnings.warn(f"{self._pack.path}: {message}", RuntimeWarning, stacklevel=2)


class Bucket:
    """The two graphs of one bucket, and every value they read and write, in buffers of their own.

    A step writes the caches that the next one reads: there are two of each, which change places.
    """

    def __init__(self, pack: Pack, variant: Variant, index: int, provider: StaticProvider) -> None:
        model = pack.manifest.model
        source, target = variant.source[index], variant.target[index]
        heads, layers = model.decoder_attention_heads, range(model.decoder_layers)
        size = model.d_model // heads
        self.lock = threading.Lock()
        self._encoder, self._decoder = (
            open_static(pack.file(static_file(part, provider.form, source)), provider)
            for part in ("encoder", "decoder")
        )
        floats = {"source_mask": (1, 1, 1, source), "slot": (1, 1, 1, target), "target_mask": (1, 1, 1, target)}
        for layer in layers:
            floats[f"cross_key.{layer}"] = (1, heads, size, source)
            floats[f"cross_value.{layer}"] = (1, heads, source, size)
        self._values: dict[str, Array] = {name: np.zeros(shape, np.float32) for name, shape in floats.items()}
        self._values["source"] = np.zeros((1, source), np.int32)
        self._values["token"] = np.zeros((1, 1), np.int32)
        self._values["position"] = np.zeros((1, 1), np.int32)
        self._values["logits"] = np.zeros((1, model.target_vocab_size), np.float32)
        if any(output.name == "allowed" for output in self._encoder.get_outputs()):
            self._values["allowed"] = np.zeros(model.target_vocab_size, np.uint8)
        shapes = {"key": (1, heads, size, target), "value": (1, heads, target, size)}
        self._caches = [
            {f"{part}.{layer}": np.zeros(shape, np.float32) for layer in layers for part, shape in shapes.items()}
            for _ in range(2)
        ]
        cross = [name for name in self._values if name.startswith("cross_")]
        self._encoding = _bind(
            self._encoder,
            {"input_ids": self._values["source"], "source_mask": self._values["source_mask"]},
            {name: self._values[name] for name in (*cross, "allowed") if name in self._values},
        )
        fixed = {name: self._values[name] for name in (*cross, "source_mask", "slot", "target_mask", "position")}
        self._stepping = [
            _bind(
                self._decoder,
                {
                    "input_ids": self._values["token"],
                    **fixed,
                    **{f"past_{name}": value for name, value in self._caches[turn].items()},
                },
                {
                    "logits": self._values["logits"],
                    **{f"present_{name}": value for name, value in self._caches[1 - turn].items()},
                },
            )
            for turn in range(2)
        ]
        self._steps = 0

    def encode(self, source: Sequence[int], eos: int) -> None:
        """Begin a sentence; EngineError if the provider fails."""
        values = self._values
        values["source"].fill(eos)  # what fills up brings no candidates of its own
        values["source"][0, : len(source)] = source
        values["source_mask"].fill(MASKED)
        values["source_mask"][..., : len(source) + 1] = 0
        values["target_mask"].fill(MASKED)
        values["slot"].fill(0)
        for value in self._caches[0].values():
            value.fill(0)
        self._steps = 0
        _run(self._encoder, self._encoding)

    def step(self, tokens: Sequence[int]) -> Array:
        """Logits [1, V] behind a token, -inf for those that are no candidates; EngineError if the provider fails."""
        values, position = self._values, self._steps
        values["token"][0, 0] = tokens[0]
        values["position"][0, 0] = position
        values["slot"].fill(0)
        values["slot"][..., position] = 1
        values["target_mask"][..., position] = 0
        _run(self._decoder, self._stepping[position % 2])
        self._steps += 1
        logits: Array = values["logits"].copy()
        if np.isnan(logits).any():  # an NPU computes in half precision, whose largest number is 65,504
            raise EngineError("the static graphs give NaN")
        if "allowed" in values:
            logits[0, values["allowed"] == 0] = -np.inf
        return logits


def _bind(
    session: onnxruntime.InferenceSession, inputs: dict[str, Array], outputs: dict[str, Array]
) -> onnxruntime.IOBinding:
    """Arrays as inputs and outputs of a session; whoever calls keeps them alive."""
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    for name, array in outputs.items():
        binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    return binding


def _run(session: onnxruntime.InferenceSession, binding: onnxruntime.IOBinding) -> None:
    try:
        session.run_with_iobinding(binding)
    except Exception as error:  # onnxruntime raises many types of its own
        raise EngineError(f"the static graphs failed: {first_line(error)}") from error
