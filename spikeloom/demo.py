"""`python -m spikeloom demo`: train a small network on handwritten digits, time it, and plot its activity."""

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import spikeloom as snn

STEPS = 25
BATCH = 64
HIDDEN = 256
BETA = 0.9
RATE = 0.01
"""The maximum learning rate of a one-cycle schedule."""
COMPARED = 15
"""Number of batches that are timed for each method."""
PICTURED = 20
"""Index of the test digit in the plot."""


class CannotRun(Exception):
    """The demo cannot run with these arguments or packages; the message says why, and how to fix it."""


NEEDED: Mapping[str, str] = {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "tqdm": "tqdm"}


@dataclass(frozen=True)
class Digits:
    """The 1,797 digits that scikit-learn includes, 8 x 8 pixels from 0 to 1, in a fixed split."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


@dataclass(frozen=True)
class Training:
    """Results of the training: the accuracy after each epoch, and the total time in seconds."""

    train: list[float]
    test: list[float]
    seconds: float


def demo(out: Path, epochs: int, seed: int) -> int:
    """Train, report, plot."""
    check_extras()
    if epochs < 1:
        raise CannotRun(f"--epochs got {epochs}; pass at least 1")
    if out.suffix.lower() != ".png" or not out.resolve().parent.is_dir():
        raise CannotRun(f"--out got {out}; pass the path of a .png file in an existing folder")
    digits = load()
    torch.manual_seed(seed)
    net = network()
    print(f"training on {len(digits.train)} handwritten digits, testing on {len(digits.test)} others")
    training = train(net, digits, epochs)
    rounds = f"{epochs} epoch{'s' * (epochs > 1)}, {STEPS} time steps per digit, {torch.get_num_threads()} threads"
    print(f"test accuracy   {training.test[-1]:.1%} (seed {seed})")
    print(f"training time   {training.seconds:.1f} s ({rounds})")
    print(f"\n{speed(net, digits)}")
    print(f"\n{snn.explain(net, digits.test, steps=STEPS)}\n")
    draw(net, digits, training, out)
    print(f"plot            {out.resolve()}")
    return 0


def check_extras() -> None:
    """Raise `CannotRun` if a package is missing, before any work is done."""
    missing = [name for module, name in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise CannotRun(f"the demo needs {', '.join(missing)}; install with: pip install {' '.join(missing)}")


# -- training --------------------------------------------------------------------------------------


def load() -> Digits:
    """Load the digits: four fifths to train, one fifth to test, stratified by digit."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, labels, test_size=360, stratify=labels, random_state=0)
    train, test, train_labels, test_labels = parts
    pixels = (torch.tensor(part, dtype=torch.float32) for part in (train, test))
    classes = (torch.tensor(part) for part in (train_labels, test_labels))
    (seen, unseen), (seen_labels, unseen_labels) = pixels, classes
    return Digits(seen, seen_labels, unseen, unseen_labels)


def network() -> nn.Sequential:
    """64 pixels, 256 hidden neurons, 10 output neurons; the one that fires most is the prediction."""
    return nn.Sequential(
        nn.Linear(64, HIDDEN),
        snn.Leaky(beta=BETA, init_hidden=True),
        nn.Linear(HIDDEN, 10),
        snn.Leaky(beta=BETA, init_hidden=True, output=True),
    )


def unrolled(net: nn.Module, x: Tensor) -> Tensor:
    """Spikes [T, B, 10] of a static input, all steps at once."""
    snn.utils.reset(net)
    spk: Tensor = snn.unroll(net, x, steps=STEPS)[0]
    return spk


def stepped(net: nn.Module, x: Tensor) -> Tensor:
    """Run the network by a loop over the steps."""
    snn.utils.reset(net)
    return torch.stack([net(x)[0] for _ in range(STEPS)])


