"""spyx, which runs on JAX: its neurons in its own scan, forward and gradient compiled beforehand as one function.

Its step compares the previous membrane with the threshold, so spikes come one step later than in other libraries, and
the gradient flows through the reset:

    spk = H(mem - threshold),    mem' = beta mem + x - spk threshold.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.dlpack import from_dlpack

import spikeloom as snn
from spikeloom import ops
from spikeloom.machine import version_of

from .peers import Neurons, Ours
from .runner import Outcome, Peer, Prepare, Run, installed

SPYX = "spyx"
NOTE = "spikes one step later; the gradient flows through the reset"

Loss = Callable[..., Any]
"""Makes of tensors by name, for which gradients are wanted, and of others the loss and the spikes."""


@snn.cell
def StepLater(x: Any, mem: Any, *, beta: Any = 0.9, threshold: Any = 1.0) -> Any:
    """The neuron of spyx, as an equation."""
    spk = ops.spike(mem - threshold)
    return spk, beta * mem + x - spk * threshold


def twin(beta: float) -> Neurons:
    """The plain loop over it."""
    return Ours(StepLater, "loop", beta=beta)


def where_installed(prepare: Prepare, twin: Prepare) -> dict[str, Peer]:
    """The contestant, if JAX and spyx are installed; they are optional."""
    return {SPYX: Peer(prepare, twin, NOTE)} if version_of("jax") and version_of(SPYX) else {}


def bare(x: Tensor, beta: float) -> Run:
    """The neurons alone. The loss is the sum of their spikes."""
    over_time = neurons(x.shape[-1], beta)

    def loss(wanted: Any) -> Any:
        spk = over_time(wanted["input gradients"])
        return spk.sum(), spk

    return compiled(loss, {"input gradients": x})


def linear(layer: nn.Linear, x: Tensor, beta: float, training: bool) -> Run:
    """A Linear layer over all steps in one product, and neurons. The loss is the sum of their spikes."""
    over_time = neurons(layer.out_features, beta)

    def loss(wanted: Any, x: Any) -> Any:
        spk = over_time(x @ wanted["0.weight"].T + wanted["0.bias"])
        return spk.sum(), spk

    return compiled(loss, {f"0.{name}": weight for name, weight in layer.named_parameters()}, x, training=training)


def neurons(features: int, beta: float) -> Callable[[Any], Any]:
    """Compute spikes over all steps, as JAX arrays, with the surrogate of the other contestants."""
    spyx, nnx = installed(SPYX), installed("flax.nnx")
    arc_tangent = spyx.axn.custom(lambda u: 1 / (1 + (math.pi * u) ** 2))
    lif = spyx.nn.LIF((features,), beta=beta, activation=arc_tangent, rngs=nnx.Rngs(0))
    return lambda x: spyx.nn.run(lif, x)[0]


def compiled(loss: Loss, wanted: dict[str, Tensor], *others: Tensor, training: bool = True) -> Run:
    """The spikes, and in training the requested gradients of the loss; synchronizes."""
    jax = installed("jax")

    def both(wanted: Any, *others: Any) -> Any:
        if not training:
            return loss(wanted, *others)[1], {}
        (_, spk), grads = jax.value_and_grad(loss, has_aux=True)(wanted, *others)
        return spk, grads

    def array(tensor: Tensor) -> Any:
        return jax.numpy.asarray(tensor.detach().numpy())

    arrays = ({name: array(tensor) for name, tensor in wanted.items()}, *map(array, others))
    ready = jax.jit(both).lower(*arrays).compile()

    def run() -> Outcome:
        spk, grads = jax.block_until_ready(ready(*arrays))
        return {name: from_dlpack(found) for name, found in {"spikes": spk, **grads}.items()}

    return run
