"""New weights from old: rows and columns of the units that stay, and what their number changes in a model's formulas.

- Scores of attention are divided by the root of a head's channels: q is scaled up for it.
- Embeddings are multiplied by the root of the width: the table is scaled up for it, and the norm behind the last layer
  is scaled down, because the same table makes the logits.
- The mean and the deviation of a layer norm are those of its channels: :mod:`~mobilenmt.compression.prune.reconstruct`
  fits what that changes.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

from mobilenmt.compression.prune.network import BIAS, EMBEDDING, Network, Weights, prefix_of, sublayers
from mobilenmt.compression.prune.select import Selection
from mobilenmt.compression.train.student import StudentShape


def cut(network: Network, shape: StudentShape, selection: Selection) -> Network:
    """The network of the units that stay; its weights are copies.

    Args:
        network: the model, as deep as the shape.
        shape: what the selection was made for.
        selection: the units.

    Returns:
        A network of that shape, whose embeddings are scaled by the root of its width, whatever the model's were.
    """
    old, width = network.weights, selection.width
    config = with_shape(network, shape).config
    scale = network.config.embedding_scale / config.embedding_scale
    weights: Weights = {EMBEDDING: old[EMBEDDING][:, width] * scale, BIAS: old[BIAS].clone()}
    for side, place, kind in sublayers(network):
        prefix = prefix_of(place)

        def take(name: str, rows: Any, columns: Any, factor: float = 1.0, prefix: str = prefix) -> None:
            weights[f"{prefix}.{name}.weight"] = old[f"{prefix}.{name}.weight"][rows][:, columns] * factor
            weights[f"{prefix}.{name}.bias"] = old[f"{prefix}.{name}.bias"][rows] * factor

        if kind == "ffn":
            neurons = selection.neurons[place]
            take("fc1", neurons, width)
            take("fc2", width, neurons)
            norm = f"{prefix}.final_layer_norm"
        else:
            queries, values = selection.queries[place], selection.values[place]
            sizes = [one.config.d_model // one.heads(side) for one in (network, Network(config, weights))]
            take("q_proj", queries, width, math.sqrt(sizes[1] / sizes[0]))
            take("k_proj", queries, width)
            take("v_proj", values, width)
            take("out_proj", width, values)
            norm = f"{prefix}_layer_norm"
        last = place == f"decoder.{network.layers('decoder') - 1}.ffn"
        for name in (f"{norm}.weight", f"{norm}.bias"):
            weights[name] = old[name][width] / (scale if last else 1.0)
    return Network(config, weights)


def with_shape(network: Network, shape: StudentShape) -> Network:
    """The network under a configuration of that shape, with scaled embeddings; its weights are not changed."""
    changes: dict[str, Any] = {
        item.name: getattr(shape, item.name) for item in fields(shape) if item.name != "activation_function"
    }
    return Network(replace(network.config, **changes, scale_embedding=True), network.weights)
