"""How a layer made of many calls is seen as one by those who watch torch's calls, such as a static unroll."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary


def as_one(function: Callable[..., Tensor], x: Tensor, *rest: Any) -> Tensor:
    """function(x, *rest), in which a torch function mode sees one call."""
    if has_torch_function_unary(x):
        return handle_torch_function(function, (x,), x, *rest)
    return function(x, *rest)
