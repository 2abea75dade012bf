"""Two processes with half a batch each must hold the statistics of one process with the whole."""

from __future__ import annotations

import pytest
import torch

from flexseg.components.gap import GranularPrototypes
from flexseg.components.ranks import sum_over_ranks
from flexseg.components.ube import uncertainty_weights

BODY = """
from flexseg.components.gap import GranularPrototypes
from flexseg.components.ranks import sum_over_ranks
from flexseg.components.ube import uncertainty_weights

out = {"weights": [], "banks": []}
gap = GranularPrototypes(4, 5, 6, momentum=0.5)
gap.load_state_dict(data["model"])
for features, labels, entropy, mask in data["batches"]:
    out["weights"].append(uncertainty_weights(entropy[half], mask[half]))
    gap(features[half], labels[half])
    out["banks"].append({k: v.clone() for k, v in gap.bank.state_dict().items()})
mine = torch.tensor([float(rank + 1)])
out["sum"], out["argument"] = sum_over_ranks(mine), mine
"""


def test_alone_it_is_the_tensor_itself() -> None:
    x = torch.arange(3.0, requires_grad=True)
    assert torch.equal(sum_over_ranks(x), x)
    assert not sum_over_ranks(x).requires_grad


@pytest.fixture(scope="module")
def both(make_labels, on_two_ranks) -> tuple[dict, list[dict]]:
    """The data, and what each of the two processes made of its half."""
    g = torch.Generator().manual_seed(0)
    batches = []
    for step in range(4):
        labels = make_labels(step, batch=4)
        features, entropy = torch.randn(4, 4, 13, 17, generator=g), torch.rand(4, 13, 17, generator=g)
        mask = torch.rand(4, 13, 17, generator=g) < 0.3
        if step == 2:  # the second process has nothing to add, but must not leave the first one waiting
            labels[2:], mask[2:] = 255, False
        if step == 3:
            labels[:], mask[:] = 255, False
        batches.append((features, labels, entropy, mask))
    torch.manual_seed(0)
    data = {"batches": batches, "model": GranularPrototypes(4, 5, 6, momentum=0.5).state_dict()}
    return data, on_two_ranks(BODY, data)


def test_the_sum_leaves_its_argument(both) -> None:
    for rank, out in enumerate(both[1]):
        assert out["sum"].item() == 3.0
        assert out["argument"].item() == rank + 1


def test_uncertainty_weights_are_those_of_the_joint_batch(both) -> None:
    data, outs = both
    for step, (_, _, entropy, mask) in enumerate(data["batches"]):
        joint = torch.cat([out["weights"][step] for out in outs])
        torch.testing.assert_close(joint, uncertainty_weights(entropy, mask), rtol=1e-5, atol=1e-5)
        if step == 0:  # and not those of the halves
            alone = uncertainty_weights(entropy[:2], mask[:2])
            assert (alone - joint[:2]).abs().max() > 1e-3


def test_the_bank_is_that_of_the_joint_batch(both) -> None:
    data, outs = both
    gap = GranularPrototypes(4, 5, 6, momentum=0.5)
    gap.load_state_dict(data["model"])
    for step, (features, labels, _, _) in enumerate(data["batches"]):
        gap(features, labels)
        for out in outs:
            assert torch.equal(out["banks"][step]["updates"], gap.bank.updates)
            torch.testing.assert_close(out["banks"][step]["prototypes"], gap.bank.prototypes, rtol=1e-5, atol=1e-6)
        assert torch.equal(outs[0]["banks"][step]["prototypes"], outs[1]["banks"][step]["prototypes"])
    assert gap.bank.updates.sum() > 0
