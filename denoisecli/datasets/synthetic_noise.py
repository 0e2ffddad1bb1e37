"""Synthetic noises of many kinds: machines, alarms, weather, animals, faults of equipment.

Every clip draws its own parameters, and the same kind, number and seed give the same clip.
"""

import zlib
from collections.abc import Callable

import numpy as np
import scipy.fft
import scipy.interpolate
import scipy.signal
from jaxtyping import Float

from denoisecli.types import AudioVector

SAMPLE_RATE = 48000
SHORTEST, LONGEST = 4.0, 15.0
"""Lengths of clips in s."""

NYQUIST = SAMPLE_RATE / 2
TAU = 2 * np.pi

Rng = np.random.Generator


# What the kinds are built of


def samples(seconds: int | float) -> int:
    """Convert a duration in s to a number of samples, at least one."""
    return max(1, round(seconds * SAMPLE_RATE))


def log_uniform(rng: Rng, low: int | float, high: int | float) -> float:
    """Draw a value whose logarithm is uniform between those of two positive limits."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def noise(
    rng: Rng,
    n: int,
    slope: int | float = 0,
    low: int | float = 0,
    high: int | float = NYQUIST,
    order: int = 2,
) -> AudioVector:
    """Return Gaussian noise with an RMS of 1 in a band.

    Args:
        rng: Random numbers.
        n: Length in samples.
        slope: Slope of the spectrum in dB per octave: 0 is white, -3 pink, -6 brown.
        low: Lower edge of the band in Hz, with a slope of ``6 * order`` dB per octave.
        high: Upper edge of the band in Hz, likewise.
        order: Order of the edges.
    """
    length = scipy.fft.next_fast_len(n, real=True)
    frequency = np.maximum(scipy.fft.rfftfreq(length, 1 / SAMPLE_RATE), 2.0)
    gain = (frequency / 1000) ** (slope / 6.02)
    gain /= np.sqrt(1 + (low / frequency) ** (2 * order))
    gain /= np.sqrt(1 + (frequency / high) ** (2 * order))
    spectrum = scipy.fft.rfft(rng.standard_normal(length)) * gain
    sound = scipy.fft.irfft(spectrum, length)[:n]
    return sound / max(float(np.std(sound)), 1e-9)


def wander(rng: Rng, n: int, rate: int | float) -> AudioVector:
    """Return a smooth random curve with an RMS of about 1 and ``rate`` (Hz) new values a second."""
    count = int(n * rate / SAMPLE_RATE) + 5
    places = np.arange(count) * SAMPLE_RATE / rate - rng.uniform(1, 2) * SAMPLE_RATE / rate
    curve = scipy.interpolate.CubicSpline(places, rng.standard_normal(count))
    return np.asarray(curve(np.arange(n)))


def phase_of(frequency: AudioVector | int | float, n: int) -> AudioVector:
    """Return the phase in radians of a tone with a frequency in Hz that may vary."""
    return np.cumsum(np.broadcast_to(TAU / SAMPLE_RATE * np.asarray(frequency), (n,)))


def harmonics(rng: Rng, phase: AudioVector, gains: np.ndarray) -> AudioVector:
    """Sum harmonics with random phases; those above 23 kHz are left out.

    Args:
        rng: Random numbers.
        phase: Phase of the fundamental in radians.
        gains: Gain of each harmonic, beginning with the fundamental.
    """
    frequency = float(np.max(np.abs(np.diff(phase)), initial=1e-6)) * SAMPLE_RATE / TAU
    gains = gains[: max(1, int(23000 / frequency))]
    return fourier_sum(phase, gains * np.exp(1j * rng.uniform(0, TAU, gains.size)))


def fourier_sum(phase: AudioVector, gains: np.ndarray) -> AudioVector:
    """Sum harmonics with complex gains, beginning with the fundamental's, by Horner's rule."""
    total = np.empty_like(phase)
    for start in range(0, phase.size, 4096):  # so that a block stays in the cache of a core
        block = slice(start, start + 4096)
        turn = np.exp(1j * phase[block])
        part = np.zeros_like(turn)
        for gain in gains[::-1]:
            part += gain
            part *= turn
        total[block] = part.real
    return total


def timbre(rng: Rng, count: int = 30) -> np.ndarray:
    """Draw the gains of the harmonics of a sound source, the fundamental's being 1."""
    number = np.arange(1, count + 1)
    gains = number ** -rng.uniform(0.7, 2.5) * 10 ** (rng.normal(0, 4, count) / 20)
    if rng.random() < 0.4:
        gains[1::2] *= rng.uniform(0, 0.3)
    if rng.random() < 0.3:
        gains[1:] *= rng.uniform(0, 0.1)  # nearly a pure tone
    return gains / gains[0]


def fade(n: int, attack: int | float, release: int | float) -> AudioVector:
    """Return an envelope with raised-cosine ramps of the given lengths in s."""
    envelope = np.ones(n)
    rise, fall = min(samples(attack), n), min(samples(release), n)
    envelope[:rise] *= 0.5 - 0.5 * np.cos(np.pi * (np.arange(rise) + 0.5) / rise)
    envelope[n - fall :] *= 0.5 + 0.5 * np.cos(np.pi * (np.arange(fall) + 0.5) / fall)
    return envelope


