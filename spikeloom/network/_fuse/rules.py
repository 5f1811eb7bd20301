"""The operations of torch that `fuse` records, and how many calls of one run as one.

An operation that is not in `RULES` is executed at once, as are all recorded ones before it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import torch
from torch import Tensor

from ..._torch import set_grad_enabled

Op = Callable[..., Any]


class Fold(Enum):
    """How n calls of an operation run as one, on tensors [n, *S]."""

    NEVER = auto()  # one by one
    ELEMENTWISE = auto()  # the same operation on aligned dimensions
    LEADING = auto()  # the operation accepts any leading dimensions of its first argument
    ROWS = auto()  # it processes each row of dimension 0 separately: n is folded into it
    RESHAPE = auto()  # the elements keep their order
    VMAP = auto()  # torch.func.vmap
    SELECT = auto()  # x[i]: the slices of x are the calls
    UNBIND = auto()  # all slices of x
    WRITE = auto()  # x[i] = value, a chain
    ORDERED = auto()  # one by one and in order: it updates what it reads


@dataclass(frozen=True)
class Rule:
    """How an operation is recorded and folded.

    Args:
        fold: how calls run as one.
        view: whether a result may share memory with the first argument.
        scalars: whether numbers among the arguments may differ between calls of one class.
        vectors: whether its last bits depend on the place of a value in memory: the elements that do not fill a vector
            register are computed by another routine. Folded only if a step fills whole registers.
        product: whether it sums products, so that the number of rows may change the rounding.
        rows: the number of dimensions that its first argument has with a batch dimension; 0 if any.
        reduces: whether it sums elements, in an order that may depend on the shape: n calls compute their values one by
            one, and their gradients as one.
    """

    fold: Fold
    view: bool = False
    scalars: bool = False
    vectors: bool = False
    product: bool = False
    rows: int = 0
    reduces: bool = False


RULES: dict[Any, Rule] = {}
"""By function."""

INPLACE: dict[Any, Op] = {}
"""Operations in place, and the functions that compute the same values."""

READS: set[Any] = set()
"""What a recording tensor answers itself."""

DRAWS: set[Any] = set()
"""Operations that draw random numbers or create tensors: executed at once, in the order of the loop."""

T: Any = Tensor
F: Any = torch.nn.functional


def _methods(names: str) -> list[Any]:
    """The operations of these names, as methods and as functions of torch."""
    return [getattr(where, name) for name in names.split() for where in (T, torch) if hasattr(where, name)]


def _add(rule: Rule, *functions: Any) -> None:
    RULES.update(dict.fromkeys(functions, rule))


_EXACT = (
    "add sub mul div true_divide subtract multiply divide neg negative abs absolute gt lt ge le eq ne greater less "
    "greater_equal less_equal not_equal where maximum minimum clamp clamp_min clamp_max clip relu logical_and "
    "logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not round floor ceil trunc sign sgn square "
    "sqrt masked_fill isnan isinf isfinite heaviside floor_divide clone rsub positive nan_to_num"
)
_add(Rule(Fold.ELEMENTWISE, scalars=True), *_methods(_EXACT))
_add(
    Rule(Fold.ELEMENTWISE, scalars=True),
    *(T.__rsub__, T.__rdiv__, T.__rtruediv__, T.__eq__, T.__ne__, T.__and__, T.__or__, T.__xor__, T.__invert__),
    *(T.__gt__, T.__lt__, T.__ge__, T.__le__, T.__add__, T.__sub__, T.__mul__, T.__radd__, T.__rmul__, T.__truediv__),
    *(T.__neg__, T.__abs__, T.__floordiv__),
    *(
        F.relu,
        F.leaky_relu,
        F.hardtanh,
        F.relu6,
        F.hardsigmoid,
        F.threshold,
    ),
)
_add(Rule(Fold.ELEMENTWISE, view=True), *_methods("float double half bfloat16 int long bool to type_as type"))
_add(Rule(Fold.ELEMENTWISE, view=True), T.detach, torch.detach, T.contiguous)
_add(Rule(Fold.ELEMENTWISE), *_methods("zeros_like ones_like"))
_VECTORS = (
    "exp exp2 expm1 log log2 log10 log1p sigmoid tanh sin cos tan asin acos atan sinh cosh pow erf erfc rsqrt "
    "reciprocal lerp addcmul addcdiv atan2 fmod remainder logit xlogy"
)
_add(Rule(Fold.ELEMENTWISE, scalars=True, vectors=True), *_methods(_VECTORS))
_add(
    Rule(Fold.ELEMENTWISE, scalars=True, vectors=True),
    *(T.__pow__, T.__rpow__, T.__mod__),
    *(
        F.gelu,
        F.silu,
        F.elu,
        F.celu,
        F.selu,
        F.mish,
        F.softplus,
        F.softsign,
        F.logsigmoid,
        F.tanh,
        F.sigmoid,
    ),
    *(F.hardswish, F.tanhshrink, torch.celu, torch.selu),
)
_add(Rule(Fold.LEADING, product=True), F.linear)
_add(Rule(Fold.LEADING), F.layer_norm, F.embedding)
_add(
    Rule(Fold.ROWS, product=True, rows=3),
    F.conv1d,
    torch.conv1d,
    F.conv_transpose1d,
    torch.conv_transpose1d,
)
_add(
    Rule(Fold.ROWS, product=True, rows=4),
    F.conv2d,
    torch.conv2d,
    F.conv_transpose2d,
    torch.conv_transpose2d,
)
_add(Rule(Fold.ROWS, product=True, rows=5), F.conv3d, torch.conv3d, F.conv_transpose3d)
_add(
    Rule(Fold.ROWS, rows=3),
    *(
        F.max_pool1d,
        torch.max_pool1d,
        F.avg_pool1d,
        F.adaptive_avg_pool1d,
    ),
)
_add(
    Rule(Fold.ROWS, rows=4),
    *(
        F.max_pool2d,
        torch.max_pool2d,
        F.avg_pool2d,
        F.adaptive_avg_pool2d,
    ),
)
_add(Rule(Fold.ROWS, rows=4), F.adaptive_max_pool2d, torch.adaptive_avg_pool1d, F.pixel_shuffle)
_add(Rule(Fold.ROWS, rows=3), F.adaptive_max_pool1d)
_add(
    Rule(Fold.ROWS, rows=5),
    *(F.max_pool3d, torch.max_pool3d, F.avg_pool3d, F.adaptive_avg_pool3d),
)
_add(Rule(Fold.ROWS), F.group_norm, F.interpolate)
_add(Rule(Fold.RESHAPE, view=True), *_methods("view reshape flatten unsqueeze squeeze unflatten ravel view_as"))
_add(
    Rule(Fold.VMAP, view=True),
    *_methods("transpose permute movedim swapaxes swapdims t expand expand_as narrow chunk split diagonal select"),
    *(T.T.__get__, T.mT.__get__, torch.broadcast_to, T.broadcast_to),
)
_add(Rule(Fold.VMAP), *_methods("softmax log_softmax cat concat concatenate hstack flip roll repeat tile"))
_add(Rule(Fold.VMAP), *_methods("gather index_select amax amin argmax argmin any all tril triu"))
_add(Rule(Fold.VMAP), *(F.softmax, F.log_softmax, F.pad, torch.stack, F.normalize))
_add(Rule(Fold.VMAP, product=True), *_methods("matmul mm bmm mv einsum baddbmm addmm dot outer"))
_add(Rule(Fold.VMAP, product=True), T.__matmul__, T.__rmatmul__)
_add(Rule(Fold.NEVER, reduces=True), *_methods("sum mean"))
_add(Rule(Fold.NEVER), *_methods("cumsum prod std var norm logsumexp count_nonzero max min topk sort"))
_add(
    Rule(Fold.NEVER),
    *(F.cross_entropy, F.nll_loss, F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.kl_div),
    *(F.binary_cross_entropy, F.binary_cross_entropy_with_logits, F.cosine_similarity),
)
_add(Rule(Fold.NEVER), F.multi_margin_loss, F.instance_norm, F.scaled_dot_product_attention, torch.cdist)
_add(Rule(Fold.NEVER), F.lp_pool1d, F.lp_pool2d)
MAKERS: set[Any] = {
    *(torch.zeros, torch.ones, torch.full, torch.empty, torch.arange, torch.eye, torch.linspace, torch.full_like),
    *(T.new_zeros, T.new_ones, T.new_full, T.new_empty, torch.empty_like, torch.zeros_like, torch.ones_like),
}
"""Operations whose results depend on no values."""

_add(Rule(Fold.NEVER), *MAKERS - RULES.keys())
_add(Rule(Fold.SELECT, view=True), T.__getitem__)
_add(Rule(Fold.UNBIND, view=True), T.unbind, torch.unbind)
_add(Rule(Fold.WRITE, scalars=True), T.__setitem__)
_add(Rule(Fold.ROWS), F.batch_norm)

UPDATES = Rule(Fold.ORDERED)
"""Of a batch norm in training."""

_IN_PLACE = (
    "add sub mul div clamp clamp_min clamp_max neg abs relu sigmoid tanh exp masked_fill round floor sign sqrt pow "
    "lerp detach square logical_and logical_or logical_not eq ne gt lt ge le"
)
INPLACE.update({getattr(T, f"{name}_"): getattr(T, name) for name in _IN_PLACE.split() if hasattr(T, f"{name}_")})
INPLACE[T.zero_] = torch.zeros_like

FLAGGED: dict[Any, int] = {}
"""Activations that work in place if an argument says so, and its place."""
for _func in RULES:
    _code = getattr(_func, "__code__", None)
    if _code is not None and "inplace" in _code.co_varnames[: _code.co_argcount]:
        FLAGGED[_func] = _code.co_varnames.index("inplace")

DROPOUT: set[Any] = {
    F.dropout,
    F.dropout1d,
    F.dropout2d,
    F.dropout3d,
    torch.dropout,
}

_READS = (
    "shape dtype device ndim requires_grad is_cuda is_cpu is_meta layout is_sparse is_quantized is_complex itemsize "
    "nbytes is_mps is_xpu names is_mkldnn is_nested is_floating_point"
)
for _name in _READS.split():
    _found: Any = getattr(T, _name, None)
    READS.add(_found.__get__ if hasattr(_found, "__get__") and not callable(_found) else _found)
_CALLED = (
    "size dim stride numel nelement ndimension is_floating_point is_complex is_contiguous __len__ is_signed "
    "element_size get_device storage_offset is_inference"
)
READS.update(getattr(T, name) for name in _CALLED.split())
READS.update((torch.is_floating_point, torch.is_complex, torch.numel, set_grad_enabled))
READS.discard(None)

_DRAWS = "rand randn randint bernoulli normal poisson multinomial rand_like randn_like randint_like randperm tensor"
DRAWS.update(_methods(_DRAWS))
DRAWS.update(
    (
        torch.as_tensor,
        torch.from_numpy,
        T.new_tensor,
        F.gumbel_softmax,
        F.alpha_dropout,
        F.rrelu,
    )
)

LIKE: set[Any] = {torch.rand_like, torch.randn_like, torch.randint_like}
"""Draws that need no values of their argument."""

READERS: set[Any] = set(_methods("item is_nonzero equal allclose"))
"""Operations that read values, and change nothing."""
READERS.update((T.__bool__, T.__float__, T.__int__, T.__index__, T.tolist, T.__repr__, T.__format__, T.__contains__))

INDEXED = (Fold.SELECT, Fold.WRITE)
"""Where integers are places in a dimension, which differ from call to call."""


def name_of(func: Any) -> str:
    """The name of an operation, as users write it."""
    name = getattr(func, "__name__", type(func).__name__)
    owner = getattr(func, "__self__", None)  # of a getter, the attribute
    return str(getattr(owner, "__name__", name)) if name == "__get__" else str(name)


def is_plain_slice(part: Any) -> bool:
    """Whether a part of an index selects a whole dimension."""
    return isinstance(part, slice) and part == slice(None)


def selected_dim(index: Any) -> int | None:
    """The dimension of x from which ``x[index]`` takes one slice; None if the index is of another kind."""
    if type(index) is int:
        return 0
    if type(index) is not tuple or sum(type(part) is int for part in index) != 1:
        return None
    dim = next(i for i, part in enumerate(index) if type(part) is int)
    return dim if all(map(is_plain_slice, index[:dim] + index[dim + 1 :])) else None


def overwrites(args: Any, kwargs: Any) -> bool:
    """Whether the arguments of an operation that draws tell it to write into a tensor that exists."""
    return bool(kwargs.get("out") is not None or kwargs.get("inplace") or (len(args) > 3 and args[-1] is True))


def tensors_in(tree: Any) -> Iterable[Tensor]:
    """The tensors in arguments or results."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for branch in tree:
            yield from tensors_in(branch)
    elif isinstance(tree, dict):
        for branch in tree.values():
            yield from tensors_in(branch)
