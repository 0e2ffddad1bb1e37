"""A stream of sound at any sample rate, cleaned block by block."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped

from denoisecli.audio.reading import require_valid
from denoisecli.cleaning.checks import require_sample_rate, require_whole
from denoisecli.cleaning.conditioning import Conditioner
from denoisecli.cleaning.engines import FrameEngine
from denoisecli.cleaning.frames import FrameStream
from denoisecli.cleaning.masking import Blocks, Masking, MaskStream
from denoisecli.errors import UsageError
from denoisecli.types import AudioBlock


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

    The sound is not resampled (see `cleaning.transform`). What lies above the model's highest
    frequency is kept, with the gain that the model applies to the band next to it.

    Args:
        masking: Network of the model.
        sample_rate: Sample rate of the sound in Hz.
        channels: Number of channels.
        blocks: Division of the sound into blocks for the network.
        amount: Share of what the model removes that is removed, 0..1.
        frames: Network for streams, which is run frame by frame instead of in blocks.
        link_channels: Whether all channels get the same gains.

    Attributes:
        delay: Largest delay of the output in seconds.

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
        link_channels: bool = False,
    ) -> None:
        require_sample_rate(sample_rate)
        require_whole(channels, "the number of channels")
        if channels < 1:
            raise UsageError(f"there must be at least 1 channel, not {channels}")
        self._channels = channels
        self._sample_rate = sample_rate
        self._taken = 0
        self._ended = False
        self._amount = np.float32(amount)
        self._masked: MaskStream | FrameStream = (
            MaskStream(masking.at(sample_rate), blocks, link_channels=link_channels)
            if frames is None
            else FrameStream(
                masking.spec, frames, channels, sample_rate, link_channels=link_channels
            )
        )
        lead_in = blocks.lead_in if frames is None else 0.0
        self._conditioner = Conditioner(channels, sample_rate, lead_in)
        self.delay = self._masked.delay / sample_rate

    def scale_amount(self, factor: float) -> None:
        """Remove this share, 0..1, of what would be removed otherwise; call it before the start."""
        self._amount *= np.float32(factor)

    def process(self, block: Shaped[np.ndarray, "..."]) -> AudioBlock:
        """Take the next samples, and return those that are ready.

        Args:
            block: Floating-point samples (channels, timesteps), any number of them, all finite.
                They are copied, so that the caller may use the same array for the next block.

        Returns:
            The next float32 samples of the output (channels, timesteps), possibly none.

        Raises:
            UsageError: The block is not an array or has another shape, the samples are not
                floating-point numbers, or the stream has ended.
            AudioError: There are samples that are NaN, infinite or above 1e10.
        """
        if not isinstance(block, np.ndarray):
            raise UsageError(f"a block must be a NumPy array, not {type(block).__name__}")
        if not np.issubdtype(block.dtype, np.floating):
            raise UsageError(f"samples must be floating point in -1..1, not {block.dtype}")
        if block.ndim != 2 or block.shape[0] != self._channels:
            raise UsageError(
                f"a block must have the shape ({self._channels}, timesteps), which is (channels, "
                f"timesteps), not {block.shape}"
            )
        copy = np.array(block, np.float32, order="C")
        require_valid(copy, self._sample_rate, where="the stream", start=self._taken)
        self._taken += copy.shape[1]
        return self._join(self.pieces(copy))

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
        yield from self._restore(self._masked.finish())

    def _require_open(self) -> None:
        if self._ended:
            raise UsageError("the stream has ended; start another one with Denoiser.stream")

    def _clean(self, heard: AudioBlock) -> Iterator[Piece]:
        yield from self._restore(self._masked.process(heard))

    def _restore(self, blocks: Iterator[AudioBlock]) -> Iterator[Piece]:
        """Restore the level of clean blocks, and mix the original back in."""
        for block in blocks:
            noisy, clean = self._conditioner.restore(block)
            if self._amount != 1:
                clean = noisy + self._amount * (clean - noisy)
            yield Piece(noisy, clean)

    def _join(self, pieces: Iterator[Piece]) -> AudioBlock:
        blocks = [piece.clean for piece in pieces]
        if len(blocks) == 1:
            return blocks[0]
        return np.concatenate([np.zeros((self._channels, 0), np.float32), *blocks], axis=1)