def add(
    sound: AudioVector,
    event: Float[np.ndarray, " samples"],
    second: int | float,
    gain: int | float = 1,
) -> None:
    """Add an event to a sound in place, at a second; what lies outside is cut off."""
    start = round(second * SAMPLE_RATE)
    first, last = max(start, 0), min(start + event.size, sound.size)
    if first < last:
        sound[first:last] += gain * event[first - start : last - start]


def decay(n: int, seconds: int | float) -> AudioVector:
    """Return an exponential decay that falls by 60 dB in the given time."""
    return np.exp(-6.91 / SAMPLE_RATE / seconds * np.arange(n))


def ring(rng: Rng, frequencies: np.ndarray, seconds: np.ndarray) -> AudioVector:
    """Return damped modes with random gains and phases, each with its frequency and T60."""
    n = samples(min(float(np.max(seconds)), 4))
    time = np.arange(n) / SAMPLE_RATE
    sound = np.zeros(n)
    for frequency, length in zip(frequencies, seconds, strict=True):
        gain = rng.lognormal(0, 0.7)
        tone = np.sin(TAU * frequency * time + rng.uniform(0, TAU))
        sound += gain * tone * decay(n, length)
    return sound * fade(n, 0.0003, 0.005)


def events(rng: Rng, n: int, rate: int | float) -> np.ndarray:
    """Draw the times in s of random events with a mean rate in Hz; there is at least one."""
    count = max(1, rng.poisson(n / SAMPLE_RATE * rate))
    return np.sort(rng.uniform(0, n / SAMPLE_RATE - 0.05, count))


def periodic(rng: Rng, n: int, period: int | float, jitter: int | float = 0) -> np.ndarray:
    """Return times in s with a period and a relative jitter; the first period starts at random."""
    seconds = n / SAMPLE_RATE
    times = np.arange(-rng.uniform(0, 1), seconds / period) * period
    return times + jitter * period * rng.standard_normal(times.size)


def impulses(rng: Rng, n: int, rate: int | float, spread: int | float) -> AudioVector:
    """Return single samples at random times with log-normal heights of both signs, up to 6."""
    sound = np.zeros(n)
    count = max(1, rng.poisson(n / SAMPLE_RATE * rate))
    heights = np.minimum(rng.lognormal(0, spread, count), 6) * rng.choice([-1, 1], count)
    np.add.at(sound, rng.integers(0, n, count), heights)
    return sound


def band_pass(
    sound: AudioVector, low: int | float, high: int | float, order: int = 2
) -> AudioVector:
    """Filter a sound to a band in Hz, once forwards."""
    edges = [max(low, 5), min(high, 0.98 * NYQUIST)]
    sos = scipy.signal.butter(order, edges, "bandpass", fs=SAMPLE_RATE, output="sos")
    return scipy.signal.sosfilt(sos, sound)


def unit(sound: AudioVector) -> AudioVector:
    """Scale a sound to an RMS of 1."""
    return sound / max(float(np.sqrt(np.mean(sound**2))), 1e-9)


def place(rng: Rng, sound: AudioVector) -> AudioVector:
    """Put a sound into a room at random: an exponentially decaying tail, duller than its source."""
    seconds = log_uniform(rng, 0.1, 2)
    n = samples(seconds)
    tail = noise(rng, n, -rng.uniform(0, 4), low=150, high=log_uniform(rng, 3000, 20000))
    tail *= decay(n, seconds) * fade(n, rng.uniform(0.001, 0.02), 0.01)
    wet = scipy.signal.oaconvolve(sound, tail)[: sound.size]
    share = rng.uniform(0.05, 0.6)
    rms = np.sqrt(np.mean(sound**2))
    return (1 - share) * sound + share * rms * unit(wet)


# Kinds of noise: each takes random numbers and a length in samples. The level is set at the end.


def alarms(rng: Rng, n: int) -> AudioVector:
    """Synthesize sirens, two-tone horns, electric bells, alarm clocks and buzzers."""
    time = np.arange(n) / SAMPLE_RATE
    gains = timbre(rng)
    style = rng.choice(["siren", "steps", "bell", "clock", "buzzer"], p=[0.35, 0.2, 0.15, 0.2, 0.1])
    if style == "bell":
        modes = log_uniform(rng, 600, 2500) * np.array([1, 1.5, 2.0, 2.6, 3.2, 4.1, 5.3, 6.8])
        modes *= rng.uniform(0.97, 1.03, modes.size)
        strike = ring(rng, modes[modes < 20000], rng.uniform(0.1, 2, int(np.sum(modes < 20000))))
        sound = np.zeros(n)
        for second in periodic(rng, n, 1 / rng.uniform(8, 28), 0.03):
            add(sound, strike, second, rng.uniform(0.7, 1))
        if rng.random() < 0.5:  # a telephone: two seconds of ringing, a pause
            sound *= (time + rng.uniform(0, 3)) % 3.5 < rng.uniform(1, 2.2)
        return sound
    if style == "clock":
        frequency = log_uniform(rng, 800, 5000)
        count, pulse = int(rng.integers(1, 6)), rng.uniform(0.04, 0.13)
        period = count * 2 * pulse + rng.uniform(0.1, 0.6)
        length = samples(pulse)
        beep = harmonics(rng, phase_of(frequency, length), gains) * fade(length, 0.002, 0.002)
        sound = np.zeros(n)
        for second in periodic(rng, n, period):
            for number in range(count):
                add(sound, beep, second + 2 * pulse * number)
        return sound
    if style == "buzzer":
        sound = harmonics(rng, phase_of(log_uniform(rng, 80, 700), n), timbre(rng, 80))
        period = rng.uniform(0.3, 2)
        return sound * ((time + rng.uniform(0, period)) % period < period * rng.uniform(0.3, 1))
    low = log_uniform(rng, 300, 2500)
    high = low * rng.uniform(1.1, 3)
    turn = (time * log_uniform(rng, 0.15, 12) + rng.uniform()) % 1
    shapes = {
        "rise": turn,
        "fall": 1 - turn,
        "triangle": 1 - np.abs(2 * turn - 1),
        "sine": 0.5 - 0.5 * np.cos(TAU * turn),
        "yelp": 1 - (1 - np.minimum(2 * turn, 2 - 2 * turn)) ** 3,
    }
    if style == "steps":
        turn = (time * log_uniform(rng, 0.5, 8)) % 1
        bend = np.floor(turn * rng.integers(2, 5)) / 4
    else:
        bend = shapes[str(rng.choice(list(shapes)))]
        if rng.random() < 0.25:  # a car alarm: a new shape every two seconds
            other = shapes[str(rng.choice(list(shapes)))]
            bend = np.where((time / 2).astype(int) % 2, bend, other)
    return harmonics(rng, phase_of(low * (high / low) ** bend, n), gains)


