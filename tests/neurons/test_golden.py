"""Neurons beyond snnTorch's against their papers' equations, written anew in plain Python, one number at a time."""

import cmath
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch

import spikeloom as snn

Steps = Iterator[tuple[float, ...]]


def alif(xs: list[float], beta: float, rho: float, kappa: float, threshold: float) -> Steps:
    """Bellec et al. 2018: the threshold is threshold + kappa * a, a the decaying count of spikes."""
    v = a = z = 0.0
    for x in xs:
        a = rho * a + z
        v = beta * v + x - z * threshold
        z = float(v > threshold + kappa * a)
        yield z, v, a


def ralif(xs: list[float], beta: float, rho: float, kappa: float, threshold: float, V: float) -> Steps:
    """Bellec et al. 2018, equations 1 to 3: the spike of the last step comes back through a weight."""
    v = a = z = 0.0
    for x in xs:
        a = rho * a + z
        v = beta * v + x + V * z - z * threshold
        z = float(v > threshold + kappa * a)
        yield z, v, a


def adlif(xs: list[float], beta: float, rho: float, a: float, b: float, threshold: float) -> Steps:
    """Bittar and Garner 2022."""
    u = w = s = 0.0
    for x in xs:
        w = rho * w + a * u + b * s
        u = beta * (u - s * threshold) + (1 - beta) * (x - w)
        s = float(u > threshold)
        yield s, u, w


def plif(xs: list[float], tau: float, threshold: float) -> Steps:
    """Fang et al. 2021, hard reset to zero: H = V + (X - V) / tau."""
    v = 0.0
    for x in xs:
        h = v + (x - v) / tau
        s = float(h > threshold)
        v = 0.0 if s else h
        yield s, v


def integrate(xs: list[float], threshold: float) -> Steps:
    """No leak; one threshold is subtracted a step after the spike."""
    v = s = 0.0
    for x in xs:
        v = v + x - s * threshold
        s = float(v > threshold)
        yield s, v


def integrator(xs: list[float], beta: float) -> Steps:
    v = 0.0
    for x in xs:
        v = beta * v + x
        yield v, v


def qif(xs: list[float], tau: float, gain: float, v_rest: float, v_critical: float, v_reset: float) -> Steps:
    v = 0.0
    for x in xs:
        v += (gain * (v - v_rest) * (v - v_critical) + x) / tau
        s = float(v > 1.0)
        v = v_reset if s else v
        yield s, v


def eif(xs: list[float], tau: float, sharpness: float, rheobase: float, v_rest: float, v_reset: float) -> Steps:
    v = 0.0
    for x in xs:
        v += (-(v - v_rest) + sharpness * math.exp((v - rheobase) / sharpness) + x) / tau
        s = float(v > 1.0)
        v = v_reset if s else v
        yield s, v


def izhikevich(xs: list[float], a: float, b: float, c: float, d: float) -> Steps:
    """Izhikevich 2003, the program of its figure: two half steps of v, then u, at one millisecond."""
    v, u = -65.0, -13.0
    for x in xs:
        v += 0.5 * (0.04 * v * v + 5 * v + 140 - u + x)
        v += 0.5 * (0.04 * v * v + 5 * v + 140 - u + x)
        u += a * (b * v - u)
        s = float(v > 30)
        if s:
            v, u = c, u + d
        yield s, v, u


def resonate(xs: list[float], beta: float, omega: float, threshold: float) -> Steps:
    """Izhikevich 2001: a complex number that turns and shrinks; a spike sets it to i."""
    z = 0j
    for x in xs:
        z = beta * cmath.exp(1j * omega) * z + x
        s = float(z.imag > threshold)
        z = 1j * threshold if s else z
        yield s, z.real, z.imag


def refractory(xs: list[float], alpha: float, beta: float, period: int, threshold: float) -> Steps:
    i = v = 0.0
    last = -math.inf
    for t, x in enumerate(xs):
        i = alpha * i + x
        v = 0.0 if t - last <= period else beta * v + i
        s = float(v > threshold)
        if s:
            last, v = t, 0.0
        yield s, i, v


@dataclass(frozen=True)
class Golden:
    """A neuron, the same in plain Python, and the parameters of both."""

    make: Callable[..., Any]
    plain: Callable[..., Steps]
    params: Mapping[str, float]
    extra: Mapping[str, float] | None = None
    scale: float = 1.5
    kept: int | None = None


