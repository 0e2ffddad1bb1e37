"""Noisy audio in, clean audio out, block by block."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped

from denoisecli import audio as audio_files
from denoisecli.audio import AudioBlock, StreamResampler, dbfs
from denoisecli.errors import AudioError, UsageError
from denoisecli.masking import Gains, Masking, OnnxEngine
from denoisecli.models import find_model
from denoisecli.spec import load_spec

Progress = Callable[[float, float], None]
"""Called with the seconds of audio done and in all."""


@dataclass(frozen=True)
class CleanResult:
    """What :meth:`Denoiser.clean_file` did.

    Attributes:
        source: the noisy file.
        target: the cleaned file.
        seconds: length of the audio in s.
        wall_seconds: time it took in s.
        rms_in_dbfs: level of the input; -inf for digital silence.
        rms_out_dbfs: level of the output.
        clipped_samples: samples that passed full scale and were clamped to it.
    """

    source: Path
    target: Path
    seconds: float
    wall_seconds: float
    rms_in_dbfs: float
    rms_out_dbfs: float
    clipped_samples: int

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of audio."""
        return self.wall_seconds / self.seconds


class Denoiser:
    """Takes the noise out of sound of any length, sample rate and number of channels.

    Args:
        model: a model folder, or the name of a bundled model.
        strength: 0..1, how much of the noise is taken out: 1 gives what the model makes of it,
            0 the input.
        threads: CPU threads; by default one per core.
        device: "cpu" or "gpu".

    Raises:
        UsageError: no such model or device, or ``strength`` is out of range.
        SpecError, ModelError: the model folder is damaged.
    """

    def __init__(
        self,
        model: str | Path = "speech",
        *,
        strength: float = 1.0,
        threads: int | None = None,
        device: Literal["cpu", "gpu"] = "cpu",
    ) -> None:
        if not 0 <= strength <= 1:
            raise UsageError(f"strength must be between 0 and 1, not {strength:g}")
        folder = find_model(model)
        self.spec = load_spec(folder / "spec.json")
        self.strength = strength
        engine = OnnxEngine(folder / "model.onnx", threads=threads, device=device)
        self._masking = Masking(self.spec, engine)

    def clean(
        self, audio: Shaped[np.ndarray, "*channels timesteps"], sample_rate: int
    ) -> Float[np.ndarray, "*channels timesteps"]:
        """Clean a sound in memory.

        Args:
            audio: floating-point samples (timesteps,) or (channels, timesteps), full scale -1..1.
            sample_rate: Hz.

        Returns:
            float32 samples of the same shape. They may pass full scale a little where the input
            comes near to it.

        Raises:
            AudioError: no samples, samples that are no floating-point numbers, NaN or infinite.
        """
        if not np.issubdtype(audio.dtype, np.floating):
            raise AudioError(f"samples must be floating point in -1..1, not {audio.dtype}")
        if audio.ndim not in (1, 2) or audio.size == 0:
            raise AudioError(
                "audio must have the shape (timesteps,) or (channels, timesteps) and at least one "
                f"sample, not {audio.shape}"
            )
        channels = np.atleast_2d(audio).astype(np.float32, copy=False)
        audio_files.require_finite(channels, sample_rate)
        step = audio_files.BLOCK_FRAMES
        blocks = (channels[:, i : i + step] for i in range(0, channels.shape[1], step))
        cleaned = np.concatenate(list(self.stream(blocks, sample_rate)), axis=1)
        return cleaned.reshape(audio.shape)

    def clean_file(
        self,
        source: Path | str,
        target: Path | str,
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> CleanResult:
        """Clean an audio file of any length; memory does not grow with it.

        Sample rate, channels and length stay as they are, to the sample. The format follows the
        target's suffix, with the source's bit depth or the nearest there is.

        Args:
            source: the noisy file.
            target: the cleaned file; it appears only when it is whole.
            overwrite: replace an existing ``target`` (which may be ``source``).
            progress: called after every block.

        Raises:
            UsageError: ``source`` is missing, ``target`` exists, or its format is unknown or
                cannot hold the sample rate or number of channels.
            AudioError: ``source`` is damaged, empty, or has samples that are NaN or infinite.
            DenoiseError: ``target`` cannot be written.
        """
        source, target = Path(source), Path(target)
        start = time.perf_counter()
        info = audio_files.probe(source)
        meter_in, meter_out = _Meter(), _Meter()
        with audio_files.writer(
            target,
            info.sample_rate,
            info.channels,
            frames=info.frames,
            subtype=audio_files.nearest_subtype(target, info.subtype),
            overwrite=overwrite,
        ) as output:
            blocks = map(meter_in, audio_files.read_blocks(source))
            for block in self.stream(blocks, info.sample_rate):
                output.write(meter_out(block))
                if progress is not None:
                    progress(meter_out.timesteps / info.sample_rate, info.duration)
        return CleanResult(
            source=source,
            target=target,
            seconds=meter_out.timesteps / info.sample_rate,
            wall_seconds=time.perf_counter() - start,
            rms_in_dbfs=meter_in.dbfs,
            rms_out_dbfs=meter_out.dbfs,
            clipped_samples=output.clipped,
        )

    def stream(self, blocks: Iterable[AudioBlock], sample_rate: int) -> Iterator[AudioBlock]:
        """Clean a stream of blocks: the core of all the above.

        What the model cannot hear, because the two rates differ, is the original less its own
        image after resampling there and back: nothing when the rates are equal, the high band
        of a 48 kHz recording for a 16 kHz model. It is kept, with the gain that the model gives
        to the bands next to it (GAIN_BAND).

        Args:
            blocks: float32 samples (channels, any number of timesteps), all finite.
            sample_rate: Hz.

        Yields:
            Blocks of other lengths, but as many timesteps in all, aligned with the input.
        """
        if sample_rate < 1:
            raise UsageError(f"the sample rate must be at least 1 Hz, not {sample_rate}")
        blocks = iter(blocks)
        first = next(blocks, None)
        if first is None:
            return
        channels = len(first)
        model_rate = self.spec.audio.sample_rate
        there = StreamResampler(sample_rate, model_rate, channels)
        back = StreamResampler(model_rate, sample_rate, 2 * channels)
        original = _Queue()
        gains = _GainCurve(channels, model_rate / (sample_rate * self.spec.stft.hop_length))

        def heard() -> Iterator[AudioBlock]:
            for block in chain([first], blocks):
                original.put(block)
                yield there(block)
            # A few zeros more, so that rounding on the way there and back loses no sample.
            yield there(np.zeros((channels, sample_rate // model_rate + 1), np.float32))
            yield there.finish()

        top = min(sample_rate, model_rate) / model_rate
        for masked in self._masking(heard(), top):
            gains.append(masked.gains)
            pair = np.concatenate([masked.clean, masked.noisy])
            yield self._rejoin(original, back(pair), gains)
        yield self._rejoin(original, back.finish(), gains)

    def _rejoin(
        self,
        original: "_Queue",
        pair: Float[np.ndarray, "pair_channels _"],
        gains: "_GainCurve",
    ) -> AudioBlock:
        """Give the next timesteps of the output, from the clean sound over the noisy image."""
        noisy = original.take(pair.shape[1])
        channels, timesteps = noisy.shape
        clean, image = pair[:channels, :timesteps], pair[channels:, :timesteps]
        clean = clean + gains.take(timesteps) * (noisy - image)
        return noisy + np.float32(self.strength) * (clean - noisy)


class _GainCurve:
    """Gains per hop, interpolated linearly to gains per timestep; ``hops`` is hops a timestep."""

    def __init__(self, channels: int, hops: float) -> None:
        self._hops = hops
        self._gains: Gains = np.ones((channels, 1), np.float32)
        self._first = 0  # frame number of the first gain kept
        self._position = 0  # timesteps taken

    def append(self, gains: Gains) -> None:
        """Add frames; the first of them replaces the last one there was, at the same instant."""
        self._gains = np.concatenate([self._gains[:, :-1], gains], axis=1)

    def take(self, timesteps: int) -> AudioBlock:
        """Give the gains of the next timesteps."""
        frame = (self._position + np.arange(timesteps)) * self._hops - self._first
        frames = np.arange(self._gains.shape[1])
        gains = np.stack([np.interp(frame, frames, channel) for channel in self._gains])

        self._position += timesteps
        passed = min(int(self._position * self._hops) - self._first, self._gains.shape[1] - 1)
        self._gains = self._gains[:, passed:]
        self._first += passed
        return gains.astype(np.float32)


class _Queue:
    """Blocks in, as many timesteps out as are wanted and there."""

    def __init__(self) -> None:
        self._blocks: list[AudioBlock] = []

    def put(self, block: AudioBlock) -> None:
        self._blocks.append(block)

    def take(self, timesteps: int) -> AudioBlock:
        sound = np.concatenate(self._blocks, axis=1)
        self._blocks = [sound[:, timesteps:]]
        return sound[:, :timesteps]


class _Meter:
    """Passes blocks through and measures their level."""

    def __init__(self) -> None:
        self.timesteps = 0
        self._energy = 0.0
        self._samples = 0

    def __call__(self, block: AudioBlock) -> AudioBlock:
        self.timesteps += block.shape[1]
        self._samples += block.size
        self._energy += float(np.square(block, dtype=np.float64).sum())
        return block

    @property
    def dbfs(self) -> float:
        return dbfs(math.sqrt(self._energy / self._samples))