def beeps(rng: Rng, n: int) -> AudioVector:
    """Synthesize beeps: smoke alarms, reversing lorries, ovens, monitors, dialling, high beeps."""
    styles = {
        # low, high (Hz), shortest, longest (s), gap to the next (s), most in a group, pause (s)
        "smoke": (2800, 3500, 0.4, 0.55, 0.5, 4, 1.5),
        "lorry": (900, 1500, 0.3, 0.6, 0.5, 1, 0.1),
        "oven": (1800, 4200, 0.1, 0.9, 0.4, 6, 3),
        "monitor": (450, 1100, 0.06, 0.2, 0.9, 1, 0.1),
        "high": (8000, 17000, 0.03, 0.5, 0.4, 5, 1),
        "any": (250, 12000, 0.02, 0.6, 0.5, 8, 1.5),
        "keys": (600, 1700, 0.05, 0.25, 0.2, 10, 1.5),
    }
    style = str(rng.choice(list(styles), p=[0.16, 0.12, 0.14, 0.12, 0.22, 0.16, 0.08]))
    low, high, shortest, longest, gap, most, pause = styles[style]
    base, gains = log_uniform(rng, low, high), timbre(rng)
    length = samples(rng.uniform(shortest, longest))
    attack, release = log_uniform(rng, 0.001, 0.01), log_uniform(rng, 0.001, length / SAMPLE_RATE)
    gap *= rng.uniform(0.6, 1.2)
    count, same = int(rng.integers(1, most + 1)), rng.random() < 0.7
    sound = np.zeros(n)
    second = rng.uniform(-0.5, 0.5)
    while second < n / SAMPLE_RATE:
        for _ in range(count):
            frequency = base if same else log_uniform(rng, low, high)
            beep = harmonics(rng, phase_of(frequency, length), gains)
            if style == "keys":  # two tones at once, as telephones dial
                beep += harmonics(rng, phase_of(frequency * rng.uniform(1.3, 2), length), gains)
            add(sound, beep * fade(length, attack, release), second)
            second += length / SAMPLE_RATE + gap * (1 if same else rng.uniform(0.3, 1.5))
        second += pause * rng.uniform(0.8, 1.2)
    return sound


