"""Every code against its formula, written here once more, element by element."""

import math

import numpy as np
import pytest
import torch

from spikeloom import spikegen

from ..each import for_each
from ..oracle import assert_close
from .cases import numbers

DOUBLE = {"dtype": torch.float64}


# -- rate --------------------------------------------------------------------------------------------------------------


def test_the_share_of_spikes_is_the_clipped_data():
    x = torch.tensor([-0.5, 0.0, 0.1, 0.5, 0.9, 1.0, 1.5])
    with (
        pytest.warns(UserWarning, match=r"rate got data up to 1.5; .* Scale the data to \[0, 1\]"),
        pytest.warns(UserWarning, match=r"rate got data down to -0.5; a probability below 0 never fires"),
    ):
        share = spikegen.rate(x, num_steps=20_000).mean(0)
    torch.testing.assert_close(share, x.clamp(0, 1), atol=5 * math.sqrt(0.25 / 20_000), rtol=0)


def test_values_above_one_are_warned_of_unless_the_gain_brings_them_down_or_up():
    """With warnings as errors: a gain that saturates is the caller's choice, and rounding is no mistake."""
    spikegen.rate(torch.tensor([0.0, 255.0]), num_steps=2, gain=1 / 255)
    spikegen.rate(torch.tensor([0.0, 0.5]), num_steps=2, gain=4)
    spikegen.rate(torch.tensor([0.0, 1.0 + 1e-6]), num_steps=2)
    spikegen.rate(torch.tensor([-1.0, 1.0]), num_steps=2, gain=0.5, offset=0.5)
    spikegen.rate(torch.tensor([0.0, 0.5]), num_steps=2, offset=-0.2)
    with pytest.warns(UserWarning, match="rate got data up to 255"):
        spikegen.rate(torch.tensor([[0, 255], [3, 9]], dtype=torch.uint8), time_var_input=True)


def test_gain_and_offset_come_before_the_clipping():
    x = torch.tensor([0.0, 0.2, 0.4])
    share = spikegen.rate(x, num_steps=20_000, gain=torch.tensor([1.0, 2.0, 5.0]), offset=0.1).mean(0)
    torch.testing.assert_close(share, torch.tensor([0.1, 0.5, 1.0]), atol=5 * math.sqrt(0.25 / 20_000), rtol=0)


def test_steps_and_elements_are_drawn_independently():
    spk = spikegen.rate(torch.full((300,), 0.5), num_steps=400) - 0.5
    across_time, across_elements = (spk[1:] * spk[:-1]).mean(), (spk[:, 1:] * spk[:, :-1]).mean()
    assert max(abs(across_time), abs(across_elements)) < 5 * 0.25 / math.sqrt(spk.numel())


def test_the_first_steps_are_silent():
    ones = torch.ones(3)
    assert spikegen.rate(ones, num_steps=5, first_spike_time=2).sum(1).tolist() == [0, 0, 3, 3, 3]
    assert spikegen.rate(ones.expand(2, 3), first_spike_time=1, time_var_input=True).sum(1).tolist() == [0, 3, 3]


# -- latency -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("linear", [False, True])
def test_spike_times_are_those_of_the_formula(linear, normalize, first):
    x, steps, tau, threshold = numbers(40, **DOUBLE), 60, 5.0, 0.05
    tau_linear = steps - 1 - first if normalize else tau
    wanted = []
    for d in x.tolist():
        above = max(d, threshold + 1e-7)
        logarithmic = tau * math.log(above / (above - threshold))
        wanted.append(tau_linear * (1 - max(d, threshold)) if linear else logarithmic)
    if normalize and not linear:
        wanted = [t * (steps - 1 - first) / max(wanted) for t in wanted]
    options = {"threshold": threshold, "tau": tau, "first_spike_time": first, "normalize": normalize, "linear": linear}
    times, below = spikegen.latency_code(x, num_steps=60 if normalize else False, **options)
    assert_close(times, torch.tensor(wanted, **DOUBLE) + first, "times")
    assert torch.equal(below, x < threshold)
    spk = spikegen.latency(x, num_steps=100 if not normalize else steps, **options)
    assert spk.sum(0).tolist() == [1] * 40
    assert spk.argmax(0).tolist() == times.round().tolist()


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("first", [0, 4])
def test_stretched_times_reach_from_the_first_step_to_the_last(linear, first):
    x = torch.tensor([0.2, 0.5, 0.8])
    times = spikegen.latency_code(x, 12, first_spike_time=first, normalize=True, linear=linear, stretch=True)[0]
    assert (times[-1], times[0]) == (first, 11)
    plain = spikegen.latency_code(x, 12, first_spike_time=first, normalize=True, linear=linear)[0]
    assert_close((plain - plain[-1]) / (plain[0] - plain[-1]), (times - times[-1]) / (times[0] - times[-1]), "spread")


