"""The public API: removes noise from arrays, streams and files."""

import os
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from denoisecli.audio.pipe import ByteSink, ByteSource
from denoisecli.audio.reading import require_valid
from denoisecli.cleaning.checks import (
    require_flag,
    require_number,
    require_sample_rate,
    require_text,
    require_whole,
)
from denoisecli.cleaning.choices import Device, Engine
from denoisecli.cleaning.engines import OnnxEngine, open_engine, open_frame_engine
from denoisecli.cleaning.file import (
    CleanResult,
    FileOptions,
    FileTarget,
    OnProgress,
    Source,
    clean_recording,
    source_of,
    target_of,
)
from denoisecli.cleaning.masking import Blocks, Masking
from denoisecli.cleaning.stream import DenoiseStream
from denoisecli.cleaning.strength import Choice, choose_strength, count_frames
from denoisecli.errors import AudioError, UsageError
from denoisecli.models.catalogue import find_model, for_sample_rate, is_bundled
from denoisecli.models.registry import allow_class

_CLEAN_FRAMES = 2**18

MAX_CHANNELS = 8
"""An array with more channels than this and than samples has its axes the wrong way round."""


@dataclass(frozen=True)
class DenoiserOptions:
    """The arguments of :class:`Denoiser`, to be sent to another process."""

    model: str | Path = "speech"
    strength: float = 1.0
    attenuation_limit_db: float | None = None
    engine: str = Engine.AUTO
    device: str = Device.AUTO
    threads: int | None = None
    model_class: str | None = None
    link_channels: bool = False

    def load(self) -> "Denoiser":
        """Load the model."""
        return Denoiser(**vars(self))

    def load_once(self) -> "Denoiser":
        """Load the model, or return it if it is one of the last two, and was not replaced since."""
        folder = find_model(self.model)
        paths = (folder.spec_path, folder.onnx_path, folder.keras_path)
        versions = (path.stat() for path in paths if path.exists())
        return _load(self, tuple((stat.st_ino, stat.st_mtime_ns) for stat in versions))


@lru_cache(maxsize=2)
def _load(options: DenoiserOptions, version: tuple[tuple[int, int], ...]) -> "Denoiser":
    return options.load()


_inherited: list[Masking] = []
"""Networks of the parent of a forked process: closing them would wait for threads of the parent."""