def whistles(rng: Rng, n: int) -> AudioVector:
    """Synthesize whistling, kettles, pea whistles, steam whistles, feedback and squeals."""
    style = str(rng.choice(["tune", "kettle", "pea", "steam", "feedback", "squeal"]))
    time = np.arange(n) / SAMPLE_RATE
    if style == "tune":
        sound = np.zeros(n)
        second, pitch = 0.0, log_uniform(rng, 700, 2500)
        glide = rng.uniform(0.02, 0.15)
        while second < n / SAMPLE_RATE:
            length = samples(log_uniform(rng, 0.12, 1.2))
            target = float(np.clip(pitch * 2 ** (rng.integers(-7, 8) / 12), 500, 4500))
            moment = np.arange(length) / SAMPLE_RATE
            bend = pitch * (target / pitch) ** np.clip(moment / glide, 0, 1)
            vibrato = 1 + rng.uniform(0, 0.02) * np.sin(TAU * rng.uniform(4, 7) * moment)
            tone = harmonics(rng, phase_of(bend * vibrato, length), np.array([1, 0.03, 0.01]))
            breath = band_pass(rng.standard_normal(length), 0.9 * target, 1.2 * target)
            note = (tone + rng.uniform(0.05, 0.3) * unit(breath)) * fade(length, 0.03, 0.06)
            add(sound, note, second, rng.uniform(0.5, 1))
            second += length / SAMPLE_RATE + rng.choice([0, 0, rng.uniform(0.05, 0.6)])
            pitch = target
        return sound
    if style == "pea":
        rate = rng.uniform(20, 70)
        frequency = log_uniform(rng, 2000, 4800) * (1 + 0.03 * np.sin(TAU * rate * time))
        phase = phase_of(frequency, n)
        sound = np.sin(phase) + np.sin(phase * rng.uniform(1.02, 1.15))
        sound *= 1 + 0.6 * np.sin(TAU * rate * time + 1) + 0.1 * wander(rng, n, 30)
        sound += 0.1 * noise(rng, n, low=1500, high=9000)
        envelope = np.zeros(n)
        for second in periodic(rng, n, rng.uniform(0.5, 2.5), 0.2):
            length = samples(rng.uniform(0.15, 0.8))
            add(envelope, fade(length, 0.02, 0.05), second)
        return sound * np.minimum(envelope, 1)
    if style == "steam":
        sound = rng.uniform(0.2, 1.5) * noise(rng, n, -3, low=400, high=8000)
        for frequency in log_uniform(rng, 350, 1200) * np.cumprod(rng.uniform(1.15, 1.4, 4)):
            sound += np.sin(phase_of(frequency * (1 + 0.003 * wander(rng, n, 3)), n))
        return sound * fade(n, rng.uniform(0.1, 1), rng.uniform(0.3, 2))
    limits = {"kettle": (1500, 6000), "feedback": (300, 9000)}.get(style, (6000, 15000))
    depth = 0.0005 if style == "feedback" else 0.01
    course = log_uniform(rng, *limits) * (1 + depth * wander(rng, n, rng.uniform(1, 8)))
    if style == "kettle":
        course *= 1 - rng.uniform(0.1, 0.5) * np.exp(-time / rng.uniform(0.5, 4))
    sound = np.sin(phase_of(course, n)) * np.exp(0.3 * wander(rng, n, 4))
    if style == "feedback":
        growth = np.minimum(np.exp((time % rng.uniform(3, 8)) * rng.uniform(0.5, 3)) * 0.05, 1.5)
        return np.tanh(sound * growth) + 0.003 * noise(rng, n, -3)
    if style == "squeal":
        sound *= np.clip(wander(rng, n, rng.uniform(0.7, 4)) + 0.6, 0, 1)
    return sound + rng.uniform(0.02, 0.3) * noise(rng, n, -3, low=1000)


def birds(rng: Rng, n: int) -> AudioVector:
    """Synthesize chirps, trills and phrases of one to four birds."""
    sound = np.zeros(n)
    for _ in range(int(rng.integers(1, 5))):
        voice, centre = np.zeros(n), log_uniform(rng, 1500, 8000)
        phrase = []
        for _ in range(int(rng.integers(1, 7))):
            length = samples(log_uniform(rng, 0.02, 0.35))
            course = np.linspace(0, 1, length)
            start, end = centre * 2 ** rng.uniform(-0.5, 0.5, 2)
            bend = start * (end / start) ** (course ** rng.uniform(0.4, 2.5))
            bend *= 1 + rng.choice([0, rng.uniform(0.02, 0.2)]) * np.sin(
                TAU * rng.uniform(15, 120) * np.arange(length) / SAMPLE_RATE
            )
            gains = np.array([1, *10 ** rng.uniform(-3, -0.7, 2)])
            syllable = harmonics(rng, phase_of(bend, length), gains)
            syllable *= np.sin(np.pi * course) ** rng.uniform(0.3, 2)
            phrase.append((syllable, rng.uniform(0.02, 0.2), int(rng.choice([1, 1, 2, 5, 12]))))
        second = rng.uniform(0, 2)
        while second < n / SAMPLE_RATE:
            for syllable, gap, repeats in phrase:
                for _ in range(repeats):
                    add(voice, syllable, second, rng.uniform(0.6, 1))
                    second += syllable.size / SAMPLE_RATE + gap
            second += log_uniform(rng, 0.2, 3)
        if rng.random() < 0.7:
            voice = place(rng, voice)
        sound += log_uniform(rng, 0.1, 1) * voice
    return sound


def insects(rng: Rng, n: int) -> AudioVector:
    """Synthesize cicadas, crickets, bush crickets, and flies that pass by."""
    time = np.arange(n) / SAMPLE_RATE
    style = str(rng.choice(["cicada", "cricket", "bush-cricket", "fly"], p=[0.3, 0.35, 0.2, 0.15]))
    sound = np.zeros(n)
    for _ in range(int(rng.integers(1, 5))):
        if style == "cicada":
            low = log_uniform(rng, 3000, 9000)
            one = noise(rng, n, low=low, high=low * rng.uniform(1.2, 2.2), order=6)
            pulses = rng.uniform(40, 300) * (1 + 0.03 * wander(rng, n, 2))
            one *= (0.5 + 0.5 * np.sin(phase_of(pulses, n))) ** rng.uniform(0.5, 4)
            one *= np.exp(rng.uniform(0, 0.8) * wander(rng, n, rng.uniform(0.2, 3)))
        elif style == "cricket":
            frequency = log_uniform(rng, 2200, 8000) * (1 + 0.003 * wander(rng, n, 5))
            rate, count = rng.uniform(15, 70), int(rng.integers(2, 6))
            turn = time * rate + rng.uniform(0, 9)
            one = harmonics(rng, phase_of(frequency, n), np.array([1, 0.05, 0.02]))
            one *= np.sin(np.pi * (turn % 1)) ** rng.uniform(0.5, 3)
            if rng.random() < 0.7:  # chirps, else a trill without end
                group = count + int(rng.integers(1, 30))
                one *= np.floor(turn) % group < count
        elif style == "bush-cricket":
            low = log_uniform(rng, 6000, 14000)
            one = noise(rng, n, low=low, high=rng.uniform(1.3, 2.5) * low, order=4)
            rate = log_uniform(rng, 2, 30)
            one *= ((time * rate + rng.uniform()) % 1 < rng.uniform(0.1, 0.7)) * (
                0.6 + 0.4 * np.sin(TAU * rng.uniform(60, 400) * time)
            )
        else:
            frequency = log_uniform(rng, 120, 700) * (1 + 0.05 * wander(rng, n, 3))
            one = harmonics(rng, phase_of(frequency, n), timbre(rng, 40))
            one *= np.exp(1.5 * wander(rng, n, rng.uniform(0.3, 1.5)))
        sound += log_uniform(rng, 0.1, 1) * unit(one)
    return sound


