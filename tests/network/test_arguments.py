"""The arguments of unroll, explain, summary and diagnose: `steps`, its other name, and what is often passed instead."""

import warnings

import pytest
import torch
from torch import nn

import spikeloom as snn

from .networks import leaky

RUNS = {"unroll": snn.unroll, "explain": snn.explain, "summary": snn.summary, "diagnose": snn.diagnose}


class Scaled(nn.Module):
    """A forward with an argument of the name `num_steps`, and an optional second input."""

    def __init__(self):
        super().__init__()
        self.lif = leaky()

    def forward(self, x, num_steps=1, *, gain=1.0):
        return self.lif(gain * x / num_steps)


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), leaky())


def convolution():
    return nn.Sequential(nn.Conv2d(1, 2, 3), leaky(), nn.Flatten(), nn.Linear(32, 4))


@pytest.fixture(autouse=True)
def on_the_loop():
    with snn.backend("loop"):
        yield


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_num_steps_is_another_name_of_steps(run):
    x = torch.rand(4, 6)
    wanted, got = run(linear(), x, steps=3), run(linear(), x, num_steps=3)
    assert torch.equal(wanted, got) if run is snn.unroll else str(wanted) == str(got)
    both = run(linear(), x, steps=3, num_steps=3)
    assert str(both) == str(wanted)
    with pytest.raises(TypeError, match="steps=3 and num_steps=4 are two names of one argument; pass one"):
        run(linear(), x, steps=3, num_steps=4)
    with pytest.raises(TypeError, match=r"25 was passed by position, as input 1 of the forward of .*by name: steps=25"):
        run(linear(), x, 25)
    with pytest.raises(TypeError, match="by name: steps=7"):
        run(leaky(), x, 7)


def test_num_steps_of_false_is_not_given_and_stream_has_it_too():
    assert snn.unroll(linear(), torch.rand(3, 4, 6), num_steps=False).shape == (3, 4, 5)
    assert [out.shape for out in snn.stream(linear(), [torch.rand(4, 6)] * 2, num_steps=3)] == [(3, 4, 5)] * 2


class Wrapping(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


def test_a_forward_with_an_argument_num_steps_gets_it():
    x = torch.full((2, 3), 3.0)
    wanted = snn.unroll(leaky(), x / 2, steps=4)
    assert torch.equal(snn.unroll(Scaled(), x, steps=4, num_steps=2), wanted)
    assert torch.equal(snn.unroll(Scaled(), x.expand(4, 2, 3), num_steps=2), wanted)
    assert torch.equal(snn.unroll(Scaled(), x.expand(4, 2, 3), 2), wanted)
    assert torch.equal(snn.unroll(nn.DataParallel(Scaled()), x.expand(4, 2, 3), num_steps=2), wanted)
    assert torch.equal(snn.unroll(Wrapping(Scaled()), x.expand(4, 2, 3), num_steps=2), wanted)


MEANT = {
    "a batch of vectors": (lambda: snn.unroll(linear(), torch.rand(4, 6)), "shape (4, 6) as a sequence", "steps=T"),
    "a batch of images": (lambda: snn.unroll(convolution(), torch.rand(4, 1, 6, 6)), "(4, 1, 6, 6)", "steps=T"),
    "a neuron of its own size": (lambda: snn.unroll(nn.Sequential(leaky(beta=torch.rand(3)), nn.Linear(3, 2)),
                                                    torch.rand(4, 3)), "of 4 steps with 3 rows", "steps=T"),
    "a sequence of images and steps": (lambda: snn.unroll(convolution(), torch.rand(4, 3, 1, 6, 6), steps=4),
                                       "steps=4 and reads an input of shape (4, 3, 1, 6, 6) as 4 rows", "Leave out"),
}  # fmt: skip


@pytest.mark.parametrize("case", MEANT)
def test_an_error_names_the_reading_that_the_network_accepts(case):
    run, *sentences = MEANT[case]
    with pytest.raises((RuntimeError, ValueError)) as caught:
        run()
    assert all(sentence in str(caught.value) for sentence in sentences), caught.value
    assert "The network raises" in str(caught.value)


NOT_MEANT = {
    "another width": (lambda: snn.unroll(linear(), torch.rand(4, 3, 7)), "cannot be multiplied"),
    "another width, static": (lambda: snn.unroll(linear(), torch.rand(4, 7), steps=3), "cannot be multiplied"),
    "images of another size": (lambda: snn.unroll(convolution(), torch.rand(3, 4, 1, 7, 7)), "cannot be multiplied"),
    "a neuron that is called twice": (
        lambda: snn.unroll(nn.Sequential(nn.Linear(6, 6), *[leaky()] * 2), torch.rand(4, 3, 6)),
        "is called twice",
    ),
}


@pytest.mark.parametrize("case", NOT_MEANT)
def test_other_errors_are_what_they_were(case):
    run, sentence = NOT_MEANT[case]
    with pytest.raises(RuntimeError, match=sentence) as caught:
        run()
    assert "The network raises" not in str(caught.value)


def test_steps_beside_a_sequence_of_that_length_are_warned_of_once():
    net, x = linear(), torch.rand(5, 4, 6)
    with pytest.warns(
        UserWarning, match=r"steps=5 and reads .* as 5 rows .* \[5, 5, 4, ...\]. .* leave out steps"
    ) as w:
        assert snn.unroll(net, x, steps=5).shape == (5, 5, 4, 5)
    assert w[0].filename == __file__
    snn.unroll(net, x, steps=5)  # warnings are errors here


def test_images_without_steps_are_warned_of_once():
    """A network that begins with Flatten accepts [B, 1, H, W] as B steps of one row."""
    net, images = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), leaky()), torch.rand(5, 1, 6, 6)
    with pytest.warns(UserWarning, match=r"\(5, 1, 6, 6\) as 5 steps of one row.* unroll\(net, x, steps=T\)") as w:
        assert snn.unroll(net, images).shape == (5, 1, 4)
    assert w[0].filename == __file__
    snn.unroll(net, images)  # warnings are errors here
    snn.unroll(nn.Sequential(nn.Flatten(), nn.Linear(36, 4), leaky()), images.flatten(2))


