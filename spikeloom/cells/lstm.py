"""Long short-term memory cell whose output is a membrane, which fires above a threshold.

The four inputs are the pre-activations of the gates, including the part from the previous membrane. The two functions
expect the two gate orders that checkpoints use.
"""

from .. import ops
from ..ops import Value
from .firing import Model
from .linear import Nearest


def lstm(x: tuple[Value, ...], syn: Value, mem: Value) -> tuple[Value, ...]:
    """syn' = sigmoid(f) * syn + sigmoid(i) * tanh(g);  mem' = sigmoid(o) * tanh(syn')."""
    i, f, g, o = x
    syn = ops.sigmoid(f) * syn + ops.sigmoid(i) * ops.tanh(g)
    return syn, ops.sigmoid(o) * ops.tanh(syn)


def conv_lstm(x: tuple[Value, ...], syn: Value, mem: Value) -> tuple[Value, ...]:
    """The LSTM cell with inputs in the order i, f, o, g, as in snnTorch's SConv2dLSTM."""
    i, f, o, g = x
    return lstm((i, f, g, o), syn, mem)


LINEARIZED = Nearest("a leaky integrator that feeds itself, with the gates at their values without input")
LSTM = Model(lstm, inputs=4, nearest=LINEARIZED)
CONV_LSTM = Model(conv_lstm, inputs=4, nearest=LINEARIZED)