def mains_phase(rng: Rng, n: int) -> AudioVector:
    """Return the phase of mains of 50 or 60 Hz, slightly off and drifting, also from slow tape."""
    frequency = rng.choice([50, 60]) * (1 + rng.normal(0, 0.002))
    drift = rng.choice([0.0003, 0.0003, 0.004]) * wander(rng, n, rng.uniform(0.2, 2))
    return phase_of(frequency * (1 + drift), n)


def hum(rng: Rng, n: int) -> AudioVector:
    """Synthesize mains hum: a few harmonics of 50 or 60 Hz."""
    number = np.arange(1, rng.integers(3, 25))
    gains = number ** -rng.uniform(0.5, 2.5) * 10 ** (rng.normal(0, 6, number.size) / 20)
    gains[rng.integers(2) :: 2] *= rng.uniform(0.05, 1)
    sound = unit(harmonics(rng, mains_phase(rng, n), gains))
    sound *= 1 + rng.uniform(0, 0.2) * wander(rng, n, rng.uniform(0.2, 5))
    return sound + log_uniform(rng, 0.003, 0.2) * noise(rng, n, -rng.uniform(0, 4))


def buzz(rng: Rng, n: int) -> AudioVector:
    """Synthesize mains buzz: harmonics up to 20 kHz of dimmers, ballasts and bad earthing."""
    phase = mains_phase(rng, n) * rng.choice([1, 2, 2])
    number = np.arange(1, 400)
    gains = number ** -rng.uniform(0.1, 1.1) / np.sqrt(
        1 + (number * 100 / log_uniform(rng, 1000, 20000)) ** 4
    )
    gains *= 10 ** (rng.normal(0, rng.uniform(0, 5), number.size) / 20)
    # pulses: the harmonics are in step, with a spread in time that widens them
    width = rng.uniform(0, 0.5)
    gains = gains * np.exp(1j * width * rng.uniform(-np.pi, np.pi, gains.size))
    swell = 1 + rng.uniform(0, 0.3) * wander(rng, n, 8)
    sound = unit(fourier_sum(phase, gains) * swell)
    arc = noise(rng, n, low=log_uniform(rng, 500, 4000)) * (0.5 + 0.5 * np.cos(phase)) ** 4
    return sound + rng.uniform(0, 0.5) * arc


def hiss(rng: Rng, n: int) -> AudioVector:
    """Synthesize hiss: white, of tape, of preamplifiers, of radios, band-limited, of dither."""
    style = str(rng.choice(["white", "tape", "preamplifier", "radio", "band"]))
    if style == "white":
        return noise(rng, n, rng.uniform(-0.5, 0.5))
    if style == "tape":
        sound = noise(rng, n, rng.uniform(0, 4), low=100, high=log_uniform(rng, 9000, 20000))
        return sound * (1 + rng.uniform(0.02, 0.15) * wander(rng, n, rng.uniform(2, 20)))
    if style == "preamplifier":
        corner = log_uniform(rng, 0.1, 1.5)
        return noise(rng, n) + corner * noise(rng, n, -3)
    if style == "radio":
        sound = noise(rng, n, -rng.uniform(0, 3), low=150, high=log_uniform(rng, 3000, 15000))
        return sound * np.exp(rng.uniform(0.1, 0.8) * wander(rng, n, rng.uniform(0.3, 6)))
    low = log_uniform(rng, 100, 10000)
    high = min(low * log_uniform(rng, 1.5, 30), 20000)
    return noise(rng, n, rng.uniform(-3, 3), low, high, order=int(rng.integers(1, 9)))


def coil_whine(rng: Rng, n: int) -> AudioVector:
    """Synthesize the tones of switching supplies, screens and motor drives, with side bands."""
    time = np.arange(n) / SAMPLE_RATE
    sound = log_uniform(rng, 0.003, 0.3) * noise(rng, n, rng.uniform(-3, 3), low=500)
    for _ in range(int(rng.integers(1, 6))):
        frequency = log_uniform(rng, 1500, 20000)
        if rng.random() < 0.15:
            frequency = float(rng.choice([15625, 15734]))  # lines of television
        depth = log_uniform(rng, 1e-5, 0.02)
        course = frequency * (1 + depth * wander(rng, n, log_uniform(rng, 0.5, 30)))
        if rng.random() < 0.3:  # the load changes in steps
            steps = 1 + 0.1 * rng.standard_normal(40)
            course *= steps[(time * rng.uniform(0.5, 8)).astype(int) % 40]
        one = np.sin(phase_of(np.clip(course, 100, 22000), n))
        if rng.random() < 0.5:
            rate = float(rng.choice([100, 120, log_uniform(rng, 20, 1500)]))
            one *= 1 + rng.uniform(0.1, 1) * np.sin(TAU * rate * time)
        if rng.random() < 0.25:
            one *= np.clip(2 * wander(rng, n, rng.uniform(1, 20)), 0, 1)
        sound += log_uniform(rng, 0.05, 1) * one
    return sound


