"""The network on a stream of sound, block by block.

An engine with a finite `reach` carries its state from block to block, so that the result equals
that for the whole recording; its blocks overlap by a fraction of a second. Any other network, such
as one that is recurrent backwards along time, gets seconds of context around every block instead.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Complex, Float

from denoisecli.audio.resampling import fit_length
from denoisecli.audio.stft import istft, stft
from denoisecli.cleaning.engines import MaskEngine, State
from denoisecli.cleaning.transform import Transform, join, linked
from denoisecli.errors import ModelError
from denoisecli.spec.document import Spec
from denoisecli.types import AudioBlock, AudioChannels, AudioVector

Factors = Complex[np.ndarray, "taps frequency frames"]
"""One complex factor per tap and bin; the first tap is the frame itself."""

_Spectrum = Complex[np.ndarray, "bins columns"]

_BINS = 24
"""Number of bins that the taps are applied to at a time, for the cache of the processor."""


@dataclass(frozen=True)
class Blocks:
    """Division of sound into blocks for the network; all lengths are in seconds.

    Attributes:
        length: New sound in a block; it is at least one hop of the STFT.
        before: Context before it, for a network that does not carry its state.
        after: Context after it, likewise.
        lead_in: Sound from the beginning of the recording that the network hears reversed before
            the recording, so that it knows the noise when the recording begins.
        live: Return each block as soon as it is clean, instead of working on several at a time.
    """

    length: float
    before: float = 0.0
    after: float = 0.0
    lead_in: float = 0.0
    live: bool = False


LEAD_IN = 2.0
"""Length of the lead-in for files in seconds. On the validation recordings it raises SI-SDR by
0.14 dB; 4 or 8 s raise it no further."""


CARRIED = Blocks(length=6.5, lead_in=LEAD_IN)
"""For files, with a network that carries its state.

Neighbouring blocks of `speech` share 0.6 s, of which a part is computed twice: longer blocks take
1 to 2 % less time, shorter ones less memory.
"""

WHOLE = Blocks(length=48.0, before=16.0, after=16.0, lead_in=LEAD_IN)
"""For files, with any other network.

