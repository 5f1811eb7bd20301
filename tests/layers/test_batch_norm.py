"""A norm per step: which one a step gets, how it counts, what happens at the end, and that it is still a list."""

import pytest
import torch
from torch import nn

import spikeloom as snn

from .running import by_steps, unrolled

STEPS, B, C = 6, 8, 3
KINDS = {"1d": (snn.BatchNormTT1d, (B, C)), "2d": (snn.BatchNormTT2d, (B, C, 4, 4))}

every_kind = pytest.mark.parametrize(("kind", "shape"), KINDS.values(), ids=KINDS)
both_ways = pytest.mark.parametrize("way", [by_steps, unrolled])


@every_kind
@both_ways
def test_each_step_is_normalised_by_its_own_norm(way, kind, shape):
    bntt = kind(C, STEPS, momentum=1.0)
    for t, norm in enumerate(bntt):
        nn.init.constant_(norm.weight, t + 1.0)
    x = torch.randn(STEPS, *shape) + torch.arange(STEPS).view(-1, *[1] * len(shape))
    out = way(bntt, x)
    for t, norm in enumerate(bntt):
        assert norm.num_batches_tracked == 1
        torch.testing.assert_close(norm.running_mean, x[t].transpose(0, 1).flatten(1).mean(1))
        torch.testing.assert_close(out[t].std(correction=0), torch.tensor(t + 1.0), rtol=1e-3, atol=1e-3)


@every_kind
def test_a_norm_may_be_called_by_its_index_and_that_does_not_count(kind, shape):
    bntt, x = kind(C, STEPS).eval(), torch.randn(shape)
    for t in (0, 3, STEPS - 1):
        assert torch.equal(bntt[t](x), x / (1 + bntt[t].eps) ** 0.5)
    assert bntt.step == 0


def test_it_counts_over_steps_and_chunks_until_it_is_reset():
    bntt = snn.BatchNormTT1d(C, STEPS)
    bntt(torch.rand(B, C))
    snn.unroll(bntt, torch.rand(2, B, C))
    assert [int(norm.num_batches_tracked) for norm in bntt] == [1, 1, 1, 0, 0, 0]
    snn.utils.reset(bntt)
    assert bntt.step == 0
    bntt(torch.rand(B, C))
    assert [int(norm.num_batches_tracked) for norm in bntt] == [2, 1, 1, 0, 0, 0]


@both_ways
def test_beyond_its_steps_it_refuses_and_changes_nothing(way):
    net = nn.Sequential(nn.Identity(), snn.BatchNormTT1d(C, STEPS))
    bntt = net[1]
    way(net, torch.rand(STEPS - 1, B, C))
    before = {key: value.clone() for key, value in bntt.state_dict().items()}
    with pytest.raises(IndexError, match=r"BatchNormTT1d.* has 6 norms.*time_steps.*utils\.reset"):
        snn.unroll(net, torch.rand(2, B, C))
    assert bntt.step == STEPS - 1
    assert all(torch.equal(value, before[key]) for key, value in bntt.state_dict().items())
    net(torch.rand(B, C))
    with pytest.raises(IndexError, match="called for step 7"):
        net(torch.rand(B, C))
    assert bntt.step == STEPS


def test_an_input_that_its_norms_refuse_does_not_count():
    bntt = snn.BatchNormTT1d(C, STEPS)
    with pytest.raises((ValueError, RuntimeError)):
        bntt(torch.rand(B, C + 1))
    assert bntt.step == 0


@every_kind
def test_it_is_a_list_of_norms_without_bias(kind, shape):
    bntt = kind(C, STEPS, eps=1e-3, momentum=0.3, affine=False)
    assert isinstance(bntt, nn.ModuleList)
    assert len(bntt) == STEPS
    assert type(bntt[1:3]) is nn.ModuleList
    assert list(bntt[1:3]) == [bntt[1], bntt[2]]
    assert {(norm.eps, norm.momentum, norm.bias, norm.weight) for norm in bntt} == {(1e-3, 0.3, None, None)}


@pytest.mark.parametrize("steps", [2.5, True, "5", None])
def test_time_steps_that_are_no_whole_number(steps):
    with pytest.raises(TypeError, match="BatchNormTT1d got time_steps="):
        snn.BatchNormTT1d(C, steps)


def test_converted_to_synchronised_norms_it_still_counts():
    bntt = nn.SyncBatchNorm.convert_sync_batchnorm(snn.BatchNormTT1d(C, STEPS)).eval()
    assert isinstance(bntt[0], nn.SyncBatchNorm)
    assert snn.unroll(bntt, torch.rand(STEPS, B, C)).shape == (STEPS, B, C)
    assert bntt.step == STEPS
