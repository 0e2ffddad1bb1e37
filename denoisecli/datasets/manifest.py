"""The manifest of a dataset: its recipe, its sets, what was left out, and a row per mixture."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from denoisecli.datasets.choices import Kind
from denoisecli.datasets.recipe import Recipe, explain
from denoisecli.datasets.recordings import Role, Skipped
from denoisecli.errors import DatasetError, UsageError

MANIFEST = "dataset.json"
FORMAT: Literal["denoise dataset"] = "denoise dataset"
FORMAT_VERSION = 2


@dataclass(frozen=True, slots=True)
class UsedNoise:
    """A noise in a mixture: recording, first sample, and gain before mixing."""

    noise: str
    noise_offset: int
    noise_gain: float


@dataclass(frozen=True, slots=True)
class Joined:
    """A recording in a joined clip, the sample of the clip it begins at, and its length."""

    clean: str
    at: int
    samples: int


@dataclass(frozen=True, slots=True)
class Row:
    """Recipe of one mixture.

    ``noisy = gain * ((1 - ratio) * clean + ratio * sum(noise_gain * noise))``, where offsets are
    counted at the rate of the dataset, a short noise is looped, and the sum is over all noises. In
    a dataset of existing pairs, the noise is the noisy recording minus the clean one.

    Attributes:
        set: Set that the pair belongs to.
        clean: Name of the clean recording; of a joined clip, the first one.
        clean_offset: First sample of the recording in the clip.
        samples: Length of the clip.
        noise: Name of the noise recording.
        noise_offset: First sample of the noise that was used.
        noise_gain: Gain of the noise before mixing.
        ratio: Mixing ratio, 0..1.
        snr_db: SNR of clean sound and noise as they were mixed; None if infinite.
        gain: Gain of the pair, which sets its level or keeps it within full scale.
        joined: All recordings of a joined clip.
        more_noises: Further noises.
        level_dbfs: RMS of the noisy sound in dBFS; None if an older version did not store it.
        room: Name of the room whose reverberation the clean sound has.
        target_snr_db: With a room, the SNR of the stored pair: its noise includes the
            reverberation that the clean part lacks.
        crc32: CRC-32 of all samples of the pair; None if an older version did not store it.
    """

    set: str
    clean: str
    clean_offset: int
    samples: int
    noise: str
    noise_offset: int
    noise_gain: float
    ratio: float
    snr_db: float | None
    gain: float
    joined: list[Joined] = field(default_factory=list)
    more_noises: list[UsedNoise] = field(default_factory=list)
    level_dbfs: float | None = None
    room: str | None = None
    target_snr_db: float | None = None
    crc32: str | None = None

    @property
    def pair_snr_db(self) -> float | None:
        """SNR of the stored pair in dB; None if infinite."""
        return self.snr_db if self.target_snr_db is None else self.target_snr_db

    @property
    def clean_names(self) -> list[str]:
        """Names of all clean recordings in the clip, in their order."""
        return list(dict.fromkeys([self.clean, *(piece.clean for piece in self.joined)]))

    @property
    def noise_names(self) -> list[str]:
        """Names of all noise recordings."""
        return [self.noise, *(noise.noise for noise in self.more_noises)]


@dataclass(frozen=True, slots=True)
class Source:
    """A recording that a set was made of.

    Attributes:
        role: Its role.
        name: Path relative to the folder of the role.
        rate: Sample rate of the file in Hz.
        bandwidth: Highest frequency in Hz that the file has sound at, whatever its rate is.
    """

    role: Role
    name: str
    rate: int
    bandwidth: int


class SetFacts(BaseModel):
    """Facts about a set.

    Attributes:
        folder: Name of its folder.
        clean_files: Number of clean recordings.
        noise_files: Number of noise recordings.
        room_files: Number of rooms.
        mixtures: Number of pairs.
        hours: Duration of the pairs in hours.
        bytes: Size of the stored pairs in bytes.
    """

    folder: str
    clean_files: int
    noise_files: int
    room_files: int = 0
    mixtures: int
    hours: float
    bytes: int


class DatasetFacts(BaseModel):
    """The manifest without its rows.

    Attributes:
        id: Hash of the recordings, the recipe and the rows.
        denoise_version: Version that built the dataset.
        sources: Folder of the recordings of each role.
        recipe: The recipe.
        sets: Facts about each set.
        skipped: Recordings and clips that were left out.
        copies: Recordings that are copies of each other, such as an Ogg file and its WAV file, as
            "clean a.wav" with role and name; all of a list are in one set.
        recordings: The clean and noise recordings of all sets.
        notes: Sentences about the dataset that its user should know.
    """

    format: Literal["denoise dataset"] = FORMAT
    format_version: int = FORMAT_VERSION
    denoise_version: str | None = None
    id: str
    sources: dict[Role, str] = Field(default_factory=dict)
    recipe: Recipe
    sets: dict[str, SetFacts]
    skipped: list[Skipped] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    copies: list[list[str]] = Field(default_factory=list)
    recordings: list[Source] = Field(default_factory=list)


class Manifest(DatasetFacts):
    """The whole manifest; rows are in the order of the stored pairs of each set."""

    mixtures: list[Row]

    def rows(self, name: str) -> list[Row]:
        """Return the rows of a set."""
        return [row for row in self.mixtures if row.set == name]

    def facts(self, folder: Path, name: str, kind: Kind) -> SetFacts:
        """Return the facts about a set that pairs of some kind are wanted from.

        Args:
            folder: The folder of the manifest, for the error message.
            name: Name of the set.
            kind: Kind of pairs; those of waveforms can be made to any kind.

        Raises:
            DatasetError: There is no such set, or it holds spectrograms instead of waveforms.
        """
        if name not in self.sets:
            raise DatasetError(f"{folder} has no set '{name}', only {', '.join(self.sets)}")
        if self.recipe.kind == Kind.SPECTROGRAM and kind == Kind.WAVEFORM:
            raise DatasetError(
                f"{folder} holds pairs of spectrograms, but waveforms are needed: build it again "
                "with `denoise build-dataset --kind waveform`"
            )
        return self.sets[name]

    def source_hashes(self, *sets: str, role: Literal["clean", "noise"] | None = None) -> set[str]:
        """Return the hashes of the recordings in sets (see `source_hash`).

        Args:
            sets: Names of the sets; those that the dataset does not have are ignored.
            role: Role of the recordings; by default both.
        """
        return hashes_of((row for row in self.mixtures if row.set in sets), role)

    @property
    def mixing_recipe(self) -> Recipe:
        """The recipe, with the range of SNRs in dB of the mixtures if they alone tell it.

        That is so for existing pairs, and if levels are not matched.
        """
        if self.recipe.match_level and not self.recipe.pairs:
            return self.recipe
        snrs = [row.snr_db for row in self.mixtures if row.snr_db is not None] or [0.0]
        low, high = np.percentile(snrs, (5, 95)).tolist()
        return self.recipe.model_copy(update={"snr_db": (low, high)})


def source_hash(role: Role, name: str) -> str:
    """Return eight hexadecimal digits by which a recording is known to have been trained on."""
    return hashlib.sha256(f"{role} {name}".encode()).hexdigest()[:8]


def hashes_of(rows: Iterable[Row], role: Literal["clean", "noise"] | None = None) -> set[str]:
    """Return the hashes of the recordings in pairs (see `source_hash`).

    Args:
        rows: The pairs.
        role: Role of the recordings; by default both.
    """
    names = set[tuple[Role, str]]()
    for row in rows:
        if role != "noise":
            names.update(("clean", name) for name in row.clean_names)
        if role != "clean":
            names.update(("noise", name) for name in row.noise_names if name)
    return {source_hash(*name) for name in names}


def load_manifest(folder: Path) -> Manifest:
    """Read the manifest of a dataset.

    Raises:
        DatasetError: The folder holds no dataset, or one of a newer version, or the manifest is
            damaged.
    """
    path = Path(folder) / MANIFEST
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetError(
            f"{folder} is not a dataset: it has no {MANIFEST}; `denoise build-dataset` builds one"
        ) from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read {path}: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DatasetError(f"{path} is not the manifest of a dataset")
    version = document.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise DatasetError(
            f"{folder} was built by denoise {document.get('denoise_version')} in a newer format; "
            "update denoise, or build the dataset again"
        )
    try:
        return Manifest.model_validate(_upgraded(document))
    except ValidationError as error:
        raise DatasetError(f"{path} is damaged: {explain(error, depth=3)}") from error
    except (UsageError, AttributeError, TypeError) as error:
        raise DatasetError(f"{path} is damaged: {error}") from error


_ROLES_OF_VERSION_1: tuple[Role, ...] = ("clean", "noise", "test clean", "test noise", "room")


def _upgraded(document: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest with the keys of the present format, of which version 1 differs."""

    def renamed(section: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
        return {new if key == old else key: value for key, value in section.items()}

    upgraded = renamed(document, "mixes", "mixtures")
    if "recipe" in document:
        recipe = renamed(document["recipe"], "mixes_per_clip", "mixtures_per_clip")
        recipe.setdefault("valid_share", 0.0)  # earlier, there was none unless in the split
        upgraded["recipe"] = {key: recipe[key] for key in recipe if key in Recipe.model_fields}
    if "sets" in document:
        upgraded["sets"] = {
            name: renamed(facts, "mixes", "mixtures") for name, facts in document["sets"].items()
        }
    if "sources" not in document:
        keys = {role: role.replace(" ", "_") for role in _ROLES_OF_VERSION_1}
        upgraded["sources"] = {role: document[key] for role, key in keys.items() if key in document}
    return upgraded


def write_manifest(path: Path, facts: DatasetFacts, rows: Iterable[Row]) -> None:
    """Write a manifest; the rows need not all be in memory at once."""
    row_type = TypeAdapter(Row)
    with path.open("wb") as file:
        file.write(facts.model_dump_json(indent=1).encode().removesuffix(b"\n}"))
        file.write(b',\n "mixtures": [')
        for number, row in enumerate(rows):
            file.write(b",\n  " if number else b"\n  ")
            file.write(row_type.dump_json(row, exclude_defaults=True))
        file.write(b"\n ]\n}\n")
