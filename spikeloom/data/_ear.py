"""Sound to spikes by a model of the inner ear: basilar membrane, hair cells, bushy cells."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ._events import EVENT, Events

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BasilarMembrane:
    """The basilar membrane as a wave guide in an incompressible fluid, solved by the Liouville-Green approximation.

    The wave number k(x, w) at place x and angular frequency w solves

        k h tanh(k h) = 2 rho h w^2 / (S(x) - m w^2 + i w R(x)),   S = C0 exp(-alpha x) - a,   R = R0 exp(-alpha x / 2)

    and the velocity of the membrane is proportional to

        k tanh(k h) / sqrt(k h (1 - tanh(k h)^2) + tanh(k h)) exp(-i integral of k from 0 to x)

    (de Boer and Viergever 1982; Sieroka et al. 2006; Cramer et al. 2020). Each channel is divided by its largest gain.

    Args:
        stiffness: C0, in g s^-2 cm^-2.
        offset: a, in the same unit.
        alpha: decay of the stiffness, in 1 / cm.
        damping: R0, in g s^-1 cm^-2.
        mass: m, in g cm^-2.
        density: rho of the fluid, in g cm^-3.
        height: h of the canal, in cm.
    """

    stiffness: float = 1e9
    offset: float = 0.0
    alpha: float = 3.0
    damping: float = 200.0
    mass: float = 0.05
    density: float = 1.0
    height: float = 0.1

    def places(self, low: float, high: float, channels: int) -> Floats:
        """Places in cm, evenly spaced, whose resonances go from `high` (base) to `low` (apex) hertz."""
        if not 0 < low < high:
            raise ValueError(f"low is {low:g} Hz and high is {high:g} Hz; low must be above 0 and below high")
        ends = [self.mass * (2 * math.pi * f) ** 2 + self.offset for f in (high, low)]
        first, last = (-math.log(end / self.stiffness) / self.alpha for end in ends)
        if not 0 <= first < last:
            raise ValueError(f"the membrane has no places for {low:g} to {high:g} Hz; its base resonates at less")
        return np.linspace(first, last, channels)

    def gains(self, places: Floats, frequencies: Floats) -> NDArray[np.complex128]:
        """The complex gain of every place at every frequency in hertz, ``[channels, frequencies]``."""
        omega: Floats = 2 * math.pi * np.maximum(frequencies, 1.0)
        grid = np.unique(np.concatenate([np.linspace(0, places[-1], 256), places]))
        phase, wave, before = np.zeros(len(omega), np.complex128), np.zeros(len(omega), np.complex128), 0.0
        gains = np.empty((len(places), len(omega)), np.complex128)
        wanted = iter(enumerate(places))
        channel, place = next(wanted)
        for x in grid:
            stiffness, damping = self.stiffness * math.exp(-self.alpha * x) - self.offset, self.damping
            impedance = stiffness - self.mass * omega**2 + 1j * omega * damping * math.exp(-self.alpha * x / 2)
            right = 2 * self.density * self.height * omega**2 / impedance
            kh = _wave_number(np.asarray(right, np.complex128))
            phase, wave, before = phase + (x - before) * (kh + wave) / (2 * self.height), kh, x
            while place == x:
                tanh = np.tanh(kh)
                gains[channel] = right / np.sqrt(kh * (1 - tanh**2) + tanh) * np.exp(-1j * phase)
                channel, place = next(wanted, (0, math.nan))
        gains[:, frequencies == 0] = 0  # constant pressure causes no movement
        largest: NDArray[np.complex128] = gains / np.abs(gains).max(1, keepdims=True)
        return largest


def _wave_number(right: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """The root of k tanh(k) = right that travels to the apex and decays, by Newton's method.

    Before the resonance a wave is long (k^2 = right) or short (k = right). Past it, where right is negative, there are
    evanescent modes. The first decays least, and has k between 0 and -i pi / 2.
    """
    size = np.abs(right)
    behind = -1j * np.minimum(np.sqrt(size), np.pi / 2 * size / (1 + size))
    k = np.where(right.real < 0, behind, np.where(size < 1, np.sqrt(right), right))
    for _ in range(8):
        tanh = np.tanh(k)
        step = (k * tanh - right) / (tanh + k * (1 - tanh**2))
        k = k - step * np.minimum(1, 0.5 * np.maximum(np.abs(k), 0.5) / np.maximum(np.abs(step), 1e-12))
    k = np.where(k.real < 0, -k, k)
    decaying: NDArray[np.complex128] = k.real + 1j * np.minimum(k.imag, 0)
    return decaying


@dataclass(frozen=True)
class HairCell:
    """Inner hair cell: the adapting transmitter pools of Meddis (1986), and the resulting firing rate.

        k = g max(s + A, 0) / (max(s + A, 0) + B)                     permeability, s the velocity of the membrane
        q' = y (M - q) + x w - k q;  c' = k q - (l + r) c;  w' = r c - x w;  rate = h c

    Args:
        A: offset of the permeability.
        B: its half-saturation.
        g: release, per second.
        y: replenishment, per second.
        l: loss, per second.
        r: recovery, per second.
        x: reprocessing, per second.
        h: spikes per second and transmitter in the cleft.
    """

    A: float = 5.0
    B: float = 300.0
    g: float = 2000.0
    y: float = 5.05
    l: float = 2500.0  # noqa: E741
    r: float = 6580.0
    x: float = 66.31
    h: float = 50000.0

    def at_rest(self) -> tuple[float, float, float]:
        """Free, cleft and reprocessed transmitter in silence: q, c, w."""
        k = self.g * self.A / (self.A + self.B)
        c = self.y * k / (self.l * k + self.y * (self.l + self.r))
        return c * (self.l + self.r) / k, c, c * self.r / self.x


@dataclass(frozen=True)
class BushyCell:
    """Bushy cell: a leaky integrate-and-fire neuron that receives the spikes of the hair cells of a channel.

        mem' = exp(-dt / tau) mem + weight (number of hair-cell spikes);  a spike at mem' > 1, then silence

    It removes the spontaneous activity of single hair cells and sharpens the phase of their spikes.

    Args:
        hair_cells: number of hair cells per channel; 40 in Cramer et al.
        weight: of each of their spikes.
        tau: time constant of the membrane, in seconds.
        refractory: silence after a spike, in seconds.
    """

    hair_cells: int = 40
    weight: float = 1 / 8
    tau: float = 1e-3
    refractory: float = 1e-3


@overload
def inner_ear(audio: list[Any], sample_rate: float, channels: int = 700, **options: Any) -> list[Events]: ...
@overload
def inner_ear(audio: ArrayLike | torch.Tensor, sample_rate: float, channels: int = 700, **options: Any) -> Events: ...
def inner_ear(audio: Any, sample_rate: float, channels: int = 700, **options: Any) -> Any:
    """Convert sound to spikes by a model of the inner ear, with the stages of Cramer et al. 2020 (SHD and SSC).

    The sound is scaled to a level and moves the `BasilarMembrane`. Its velocity in each channel drives the `HairCell`,
    whose spikes drive a `BushyCell`. The result has the format of SHD: ``sensor_size=(700,)``, channel 0 at the base
    (high frequencies). The default constants are common values from the literature, not verified against SHD.

    Args:
        audio: samples ``[n]``; or a list of recordings, which are computed together and faster.
        sample_rate: in hertz.
        channels: number of bushy cells.
        low: resonance of the last channel, in hertz. Default: 100.
        high: resonance of the first, in hertz. Default: 0.45 times the sample rate, at most 8000.
        level: of the sound, in dB; its RMS is 10^((level - 30) / 20) in the units of Meddis. Default: 65.
        membrane: `BasilarMembrane`.
        hair_cell: `HairCell`.
        bushy_cell: `BushyCell`.
        generator: of torch, for the spikes of the hair cells. Default: torch's global one.

    Returns:
        Structured array of events, times in microseconds; or a list of them. In silence a bushy cell fires rarely.

    Raises:
        ValueError: if a recording is not one-dimensional, or not finite.
        TypeError: on an unknown option.
    """
    many = isinstance(audio, list) and not (audio and np.ndim(audio[0]) == 0)
    recordings = [np.asarray(samples, np.float64) for samples in (audio if many else [audio])]
    for samples in recordings:
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise ValueError(f"inner_ear takes finite samples [n] per recording, got shape {samples.shape}")
    if sample_rate <= 0 or channels < 1:
        raise ValueError(f"sample_rate is {sample_rate}, channels is {channels}; pass positive numbers")
    spikes = _ear(recordings, float(sample_rate), channels, **options)
    return spikes if many else spikes[0]


def _ear(
    recordings: list[Floats],
    sample_rate: float,
    channels: int,
    *,
    low: float = 100.0,
    high: float | None = None,
    level: float = 65.0,
    membrane: BasilarMembrane = BasilarMembrane(),
    hair_cell: HairCell = HairCell(),
    bushy_cell: BushyCell = BushyCell(),
    generator: torch.Generator | None = None,
) -> list[Events]:
    high = min(0.45 * sample_rate, 8000.0) if high is None else high
    finer = max(1, math.ceil(16000 / sample_rate))  # the pools need steps below 1 / (l + r)
    longest = max(map(len, recordings), default=0)
    if not longest:
        return [np.empty(0, EVENT) for _ in recordings]
    padded = 2 ** math.ceil(math.log2(longest + sample_rate / 20))  # 50 ms for the wave to decay
    gains = _gains(membrane, low, high, channels, padded, sample_rate)
    velocity = np.empty((longest * finer, len(recordings), channels), np.float32)
    for i, samples in enumerate(recordings):
        rms = math.sqrt(np.mean(samples**2)) if len(samples) else 0.0
        scaled = samples * (10 ** ((level - 30) / 20) / rms if rms else 0.0)
        moved = np.fft.irfft(np.fft.rfft(scaled, padded) * gains, padded * finer) * finer
        velocity[:, i] = moved[:, : longest * finer].T
    seed = int(torch.randint(2**62, (), generator=generator))
    fired = _fire(velocity, 1 / (sample_rate * finer), hair_cell, bushy_cell, np.random.default_rng(seed))
    spikes = []
    for i, samples in enumerate(recordings):
        step, channel = np.nonzero(fired[: len(samples) * finer, i])
        events = np.empty(len(step), EVENT)
        events["t"] = np.rint(step * (1e6 / (sample_rate * finer)))
        events["x"], events["y"], events["p"] = channel, 0, True
        spikes.append(events)
    return spikes


@lru_cache(maxsize=1)  # hundreds of megabytes for long recordings
def _gains(
    membrane: BasilarMembrane, low: float, high: float, channels: int, length: int, sample_rate: float
) -> NDArray[np.complex128]:
    return membrane.gains(
        membrane.places(low, high, channels), np.asarray(np.fft.rfftfreq(length, 1 / sample_rate), np.float64)
    )


def _fire(
    velocity: NDArray[np.float32], dt: float, hair: HairCell, bushy: BushyCell, random: np.random.Generator
) -> NDArray[np.bool_]:
    """The spikes of the bushy cells, step by step for all channels at once; ``[n, B, channels]``."""
    shape = velocity.shape[1:]
    q, c, w = (np.full(shape, value, np.float32) for value in hair.at_rest())
    mem, rests, fired = np.zeros(shape, np.float32), np.zeros(shape, np.int32), np.zeros(velocity.shape, np.bool_)
    decay, silence = math.exp(-dt / bushy.tau), max(1, round(bushy.refractory / dt))
    for step, s in enumerate(velocity):
        open_ = np.maximum(s + hair.A, 0)
        released = (dt * hair.g) * open_ / (open_ + hair.B) * q
        returned = (dt * hair.x) * w
        q += (dt * hair.y) * (1 - q) + returned - released
        w += (dt * hair.r) * c - returned
        c += released - (dt * (hair.l + hair.r)) * c
        chance = np.minimum((dt * hair.h) * c, 1)
        mem = decay * mem + bushy.weight * random.binomial(bushy.hair_cells, chance).astype(np.float32)
        mem[rests > 0] = 0
        np.greater(mem, 1, out=fired[step])
        mem[fired[step]] = 0
        rests = np.where(fired[step], silence, np.maximum(rests - 1, 0))
    return fired
