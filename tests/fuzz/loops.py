"""Random loops over time: `fuse` against the plain loop.

A program is a list of statements that a loop repeats at every step. They read and assign variables, which keep their
values from step to step, so that a statement may read a value of this step or of one before. With exact products all
values are the plain loop's bits. Double precision keeps spikes from flipping otherwise, and gradients close.
"""

import copy
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import spikeloom as snn

B, N, LAYERS = 2, 4, 3
Statement = tuple[Any, ...]


class Layers(nn.Module):
    """The layers of a program."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.ModuleList([nn.Linear(N, N) for _ in range(LAYERS)])
        self.lif = nn.ModuleList([snn.Leaky(beta=0.5 + 0.2 * i, threshold=0.3) for i in range(2)])
        self.hidden = snn.Leaky(beta=0.9, threshold=0.4, init_hidden=True)
        self.rec = snn.RLeaky(beta=0.8, threshold=0.4, V=0.3, all_to_all=False)
        self.norm = nn.BatchNorm1d(N, eps=1.0)  # steep gradients would make rounding large


UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "half": lambda u: u * 0.5,
    "shift": lambda u: 0.25 - u,
    "clamp": lambda u: u.clamp(-1, 1),
    "flip": lambda u: u.flip(0),
    "center": lambda u: u - u.mean(0, keepdim=True),
    "rows": lambda u: functional.softmax(u, 0),
    "detach": lambda u: u.detach(),
    "clone": lambda u: u.clone(),
    "view": lambda u: u.view(-1).view(B, N),
    "turn": lambda u: u.t().reshape(B, N),
    "some": lambda u: torch.cat((u[:, 1:], u[:, :1]), 1),
    "drop": lambda u: functional.dropout(u, 0.3),
    "noise": lambda u: u + 0.1 * torch.randn_like(u),
    "tanh": torch.tanh,
    "first": lambda u: u[0].expand(B, N),
    "mean": lambda u: u - u.mean(),
    "norm": lambda u: u / (1 + u.square().sum(1, keepdim=True)),
    "max": lambda u: u - u.max(),
}
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "mul": torch.mul,
    "max": torch.maximum,
    "where": lambda u, w: torch.where(u > 0, u, w),
    "mean": lambda u, w: (u + w) / 2,
}
VIEWS = ("view", "turn", "first")
"""Not where gradients are off: in PyTorch, a view of a slice that needs gradients needs them even there."""
LABELS = torch.tensor([1, 3])
LOSSES: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    lambda u, w: functional.cross_entropy(u, LABELS),
    lambda u, w: functional.mse_loss(u, w),
    lambda u, w: u.mean(),
    lambda u, w: u.std() + w.sum(1).mean(),
    lambda u, w: u.logsumexp(1).sum(),
    lambda u, w: functional.nll_loss(u.log_softmax(1), LABELS, reduction="sum"),
)
EXTREMES = (torch.maximum, torch.minimum, torch.max)
RETURNED = 13
"""So many values are returned before two single steps."""

NAMES = ("a", "b", "c", "d")


def statement(pick: random.Random, depth: int = 0) -> Statement:
    """One random statement."""
    kinds = ("fc", "lif", "lif", "unary", "unary", "binary", "hidden", "rec", "norm", "sum", "note", "write", "state")
    kinds += ("loss", "extreme", "terms")
    more = ("if", "in place", "lag", "value", "nested", "state in place", "no grad")
    kind = pick.choice((*kinds, *more) if depth < 2 else kinds)
    to, u, w = (pick.choice(NAMES) for _ in range(3))
    if kind in ("if", "nested", "value", "no grad"):
        inner = [statement(pick, depth + 1) for _ in range(pick.randint(1, 2))]
        return (kind, pick.randint(2, 4), pick.randint(0, 3), u, inner)
    if kind == "unary":
        return (kind, pick.choice(list(UNARY)), to, u)
    if kind == "binary":
        return (kind, pick.choice(list(BINARY)), to, u, w)
    return (kind, pick.randrange(6), to, u, pick.randint(2, 4))


def program(seed: int) -> tuple[list[Statement], int, bool]:
    """The statements, the number of steps, and whether the input is the same at every step."""
    pick = random.Random(seed)
    body = [("input", 0, pick.choice(NAMES))] + [statement(pick) for _ in range(pick.randint(2, 7))]
    pick.shuffle(body)
    return body, pick.randint(2, 9), pick.random() < 0.3


def loop_of(body: list[Statement], steps: int, static: bool) -> Callable[[Layers, Tensor], Any]:
    """The loop as a function of the layers and an input [T, B, N]."""

    def do(p: Any, one: Statement, v: dict[str, Any], x: Tensor, t: int) -> None:
        kind, which = one[0], one[1]
        if kind == "input":
            v[one[2]] = x[0] if static else x[t]
        elif kind == "unary":
            v[one[2]] = UNARY[which](v[one[3]])
        elif kind == "binary":
            v[one[2]] = BINARY[which](v[one[3]], v[one[4]])
        elif kind == "if":
            if t % which == one[2] % which:
                run(p, one[4], v, x, t)
        elif kind == "nested":
            for _ in range(which):
                run(p, one[4], v, x, t)
        elif kind == "value":
            if v[one[3]].sum().item() > 0:
                run(p, one[4], v, x, t)
        elif kind == "no grad":
            with torch.set_grad_enabled(which > 2 and torch.is_grad_enabled()):
                run(p, [inner for inner in one[4] if inner[1] not in VIEWS], v, x, t)
        else:
            simple(p, kind, which, one[2], one[3], one[4], v, t)

    def simple(p: Any, kind: str, which: int, to: str, u: str, k: int, v: dict[str, Any], t: int) -> None:
        if kind == "fc":
            v[to] = p.fc[which % LAYERS](v[u])
        elif kind == "lif":
            v[to], v["states"][which % 2] = p.lif[which % 2](v[u], v["states"][which % 2])
        elif kind == "hidden":
            v[to] = p.hidden(v[u])
        elif kind == "rec":
            v[to], mem = p.rec(v[u], *v["rec"])
            v["rec"] = (v[to], mem)
        elif kind == "norm":
            v[to] = p.norm(v[u])
        elif kind == "sum":
            v["sum"] = v["sum"] + v[u]
        elif kind == "terms":
            v["sum"] = v["sum"] + v[u] + v[to] if which % 2 else v["sum"] + (v[u] + v[to])
        elif kind == "loss":
            v["loss"] = v["loss"] + LOSSES[which](v[u], v[to])
        elif kind == "extreme":
            v[f"most {which % 3}"] = EXTREMES[which % 3](v[f"most {which % 3}"], v[u])
        elif kind == "note":
            v["notes"].append(v[u])
        elif kind == "write":
            v["written"][t] = v[u]
        elif kind == "lag":
            v["queue"].append(v[u])
            v[to] = v["queue"].pop(0)
        elif kind == "in place":
            v[u] = v[u] * 1
            v[u].mul_(0.9)
            if which == 1:
                v[u] += v[to]
            elif which == 2:
                v[u][0].add_(0.1)
        elif kind == "state":
            mem = v["states"][which % 2]
            v["states"][which % 2] = mem * 0.9 if k == 2 else mem.detach() if k == 3 else torch.zeros_like(mem)
        elif kind == "state in place" and t % k == 1:
            mem = v["states"][which % 2]
            v["states"][which % 2] = mem.detach_() if not mem._is_view() else mem.detach()

    def run(p: Any, statements: list[Statement], v: dict[str, Any], x: Tensor, t: int) -> None:
        for one in statements:
            do(p, one, v, x, t)

    def loop(p: Any, x: Tensor) -> Any:
        zeros = torch.zeros(B, N, dtype=x.dtype)
        v: dict[str, Any] = dict.fromkeys(NAMES, zeros)
        v |= {"states": [zeros, zeros.clone()], "rec": (zeros, zeros), "sum": zeros, "notes": [], "queue": [zeros] * 2}
        v |= {"loss": torch.zeros((), dtype=x.dtype)} | {f"most {i}": zeros for i in range(len(EXTREMES))}
        v["written"] = x.new_zeros(steps, B, N)
        for t in range(steps):
            run(p, body, v, x, t)
        notes = torch.stack(v["notes"]) if v["notes"] else zeros
        most = [v[f"most {i}"] for i in range(len(EXTREMES))]
        others = [v[name] for name in NAMES]
        return [notes, v["sum"], v["written"], v["loss"], *most, *v["states"], *others, *v["notes"][:2]]

    return loop


def outcome(run: Any, p: Layers, x: Tensor, grad: bool, of_steps: bool) -> dict[str, Any]:
    """What a call gives and leaves; an error counts as well. If `of_steps`, with gradients of returned single steps."""
    torch.manual_seed(0)
    with torch.set_grad_enabled(grad):
        try:
            outs = run(p, x)
        except Exception as error:
            return {"error": type(error).__name__}
    found: dict[str, Any] = {f"out {i}": out for i, out in enumerate(outs)}
    learned = [out for out in outs if out.requires_grad]
    found["needs"] = [out.requires_grad for out in outs]
    steps = [out for out in outs[RETURNED:] if of_steps and out.grad_fn is not None and not out._is_view()]
    try:
        if learned:
            loss: Any = sum((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() for out in learned)
            for place, grad_of in enumerate(torch.autograd.grad(loss, steps, retain_graph=True) if steps else ()):
                found[f"grad of step {place}"] = grad_of
            loss.backward()
    except RuntimeError as error:
        found = {"error in backward": type(error).__name__}
    found |= {f"grad {name}": q.grad for name, q in p.named_parameters()} | {"grad x": x.grad}
    found |= {f"buffer {name}": q for name, q in p.named_buffers()}
    found |= {"hidden": p.hidden.mem, "lif": p.lif[0].mem, "rec": p.rec.spk, "drawn": torch.get_rng_state()}
    return found


def differs(seed: int, exact: bool, engine: Any = None) -> str:
    """Why a random program differs from the plain loop; empty if it does not."""
    body, steps, static = program(seed)
    loop = loop_of(body, steps, static)
    torch.manual_seed(seed)
    plain = Layers().double()
    fused = copy.deepcopy(plain)
    pick = random.Random(seed + 1)
    grad, learns, length = pick.random() < 0.7, pick.random() < 0.5, pick.choice((None, None, None, 1, 2, 3))
    fast = snn.fuse(loop, exact_products=exact, checkpoint=length)
    fast._fused_engine.always = True
    of_steps = length is None and "turn" not in str(body)  # not at the end of a segment, and not of reshaped values
    for call in range(2):
        x = torch.randn(steps, B, N, dtype=next(plain.parameters()).dtype)
        wanted = outcome(loop, plain, x.clone().requires_grad_(learns and grad), grad, of_steps)
        got = outcome(fast, fused, x.clone().requires_grad_(learns and grad), grad, of_steps)
        if "error in backward" in wanted:  # in place on what was saved: `fuse` may be able to do it
            return ""
        if got.keys() != wanted.keys():
            return f"seed {seed}, call {call}: {sorted(got.keys() ^ wanted.keys())[:4]} {got.get('error')}"
        for name, value in wanted.items():
            if not isinstance(value, Tensor):
                if got[name] != value:
                    return f"seed {seed}, call {call}, {name}: {got[name]}, not {value}"
                continue
            close = {"rtol": 1e-6, "atol": 1e-8}
            if exact and name.startswith(("out", "hidden", "lif", "rec", "drawn")):
                close = {"rtol": 0.0, "atol": 0.0}
            same = type(got[name]) is type(value) and torch.allclose(
                got[name].double(), value.double(), equal_nan=True, **close
            )
            if not same:
                return f"seed {seed}, call {call}, {name} differs"
        for p in (plain, fused):
            p.zero_grad()
            snn.utils.detach(p)
    return ""


def run(count: int, seed: int) -> list[str]:
    """The random programs that differ, of `count`."""
    found = []
    for number in range(count):
        message = differs(seed + number, exact=number % 2 == 0)
        if message:
            found.append(message)
    return found
