"""The student's forward pass and its gradients, against transformers' own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mobilenmt.compression.train import layers
from mobilenmt.compression.train.forward import hidden_states
from mobilenmt.compression.train.student import StudentShape, make_student, trained_parameters
from training_data import toy_vocabulary

Grads = dict[str, torch.Tensor]


@pytest.fixture(scope="module", params=["relu", "swish"])
def student(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    shape = StudentShape(
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=2,
        encoder_ffn_dim=96,
        decoder_ffn_dim=48,
        activation_function=request.param,
        max_position_embeddings=64,
    )
    model = make_student(shape, toy_vocabulary(tmp_path_factory.mktemp("vocabulary")), seed=1)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in trained_parameters(model).values():
            value += 0.05 * torch.randn(value.shape, generator=generator)  # biases and norms are 0 and 1 at first
        model.model.shared.weight[-1].zero_()
    return model


def batch(student: Any, *, padded: bool) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    pad = student.config.pad_token_id
    source = torch.randint(0, pad, (5, 7), generator=generator)
    target = torch.randint(0, pad, (5, 6), generator=generator)
    target[:, 0] = pad  # as decoding starts
    mask = None
    if padded:
        source[1, 3:] = pad
        source[4, 6:] = pad
        mask = source != pad
    return source, mask, target


def gradients(student: Any, states: torch.Tensor) -> Grads:
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(9))
    parameters = trained_parameters(student)
    found = torch.autograd.grad((states.float() * weights).sum(), list(parameters.values()))
    return dict(zip(parameters, found, strict=True))


def wanted(student: Any, source: torch.Tensor, mask: torch.Tensor | None, target: torch.Tensor) -> torch.Tensor:
    out = student.model(input_ids=source, attention_mask=mask, decoder_input_ids=target, use_cache=False)
    return out.last_hidden_state  # type: ignore[no-any-return]


def differ(found: Grads, expected: Grads) -> float:
    """Norm of the difference as a part of the norm."""
    first, second = (torch.cat([side[name].flatten() for name in expected]) for side in (found, expected))
    return float((first - second).norm() / second.norm())


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("by_hand", [True, False])
def test_states_and_gradients_are_those_of_transformers(
    student: Any, padded: bool, by_hand: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not by_hand:  # what a GPU does
        monkeypatch.setattr(layers, "by_hand", lambda values: False)
    given = batch(student, padded=padded)
    expected, found = wanted(student, *given), hidden_states(student, *given, torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    first, second = gradients(student, found), gradients(student, expected)
    for name in second:
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=2e-4, msg=name)
    assert not first["model.shared.weight"][-1].any()


@pytest.mark.parametrize("padded", [False, True])
def test_bf16_is_as_near_as_autocast_is(student: Any, padded: bool) -> None:
    given = batch(student, padded=padded)
    exact = gradients(student, wanted(student, *given))
    with torch.autocast("cpu", torch.bfloat16):
        autocast = wanted(student, *given)
    states = hidden_states(student, *given, torch.bfloat16)
    assert states.dtype == torch.bfloat16
    assert differ(gradients(student, states), exact) < 1.5 * differ(gradients(student, autocast), exact)


def test_padding_changes_nothing_in_bf16(student: Any) -> None:
    source, mask, target = batch(student, padded=True)
    assert mask is not None
    alone = hidden_states(student, source[1:2, :3], None, target[1:2], torch.bfloat16)
    among = hidden_states(student, source, mask, target, torch.bfloat16)[1:2]
    torch.testing.assert_close(among, alone, rtol=0.05, atol=0.05)


def test_dropout_is_drawn_from_the_seed_and_only_in_training(student: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dropout", "attention_dropout", "activation_dropout"):
        monkeypatch.setattr(student.config, name, 0.2)
    given = batch(student, padded=True)

    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return hidden_states(student, *given, torch.float32)

    with torch.random.fork_rng():
        assert torch.equal(drawn(1), drawn(1))
        assert not torch.allclose(drawn(1), drawn(2))
        student.eval()
        try:
            assert torch.equal(drawn(1), drawn(2))
        finally:
            student.train()


@pytest.mark.parametrize(("length", "room"), [(1, 32), (31, 32), (32, 32), (33, 64)])
def test_room_for_keys(length: int, room: int) -> None:
    assert layers.padded_length(length, torch.empty(0, dtype=torch.bfloat16)) == room
    assert layers.padded_length(length, torch.empty(0)) == length
