"""What each of two processes checks, over gloo on the CPU; `test_distributed` starts them once for all checks."""

import contextlib
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import spikeloom as snn

from ..oracle import assert_close

WORLD = 2
STEPS, BATCH = 6, 8


class Network(nn.Module):
    """Learns all kinds of values: numbers, one per neuron, weights; and some that are fixed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        options: dict[str, Any] = {"init_hidden": True, "learn_threshold": True}
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 4)
        self.lif = snn.Leaky(beta=torch.linspace(0.3, 0.9, 6), threshold=0.6, learn_beta=True, **options)
        self.out = snn.RLeaky(beta=0.8, V=-0.3, all_to_all=False, threshold=0.4, output=True, **options)

    def forward(self, x: Tensor) -> Any:
        return self.out(self.second(self.lif(self.first(x))))


class Whole(nn.Module):
    """All steps in one forward, from fresh states."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Network()

    def forward(self, x: Tensor) -> Any:
        snn.utils.reset(self.net)
        return snn.unroll(self.net, x)


class Looped(Whole):
    """The same with a loop of its own."""

    def forward(self, x: Tensor) -> Any:
        snn.utils.reset(self.net)
        outs = [self.net(x_t) for x_t in x]
        return tuple(torch.stack(out) for out in zip(*outs, strict=True))


def inputs(seed: int = 0) -> Tensor:
    """The joined batch, [T, B, 6]."""
    return torch.rand(STEPS, BATCH, 6, generator=torch.Generator().manual_seed(seed)) * 3


def mine(x: Tensor) -> Tensor:
    """The part of this process."""
    return x.chunk(WORLD, dim=1)[dist.get_rank()]


def loss_of(outs: Any) -> Tensor:
    """A mean over the batch, as losses are."""
    return outs[0].mean() + (outs[1] ** 2).mean()


def optimizer_of(net: nn.Module) -> torch.optim.Optimizer:
    """By groups: `foreach` takes whole and cut parameters apart only."""
    whole = snn.distributed.scalars(net)
    cut = [p for p in net.parameters() if p.dim()]
    return torch.optim.Adam([{"params": cut}, {"params": whole}], lr=0.01, foreach=True)


def trained(steps: int, net: Whole | None = None, optimizer: Any = None, first: int = 0) -> Whole:
    """One process on the joined batches; its gradients are those of the last one."""
    net = net or Whole()
    optimizer = optimizer or optimizer_of(net)
    for number in range(first, first + steps):
        optimizer.zero_grad()
        loss_of(net(inputs(number))).backward()
        optimizer.step()
    return net


def sharded() -> Whole:
    net = Whole()
    mesh, whole = init_device_mesh("cpu", (WORLD,)), set(snn.distributed.scalars(net))
    for layer in (net.net.first, net.net.second, net):
        fully_shard(layer, mesh=mesh, ignored_params=whole)
    return net


def assert_equal(net: nn.Module, wanted: nn.Module, gradients: bool = True) -> None:
    names = {name.removeprefix("module."): p for name, p in net.named_parameters()}
    assert list(names) == [name for name, _ in wanted.named_parameters()]
    for name, q in wanted.named_parameters():
        pairs = [(names[name], q), (names[name].grad, q.grad)] if gradients else [(names[name], q)]
        for kind, (ours, theirs) in zip(("value", "gradient"), pairs, strict=False):
            ours = ours.full_tensor() if hasattr(ours, "full_tensor") else ours
            assert_close(ours, theirs, f"{kind} of {name}")


# -- the checks --------------------------------------------------------------------------------------------------------


def ddp_of_a_module_that_unrolls(folder: Path) -> None:
    net = DistributedDataParallel(
        Whole()
    )  # find_unused_parameters is False: an unused one would raise at the second forward
    optimizer = optimizer_of(net)
    for number in range(2):
        optimizer.zero_grad()
        loss_of(net(mine(inputs(number)))).backward()
        optimizer.step()
    assert_equal(net, trained(2))


def ddp_of_a_fused_loop(folder: Path) -> None:
    for checkpoint in (None, 2):
        for around in (False, True):
            net = DistributedDataParallel(Looped() if around else snn.fuse(Looped(), checkpoint=checkpoint))
            run = snn.fuse(lambda x, net=net: net(x), checkpoint=checkpoint) if around else net
            optimizer = optimizer_of(net)
            for number in range(2):
                optimizer.zero_grad()
                loss_of(run(mine(inputs(number)))).backward()
                optimizer.step()
            assert_equal(net, trained(2))


