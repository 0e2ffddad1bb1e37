"""Noisy audio in, clean audio out: arrays, streams, files."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from denoisecli.audio.pipe import ByteSink, ByteSource
from denoisecli.audio.reading import require_finite
from denoisecli.cleaning.engines import open_engine
from denoisecli.cleaning.file import CleanResult, FileOptions, Progress, clean_recording
from denoisecli.cleaning.masking import Blocks, Masking
from denoisecli.cleaning.stream import DenoiseStream
from denoisecli.errors import AudioError, UsageError
from denoisecli.models.catalogue import find_model

MAX_CHANNELS = 64
"""More channels than this, and more than timesteps, are timesteps in the wrong place."""


class Denoiser:
    """Takes the noise out of sound of any length, sample rate and number of channels.

    Args:
        model: a model folder, or the name of a bundled model.
        strength: 0..1, how much of the noise is taken out: 1 gives what the model makes of it,
            0 the input.
        attenuation_limit_db: take nothing down by more than this (dB, 0 or more), by mixing as
            much of the input back in; None is no limit.
        engine: "onnx", "keras", or "auto".
        device: "cpu", "gpu", or "auto".
        threads: CPU threads; by default one per core.

    Raises:
        UsageError: no such model, engine or device, or a number is out of range.
        SpecError, ModelError: the model folder is damaged.
    """

    def __init__(
        self,
        model: str | Path = "speech",
        *,
        strength: float = 1.0,
        attenuation_limit_db: float | None = None,
        engine: str = "auto",
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        if not 0 <= strength <= 1:
            raise UsageError(f"strength must be between 0 and 1, not {strength:g}")
        if attenuation_limit_db is not None and not attenuation_limit_db >= 0:
            raise UsageError(
                f"the attenuation limit must be at least 0 dB, not {attenuation_limit_db:g}"
            )
        folder = find_model(model)
        self.spec = folder.spec
        self.amount = strength
        if attenuation_limit_db is not None:
            # What the mask takes away wholly is left at the limit, as DeepFilterNet does it.
            self.amount *= 1 - 10 ** (-attenuation_limit_db / 20)
        self._masking = Masking(
            self.spec, open_engine(folder.path, engine=engine, device=device, threads=threads)
        )

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
            AudioError: no samples, samples that are no floating-point numbers, NaN or infinite, or
                axes the wrong way round.
        """
        if not np.issubdtype(audio.dtype, np.floating):
            raise AudioError(f"samples must be floating point in -1..1, not {audio.dtype}")
        if audio.ndim not in (1, 2) or audio.size == 0:
            raise AudioError(
                "audio must have the shape (timesteps,) or (channels, timesteps) and at least one "
                f"sample, not {audio.shape}"
            )
        if audio.ndim == 2 and audio.shape[0] > max(audio.shape[1], MAX_CHANNELS):
            raise AudioError(
                f"audio of the shape {audio.shape} would be {audio.shape[0]} channels; soundfile "
                "gives (timesteps, channels), so give audio.T"
            )
        channels = np.atleast_2d(audio).astype(np.float32, copy=False)
        require_finite(channels, sample_rate)
        blocks = self._masking.blocks(live=False)
        stream = self.stream(sample_rate, len(channels), blocks=blocks)
        cleaned = np.concatenate([stream.process(channels), stream.finish()], axis=1)
        return cleaned.reshape(audio.shape)

    def stream(
        self, sample_rate: int, channels: int = 1, *, blocks: Blocks | None = None
    ) -> DenoiseStream:
        """Begin to clean sound as it comes, such as that of a microphone.

        Args:
            sample_rate: Hz.
            channels: number of channels.
            blocks: how the sound is cut for the network; by default for a short delay, which
                is that of ``masking.HOPS`` for a causal model, else of ``masking.LIVE``.

        Returns:
            A stream with ``process(block)``, ``finish()``, and its ``delay`` in seconds.

        Raises:
            UsageError: the sample rate or the number of channels is below 1.
        """
        blocks = blocks or self._masking.blocks(live=True)
        return DenoiseStream(self._masking, sample_rate, channels, blocks, self.amount)

    def clean_file(
        self,
        source: Path | str | ByteSource,
        target: Path | str | ByteSink,
        options: FileOptions | None = None,
        *,
        noise_target: Path | str | None = None,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> CleanResult:
        """Clean an audio file of any length; memory does not grow with it.

        Sample rate, channels and length stay as they are, to the sample, and tags are carried
        over, as far as ``options`` say nothing else. The format follows the target's suffix.
        Between two pipes the sound is cleaned as it comes, with the delay of :meth:`stream`.

        Args:
            source: the noisy file, or a pipe such as ``sys.stdin.buffer``.
            target: the cleaned file, which appears only when it is whole, or a pipe, which gets
                WAV.
            options: how files are read and written.
            noise_target: a file for what was removed: the source less the target.
            overwrite: replace existing targets (``target`` may be ``source``).
            progress: called with what is done of the recording, again and again.

        Raises:
            UsageError: ``source`` is missing, a target exists, or its format is unknown or
                cannot hold the sample rate, subtype or number of channels.
            AudioError: ``source`` is damaged, cut off, empty, changed meanwhile, or has samples
                that are NaN or infinite.
            DenoiseError: a target cannot be written.
        """
        return clean_recording(
            lambda rate, channels, live: self.stream(
                rate, channels, blocks=self._masking.blocks(live=live)
            ),
            source,
            target,
            options or FileOptions(),
            noise_target=noise_target,
            overwrite=overwrite,
            progress=progress,
        )