def loss_of(spk: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the spike counts."""
    return nn.functional.cross_entropy(spk.sum(0), labels)


def train(net: nn.Module, digits: Digits, epochs: int) -> Training:
    """Train by Adam over shuffled batches, with a progress bar."""
    from tqdm import tqdm

    begun = time.perf_counter()
    batches = -(-len(digits.train) // BATCH)
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * batches)
    seen: list[float] = []
    unseen: list[float] = []
    with tqdm(total=epochs * batches, desc="training", unit="batch") as bar:
        for _ in range(epochs):
            right = 0
            for rows in torch.randperm(len(digits.train)).split(BATCH):
                labels = digits.train_labels[rows]
                spk = unrolled(net, digits.train[rows])
                update(optimizer, loss_of(spk, labels))
                schedule.step()
                right += correct(spk, labels)
                bar.update()
            seen.append(right / len(digits.train))
            with torch.no_grad():
                unseen.append(correct(unrolled(net, digits.test), digits.test_labels) / len(digits.test))
            bar.set_postfix_str(f"test accuracy {unseen[-1]:.1%}")
    return Training(seen, unseen, time.perf_counter() - begun)


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Make one optimizer step."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def correct(spk: Tensor, labels: Tensor) -> int:
    """Number of correct predictions, by the neuron that fired most."""
    return int((spk.detach().sum(0).argmax(1) == labels).sum())


def speed(net: nn.Module, digits: Digits) -> str:
    """Time the same training batch by `unroll` and by a loop over steps, interleaved, on copies of the network."""
    x, labels = digits.train[:BATCH], digits.train_labels[:BATCH]

    def batch(forward: Callable[[nn.Module, Tensor], Tensor]) -> Callable[[], None]:
        copied = copy.deepcopy(net)
        optimizer = torch.optim.Adam(copied.parameters(), lr=RATE)

        def run() -> None:
            update(optimizer, loss_of(forward(copied, x), labels))

        return run

    runs = {"unroll": batch(unrolled), "loop": batch(stepped)}
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(2 + COMPARED):  # interleaved; the first two are warmup
        for name, run in runs.items():
            begun = time.perf_counter()
            run()
            samples[name].append(time.perf_counter() - begun)
    took = {name: 1e3 * statistics.median(seconds[2:]) for name, seconds in samples.items()}
    return (
        f"one training batch of {BATCH} digits, same results (medians of {COMPARED} interleaved runs):\n"
        f"  snn.unroll       {took['unroll']:>6.1f} ms   {took['loop'] / took['unroll']:.1f}x as fast\n"
        f"  loop over steps  {took['loop']:>6.1f} ms"
    )


# -- the plot --------------------------------------------------------------------------------------

INK, SOFT, FAINT = "#22272e", "#6b7480", "#d9dde2"
NEURONS = ("#4477aa", "#ee6677", "#228833", "#b8860b", "#56b4e9", "#aa3377", "#7f7f7f", "#ee8833", "#44aa99", "#332288")
"""One color per output neuron, distinguishable for color-blind readers."""

LOOK: Any = {
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
}


def draw(net: nn.Sequential, digits: Digits, training: Training, out: Path) -> None:
    """Plot three panels: the spikes of both layers, the output membranes, the accuracy."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    image, label = digits.test[PICTURED], int(digits.test_labels[PICTURED])
    with torch.no_grad(), snn.tap(net) as seen:
        unrolled(net, image[None])
    spikes = seen["3"].spk[:, 0]
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(13, 8))
        FigureCanvasAgg(figure)  # no window, whatever the user's backend
        left = figure.add_gridspec(
            2, 1, height_ratios=(2.5, 1), hspace=0.06, left=0.06, right=0.48, top=0.81, bottom=0.08
        )
        right = figure.add_gridspec(
            2, 1, height_ratios=(1.15, 1), hspace=0.42, left=0.56, right=0.9, top=0.81, bottom=0.08
        )
        hidden = figure.add_subplot(left[0])
        output = figure.add_subplot(left[1], sharex=hidden)
        draw_head(figure, image, label, spikes)
        draw_hidden(hidden, seen["1"].spk[:, 0])
        draw_output(output, spikes)
        figure.align_ylabels((hidden, output))
        draw_membranes(figure.add_subplot(right[0]), seen["3"].mem[:, 0], label)
        draw_accuracy(figure.add_subplot(right[1]), training)
        figure.savefig(out, dpi=150)


