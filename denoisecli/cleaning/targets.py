"""Which recording goes where: files, folders and patterns in, a file or a folder out."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from denoisecli.audio.files import find_audio
from denoisecli.audio.formats import FORMATS, MEDIA, format_of
from denoisecli.errors import UsageError


@dataclass(frozen=True)
class Job:
    """One recording to clean."""

    source: Path
    target: Path
    noise_target: Path | None = None


def plan(
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    suffix: str | None = None,
    noise_output: str | Path | None = None,
) -> list[Job]:
    """Decide which file goes where.

    One file goes to ``output`` if that has a suffix and is no folder. Otherwise ``output`` is a
    folder: files go into it, and folders with all folders below them, which are mirrored there.
    Names stay, but what is read through PyAV (formats.MEDIA) becomes WAV.

    Args:
        inputs: files, folders, and patterns such as ``"takes/*.wav"`` or ``"**/*.flac"``.
        output: a file or a folder.
        suffix: format of what is written to a folder, such as ".flac"; by default as it was.
        noise_output: a file or a folder, as ``output`` is, for what is removed.

    Raises:
        UsageError: an input does not exist, matches nothing or holds no audio, ``output`` is a
            file where a folder is needed, two inputs would become the same file, or an input would
            be replaced by something else than its own clean sound.
    """
    if not inputs:
        raise UsageError("no recordings were given")
    if suffix is not None:
        suffix = f".{suffix.removeprefix('.')}"
        format_of(f"x{suffix}")
    one_file = len(inputs) == 1 and Path(inputs[0]).is_file()
    if one_file and _is_file_name(output):
        source, target, noise = Path(inputs[0]), Path(output), None
        format_of(target)
        if suffix is not None and suffix.lower() != target.suffix.lower():
            raise UsageError(f"{target} has a suffix of its own; --suffix {suffix} is for folders")
        if noise_output is not None:
            into = "" if _is_file_name(noise_output) else target.name
            noise = Path(noise_output) / into
        jobs = [Job(source, target, noise)]
        _keep_sources(jobs)
        return jobs
    sources = list(_sources(inputs))
    for folder in (output, noise_output):
        if folder is not None:
            _require_folder(Path(folder))
    made = [Path(folder).resolve() for folder in (output, noise_output) if folder is not None]
    planned: dict[Path, Job] = {}
    for source, root in sources:
        if any(_is_inside(source, folder) and not _is_inside(root, folder) for folder in made):
            continue  # the output of an earlier run, which lies among the inputs
        relative = source.relative_to(root)
        new_suffix = suffix or (".wav" if relative.suffix.lower() in MEDIA else relative.suffix)
        name = relative.with_suffix(new_suffix)
        job = Job(
            source, Path(output) / name, None if noise_output is None else Path(noise_output) / name
        )
        known = planned.setdefault(job.target, job)
        if known.source.resolve() != source.resolve():
            raise UsageError(
                f"{known.source} and {source} would both become {job.target}; clean them apart"
            )
    if not planned:
        raise UsageError(f"all recordings lie in {output} itself; choose another folder")
    jobs = list(planned.values())
    _keep_sources(jobs)
    return jobs


def _keep_sources(jobs: Sequence[Job]) -> None:
    """Refuse jobs that would write over a recording, but for its own clean sound."""
    sources = {job.source.resolve() for job in jobs}
    for job in jobs:
        for path in (job.target, job.noise_target):
            own = path is job.target and path.resolve() == job.source.resolve()
            if path is not None and not own and path.resolve() in sources:
                raise UsageError(f"{path} is one of the recordings; write somewhere else")


def _is_file_name(output: str | Path) -> bool:
    path = Path(output)
    return bool(path.suffix) and not path.is_dir() and not str(output).endswith(("/", "\\"))


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder)


def _require_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file; several recordings need a folder to go to")
    if path.suffix.lower() in FORMATS and not path.is_dir():
        raise UsageError(f"{path} names one file; several recordings need a folder to go to")


def _sources(inputs: Sequence[str | Path]) -> Iterator[tuple[Path, Path]]:
    """Give every recording, and the folder below which its place is kept."""
    suffixes = (*FORMATS, *MEDIA)
    for one in inputs:
        path = Path(one)
        if path.is_dir():
            for source in find_audio(path, suffixes):
                yield source, path
        elif path.exists():
            yield path, path.parent
        else:
            root, pattern = _divided(path)
            names = glob.glob(pattern, root_dir=root, recursive=True)  # noqa: PTH207 (follows links)
            found: dict[Path, Path] = {}
            for source in sorted((root / name for name in names), key=lambda path: len(path.parts)):
                if source.is_file() and source.suffix.lower() in suffixes:
                    found.setdefault(source.resolve(), source)  # links may lead round in circles
            if not found:
                wanted = "matches no recordings" if glob.has_magic(pattern) else "does not exist"
                raise UsageError(f"{one} {wanted}")
            for source in sorted(found.values()):
                yield source, root


def _divided(path: Path) -> tuple[Path, str]:
    """Divide a path with wildcards into folders that are there, brackets or not, and a pattern."""
    parts = path.parts
    fixed = 0
    while fixed < len(parts) - 1 and Path(*parts[: fixed + 1]).is_dir():
        fixed += 1
    return Path(*parts[:fixed]), str(Path(*parts[fixed:]))
