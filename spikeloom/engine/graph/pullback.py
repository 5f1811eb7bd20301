"""The backward of a scan by torch's own operations, where no kernel can: second derivatives and batched gradients.

It evaluates the graph from which the backward kernels are generated, on the tensors saved by the forward. These are
connected to the autograd graph, so that torch can differentiate the result.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ... import ops
from ..saved_tensors import TWICE
from .compare import OPERATORS
from .program import structure_of
from .trace import Symbol, needed
from .variant import Cotangents, Gradients, InputGrad, Param, Saved, State, Variant

Some = Sequence[Tensor | None]


class PullBack:
    """The backward of a program in one variant.

    Args:
        key: the key of the program.
        variant: selects the gradients.
        surrogate: the program's spike function.
    """

    def __init__(self, key: str, variant: Variant, surrogate: ops.Surrogate):
        self.derivation, self.dtype = structure_of(key).derivation, variant.computed
        self.step = self.derivation.step
        self.functions: Mapping[str, Callable[..., Tensor]] = {
            **{name: getattr(ops, name) for name in ops.TENSOR_FUNCTIONS},
            **OPERATORS,
            "spike": surrogate,
            "full": lambda value: value,
            "full_like": lambda u, value: torch.zeros_like(u) + value,
        }
        dxs, carries, totals = self.derivation.gradients
        self.wanted = (
            [dx if variant.grad != InputGrad.UNWANTED else None for dx in dxs],
            list(carries),
            [total if kind.learned else None for total, kind in zip(totals, variant.params, strict=True)],
        )

    def __call__(
        self, inputs: Some, states: Some, new_states: Some, params: Sequence[Tensor], cotangents: Some
    ) -> tuple[list[Tensor], ...]:
        """The gradients of the inputs, the states before the step and the hoisted values, each [*S].

        Args:
            inputs, states, new_states: the values that the backward reads, [*S]; None for the others.
            params: the hoisted values.
            cotangents: the gradients of the spikes and of each new state, [*S]; None is zero. Not all are None.
        """
        dtype = getattr(torch, self.dtype)
        zero = torch.zeros_like(next(g for g in cotangents if g is not None), dtype=dtype)
        known: dict[Symbol, Tensor] = {}
        # in this order: a new state that is an old one counts as that, as in `cpu.source`
        for symbols, tensors in (
            (self.step.new_states, new_states),
            (self.step.inputs, inputs),
            (self.step.states, states),
            (self.derivation.hoisted, params),
            (self.derivation.cotangents, [zero if g is None else g for g in cotangents]),
        ):
            pairs = zip(symbols, tensors, strict=True)
            known |= {symbol: _value(symbol, tensor.to(dtype)) for symbol, tensor in pairs if tensor is not None}
        results = [g for part in self.wanted for g in part if g is not None]
        self._evaluate(results, self.derivation.recalled, known, zero)
        return tuple([zero if g is None else known[g].expand(zero.shape) for g in part] for part in self.wanted)

    def forward(self, inputs: Sequence[Tensor], states: Sequence[Tensor], params: Sequence[Tensor]) -> list[Tensor]:
        """The new states of one step."""
        known = dict(zip(self.step.inputs, inputs, strict=True))
        known |= dict(zip(self.step.states, states, strict=True))
        known |= {h: _value(h, param) for h, param in zip(self.derivation.hoisted, params, strict=True)}
        self._evaluate(self.step.new_states, frozenset(self.derivation.hoisted), known, states[-1])
        return [known[new].expand(states[-1].shape) for new in self.step.new_states]

    def _evaluate(
        self, results: Sequence[Symbol], given: frozenset[Symbol], known: dict[Symbol, Tensor], like: Tensor
    ) -> None:
        """Evaluate the results, and all nodes that they depend on."""
        for node in needed(results, given):
            if node.op == "const":  # in the dtype that a kernel computes in
                known[node] = torch.full((), node.value, dtype=like.dtype, device=like.device)
            elif node not in known:
                known[node] = self.functions[node.op](*[known[arg] for arg in node.args])


def _value(symbol: Symbol, tensor: Tensor) -> Tensor:
    """The value of a leaf. A condition is passed as a number."""
    return tensor != 0 if symbol.logical else tensor


def add(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Add two gradients; None is zero."""
    return second if first is None else first if second is None else first + second


def summed(totals: Some, params: Sequence[Tensor], kinds: Sequence[Param]) -> list[Tensor | None]:
    """The gradients of the hoisted values, summed over broadcast dimensions; None where none is required."""
    each = zip(totals, params, kinds, strict=True)
    return [g.sum_to_size(p.shape) if g is not None and kind.learned else None for g, p, kind in each]


def backward(surrogate: ops.Surrogate, saved: Saved, grads: Cotangents) -> Gradients:
    """Compute the results of the backward kernels by torch, from the same arguments and the spike function."""
    key, variant, steps, x, states, traces, params = saved
    like = states[-1]
    if not steps or any(kind.fixed == Param.STEP for kind in variant.params):
        raise RuntimeError(TWICE)
    pull_back = PullBack(key, variant, surrogate)
    inputs = None if x is None else x.to(like.dtype).expand(steps, *like.shape).unbind()
    rows: list[Sequence[Tensor] | None] = [None if trace is None else trace.unbind() for trace in traces]
    if not {State.RECOMPUTED, State.SPANS}.isdisjoint(variant.states):  # not every state is saved, but the input is
        assert inputs is not None
        every = [[*states]]
        for x_t in inputs:
            every.append(pull_back.forward([x_t], every[-1], params))
        rows = [*zip(*every[1:], strict=True)]
    by_step = [None if g is None else g.unbind() for g in (grads.spk, *grads.traces)]
    carries: Some = grads.final_states
    totals: Some = [None for _ in params]
    dxs: list[Tensor] = []
    for t in reversed(range(steps)):
        spk, *news = (None if g is None else g[t] for g in by_step)
        cotangents = [spk, *map(add, news, carries)]
        if all(g is None for g in cotangents):
            cotangents = [torch.zeros_like(like), *cotangents[1:]]
        olds = states if t == 0 else [None if row is None else row[t - 1] for row in rows]
        given = [None] if inputs is None else [inputs[t]]
        news = [None if row is None else row[t] for row in rows]
        (dx_t,), states_t, more = pull_back(given, olds, news, params, cotangents)
        carries, totals = states_t, [*map(add, totals, more)]
        dxs.append(dx_t)
    dx = None
    if variant.grad == InputGrad.EACH:
        dx = torch.stack(dxs[::-1])
    elif variant.grad == InputGrad.SUM:
        dx = torch.stack(dxs).sum(0, keepdim=True)
    return Gradients(dx, states_t, summed(totals, params, variant.params))
