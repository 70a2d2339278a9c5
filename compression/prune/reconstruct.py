"""What is left is fitted to what the whole model does: closed forms on the calibration text, no training.

Layer by layer, the text runs through the whole model and through the pruned one. Each matrix of the pruned model is
replaced by the least-squares map from what the pruned model has in front of it to what the whole one computes there, so
that it makes up for channels that are gone and for the errors before it (He et al. 2017; SlimGPT, Ling et al. 2024;
ZipLM, Kurtic et al. 2023). Heads that lose channels get the best products of fewer ones (a truncated SVD), layer norms
the gain and offset of a regression.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from mobilenmt.compression.core.progress import progress
from mobilenmt.compression.prune.closed_forms import Regression, fewer_products, fewer_values, solve
from mobilenmt.compression.prune.network import SIDES, Batch, Network, Tensor, prefix_of
from mobilenmt.compression.prune.select import Selection


@dataclass(frozen=True)
class _Pair:
    """A batch on its way through both models."""

    batch: Batch
    whole: Tensor
    pruned: Tensor
    whole_memory: Tensor
    pruned_memory: Tensor

    def mask(self, side: str) -> Tensor:
        return self.batch.source_mask if side == "encoder" else self.batch.target_mask


class Reconstruction:
    """Fits a pruned network to the whole one.

    Args:
        whole: the model.
        pruned: what :func:`~mobilenmt.compression.prune.cut.cut` made of it.
        layers: which layers of the model the pruned one has, by side.
        selection: the units it has of them, its places counted in the pruned model.
        ridge: how strongly matrices are held to the ones that were cut, relative to the mean square of their inputs.
        matrices: False fits layer norms alone.
    """

    def __init__(
        self,
        whole: Network,
        pruned: Network,
        layers: Mapping[str, Sequence[int]],
        selection: Selection,
        *,
        ridge: float,
        matrices: bool = True,
    ) -> None:
        self.whole, self.layers, self.selection = whole, layers, selection
        self.pruned = Network(pruned.config, {name: value.clone() for name, value in pruned.weights.items()})
        self.ridge, self.matrices = ridge, matrices

    @torch.inference_mode()
    def fit(self, batches: Sequence[Batch]) -> Network:
        """The fitted network. The batches' states are kept, 4 bytes for each token, channel and model."""
        nothing = torch.empty(0)
        encoded = [
            _Pair(batch, self.whole.embed(batch.source), self.pruned.embed(batch.source), nothing, nothing)
            for batch in batches
        ]
        total = sum(len(self.layers[side]) * (2 if side == "encoder" else 3) for side in SIDES)
        with progress("reconstruction", "sublayers", total=total) as bar:
            encoded = self._side("encoder", encoded, bar)
            decoded = [
                _Pair(
                    pair.batch,
                    self.whole.embed(pair.batch.decoder_input),
                    self.pruned.embed(pair.batch.decoder_input),
                    pair.whole,
                    pair.pruned,
                )
                for pair in encoded
            ]
            del encoded
            self._side("decoder", decoded, bar)
        return self.pruned

    def _side(self, side: str, pairs: list[_Pair], bar: Any) -> list[_Pair]:
        kept = list(self.layers[side])
        kinds = ("self_attn", "ffn") if side == "encoder" else ("self_attn", "encoder_attn", "ffn")
        pairs = self._skip(side, pairs, range(kept[0]))
        for new, old in enumerate(kept):
            following = kept[new + 1] if new + 1 < len(kept) else self.whole.layers(side)
            for kind in kinds:
                gone = range(old + 1, following) if kind == "ffn" else range(0)
                if kind == "ffn":
                    pairs = self._feed_forward(side, new, old, gone, pairs)
                else:
                    pairs = self._attention(side, new, old, kind, pairs)
                bar.update(1)
        return pairs

    def _skip(self, side: str, pairs: list[_Pair], layers: range) -> list[_Pair]:
        """The whole model's states behind layers that the pruned one has not."""
        return [replace(pair, whole=self._ahead(side, pair, pair.whole, layers)[0]) for pair in pairs]

    def _ahead(self, side: str, pair: _Pair, states: Tensor, layers: range) -> tuple[Tensor, Tensor]:
        """States of the whole model behind some layers, and what stood in front of the last norm."""
        whole, before = self.whole, states
        for layer in layers:
            kinds = ("self_attn",) if side == "encoder" else ("self_attn", "encoder_attn")
            for kind in kinds:
                prefix = f"model.{side}.layers.{layer}.{kind}"
                found = self._heads(whole, side, kind, prefix, states, pair.whole_memory, pair.batch)
                states = whole.norm(f"{prefix}_layer_norm", states + whole.linear(f"{prefix}.out_proj", found))
            prefix = f"model.{side}.layers.{layer}"
            inner = whole.activation(whole.linear(f"{prefix}.fc1", states))
            before = states + whole.linear(f"{prefix}.fc2", inner)
            states = whole.norm(f"{prefix}.final_layer_norm", before)
        return states, before

    @staticmethod
    def _heads(
        network: Network, side: str, kind: str, prefix: str, states: Tensor, memory: Tensor, batch: Batch
    ) -> Tensor:
        others = memory if kind == "encoder_attn" else states
        mask = None if (side, kind) == ("decoder", "self_attn") else batch.source_mask
        queries = network.linear(f"{prefix}.q_proj", states)
        keys, values = network.linear(f"{prefix}.k_proj", others), network.linear(f"{prefix}.v_proj", others)
        return network.attend(side, queries, keys, values, mask)

    # -- sublayers ---------------------------------------------------------------------------------------------------

    def _attention(self, side: str, new: int, old: int, kind: str, pairs: list[_Pair]) -> list[_Pair]:
        place = f"{side}.{new}.{kind}"
        prefix, origin = prefix_of(place), f"model.{side}.layers.{old}.{kind}"
        crossing = kind == "encoder_attn"
        if self.matrices:
            turns = self._turns(side, place, origin, kind, pairs)
            for name, turn in zip(("q_proj", "k_proj", "v_proj"), turns, strict=True):
                across = crossing and name != "q_proj"

                def rows(
                    name: str = name, turn: Tensor = turn, across: bool = across
                ) -> Iterator[tuple[Tensor, Tensor]]:
                    for pair in pairs:
                        mask = pair.batch.source_mask if across else pair.mask(side)
                        whole, pruned = (pair.whole_memory, pair.pruned_memory) if across else (pair.whole, pair.pruned)
                        yield pruned[mask], self.whole.linear(f"{origin}.{name}", whole[mask]) @ turn

                self._solve(f"{prefix}.{name}", rows, turned=turn)
        flows = []
        for pair in pairs:
            found = self._heads(self.whole, side, kind, origin, pair.whole, pair.whole_memory, pair.batch)
            target = pair.whole + self.whole.linear(f"{origin}.out_proj", found)
            inner = self._heads(self.pruned, side, kind, prefix, pair.pruned, pair.pruned_memory, pair.batch)
            flows.append((pair, inner, target, self.whole.norm(f"{origin}_layer_norm", target)))
        return self._add_and_norm(side, f"{prefix}.out_proj", f"{prefix}_layer_norm", f"{origin}_layer_norm", flows)

    def _feed_forward(self, side: str, new: int, old: int, gone: range, pairs: list[_Pair]) -> list[_Pair]:
        place = f"{side}.{new}.ffn"
        prefix, origin = prefix_of(place), f"model.{side}.layers.{old}"
        neurons = self.selection.neurons[place]
        if self.matrices:
            first = f"{origin}.fc1"
            weight, bias = self.whole.weights[f"{first}.weight"][neurons], self.whole.weights[f"{first}.bias"][neurons]

            def rows() -> Iterator[tuple[Tensor, Tensor]]:
                for pair in pairs:
                    mask = pair.mask(side)
                    yield pair.pruned[mask], torch.nn.functional.linear(pair.whole[mask], weight, bias)

            self._solve(f"{prefix}.fc1", rows)
        flows = []
        for pair in pairs:
            inner = self.whole.activation(self.whole.linear(f"{origin}.fc1", pair.whole))
            target = pair.whole + self.whole.linear(f"{origin}.fc2", inner)
            states = self.whole.norm(f"{origin}.final_layer_norm", target)
            if gone:
                states, target = self._ahead(side, pair, states, gone)
            inner = self.pruned.activation(self.pruned.linear(f"{prefix}.fc1", pair.pruned))
            flows.append((pair, inner, target, states))
        norm = f"model.{side}.layers.{gone[-1] if gone else old}.final_layer_norm"
        return self._add_and_norm(side, f"{prefix}.fc2", f"{prefix}.final_layer_norm", norm, flows)

    def _add_and_norm(
        self, side: str, name: str, norm: str, origin: str, flows: list[tuple[_Pair, Tensor, Tensor, Tensor]]
    ) -> list[_Pair]:
        """Fit the second matrix of a sublayer and the norm behind it.

        Args:
            side: whose tokens count.
            name: the matrix.
            norm: the norm of the pruned model.
            origin: that of the whole one.
            flows: for each batch what the matrix is given, and what the whole model has before and behind its norm.
        """
        width = self.selection.width
        gain = self.whole.weights[f"{origin}.weight"][width]
        last = norm == f"model.decoder.layers.{self.pruned.layers('decoder') - 1}.final_layer_norm"
        scale = self.whole.config.embedding_scale / self.pruned.config.embedding_scale if last else 1.0

        if self.matrices:

            def rows() -> Iterator[tuple[Tensor, Tensor]]:
                for pair, inner, before, _ in flows:
                    mask = pair.mask(side)
                    yield inner[mask], before[mask][:, width] - pair.pruned[mask]

            self._solve(name, rows)
        regression = Regression(len(width))
        normed = []
        for pair, inner, _, behind in flows:
            states = pair.pruned + self.pruned.linear(name, inner)
            normed.append(torch.nn.functional.layer_norm(states, states.shape[-1:]))
            mask = pair.mask(side)
            regression.add(normed[-1][mask], behind[mask][:, width] / scale)
        found = regression.solve(gain / scale)
        self.pruned.weights[f"{norm}.weight"], self.pruned.weights[f"{norm}.bias"] = found
        gains, offsets = found
        return [
            replace(pair, whole=behind, pruned=plain * gains + offsets)
            for (pair, _, _, behind), plain in zip(flows, normed, strict=True)
        ]

    # -- closed forms ------------------------------------------------------------------------------------------------

    def _turns(self, side: str, place: str, origin: str, kind: str, pairs: list[_Pair]) -> tuple[Tensor, ...]:
        """[D, D'] maps of q, k and v of the whole model to those of the pruned one: of whole heads a choice, of heads
        that lose channels the best products. Scores are divided by the root of the size, which q makes up for."""
        heads = self.selection.heads[place]
        sizes = [network.config.d_model // network.heads(side) for network in (self.whole, self.pruned)]
        factor = (sizes[1] / sizes[0]) ** 0.5
        if sizes[0] == sizes[1]:
            chosen = torch.eye(self.whole.config.d_model)[:, self.selection.queries[place]]
            kept = torch.eye(self.whole.config.d_model)[:, self.selection.values[place]]
            return chosen * factor, chosen, kept
        grams = torch.zeros(3, len(heads), sizes[0], sizes[0], dtype=torch.float64)
        for pair in pairs:
            mask = pair.mask(side)
            others = pair.whole_memory if kind == "encoder_attn" else pair.whole
            parts = (
                self.whole.linear(f"{origin}.q_proj", pair.whole[mask]),
                self.whole.linear(
                    f"{origin}.k_proj", others[pair.batch.source_mask if kind == "encoder_attn" else mask]
                ),
                self._heads(self.whole, side, kind, origin, pair.whole, pair.whole_memory, pair.batch)[mask],
            )
            for gram, part in zip(grams, parts, strict=True):
                apart = part.view(len(part), -1, sizes[0])[:, heads].transpose(0, 1)
                gram += (apart.transpose(1, 2) @ apart).double()
        out = self.whole.weights[f"{origin}.out_proj.weight"].double()
        turns = torch.zeros(3, self.whole.config.d_model, self.pruned.config.d_model, dtype=torch.float64)
        for index, head in enumerate(heads.tolist()):
            rows = slice(head * sizes[0], (head + 1) * sizes[0])
            columns = slice(index * sizes[1], (index + 1) * sizes[1])
            left, right = fewer_products(grams[0, index], grams[1, index], sizes[1])
            turns[0, rows, columns], turns[1, rows, columns] = left * factor, right
            turns[2, rows, columns], back = fewer_values(grams[2, index], out[:, rows], sizes[1])
            self.pruned.weights[f"{prefix_of(place)}.out_proj.weight"][:, columns] = back[self.selection.width].float()
        return tuple(turns.float())

    def _solve(
        self,
        name: str,
        rows: Callable[[], Iterator[tuple[Tensor, Tensor]]],
        *,
        turned: Tensor | None = None,
    ) -> None:
        """Replace a matrix and its bias by the least-squares map of inputs to targets, near what stood there.

        Args:
            name: of the matrix in the pruned model.
            rows: gives inputs [N, in] and targets [N, out], batch by batch.
            turned: targets are in another basis than the weights that stand there: these are replaced by those of the
                whole model in that basis.
        """
        weight, bias = self.pruned.weights[f"{name}.weight"], self.pruned.weights[f"{name}.bias"]
        if turned is not None:
            prefix, part = name.rpartition(".")[0], name.rpartition(".")[2]
            side, layer, kind = prefix.split(".")[1], int(prefix.split(".")[3]), prefix.split(".")[4]
            origin = f"model.{side}.layers.{self.layers[side][layer]}.{kind}.{part}"
            weight = (self.whole.weights[f"{origin}.weight"].T @ turned).T[:, self.selection.width]
            bias = self.whole.weights[f"{origin}.bias"] @ turned
        change = solve(rows(), weight, bias, self.ridge)
        self.pruned.weights[f"{name}.weight"], self.pruned.weights[f"{name}.bias"] = change
