"""What can be evaluated: ways to make a cleaned file of a noisy one."""

import shlex
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from denoisecli.audio.files import probe, read, write
from denoisecli.errors import DenoiseError, UsageError
from denoisecli.evaluation.pairs import listed, recordings
from denoisecli.system.atomic_files import replacing


class Estimator(ABC):
    """Makes cleaned files. It travels to another process before it is loaded.

    Attributes:
        timed: whether the time it takes means anything.
    """

    timed = True

    def check(self, names: Collection[str]) -> None:  # noqa: B027 (most have nothing to check)
        """Find out early whether recordings of these names can be cleaned.

        Raises:
            UsageError: they cannot.
        """

    def load(self) -> None:  # noqa: B027 (some have nothing to load)
        """Get ready; how long this takes is the load time."""

    @abstractmethod
    def clean(self, name: str, noisy: Path, output: Path) -> Path:
        """Clean a file.

        Args:
            name: the recording's name in the evaluation.
            noisy: the noisy file.
            output: where a cleaned file may be written, a WAV.

        Returns:
            Where the cleaned file is.

        Raises:
            DenoiseError: this file could not be cleaned.
        """


@dataclass
class Unchanged(Estimator):
    """The noisy input as it is: what all others are compared with."""

    timed = False

    def clean(self, name: str, noisy: Path, output: Path) -> Path:
        """Give the noisy file."""
        return noisy


@dataclass
class Model(Estimator):
    """A trained model, as `denoise clean` runs it.

    Attributes:
        model: a model folder, or the name of a bundled model.
        strength: 0..1, how much of the noise is taken out.
        threads: CPU threads; one, so that real-time factors can be compared.
    """

    model: str | Path
    strength: float = 1.0
    threads: int | None = 1

    def check(self, names: Collection[str]) -> None:
        """Raise UsageError when there is no such model."""
        from denoisecli.models.catalogue import find_model

        find_model(self.model)

    def load(self) -> None:
        """Load the network."""
        from denoisecli.cleaning.denoiser import Denoiser

        self._denoiser = Denoiser(self.model, strength=self.strength, threads=self.threads)

    def clean(self, name: str, noisy: Path, output: Path) -> Path:
        """Clean the file as `denoise clean` does."""
        self._denoiser.clean_file(noisy, output)
        return output


@dataclass
class Folder(Estimator):
    """A folder of files that were cleaned before, named like the noisy ones but for the suffix.

    Attributes:
        folder: where they are.
    """

    folder: Path
    timed = False

    def check(self, names: Collection[str]) -> None:
        """Raise UsageError when a file is missing."""
        missing = sorted(set(names) - set(recordings(self.folder)))
        if missing:
            raise UsageError(f"{self.folder} has no cleaned file for {listed(missing)}")

    def load(self) -> None:
        """Look for the files."""
        self._files = recordings(self.folder)

    def clean(self, name: str, noisy: Path, output: Path) -> Path:
        """Give the file of that name."""
        return self._files[name]


@dataclass
class Command(Estimator):
    """Another program, started for every file, without a shell.

    Its time includes its start.

    Attributes:
        template: the command line, quoted as for a POSIX shell, with ``{input}`` and ``{output}``
            in it. Instead of a noisy file that is no WAV of integers it gets a 16-bit WAV.
        timeout: seconds that it may take for a file.

    Raises:
        UsageError: the template cannot be split, or lacks ``{input}`` or ``{output}``.
    """

    template: str
    timeout: float = 600.0

    def __post_init__(self) -> None:
        try:
            self._words = shlex.split(self.template)
        except ValueError as error:
            raise UsageError(f"the command {self.template!r} cannot be read: {error}") from error
        for place in ("{input}", "{output}"):
            if not any(place in word for word in self._words):
                raise UsageError(
                    f"the command {self.template!r} lacks {place}; for example: "
                    "mydenoiser {input} {output}"
                )

    def check(self, names: Collection[str]) -> None:
        """Raise UsageError when there is no such program."""
        if shutil.which(self._words[0]) is None:
            raise UsageError(f"there is no program {self._words[0]!r} to be run")

    def clean(self, name: str, noisy: Path, output: Path) -> Path:
        """Run the program."""
        with replacing(output) as part:
            if noisy.suffix.lower() != ".wav" or not probe(noisy).subtype.startswith("PCM"):
                wav = part.with_name("noisy.wav")
                write(wav, *read(noisy))
                noisy = wav
            paths = {"{input}": str(noisy.absolute()), "{output}": str(part.absolute())}
            self._run([_filled(word, paths) for word in self._words])
            if not part.is_file():
                raise DenoiseError(f"{self._words[0]} ended well but wrote no output for {name}")
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
            said = done.stdout.decode(errors="replace").strip().splitlines() or ["(nothing)"]
            raise DenoiseError(
                f"{words[0]} failed with exit code {done.returncode} and said: {said[-1]}"
            )


@dataclass
class SpectralGating(Estimator):
    """Spectral gating as the package noisereduce does it, with its defaults.

    Sainburg, Thielk and Gentner, "Finding, visualizing, and quantifying latent structure across
    diverse animal vocal repertoires", PLOS Computational Biology 16(10), 2020.

    Attributes:
        stationary: take the noise for constant over the recording.
    """

    stationary: bool = False

    def check(self, names: Collection[str]) -> None:
        """Raise UsageError when the package is not installed."""
        if find_spec("noisereduce") is None:
            raise UsageError(
                "spectral gating needs the package noisereduce: pip install 'denoisecli[baselines]'"
            )

    def load(self) -> None:
        """Import the package."""
        self._reduce_noise = import_module("noisereduce").reduce_noise

    def clean(self, name: str, noisy: Path, output: Path) -> Path:
        """Clean all channels."""
        audio, sample_rate = read(noisy)
        try:
            cleaned = self._reduce_noise(audio, sample_rate, stationary=self.stationary)
        except (ValueError, IndexError, RuntimeError) as error:  # on very short recordings
            raise DenoiseError(f"noisereduce failed on {noisy}: {error}") from error
        write(output, cleaned.astype("float32").reshape(audio.shape), sample_rate)
        return output


@dataclass
class Wiener(Estimator):
    """A Wiener filter for speech in noise that changes slowly; see that module."""

    def load(self) -> None:
        """Import it."""
        self._wiener = import_module("denoisecli.evaluation.wiener").wiener

    def clean(self, name: str, noisy: Path, output: Path) -> Path:
        """Clean each channel."""
        audio, sample_rate = read(noisy)
        write(output, np.stack([self._wiener(one, sample_rate) for one in audio]), sample_rate)
        return output


BASELINES: dict[str, type[Estimator]] = {"noisereduce": SpectralGating, "wiener": Wiener}
"""Denoisers to compare with that need no command, by name."""


def _filled(word: str, paths: dict[str, str]) -> str:
    for place, path in paths.items():
        word = word.replace(place, path)
    return word
