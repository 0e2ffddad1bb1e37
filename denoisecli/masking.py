"""The network on a stream of sound at its own sample rate, in blocks with context around them."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from denoisecli.audio import fit_length
from denoisecli.engines import MaskEngine
from denoisecli.errors import ModelError
from denoisecli.spec import Spec
from denoisecli.stft import istft, stft
from denoisecli.types import AudioBlock, AudioChannels, AudioVector, ComplexSpectrogram

GAIN_BAND = (0.79, 0.915)
"""Bands whose gain the sound above the model's reach gets, as shares of the top frequency.

They end where the resampler's roll-off begins: 6.3 to 7.3 kHz for a model of 16 kHz.
"""

Gains = Float[np.ndarray, "channels frames"]


@dataclass(frozen=True)
class Blocks:
    """How sound is cut for the network, in seconds.

    Attributes:
        length: new sound in a block.
        before: sound in front of it that the network hears as well.
        after: sound behind it, likewise; a causal model needs no more than a window of it.
        live: give each block as soon as it is clean, instead of working on several at a time.
    """

    length: float
    before: float
    after: float
    live: bool = False


WHOLE = Blocks(length=48.0, before=16.0, after=16.0)
"""For files. Networks that are recurrent along time remember for long: on the validation
recordings, 6 minutes each of 0, 5 and 10 dB in one piece, the bundled model's blocks differed
from the whole by -59, -64 and -67 dB with 12 s of context, by -64, -68 and -72 dB with 16 s."""

LIVE = Blocks(length=1.0, before=2.0, after=1.0, live=True)
"""For sound as it comes: what is heard twice costs time, but the delay is short."""


@dataclass(frozen=True)
class Masked:
    """A piece of sound at the model's rate, before and after the network.

    ``gains`` has a frame per hop, from the first sample up to and with the end of the piece.
    """

    noisy: AudioChannels
    clean: AudioChannels
    gains: Gains


class Masking:
    """The network with the transforms around it, for one channel of one block at a time.

    It keeps nothing from one block to the next, so several streams may share it.
    """

    def __init__(self, spec: Spec, engine: MaskEngine) -> None:
        self.spec = spec
        self.runs = engine.runs
        self._engine = engine
        self._pool = ThreadPoolExecutor(engine.runs) if engine.runs > 1 else None
        self._stft_options: dict[str, Any] = {
            "n_fft": spec.stft.n_fft,
            "hop_length": spec.stft.hop_length,
            "window": spec.stft.window,
        }

    def submit(self, *arguments: Any) -> "Future[tuple[AudioVector, AudioVector]]":
        """Begin :meth:`clean` in another thread, or do it at once where there is none."""
        if self._pool is not None:
            return self._pool.submit(self.clean, *arguments)
        done: Future[tuple[AudioVector, AudioVector]] = Future()
        done.set_result(self.clean(*arguments))
        return done

    def clean(
        self, sound: AudioVector, start: int, end: int, top: float
    ) -> tuple[Float[np.ndarray, "piece"], Float[np.ndarray, "frames"]]:
        """Clean timesteps start..end of ``sound``; the others are context.

        Args:
            sound: one channel at the model's rate.
            start: first timestep wanted, on the STFT's grid.
            end: the timestep behind the last one wanted.
            top: highest frequency in the sound as a share of the model's.

        Returns:
            The clean sound, and the gains as in :class:`Masked`.
        """
        hop_length = self.spec.stft.hop_length
        whole = fit_length(sound, self.hops(sound.size))
        spectrum = stft(whole, **self._stft_options)
        mask = self._mask(spectrum)
        masked = mask * spectrum
        if not np.isfinite(masked).all():
            raise ModelError(f"the model {self.spec.name} gave values that are not finite")
        clean = istft(masked, length=whole.size, **self._stft_options)[start:end]

        bins = [round(share * top * (mask.shape[0] - 1)) for share in GAIN_BAND]
        frames = slice(start // hop_length, self.hops(end) // hop_length + 1)
        gains = np.abs(mask[bins[0] : bins[1] + 1, frames]).mean(axis=0).clip(max=1)
        return clean, gains

    def _mask(self, spectrum: ComplexSpectrogram) -> ComplexSpectrogram:
        mask = self._engine(np.stack([spectrum.real, spectrum.imag], axis=-1)[None])
        size = 2 if self.spec.output.mask == "complex" else 1
        if mask.shape != (1, *spectrum.shape, size):
            raise ModelError(
                f"the model {self.spec.name} gave a mask of shape {mask.shape} where its spec "
                f"says {(1, *spectrum.shape, size)}"
            )
        real = mask[0, ..., 0]
        return real + 1j * mask[0, ..., 1] if size == 2 else real.astype(np.complex64)

    def hops(self, timesteps: int | float) -> int:
        """Round up to the STFT's grid."""
        hop_length = self.spec.stft.hop_length
        return math.ceil(timesteps / hop_length) * hop_length


class MaskStream:
    """Sound at the model's rate in, block by block, and out, as soon as it is clean.

    Blocks begin on the grid of the STFT, so that its frames are those of the whole signal.

    Args:
        masking: the network.
        blocks: how the sound is cut.
        top: highest frequency in the sound as a share of the model's.
    """

    def __init__(self, masking: Masking, blocks: Blocks, top: float) -> None:
        sample_rate, n_fft = masking.spec.audio.sample_rate, masking.spec.stft.n_fft
        self._masking = masking
        self._top = top
        self._length = masking.hops(blocks.length * sample_rate)
        self._before = masking.hops(blocks.before * sample_rate)
        # The frames that reach back into the block themselves reach n_fft beyond it.
        self._after = masking.hops(
            n_fft if masking.spec.causal else max(n_fft, blocks.after * sample_rate)
        )
        self.delay = self._length + self._after
        self._pending: list[AudioBlock] = []
        self._ready = 0  # timesteps in pending
        self._done = 0  # those of them that are context only
        self._running: deque[Callable[[], Masked]] = deque()
        self._ahead = 0 if blocks.live else masking.runs - 1

    def process(self, sound: AudioBlock) -> Iterator[Masked]:
        """Take sound; give what is clean, which is up to ``delay`` timesteps behind."""
        self._pending.append(sound)
        self._ready += sound.shape[1]
        while self._ready >= self._done + self._length + self._after:
            sound = np.concatenate(self._pending, axis=1)
            end = self._done + self._length
            self._begin(sound[:, : end + self._after], self._done, end)
            self._done = min(end, self._before)
            self._pending = [sound[:, end - self._done :]]
            self._ready = self._pending[0].shape[1]
            while len(self._running) > self._ahead:
                yield self._running.popleft()()

    def finish(self) -> Iterator[Masked]:
        """End the stream: give all that is left."""
        if self._ready > self._done:
            sound = np.concatenate(self._pending, axis=1)
            self._begin(sound, self._done, self._ready)
        while self._running:
            yield self._running.popleft()()

    def _begin(self, sound: AudioChannels, start: int, end: int) -> None:
        futures = [self._masking.submit(one, start, end, self._top) for one in sound]
        noisy = sound[:, start:end]

        def wait() -> Masked:
            clean, gains = zip(*(future.result() for future in futures), strict=True)
            return Masked(noisy, np.stack(clean), np.stack(gains))

        self._running.append(wait)
