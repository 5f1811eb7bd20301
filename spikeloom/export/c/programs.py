"""The programs in a generated file: one that reads samples, and one that tests."""

from dataclasses import dataclass

from torch import Tensor

from .form import comment, function, indented, loop, table
from .layers import Array, Network


@dataclass(frozen=True)
class Sample:
    """What the generated test compares.

    Args:
        x: inputs, [samples, INPUTS] if they are the same at every step, else [samples, steps, INPUTS].
        y: the outputs, [samples, steps, OUTPUTS].
    """

    x: Tensor
    y: Tensor


class Programs:
    """Writes both programs.

    Attributes:
        network: the network.
        prefix, upper: of all names that other files see, and in capitals.
        steps: the number of steps of a static input; None if each step has its own input.
        length: the number of steps of the example.
        sample: what the test compares.
    """

    network: Network
    prefix: str
    upper: str
    steps: int | None
    length: int
    sample: Sample

    def ctype(self, array: Array) -> str:
        """The type of the values of an array."""
        raise NotImplementedError

    def literal(self, value: float, array: Array) -> str:
        """A number of an array."""
        raise NotImplementedError

    @property
    def total(self) -> str:
        """The type of sums over time."""
        raise NotImplementedError

    def read_value(self) -> list[str]:
        """Lines that turn the number `value` that was read into input `n` of `x`."""
        raise NotImplementedError

    def main(self) -> list[str]:
        """A program that reads samples and prints the sums of the outputs."""
        p, u, net = self.prefix, self.upper, self.network
        size = f"{u}_INPUTS" if self.steps is not None else f"{u}_STEPS * {u}_INPUTS"
        value_type, scan = self.value
        show = "%g" if self.total in ("float", "double") else "%ld"
        cast = "" if show == "%g" else "(long)"
        body = [
            f"static struct {p} {p}_state;",
            f"static {self.ctype(net.x)} x[{size}];",
            f"{self.total} total[{u}_OUTPUTS];",
            "for (;;) {",
            *indented(
                [
                    *loop(
                        "n",
                        size,
                        [
                            f"{value_type} value;",
                            f'if (scanf("{scan}", &value) != 1)',
                            "    return n != 0;",
                            *self.read_value(),
                        ],
                    ),
                    f"{p}_run(&{p}_state, x, {u}_STEPS, total);",
                    *loop("k", f"{u}_OUTPUTS", [f'printf("{show} ", {cast}total[k]);']),
                    'printf("\\n");',
                ]
            ),
            "}",
        ]
        rows_of_input = f"{'one row' if self.steps is not None else f'{self.length} rows'} of {net.x.size} numbers"
        lines = comment([f"Reads samples, {rows_of_input} each, and prints the sum of each output over all steps."])
        return [
            f"#ifdef {u}_MAIN",
            "#include <stdio.h>",
            "",
            *lines,
            *function("int main(void)", body)[:-1],
            "#endif",
            "",
        ]

    @property
    def value(self) -> tuple[str, str]:
        """The type of a number that is read, and its format."""
        return "float", "%f"

    def test(self) -> list[str]:
        """A program that compares the outputs for the samples with those of the library, step by step and as sums."""
        p, u, net = self.prefix, self.upper, self.network
        x, y = self.sample.x, self.sample.y
        binary = bool(((y == 0) | (y == 1)).all())
        y_type = "unsigned char" if binary else self.ctype(net.y)
        rows = 1 if self.steps is not None else y.shape[1]
        x_head = f"static const {self.ctype(net.x)} {p}_test_x[{len(x)}][{rows * net.x.size}]"
        y_head = f"static const {y_type} {p}_test_out[{len(x)}][{y.shape[1] * net.y.size}]"
        xs = [self.literal(v, net.x) for v in x.flatten().tolist()]
        ys = [str(int(v)) if binary else self.literal(v, net.y) for v in y.flatten().tolist()]
        at = f"[step * {u}_OUTPUTS + k]"
        same = "x" if self.steps is not None else f"x + step * {u}_INPUTS"
        body = [
            f"static struct {p} {p}_state;",
            "long differ = 0;",
            *loop(
                "s",
                len(x),
                [
                    f"const {self.ctype(net.x)} *x = {p}_test_x[s];",
                    f"{p}_reset(&{p}_state);",
                    *loop(
                        "step",
                        y.shape[1],
                        [
                            f"const {self.ctype(net.y)} *out = {p}_step(&{p}_state, {same});",
                            *loop(
                                "k",
                                f"{u}_OUTPUTS",
                                [f"differ += {self.differs('out[k]', f'{p}_test_out[s]{at}', binary)};"],
                            ),
                        ],
                    ),
                    *(self._sums(y.shape[1]) if binary else []),
                ],
            ),
            f'printf("%ld of {y.numel()} outputs differ\\n", differ);',
            "return differ != 0;",
        ]
        return [
            f"#ifdef {u}_TEST",
            "#include <stdio.h>",
            "",
            *comment([f"{len(x)} samples, and the outputs of the library for them."]),
            *table(x_head, xs, (len(x), rows * net.x.size)),
            *table(y_head, ys, (len(x), y.shape[1] * net.y.size)),
            *function("int main(void)", body)[:-1],
            "#endif",
            "",
        ]

    def _sums(self, steps: int) -> list[str]:
        p, u = self.prefix, self.upper
        each = [
            "long sum = 0;",
            *loop("step", steps, [f"sum += {p}_test_out[s][step * {u}_OUTPUTS + k];"]),
            f"differ += total[k] != ({self.total})sum;",
        ]
        return [
            f"{self.total} total[{u}_OUTPUTS];",
            f"{p}_run(&{p}_state, x, {steps}, total);",
            *loop("k", f"{u}_OUTPUTS", each),
        ]

    def differs(self, out: str, want: str, binary: bool) -> str:
        """The condition under which an output is wrong."""
        return f"{out} != {want}"