def test_a_batch_of_as_many_rows_as_steps_is_not_warned_of():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), leaky())
    for net, x in (
        (linear(), torch.rand(4, 6)),
        (convolution(), torch.rand(4, 1, 6, 6)),
        (flat, torch.rand(4, 1, 6, 6)),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert snn.unroll(net, x, steps=4).shape[:2] == (4, 4)
            snn.reset(net)


def test_looking_at_an_error_or_a_reading_changes_nothing():
    net = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 5), nn.Dropout(), leaky())
    state, drawn = {name: value.clone() for name, value in net.state_dict().items()}, torch.get_rng_state()
    with pytest.raises(ValueError, match="steps=T"):
        snn.unroll(net, torch.rand(4, 6, generator=torch.Generator()))
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.equal(drawn, torch.get_rng_state())
    assert not net[3].mem.numel()


def test_inputs_that_the_forward_does_not_take_are_counted():
    x, y = torch.rand(3, 4, 6), torch.rand(3, 4)
    with pytest.raises(TypeError, match=r"2 inputs were passed, but the forward of Sequential takes 1: all positional"):
        snn.unroll(linear(), x, y)
    for targets in (y, y[0]):
        outputs = snn.stream(linear(), zip([x, x], [targets, targets], strict=True))
        with pytest.raises(
            (TypeError, ValueError), match=r"zip the outputs: for out, y in zip\(snn.stream\(net, xs\), ys\)"
        ):
            next(outputs)
    with pytest.raises(ValueError, match="has shape") as caught:
        next(snn.stream(linear(), [[x, y[0, :1]]]))
    assert any("The chunk is a list" in note for note in caught.value.__notes__)
    assert len(list(zip(snn.stream(linear(), [x, x]), [y, y], strict=True))) == 2


def test_targets_that_are_numbers_in_a_stream_are_no_steps():
    with pytest.raises(TypeError, match=r"zip the outputs: for out, y in zip\(snn.stream\(net, xs\), ys\)"):
        next(snn.stream(linear(), zip([torch.rand(3, 4, 6)], [7], strict=True)))
