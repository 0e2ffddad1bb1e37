"""The folder that a dataset is built in: locked, kept for ``--resume``, moved into place."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from denoisecli.datasets.manifest import MANIFEST, load_manifest
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.recordings import FoundFile, Role
from denoisecli.errors import DatasetError, UsageError
from denoisecli.system.atomic_files import write_text
from denoisecli.system.locks import exclusive

WORK = ".build"
"""Name of the work folder, in the folder of the dataset."""

PACKS, PARTS, SETS = "recordings", "parts", "sets"
"""Folders in it: decoded recordings, mixed pairs, and the sets that pairs are appended to."""

_REQUEST = "request.json"


class BuildRequest(BaseModel):
    """Request for a dataset, as it is kept in the work folder.

    Attributes:
        denoise_version: Version of this program.
        folders: Folder of the recordings of each role.
        recipe: The recipe.
        files: All recordings found.
    """

    model_config = ConfigDict(frozen=True)

    denoise_version: str = Field(default_factory=lambda: version("denoisecli"))
    folders: dict[Role, Path]
    recipe: Recipe
    files: tuple[FoundFile, ...]

    def check_same(self, work: Path) -> None:
        """Check that an interrupted build is of this request.

        Args:
            work: The work folder of the interrupted build.

        Raises:
            UsageError: Recipe, recordings or program have changed.
        """
        build, start_over = f"the build in {work.parent}", "to start over, build without --resume"
        started = BuildRequest.model_validate_json((work / _REQUEST).read_bytes())
        if started.denoise_version != self.denoise_version:
            raise UsageError(
                f"{build} was started by denoise {started.denoise_version}; {start_over}"
            )
        for what, before, now in (
            ("another recipe", started.recipe.model_dump(), self.recipe.model_dump()),
            ("other folders of recordings", _names(started.folders), _names(self.folders)),
        ):
            changes = [
                f"{key} was {before.get(key)} and is {now.get(key)}"
                for key in before | now
                if before.get(key) != now.get(key)
            ]
            if changes:
                raise UsageError(
                    f"{build} was started with {what}: {'; '.join(changes)}. Repeat the command "
                    f"with the same options, or, {start_over}"
                )
        changed = set(started.files) ^ set(self.files)
        if changed:
            file = min(changed, key=lambda file: file.name)
            raise UsageError(
                f"the recordings have changed since {build} was started: {file.role} file "
                f"{file.name} was added, removed or modified; {start_over}"
            )


def _names(folders: Mapping[Role, Path]) -> dict[str, str]:
    return {str(role): str(folder) for role, folder in folders.items()}


@contextmanager
def work_folder(request: BuildRequest, output: Path, *, resume: bool) -> Iterator[Path]:
    """Create or reopen the work folder of a build, which no other build can use meanwhile.

    It is kept if the build is interrupted, or fails for a reason that may pass, such as a full
    disk; otherwise it is removed.

    Args:
        request: Request for the dataset.
        output: The folder of the dataset.
        resume: Continue an interrupted build.

    Yields:
        The path of the work folder.

    Raises:
        UsageError: Another process builds in ``output``, or the interrupted build is of another
            request.
    """
    work = output.absolute() / WORK
    created = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    try:
        in_use = f"another process is building a dataset in {output}"
        with exclusive(output / f"{WORK}.lock", in_use):
            if resume and (work / _REQUEST).exists():
                request.check_same(work)
            elif resume and (work / "plan.json").exists():
                raise UsageError(
                    f"the build in {output} was started by an earlier version of denoise; to start "
                    "over, build without --resume"
                )
            else:
                shutil.rmtree(work, ignore_errors=True)
                for name in (PACKS, PARTS, SETS):
                    (work / name).mkdir(parents=True)
                write_text(work / _REQUEST, request.model_dump_json(), overwrite=False)
            try:
                yield work
            except (UsageError, DatasetError):  # to try again would not help
                shutil.rmtree(work)
                raise
            shutil.rmtree(work)
    finally:
        if created:
            with suppress(OSError):  # it is not empty
                output.rmdir()


def absent_mark(work: Path, name: str) -> Path:
    """Return the path of the file that exists if the dataset has no such set."""
    return work / SETS / f"{name}.absent"


def _set_folders(dataset: Path) -> set[str]:
    """Return the names of the folders of the sets in a manifest; none if it cannot be read."""
    try:
        return {facts.folder for facts in load_manifest(dataset).sets.values()}
    except DatasetError:
        return set()


def move_into_place(work: Path, output: Path, folders: Mapping[str, str]) -> None:
    """Replace the present dataset by the finished sets; it can be repeated when interrupted.

    The old manifest is removed first, and the new one comes last: meanwhile there is no manifest,
    and therefore no dataset, but never one that does not match its manifest.

    Args:
        work: The work folder.
        output: The folder of the dataset.
        folders: Name of the folder of each set.
    """
    old = work / "old"
    old.mkdir(exist_ok=True)
    moved: list[tuple[Path, Path]] = []

    def move(source: Path, target: Path) -> None:
        if source.exists():
            source.replace(target)
            moved.append((source, target))

    try:
        move(output / MANIFEST, old / MANIFEST)
        for folder in _set_folders(old) - set(folders.values()):
            if (output / folder / "dataset_spec.pb").exists():  # a set that is no longer made
                move(output / folder, old / folder)
        for name, folder in folders.items():
            if (work / SETS / name).exists() or absent_mark(work, name).exists():
                move(output / folder, old / folder)
                move(work / SETS / name, output / folder)
        move(work / MANIFEST, output / MANIFEST)
    except BaseException:
        for source, target in reversed(moved):
            target.replace(source)
        raise
