"""Noisy sound in, clean sound out, block by block, at any sample rate."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from denoisecli.audio.resampling import StreamResampler
from denoisecli.cleaning.masking import Blocks, Gains, Masked, Masking, MaskStream
from denoisecli.errors import UsageError
from denoisecli.types import AudioBlock

_PIECE_SECONDS = 1.0  # what is resampled back at a time: the memory of this is at the higher rate


@dataclass(frozen=True)
class Piece:
    """Sound before and after cleaning, the same timesteps of it."""

    noisy: AudioBlock
    clean: AudioBlock


class DenoiseStream:
    """Cleans sound as it comes; made by ``Denoiser.stream``.

    What the model cannot hear, because the two rates differ, is the original less its own image
    after resampling there and back: nothing when the rates are equal, the high band of a 48 kHz
    recording for a 16 kHz model. It is kept, with the gain that the model gives to the bands next
    to it (masking.GAIN_BAND).

    Args:
        masking: the network.
        sample_rate: Hz.
        channels: number of channels.
        blocks: how the sound is cut for the network.
        amount: 0..1, how much of what the model takes out is taken out.
    """

    def __init__(
        self, masking: Masking, sample_rate: int, channels: int, blocks: Blocks, amount: float
    ) -> None:
        if sample_rate < 1:
            raise UsageError(f"the sample rate must be at least 1 Hz, not {sample_rate}")
        if channels < 1:
            raise UsageError(f"there must be at least 1 channel, not {channels}")
        model_rate = masking.spec.audio.sample_rate
        self._channels = channels
        self._amount = np.float32(amount)
        self._there = StreamResampler(sample_rate, model_rate, channels)
        self._back = StreamResampler(model_rate, sample_rate, 2 * channels)
        self._masked = MaskStream(masking, blocks, min(sample_rate, model_rate) / model_rate)
        self._piece = round(_PIECE_SECONDS * model_rate)
        self._original = _Queue(channels)
        self._gains = _GainCurve(
            channels, model_rate / (sample_rate * masking.spec.stft.hop_length)
        )
        # A few zeros at the end, so that rounding on the way there and back loses no sample.
        self._padding = np.zeros((channels, sample_rate // model_rate + 1), np.float32)
        self._rates = sample_rate, model_rate
        self._resampled = sample_rate != model_rate

    @cached_property
    def delay(self) -> float:
        """Seconds by which the output is at most behind the input."""
        sample_rate, model_rate = self._rates
        return self._masked.delay / model_rate + _resampling_delay(sample_rate, model_rate)

    def process(self, block: AudioBlock) -> AudioBlock:
        """Take the next samples; give those that are clean by now, maybe none.

        Args:
            block: float32 samples (channels, any number of timesteps), all finite.

        Returns:
            float32 samples (channels, timesteps), in line with the input but later.
        """
        return self._joined(self.pieces(block))

    def finish(self) -> AudioBlock:
        """End the stream: give all samples still held back, so that none is missing."""
        return self._joined(self.last_pieces())

    def pieces(self, block: AudioBlock) -> Iterator[Piece]:
        """Do as :meth:`process`, in pieces and with the noisy sound beside the clean."""
        if block.shape[0] != self._channels:
            raise UsageError(f"the stream has {self._channels} channels, not {block.shape[0]}")
        self._original.put(block)
        yield from self._rejoined(self._masked.process(self._there(block)))

    def last_pieces(self) -> Iterator[Piece]:
        """Do as :meth:`finish`, in pieces and with the noisy sound beside the clean."""
        yield from self._rejoined(self._masked.process(self._there(self._padding)))
        yield from self._rejoined(self._masked.process(self._there.finish()))
        yield from self._rejoined(self._masked.finish())
        yield self._rejoin(self._back.finish())

    def _rejoined(self, blocks: Iterator[Masked]) -> Iterator[Piece]:
        for masked in blocks:
            if self._resampled:
                self._gains.append(masked.gains)
            for start in range(0, masked.noisy.shape[1], self._piece):
                part = slice(start, start + self._piece)
                pair = np.concatenate([masked.clean[:, part], masked.noisy[:, part]])
                yield self._rejoin(self._back(pair))

    def _rejoin(self, pair: Float[np.ndarray, "pair_channels _"]) -> Piece:
        """Give the next timesteps of the output, from the clean sound over the noisy image."""
        noisy = self._original.take(pair.shape[1])
        channels, timesteps = noisy.shape
        clean, image = pair[:channels, :timesteps], pair[channels:, :timesteps]
        if self._resampled:  # or else the model heard everything
            clean = clean + self._gains.take(timesteps) * (noisy - image)
        return Piece(noisy, noisy + self._amount * (clean - noisy))

    def _joined(self, pieces: Iterator[Piece]) -> AudioBlock:
        nothing = np.zeros((self._channels, 0), np.float32)
        return np.concatenate([nothing, *(piece.clean for piece in pieces)], axis=1)


def _resampling_delay(orig_sr: int, target_sr: int) -> float:
    """Find out how many seconds soxr keeps on the way there and back; it does not say."""
    there, back = StreamResampler(orig_sr, target_sr, 1), StreamResampler(target_sr, orig_sr, 1)
    behind = longest = 0
    step = np.zeros((1, max(1, orig_sr // 1000)), np.float32)
    for _ in range(1000):
        behind += step.shape[1] - back(there(step)).shape[1]
        longest = max(longest, behind)
    return longest / orig_sr


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

    def __init__(self, channels: int) -> None:
        self._blocks: deque[AudioBlock] = deque()
        self._nothing = np.zeros((channels, 0), np.float32)

    def put(self, block: AudioBlock) -> None:
        self._blocks.append(block)

    def take(self, timesteps: int) -> AudioBlock:
        """Give up to so many timesteps."""
        taken = [self._nothing]
        while self._blocks and timesteps > 0:
            block = self._blocks.popleft()
            if block.shape[1] > timesteps:
                self._blocks.appendleft(block[:, timesteps:])
                block = block[:, :timesteps]
            taken.append(block)
            timesteps -= block.shape[1]
        return np.concatenate(taken, axis=1)
