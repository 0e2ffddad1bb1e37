"""The network on a stream of sound at its own sample rate, block by block.

An engine with a finite `reach` carries its state from block to block, so that the result is that
for the whole sound; blocks overlap by a fraction of a second. Other networks (recurrent backwards
along time, or attending along time) hear seconds of context around every block instead.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Complex, Float

from denoisecli.audio.resampling import fit_length
from denoisecli.audio.stft import istft, stft
from denoisecli.cleaning.engines import MaskEngine, States
from denoisecli.errors import ModelError
from denoisecli.spec.document import Spec
from denoisecli.types import AudioBlock, AudioChannels, AudioVector, ComplexSpectrogram

GAIN_BAND = (0.79, 0.915)
"""Bands whose gain the sound above the model's reach gets, as shares of the top frequency.

They end where the resampler's roll-off begins: 6.3 to 7.3 kHz for a model of 16 kHz.
"""

Gains = Float[np.ndarray, "channels frames"]
Factors = Complex[np.ndarray, "taps frequency frames"]
"""One complex factor per tap and bin, the one of the frame itself first."""


@dataclass(frozen=True)
class Blocks:
    """How sound is cut for the network, in seconds.

    Attributes:
        length: new sound in a block; at least a hop of the STFT is taken.
        before: sound in front of it that a network hears as well that does not carry its state.
        after: sound behind it, likewise.
        live: give each block as soon as it is clean, instead of working on several at a time.
    """

    length: float
    before: float = 0.0
    after: float = 0.0
    live: bool = False


CARRIED = Blocks(length=6.0)
"""For files, with a network that carries its state."""

WHOLE = Blocks(length=48.0, before=16.0, after=16.0)
"""For files, with any other. Networks that are recurrent along time in both directions remember
for long: on the validation recordings, 6 minutes each of 0, 5 and 10 dB in one piece, blocks of
such a one differed from the whole by -59, -64 and -67 dB with 12 s of context, by -64, -68 and
-72 dB with 16 s."""

LIVE = Blocks(length=0.5, before=2.0, after=1.0, live=True)
"""For sound as it comes: what is heard twice costs time, but the delay is short."""

HOPS = Blocks(length=0.0, live=True)
"""For sound as it comes, with a causal network: the shortest delay there is."""


@dataclass(frozen=True)
class Masked:
    """A piece of sound at the model's rate, before and after the network.

    ``gains`` has a frame per hop, from the first sample up to and with the end of the piece.
    """

    noisy: AudioChannels
    clean: AudioChannels
    gains: Gains


@dataclass(frozen=True)
class _Block:
    """A block of one channel: ``sound`` with timesteps ``start`` to ``end`` of it wanted.

    ``begins`` and ``ends`` say whether the whole sound does so with it; the next block's sound
    begins with timestep ``keep``. All but the end of the whole sound is on the STFT's grid.
    """

    sound: AudioVector
    start: int
    end: int
    begins: bool
    ends: bool
    keep: int


class Masking:
    """The network with the transforms around it, for one channel of one block at a time.

    It keeps nothing from one block to the next, so several streams may share it.
    """

    def __init__(self, spec: Spec, engine: MaskEngine) -> None:
        self.spec = spec
        self.runs = engine.runs
        self.carries = engine.reach is not None
        self.stages = engine.stages
        self._engine = engine
        self._pool = ThreadPoolExecutor(engine.runs) if engine.runs > 1 else None
        self._stft_options: dict[str, Any] = {
            "n_fft": spec.stft.n_fft,
            "hop_length": spec.stft.hop_length,
            "window": spec.stft.window,
        }
        # Frames at the ends of a block whose window reaches over them.
        self._edge = math.ceil(spec.stft.n_fft / 2 / spec.stft.hop_length)

    def blocks(self, *, live: bool) -> Blocks:
        """Choose how to cut sound: for a file, or as it comes."""
        if live:
            return HOPS if self.carries and self.spec.causal else LIVE
        return CARRIED if self.carries else WHOLE

    @property
    def overlap(self) -> tuple[int, int] | None:
        """Timesteps of context that a block needs on either side, with a state carried on."""
        if self._engine.reach is None:
            return None
        # The frames that reach into the block, and what mask, filter and STFT see of theirs.
        taps = self.spec.output.past_taps, self.spec.output.future_taps
        past, future = (
            (max(frames, tap) + 2 * self._edge - 1) * self.spec.stft.hop_length
            for frames, tap in zip(self._engine.reach, taps, strict=True)
        )
        return past, future

    def submit(
        self, block: _Block, top: float, before: States | None, after: States
    ) -> "Future[tuple[AudioVector, Gains]]":
        """Begin :meth:`clean` in another thread, or do it at once where there is none."""
        if self._pool is not None:
            return self._pool.submit(self.clean, block, top, before, after)
        done: Future[tuple[AudioVector, Gains]] = Future()
        done.set_result(self.clean(block, top, before, after))
        return done

    def clean(
        self, block: _Block, top: float, before: States | None, after: States
    ) -> tuple[Float[np.ndarray, "piece"], Float[np.ndarray, "frames"]]:
        """Clean the timesteps of a block that are wanted.

        Args:
            block: the block.
            top: highest frequency in the sound as a share of the model's.
            before: the network's states before the block; None where the sound begins.
            after: is given the states for the next block, as soon as they are known.

        Returns:
            The clean sound, and the gains as in :class:`Masked`.
        """
        try:
            hop_length = self.spec.stft.hop_length
            whole = fit_length(block.sound, self.hops(block.sound.size))
            spectrum = stft(whole, **self._stft_options)
            masks = self._masks(spectrum, block, before, after)
        except BaseException as error:
            for state in after:
                if not state.done():
                    state.set_exception(error)
            raise
        masked = filtered(masks, spectrum, self.spec.output.offsets)
        if not np.isfinite(masked).all():
            raise ModelError(f"the model {self.spec.name} gave values that are not finite")
        clean = istft(masked, length=whole.size, **self._stft_options)[block.start : block.end]

        mask = masks[0]  # up there taps change the bundled model's level by 0.02 dB
        bins = [round(share * top * (mask.shape[0] - 1)) for share in GAIN_BAND]
        frames = slice(block.start // hop_length, self.hops(block.end) // hop_length + 1)
        gains = np.abs(mask[bins[0] : bins[1] + 1, frames]).mean(axis=0).clip(max=1)
        return clean, gains

    def _masks(
        self,
        spectrum: ComplexSpectrogram,
        block: _Block,
        before: States | None,
        after: States,
    ) -> Factors:
        parts = np.stack([spectrum.real, spectrum.imag], axis=-1)[None]
        if self.carries:
            low = 0 if block.begins else self._edge
            high = parts.shape[2] - (0 if block.ends else self._edge)
            keep = block.keep // self.spec.stft.hop_length + self._edge - low
            inner = self._engine.carry(parts[:, :, low:high], before, after, keep)
            edges = (low, parts.shape[2] - high)
            mask = np.pad(inner, [(0, 0), (0, 0), edges, (0, 0)])
        else:
            mask = self._engine(parts)
        size = self.spec.output.parts
        if mask.shape != (1, *spectrum.shape, size):
            raise ModelError(
                f"the model {self.spec.name} gave a mask of shape {mask.shape} where its spec "
                f"says {(1, *spectrum.shape, size)}"
            )
        if self.spec.output.mask == "magnitude":
            return np.moveaxis(mask[0], -1, 0).astype(np.complex64)
        numbers = np.ascontiguousarray(mask[0]).view(np.complex64)
        return np.moveaxis(numbers, -1, 0)

    def hops(self, timesteps: int | float) -> int:
        """Round up to the STFT's grid."""
        hop_length = self.spec.stft.hop_length
        return math.ceil(timesteps / hop_length) * hop_length


