"""Adapt a model to ten noises, and measure what that brings on another minute of each.

    python -m benchmarks.adapting CLEAN [--babble VOICES] [--noises FOLDER] [--model MODEL]
        [--minutes 5] [--only NAME ...] [--unrelated CLEAN NOISY] [--folder FOLDER]

CLEAN is a folder of clean speech at 48 kHz by speakers that no training has heard. The noises are
synthesized: two minutes of each, of which the first is adapted to and the second is mixed with
CLEAN at 0, 5 and 10 dB in turn. `babble` is made of the recordings in VOICES, and left out without
it. --noises takes recordings instead, and uses the first two minutes of each. --unrelated also
measures every adapted model on pairs of recordings that have nothing to do with the noise (above 16
kHz: `speech` leaves others to another model). --folder keeps the models.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy.signal import butter, lfilter, sosfilt

from benchmarks import markdown
from denoisecli.adaptation.adapt import adapt
from denoisecli.audio.files import find_audio, read_mono, write
from denoisecli.audio.level import rms
from denoisecli.evaluation.estimators import Model
from denoisecli.evaluation.evaluate import evaluate
from denoisecli.evaluation.pairs import Pair, folder_pairs
from denoisecli.models.catalogue import find_model

RATE = 48000
SECONDS = 120
SNRS_DB = (0, 5, 10)
METRICS = ("si_sdr", "estoi", "pesq_wb")
TIMESTEPS = SECONDS * RATE

Rng = np.random.Generator


def white(rng: Rng) -> np.ndarray:
    """Return white noise."""
    return rng.standard_normal(TIMESTEPS)


def coloured(rng: Rng, exponent: float) -> np.ndarray:
    """Return noise whose power is inversely proportional to a power of the frequency."""
    hertz = np.maximum(np.fft.rfftfreq(TIMESTEPS, 1 / RATE), 20)
    return np.fft.irfft(np.fft.rfft(white(rng)) * (hertz / 1000) ** (-exponent / 2))


def band(sound: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return a band of a sound, limited by frequencies in Hz."""
    return sosfilt(butter(2, [low, high], "band", fs=RATE, output="sos"), sound)


def drift(rng: Rng, hertz: float) -> np.ndarray:
    """Return a random curve that changes a few times per second."""
    count = int(SECONDS * hertz * 4) + 8
    knots = np.convolve(rng.standard_normal(count), np.hanning(5) / 2, "same")
    return np.interp(np.linspace(0, count - 1, TIMESTEPS), np.arange(count), knots)


def phase(hertz: np.ndarray | float) -> np.ndarray:
    """Return the phase of an oscillation whose frequency may change."""
    return 2 * np.pi * np.cumsum(np.broadcast_to(hertz, TIMESTEPS)) / RATE