CASES = {
    "ALIF": Golden(snn.ALIF, alif, {"beta": 0.8, "rho": 0.9, "kappa": 0.3, "threshold": 0.8}),
    "RALIF": Golden(
        partial(snn.RALIF, all_to_all=False),
        ralif,
        {"beta": 0.8, "rho": 0.9, "kappa": 0.3, "threshold": 0.8, "V": -0.4},
    ),
    "AdLIF": Golden(snn.AdLIF, adlif, {"beta": 0.4, "rho": 0.8, "a": 0.3, "b": 0.6, "threshold": 0.3}),
    "ParametricLIF": Golden(snn.ParametricLIF, plif, {"threshold": 0.5}, {"tau": 2.0}),
    "IF": Golden(snn.IF, integrate, {"threshold": 0.9}),
    "LI": Golden(snn.LI, integrator, {"beta": 0.7}),
    "QIF": Golden(
        snn.QIF, qif, {"tau": 1.7, "gain": 1.2, "v_rest": -0.1, "v_critical": 0.6, "v_reset": -0.2}, scale=2.0
    ),
    "EIF": Golden(
        snn.EIF, eif, {"tau": 1.7, "sharpness": 0.25, "rheobase": 0.7, "v_rest": -0.1, "v_reset": -0.2}, scale=2.0
    ),
    "Izhikevich": Golden(snn.Izhikevich, izhikevich, {"a": 0.1, "b": 0.2, "c": -60.0, "d": 4.0}, scale=40.0),
    "ResonateFire": Golden(snn.ResonateFire, resonate, {"beta": 0.93, "omega": 0.8, "threshold": 0.9}),
    "CuBaLIF": Golden(snn.CuBaLIF, refractory, {"alpha": 0.6, "beta": 0.8, "period": 2, "threshold": 0.9}, kept=3),
}


@pytest.mark.parametrize("backend", ["loop", "numba"])
@pytest.mark.parametrize("name", CASES)
def test_it_follows_the_equation_of_its_paper(name, backend):
    case = CASES[name]
    draw = torch.Generator().manual_seed(4)
    xs = case.scale * (torch.rand(60, generator=draw, dtype=torch.float64) - 0.3)
    wanted = torch.tensor(list(case.plain(xs.tolist(), **case.params, **(case.extra or {}))), dtype=torch.float64)
    params = {key: torch.tensor(value, dtype=torch.float64) for key, value in case.params.items()}
    with snn.backend(backend):
        got = torch.stack(snn.unroll(case.make(**params), xs.unsqueeze(1))[: case.kept]).squeeze(-1).T
    assert name == "LI" or 3 <= wanted[:, 0].sum() <= 40
    assert torch.equal(got[:, 0], wanted[:, 0]) or name == "LI"
    torch.testing.assert_close(got.detach(), wanted, rtol=1e-9, atol=1e-9)


def test_the_noise_of_a_noisy_neuron_is_as_wide_as_asked_and_decides_about_spikes_as_the_error_function_says():
    torch.manual_seed(0)
    lif = snn.NoisyLeaky(beta=0.5, sigma=0.3)
    spk, mem = snn.unroll(lif, torch.full((1, 200_000), 0.8), steps=1)
    assert abs(float(mem.std()) - 0.3) < 0.005
    assert abs(float(mem.mean()) - 0.8) < 0.005
    fires = 0.5 * (1 + math.erf((0.8 - 1.0) / (0.3 * math.sqrt(2))))
    assert abs(float(spk.mean()) - fires) < 0.005
    assert torch.equal(spk, (mem > 1).float()), "spike and membrane know the same noise"


def test_without_noise_a_noisy_neuron_is_a_leaky_one():
    xs = torch.rand(20, 3, 4) * 2
    for got, wanted in zip(snn.unroll(snn.NoisyLeaky(0.8, sigma=0.0), xs), snn.unroll(snn.Leaky(0.8), xs), strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("backend", ["loop", "numba"])
@pytest.mark.parametrize(
    ("neuron", "per_spike", "steps"),
    [
        (lambda: snn.ALIF(beta=0.0, rho=0.5, kappa=0.0, spike_grad=snn.surrogate.triangular()), 1.0, 6),
        (lambda: snn.RALIF(beta=0.0, rho=0.5, kappa=0.0, all_to_all=False, V=0.0), 1.0, 6),
        (lambda: snn.AdLIF(beta=0.0, rho=0.5, a=0.0, b=3.0, spike_grad=snn.surrogate.triangular()), 3.0, 2),
    ],
    ids=["ALIF", "RALIF", "AdLIF"],
)
def test_a_late_adaptation_has_a_gradient_to_the_spike_that_raised_it(neuron, per_spike, steps, backend):
    lif = neuron()
    x = torch.full((steps, 1, 1), 0.9, requires_grad=True)
    with snn.backend(backend):
        *_, adapt = snn.unroll(lif, x)
    (grad,) = torch.autograd.grad(adapt[-1].sum(), x)
    u = torch.tensor(0.9 - 1.0, requires_grad=True)  # a membrane that forgets is its input
    (slope,) = torch.autograd.grad(lif.spike_grad(u), u)
    assert torch.allclose(grad[0], per_spike * 0.5 ** (steps - 2) * slope)
