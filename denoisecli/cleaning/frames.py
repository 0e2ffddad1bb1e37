"""The network on a stream of sound at the model's sample rate, frame by frame.

Every frame of the STFT costs the same: the network carries what it remembers of earlier frames
(`models.export.onnx_stream`), and the transforms carry their overlap. The result is that of
`masking` for the whole recording, to float32 rounding.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Complex, Float

from denoisecli.audio.stft import check_invertible, window_vector
from denoisecli.cleaning.engines import FrameEngine
from denoisecli.cleaning.masking import Masked, gains_of_bands
from denoisecli.cleaning.transform import Transform
from denoisecli.errors import ModelError
from denoisecli.spec.document import Spec
from denoisecli.types import AudioBlock

_Frames = Complex[np.ndarray, "channels bins"]


class FrameStream:
    """A stream of sound at the model's sample rate, cleaned frame by frame.

    Args:
        spec: Spec of the model.
        engine: The network.
        channels: Number of channels.
        top: Highest frequency of the sound as a share of the model's; None if nobody needs the
            gains, which are 1 then.
        sample_rate: Sample rate of the sound in Hz (default: that of the model).

    Attributes:
        delay: Samples by which the output can be behind the input.
    """

    def __init__(
        self,
        spec: Spec,
        engine: FrameEngine,
        channels: int,
        top: float | None,
        sample_rate: int | None = None,
    ) -> None:
        self._transform = Transform(spec, sample_rate or spec.audio.sample_rate)
        stft = self._transform.stft
        check_invertible(stft.n_fft, stft.hop_length, stft.window)
        self._spec, self._engine, self._top = spec, engine, top
        self._n_fft, self._hop = stft.n_fft, stft.hop_length
        self._half = stft.n_fft // 2
        grid = 0 if self._half % self._hop == 0 else self._hop  # blocks end on the grid of hops
        self.delay = stft.n_fft + engine.delay * self._hop + grid
        self._window = window_vector(stft.window, stft.n_fft)
        self._state = engine.start(channels)
        self._sound: AudioBlock = np.zeros((channels, self._half), np.float32)
        self._position = -self._half  # of the first sample in `_sound`
        self._received = 0
        self._frame = 0  # the next one to analyse
        # Sums of the windowed frames and of the squared windows, from the first that may grow.
        self._sum: AudioBlock = np.zeros((channels, self._n_fft), np.float32)
        self._weight: Float[np.ndarray, " n_fft"] = np.zeros(self._n_fft, np.float32)
        self._skipped = self._half  # samples of the sums that lie before the sound
        self._clean: AudioBlock = np.zeros((channels, 0), np.float32)
        self._gains: list[Float[np.ndarray, " channels"]] = []  # from frame `_returned` on
        self._returned = 0  # hops

    def process(self, sound: AudioBlock) -> Iterator[Masked]:
        """Take sound, and yield the clean sound that is ready."""
        self._analyse(sound)
        whole_hops = self._clean.shape[1] // self._hop * self._hop
        if whole_hops:
            yield self._take(whole_hops)

    def finish(self) -> Iterator[Masked]:
        """End the stream, and yield the rest."""
        length = self._received - self._returned * self._hop
        if length == 0:
            return
        padding = -self._received % self._hop + self._half  # up to the end of the last frame
        channels = len(self._sound)
        self._analyse(np.zeros((channels, padding), np.float32))
        silence = np.zeros((channels, self._half + 1), np.complex64)
        late = [self._synthesize(silence, present=False) for _ in range(self._engine.delay)]
        clean = np.concatenate([self._clean, *late, self._drained(self._n_fft)], axis=1)
        self._clean = clean[:, :length]
        yield self._take(length)

    def _analyse(self, sound: AudioBlock) -> None:
        """Take sound, transform the frames that are complete, and clean them."""
        self._received += sound.shape[1]
        self._sound = np.concatenate([self._sound, sound], axis=1)
        pieces = [self._clean]
        while self._frame * self._hop + self._half <= self._received:
            start = self._frame * self._hop - self._half - self._position
            frame = self._sound[:, start : start + self._n_fft] * self._window
            self._frame += 1
            pieces.append(self._synthesize(np.fft.rfft(frame), present=True))
        self._clean = np.concatenate(pieces, axis=1)

    def _synthesize(self, spectrum: _Frames, *, present: bool) -> AudioBlock:
        """Add the frame that the network returns to the sound, and return what is complete."""
        heard = self._transform.to_model(spectrum, axis=1)
        result = self._engine.run(heard, self._state, present=present)
        if result is None:  # the frame lies before the sound
            return self._clean[:, :0]
        cleaned, mask = result
        if not np.isfinite(cleaned.view(np.float32)).all():
            raise ModelError(f"the model {self._spec.name} returned values that are not finite")
        cleaned = self._transform.from_model(cleaned, axis=1)
        if self._top is not None:
            self._gains.append(gains_of_bands(mask, self._top))
        self._sum += np.fft.irfft(cleaned, self._n_fft) * self._window
        self._weight += self._window**2
        return self._drained(self._hop)

    def _drained(self, count: int) -> AudioBlock:
        """Remove and return the next samples of the sums."""
        weight = self._weight[:count]
        clean = np.divide(
            self._sum[:, :count],
            weight,
            out=np.zeros((len(self._sum), count), np.float32),
            where=weight > np.finfo(np.float32).tiny,
        )
        for total in (self._sum, self._weight):
            total[..., :-count] = total[..., count:]
            total[..., max(self._n_fft - count, 0) :] = 0
        skipped = min(self._skipped, count)
        self._skipped -= skipped
        return clean[:, skipped:]

    def _take(self, length: int) -> Masked:
        """Remove the next clean samples, and return them beside the noisy ones and the gains."""
        start = self._returned * self._hop - self._position
        noisy = self._sound[:, start : start + length]
        clean, self._clean = self._clean[:, :length], self._clean[:, length:]
        hops = -(-length // self._hop)
        if self._top is None:
            gains = np.ones((len(noisy), hops + 1), np.float32)
        else:
            gains = np.stack(self._gains[: hops + 1], axis=1)
            self._gains = self._gains[hops:]
        self._returned += hops
        # The next frame or the next sample to be returned, whichever is earlier.
        first = min(self._frame * self._hop - self._half, self._returned * self._hop)
        self._sound = self._sound[:, first - self._position :]
        self._position = first
        return Masked(noisy, clean, gains)
