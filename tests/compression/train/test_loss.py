"""Losses against torch's own, and dropout against its definition."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mobilenmt.compression.train import loss
from mobilenmt.compression.train.loss import FastDropout, LossWeights, fused_loss, soften

TOKENS, WIDTH, PIECES, BEST = 130, 16, 90, 5


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> tuple[torch.Tensor, ...]:
    """States, embedding, bias, labels, and a teacher's pieces and probabilities; worked off in several chunks."""
    monkeypatch.setattr(loss, "CHUNK_BYTES", 4 * PIECES * 50)
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(TOKENS, WIDTH, generator=generator, requires_grad=True)
    table = torch.randn(PIECES, WIDTH, generator=generator).requires_grad_()
    bias = torch.randn(1, PIECES, generator=generator)
    labels = torch.randint(0, PIECES - 1, (TOKENS,), generator=generator)
    pieces = torch.rand(TOKENS, PIECES - 1, generator=generator).topk(BEST).indices
    probabilities = torch.softmax(torch.randn(TOKENS, BEST, generator=generator), dim=1)
    return hidden, table, bias, labels, pieces, probabilities


@pytest.mark.parametrize(
    ("smoothing", "word_level", "temperature"),
    [(0.0, 0.0, 1.0), (0.1, 0.0, 1.0), (0.1, 0.4, 1.0), (0.1, 1.0, 1.0), (0.2, 0.3, 2.0), (0.0, 1.0, 0.5)],
)
def test_loss_and_gradients_are_those_of_torch(
    case: tuple[torch.Tensor, ...], smoothing: float, word_level: float, temperature: float
) -> None:
    hidden, table, bias, labels, pieces, probabilities = case
    logits = functional.linear(hidden, table, bias[0])[:, :-1]
    nll = functional.cross_entropy(logits, labels, reduction="sum")
    smoothed = functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
    student = functional.log_softmax(logits / temperature, dim=1).gather(1, pieces)
    divergence = temperature**2 * functional.kl_div(student, probabilities, reduction="sum")
    wanted = (1 - word_level) * smoothed + word_level * divergence
    weights = LossWeights(smoothing, word_level, temperature)
    found, sums = fused_loss(hidden, table, bias, labels, weights, (pieces, probabilities))
    torch.testing.assert_close(found, wanted.detach(), rtol=1e-5, atol=1e-3)
    expected = torch.stack([nll, smoothed, divergence if word_level else torch.zeros(())]).detach().double()
    torch.testing.assert_close(sums, expected, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(
        torch.autograd.grad(3 * found, (hidden, table)),
        torch.autograd.grad(3 * wanted, (hidden, table)),
        rtol=1e-4,
        atol=1e-4,
    )


def test_padding_piece_takes_no_part(case: tuple[torch.Tensor, ...]) -> None:
    hidden, table, bias, labels, *_ = case
    found, _ = fused_loss(hidden, table, bias, labels, LossWeights(0.1))
    gradient = torch.autograd.grad(found, table)[0]
    assert not gradient[-1].any()
    assert gradient[:-1].any(dim=1).all()
    with torch.no_grad():
        table[-1] = 1000.0
    assert fused_loss(hidden, table, bias, labels, LossWeights(0.1))[0] == found


def test_bf16_is_near_fp32(case: tuple[torch.Tensor, ...]) -> None:
    hidden, table, bias, labels, *_ = case
    exact, _ = fused_loss(hidden, table, bias, labels, LossWeights(0.1))
    rough, _ = fused_loss(hidden, table, bias, labels, LossWeights(0.1), dtype=torch.bfloat16)
    assert rough.item() == pytest.approx(exact.item(), rel=5e-3)
    first, second = (torch.autograd.grad(value, table)[0] for value in (exact, rough))
    assert functional.cosine_similarity(first.flatten(), second.flatten(), dim=0) > 0.999


def test_a_sure_and_wrong_model_has_a_finite_loss(case: tuple[torch.Tensor, ...]) -> None:
    hidden, table, bias, labels, *_ = case
    found, _ = fused_loss(hidden * 1000, table, bias, labels, LossWeights(0.1))
    gradients = torch.autograd.grad(found, (hidden, table))
    assert torch.isfinite(found)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_not_a_number_comes_through(case: tuple[torch.Tensor, ...]) -> None:
    hidden, table, bias, labels, *_ = case
    broken = hidden.detach().clone()
    broken[3, 3] = float("nan")
    broken.requires_grad_()
    found, _ = fused_loss(broken, table, bias, labels, LossWeights(0.1))
    assert not torch.isfinite(torch.autograd.grad(found, table)[0]).all()


def test_softening_renormalizes_over_the_best() -> None:
    logprobs = torch.tensor([[0.5, 0.25, 0.05]]).log()
    assert soften(logprobs, 1.0)[0].tolist() == pytest.approx([0.625, 0.3125, 0.0625])
    roots = torch.tensor([0.5, 0.25, 0.05]).sqrt()
    assert soften(logprobs, 2.0)[0].tolist() == pytest.approx((roots / roots.sum()).tolist())


def test_fast_dropout_keeps_the_expected_value_and_masks_the_gradient() -> None:
    values = torch.ones(200, 1001, requires_grad=True)
    torch.manual_seed(3)
    with FastDropout():
        out = functional.dropout(values, p=0.1, training=True)
        assert functional.dropout(values, p=0.1, training=False) is values
    kept = out != 0
    assert kept.float().mean().item() == pytest.approx(0.9, abs=3e-3)
    assert out[kept].unique().tolist() == pytest.approx([1 / 0.9], rel=1e-4)
    torch.testing.assert_close(torch.autograd.grad(out.sum(), values)[0], out.detach())
    # neither rows nor neighbours go together
    assert kept.float().mean(dim=1).std().item() < 0.02
    assert (kept[:, 1:] & kept[:, :-1]).float().mean().item() == pytest.approx(0.81, abs=5e-3)


def test_fast_dropout_follows_the_seed() -> None:
    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        with FastDropout():
            return functional.dropout(torch.ones(7, 13), 0.5)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