def draw_head(figure: Any, image: Tensor, label: int, spikes: Tensor) -> None:
    """Plot the digit, and the caption."""
    inset = figure.add_axes((0.06, 0.87, 0.06, 0.0975))
    inset.imshow(image.reshape(8, 8).numpy(), cmap="gray_r")
    inset.set(xticks=[], yticks=[])
    inset.spines[:].set(visible=True, color=FAINT)
    counts = [int(n) for n in spikes.sum(0)]
    answer = max(range(10), key=counts.__getitem__)
    figure.text(0.135, 0.93, f"A handwritten {label}, seen by spiking neurons", fontsize=17, weight="bold", va="center")
    size = f"{HIDDEN} hidden and 10 output neurons over {STEPS} time steps"
    text = f"{size}; the neuron of digit {answer} fires most: {counts[answer]} times"

    figure.text(0.135, 0.89, text, fontsize=11, color=SOFT, va="center")


def draw_hidden(axes: Any, spikes: Tensor) -> None:
    """Plot a tick per spike and a row per neuron that fires, in the order of the first spike."""
    fired = spikes[:, spikes.any(0)]
    order = fired.argmax(0).argsort(stable=True)
    steps, rows = (where.tolist() for where in fired[:, order].nonzero(as_tuple=True))
    axes.vlines([t + 1 for t in steps], [n - 0.42 for n in rows], [n + 0.42 for n in rows], color=INK, linewidth=3.2)
    title = f"Spikes: {len(order)} of {HIDDEN} hidden neurons fire"
    axes.set(title=title, ylabel="hidden neurons, first to fire on top", ylim=(len(order) - 0.2, -0.8), yticks=[])
    axes.tick_params(axis="x", labelbottom=False, length=0)
    axes.spines["bottom"].set_color(FAINT)


def draw_output(axes: Any, spikes: Tensor) -> None:
    """Plot a row per output neuron, in its color."""
    for digit, color in enumerate(NEURONS):
        axes.axhline(digit, color=FAINT, linewidth=0.6, zorder=0)
        fired = (spikes[:, digit].nonzero().flatten() + 1).tolist()
        axes.vlines(fired, digit - 0.38, digit + 0.38, color=color, linewidth=3.2)
    axes.set(xlabel="time step", ylabel="output neurons", yticks=range(10), ylim=(9.6, -0.6), xlim=(0.3, STEPS + 0.7))
    axes.set_xticks([1, *range(5, STEPS + 1, 5)])
    axes.tick_params(axis="y", length=0, labelsize=8)
    for tick, color in zip(axes.get_yticklabels(), NEURONS, strict=True):
        tick.set_color(color)


def draw_membranes(axes: Any, membranes: Tensor, label: int) -> None:
    """Plot the membrane of each output neuron; that of the true digit is emphasized."""
    steps = range(1, STEPS + 1)
    for digit, color in enumerate(NEURONS):
        strong = digit == label
        line = {"linewidth": 2.8, "zorder": 3} if strong else {"linewidth": 1.3, "alpha": 0.85}
        axes.plot(steps, membranes[:, digit].tolist(), color=color, label=str(digit), **line)
    axes.axhline(1, color=INK, linewidth=1.1, linestyle=(0, (5, 3)), label="threshold", zorder=2)
    axes.set(
        title="Membranes of the output neurons",
        xlabel="time step",
        ylabel="membrane (threshold = 1)",
        xlim=(0.3, STEPS + 0.7),
    )
    axes.set_xticks([1, *range(5, STEPS + 1, 5)])
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.03), fontsize=9, handlelength=1.6, title="neuron")
    legend.get_title().set_fontsize(9)


def draw_accuracy(axes: Any, training: Training) -> None:
    """Plot the accuracy per epoch, for training and test digits."""
    epochs = range(1, len(training.test) + 1)
    for name, values, color in (("train, during the epoch", training.train, SOFT), ("test", training.test, NEURONS[0])):
        axes.plot(epochs, [100 * v for v in values], color=color, label=name, linewidth=2.2, marker="o", markersize=4)
    title = f"Accuracy: {training.test[-1]:.1%} of the test digits after {len(epochs)} epochs"
    axes.set(title=title, xlabel="epoch", ylabel="accuracy in %")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.legend(loc="lower right")
