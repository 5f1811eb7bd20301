"""The neurons: state, lifetime, dtype, saving."""

import copy
import gc
import importlib
import io
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import nn

from .fix import Fix, error_of


def fed(lif: Any, value: float = 0.75) -> Any:
    """The layer after two steps of [1, 2]; its membrane is neither zero nor above threshold."""
    for _ in range(2):
        lif(torch.full((1, 2), value / 2))
    return lif


# -- neurons -----------------------------------------------------------------------------------------------------------


def mem_of_another_shape(snn: ModuleType, mem: Any = (0.5, 0.5)) -> Any:
    given = [] if mem is None else [torch.tensor(mem)]
    return snn.Leaky(0.5)(torch.ones(1, 2), *given)[1].tolist()


def kept_mem_of_another_shape(snn: ModuleType) -> Any:
    lif = snn.Leaky(0.5, init_hidden=True, output=True)
    lif(torch.full((1, 2), 0.5))
    return lif(torch.ones(3, 2))[1].tolist()


def mem_with_init_hidden(snn: ModuleType) -> Any:
    lif = fed(snn.Leaky(0.5, init_hidden=True))
    return error_of(lambda: lif(torch.ones(1, 2), torch.full((1, 2), 9.0))), lif.mem.tolist()


def freed_graph(snn: ModuleType) -> bool:
    """Whether the error of a forgotten reset says what to do."""
    lif = snn.Leaky(0.5, init_hidden=True, learn_beta=True)
    try:
        for _ in range(2):
            lif(torch.ones(1, 2)).sum().backward()
    except RuntimeError as error:
        return "utils.reset(net)" in str(error)
    return False


def assigned_reset(snn: ModuleType) -> list[float]:
    lif = snn.Leaky(1.0)
    lif.reset_mechanism = "none"
    lif(torch.tensor([2.0]))
    return lif(torch.tensor([0.0]))[1].tolist()


def loaded_reset(snn: ModuleType) -> list[float]:
    lif = snn.Leaky(1.0)
    lif.load_state_dict(snn.Leaky(1.0, reset_mechanism="none").state_dict())
    lif(torch.tensor([2.0]))
    return lif(torch.tensor([0.0]))[1].tolist()


def inhibited_images(snn: ModuleType) -> Any:
    lif = snn.Leaky(0.5, inhibition=True)
    return error_of(lambda: lif(torch.ones(2, 3, 4, 5)))


def learned_integer(snn: ModuleType) -> str:
    return error_of(lambda: snn.Leaky(1, threshold=1, learn_beta=True, learn_threshold=True))


def copied_with_a_graph(snn: ModuleType) -> str:
    lif = fed(snn.Leaky(0.5, learn_beta=True))
    return error_of(lambda: copy.deepcopy(lif))


def saved_whole(snn: ModuleType) -> str:
    lif = snn.Leaky(0.5, spike_grad=snn.surrogate.fast_sigmoid())
    return error_of(lambda: torch.save(lif, io.BytesIO()))


def replicated(snn: ModuleType) -> list[float]:
    """A replica as DataParallel makes it, with a decay of its own."""
    lif = snn.Leaky(0.5, init_hidden=True, output=True)
    lif(torch.tensor([0.0]))
    replica = lif._replicate_for_data_parallel()
    replica._buffers["beta"] = torch.tensor(1.0)
    replica(torch.tensor([0.5]))
    return replica(torch.tensor([0.0]))[1].tolist()


# -- state and lifetime ------------------------------------------------------------------------------------------------


def reset_of_one_network(snn: ModuleType) -> Any:
    a, b = (fed(snn.Leaky(0.5, init_hidden=True)) for _ in range(2))
    utils(snn).reset(nn.Sequential(a))
    return a.mem.tolist(), b.mem.tolist()


def reset_of_nested_and_bare(snn: ModuleType) -> Any:
    a, b = (fed(snn.Leaky(0.5, init_hidden=True)) for _ in range(2))
    utils(snn).reset(nn.Sequential(nn.Sequential(a)))
    utils(snn).reset(b)
    return a.mem.tolist(), b.mem.tolist()


def utils(snn: ModuleType) -> Any:
    return importlib.import_module(f"{snn.__name__}.utils")


def kept_alive(snn: ModuleType) -> int:
    gc.collect()
    before = len(snn.SpikingNeuron.instances)
    for _ in range(3):
        snn.Leaky(0.5)
    gc.collect()
    return len(snn.SpikingNeuron.instances) - before