A network that is recurrent along time in both directions remembers for long: on validation
recordings of 6 minutes at 0, 5 and 10 dB, the result in blocks differs from that in one piece by
-59, -64 and -67 dB with 12 s of context, by -64, -68 and -72 dB with 16 s.
"""

MAX_ATTENTION_BYTES = 2**29
"""Memory of attention along time above which blocks are shorter than `WHOLE`."""

LIVE = Blocks(length=0.5, before=2.0, after=1.0, live=True)
"""For live sound, with any other network: the context costs time, but the delay is short."""

HOPS = Blocks(length=0.0, live=True)
"""For live sound, with a causal network that carries its state: the shortest delay."""


@dataclass(frozen=True)
class _Block:
    """A block of one channel with its context.

    Attributes:
        sound: Samples; their number is a multiple of the hop, except in the last block.
        start: First sample that is wanted.
        end: Sample after the last one that is wanted.
        first: The recording begins with the block.
        last: The recording ends with the block.
        keep: Sample that the next block begins with.
    """

    sound: AudioVector
    start: int
    end: int
    first: bool
    last: bool
    keep: int


@dataclass(frozen=True)
class _Masked:
    """The spectrum of a block of one channel after the network.

    Attributes:
        noisy: The spectrum before, if it is wanted.
        cleaned: The spectrum.
        block: The block.
        first: Sample of the block that the first frame belongs to.
    """

    noisy: _Spectrum | None
    cleaned: _Spectrum
    block: _Block
    first: int


def blocks_of_files(spec: Spec, *, carries: bool) -> Blocks:
    """Return how to divide a file into blocks.

    Args:
        spec: Spec of the model.
        carries: Whether the network carries its state from block to block.
    """
    if carries:
        return CARRIED
    memory = spec.attention_bytes(WHOLE.before + WHOLE.length + WHOLE.after)
    share = math.sqrt(min(1, MAX_ATTENTION_BYTES / memory)) if memory else 1
    return replace(
        WHOLE, length=share * WHOLE.length, before=share * WHOLE.before, after=share * WHOLE.after
    )


class Masking:
    """A network with the transforms around it, which cleans one channel of one block at a time.

    It keeps nothing from block to block, so that several streams can share it.

    Args:
        spec: Spec of the model.
        engine: Network of the model.
        sample_rate: Sample rate of the sound in Hz (default: that of the model).

    Attributes:
        transform: The STFT, and the sample rate of the sound that is cleaned.
        unit: Samples whose multiples blocks begin at, so that the frames of the STFT and the
            strides of the network along time are those of the whole recording.
    """

    def __init__(self, spec: Spec, engine: MaskEngine, sample_rate: int | None = None) -> None:
        self.spec = spec
        self.ahead = engine.ahead
        self.carries = engine.reach is not None
        self.transform = Transform(spec, sample_rate or spec.audio.sample_rate)
        self._engine = engine
        self._stft_options = self.transform.stft.model_dump()
        self.unit = self.transform.stft.hop_length * spec.total_strides[1]
        # Frames at each end of a block whose window reaches beyond it.
        self._edge = self.transform.edge

    def at(self, sample_rate: int) -> "Masking":
        """Return the same network for sound at another sample rate in Hz."""
        return Masking(self.spec, self._engine, sample_rate)

    def blocks(self, *, live: bool) -> Blocks:
        """Return how to divide a file, or live sound, into blocks."""
        if live:
            return HOPS if self.carries and self.spec.causal else LIVE
        return blocks_of_files(self.spec, carries=self.carries)

    @property
    def overlap(self) -> tuple[int, int] | None:
        """Samples of context on both sides that a block needs if the state is carried."""
        if self._engine.reach is None:
            return None
        # The frames that reach into the block, and what mask, filter and STFT see around them.
        taps = self.spec.output.past_taps, self.spec.output.future_taps
        past, future = (
            (max(frames, tap) + 2 * self._edge - 1) * self.transform.stft.hop_length
            for frames, tap in zip(self._engine.reach, taps, strict=True)
        )
        return past, future

    def submit(self, block: _Block, state: State, *, linked: bool = False) -> Callable[[], _Masked]:
        """Start to clean a block.

        Args:
            block: The block.
            state: State of the channel.
            linked: Whether the noisy spectrum is wanted as well.

        Returns:
            A function that waits for the clean spectrum. It raises ModelError if the network does
            not fit its spec, or returns values that are not finite.
        """
        hop_length = self.transform.stft.hop_length
        sound, timesteps = block.sound, _round_up(block.sound.size, hop_length)
        if sound.size < timesteps:
            sound = fit_length(sound, timesteps)
        spectrum = stft(sound, **self._stft_options)
        heard, rest = self.transform.split(spectrum)
        low, high = 0, spectrum.shape[1]
        arrays: dict[str, np.ndarray] = {}
        if self.carries:  # the frames at the edges are not those of the whole recording
            low += 0 if block.first else self._edge
            high -= 0 if block.last else self._edge
            keep = block.keep // hop_length + self._edge - low
            arrays = {
                "keep": np.array([keep]),
                "begins": np.array([int(block.first)]),
                "ends": np.array([int(block.last)]),
            }
        known = np.ascontiguousarray(self.transform.to_model(heard[:, low:high]))
        parts = known.view(np.float32).reshape(1, *known.shape, 2)
        future = self._engine.submit({"spectrum": parts, **arrays}, state)
        sent = slice(low, high)
        past, ahead = self._engine.reach or (0, 0)
        low += 0 if block.first else past  # the mask begins here
        high -= 0 if block.last else ahead
        noisy = spectrum[:, low:high] if linked else None

        def wait() -> _Masked:
            mask = future.result()["mask"]
            if mask.shape[2] == sent.stop - sent.start:  # of an earlier version, which cut nothing
                mask = mask[:, :, low - sent.start : high - sent.start]
            factors = self._factors(mask, (len(heard), high - low))
            masked = apply_taps(factors, heard, self.spec.output.offsets, low)
            if not np.isfinite(masked).all():
                raise ModelError(f"the model {self.spec.name} returned values that are not finite")
            # Far up, the other taps change the level by 0.02 dB only.
            cleaned = join(masked, None if rest is None else rest[:, low:high], factors[0])
            return _Masked(noisy, cleaned, block, low * hop_length)

        return wait

    def synthesize(self, masked: _Masked, cleaned: _Spectrum) -> AudioVector:
        """Return the samples that are wanted of a block, from its clean spectrum."""
        sound = istft(cleaned, length=masked.block.end - masked.first, **self._stft_options)
        return sound[masked.block.start - masked.first :]

    def _factors(
        self, mask: Float[np.ndarray, "batch _ _ parts"], shape: tuple[int, int]
    ) -> Factors:
        """Convert the output of the network to complex factors for these bins and frames."""
        bins, frames = shape
        expected = (1, self.spec.stft.bins, frames, self.spec.output.parts)
        if mask.shape != expected:
            raise ModelError(
                f"the model {self.spec.name} returned a mask of shape {mask.shape}, but its spec "
                f"requires {expected}"
            )
        mask = mask[:, :bins]
        if self.spec.output.mask == "magnitude":
            return np.moveaxis(mask[0], -1, 0).astype(np.complex64)
        return np.moveaxis(np.ascontiguousarray(mask[0]).view(np.complex64), -1, 0)


def _round_up(timesteps: int | float, unit: int) -> int:
    return math.ceil(timesteps / unit) * unit


def apply_taps(
    factors: Factors,
    spectrum: Complex[np.ndarray, "frequency all_frames"],
    offsets: Sequence[int],
    first: int = 0,
) -> Complex[np.ndarray, "frequency frames"]:
    """Sum the frames at the given offsets from each frame, each times its factor.

    Args:
        factors: Factors for some frames of the spectrum, by offset; the first offset is 0.
        spectrum: The spectrum. Frames beyond its ends count as silence.
        offsets: Frame that each factor applies to, relative to the frame of the result.
        first: Index of the first frame that there are factors for.

    Returns:
        The frames that there are factors for.
    """
    _, bins, frames = factors.shape
    total = np.empty((bins, frames), np.complex64)
    for start in range(0, bins, _BINS):
        rows = slice(start, start + _BINS)
        np.multiply(factors[0, rows], spectrum[rows, first : first + frames], out=total[rows])
        for factor, offset in zip(factors[1:, rows], offsets[1:], strict=True):
            low = max(-first - offset, 0)
            high = min(spectrum.shape[1] - first - offset, frames)
            source = slice(first + offset + low, first + offset + high)
            total[rows, low:high] += factor[:, low:high] * spectrum[rows, source]
    return total


class MaskStream:
    """A stream of sound, cleaned block by block.

    Args:
        masking: The network.
        blocks: Division of the sound into blocks.
        link_channels: Whether all channels get the same gains.

    Attributes:
        delay: Samples by which the output can be behind the input, with live blocks.
    """

    def __init__(self, masking: Masking, blocks: Blocks, *, link_channels: bool = False) -> None:
        sample_rate, n_fft = masking.transform.sample_rate, masking.transform.stft.n_fft
        self._masking, self._link_channels = masking, link_channels
        self._length = max(_round_up(blocks.length * sample_rate, masking.unit), masking.unit)
        if masking.overlap is not None:
            self._before, self._after = masking.overlap
        else:
            self._before = _round_up(blocks.before * sample_rate, masking.unit)
            # The frames that reach back into the block extend n_fft beyond it themselves.
            after = n_fft if masking.spec.causal else max(n_fft, blocks.after * sample_rate)
            self._after = _round_up(after, masking.unit)
        self.delay = self._length + self._after
        self._lead_in = int(blocks.lead_in * sample_rate)  # samples that are still to be reversed
        self._pending: list[AudioBlock] = []
        self._ready = 0  # samples in pending
        self._done = 0  # those of them that are context only
        self._first = True  # pending begins where the recording does
        self._states: list[State] = []
        self._running: deque[Callable[[], AudioChannels]] = deque()
        self._ahead = 0 if blocks.live else masking.ahead

    def process(self, sound: AudioBlock) -> Iterator[AudioChannels]:
        """Take sound, and yield the clean blocks that are ready."""
        self._pending.append(sound)
        self._ready += sound.shape[1]
        if self._lead_in:
            if self._ready <= self._lead_in:
                return
            self._reverse_lead_in()
        while self._ready >= self._done + self._length + self._after:
            sound = np.concatenate(self._pending, axis=1)
            end = self._done + self._length
            done = min(end, self._before)
            self._submit(sound[:, : end + self._after], self._done, end, keep=end - done)
            self._first = self._first and done == end
            self._done = done
            self._pending = [sound[:, end - done :]]
            self._ready = self._pending[0].shape[1]
            while len(self._running) > self._ahead:
                yield self._running.popleft()()

    def finish(self) -> Iterator[AudioChannels]:
        """End the stream, and yield the remaining blocks."""
        if self._lead_in and self._ready:
            self._reverse_lead_in()
        if self._ready > self._done:
            sound = np.concatenate(self._pending, axis=1)
            self._submit(sound, self._done, self._ready, last=True)
        while self._running:
            yield self._running.popleft()()

    def _reverse_lead_in(self) -> None:
        """Put the reversed beginning of the recording in front of it, as context."""
        unit = self._masking.unit
        length = min(self._lead_in, self._ready - 1) // unit * unit
        sound = np.concatenate(self._pending, axis=1)
        self._pending = [np.concatenate([sound[:, length:0:-1], sound], axis=1)]
        self._ready += length
        self._done = length
        self._lead_in = 0

    def _submit(
        self, sound: AudioChannels, start: int, end: int, *, keep: int = 0, last: bool = False
    ) -> None:
        if self._first:
            self._states = [{} for _ in sound]
        link = self._link_channels and len(sound) > 1
        waits = [
            self._masking.submit(
                _Block(channel, start, end, self._first, last, keep), state, linked=link
            )
            for channel, state in zip(sound, self._states, strict=True)
        ]

        def wait_for_all() -> AudioChannels:
            if not link:
                masked = (wait() for wait in waits)  # one after the other needs less memory
                return np.stack([self._masking.synthesize(one, one.cleaned) for one in masked])
            all_masked = [wait() for wait in waits]
            noisy = np.stack([one.noisy for one in all_masked if one.noisy is not None])
            cleaned = linked(noisy, np.stack([one.cleaned for one in all_masked]), 0)
            pairs = zip(all_masked, cleaned, strict=True)
            return np.stack([self._masking.synthesize(*pair) for pair in pairs])

        self._running.append(wait_for_all)
