"""What may be interrupted, and what must be so after it: shared by the tests of lines and of signals."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch._dynamo  # the comparison changes what the compiler does, where it is loaded
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

import spikeloom as snn
from spikeloom import _torch, ops
from spikeloom.engine.run.backends import forced
from spikeloom.neurons._unrolled_run import current_run

STEPS, BATCH, WIDTH = 6, 2, 5


class TwoInputs(nn.Module):
    """Its static inputs are followed, since it is no Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm = nn.Linear(WIDTH, 4), nn.BatchNorm1d(4)
        self.lif = snn.Synaptic(alpha=0.5, beta=0.75, init_hidden=True, output=True)
        self.rlif = snn.RLeaky(beta=0.5, linear_features=4, init_hidden=True)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        spk, _, mem = self.lif(self.norm(self.fc(3 * x)))
        return self.rlif(spk + 0.5), mem


def network() -> nn.Module:
    torch.manual_seed(0)
    return TwoInputs().train()


def layers() -> nn.Module:
    torch.manual_seed(0)
    hidden = nn.Sequential(nn.Linear(WIDTH, 4), snn.Leaky(beta=0.5, init_hidden=True))
    return nn.Sequential(hidden, nn.Linear(4, 3), snn.Leaky(beta=0.9, init_hidden=True))


