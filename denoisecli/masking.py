"""The network on a stream of sound at its own sample rate: engines that run it, and blocks."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import onnxruntime
from jaxtyping import Complex, Float

from denoisecli.audio import AudioBlock, fit_length
from denoisecli.errors import ModelError, UsageError
from denoisecli.spec import Spec
from denoisecli.spectrogram import istft, stft
from denoisecli.types import AudioChannels

BLOCK_SECONDS = 30.0
"""How much new sound the network gets at a time."""

CONTEXT_SECONDS = 4.0
"""How much sound before (and, unless the model is causal, after) a block it hears as well."""

GAIN_BAND = (0.79, 0.915)
"""Bands whose gain the sound above the model's reach gets, as shares of the top frequency.

They end where the resampler's roll-off begins: 6.3 to 7.3 kHz for a model of 16 kHz.
"""

MAX_BATCH = 2
"""Channels that go through the network at once: memory must not grow with their number."""

SpectrumBatch = Float[np.ndarray, "batch frequency frames 2"]
MaskBatch = Float[np.ndarray, "batch frequency frames parts"]
_Spectra = Complex[np.ndarray, "channels frequency frames"]
Gains = Float[np.ndarray, "channels frames"]


@runtime_checkable
class MaskEngine(Protocol):
    """What runs the network."""

    def __call__(self, spectrum: SpectrumBatch) -> MaskBatch:
        """Give the mask for a noisy spectrum.

        Args:
            spectrum: float32 (batch, frequency, frames, 2): real and imaginary part.

        Returns:
            float32 (batch, frequency, frames, 2) complex, or (..., 1) magnitude mask.
        """


class OnnxEngine:
    """Run ``model.onnx`` with ONNX Runtime.

    Args:
        path: the ONNX file.
        threads: CPU threads; by default one per core.
        device: "cpu", or "gpu" for CUDA (needs the package onnxruntime-gpu).

    Raises:
        ModelError: the file is missing or damaged.
        UsageError: there is no such device here, or ``threads`` is below 1.
    """

    def __init__(
        self, path: Path, *, threads: int | None = None, device: Literal["cpu", "gpu"] = "cpu"
    ) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"threads must be at least 1, not {threads}")
        if not path.is_file():
            raise ModelError(f"{path} does not exist; `denoise export` writes it")
        provider = "CUDAExecutionProvider" if device == "gpu" else "CPUExecutionProvider"
        if provider not in onnxruntime.get_available_providers():
            raise UsageError("device gpu needs CUDA and the package onnxruntime-gpu")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3  # its warnings are not for users
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=[provider])
        except Exception as error:  # ONNX Runtime has no common base class for its errors
            raise ModelError(f"{path} cannot be loaded: {error}") from error

    def __call__(self, spectrum: SpectrumBatch) -> MaskBatch:
        """See :class:`MaskEngine`."""
        try:
            return self._session.run(["mask"], {"spectrum": spectrum})[0]
        except Exception as error:
            raise ModelError(f"the ONNX model does not fit its spec: {error}") from error


@dataclass(frozen=True)
class Masked:
    """A piece of sound at the model's rate, before and after the network.

    ``gains`` has a frame per hop, from the first sample up to and with the end of the piece.
    """

    noisy: AudioChannels
    clean: AudioChannels
    gains: Gains


class Masking:
    """The network on a stream at the model's rate, in blocks with context around them.

    Blocks begin on the grid of the STFT, so that its frames are those of the whole signal.
    """

    def __init__(self, spec: Spec, engine: MaskEngine) -> None:
        self._spec = spec
        self._engine = engine
        self._stft_options: dict[str, Any] = {
            "n_fft": spec.stft.n_fft,
            "hop_length": spec.stft.hop_length,
            "window": spec.stft.window,
        }
        self._block = self._hops(BLOCK_SECONDS * spec.audio.sample_rate)
        self._before = self._hops(CONTEXT_SECONDS * spec.audio.sample_rate)
        # The frames that reach back into the block themselves reach n_fft beyond it.
        self._after = self._hops(spec.stft.n_fft) if spec.causal else self._before

    def __call__(self, blocks: Iterable[AudioBlock], top: float) -> Iterator[Masked]:
        """Clean a stream; ``top`` is its highest frequency as a share of the model's."""
        pending: list[AudioBlock] = []
        ready = 0  # timesteps in pending
        done = 0  # those of them that are context only
        for block in blocks:
            pending.append(block)
            ready += block.shape[1]
            while ready >= done + self._block + self._after:
                sound = np.concatenate(pending, axis=1)
                end = done + self._block
                yield self._mask(sound[:, : end + self._after], done, end, top)
                done = min(end, self._before)
                pending = [sound[:, end - done :]]
                ready = pending[0].shape[1]
        if ready > done:
            yield self._mask(np.concatenate(pending, axis=1), done, ready, top)

    def _mask(self, sound: AudioChannels, start: int, end: int, top: float) -> Masked:
        """Clean timesteps start..end of ``sound``; the others are context."""
        hop_length = self._spec.stft.hop_length
        whole = fit_length(sound, self._hops(sound.shape[1]))
        spectra = np.stack([stft(channel, **self._stft_options) for channel in whole])
        mask = np.concatenate(
            [
                self._complex_mask(spectra[i : i + MAX_BATCH])
                for i in range(0, len(spectra), MAX_BATCH)
            ]
        )
        masked = mask * spectra
        if not np.isfinite(masked).all():
            raise ModelError(f"the model {self._spec.name} gave values that are not finite")
        clean = np.stack(
            [istft(one, length=whole.shape[1], **self._stft_options) for one in masked]
        )

        bins = [round(share * top * (mask.shape[1] - 1)) for share in GAIN_BAND]
        gains = np.abs(mask[:, bins[0] : bins[1] + 1]).mean(axis=1).clip(max=1)
        frames = slice(start // hop_length, self._hops(end) // hop_length + 1)
        return Masked(sound[:, start:end], clean[:, start:end], gains[:, frames])

    def _complex_mask(self, spectra: _Spectra) -> _Spectra:
        parts = np.stack([spectra.real, spectra.imag], axis=-1)
        mask = self._engine(parts)
        size = 2 if self._spec.output.mask == "complex" else 1
        if mask.shape != (*spectra.shape, size):
            raise ModelError(
                f"the model {self._spec.name} gave a mask of shape {mask.shape} where its spec "
                f"says {(*spectra.shape, size)}"
            )
        real = mask[..., 0]
        return real + 1j * mask[..., 1] if size == 2 else real.astype(np.complex64)

    def _hops(self, timesteps: int | float) -> int:
        """Round up to the STFT's grid."""
        hop_length = self._spec.stft.hop_length
        return math.ceil(timesteps / hop_length) * hop_length
