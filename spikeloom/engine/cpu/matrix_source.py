"""Kernel source for `matrix`: a cell over the entries [D, N] of a matrix, its input v_i * k_j, one parameter a gate per
column and step.

The equations and their gradients are those of the program, as in `emit_numba`; only what is loaded and stored differs.
The forward writes the spikes, and the matrix once in SPAN steps. The backward runs the cell again from there, span by
span, with the states of one span and one row of the matrix in the cache. One thread has all rows of a batch entry, for
they share the gradients of k and of the gate.
"""

from ..graph.program import Derivation
from ..graph.trace import needed
from ..jit.numba_jit import lines, module_source
from .source import Names

SPAN = 32
LANES = 8
"""Partial sums of the gradient of v: one chain of additions would wait for itself, and a sum in another order than that
which is written is not allowed."""

WORDS = ["steps", "size", "team", "batch", "D", "N", "v", "k", "gate", "kept"]
FORWARD_WORDS = ["state", "spk"]
BACKWARD_WORDS = ["scratch", "grad", "grad_stride", "carry", "dv", "dk", "dgate"]

FORWARD = """{uniforms}
    part = (batch * D + threads - 1) // threads
    row = me * part
    last = min(row + part, batch * D)
    while row < last:
        b = row // D
        stop = min(last, (b + 1) * D)
        for t in range(steps):
            k_t, gate_t = k + SIZE * (t * batch + b) * N, gate + SIZE * (t * batch + b) * N
            for i in range(row, stop):
                state_i = state + SIZE * i * N
                if kept != 0 and t % {span} == 0:
                    kept_i = kept + SIZE * (t // {span} * batch * D + i) * N
                    for j in range(N):
                        store(kept_i, j, load(state_i, j))
                spk_i = spk + SIZE * (t * batch * D + i) * N
                v_m = load(v, t * batch * D + i)
                for j in range(N):
{loads}
{body}
                    store(spk_i, j, {spk})
                    store(state_i, j, {new})
        row = stop
"""

BACKWARD = """{uniforms}
    spans = (steps + {span} - 1) // {span}
    part = (batch + threads - 1) // threads
    before = scratch + SIZE * me * ({span} + 2) * N  # the states before each step of a span, and after its last
    dx = before + SIZE * ({span} + 1) * N
    for b in range(me * part, min(me * part + part, batch)):
        for span in range(spans - 1, -1, -1):
            begin = span * {span}
            end = min(begin + {span}, steps)
            for i in range(b * D, (b + 1) * D):
                kept_i = kept + SIZE * (span * batch * D + i) * N
                for j in range(N):
                    store(before, j, load(kept_i, j))
                for t in range(begin, end):
                    k_t, gate_t = k + SIZE * (t * batch + b) * N, gate + SIZE * (t * batch + b) * N
                    state_i = before + SIZE * (t - begin) * N
                    v_m = load(v, t * batch * D + i)
                    for j in range(N):
{loads}
{again}
                        store(state_i + SIZE * N, j, {new})
                carry_i = carry + SIZE * i * N
                for t in range(end - 1, begin - 1, -1):
                    k_t, gate_t = k + SIZE * (t * batch + b) * N, gate + SIZE * (t * batch + b) * N
                    dk_t, dgate_t = dk + SIZE * (t * batch + b) * N, dgate + SIZE * (t * batch + b) * N
                    grad_i = grad + SIZE * (t * grad_stride + i * N)
                    state_i = before + SIZE * (t - begin) * N
                    v_m = load(v, t * batch * D + i)
                    for j in range(N):
{loads}
                        new0_m = load(state_i + SIZE * N, j)
                        grad0_m, grad1_m = load(grad_i, j), load(carry_i, j)
{body}
                        store(carry_i, j, {carry})
                        store(dgate_t, j, load(dgate_t, j) + {dgate})
                        store(dk_t, j, load(dk_t, j) + {dx} * v_m)
                        store(dx, j, {dx} * load(k_t, j))
{zeros}
                    for j in range(0, N - {lanes} + 1, {lanes}):
{sums}
                    for j in range(N // {lanes} * {lanes}, N):
                        sum0 = sum0 + load(dx, j)
                    store(dv, t * batch * D + i, {total})
"""


def emit_matrix(derivation: Derivation, forward: bool, dtype: str, title: str, team: bool, cached: bool) -> str:
    """The source of a kernel.

    Args:
        derivation: of a cell with one state and a parameter `gate`; its other parameters are numbers.
        forward: or the backward.
        dtype, title, team, cached: see `module_source`.
    """
    names = [node.value for node in derivation.hoisted]
    uniforms = [f"param{p}_m = load(param{p}, 0)" for p, name in enumerate(names) if name != "gate"]
    gate = names.index("gate")
    loads = ["x_m = v_m * load(k_t, j)", "state0_m = load(state_i, j)", f"param{gate}_m = load(gate_t, j)"]
    name = Names(derivation, recalled=False)
    spk, new = derivation.forward
    known = frozenset(derivation.hoisted)
    own = FORWARD_WORDS if forward else BACKWARD_WORDS
    words = [*WORDS, *own, *(f"param{p}" for p in range(len(names)) if p != gate)]
    parts = {"uniforms": lines(uniforms, 1), "span": SPAN}
    if forward:
        body = lines(name.assign(needed(derivation.forward, known)), 5)
        source = FORWARD.format(loads=lines(loads, 5), body=body, spk=name(spk), new=name(new), **parts)
        return module_source(title, dtype, words, source, team, cached)
    again, name_back = lines(name.assign(needed([new], known)), 6), Names(derivation, recalled=True)
    dx, carry, *totals = derivation.backward
    nodes = needed([g for g in (dx, carry, totals[gate]) if g is not None], derivation.recalled)
    source = BACKWARD.format(
        loads=lines(loads, 6),
        again=again,
        new=name(new),
        body=lines(name_back.assign(nodes), 6),
        carry=name_back(carry),
        dgate=name_back(totals[gate]),
        dx=name_back(dx),
        zeros=lines([" = ".join(f"sum{lane}" for lane in range(LANES)) + " = R(0)"], 5),
        sums=lines([f"sum{lane} = sum{lane} + load(dx, j + {lane})" for lane in range(LANES)], 6),
        total=" + ".join(f"sum{lane}" for lane in range(LANES)),
        lanes=LANES,
        **parts,
    )
    return module_source(title, dtype, words, source, team, cached)
