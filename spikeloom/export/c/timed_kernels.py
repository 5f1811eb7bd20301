"""The functions of layers that remember steps before, in C: delays, and a norm per step."""

from .form import function, indented, loop
from .kernels import Types, visit
from .layers import Delay, DelayedLinear, Layer, StepScale


def _head(layer: Layer, types: Types, prefix: str) -> str:
    return f"static void {layer.name}(struct {prefix} *net, const {types.x} *x, {types.y} *y)"


def delay(layer: Delay, types: Types, prefix: str) -> list[str]:
    """A delay of each element: a ring of the last inputs."""
    past, now = (f"net->{array.name}" for array in layer.kept)
    size, steps = layer.y.size, layer.steps
    lags = layer.lag.flatten()
    lag = str(int(lags[0])) if bool((lags == lags[0]).all()) else f"{layer.name}_lag[n]"
    each = [
        f"const int then = (now + {steps} - {lag}) % {steps};",
        f"{past}[now * {size} + n] = x[n];",
        f"y[n] = {past}[then * {size} + n];",
    ]
    body = [f"const int now = {now};", *loop("n", size, each), f"{now} = (now + 1) % {steps};"]
    return function(_head(layer, types, prefix), body)


def delayed_linear(layer: DelayedLinear, types: Types, prefix: str) -> list[str]:
    """A weight and a delay of each connection: an input adds its weights to the sums of the steps when it is due."""
    due, now = (f"net->{array.name}" for array in layer.kept)
    outputs, inputs = layer.weight.shape
    each = [
        f"const int then = ({now} + {layer.name}_lag[i][o]) % {layer.steps};",
        f"{due}[then * {outputs} + o] += {layer.name}_weight[i][o] * x;",
    ]
    head = f"static void {layer.name}_add(struct {prefix} *net, int i, {types.y} x)"
    start = "" if types.start == "0" else f"{types.start} + "
    body = [
        *visit(layer, inputs, "net"),
        "",
        f"{types.y} *due = {due} + {now} * {outputs};",
        *loop("o", outputs, [f"y[o] = {start}due[o];", "due[o] = 0;"]),
        *types.finish,
        f"{now} = ({now} + 1) % {layer.steps};",
    ]
    return [*function(head, loop("o", outputs, each)), *function(_head(layer, types, prefix), body)]


def step_scale(layer: StepScale, types: Types, prefix: str, value: str) -> list[str]:
    """A factor and a shift per channel `c`, those of row `k` of the tables; `value` is the result for `x[n]`."""
    channels, step = layer.y.shape[0], f"net->{layer.kept[0].name}"
    each, last = layer.y.size // channels, len(layer.scale) - 1
    inner = [f"y[c] = {value.replace('x[n]', 'x[c]')};"]
    if each > 1:
        inner = loop("n", f"(c + 1) * {each}", [f"y[n] = {value};"], first=f"c * {each}")
    advance = [f"if ({step} < {last})", *indented([f"{step}++;"])] if last else []
    row = step if last else "0"
    return function(_head(layer, types, prefix), [f"const int k = {row};", *loop("c", channels, inner), *advance])