def vinyl(rng: Rng, n: int) -> AudioVector:
    """Synthesize records: crackle, ticks once per turn, surface noise, rumble."""
    low = log_uniform(rng, 200, 1500)
    crackle = band_pass(
        impulses(rng, n, log_uniform(rng, 20, 1500), rng.uniform(0.5, 1.3)),
        low,
        log_uniform(rng, 4000, 20000),
        order=1,
    )
    pops = band_pass(
        impulses(rng, n, rng.uniform(0.3, 6), 0.8), low / 2, log_uniform(rng, 2e3, 1e4)
    )
    sound = unit(crackle) + rng.uniform(0.2, 2) * unit(pops)
    if rng.random() < 0.6:
        scratch = band_pass(impulses(rng, samples(0.1), 60, 0.5), low, 9000, order=1)
        turn = 60 / float(rng.choice([100 / 3, 45, 78]))
        for second in periodic(rng, n, turn, 0.002):
            add(sound, scratch / np.abs(scratch).max(), second, rng.uniform(2, 8))
    sound += log_uniform(rng, 0.05, 1) * noise(rng, n, rng.uniform(-4, 0), high=15000)
    return sound + log_uniform(rng, 0.02, 1) * noise(rng, n, -6, low=8, high=80)


def wind(rng: Rng, n: int) -> AudioVector:
    """Synthesize wind in the microphone: turbulence below some 100 Hz, in gusts."""
    calm, stormy = np.sort(np.exp(rng.uniform(np.log(20), np.log(700), 2)))
    gust = rng.uniform(0.3, 1.0) * wander(rng, n, log_uniform(rng, 0.2, 1.5))
    gust += rng.uniform(0.1, 0.5) * wander(rng, n, rng.uniform(3, 12))
    strength = np.exp(np.clip(gust, -4, 2))
    share = strength / (1 + strength)
    slope = -rng.uniform(0, 3)
    sound = (1 - share) * noise(rng, n, slope, low=10, high=calm, order=int(rng.integers(1, 4)))
    sound += share * noise(rng, n, slope, low=15, high=stormy, order=int(rng.integers(1, 4)))
    sound *= strength
    sound += log_uniform(rng, 0.01, 0.3) * strength * noise(rng, n, -3, low=300)  # leaves, rigging
    if rng.random() < 0.3:  # the microphone is overloaded
        sound = np.tanh(unit(sound) * rng.uniform(0.5, 2))
    if rng.random() < 0.25:  # wind howls round a corner
        course = log_uniform(rng, 250, 1200) * np.exp(0.15 * wander(rng, n, 0.8))
        howl = noise(rng, n, high=20, order=3) * np.cos(phase_of(course, n))
        sound += rng.uniform(0.05, 0.5) * np.sqrt(strength) * howl
    return sound


def handling(rng: Rng, n: int) -> AudioVector:
    """Synthesize thumps, knocks, cables and rubbing at a microphone that is touched."""
    sound = log_uniform(rng, 0.001, 0.05) * noise(rng, n, -4)
    for second in events(rng, n, log_uniform(rng, 0.5, 5)):
        style = rng.choice(["thump", "knock", "rub"])
        if style == "thump":
            modes = np.exp(rng.uniform(np.log(20), np.log(250), 4))
            event = ring(rng, modes, rng.uniform(0.05, 0.6, 4))
        elif style == "knock":
            modes = np.exp(rng.uniform(np.log(120), np.log(4000), 7))
            event = ring(rng, modes, rng.uniform(0.01, 0.15, 7))
        else:
            length = samples(rng.uniform(0.1, 1.2))
            event = noise(rng, length, -rng.uniform(2, 7), low=30, high=log_uniform(rng, 500, 9000))
            event *= np.abs(wander(rng, length, rng.uniform(10, 60))) * fade(length, 0.03, 0.08)
        add(sound, event / np.abs(event).max(), second, log_uniform(rng, 0.05, 1))
    return sound


def rumble(rng: Rng, n: int) -> AudioVector:
    """Synthesize rumble: 1/f noise, and steeper noise or slow machines below 60 Hz."""
    if rng.random() < 0.4:  # from 1/f to 1/f² in power, over the whole spectrum
        return noise(rng, n, -rng.uniform(3, 6.5), low=rng.uniform(2, 12))
    high = log_uniform(rng, 15, 60)
    sound = noise(rng, n, -rng.uniform(0, 6), low=rng.uniform(3, 10), high=high, order=4)
    sound *= np.exp(rng.uniform(0, 0.7) * wander(rng, n, rng.uniform(0.2, 1)))
    if rng.random() < 0.4:
        course = rng.uniform(12, 55) * (1 + 0.01 * wander(rng, n, 0.5))
        sound += rng.uniform(0.3, 2) * harmonics(rng, phase_of(course, n), np.array([1, 0.4, 0.1]))
    return sound + log_uniform(rng, 0.001, 0.03) * noise(rng, n, -3)


