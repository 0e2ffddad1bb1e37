"""The jobs of a call of `clean`: recordings and the files that they are cleaned into."""

import glob
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from denoisecli.audio.files import find_audio, walk_files
from denoisecli.audio.formats import CONTAINERS, FORMATS, SUFFIXES, require_writable
from denoisecli.errors import UsageError

_IGNORES_CASE = sys.platform in ("darwin", "win32")  # the usual file system
_MAX_NAMES = 3  # so many files are named in a note, and all are counted


class Status(StrEnum):
    """State of a job."""

    PLANNED = "planned"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class Job:
    """A recording to clean.

    Attributes:
        source: The noisy file.
        target: The cleaned file.
        noise_target: The file for what is removed, if it is wanted.
    """

    source: Path
    target: Path
    noise_target: Path | None = None

    @property
    def existing(self) -> list[Path]:
        """The targets that exist, dangling links among them."""
        return [path for path in self._targets if path.exists() or path.is_symlink()]

    def status(self, *, overwrite: bool, skip_existing: bool) -> Status:
        """Return what becomes of the job because of the files that exist now.

        Args:
            overwrite: Existing targets are replaced.
            skip_existing: The job is skipped if all its targets exist.

        Returns:
            PLANNED, SKIPPED, or FAILED if a target exists that may not be replaced.
        """
        if skip_existing and self.existing == self._targets:
            return Status.SKIPPED
        return Status.FAILED if self.existing and not overwrite else Status.PLANNED

    @property
    def _targets(self) -> list[Path]:
        return [path for path in (self.target, self.noise_target) if path is not None]


@dataclass(frozen=True)
class Plan:
    """Jobs, and notes on inputs that are left out.

    Attributes:
        jobs: The jobs.
        notes: Notes about files and folders that are left out.
        unreadable: Folders that may not be read.
    """

    jobs: list[Job]
    notes: list[str]
    unreadable: list[Path]


def plan(
    inputs: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    suffix: str | None = None,
    noise_output: str | Path | None = None,
) -> Plan:
    """Decide which recording is written where.

    A single file is written to ``output`` if that has a suffix and is not a folder. Otherwise
    ``output`` is a folder: files are written into it under their names, and folders with their
    subfolders. Without ``output``, ``NAME.EXT`` is written to ``NAME.clean.EXT`` beside it, and a
    folder ``FOLDER`` to ``FOLDER-clean``. What has no suffix of formats.FORMATS becomes WAV then.

    Args:
        inputs: Files, folders, and patterns such as ``"takes/*.wav"`` or ``"**/*.flac"``.
        output: A file or a folder.
        suffix: Suffix of the files in a folder, such as ".flac" (default: that of the source).
        noise_output: A file or a folder, in the same way, for what is removed.

    Raises:
        UsageError: An input does not exist, matches nothing or has no recordings, ``output`` is a
            file but a folder is needed, two inputs have the same target, or a target is another
            input.
    """
    if not inputs:
        raise UsageError("no recordings were given")
    for source in inputs:
        if not str(source):
            raise UsageError("the name of a recording is empty; is a variable not set?")
        if Path(source).is_fifo():
            raise UsageError(f"{source} is a pipe; give it as -, as in: command | denoise clean -")
        if Path(source).resolve() == Path(Path(source).resolve().anchor):
            raise UsageError(f"{source} is the root of the file system; name a folder in it")
    if suffix is not None:
        suffix = f".{suffix.removeprefix('.')}"
        require_writable(f"*{suffix}")
    is_one_file = len(inputs) == 1 and Path(inputs[0]).is_file()
    target_file = _as_file(output) if is_one_file else None
    noise_file = _as_file(noise_output) if is_one_file else None
    if target_file is not None:
        require_writable(target_file)
        if suffix is not None and suffix.lower() != target_file.suffix.lower():
            raise UsageError(
                f"{target_file} already has a suffix; --suffix {suffix} is for folders"
            )
    recordings = list(_find(inputs))
    target_folder = _as_folder(output, is_one_file) if target_file is None else None
    noise_folder = _as_folder(noise_output, is_one_file) if noise_file is None else None

    unreadable: list[Path] = []
    notes = [note for source in inputs for note in _notes_on_left_out(Path(source), unreadable)]
    folders = {folder.resolve() for folder in (target_folder, noise_folder) if folder is not None}
    names = _distinct_names(recordings, suffix)
    files = set[Path]()
    if output is None:
        folders |= {_beside(one.root).resolve() for one in recordings if one.in_folder}
        files = {recording.beside(names[recording]).resolve() for recording in recordings}
    earlier = dict.fromkeys(
        recording.path
        for recording in recordings
        if recording.path.resolve() in files or recording.was_written_to(folders)
    )
    if earlier:
        notes.append(f"left out, since an earlier call wrote them: {_list_names(list(earlier))}")

    jobs: dict[str, Job] = {}
    for recording in recordings:
        if recording.path in earlier:
            continue
        target = target_file or recording.target(target_folder, names[recording])
        noise_target = noise_file
        if noise_folder is not None:
            noise_target = noise_folder / (target.name if target_file else names[recording])
        job = Job(recording.path, target, noise_target)
        known = jobs.setdefault(_identity(target), job)  # a link to a recording is the recording
        if known.source.resolve() != recording.path.resolve():
            raise UsageError(
                f"{known.source} and {recording.path} would both be written to {target}; clean "
                "them in separate calls"
            )
    if not jobs:
        raise UsageError("all recordings are in the output folder itself; choose another folder")
    _refuse_inputs_as_targets(list(jobs.values()))
    _refuse_shared_targets(list(jobs.values()))
    return Plan(list(jobs.values()), notes, unreadable)


