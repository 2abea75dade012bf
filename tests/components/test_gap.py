"""GAP against the equations: explicit means, explicit sums, one pixel and one prototype at a time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flexseg.components.boundary import downsample_label, granularity
from flexseg.components.gap import GranularPrototypes, PrototypeBank

C, G, D = 4, 3, 6


def batch(seed: int, n: int, classes: int = C) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    features = F.normalize(torch.randn(n, D, generator=g), dim=1)
    return features, torch.randint(0, classes, (n,), generator=g), torch.randint(0, G, (n,), generator=g)


def trained_bank(steps: int = 6, classes: int = C, **kwargs) -> PrototypeBank:
    bank = PrototypeBank(C, D, G, **kwargs)
    for step in range(steps):
        bank.update(*batch(step, 9, classes))
    return bank


class SlowBank:
    """The bank of the paper as a dictionary: (c, g) → its prototype, and how often it was updated."""

    def __init__(self, momentum: float) -> None:
        self.momentum, self.p, self.n = momentum, {}, {}

    def update(self, features: Tensor, classes: Tensor, granularities: Tensor) -> None:
        cells: dict[tuple[int, int], list[Tensor]] = {}
        for f, c, g in zip(features.double(), classes.tolist(), granularities.tolist(), strict=True):
            cells.setdefault((c, g), []).append(f)
        for cell, members in cells.items():
            mean = sum(members[1:], members[0]) / len(members)
            if cell in self.p:
                mean = self.momentum * self.p[cell] + (1 - self.momentum) * mean
            self.p[cell] = mean / mean.norm()
            self.n[cell] = self.n.get(cell, 0) + 1

    def weights(self, clip: tuple[float, float]) -> dict[tuple[int, int], float]:
        w = {cell: 1 / n for cell, n in self.n.items()}
        mean = sum(w.values()) / len(w)
        w = {cell: min(max(v / mean, clip[0]), clip[1]) for cell, v in w.items()}
        mean = sum(w.values()) / len(w)
        return {cell: v / mean for cell, v in w.items()}

    def loss(self, features: Tensor, classes: Tensor, granularities: Tensor, tau: float, clip=(0.1, 10.0)) -> Tensor:
        weights, total, number = self.weights(clip), features.double().sum() * 0, 0
        for f, c, g in zip(features.double(), classes.tolist(), granularities.tolist(), strict=True):
            if (c, g) not in self.p:
                continue
            denominator = sum(torch.exp(f @ p / tau) for p in self.p.values())
            total = total - weights[c, g] * torch.log(torch.exp(f @ self.p[c, g] / tau) / denominator)
            number += 1
        return total / max(number, 1)


@settings(derandomize=True, max_examples=25)
@given(st.integers(0, 1000), st.lists(st.integers(0, 14), min_size=1, max_size=6), st.sampled_from([0.0, 0.5, 1.0]))
def test_bank_weights_loss_and_gradient_against_the_equations(seed: int, sizes: list[int], momentum: float) -> None:
    bank, slow = PrototypeBank(C, D, G, momentum), SlowBank(momentum)
    for step, size in enumerate(sizes):
        features, classes, granularities = batch(seed * 10 + step, size)
        features.requires_grad_()
        fast_loss = bank.loss(features, classes, granularities, 0.07)
        slow_loss = slow.loss(features, classes, granularities, 0.07) if slow.p else features.double().sum() * 0
        torch.testing.assert_close(fast_loss.double(), slow_loss, rtol=1e-4, atol=1e-5)
        (of_fast,), (of_slow,) = (torch.autograd.grad(loss, features) for loss in (fast_loss, slow_loss))
        torch.testing.assert_close(of_fast, of_slow, rtol=1e-3, atol=1e-5)
        bank.update(features, classes, granularities)
        slow.update(features.detach(), classes, granularities)
        for c in range(C):
            for g in range(G):
                assert bank.updates[c, g] == slow.n.get((c, g), 0)
                expected = slow.p.get((c, g), torch.zeros(D, dtype=torch.float64))
                torch.testing.assert_close(bank.prototypes[c, g].double(), expected, rtol=1e-4, atol=1e-5)
                weight = slow.weights((0.1, 10.0)).get((c, g), 0.0) if slow.p else 0.0
                assert bank.weights()[c, g].item() == pytest.approx(weight, rel=1e-4)


def test_weights_are_inverse_to_the_update_frequency_clipped_and_of_mean_one() -> None:
    bank = PrototypeBank(2, D, 2)
    bank.updates.copy_(torch.tensor([[1, 2], [4, 0]]))
    expected = torch.tensor([[1.0, 0.5], [0.25, 0.0]])
    torch.testing.assert_close(bank.weights(), expected * 3 / 1.75)
    bank.updates.copy_(torch.tensor([[1, 10**6], [10**6, 0]]))
    clipped = torch.tensor([[3.0, 0.1], [0.1, 0.0]])
    torch.testing.assert_close(bank.weights(), clipped * 3 / 3.2, rtol=1e-4, atol=1e-4)
    assert PrototypeBank(2, D, 2).weights().abs().sum() == 0


@pytest.mark.parametrize("bank", [PrototypeBank(C, D, G), trained_bank(classes=3)], ids=["empty", "of others"])
@pytest.mark.parametrize("n", [0, 5])
def test_without_a_seen_cell_the_loss_is_zero_with_a_graph(n: int, bank: PrototypeBank) -> None:
    features, _, granularities = batch(0, n)
    features.requires_grad_()
    loss = bank.loss(features, torch.full((n,), 3), granularities)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_an_empty_batch_changes_nothing() -> None:
    bank = trained_bank()
    before = {k: v.clone() for k, v in bank.state_dict().items()}
    bank.update(*batch(0, 0))
    assert all(torch.equal(v, before[k]) for k, v in bank.state_dict().items())


def test_prototypes_carry_no_gradient_and_update_does_not_disturb_a_pending_backward() -> None:
    bank = trained_bank()
    features, classes, granularities = batch(7, 12)
    features.requires_grad_()
    (expected,) = torch.autograd.grad(bank.loss(features, classes, granularities), features)
    loss = bank.loss(features, classes, granularities)
    bank.update(features, classes, granularities)
    loss.backward()
    assert torch.equal(features.grad, expected)
    assert not bank.prototypes.requires_grad
    assert list(bank.parameters()) == []


def test_cancelling_features_leave_a_finite_prototype() -> None:
    bank = PrototypeBank(1, 2, 1)
    where = torch.zeros(2, dtype=torch.int64)
    bank.update(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), where, where)
    assert torch.isfinite(bank.prototypes).all()


def test_bfloat16_features_and_autocast_are_compared_in_float32() -> None:
    bank = trained_bank()
    features, classes, granularities = batch(5, 20)
    half = features.bfloat16()
    expected = bank.loss(half.float(), classes, granularities)
    assert expected.dtype == torch.float32
    assert torch.equal(bank.loss(half, classes, granularities), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(bank.loss(half, classes, granularities), expected)


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [({"momentum": 1.5}, "momentum"), ({"momentum": -0.1}, "momentum")],
)
def test_wrong_settings_of_a_bank_are_refused(kwargs: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        PrototypeBank(C, D, G, **kwargs)


# The whole component.


def slow_forward(gap: GranularPrototypes, slow: SlowBank, features: Tensor, labels: Tensor) -> Tensor:
    """One pixel at a time, all boundary pixels projected on their own; then the bank's update."""
    size = features.shape[-2:]
    classes = downsample_label(labels, size)
    if gap.rings_at == "feature":
        rings = granularity(classes, gap.kernels)
    else:
        rings = downsample_label(granularity(labels, gap.kernels), size)
    f, c, g = [], [], []
    for b, y, x in (rings >= 0).nonzero().tolist():
        z = gap.projection.weight @ features[b, :, y, x] + gap.projection.bias
        f.append(z / z.norm())
        c.append(classes[b, y, x])
        g.append(rings[b, y, x])
    projected, of_class, of_ring = torch.stack(f), torch.stack(c), torch.stack(g)
    loss = slow.loss(projected, of_class, of_ring, gap.temperature) if slow.p else projected.double().sum() * 0
    slow.update(projected.detach(), of_class, of_ring)
    return loss