class Denoiser:
    """Remove noise from sound of any length, sample rate and number of channels.

    Args:
        model: Model folder, or name of a bundled model. A bundled model that has a counterpart for
            recordings up to 16 kHz leaves those to it.
        strength: Share of the noise that is removed, 0..1: 1 returns the output of the model, 0 the
            input.
        attenuation_limit_db: Limit of the attenuation in dB, at least 0; the input is mixed back in
            accordingly (default: no limit).
        engine: "onnx", "keras", or "auto".
        device: "cpu", "gpu", or "auto".
        threads: Number of CPU threads (default: one per core).
        model_class: User-defined class of the network as ``"module:Class"``, whose code the
            engine "keras" runs. The engine "onnx" needs none.
        link_channels: Apply the same gains to all channels, so that sound keeps its place between
            them, instead of cleaning each channel by itself.

    Raises:
        UsageError: The model, engine, device or class does not exist, or a number is out of range.
        SpecError, ModelError: The model folder is damaged.
    """

    def __init__(
        self,
        model: str | Path = "speech",
        *,
        strength: float = 1.0,
        attenuation_limit_db: float | None = None,
        engine: str = Engine.AUTO,
        device: str = Device.AUTO,
        threads: int | None = None,
        model_class: str | None = None,
        link_channels: bool = False,
    ) -> None:
        require_flag(link_channels, "link_channels")
        require_number(strength, "the strength")
        if attenuation_limit_db is not None:
            require_number(attenuation_limit_db, "the attenuation limit")
        if not 0 <= strength <= 1:
            raise UsageError(f"the strength must be between 0 and 1, not {strength:g}")
        if attenuation_limit_db is not None and not attenuation_limit_db >= 0:
            raise UsageError(
                f"the attenuation limit must be at least 0 dB, not {attenuation_limit_db:g}"
            )
        if threads is not None:
            require_whole(threads, "the number of threads")
        if model_class is not None:
            require_text(model_class, "the class")
            allow_class(model_class)
        self._folder = folder = find_model(model)
        # Another process may have another working directory, and another machine other paths.
        self._arguments = DenoiserOptions(
            folder.path.name if is_bundled(folder) else folder.path.absolute(),
            strength,
            attenuation_limit_db,
            engine,
            device,
            threads,
            model_class,
            link_channels,
        )
        self.spec = folder.spec
        self.amount = strength
        if attenuation_limit_db is not None:
            # What the mask removes completely stays at the limit, as in DeepFilterNet.
            self.amount *= 1 - 10 ** (-attenuation_limit_db / 20)
        network = open_engine(folder, engine=engine, device=device, threads=threads)
        self._masking = Masking(self.spec, network)
        # On a GPU, a frame at a time would take longer than on the CPU.
        on_cpu = isinstance(network, OnnxEngine) and not network.on_gpu
        self._open_frames = cache(lambda: open_frame_engine(folder) if on_cpu else None)
        self._process = os.getpid()
        self._others: dict[Path, Denoiser] = {}

    def _at(self, sample_rate: int) -> "Denoiser":
        """Return the denoiser for a sample rate: this one, or that of the bundled counterpart."""
        require_sample_rate(sample_rate)
        model = for_sample_rate(self._folder, sample_rate)
        if model is self._folder:
            return self
        if model.path not in self._others:
            self._others[model.path] = replace(self._arguments, model=model.path).load()
        return self._others[model.path]

    def __getstate__(self) -> DenoiserOptions:
        """Return the arguments, since the network itself cannot be sent to another process."""
        return self._arguments

    def __setstate__(self, state: DenoiserOptions) -> None:
        """Load the model anew."""
        self.__init__(**vars(state))  # type: ignore[misc]

    def _own_masking(self) -> Masking:
        """Return the network; a forked process loads it anew, since threads survive no fork."""
        if self._process != os.getpid():
            _inherited.append(self._masking)
            self.__setstate__(self._arguments)
        return self._masking

    def clean(
        self, audio: Shaped[np.ndarray, "*channels timesteps"], sample_rate: int
    ) -> Float[np.ndarray, "*channels timesteps"]:
        """Clean a sound in memory.

        Args:
            audio: Floating-point samples, shape (timesteps,) or (channels, timesteps), full scale
                -1..1.
            sample_rate: Sample rate in Hz.

        Returns:
            float32 samples of the same shape. They can exceed full scale slightly if the input
            comes close to it.

        Raises:
            UsageError: The sample rate is not a positive integer.
            AudioError: There are no samples, they are not floating-point numbers, they are NaN or
                infinite, or the axes are the wrong way round.
        """
        if not isinstance(audio, np.ndarray):
            raise AudioError(f"audio must be a NumPy array, not {type(audio).__name__}")
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
                "returns (timesteps, channels), so pass audio.T"
            )
        require_sample_rate(sample_rate)
        channels = np.atleast_2d(audio).astype(np.float32, copy=False)
        require_valid(channels, sample_rate)
        denoiser = self._at(sample_rate)
        blocks = denoiser._own_masking().blocks(live=False)
        stream = denoiser.stream(sample_rate, len(channels), blocks=blocks)
        # Block by block, since the stream copies all that waits for every block of the network.
        starts = range(0, channels.shape[1], _CLEAN_FRAMES)
        pieces = [stream.process(channels[:, start : start + _CLEAN_FRAMES]) for start in starts]
        cleaned = np.concatenate([*pieces, stream.finish()], axis=1)
        return cleaned.reshape(audio.shape)

    def stream(
        self, sample_rate: int, channels: int = 1, *, blocks: Blocks | None = None
    ) -> DenoiseStream:
        """Start to clean sound as it arrives, such as that of a microphone.

        Args:
            sample_rate: Sample rate in Hz.
            channels: Number of channels.
            blocks: How the sound is divided into blocks (default: frame by frame if the model has a
                network for streams; otherwise for a short delay, ``masking.HOPS`` with a causal
                model and ``masking.LIVE`` with any other).

        Returns:
            A stream with ``process(block)``, ``finish()``, and its ``delay`` in seconds.

        Raises:
            UsageError: The sample rate or the number of channels is not a positive integer.
        """
        denoiser = self._at(sample_rate)
        masking = denoiser._own_masking()
        frames = denoiser._open_frames() if blocks is None else None
        blocks = blocks or masking.blocks(live=True)
        link = self._arguments.link_channels
        return DenoiseStream(masking, sample_rate, channels, blocks, self.amount, frames, link)

    def clean_file(
        self,
        source: Path | str | ByteSource,
        target: Path | str | ByteSink,
        options: FileOptions | None = None,
        *,
        noise_target: Path | str | None = None,
        overwrite: bool = False,
        on_progress: OnProgress | None = None,
    ) -> CleanResult:
        """Clean an audio file of any length; the memory used does not depend on the length.

        The target has the sample rate, channels, tags and exact length of the source, unless
        ``options`` say otherwise. Its suffix chooses the format. Between two pipes, the sound is
        cleaned as it arrives, with the delay of :meth:`stream`.

        Args:
            source: Noisy file, or a pipe such as ``sys.stdin.buffer``.
            target: Cleaned file, which appears only when it is complete, or a pipe such as
                ``sys.stdout.buffer``, which gets WAV.
            options: How files are read and written.
            noise_target: File for what was removed, the source minus the target.
            overwrite: Replace existing targets (``target`` may be ``source``).
            on_progress: Function that is called repeatedly with the seconds that are cleaned and
                the length of the source, 0 if that is unknown.

        Raises:
            UsageError: The source does not exist, a target exists, or its format is unknown or
                does not support the sample rate, subtype or number of channels.
            AudioError: The source is damaged, cut off or empty, was changed while it was read, or
                has NaN or infinite samples.
            DenoiseError: A target cannot be written.
        """
        options = FileOptions() if options is None else options
        if not isinstance(options, FileOptions):
            raise UsageError(f"the options must be FileOptions, not {options!r}")
        opened = source_of(source)
        choice = self._choose(opened, options) if options.auto_strength else None

        def open_stream(sample_rate: int, channels: int, live: bool) -> DenoiseStream:
            blocks = None if live else self._at(sample_rate)._own_masking().blocks(live=False)
            stream = self.stream(sample_rate, channels, blocks=blocks)
            if choice is not None:
                stream.scale_amount(choice.strength)
            return stream

        result = clean_recording(
            open_stream,
            opened,
            target_of(target),
            None if noise_target is None else FileTarget(Path(noise_target)),
            options,
            overwrite=overwrite,
            on_progress=on_progress,
        )
        if choice is None:
            return result
        notes = () if choice.note is None else (choice.note,)
        upper_end = self._arguments.strength
        return replace(
            result,
            strength=upper_end * choice.strength,
            strength_ovrl={upper_end * share: ovrl for share, ovrl in choice.ovrl.items()},
            warnings=(*result.warnings, *notes),
        )

    def _choose(self, source: Source, options: FileOptions) -> Choice:
        """Choose the strength for a recording."""
        if source.is_pipe:
            raise UsageError(
                "the strength of a pipe cannot be chosen, since that takes the whole recording; "
                "give a file"
            )
        with source.open(options) as recording:
            frames = count_frames(recording)
        with source.open(options) as recording:
            rate = recording.info.sample_rate
            return choose_strength(
                recording,
                lambda sound: self.clean(sound, rate),
                amount=self.amount,
                frames=frames,
                mono=options.mono,
            )