@dataclass(frozen=True)
class _Recording:
    """A recording that was found.

    Attributes:
        path: The file.
        root: Folder below which its path is kept in the output.
        in_folder: The root is one of the inputs, which are files and patterns otherwise.
    """

    path: Path
    root: Path
    in_folder: bool

    def name(self, suffix: str | None) -> Path:
        """Return the path of its output below that of the root."""
        relative = self.path.relative_to(self.root)
        is_written = relative.suffix.lower() in FORMATS
        return relative.with_suffix(suffix or (relative.suffix if is_written else ".wav"))

    def target(self, folder: Path | None, name: Path) -> Path:
        """Return the path of its output with a name, in a folder or beside the input."""
        if folder is None and not self.in_folder:
            return self.beside(name)
        return (folder or _beside(self.root)) / name

    def beside(self, name: Path) -> Path:
        """Return the path of its output beside the recording."""
        return self.path.with_name(f"{name.stem}.clean{name.suffix}")

    def was_written_to(self, folders: set[Path]) -> bool:
        """Return whether one of the resolved output folders is below its root and holds it."""
        root = self.root.resolve()
        return not folders.isdisjoint({*self.path.resolve().parents} - {root, *root.parents})


def _distinct_names(recordings: Sequence[_Recording], suffix: str | None) -> dict[_Recording, Path]:
    """Return the names of the outputs: ``talk.m4a.wav`` where ``talk.wav`` is taken."""
    names = {recording: recording.name(suffix) for recording in recordings}
    users: dict[Path, set[Path]] = {}
    for recording, name in names.items():
        users.setdefault(recording.path.parent / name.name, set()).add(recording.path.resolve())
    for recording, name in names.items():
        is_shared = len(users[recording.path.parent / name.name]) > 1
        if is_shared and name.suffix.lower() != recording.path.suffix.lower():
            names[recording] = name.with_name(f"{recording.path.name}{name.suffix}")
    return names


def _beside(folder: Path) -> Path:
    """Return the output folder of an input folder."""
    if folder.name in ("", ".."):
        folder = folder.resolve()
    return folder.with_name(f"{folder.name}-clean")


def _refuse_inputs_as_targets(jobs: Sequence[Job]) -> None:
    """Raise UsageError if a job would overwrite a recording, except with its own clean sound."""
    sources = {job.source.resolve() for job in jobs}
    for job in jobs:
        for path in (job.target, job.noise_target):
            own = path is job.target and path.resolve() == job.source.resolve()
            if path is not None and not own and path.resolve() in sources:
                raise UsageError(f"{path} is one of the recordings; choose another output")


def _refuse_shared_targets(jobs: Sequence[Job]) -> None:
    """Raise UsageError if the noise of a job would be written over another output."""
    taken = {_identity(job.target) for job in jobs}
    for job in jobs:
        if job.noise_target is None:
            continue
        path = _identity(job.noise_target)
        if path in taken:
            raise UsageError(
                f"{job.noise_target} would hold both the noise and another output; choose another "
                "place for the noise"
            )
        taken.add(path)


