"""A stream of sound at any sample rate, cleaned block by block."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped

from denoisecli.audio.resampling import StreamResampler
from denoisecli.cleaning.conditioning import Conditioner
from denoisecli.cleaning.engines import FrameEngine
from denoisecli.cleaning.frames import FrameStream
from denoisecli.cleaning.masking import Blocks, Gains, Masked, Masking, MaskStream
from denoisecli.errors import UsageError
from denoisecli.types import AudioBlock

_PIECE_SECONDS = 1.0  # resampled back at a time, which takes memory if the rate is much higher


@dataclass(frozen=True)
class Piece:
    """The same samples of a stream before and after cleaning."""

    noisy: AudioBlock
    clean: AudioBlock


@runtime_checkable
class PieceStream(Protocol):
    """Returns every sample of a recording before and after cleaning."""

    def pieces(self, block: AudioBlock) -> Iterator[Piece]:
        """Take the next samples, and yield those that are ready."""

    def last_pieces(self) -> Iterator[Piece]:
        """End the stream, and yield the remaining samples."""


class DenoiseStream:
    """Clean sound as it arrives; `Denoiser.stream` returns it.

    Sound at a lower rate than the model's is not resampled where the STFT has whole numbers of
    samples at that rate (see `cleaning.transform`). Otherwise it is resampled to the model's rate.
    What that rate cannot represent is the difference between the original and
    its image after resampling to that rate and back: nothing if the rates are equal, the high band
    of a recording at 48 kHz for a model at 16 kHz. It is kept, with the gain that the model applies
    to the band next to it (`masking.GAIN_BAND`).

    Args:
        masking: Network of the model.
        sample_rate: Sample rate of the sound in Hz.
        channels: Number of channels.
        blocks: Division of the sound into blocks for the network.
        amount: Share of what the model removes that is removed, 0..1.
        frames: Network for streams, which is run frame by frame instead of in blocks.

    Raises:
        UsageError: The sample rate or the number of channels is below 1.
    """

    def __init__(
        self,
        masking: Masking,
        sample_rate: int,
        channels: int,
        blocks: Blocks,
        amount: float,
        frames: FrameEngine | None = None,
    ) -> None:
        if not isinstance(sample_rate, int | np.integer):
            raise UsageError(f"the sample rate must be a whole number of Hz, not {sample_rate!r}")
        if sample_rate < 1:
            raise UsageError(f"the sample rate must be at least 1 Hz, not {sample_rate}")
        if channels < 1:
            raise UsageError(f"there must be at least 1 channel, not {channels}")
        masking = masking.at(sample_rate)
        model_rate = masking.transform.sample_rate
        self._channels = channels
        self._ended = False
        self._amount = np.float32(amount)
        self._to_model = StreamResampler(sample_rate, model_rate, channels)
        self._clean_back = StreamResampler(model_rate, sample_rate, channels)
        self._image_back = StreamResampler(model_rate, sample_rate, channels)
        top = min(sample_rate, model_rate) / model_rate
        self._masked: MaskStream | FrameStream = (
            MaskStream(masking, blocks, top)
            if frames is None
            else FrameStream(
                masking.spec,
                frames,
                channels,
                None if sample_rate == model_rate else top,
                sample_rate,
            )
        )
        lead_in = blocks.lead_in if frames is None else 0.0
        self._conditioner = Conditioner(channels, sample_rate, lead_in)
        self._piece = round(_PIECE_SECONDS * model_rate)
        self._heard = _Queue(channels)
        self._gains = _GainCurve(
            channels, model_rate / (sample_rate * masking.transform.stft.hop_length)
        )
        # A few zeros at the end, so that rounding of the lengths loses no sample.
        self._padding = np.zeros((channels, sample_rate // model_rate + 1), np.float32)
        self._rates = sample_rate, model_rate
        self._resampled = sample_rate != model_rate

    def scale_amount(self, factor: float) -> None:
        """Remove this share, 0..1, of what would be removed otherwise; call it before the start."""
        self._amount *= np.float32(factor)

    @cached_property
    def delay(self) -> float:
        """Largest delay of the output in seconds."""
        sample_rate, model_rate = self._rates
        return self._masked.delay / model_rate + _resampling_delay(sample_rate, model_rate)

    def process(self, block: Shaped[np.ndarray, "..."]) -> AudioBlock:
        """Take the next samples, and return those that are ready.

        Args:
            block: Floating-point samples (channels, timesteps), any number of them, all finite.
                They are copied, so that the caller may use the same array for the next block.

        Returns:
            The next float32 samples of the output (channels, timesteps), possibly none.

        Raises:
            UsageError: The block has another shape, the samples are not floating-point numbers,
                or the stream has ended.
        """
        if not np.issubdtype(block.dtype, np.floating):
            raise UsageError(f"samples must be floating point in -1..1, not {block.dtype}")
        if block.ndim != 2 or block.shape[0] != self._channels:
            raise UsageError(
                f"a block must have the shape ({self._channels}, timesteps), which is (channels, "
                f"timesteps), not {block.shape}"
            )
        return self._join(self.pieces(np.array(block, np.float32, order="C")))

    def finish(self) -> AudioBlock:
        """End the stream, and return the remaining samples: as many came out as went in.

        Raises:
            UsageError: The stream has already ended.
        """
        return self._join(self.last_pieces())

    def pieces(self, block: AudioBlock) -> Iterator[Piece]:
        """Do what :meth:`process` does without a copy, and yield the noisy sound beside the clean.

        The stream keeps float32 ``block``, which must not change any more.
        """
        self._require_open()
        yield from self._clean(self._conditioner.process(block))

    def last_pieces(self) -> Iterator[Piece]:
        """Do what :meth:`finish` does, and yield the noisy sound beside the clean."""
        self._require_open()
        self._ended = True
        yield from self._clean(self._conditioner.finish())
        yield from self._resample_back(self._masked.process(self._to_model(self._padding)))
        yield from self._resample_back(self._masked.process(self._to_model.finish()))
        yield from self._resample_back(self._masked.finish())
        yield self._restore(self._clean_back.finish(), self._image_back.finish())

    def _require_open(self) -> None:
        if self._ended:
            raise UsageError("the stream has ended; start another one with Denoiser.stream")

    def _clean(self, heard: AudioBlock) -> Iterator[Piece]:
        self._heard.put(heard)
        yield from self._resample_back(self._masked.process(self._to_model(heard)))

    def _resample_back(self, blocks: Iterator[Masked]) -> Iterator[Piece]:
        for masked in blocks:
            if self._resampled:
                self._gains.append(masked.gains)
            for start in range(0, masked.noisy.shape[1], self._piece):
                part = slice(start, start + self._piece)
                clean = self._clean_back(masked.clean[:, part])
                yield self._restore(clean, self._image_back(masked.noisy[:, part]))

    def _restore(self, clean: AudioBlock, image: AudioBlock) -> Piece:
        """Add what the model's rate cannot represent, and mix the original back in.

        Args:
            clean: The next samples of the clean sound at the rate of the stream.
            image: The same samples of the noisy sound, resampled to the model's rate and back.
        """
        heard = self._heard.take(clean.shape[1])
        timesteps = heard.shape[1]
        clean = clean[:, :timesteps]
        if self._resampled:
            clean = clean + self._gains.take(timesteps) * (heard - image[:, :timesteps])
        noisy, clean = self._conditioner.restore(clean)
        return Piece(noisy, noisy + self._amount * (clean - noisy))

    def _join(self, pieces: Iterator[Piece]) -> AudioBlock:
        nothing = np.zeros((self._channels, 0), np.float32)
        return np.concatenate([nothing, *(piece.clean for piece in pieces)], axis=1)


def _resampling_delay(orig_sr: int, target_sr: int) -> float:
    """Measure the delay of soxr in s from one rate to the other and back; it does not report it."""
    forth, back = StreamResampler(orig_sr, target_sr, 1), StreamResampler(target_sr, orig_sr, 1)
    behind = longest = 0
    step = np.zeros((1, max(1, orig_sr // 1000)), np.float32)
    for _ in range(1000):
        behind += step.shape[1] - back(forth(step)).shape[1]
        longest = max(longest, behind)
    return longest / orig_sr


class _GainCurve:
    """Gains per hop, interpolated linearly to gains per sample.

    Args:
        channels: Number of channels.
        hops: Hops per sample.
    """

    def __init__(self, channels: int, hops: float) -> None:
        self._hops = hops
        self._gains: Gains = np.ones((channels, 1), np.float32)
        self._first = 0  # frame of the first gain that is kept
        self._position = 0  # samples whose gains were taken

    def append(self, gains: Gains) -> None:
        """Append frames; the first one replaces the last one so far: it is of the same instant."""
        self._gains = np.concatenate([self._gains[:, :-1], gains], axis=1)

    def take(self, timesteps: int) -> AudioBlock:
        """Return the gains of the next samples."""
        frame = (self._position + np.arange(timesteps)) * self._hops - self._first
        frames = np.arange(self._gains.shape[1])
        gains = np.stack([np.interp(frame, frames, channel) for channel in self._gains])

        self._position += timesteps
        passed = min(int(self._position * self._hops) - self._first, self._gains.shape[1] - 1)
        self._gains = self._gains[:, passed:]
        self._first += passed
        return gains.astype(np.float32)


class _Queue:
    """Blocks of samples, from which any number of samples is taken."""

    def __init__(self, channels: int) -> None:
        self._blocks: deque[AudioBlock] = deque()
        self._nothing = np.zeros((channels, 0), np.float32)

    def put(self, block: AudioBlock) -> None:
        """Append a block."""
        self._blocks.append(block)

    def take(self, timesteps: int) -> AudioBlock:
        """Remove and return up to this number of samples per channel."""
        taken = [self._nothing]
        while self._blocks and timesteps > 0:
            block = self._blocks.popleft()
            if block.shape[1] > timesteps:
                self._blocks.appendleft(block[:, timesteps:])
                block = block[:, :timesteps]
            taken.append(block)
            timesteps -= block.shape[1]
        return np.concatenate(taken, axis=1)
