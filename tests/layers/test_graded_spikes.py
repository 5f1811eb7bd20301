"""A weight per neuron along the dimension that was asked for, and no silent broadcasting along another."""

import pytest
import torch

import spikeloom as snn

from .running import by_steps, unrolled


@pytest.mark.parametrize(
    ("dim", "shape", "letters"),
    [
        (0, (3,), "n,n->n"),
        (0, (3, 5), "nb,n->nb"),
        (0, (3, 3, 5), "nbc,n->nbc"),
        (1, (4, 3), "bn,n->bn"),
        (1, (3, 3, 5), "bnc,n->bnc"),
        (-1, (4, 3), "bn,n->bn"),
        (-2, (2, 3, 5), "bnc,n->bnc"),
    ],
)
@pytest.mark.parametrize("way", [by_steps, unrolled])
def test_the_weights_scale_the_dimension_asked_for(way, dim, shape, letters):
    graded, x = snn.GradedSpikes(3, 0, dim=dim), torch.rand(4, *shape)
    wanted = torch.stack([torch.einsum(letters, x_t, graded.weights[:, 0]) for x_t in x])
    assert torch.equal(way(graded, x), wanted)


@pytest.mark.parametrize(
    ("dim", "shape"), [(0, (4, 3)), (0, (1, 3)), (0, (2, 3, 5)), (1, (3, 4)), (1, (3, 1)), (-1, (3, 3, 5))]
)
@pytest.mark.parametrize("steps", [None, 4], ids=["sequence", "static"])
def test_a_dimension_of_another_size_is_refused_and_dim_is_named(dim, shape, steps):
    graded = snn.GradedSpikes(3, 1.0, dim=dim)
    sentence = rf"GradedSpikes.* dimension {dim} .* size=3 .* dim=1"
    with pytest.raises(ValueError, match=sentence):
        graded(torch.rand(shape))
    with pytest.raises(ValueError, match=sentence):
        snn.unroll(graded, torch.rand(shape) if steps else torch.rand(4, *shape), steps=steps)


def test_a_dimension_that_is_not_there():
    with pytest.raises(IndexError, match="dim=1 and got an input of 1 dimensions"):
        snn.GradedSpikes(3, 1.0, dim=1)(torch.rand(3))


@pytest.mark.parametrize("factor", [0, 0.0, False, None])
def test_without_a_factor_the_weights_are_drawn(factor):
    weights = snn.GradedSpikes(500, factor).weights
    assert weights.shape == (500, 1)
    assert 0.5 <= weights.min() < 0.55
    assert 1.45 < weights.max() <= 1.5


def test_along_features_it_may_be_called_twice_in_one_forward():
    """It keeps nothing, so no order of its calls can matter."""

    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.graded = snn.GradedSpikes(3, 2.0, dim=1)

        def forward(self, x):
            return self.graded(self.graded(x))

    x = torch.rand(4, 5, 3)
    assert torch.equal(snn.unroll(Twice(), x), 4 * x)