def _identity(path: Path) -> str:
    """Return what paths have in common that name the same file."""
    name = str(path.resolve())
    return unicodedata.normalize("NFC", name).casefold() if _IGNORES_CASE else name


def _as_file(output: str | Path | None) -> Path | None:
    """Return the path of an output if it names a file."""
    if output is None or str(output).endswith(("/", "\\")):
        return None
    path = Path(output)
    return path if path.suffix and not path.is_dir() else None


def _as_folder(output: str | Path | None, is_one_file: bool) -> Path | None:
    """Return the path of an output folder; raise UsageError if it is a file."""
    if output is None:
        return None
    path = Path(output)
    if is_one_file and path.exists() and not path.is_dir():
        raise UsageError(f"{path} is neither a folder nor a file name with an audio suffix")
    if not path.is_dir() and (path.exists() or path.suffix.lower() in (*FORMATS, *CONTAINERS)):
        is_or_names = "is" if path.exists() else "names"
        raise UsageError(
            f"{path} {is_or_names} a file, but the output for several recordings is a folder"
        )
    return path


def _find(inputs: Sequence[str | Path]) -> Iterator[_Recording]:
    for source in inputs:
        path = Path(source)
        if path.is_dir():
            for file in find_audio(path):
                yield _Recording(file, path, in_folder=True)
        elif path.exists():
            yield _Recording(path, path.parent, in_folder=False)
        else:
            root, matches = _matches(path)
            found: dict[Path, Path] = {}
            for file in sorted(matches, key=lambda path: len(path.parts)):
                if file.is_file() and file.suffix.lower() in SUFFIXES:
                    found.setdefault(file.resolve(), file)  # links may form circles
            if not found:
                # A path on a drive that does not exist is not relative to any folder.
                rest = path.relative_to(root) if path.is_relative_to(root) else path
                is_pattern = glob.has_magic(str(rest))
                problem = "matches no recordings" if is_pattern else "does not exist"
                hint = "" if is_pattern or len(inputs) == 1 else "; the output is given with -o"
                raise UsageError(f"{source} {problem}{hint}")
            for file in sorted(found.values()):
                yield _Recording(file, root, in_folder=False)


def _matches(path: Path) -> tuple[Path, list[Path]]:
    """Return an existing folder, and the files and folders below it that a pattern matches."""
    parts = path.parts
    fixed = 0
    while fixed < len(parts) - 1 and Path(*parts[: fixed + 1]).is_dir():
        fixed += 1
    root, pattern = Path(*parts[:fixed]), str(Path(*parts[fixed:]))
    names = glob.glob(pattern, root_dir=root, recursive=True)  # noqa: PTH207 (follows links)
    return root, [root / name for name in names]


def _notes_on_left_out(source: Path, unreadable: list[Path]) -> Iterator[str]:
    """Yield notes about what a folder or a pattern holds that is not cleaned.

    Folders that may not be read are added to a list instead.
    """
    folders: list[Path] = []
    if source.is_dir():
        paths = list(walk_files(source, unreadable.append))
    elif source.exists():
        return
    else:
        _, paths = _matches(source)
        if "**" not in source.parts:
            folders = [path for path in paths if path.is_dir()]
    files = [path for path in paths if path.is_file()]
    reasons = {
        "they do not have the suffix of a recording": [
            path for path in files if path.suffix.lower() not in SUFFIXES
        ],
        "they are broken links or special files": [
            path for path in paths if not path.is_file() and not path.is_dir()
        ],
        "a pattern matches files, not folders": folders,
    }
    for reason, left_out in reasons.items():
        if left_out:
            yield f"left out, since {reason}: {_list_names(left_out)}"


def _list_names(paths: Sequence[Path]) -> str:
    shown = ", ".join(str(path) for path in sorted(paths)[:_MAX_NAMES])
    if len(paths) <= _MAX_NAMES:
        return shown
    suffixes = Counter(path.suffix.lower() or "without suffix" for path in paths)
    counts = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
    summary = ", ".join(f"{count} {suffix}" for suffix, count in counts)
    return f"{shown} and {len(paths) - _MAX_NAMES} more ({summary} in all)"