def clicks(rng: Rng, n: int) -> AudioVector:
    """Synthesize mice, keys, pens, clocks, relays and digital clicks."""
    high = log_uniform(rng, 3000, 16000)

    def click() -> AudioVector:
        count = int(rng.integers(3, 9))
        modes = np.exp(rng.uniform(np.log(300), np.log(high), count))
        event = ring(rng, modes, np.exp(rng.uniform(np.log(0.002), np.log(0.06), count)))
        burst = noise(rng, event.size, rng.uniform(-3, 3)) * decay(
            event.size, log_uniform(rng, 0.002, 0.03)
        )
        event = event / np.abs(event).max() + rng.uniform(0, 1) * burst
        return event / np.abs(event).max()

    sound = log_uniform(rng, 1e-4, 0.01) * noise(rng, n, -3)
    down, up = click(), click()
    style = str(rng.choice(["random", "clock", "typing", "digital"], p=[0.35, 0.2, 0.3, 0.15]))
    if style == "digital":
        sound += impulses(rng, n, log_uniform(rng, 2, 80), rng.uniform(0, 1))
        return sound
    if style == "clock":
        rate = rng.choice([1, 2, 4, 5, rng.uniform(0.7, 4)])
        for number, second in enumerate(periodic(rng, n, 1 / rate, 0.002)):
            add(sound, down if number % 2 else up, second, rng.uniform(0.8, 1))
        return sound
    gap = rng.uniform(0.03, 0.15)
    for second in events(
        rng, n, log_uniform(rng, 2, 10) if style == "typing" else rng.uniform(1, 4)
    ):
        press, release = (click(), click()) if style == "typing" else (down, up)
        gain = rng.uniform(0.3, 1)
        add(sound, press, second, gain)
        add(sound, release, second + gap * rng.uniform(0.7, 1.3), gain * rng.uniform(0.2, 0.8))
    return sound


def fans(rng: Rng, n: int) -> AudioVector:
    """Synthesize fans, motors, drills and engines: harmonics and broadband noise, varying speed."""
    time = np.arange(n) / SAMPLE_RATE
    style = str(rng.choice(["fan", "motor", "engine"], p=[0.4, 0.35, 0.25]))
    turns = log_uniform(rng, *{"fan": (8, 60), "motor": (40, 400), "engine": (10, 90)}[style])
    course = 1 + log_uniform(rng, 0.001, 0.05) * wander(rng, n, log_uniform(rng, 0.3, 4))
    if rng.random() < 0.4:  # running up or down, or between two speeds
        place_of_change = rng.uniform(0, n / SAMPLE_RATE)
        width = log_uniform(rng, 0.2, 4)
        course *= 1 + rng.uniform(-0.5, 1) / (1 + np.exp(-(time - place_of_change) / width))
    phase = phase_of(np.clip(turns * course, 3, 1200), n)
    blades = int(rng.integers(2, 12))
    tones = harmonics(rng, phase, timbre(rng, 12) * 0.3)
    tones += harmonics(rng, phase * blades, timbre(rng, 40))
    air = noise(rng, n, -rng.uniform(0, 6), low=log_uniform(rng, 20, 300))
    low = log_uniform(rng, 200, 4000)
    air += rng.uniform(0, 1) * noise(rng, n, low=low, high=low * rng.uniform(1.2, 4))
    air *= np.clip(course, 0.2, 3) ** 2 * (1 + rng.uniform(0, 0.4) * np.sin(phase))
    if style == "engine":
        air *= np.abs(np.cos(phase)) ** rng.uniform(1, 8)
    ratio = log_uniform(rng, 0.02, 1) if style == "fan" else log_uniform(rng, 0.2, 5)
    return unit(air) + ratio * unit(tones)


def rain(rng: Rng, n: int) -> AudioVector:
    """Synthesize rain: dense noise, single drops, and drops that ring in water or on tin."""
    sound = log_uniform(rng, 0.02, 1) * noise(
        rng, n, rng.uniform(-4, 2), low=log_uniform(rng, 200, 2000), high=log_uniform(rng, 5e3, 2e4)
    )
    for _ in range(int(rng.integers(2, 6))):
        low = log_uniform(rng, 400, 6000)
        drops = impulses(rng, n, log_uniform(rng, 5, 3000), rng.uniform(0.4, 1.2))
        drops = band_pass(drops, low, low * rng.uniform(1.3, 5), order=int(rng.integers(1, 3)))
        sound += log_uniform(rng, 0.2, 1) * unit(drops)
    if rng.random() < 0.6:
        for second in events(rng, n, log_uniform(rng, 0.5, 12)):
            length = samples(rng.uniform(0.02, 0.12))
            rise = log_uniform(rng, 500, 5000) * np.linspace(1, rng.uniform(1.0, 1.8), length)
            drop = np.sin(phase_of(rise, length)) * decay(length, length / SAMPLE_RATE)
            add(sound, drop, second, log_uniform(rng, 0.5, 8))
    return sound


