"""A property of the name of an entry in `__dict__`, as neurons have for their states, under torch.compile."""

import torch
from torch import nn

from spikeloom import _torch


@_torch.constant_for_compiler
def compiles_dict():
    return _torch.compiles_dict(Stored.state.fget)


class Stored(nn.Module):
    def __init__(self):
        super().__init__()
        self.__dict__["state"] = torch.zeros(1)

    @property
    def state(self):
        if torch.compiler.is_dynamo_compiling() and not compiles_dict():
            return super().__getattribute__("state")
        return self.__dict__["state"]

    def forward(self, x):
        self.__dict__["state"] = self.state + x
        return self.state


def test_a_property_over_the_dict():
    compiled = torch.compile(Stored(), backend="eager", fullgraph=True)
    assert [compiled(torch.ones(1)).item() for _ in range(3)] == [1, 2, 3]