def test_stretching_equal_data_leaves_them_at_the_first_step():
    spk = spikegen.latency(torch.full((3,), 0.5), 5, first_spike_time=2, normalize=True, stretch=True)
    assert spk.argmax(0).tolist() == [2, 2, 2]


def test_clipped_elements_do_not_fire():
    x = torch.tensor([0.1, 0.3, 1.0])
    spk = spikegen.latency(x, 5, threshold=0.2, normalize=True, linear=True, clip=True, off_target=0.25)
    assert spk.max(0).values.tolist() == [0.25, 1, 1]


def test_bypass_leaves_out_what_comes_too_late_or_adds_steps():
    x = torch.tensor([0.0, 1.0])
    assert spikegen.latency(x, 5, tau=10, linear=True, bypass=True).sum(0).tolist() == [0, 1]
    assert spikegen.latency(x, tau=10, linear=True, bypass=True).shape == (11, 2)


# -- delta -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("off_spike", [False, True])
def test_changes_of_the_threshold_are_spikes(padding, off_spike):
    x, threshold = numbers(30, 3, **DOUBLE), 0.2
    before = np.vstack([x[:1] if padding else np.zeros((1, 3)), x[:-1]])
    change = x.numpy() - before
    wanted = (change >= threshold) * 1.0 - off_spike * (change <= -threshold)
    assert torch.equal(spikegen.delta(x, threshold, padding, off_spike), torch.from_numpy(wanted))


def test_a_threshold_per_element():
    x = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    assert spikegen.delta(x, threshold=torch.tensor([1.0, 1.5])).tolist() == [[1, 0], [1, 0]]


# -- ramps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("on", "off"), [(1, 0), (2, 0.5), (0.5, -1)])
def test_a_ramp_leads_to_each_spike_of_a_train(on, off):
    spikes, steps = [2, 3, 9, 14], 18
    wanted = []
    for t in range(steps):
        start = max((s + 1 for s in spikes if s < t), default=0)
        end = min((s for s in spikes if s >= t), default=None)
        part = 1 if end == start else 0 if end is None else (t - start) / (end - start)
        wanted.append(off if end is None else off + (on - off) * part)
    got = spikegen.rate_interpolate(torch.tensor(spikes, **DOUBLE), steps, on, off)
    assert_close(got, torch.tensor(wanted, **DOUBLE), "ramps")


def test_a_train_may_be_in_any_order_with_spikes_twice_and_outside():
    times = torch.tensor([[9, 3, -2], [3, 14, 40]])
    assert torch.equal(spikegen.rate_interpolate(times, 18), spikegen.rate_interpolate(torch.tensor([3, 9, 14]), 18))


@pytest.mark.parametrize(("on", "off"), [(1, 0), (2, 0.5), (0.5, -1)])
def test_a_ramp_leads_to_the_spike_of_each_element(on, off):
    times = torch.tensor([0.0, 3.4, 7.0, 30.0], **DOUBLE)
    wanted = [[off + (on - off) * (t / s if s else 1) if t <= s < 30 else off for s in (0, 3, 7, 30)] for t in range(8)]
    assert_close(spikegen.latency_interpolate(times, 8, on, off), torch.tensor(wanted, **DOUBLE), "ramps")


# -- targets -----------------------------------------------------------------------------------------------------------

LABELS = torch.tensor([2, 0, 1])


