"""Estimators: what can be evaluated, a way to turn a noisy file into a cleaned one."""

import os
import re
import shlex
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from denoisecli.audio.files import probe, read, write
from denoisecli.errors import DenoiseError, UsageError, join_names
from denoisecli.evaluation.pairs import find_recordings
from denoisecli.evaluation.wiener import wiener
from denoisecli.system.atomic_files import replacing
from denoisecli.system.extras import require

_HAS_BACKSLASHES = os.name == "nt"  # between folders


class Estimator(ABC):
    """Cleans files. It is pickled and sent to another process before it is loaded.

    Attributes:
        timed: Whether its processing time is meaningful.
    """

    timed = True

    def check(self, names: Collection[str]) -> None:  # noqa: B027 (most have nothing to check)
        """Check, before any work, whether recordings of these names can be cleaned.

        Raises:
            UsageError: They cannot.
        """

    def load(self) -> None:  # noqa: B027 (some have nothing to load)
        """Prepare for cleaning; the time that this takes is the load time."""

    @abstractmethod
    def clean(self, name: str, noisy: Path, output: Path) -> Path:
        """Clean a file.

        Args:
            name: Name of the recording in the evaluation.
            noisy: Path of the noisy file.
            output: Path that a cleaned WAV may be written to.

        Returns:
            Path of the cleaned file.

        Raises:
            DenoiseError: The file could not be cleaned.
        """


@dataclass
class Unchanged(Estimator):
    """The unchanged noisy input, the default baseline."""

    timed = False

    def clean(self, name: str, noisy: Path, output: Path) -> Path:
        """Return the noisy file."""
        return noisy


@dataclass
class Model(Estimator):
    """A trained model, run as `denoise clean` does but on one thread, so that speeds compare.

    Attributes:
        model: Model folder or name of a bundled model.
    """

    model: str | Path

    def check(self, names: Collection[str]) -> None:
        """Raise UsageError if there is no such model."""
        from denoisecli.models.catalogue import find_model

        find_model(self.model)

    def load(self) -> None:
        """Load the network."""
        from denoisecli.cleaning.denoiser import Denoiser

        self._denoiser = Denoiser(self.model, threads=1)

    def clean(self, name: str, noisy: Path, output: Path) -> Path:
        """Clean the file as `denoise clean` does."""
        self._denoiser.clean_file(noisy, output)
        return output


@dataclass
class Folder(Estimator):
    """A folder of files that are already cleaned, with the names of the noisy files.

    Attributes:
        folder: The folder; suffixes may differ from those of the noisy files.
    """

    folder: Path
    timed = False

    def check(self, names: Collection[str]) -> None:
        """Raise UsageError if a file is missing."""
        missing = sorted(set(names) - set(self.files))
        if missing:
            raise UsageError(f"{self.folder} has no cleaned file for {join_names(missing)}")

    @cached_property
    def files(self) -> dict[str, Path]:
        """The files by name of the recording."""
        return find_recordings(self.folder)

    def clean(self, name: str, noisy: Path, output: Path) -> Path:
        """Return the file of that name."""
        return self.files[name]


@dataclass
class Prepared(Estimator):
    """Files that are already cleaned.

    Attributes:
        files: The files by name of the recording.
    """

    files: Mapping[str, Path]
    timed = False

    def clean(self, name: str, noisy: Path, output: Path) -> Path:
        """Return the file of that name."""
        return self.files[name]


@dataclass
class Command(Estimator):
    """An external program, which is started for every file, without a shell.

    Its processing time includes its start-up.

    Attributes:
        template: Command line with ``{input}`` and ``{output}``, quoted as for a POSIX shell. A
            noisy file that is not a WAV of integers is converted to a 16-bit WAV first.
        timeout: Timeout for a file in s.

    Raises:
        UsageError: The template cannot be parsed, or lacks ``{input}`` or ``{output}``.
    """

    template: str
    timeout: float = 600.0

    def __post_init__(self) -> None:
        try:
            text = self.template.replace("\\", "\\\\") if _HAS_BACKSLASHES else self.template
            self._words = shlex.split(text)
        except ValueError as error:
            raise UsageError(f"the command {self.template!r} cannot be parsed: {error}") from error
        for placeholder in ("{input}", "{output}"):
            if not any(placeholder in word for word in self._words):
                raise UsageError(
                    f"the command {self.template!r} lacks {placeholder}; example: "
                    "mydenoiser {input} {output}"
                )

    def check(self, names: Collection[str]) -> None:
        """Raise UsageError if the program does not exist."""
        if shutil.which(self._words[0]) is None:
            raise UsageError(f"there is no program {self._words[0]!r}; check its path")

    def clean(self, name: str, noisy: Path, output: Path) -> Path:
        """Run the program."""
        with replacing(output) as part:
            if noisy.suffix.lower() != ".wav" or not probe(noisy).subtype.startswith("PCM"):
                wav = part.with_name("noisy.wav")
                write(wav, *read(noisy))
                noisy = wav
            paths = {"{input}": str(noisy.absolute()), "{output}": str(part.absolute())}
            self._run([_substitute(word, paths) for word in self._words])
            if not part.is_file():
                raise DenoiseError(f"{self._words[0]} succeeded but wrote no output for {name}")
        return output

    def _run(self, words: list[str]) -> None:
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=self.timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DenoiseError(f"{words[0]} took more than {self.timeout:g} s") from error
        except OSError as error:
            raise DenoiseError(f"cannot run {words[0]}: {error.strerror}") from error
        if done.returncode != 0:
            lines = done.stdout.decode(errors="replace").strip().splitlines() or ["no output"]
            raise DenoiseError(
                f"{words[0]} failed with exit code {done.returncode} and printed: {lines[-1]}"
            )


@dataclass
class SpectralGating(Estimator):
    """Spectral gating by the package noisereduce with its defaults.

    Sainburg, Thielk and Gentner, "Finding, visualizing, and quantifying latent structure across
    diverse animal vocal repertoires", PLOS Computational Biology 16(10), 2020.
    """

    def check(self, names: Collection[str]) -> None:
        """Raise UsageError if the package is not installed."""
        require("baselines", "noisereduce", purpose="the baseline noisereduce")

    def load(self) -> None:
        """Import the package."""
        from noisereduce import reduce_noise

        self._reduce_noise = reduce_noise

    def clean(self, name: str, noisy: Path, output: Path) -> Path:
        """Clean all channels."""
        audio, sample_rate = read(noisy)
        try:
            cleaned = self._reduce_noise(audio, sample_rate)
        except (ValueError, IndexError, RuntimeError) as error:  # for very short recordings
            raise DenoiseError(f"noisereduce failed on {noisy}: {error}") from error
        write(output, cleaned.astype("float32").reshape(audio.shape), sample_rate)
        return output


@dataclass
class Wiener(Estimator):
    """The Wiener filter of :mod:`denoisecli.evaluation.wiener`."""

    def clean(self, name: str, noisy: Path, output: Path) -> Path:
        """Clean each channel."""
        audio, sample_rate = read(noisy)
        cleaned = np.stack([wiener(channel, sample_rate) for channel in audio])
        write(output, cleaned, sample_rate)
        return output


BASELINES: dict[str, type[Estimator]] = {"noisereduce": SpectralGating, "wiener": Wiener}
"""Estimators that need no arguments, by name."""


def _substitute(word: str, paths: dict[str, str]) -> str:
    return re.sub("|".join(map(re.escape, paths)), lambda found: paths[found[0]], word)