def impulses(seconds: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
    """Return impulses at given times."""
    sound, places = np.zeros(TIMESTEPS), (seconds * RATE).astype(int)
    np.add.at(sound, places[places < TIMESTEPS], amplitudes[places < TIMESTEPS])
    return sound


def ring(sound: np.ndarray, *modes: tuple[float, float, float]) -> np.ndarray:
    """Return what resonances make of a sound, each with a frequency, a decay in s and a gain."""
    total = np.zeros(TIMESTEPS)
    for hertz, decay, gain in modes:
        radius, angle = np.exp(-1 / (decay * RATE)), 2 * np.pi * hertz / RATE
        a = [1, -2 * radius * np.cos(angle), radius**2]
        total += gain * lfilter([np.sin(angle) * radius], a, sound)
    return total


def unit(sound: np.ndarray) -> np.ndarray:
    """Return a sound at an RMS of 1."""
    return sound / np.std(sound)


def washing_machine(rng: Rng) -> np.ndarray:
    """Return a turning drum, its motor and the water in it."""
    drum = np.clip(np.sin(phase(1.1 + 0.05 * drift(rng, 0.2))), 0, 1) ** 2
    turning = phase(147 + 4 * drift(rng, 0.5))
    motor = sum(np.sin(k * turning + 6 * rng.random()) / k**0.7 for k in range(1, 14))
    water = band(coloured(rng, 0.5), 300, 5000) * drum
    return 0.5 * motor * (0.4 + drum) + 4 * water + 0.5 * coloured(rng, 1.5)


def shaver(rng: Rng) -> np.ndarray:
    """Return a buzz whose load varies."""
    buzz = phase(118 + 2 * drift(rng, 1))
    square = np.sign(np.sin(buzz)) * (0.7 + 0.3 * np.sin(2 * buzz))
    case = ring(square, (900, 0.002, 1), (2300, 0.002, 0.8), (5200, 0.002, 0.9), (8800, 0.002, 0.4))
    return case * (1 + 0.4 * drift(rng, 0.8)) + 0.3 * band(white(rng), 2000, 12000)


def server_room(rng: Rng) -> np.ndarray:
    """Return many fans, each with a tone, and the air."""
    tones = rng.uniform(90, 4200, 34)
    fans = sum(rng.random() * np.sin(phase(hertz) + 6 * rng.random()) for hertz in tones)
    air = band(white(rng), 600, 3500) * (1 + 0.3 * np.sin(phase(0.37)))
    return 0.3 * fans + 1.5 * coloured(rng, 0.8) + 0.6 * air


def sewing_machine(rng: Rng) -> np.ndarray:
    """Return stitches that come and go, and the motor."""
    rate, on = 9 + 1.5 * drift(rng, 0.15), drift(rng, 0.12) > -0.2
    places = np.flatnonzero(np.diff(np.floor(np.cumsum(rate) / RATE)) > 0)
    times = places[on[places]] / RATE
    stitches = ring(
        impulses(times, 0.5 + 0.5 * rng.random(times.size)),
        *((430, 0.012, 1), (1170, 0.008, 0.9), (2650, 0.006, 0.7), (4300, 0.004, 0.6)),
        (7700, 0.002, 0.4),
    )
    return unit(stitches) + 0.4 * np.sin(phase(22 * rate)) * on + 0.15 * coloured(rng, 1)


def rain_on_tin(rng: Rng) -> np.ndarray:
    """Return drops of many sizes on a roof."""
    count = 160 * SECONDS
    drops = impulses(rng.uniform(0, SECONDS, count), rng.pareto(2.2, count))
    return ring(
        drops,
        *((800, 0.004, 0.6), (1500, 0.006, 1), (2500, 0.003, 0.8), (3900, 0.003, 0.7)),
        *((6100, 0.002, 0.6), (9500, 0.001, 0.5)),
    )


def printer(rng: Rng) -> np.ndarray:
    """Return the melodies of stepper motors, and a fan."""
    notes = rng.choice([220, 247, 294, 330, 392, 440, 523, 587, 659, 880], 700)
    lengths = (rng.uniform(0.05, 0.6, 700) * RATE).astype(int)
    note = phase(np.resize(np.repeat(notes, lengths), TIMESTEPS).astype(float))
    steps = 0.5 * np.sign(np.sin(note)) + 0.3 * np.sin(3 * note) + 0.2 * np.sin(7.02 * note)
    case = ring(steps, (700, 0.003, 1), (1900, 0.003, 0.8), (4100, 0.003, 0.6))
    return case / 8 + 0.3 * unit(band(white(rng), 200, 6000))


def vacuum_cleaner(rng: Rng) -> np.ndarray:
    """Return a motor and a stream of air."""
    turning = phase(310 + 6 * drift(rng, 0.3))
    motor = sum(np.sin(k * turning) / k for k in range(1, 9))
    air = unit(band(white(rng), 400, 9000))
    return (0.8 * motor + 1.1 * air) * (1 + 0.25 * drift(rng, 0.4))


def typing(rng: Rng) -> np.ndarray:
    """Return a keyboard: keys that go down and up, in a room with a fan."""
    down = np.cumsum(rng.gamma(2, 0.07, 2600))
    up = down + 0.07 + 0.02 * rng.random(down.size)
    keys = impulses(down, 0.4 + rng.random(down.size))
    keys += impulses(up, 0.3 * rng.random(up.size))
    modes = ((320, 0.01, 0.5), (2100, 0.003, 1), (3400, 0.002, 1), (5600, 0.002, 0.9))
    return unit(ring(keys, *modes, (9000, 0.001, 0.6))) + 0.12 * coloured(rng, 0.6)


def tram(rng: Rng) -> np.ndarray:
    """Return a motor that gains and loses speed, joints of rails, and curves that squeal."""
    turning = phase(60 * (1 + 0.5 * drift(rng, 0.06)))
    motor = sum(np.sin(k * turning) / k for k in (1, 2, 3, 6, 9))
    squeal = np.sin(phase(2600 + 300 * drift(rng, 2))) * np.clip(drift(rng, 0.15) - 0.3, 0, 1)
    times = np.arange(0, SECONDS, 0.9)
    joints = ring(impulses(times, np.ones(times.size)), (90, 0.05, 1), (240, 0.03, 1))
    return 0.5 * motor + 1.3 * squeal + 0.7 * unit(joints) + 2 * coloured(rng, 1.6)


def babble(rng: Rng, voices: Path) -> np.ndarray:
    """Return fourteen voices that speak at once."""
    paths = find_audio(voices)
    total = np.zeros(TIMESTEPS)
    for _ in range(14):
        order = rng.permutation(len(paths))
        voice = np.concatenate([unit(read_mono(paths[index], RATE)[0]) for index in order])
        total += rng.uniform(0.4, 1) * np.resize(
            np.roll(voice, rng.integers(voice.size)), TIMESTEPS
        )
    return total


NOISES: dict[str, Callable[[Rng], np.ndarray]] = {
    function.__name__: function
    for function in (
        *(washing_machine, shaver, server_room, sewing_machine, rain_on_tin),
        *(printer, vacuum_cleaner, typing, tram),
    )
}


def recorded(path: Path) -> Callable[[Rng], np.ndarray]:
    """Return a function that reads the first two minutes of a recording of noise."""

    def read(rng: Rng) -> np.ndarray:
        sound, _ = read_mono(path, RATE)
        if sound.size < TIMESTEPS:
            raise SystemExit(f"{path} has {sound.size / RATE:.0f} s; {SECONDS} s are needed")
        return sound[:TIMESTEPS]

    return read


def mixtures(clean: Path, noise: np.ndarray, folder: Path) -> Iterator[Pair]:
    """Write mixtures of recordings with noise, and return them."""
    rng = np.random.default_rng(99)
    for number, path in enumerate(find_audio(clean)):
        sound, _ = read_mono(path, RATE)
        start = rng.integers(noise.size - sound.size)
        piece = noise[start : start + sound.size]
        snr_db = SNRS_DB[number % len(SNRS_DB)]
        noisy = sound + piece * np.float32(rms(sound) / rms(piece) * 10 ** (-snr_db / 20))
        for kind, part in (("clean", sound), ("noisy", noisy)):
            write(folder / kind / f"{path.stem}.wav", part, RATE, subtype="FLOAT", overwrite=True)
        name = f"{path.stem}.wav"
        yield Pair(path.stem, folder / "clean" / name, folder / "noisy" / name)


def main() -> None:
    """Adapt, measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapting", description=__doc__)
    parser.add_argument("clean", type=Path)
    parser.add_argument("--babble", type=Path)
    parser.add_argument("--noises", type=Path)
    parser.add_argument("--model", default="speech")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--unrelated", nargs=2, type=Path)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    start = find_model(options.model).path
    noises = dict(NOISES)
    if options.babble:
        noises["babble"] = lambda rng: babble(rng, options.babble)
    if options.noises:
        noises = {path.stem: recorded(path) for path in find_audio(options.noises)}
    keep = TemporaryDirectory() if options.folder is None else nullcontext(options.folder)
    rows = []
    with keep as kept:
        for name in options.only or noises:
            folder = Path(kept) / name
            folder.mkdir(parents=True, exist_ok=True)
            sound = noises[name](np.random.default_rng(2100 + list(noises).index(name)))
            noise = np.clip(0.05 * unit(sound - sound.mean()), -1, 1).astype(np.float32)
            first, second = np.split(noise, 2)
            write(folder / "noise.wav", first, RATE, subtype="FLOAT", overwrite=True)
            result = adapt(
                [],
                folder / "model",
                noise=[folder / "noise.wav"],
                model=options.model,
                minutes=options.minutes,
                overwrite=True,
            )
            row = [name, f"{result.minutes:.1f}", f"{1 - result.start_share:.0%}"]
            if result.output is None:
                rows.append([*row, f"nothing written: {result.verdict.reasons[0]}"])
                print(rows[-1], flush=True)
                continue
            models = {"before": Model(start), "after": Model(result.output)}
            sets = [list(mixtures(options.clean, second, folder / "mixtures"))]
            if options.unrelated:
                sets.append(folder_pairs(*options.unrelated))
            for pairs in sets:
                found = evaluate(pairs, models, metrics=METRICS, baseline="before", jobs=2)
                for metric in METRICS:
                    mean = found.gain("after", metric).mean
                    row.append(f"{mean:+.3f}" if metric == "estoi" else f"{mean:+.2f}")
            rows.append(row)
            print(row, flush=True)
    headings = ["noise", "minutes", "adapted", "SI-SDR", "ESTOI", "PESQ"]
    if options.unrelated:
        headings += [f"{metric} elsewhere" for metric in ("SI-SDR", "ESTOI", "PESQ")]
    width = len(headings)
    print(markdown.table(headings, [row + [""] * (width - len(row)) for row in rows]))


if __name__ == "__main__":
    main()