def unroll_of_a_ddp(folder: Path) -> None:
    net = DistributedDataParallel(Network())
    loss_of(snn.unroll(net, mine(inputs()))).backward()
    wanted = Network()
    loss_of(snn.unroll(wanted, inputs())).backward()
    assert_equal(net, wanted)


def ddp_step_by_step(folder: Path) -> None:
    net, wanted = DistributedDataParallel(Network()), Network()
    for _ in range(2):
        for each, x in ((net, mine(inputs())), (wanted, inputs())):
            each.zero_grad()
            snn.utils.reset(each)
            outs = [each(x_t) for x_t in x]
            loss_of(tuple(torch.stack(out) for out in zip(*outs, strict=True))).backward()
    assert_equal(net, wanted)


def ddp_in_chunks_of_time(folder: Path) -> None:
    """Truncated: one exchange of gradients, after the last chunk."""
    net, wanted = DistributedDataParallel(Network()), Network()
    for each, x in ((net, mine(inputs())), (wanted, inputs())):
        *early, last = x.split(2)
        with each.no_sync() if each is net else contextlib.nullcontext():
            for chunk in early:
                loss_of(snn.unroll(each, chunk)).backward()
                snn.utils.detach(each)
        loss_of(snn.unroll(each, last)).backward()
    assert_equal(net, wanted)


def nothing_of_a_state_is_sent(folder: Path) -> None:
    net = DistributedDataParallel(Network())
    snn.unroll(net, mine(inputs()))
    kept = {name for name, _ in [*net.named_parameters(), *net.named_buffers()]}
    assert not {name for name in kept if name.endswith((".mem", ".spk"))}
    mems = [torch.empty(BATCH // WORLD, 4) for _ in range(WORLD)]
    dist.all_gather(mems, net.module.out.mem.detach().contiguous())
    assert not torch.equal(*mems), "both processes have the state of one"


def fsdp(folder: Path) -> None:
    net = sharded()
    optimizer = optimizer_of(net)
    for number in range(2):
        optimizer.zero_grad()
        loss_of(net(mine(inputs(number)))).backward()
        snn.distributed.average_gradients(snn.distributed.scalars(net))
        optimizer.step()
    assert_equal(net, trained(2))
    model, optim = get_state_dict(net, optimizer)
    dcp.save({"net": model, "optimizer": optim}, checkpoint_id=folder / "of two")


def fsdp_loads_what_one_process_has_saved(folder: Path) -> None:
    net = sharded()
    optimizer = optimizer_of(net)
    model, optim = get_state_dict(net, optimizer)
    saved = {"net": model, "optimizer": optim}
    dcp.load(saved, checkpoint_id=folder / "of one")
    set_state_dict(net, optimizer, model_state_dict=saved["net"], optim_state_dict=saved["optimizer"])
    loss_of(net(mine(inputs(1)))).backward()
    snn.distributed.average_gradients(snn.distributed.scalars(net))
    optimizer.step()
    assert_equal(net, trained(2))


def gradients_that_some_lack(folder: Path) -> None:
    a, b, c = (nn.Parameter(torch.tensor(0.0)) for _ in range(3))
    if dist.get_rank() == 0:
        a.grad = torch.tensor(4.0)
    b.grad = torch.tensor(float(dist.get_rank()))
    snn.distributed.average_gradients([a, b, c])
    assert (a.grad, b.grad, c.grad) == (2.0, 0.5, None)


CHECKS: list[Callable[[Path], None]] = [
    ddp_of_a_module_that_unrolls,
    ddp_of_a_fused_loop,
    unroll_of_a_ddp,
    ddp_step_by_step,
    ddp_in_chunks_of_time,
    nothing_of_a_state_is_sent,
    fsdp,
    fsdp_loads_what_one_process_has_saved,
    gradients_that_some_lack,
]


def run(rank: int, folder: Path) -> None:
    """One process: every check in turn, what went wrong into a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    for check in CHECKS:
        try:
            check(folder)
            message = "right"
        except Exception:
            message = traceback.format_exc()
        (folder / f"{check.__name__} {rank}").write_text(message)
    dist.destroy_process_group()
    os._exit(0)  # at once: a thread of gloo that lets go of its last tensor while Python is taken down aborts