def crackling(rng: Rng, n: int) -> AudioVector:
    """Synthesize fire, bags and paper that rustle, bad contacts and frying."""
    style = str(rng.choice(["fire", "bag", "contact", "frying"]))
    activity = np.exp(rng.uniform(0.5, 1.5) * wander(rng, n, log_uniform(rng, 0.5, 8)))
    if style == "contact":
        gate = np.clip(3 * wander(rng, n, rng.uniform(5, 60)) - 2, 0, 1)
        scratch = noise(rng, n, -rng.uniform(0, 6)) + impulses(rng, n, 500, 1)
        return gate * scratch + log_uniform(rng, 1e-4, 0.01) * noise(rng, n)
    rate = {"fire": (4, 60), "bag": (200, 4000), "frying": (1000, 12000)}[style]
    sound = np.zeros(n)
    for _ in range(4):
        low = log_uniform(rng, 500, 6000)
        pops = impulses(rng, n, log_uniform(rng, *rate), rng.uniform(0.5, 1.4)) * activity
        sound += unit(band_pass(pops, low, low * rng.uniform(1.5, 5), order=1))
    if style == "fire":
        sound += rng.uniform(0.1, 1) * noise(rng, n, -5, low=20, high=800) * np.sqrt(activity)
        sound += rng.uniform(0.02, 0.3) * noise(rng, n, low=3000)
    elif style == "frying":
        sound += rng.uniform(0.2, 2) * noise(rng, n, low=2000)
    return sound


def dropouts(rng: Rng, n: int) -> AudioVector:
    """Synthesize digital faults: GSM buzz, repeated buffers, bursts of garbage, modem tones."""
    time = np.arange(n) / SAMPLE_RATE
    style = str(rng.choice(["gsm", "stutter", "garbage", "modem", "coarse"]))
    if style == "gsm":
        slots = time * 216.7
        bursts = (slots % 1 < 0.125).astype(float)
        frame = slots.astype(int)
        if rng.random() < 0.7:
            bursts *= frame % 26 != 25
        beat = rng.uniform(0.2, 0.9)
        talk = (time % rng.uniform(1, 4)) > rng.uniform(0, 1)
        handshake = (time * rng.uniform(3, 9)) % 1 < beat
        bursts *= talk if rng.random() < 0.5 else handshake
        sound = band_pass(bursts, rng.uniform(20, 200), log_uniform(rng, 3000, 20000), order=1)
        return sound + log_uniform(rng, 1e-4, 0.01) * noise(rng, n)
    if style == "modem":
        bauds = (time * log_uniform(rng, 20, 1200)).astype(int)
        tones = np.exp(rng.uniform(np.log(500), np.log(4000), int(rng.choice([2, 2, 4, 16]))))
        frequency = tones[rng.integers(0, tones.size, int(bauds[-1]) + 1)[bauds]]
        return np.sin(phase_of(frequency, n)) * ((time % 4) < rng.uniform(1, 4))
    sound = log_uniform(rng, 1e-4, 0.01) * noise(rng, n, -3)
    for second in events(rng, n, log_uniform(rng, 0.7, 5)):
        length = samples(log_uniform(rng, 0.02, 0.6))
        if style == "stutter":
            period = samples(log_uniform(rng, 0.002, 0.04))
            frequencies = np.exp(rng.uniform(np.log(100), np.log(8000), 6))
            buffer = ring(rng, frequencies, np.full(6, 1.0))[:period]
            buffer = buffer + 0.3 * noise(rng, period, -3)
            event = np.tile(buffer, -(-length // period))[:length]
        elif style == "garbage":
            event = rng.uniform(-1, 1, length) * (rng.random() if rng.random() < 0.5 else 1)
        else:  # few bits at a low rate, with the images that this leaves
            hold = int(log_uniform(rng, 3, 40))
            course = harmonics(rng, phase_of(log_uniform(rng, 80, 900), length), timbre(rng, 10))
            event = np.repeat(np.round(3 * course[::hold]) / 3, hold)[:length]
        add(sound, event / max(np.abs(event).max(), 1e-3), second, log_uniform(rng, 0.1, 1))
    return sound


KINDS: dict[str, Callable[[Rng, int], AudioVector]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        *(alarms, beeps, whistles, birds, insects, hum, buzz, hiss, coil_whine, vinyl, wind),
        *(handling, rumble, clicks, fans, rain, crackling, dropouts),
    )
}
IN_ROOMS = {"alarms", "beeps", "whistles", "clicks", "handling", "fans", "crackling"}
"""Kinds of which half of the clips are put into a room."""


def synthesize(kind: str, number: int, seed: int = 0, seconds: float | None = None) -> AudioVector:
    """Synthesize a clip of a kind; kind, number and seed determine it.

    Args:
        kind: One of ``KINDS``.
        number: Number of the clip.
        seed: Seed of all clips.
        seconds: Length in s; by default it is drawn from ``SHORTEST`` to ``LONGEST``. Clips that
            are shorter than 2 s may hold no event, and be silent.

    Returns:
        A sound at ``SAMPLE_RATE`` with a peak of -12 to -1 dBFS.
    """
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), number])
    drawn = rng.uniform(SHORTEST, LONGEST)
    n = samples(drawn if seconds is None else seconds)
    sound = KINDS[kind](rng, n)
    if kind in IN_ROOMS and rng.random() < 0.5:
        sound = place(rng, sound)
    if kind not in {"wind", "handling", "rumble", "hum"} and rng.random() < 0.3:  # a distance
        sound = band_pass(sound, log_uniform(rng, 20, 200), log_uniform(rng, 6000, 22000), order=1)
    sound = unit(sound)
    if rng.random() < 0.5:  # a place is seldom silent
        sound += log_uniform(rng, 3e-4, 0.01) * noise(rng, n, -rng.uniform(1, 5))
    sound = 25 * np.tanh(sound / 25)  # peaks of at most 28 dB above the RMS
    peak = 10 ** (rng.uniform(-12, -1) / 20)
    return sound * (peak / max(float(np.abs(sound).max()), 1e-9))
