"""The spiking LSTM: a long short-term memory whose hidden state is a membrane."""

from .. import ops
from ..ops import Value
from .firing import Model, States


def lstm(gates: tuple[Value, Value, Value, Value], syn: Value, mem: Value) -> States:
    """syn' = sigmoid(f) * syn + sigmoid(i) * tanh(g);  mem' = sigmoid(o) * tanh(syn').

    The gates i, f, g, o are what a layer makes of input and membrane.
    """
    i, f, g, o = gates
    syn = ops.sigmoid(f) * syn + ops.sigmoid(i) * ops.tanh(g)
    return syn, ops.sigmoid(o) * ops.tanh(syn)


LSTM = Model(lstm)
