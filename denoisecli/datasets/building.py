"""The making of a dataset: recordings decoded, divided into sets, mixed, stored and described."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from denoisecli.datasets import decoding
from denoisecli.datasets import recordings as sources
from denoisecli.datasets.manifest import FORMAT_VERSION, MANIFEST, write_manifest
from denoisecli.datasets.mixtures import Element, Mixed, Mixing, Row
from denoisecli.datasets.recipe import is_meant
from denoisecli.datasets.recordings import Role, Skipped, Source
from denoisecli.datasets.splitting import split
from denoisecli.datasets.workfolder import PACKS, Plan, Rows
from denoisecli.errors import DatasetError, UsageError
from denoisecli.system.pools import Workers

TEST_ROOMS = 0.2
"""Share of the rooms that are kept for a test set with folders of its own."""

STREAMS = {"train": 1, "test": 2, "valid": 3}
"""Sets, and the number that sets the random choices of each apart."""

PART_BYTES = 2**26
"""What a build that is gone on with has to mix again, at most."""


@dataclass(frozen=True)
class Progress:
    """How far a build is: files decoded, or mixes made."""

    stage: Literal["reading", "mixing"]
    done: int
    total: int
    hours: float


Tell = Callable[[Progress], None]


@dataclass(frozen=True)
class MixTask:
    """Mixes to be made at a time.

    Attributes:
        folder: That of the build.
        token: That of the plan.
        name: Of the set.
        start: The first mix.
        end: The one behind the last.
    """

    folder: Path
    token: str
    name: str
    start: int
    end: int

    @property
    def samples(self) -> Path:
        """Where the samples go."""
        return self.folder / f"{self.name}-{self.start}.f32"


def decode(plan: Plan, workers: Workers, tell: Tell) -> None:
    """Decode all recordings that are not decoded yet."""
    tasks = plan.tasks
    files, seconds, total = 0, 0.0, sum(len(task.files) for task in tasks)
    for task, length in zip(tasks, workers.map(decoding.decode, tasks), strict=True):
        files += len(task.files)
        seconds += length
        tell(Progress("reading", files, total, seconds / 3600))


@lru_cache(maxsize=1)
def mixings(folder: Path, token: str) -> tuple[dict[str, Mixing], list[Skipped]]:
    """Give the mixes of each set, no recording being in two of them, and what cannot be used.

    It depends on what is in the folder alone, so that every process can do it for itself.

    Args:
        folder: That of the build, all its recordings decoded.
        token: That of the plan: the folder may be used for another one later.

    Raises:
        DatasetError: too few recordings can be used.
        UsageError: they cannot be grouped as the recipe says.
    """
    recipe = Plan.recipe_in(folder)
    by_role, skipped = sources.load(sorted((folder / PACKS).glob("*.json")))
    _check_weights("clean", by_role["clean"], recipe.clean_weights)
    _check_weights("noise", by_role["noise"], recipe.noise_weights)
    shares = dict(recipe.shares)
    sets: dict[str, dict[Role, Sequence[Source]]] = {name: {} for name in shares}
    tests: dict[Role, Sequence[Source]] = {}
    if "test clean" in by_role:
        tests = {"clean": by_role["test clean"], "noise": by_role["test noise"]}
        sets["test"] = tests
    for stream, role in enumerate(("clean", "noise", "room")):
        if role not in by_role:
            continue
        wanted = dict(shares)
        if role == "room" and tests:
            wanted = {name: share * (1 - TEST_ROOMS) for name, share in shares.items()}
            wanted["test"] = TEST_ROOMS
        rng = np.random.default_rng([recipe.seed, 0, stream])
        parts = split(by_role[role], list(wanted.values()), rng, recipe.group_by)
        for name, part in zip(wanted, parts, strict=True):
            sets[name][role] = part
    return {name: Mixing(part, recipe, STREAMS[name]) for name, part in sets.items()}, skipped


def _check_weights(role: Role, found: Sequence[Source], weights: Iterable[str]) -> None:
    for pattern in weights:
        if not any(is_meant(source.name, pattern) for source in found):
            raise UsageError(f"no {role} recording is in, or has a name like, {pattern}")


@dataclass(frozen=True)
class Made:
    """A mix whose samples are in a file: noisy, then clean."""

    row: Row
    shape: tuple[int, ...]


def make(task: MixTask) -> list[Made | Skipped | None]:
    """Make some mixes, in whatever process this is; see :meth:`Mixing.make`.

    Their samples go into a file: through the pipe of a process they take several times as long.
    """
    results: list[Made | Skipped | None] = []
    mixing = mixings(task.folder, task.token)[0][task.name]
    with task.samples.open("wb") as file:
        for number in range(task.start, task.end):
            result = mixing.make(number)
            if isinstance(result, Mixed):
                for array in (result.noisy, result.clean):
                    file.write(np.ascontiguousarray(array).data)
                results.append(Made(result.row, result.noisy.shape))
            else:
                results.append(result)
    return results


def store(plan: Plan, mixings: Mapping[str, Mixing], workers: Workers, tell: Tell) -> None:
    """Make and store all mixes that are not stored yet.

    Raises:
        DatasetError: no clean clip of a set, or no noise, can be used.
        DenoiseError: the disk is full, or a process died.
    """
    total = sum(len(mixing) for mixing in mixings.values())
    before, samples_before = 0, 0
    for name, mixing in mixings.items():
        for done, samples in _store_set(plan, name, mixing, workers):
            hours = (samples_before + samples) / plan.recipe.sample_rate / 3600
            tell(Progress("mixing", before + done, total, hours))
        before, samples_before = before + len(mixing), samples_before + samples


def _store_set(
    plan: Plan, name: str, mixing: Mixing, workers: Workers
) -> Iterator[tuple[int, int]]:
    """Store what is missing of a set; gives the number of mixes made and samples stored so far."""
    # Processes that make mixes have no need of TensorFlow, which takes seconds to load.
    from denoisecli.datasets.storage import Snapshot

    rows = Rows(plan.folder, name)
    number, done, size, count, samples = 0, 0, 0, 0, 0
    for stored in rows:
        number, done, size = number + 1, stored["next"], stored["bytes"]
        count += len(stored["rows"])
        samples += sum(row["samples"] for row in stored["rows"])
    snapshot = Snapshot(
        plan.folder / "sets" / name, plan.recipe.kind, plan.recipe.n_fft // 2 + 1, size
    )
    if done:
        yield done, samples
    tasks = [MixTask(plan.folder, plan.token, name, *span) for span in mixing.tasks(done)]
    part: dict[str, list[Any]] = {"rows": [], "skipped": []}
    for task, results in zip(tasks, workers.map(make, tasks), strict=True):
        with task.samples.open("rb") as file:
            for result in results:
                done += 1
                if isinstance(result, Skipped):
                    part["skipped"].append(asdict(result))
                elif result is not None:
                    snapshot.add(*(_read(file, result.shape) for _ in ("noisy", "clean")))
                    part["rows"].append(result.row)
                    samples += result.row["samples"]
                yield done, samples
        task.samples.unlink()
        if snapshot.size - size >= PART_BYTES or task is tasks[-1]:
            size = snapshot.flush()
            count += len(part["rows"])
            rows.add(number, {"next": done, "bytes": size, **part})
            number, part = number + 1, {"rows": [], "skipped": []}
    if not count:
        skip = next(iter(rows))["skipped"][0]
        raise DatasetError(
            f"no clean clip of the {name} set can be used: {skip['file']} {skip['reason']}"
        )
    snapshot.finish(count)


def _read(file: BinaryIO, shape: tuple[int, ...]) -> Element:
    return np.fromfile(file, np.float32, math.prod(shape)).reshape(shape)


def describe(
    plan: Plan, mixings: Mapping[str, Mixing], skipped: list[Skipped], names: Mapping[str, str]
) -> None:
    """Write the manifest."""
    recipe = plan.recipe
    digests = [source.digest for mixing in mixings.values() for source in mixing.recordings]
    content = hashlib.sha256(json.dumps([FORMAT_VERSION, recipe.to_json(), digests]).encode())
    left_out = [asdict(skip) for skip in skipped]
    sets = {}
    for name, mixing in mixings.items():
        count, samples, size = 0, 0, 0
        for part in Rows(plan.folder, name):
            size = part["bytes"]
            left_out += part["skipped"]
            for row in part["rows"]:
                count += 1
                samples += row["samples"]
                content.update(json.dumps(row).encode())
        sets[name] = {
            "folder": names[name],
            **{f"{role}_files": len(part) for role, part in mixing.sources.items()},
            "mixes": count,
            "hours": samples / recipe.sample_rate / 3600,
            "bytes": size,
        }
    facts = {
        "denoise_version": plan.facts["denoise_version"],
        "id": content.hexdigest()[:16],
        **{role.replace(" ", "_"): str(root) for role, root in plan.roots.items()},
        "recipe": recipe.to_json(),
        "sets": sets,
        "skipped": left_out,
    }

    def rows() -> Iterator[Row]:
        for name in mixings:
            for part in Rows(plan.folder, name):
                yield from ({"set": name, **row} for row in part["rows"])

    beside = plan.folder / "manifest.part"
    write_manifest(beside, facts, rows())
    beside.replace(plan.folder / MANIFEST)