def trains(out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The train of the right neurons and that of the others, which all samples share."""
    right = torch.nn.functional.one_hot(LABELS, out.shape[-1]).bool()
    correct, incorrect = out[:, right], out[:, ~right]
    assert torch.equal(correct, correct[:, :1].expand_as(correct))
    assert torch.equal(incorrect, incorrect[:, :1].expand_as(incorrect))
    return correct[:, 0], incorrect[:, 0]


@for_each("interpolate", [False, True])
@for_each(("on", "off"), [(1, 0), (2, 0.5), (1, -1), (0.2, 0.7)])
@for_each("first", [0, 2])
@for_each("rates", [(0.5, 0.25), (0.7, 0), (1, 0.1), (0.4, 0.4)])
@pytest.mark.parametrize("pattern", ["regular", "uniform", "poisson"])
@pytest.mark.parametrize("steps", [3, 12])
def test_targets_are_the_trains_of_both_rates(steps, pattern, rates, first, on, off, interpolate):
    given = (steps, first, *rates, on, off, pattern, interpolate)
    torch.manual_seed(8)
    got = spikegen.targets_rate(LABELS, 3, *given)
    torch.manual_seed(8)
    drawn = [spikegen.target_rate_code(steps, first, rate, pattern) for rate in rates]
    for train, (spk, times) in zip(trains(got), drawn, strict=True):
        plain = off + (on - off) * spk
        assert_close(train, spikegen.rate_interpolate(times, steps, on, off) if interpolate else plain, "a train")


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("pattern", ["regular", "uniform", "poisson"])
def test_a_train_has_its_rate_after_the_silence(pattern, rate):
    train, times = spikegen.target_rate_code(20_000, 500, rate, pattern)
    assert not train[:500].any()
    expected = rate if pattern != "uniform" else 1 - math.exp(-rate)  # what two on one step leave
    assert train[500:].mean().item() == pytest.approx(expected, abs=5 * math.sqrt(0.25 / 19_500))
    assert torch.equal(times.unique(), train.nonzero().flatten())


def test_regular_spikes_are_evenly_spaced():
    assert spikegen.target_rate_code(13, 1, 0.25)[1].tolist() == [1, 5, 9]


def test_targets_of_images_have_a_train_for_each_pixel():
    labels = torch.tensor([[0, 1], [2, 0]])
    out = spikegen.targets_rate(labels, 3, num_steps=4, correct_rate=0.5)
    assert out.shape == (4, 2, 2, 3)
    assert torch.equal(out[2].argmax(-1), labels)


def test_one_hot_and_back():
    labels = torch.tensor([[0, 3], [2, 1]])
    one_hot = spikegen.to_one_hot(labels, 4)
    assert torch.equal(one_hot.long(), torch.nn.functional.one_hot(labels, 4))
    assert torch.equal(spikegen.from_one_hot(one_hot), labels)
    assert torch.equal(spikegen.to_one_hot_inverse(one_hot), 1 - one_hot)


# -- population, phase, burst ------------------------------------------------------------------------------------------


def test_receptive_fields_are_those_of_bohte():
    x, low, high, m, beta = numbers(7, **DOUBLE) * 6 - 2, -2.0, 4.0, 6, 1.5
    sigma = (high - low) / (beta * (m - 2))
    centers = [low + (2 * i - 3) / 2 * (high - low) / (m - 2) for i in range(1, m + 1)]
    wanted = [[math.exp(-((d - c) ** 2) / (2 * sigma**2)) for c in centers] for d in x.tolist()]
    assert_close(spikegen.receptive_fields(x, m, low, high, beta), torch.tensor(wanted, **DOUBLE), "responses")


def test_a_range_per_feature():
    x, low, high = numbers(4, 2), torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 5.0])
    got = spikegen.receptive_fields(x, 5, low, high)
    for n in range(2):
        assert_close(got[:, n], spikegen.receptive_fields(x[:, n], 5, low[n].item(), high[n].item()), f"feature {n}")


def test_every_number_of_the_range_excites_some_neuron():
    responses = spikegen.receptive_fields(torch.linspace(0, 1, 101), num_neurons=8)
    assert responses.max(-1).values.min() > 0.7


def test_the_strongest_neuron_fires_first_and_the_weakest_not_at_all():
    x, steps = numbers(50, **DOUBLE), 10
    responses, spk = spikegen.receptive_fields(x, 6), spikegen.population(x, steps, 6)
    times = [[round(steps * (1 - r)) for r in row] for row in responses.tolist()]
    for t in range(steps):
        assert spk[t].tolist() == [[float(time == t) for time in row] for row in times]
    assert any(steps in row for row in times)


def test_a_drawn_population_fires_at_its_responses():
    x = torch.tensor([0.2, 0.6])
    share = spikegen.population(x, 20_000, 5, code="rate").mean(0)
    wanted = spikegen.receptive_fields(x, 5)
    torch.testing.assert_close(share, wanted, atol=5 * math.sqrt(0.25 / 20_000), rtol=0)


def test_the_phases_of_a_byte_are_its_digits():
    byte = torch.arange(256)
    spk = spikegen.phase(byte / 255, num_steps=8, weighted=False)
    assert ["".join(str(int(d)) for d in digits) for digits in spk.T.tolist()] == [f"{b:08b}" for b in range(256)]


@pytest.mark.parametrize("period", [1, 3, 8, 24])
def test_the_weighted_phases_of_each_period_add_up_to_the_data(period):
    x = numbers(40, **DOUBLE)
    spk = spikegen.phase(x, num_steps=2 * period, period=period)
    assert torch.equal(spk[:period], spk[period:])
    assert_close(spk[:period].sum(0), (x * 2**period).floor() / 2**period, "the sum")


@pytest.mark.parametrize("options", [{}, {"max_spikes": 3, "min_interval": 1, "max_interval": 7}, {"max_spikes": 1}])
@pytest.mark.parametrize("first", [0, 4])
def test_bursts_are_those_of_the_formula(options, first):
    x, steps = torch.cat([numbers(60, **DOUBLE), torch.tensor([0.0, 1.0], **DOUBLE)]), 30
    most, least = options.get("max_spikes", 5), options.get("min_interval", 2)
    widest = options.get("max_interval") or ((steps - 1 - first) // (most - 1) if most > 1 else least)
    spk = spikegen.burst(x, steps, first_spike_time=first, **options)
    for d, train in zip(x.tolist(), spk.T, strict=True):
        interval = math.ceil(widest - (widest - least) * d)
        wanted = [first + j * interval for j in range(math.ceil(most * d))]
        assert train.nonzero().flatten().tolist() == wanted