def copy_is_listed(snn: ModuleType) -> bool:
    lif = copy.deepcopy(snn.Leaky(0.5))
    return any(lif is other for other in snn.SpikingNeuron.instances)


def half_a_neuron(snn: ModuleType) -> str:
    error_of(lambda: snn.Leaky(0.5, reset_mechanism="nonsense"))
    return error_of(snn.Leaky.reset_hidden)


def forgotten(snn: ModuleType) -> Any:
    snn.Leaky.init()
    lif = fed(snn.Leaky(0.5, init_hidden=True))
    snn.Leaky.reset_hidden()
    return lif.mem.tolist()


def zeroed(snn: ModuleType) -> list[float]:
    mem = torch.ones(2)
    snn.SpikingNeuron.zeros(mem)
    return mem.tolist()


# -- dtype -------------------------------------------------------------------------------------------------------------


def dtypes(dtype: torch.dtype) -> Callable[[ModuleType], Any]:
    def dtypes_of(snn: ModuleType) -> tuple[torch.dtype, ...]:
        return tuple(out.dtype for out in snn.Leaky(0.5)(torch.ones(1, 2, dtype=dtype)))

    return dtypes_of


FED, ZERO = [[0.5625, 0.5625]], [[0.0, 0.0]]
SHAPE_ROW = "a passed or stored state whose shape differs from the input's but broadcasts to it"
RESET_ROW = '`lif.reset_mechanism = "zero"`, or loading a state_dict with another `reset_mechanism_val`'

FIXES: dict[str, Fix] = {
    "mem of another shape": Fix(
        SHAPE_ROW, mem_of_another_shape, [[1.0, 1.0]], [[1.25, 1.25]], lambda snn: mem_of_another_shape(snn, None)
    ),
    "kept mem of another shape": Fix(SHAPE_ROW, kept_mem_of_another_shape, [[1.0, 1.0]] * 3, [[1.25, 1.25]] * 3),
    "mem with init_hidden": Fix(
        "a state passed with `init_hidden=True`",
        mem_with_init_hidden,
        ("TypeError", [[9.0, 9.0]]),
        ("TypeError", FED),
    ),
    "a graph already freed": Fix(
        "backward into the graph of an earlier batch, because `reset` was not called", freed_graph, False, True
    ),
    "reset_mechanism assigned": Fix(RESET_ROW, assigned_reset, [1.0], [2.0]),
    "reset_mechanism loaded": Fix(RESET_ROW, loaded_reset, [1.0], [2.0]),
    "inhibition of images": Fix("`inhibition=True` on `[B, C, H, W]`", inhibited_images, "IndexError", "nothing"),
    "integers learned": Fix(
        "`learn_beta=True` or `learn_threshold=True` with an integer", learned_integer, "RuntimeError", "nothing"
    ),
    "deepcopy with a graph": Fix(
        "`copy.deepcopy` of a layer that holds a state with a graph", copied_with_a_graph, "RuntimeError", "nothing"
    ),
    "saved whole": Fix(
        "`pickle` or `torch.save(net)` of a layer with a `surrogate` function",
        saved_whole,
        "AttributeError",
        "nothing",
    ),
    "a replica": Fix("a replica made by `nn.DataParallel`", replicated, [0.0], [0.5]),
    "reset of one network": Fix("`utils.reset(net)`", reset_of_one_network, (ZERO, ZERO), (ZERO, FED)),
    "reset of what is nested": Fix("`utils.reset(net)`", reset_of_nested_and_bare, (FED, FED), (ZERO, ZERO)),
    "kept alive": Fix("`SpikingNeuron.instances`", kept_alive, 3, 0),
    "a copy is listed": Fix("copies and unpickled neurons", copy_is_listed, False, True),
    "half a neuron": Fix("a constructor that raises", half_a_neuron, "AttributeError", "nothing"),
    "forgotten for good": Fix("`Leaky.init()`", forgotten, FED, ZERO),
    "zeros": Fix("`SpikingNeuron.zeros(*tensors)`", zeroed, [1.0, 1.0], [0.0, 0.0]),
    "float64": Fix("float64", dtypes(torch.float64), (torch.float32, torch.float64), (torch.float64, torch.float64)),
    "float16": Fix(
        "float16, bfloat16", dtypes(torch.float16), (torch.float32, torch.float32), (torch.float16, torch.float32)
    ),
    "bfloat16": Fix(
        "float16, bfloat16", dtypes(torch.bfloat16), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)
    ),
}