@pytest.mark.parametrize("rings_at", ["feature", "label"])
@pytest.mark.parametrize("kernels", [(3, 5, 7), (5,)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [2, 7])  # fewer and more than the projection has: with and without a basis
def test_the_whole_component_against_pixel_by_pixel(make_labels, rings_at, kernels, layout, channels) -> None:
    torch.manual_seed(0)
    gap = GranularPrototypes(channels, 5, D, kernels=kernels, rings_at=rings_at, momentum=0.9)
    slow = SlowBank(0.9)
    for step in range(3):
        features = torch.randn(2, channels, 9, 11).to(memory_format=layout).requires_grad_()
        labels = make_labels(step, height=18, width=22, block=6)
        wanted = [features, *gap.parameters()]
        slow_grads = torch.autograd.grad(loss := slow_forward(gap, slow, features, labels), wanted)
        fast = gap(features, labels.to(torch.uint8))
        fast_grads = torch.autograd.grad(fast, wanted)
        torch.testing.assert_close(fast.double(), loss, rtol=1e-4, atol=1e-5)
        for a, b in zip(fast_grads, slow_grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    assert fast.item() > 0
    for (c, g), p in slow.p.items():
        torch.testing.assert_close(gap.bank.prototypes[c, g].double(), p, rtol=1e-4, atol=1e-5)


def test_evaluation_leaves_the_bank_alone(make_labels) -> None:
    gap = GranularPrototypes(7, 5, D).eval()
    gap(torch.randn(2, 7, 13, 17), make_labels(0))
    assert gap.bank.updates.sum() == 0


@pytest.mark.parametrize("channels", [2, 7])
@pytest.mark.parametrize("labels", [torch.full((2, 8, 8), 255), torch.zeros(2, 8, 8, dtype=torch.int64)])
def test_no_boundary_is_zero_with_a_graph_for_every_parameter(labels: Tensor, channels: int) -> None:
    gap = GranularPrototypes(channels, 5, D)
    features = torch.randn(2, channels, 4, 4, requires_grad=True)
    loss = gap(features, labels)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(features.grad, torch.zeros_like(features))
    assert all(p.grad is not None and not p.grad.any() for p in gap.parameters())
    assert gap.bank.updates.sum() == 0


def test_one_pixel_features() -> None:
    gap = GranularPrototypes(7, 5, D, rings_at="label")
    assert gap(torch.randn(1, 7, 1, 1), torch.tensor([[[0, 1]]])).item() == 0
    assert gap.bank.updates.sum() == 1


def test_max_pixels_takes_an_even_subset_and_no_random_number(make_labels) -> None:
    gap = GranularPrototypes(7, 5, D, max_pixels=10)
    rings = granularity(make_labels(0))
    everything = GranularPrototypes(7, 5, D)._select(rings)
    assert len(everything) > 40
    state = torch.random.get_rng_state()
    subset = gap._select(rings)
    assert torch.equal(state, torch.random.get_rng_state())
    positions = [everything.tolist().index(i) for i in subset.tolist()]
    assert positions == [i * len(everything) // 10 for i in range(10)]
    gap.max_pixels = len(everything)
    assert torch.equal(gap._select(rings), everything)


@pytest.mark.parametrize("channels", [3, 7])
def test_mixed_precision(make_labels, channels: int) -> None:
    torch.manual_seed(1)
    gap = GranularPrototypes(channels, 5, D)
    features, labels = torch.randn(2, channels, 13, 17).bfloat16().requires_grad_(), make_labels(0)
    gap(features, labels)
    plain = gap.eval()(features, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = gap(features, labels)
    assert plain.dtype == mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, plain, rtol=0.05, atol=0.05)
    mixed.backward()
    assert features.grad.dtype == torch.bfloat16
    assert features.grad.abs().sum() > 0


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e4])
def test_the_basis_changes_nothing_at_the_real_size(make_labels, scale: float) -> None:
    torch.manual_seed(2)
    gap, labels = GranularPrototypes(64, 5, 256), make_labels(0)
    gap(torch.randn(2, 64, 13, 17), labels)
    x = (scale * torch.randn(40, 64)).requires_grad_()
    classes, rings = torch.randint(0, 5, (40,)), torch.randint(0, 3, (40,))
    u, basis = gap._project(x)
    f = F.normalize(gap.projection(x), dim=1)
    torch.testing.assert_close(u @ basis.T, f, rtol=1e-4, atol=1e-5)
    fast, plain = gap.bank.loss(u, classes, rings, 0.07, basis), gap.bank.loss(f, classes, rings, 0.07)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
    wanted = [x, *gap.parameters()]
    for a, b in zip(torch.autograd.grad(fast, wanted), torch.autograd.grad(plain, wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * b.abs().max().item())
    other = PrototypeBank(5, 256)
    other.load_state_dict(gap.bank.state_dict())
    gap.bank.update(u, classes, rings, basis)
    other.update(f, classes, rings)
    torch.testing.assert_close(gap.bank.prototypes, other.prototypes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [2, 7])
def test_a_projection_of_zero_has_no_direction_but_stays_finite(channels: int) -> None:
    gap = GranularPrototypes(channels, 5, D)
    torch.nn.init.zeros_(gap.projection.bias)
    u, basis = gap._project(torch.zeros(3, channels, requires_grad=True))
    assert torch.equal(u if basis is None else u @ basis.T, torch.zeros(3, D))
    u.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in gap.parameters() if p.grad is not None)


def test_nan_features_reach_the_loss(make_labels) -> None:
    gap = GranularPrototypes(7, 5, D)
    features, labels = torch.randn(2, 7, 13, 17), make_labels(0)
    gap(features, labels)
    assert gap.eval()(torch.full_like(features, float("nan")), labels).isnan()


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [({"rings_at": "image"}, "rings_at"), ({"temperature": 0.0}, "temperature"), ({"max_pixels": -1}, "max_pixels")],
)
def test_wrong_settings_are_refused(kwargs: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        GranularPrototypes(7, 5, D, **kwargs)


def test_another_batch_size_is_refused() -> None:
    with pytest.raises(ValueError, match="2 feature maps but 3 labels"):
        GranularPrototypes(7, 5, D)(torch.randn(2, 7, 4, 4), torch.zeros(3, 4, 4, dtype=torch.int64))


def test_weights_may_count_pixels() -> None:
    """A cell with many pixels in every batch weighs less than one with few, which batches alone do not tell apart."""
    many, few = PrototypeBank(2, D, 1, counted="pixels"), PrototypeBank(2, D, 1)
    classes = torch.tensor([0] * 8 + [1] * 2)
    features, _, _ = batch(0, 10)
    for bank in (many, few):
        for _ in range(3):
            bank.update(features, classes, torch.zeros(10, dtype=torch.int64))
    assert many.pixels.flatten().tolist() == few.pixels.flatten().tolist() == [24, 6]
    assert few.weights().flatten().tolist() == [1.0, 1.0]
    torch.testing.assert_close(many.weights().flatten(), torch.tensor([0.4, 1.6]))
    with pytest.raises(ValueError, match="counted"):
        PrototypeBank(2, counted="images")


def test_the_entropy_rank_of_known_banks() -> None:
    bank = PrototypeBank(4, 8, 1)
    assert bank.rank() == 0
    bank.updates.fill_(1)
    bank.prototypes[:, 0] = torch.eye(8)[:4]
    assert bank.rank() == pytest.approx(4)
    bank.prototypes[:, 0] = torch.eye(8)[0]
    assert bank.rank() == pytest.approx(1, abs=1e-3)
    bank.updates[2:] = 0
    bank.prototypes[:, 0] = torch.eye(8)[:4]
    assert bank.rank() == pytest.approx(2), "of the cells that were seen"


@pytest.mark.parametrize("channels", [4, 40])
def test_what_the_latest_batch_says_of_the_bank(make_labels, channels: int) -> None:
    torch.manual_seed(0)
    labels = make_labels(4, 2, 16, 24, C)
    gap = GranularPrototypes(channels, C, D, rings_at="feature")
    assert gap.measure() == {}
    for step in range(4):
        features = torch.randn(2, channels, 16, 24, generator=torch.Generator().manual_seed(step))
        gap(features, labels)
    with torch.no_grad():
        points = F.normalize(gap.projection(features.permute(0, 2, 3, 1).flatten(0, 2)), dim=1)
    rings, classes = granularity(labels, gap.kernels).flatten(), labels.flatten()
    right = guessed = number = 0
    for c in range(C):
        if int((gap.bank.updates[c] > 0).sum()) < 2:
            continue
        own = [g for g in range(3) if gap.bank.updates[c, g] > 0]
        mine = (rings >= 0) & (classes == c)
        nearest = torch.tensor(own)[(points[mine] @ gap.bank.prototypes[c][own].T).argmax(dim=1)]
        right += int((nearest == rings[mine]).sum())
        guessed += int(torch.bincount(rings[mine].long(), minlength=3).max())
        number += int(mine.sum())
    found = gap.measure()
    assert found["ring_share"] == pytest.approx(float((rings >= 0).sum() / (classes != 255).sum()))
    assert found["ring_accuracy"] == pytest.approx(right / number, abs=2 / number)
    assert found["ring_guess"] == pytest.approx(guessed / number)
    assert found["rank"] == pytest.approx(gap.bank.rank())
