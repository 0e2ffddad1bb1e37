"""The network on a stream of sound, frame by frame.

Every frame of the STFT costs the same: the network carries what it remembers of earlier frames
(`models.export.onnx_stream`), and the transforms carry their overlap. The result is that of
`masking` for the whole recording, to float32 rounding.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np
from jaxtyping import Complex, Float

from denoisecli.audio.stft import check_invertible, window_vector
from denoisecli.cleaning.engines import FrameEngine
from denoisecli.cleaning.transform import Transform, join, linked
from denoisecli.errors import ModelError
from denoisecli.spec.document import Spec
from denoisecli.types import AudioBlock, AudioVector

_Frame = Complex[np.ndarray, "bins channels"]


class FrameStream:
    """A stream of sound, cleaned frame by frame.

    Args:
        spec: Spec of the model.
        engine: The network.
        channels: Number of channels.
        sample_rate: Sample rate of the sound in Hz (default: that of the model).
        link_channels: Whether all channels get the same gains.

    Attributes:
        delay: Samples by which the output can be behind the input.
    """

    def __init__(
        self,
        spec: Spec,
        engine: FrameEngine,
        channels: int,
        sample_rate: int | None = None,
        *,
        link_channels: bool = False,
    ) -> None:
        self._transform = Transform(spec, sample_rate or spec.audio.sample_rate)
        stft = self._transform.stft
        check_invertible(stft.n_fft, stft.hop_length, stft.window)
        self._spec, self._engine = spec, engine
        self._link_channels = link_channels and channels > 1
        self._n_fft, self._hop = stft.n_fft, stft.hop_length
        self._half = stft.n_fft // 2
        self.delay = stft.n_fft + engine.delay * self._hop
        self._window = window_vector(stft.window, stft.n_fft)
        self._state = engine.start(channels)
        # The sound from the beginning of the next frame on.
        self._sound: AudioBlock = np.zeros((channels, self._half), np.float32)
        self._received = self._returned = 0  # samples
        # Sum of the windowed frames, from the first sample that may grow.
        self._sum: AudioBlock = np.zeros((channels, self._n_fft), np.float32)
        self._weights = _weights(self._window, self._hop)
        self._frames = 0  # that are in the sum
        self._skipped = self._half  # samples of the sums that lie before the sound
        # The pending frames, and their parts that bypass the network.
        self._pending: deque[tuple[_Frame, _Frame | None]] = deque()

    def process(self, sound: AudioBlock) -> Iterator[AudioBlock]:
        """Take sound, and yield the clean sound that is ready."""
        clean = self._analyse(sound)
        self._returned += clean.shape[1]
        if clean.size:
            yield clean

    def finish(self) -> Iterator[AudioBlock]:
        """End the stream, and yield the rest."""
        length = self._received - self._returned
        if length == 0:
            return
        padding = -self._received % self._hop + self._half  # up to the end of the last frame
        channels = len(self._sound)
        clean = self._analyse(np.zeros((channels, padding), np.float32))
        silence = np.zeros((self._half + 1, channels), np.complex64)
        late = [self._synthesize(silence, present=False) for _ in range(self._engine.delay)]
        clean = np.concatenate([clean, *late, self._drained(self._hop, self._n_fft)], axis=1)
        yield clean[:, :length]

    def _analyse(self, sound: AudioBlock) -> AudioBlock:
        """Take sound, clean the frames that are complete, and return the sound that is complete."""
        self._received += sound.shape[1]
        self._sound = np.concatenate([self._sound, sound], axis=1)
        pieces = []
        while self._sound.shape[1] >= self._n_fft:
            frame = self._sound[:, : self._n_fft] * self._window
            self._sound = self._sound[:, self._hop :]
            pieces.append(self._synthesize(np.fft.rfft(frame).T, present=True))
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate([sound[:, :0], *pieces], axis=1)

    def _synthesize(self, spectrum: _Frame, *, present: bool) -> AudioBlock:
        """Add the frame that the network returns to the sound, and return what is complete."""
        heard, rest = self._transform.split(spectrum)
        if present:
            self._pending.append((spectrum, rest))
        known = self._transform.to_model(heard).T
        result = self._engine.run(known, self._state, present=present)
        if result is None:  # the frame lies before the sound
            return self._sound[:, :0]
        cleaned, mask = result
        if not np.isfinite(cleaned.view(np.float32)).all():
            raise ModelError(f"the model {self._spec.name} returned values that are not finite")
        frame = self._transform.from_model(cleaned.T)
        noisy, rest = self._pending.popleft()
        if rest is not None:
            frame = join(frame, rest, _own_factors(mask).T)
        if self._link_channels:
            frame = linked(noisy, frame, 1)
        self._sum += np.fft.irfft(frame.T, self._n_fft) * self._window
        self._frames = min(self._frames + 1, len(self._weights))
        return self._drained(0, self._hop)

    def _drained(self, start: int, end: int) -> AudioBlock:
        """Remove and return the first samples of the sum.

        Args:
            start: Position of the first of them in the last frame.
            end: Position after the last of them.
        """
        count = end - start
        clean = self._sum[:, :count] / self._weights[self._frames - 1, start:end]
        self._sum[:, :-count] = self._sum[:, count:]
        self._sum[:, max(self._n_fft - count, 0) :] = 0
        skipped = min(self._skipped, count)
        self._skipped -= skipped
        return clean[:, skipped:]


def _own_factors(
    mask: Float[np.ndarray, "channels bins parts"],
) -> Complex[np.ndarray, "channels bins"]:
    """Return the factors of the frame itself in a mask, without those of its other taps."""
    if mask.shape[-1] == 1:
        return mask[..., 0].astype(np.complex64)
    return np.ascontiguousarray(mask[..., :2]).view(np.complex64)[..., 0]


def _weights(window: AudioVector, hop_length: int) -> Float[np.ndarray, "frames n_fft"]:
    """Return the normalization of the overlap-add after 1, 2, ... frames.

    This is the sum of their squared windows from the beginning of the last frame on; infinity where
    it is nearly zero, so that the result is zero there.
    """
    squares = [
        np.pad(window[start:] ** 2, (0, start)) for start in range(0, window.size, hop_length)
    ]
    sums = np.cumsum(squares, axis=0)
    return np.where(sums > np.finfo(np.float32).tiny, sums, np.float32(np.inf))