class Drawing(nn.Module):
    """Its comparison turns chance off; it counts, and a hook changes what a layer returns."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.drop = nn.Linear(WIDTH, 4), nn.Dropout()
        self.lif = snn.Leaky(beta=0.5, init_hidden=True)
        self.seen: list[int] = []
        self.fc.register_forward_hook(_doubled)

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return self.lif(self.drop(self.fc(x)))


def _doubled(module: nn.Module, args: Any, out: Tensor) -> Tensor:
    return 2 * out


def drawing() -> nn.Module:
    torch.manual_seed(0)
    return Drawing()


def compared(net: nn.Module) -> None:
    """Run it once, so that later runs are not compared with its steps."""
    snn.unroll(net, series())


def series() -> Tensor:
    return torch.rand(STEPS, BATCH, WIDTH, generator=torch.Generator().manual_seed(1))


def total(out: Any) -> Tensor:
    return sum((leaf.sum() for leaf in tree_leaves(out)), torch.zeros(()))


# -- what is interrupted: each takes a network, and what `prepare` made of it -----------------------------------------


def chunks(net: nn.Module, how: Callable[..., Any]) -> Tensor:
    return total([how(net, chunk) for chunk in series().split(2)])


def by_recomputing(net: nn.Module, _: Any = None) -> Tensor:
    again = snn.utils.recomputing(net)
    return chunks(net, lambda n, c: checkpoint(snn.unroll, n, c, use_reentrant=False, context_fn=again))


def tapped(net: nn.Module) -> Any:
    with snn.tap(net, inputs=True) as record:
        snn.unroll(net, series())
    return [recording.spk for recording in record.values()]


def gradients(net: nn.Module, loss: Tensor) -> Any:
    return torch.autograd.grad(loss, [p for p in net.parameters() if p.requires_grad], allow_unused=True)


def on_the_loop(net: nn.Module) -> Any:
    with snn.backend("loop"):
        return snn.unroll(net, series())


def nothing(net: nn.Module) -> None:
    return None


@dataclass
class Action:
    """Something that may be interrupted.

    Args:
        run: what is interrupted, called with a network and what `prepare` returned.
        make: makes the network.
        prepare: called before, uninterrupted.
        changes: whether the network has other states or buffers afterwards.
    """

    run: Callable[[nn.Module, Any], Any]
    make: Callable[[], nn.Module] = network
    prepare: Callable[[nn.Module], Any] = nothing
    changes: bool = True


ACTIONS: dict[str, Action] = {
    "unroll": Action(lambda net, _: snn.unroll(net, series())),
    "unroll, random": Action(lambda net, _: snn.unroll(net, series()), drawing),
    "unroll, compared before": Action(lambda net, _: snn.unroll(net, series()), prepare=compared),
    "unroll, static": Action(lambda net, _: snn.unroll(net, series()[0], steps=STEPS)),
    "unroll, straight": Action(lambda net, _: snn.unroll(net, series()[0], steps=STEPS), layers),
    "unroll, by the loop": Action(lambda net, _: on_the_loop(net), layers),
    "check": Action(lambda net, _: snn.unroll(net, series(), check=True), layers),
    "backward": Action(gradients, prepare=lambda net: total(snn.unroll(net, series())), changes=False),
    "checkpoint": Action(lambda net, _: snn.unroll(net, series(), checkpoint=2)),
    "checkpoint, static": Action(lambda net, _: snn.unroll(net, series()[0], steps=STEPS, checkpoint=4)),
    "checkpoint, backward": Action(
        gradients, prepare=lambda net: total(snn.unroll(net, series(), checkpoint=3)), changes=False
    ),
    "recomputing": Action(by_recomputing, layers),
    "recomputing, backward": Action(gradients, layers, prepare=by_recomputing, changes=False),
    "stream": Action(lambda net, _: [total(out) for out in snn.stream(net, series().split(3))]),
    "tap": Action(lambda net, _: tapped(net)),
    "explain": Action(lambda net, _: str(snn.explain(net, series()[0], steps=STEPS)), changes=False),
    "diagnose": Action(lambda net, _: str(snn.diagnose(net, series())), changes=False),
    "accelerate": Action(lambda net, _: snn.accelerate(net)(series()[0]), layers),
    "accelerate strict": Action(lambda net, _: snn.accelerate(net, strict=True)(series()[0]), layers),
    "accelerate no more": Action(lambda net, _: snn.accelerate(net, False)(series()[0]), layers, snn.accelerate),
    "steps": Action(lambda net, _: [net(x) for x in series()[:2]]),
}


# -- what must be so afterwards ---------------------------------------------------------------------------------------


def assert_nothing_is_set() -> None:
    """No context variable, hook, mode or setting of torch is left."""
    assert current_run() is None
    assert forced() is None
    assert ops._surrogate.get() is ops.heaviside
    assert torch._C._autograd._top_saved_tensors_default_hooks(False) is None
    assert torch._C._len_torch_function_stack() == 0
    assert torch._C._len_torch_dispatch_stack() == 0
    assert _torch.compiler_stance().stance == "default"
    assert torch._C._is_torch_function_enabled()
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")
    assert not torch_modules._global_forward_hooks
    assert not torch_modules._global_forward_pre_hooks


def structure(net: nn.Module) -> list[Any]:
    """The attributes of every module, and what it holds, by name."""
    return [
        (
            name,
            type(module),
            {*vars(module)} - {"_restarted", "_replicated"},
            *([*held] for held in vars(module).values() if isinstance(held, dict)),
        )
        for name, module in net.named_modules()
    ]


def values(net: nn.Module) -> list[Any]:
    """Every state and buffer, module by module."""
    found: list[Any] = []
    for module in net.modules():
        states = getattr(module, "_state_names", tuple)()
        found.append([*(getattr(module, name).detach().clone() for name in states)])
        found.append([b.clone() for b in module._buffers.values() if b is not None])
    return found


def same(got: Any, wanted: Any) -> bool:
    got, wanted = tree_leaves(got), tree_leaves(wanted)
    return len(got) == len(wanted) and all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(got, wanted, strict=True)
    )


@dataclass
class Reference:
    """What an action gives where nothing interrupts it, and how the network is before and after it."""

    action: Action
    net: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self.net = self.action.make()
        snn.unroll(self.net, series())  # states to lose
        snn.utils.detach(self.net)
        with self.started() as (net, given):
            self.structure, self.before = structure(net), values(net)
            self.result = self.action.run(net, given)
            self.structure_after, self.after = structure(net), values(net)

    @contextmanager
    def started(self) -> Iterator[tuple[nn.Module, Any]]:
        net = copy.deepcopy(self.net)
        torch.manual_seed(2)
        yield net, self.action.prepare(net)

    def assert_usable(self, net: nn.Module, given: Any) -> None:
        """The network is as before, or as after; another run of it is right; and nothing is set."""
        assert_nothing_is_set()
        assert structure(net) in (self.structure, self.structure_after)
        # a stream ends after any of its chunks, and steps after any of them
        assert self.action.changes or same(values(net), self.before)
        net.load_state_dict(self.net.state_dict())
        for mine, first in zip(net.modules(), self.net.modules(), strict=True):
            vars(mine).update({n: vars(first)[n] for n in getattr(first, "_state_names", tuple)()})
        torch.manual_seed(2)
        assert same(self.action.run(net, self.action.prepare(net)), self.result)
        assert_nothing_is_set()
