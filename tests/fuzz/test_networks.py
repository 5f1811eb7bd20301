"""Random networks give in every way what the loop over steps gives; `make fuzz` runs more of them."""

import warnings

import pytest

from . import networks


@pytest.mark.parametrize("seed", range(4))
def test_random_networks_agree_with_the_loop_over_steps(seed):
    found = networks.run(1, seed)
    assert not found, "\n".join(found)


def test_nearly_all_of_the_networks_run():
    """Those that do not run by themselves are passed over, and would prove nothing."""
    ran = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(4):
            spec = networks.drawn(seed)
            ran += "out" in networks.outcome(spec, networks.ways(spec)[0])
    assert ran == 4


def test_a_difference_is_found_and_made_small(monkeypatch):
    """An unroll that adds one to what a network with a Leaky returns."""
    ran = networks._ran

    def wrong(net, x, spec, way):
        out = ran(net, x, spec, way)
        leaky = any(part.kind == "Leaky" for part in spec.parts)
        return out + 1 if way == "unroll" and leaky and spec.steps else out

    monkeypatch.setattr(networks, "_ran", wrong)
    found = networks.Part("Leaky", (("beta", 0.8), ("threshold", 0.5)))
    parts = (networks.Part("Linear"), found, networks.Part("Tanh"))
    spec = networks.smallest(networks.Spec(parts, False, 3, 2, False, True, False, 0), "unroll")
    assert [(part.kind, part.options) for part in spec.parts] == [("Leaky", (("beta", 0.8),))]
    assert (spec.steps, spec.batch) == (1, 1)