def filtered(
    factors: Factors, spectrum: ComplexSpectrogram, offsets: Sequence[int]
) -> ComplexSpectrogram:
    """Sum the frames at offsets from each frame, each times its factor.

    Beyond the ends there is silence.
    """
    total = factors[0] * spectrum
    for factor, offset in zip(factors[1:], offsets[1:], strict=True):
        if offset < 0:
            total[:, -offset:] += factor[:, -offset:] * spectrum[:, :offset]
        else:
            total[:, :-offset] += factor[:, :-offset] * spectrum[:, offset:]
    return total


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
        self._length = max(masking.hops(blocks.length * sample_rate), masking.spec.stft.hop_length)
        if masking.overlap is not None:
            self._before, self._after = masking.overlap
        else:
            self._before = masking.hops(blocks.before * sample_rate)
            # The frames that reach back into the block themselves reach n_fft beyond it.
            self._after = masking.hops(
                n_fft if masking.spec.causal else max(n_fft, blocks.after * sample_rate)
            )
        self.delay = self._length + self._after
        self._pending: list[AudioBlock] = []
        self._ready = 0  # timesteps in pending
        self._done = 0  # those of them that are context only
        self._position = 0  # timestep of the sound that pending begins with
        self._states: list[States | None] | None = None
        self._running: deque[Callable[[], Masked]] = deque()
        self._ahead = 0 if blocks.live else masking.runs - 1

    def process(self, sound: AudioBlock) -> Iterator[Masked]:
        """Take sound; give what is clean, which is up to ``delay`` timesteps behind."""
        self._pending.append(sound)
        self._ready += sound.shape[1]
        while self._ready >= self._done + self._length + self._after:
            sound = np.concatenate(self._pending, axis=1)
            end = self._done + self._length
            done = min(end, self._before)
            self._begin(sound[:, : end + self._after], self._done, end, keep=end - done)
            self._position += end - done
            self._done = done
            self._pending = [sound[:, end - done :]]
            self._ready = self._pending[0].shape[1]
            while len(self._running) > self._ahead:
                yield self._running.popleft()()

    def finish(self) -> Iterator[Masked]:
        """End the stream: give all that is left."""
        if self._ready > self._done:
            sound = np.concatenate(self._pending, axis=1)
            self._begin(sound, self._done, self._ready, ends=True)
        while self._running:
            yield self._running.popleft()()

    def _begin(
        self, sound: AudioChannels, start: int, end: int, *, keep: int = 0, ends: bool = False
    ) -> None:
        begins = self._position == 0
        if self._states is None or begins:
            self._states = [None] * len(sound)
        futures = []
        for index, one in enumerate(sound):
            before = self._states[index]
            after: States = tuple(Future() for _ in range(self._masking.stages))
            block = _Block(one, start, end, begins, ends, keep)
            futures.append(self._masking.submit(block, self._top, before, after))
            self._states[index] = after
        noisy = sound[:, start:end]

        def wait() -> Masked:
            clean, gains = zip(*(future.result() for future in futures), strict=True)
            return Masked(noisy, np.stack(clean), np.stack(gains))

        self._running.append(wait)
