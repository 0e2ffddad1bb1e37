"""The folder that a dataset is made in: what is to be done, and what of it is done already."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from denoisecli.datasets.decoding import Task, divide
from denoisecli.datasets.manifest import MANIFEST
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.recordings import File, Role
from denoisecli.errors import DatasetError, UsageError
from denoisecli.system.locks import exclusive

WORK = ".build"
"""Name of that folder, in the one of the dataset."""

PACKS = "sources"
"""Name of the folder in it that holds the decoded recordings."""


@dataclass(frozen=True)
class Plan:
    """What a build is to do, as its folder has it.

    Attributes:
        folder: Where it is done.
        roots: Folder of the recordings of each role.
        files: The recordings.
        recipe: What to make of them.
    """

    folder: Path
    roots: Mapping[Role, Path]
    files: Sequence[File]
    recipe: Recipe

    @property
    def tasks(self) -> list[Task]:
        """How the recordings are decoded."""
        return divide(
            self.files,
            self.roots,
            self.folder / PACKS,
            sample_rate=self.recipe.sample_rate,
            max_clipped=self.recipe.max_clipped,
            rooms=self.recipe.rooms,
            seed=self.recipe.seed,
        )

    @property
    def facts(self) -> dict[str, Any]:
        """All of it but the files, as plain JSON data."""
        return {
            "denoise_version": version("denoisecli"),
            "folders": {role: str(root.absolute()) for role, root in self.roots.items()},
            "recipe": self.recipe.to_json(),
        }

    @cached_property
    def token(self) -> str:
        """What tells this plan from another one."""
        return hashlib.sha256(json.dumps([self.facts, self._listed]).encode()).hexdigest()

    @property
    def _listed(self) -> list[list[Any]]:
        return [list(asdict(file).values()) for file in self.files]

    @staticmethod
    def recipe_in(folder: Path) -> Recipe:
        """Read the recipe of the plan in a folder."""
        return Recipe.from_json(json.loads((folder / "plan.json").read_text())["recipe"])

    def begin(self) -> None:
        """Make the folder, empty but for the plan."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / PACKS).mkdir(parents=True)
        (self.folder / "rows").mkdir()
        (self.folder / "files.json").write_text(json.dumps(self._listed))
        (self.folder / "plan.json").write_text(json.dumps(self.facts))

    def check_same(self) -> None:
        """Refuse to go on with a build of something else.

        Raises:
            UsageError: recipe, recordings or program are not those it was begun with.
        """
        begun = json.loads((self.folder / "plan.json").read_text())
        start_over = "to start over, build without --resume"
        if begun["denoise_version"] != self.facts["denoise_version"]:
            raise UsageError(
                f"the build in {self.folder.parent} was begun by denoise "
                f"{begun['denoise_version']}; {start_over}"
            )
        for name, what in (("recipe", "recipe"), ("folders", "folders of recordings")):
            before, now = begun[name], self.facts[name]
            changes = [
                f"{key} was {before.get(key)} and is {now.get(key)}"
                for key in before | now
                if before.get(key) != now.get(key)
            ]
            if changes:
                raise UsageError(
                    f"the build in {self.folder.parent} was begun with another {what}: "
                    f"{'; '.join(changes)}. Give the same again, or {start_over}"
                )
        listed = {File(*row) for row in json.loads((self.folder / "files.json").read_text())}
        if changed := sorted(listed ^ set(self.files), key=lambda file: file.name):
            raise UsageError(
                f"the recordings have changed since the build in {self.folder.parent} was begun: "
                f"{changed[0].role} file {changed[0].name} was added, removed or changed; "
                f"{start_over}"
            )


@contextmanager
def working(plan: Plan, *, resume: bool) -> Iterator[None]:
    """Hold the folder of a build: nobody else works there, and what is done in it stays.

    It stays when the build is stopped, or fails for a reason that may pass, such as a full disk.

    Raises:
        UsageError: another build is at work in it, or it is to be gone on with and is one of
            something else.
    """
    output = plan.folder.parent
    created = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    try:
        in_use = f"another program is building a dataset in {output}"
        with exclusive(output / f"{WORK}.lock", in_use):
            if resume and (plan.folder / "plan.json").exists():
                plan.check_same()
            else:
                plan.begin()
            try:
                yield
            except (UsageError, DatasetError):  # with these recordings, it cannot be done
                shutil.rmtree(plan.folder)
                raise
            shutil.rmtree(plan.folder)
    finally:
        if created:
            with suppress(OSError):  # not empty
                output.rmdir()


class Rows:
    """What is stored of a set so far, part by part; a part is stored when its rows are.

    Args:
        folder: That of the build.
        name: Of the set.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder / "rows", name

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Give the parts: ``next`` mix, ``bytes`` so far, ``rows``, ``skipped``."""
        number = 0
        while (path := self._path(number)).exists():
            yield json.loads(path.read_text())
            number += 1

    def add(self, number: int, part: Mapping[str, Any]) -> None:
        """Note that a part is stored."""
        beside = self._path(number).with_suffix(".part")
        beside.write_text(json.dumps(part))
        beside.replace(self._path(number))

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._name}-{number:06d}.json"


def put_in_place(folder: Path, output: Path, names: Mapping[str, str]) -> None:
    """Put the finished sets in place of those that are there; may be stopped and done again.

    The old manifest goes first, and the new one comes last: in between there is no manifest, hence
    no dataset, but never one that does not fit its manifest.
    """
    old = folder / "old"
    old.mkdir(exist_ok=True)
    done: list[tuple[Path, Path]] = []

    def move(source: Path, target: Path) -> None:
        if source.exists():
            source.replace(target)
            done.append((source, target))

    try:
        move(output / MANIFEST, old / MANIFEST)
        for name, target in names.items():
            if (folder / "sets" / name).exists():
                move(output / target, old / target)
                move(folder / "sets" / name, output / target)
        move(folder / MANIFEST, output / MANIFEST)
    except BaseException:
        for source, place in reversed(done):
            place.replace(source)
        raise
