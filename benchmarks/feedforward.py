"""Cases of feedforward networks: Linear + Leaky at any spike density, convolutions, memory of three layers."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from . import on_jax
from .leaky import PEER, STEPPED, TX, UNROLLED
from .networks import (
    ACCELERATED,
    PRODUCTS,
    Leaky,
    Task,
    Work,
    contestants,
    densities,
    exact,
    layer_by_layer,
    libraries,
    spikes,
    stepped,
    unrolled,
)
from .result import Shape
from .runner import Case, Peer, Run

DENSITY = (*TX, "percent")
BETA = 0.5
CURRENT = 0.67
"""The standard deviation of the output of a Linear layer, at any spike density of its input."""


def linear(leaky: Leaky, shape: Shape) -> nn.Sequential:
    """One Linear layer and its neurons, as many as inputs."""
    size, percent = shape[2:]
    gain = CURRENT / (percent / 100) ** 0.5
    return exact(nn.Sequential(nn.Linear(size, size), leaky(BETA)), (gain,))


def by_spyx(work: Work, task: Task) -> Run:
    """The same by spyx."""
    layer: Any = work.build(lambda beta: nn.Identity(), task.shape)[0]
    return on_jax.linear(layer, task.x, BETA, work.training)


def all_libraries(work: Work) -> dict[str, Peer]:
    """The other libraries, and spyx if it is installed."""
    return libraries(work) | on_jax.where_installed(partial(by_spyx, work), layer_by_layer(work, on_jax.twin))


def trains(shape: Shape) -> Tensor:
    """Spikes [T, B, N] at a density in percent."""
    return spikes(shape[:3], shape[3] / 100)


def convolutional(leaky: Leaky, shape: Shape) -> nn.Sequential:
    """The network of snnTorch's tutorial 6, on images of 28 x 28; channels last, which is faster for all."""
    net = nn.Sequential(
        nn.Conv2d(1, 12, 5), nn.MaxPool2d(2), leaky(BETA),
        nn.Conv2d(12, 64, 5), nn.MaxPool2d(2), leaky(BETA),
        nn.Flatten(), nn.Linear(64 * 4 * 4, 10), leaky(BETA),
    )  # fmt: skip
    exact(net, (1.0, 1.25, 1.7))
    for layer in net:
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    return net


def deep(leaky: Leaky, shape: Shape) -> nn.Sequential:
    """Three Linear layers and their neurons."""
    layers = [layer for _ in range(3) for layer in (nn.Linear(shape[2], shape[2]), leaky(BETA))]
    return exact(nn.Sequential(*layers), (3.0, 3.0, 3.0))


SPARSE = Work(linear, trains)
FORWARD = replace(SPARSE, training=False)
IMAGES = Work(convolutional, lambda shape: spikes((shape[1], 1, 28, 28), 0.15), static=True, slope=25)
DEEP = Work(deep, lambda shape: spikes(shape, 0.05), holds_outputs=False)

network = partial(Case, reference=STEPPED, ours=ACCELERATED, floor=PRODUCTS, unchecked=(PRODUCTS,))

LINEAR = network(
    name="linear",
    title="Linear + Leaky over [T, B, N], input spike density in percent, forward and weight gradient",
    label="Linear + Leaky [{T}, {B}, {N}], {percent} % spikes, training",
    axes=DENSITY,
    shapes=((500, 16, 512, 5), (250, 16, 1024, 5)),
    small=(12, 4, 33, 10),
    inputs=SPARSE.task,
    contestants=contestants(SPARSE),
    peers=all_libraries(SPARSE),
    sweeps={
        "N": tuple((500, 16, size, 5) for size in (64, 127, 256, 500, 512, 1000, 1024)),
        "percent": tuple((500, 16, 512, percent) for percent in (1, 2, 5, 10, 15, 20, 50)),
    },
    remarks=densities(SPARSE),
)

INFERENCE = network(
    name="inference",
    title="Linear + Leaky over [T, B, N], input spike density in percent, inference",
    label="Linear + Leaky [{T}, {B}, {N}], {percent} % spikes, inference",
    axes=DENSITY,
    shapes=((100, 32, 1000, 5), (500, 1, 128, 5), (500, 1, 512, 5)),
    small=(12, 4, 33, 10),
    inputs=FORWARD.task,
    contestants=contestants(FORWARD),
    peers=all_libraries(FORWARD),
    remarks=densities(FORWARD),
)

CONVOLUTION = network(
    name="convolution",
    title="The network of snnTorch's tutorial 6, T steps of B static images, forward and weight gradients",
    label="Tutorial 6, convolutions [{T}, {B}, 28 x 28], training",
    axes=("T", "B"),
    shapes=((50, 32),),
    small=(8, 2),
    inputs=IMAGES.task,
    contestants=contestants(IMAGES),
    peers=libraries(IMAGES),
    remarks=densities(IMAGES),
    memory=True,
)

CHECKPOINTED = "checkpoint=32"

MEMORY = network(
    name="memory",
    title="Three times Linear + Leaky over [T, B, N], input spike density 5%, forward and weight gradients",
    label="3 x (Linear + Leaky) [{T}, {B}, {N}], training",
    axes=TX,
    shapes=((1000, 16, 1024),),
    small=(40, 4, 48),
    inputs=DEEP.task,
    contestants={
        UNROLLED: unrolled(DEEP, False),
        f"{UNROLLED}, {CHECKPOINTED}": unrolled(DEEP, False, checkpoint=32),
        ACCELERATED: unrolled(DEEP, True),
        f"{ACCELERATED}, {CHECKPOINTED}": unrolled(DEEP, True, checkpoint=32),
        PEER: stepped(DEEP, "snntorch"),
    },
    peers=libraries(DEEP),
    reference=UNROLLED,
    ours=UNROLLED,
    floor=None,
    unchecked=(),
    remarks=densities(DEEP),
    memory=True,
    processes={PEER: 5},
    least_rounds=1,
)

FEEDFORWARD = (LINEAR, INFERENCE, CONVOLUTION, MEMORY)
