"""Build a dataset: decode recordings, split them, mix, store the pairs, write the manifest."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple
from uuid import uuid4

from pydantic import BaseModel, TypeAdapter

from denoisecli.datasets.choices import Kind
from denoisecli.datasets.decoding import decode, decode_tasks
from denoisecli.datasets.duplicates import Copies, find_copies, note_on_noisy_speech
from denoisecli.datasets.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    DatasetFacts,
    Row,
    SetFacts,
    Source,
    write_manifest,
)
from denoisecli.datasets.mixtures import Mixtures, Pair
from denoisecli.datasets.pairs import (
    StoredPairs,
    check_pairs,
    match_pairs,
    partners_of,
    with_partners_left_out,
)
from denoisecli.datasets.recipe import Recipe, check_weights
from denoisecli.datasets.recordings import (
    ROLES,
    Recording,
    Role,
    Skipped,
    check_roles,
    find_recordings,
    load_recordings,
)
from denoisecli.datasets.records import (
    append_records,
    check_path,
    check_size,
    records_file,
    speech_file,
    write_tensor,
)
from denoisecli.datasets.rooms import require_pyroomacoustics
from denoisecli.datasets.splitting import OWN_ROLES, split_into_sets
from denoisecli.datasets.workfolder import (
    PACKS,
    PARTS,
    SETS,
    WORK,
    BuildRequest,
    absent_mark,
    move_into_place,
    work_folder,
)
from denoisecli.errors import DatasetError, DenoiseError, UsageError
from denoisecli.system.atomic_files import refuse_existing, replacing, write_text
from denoisecli.system.extras import require
from denoisecli.system.pools import Workers, processes


@dataclass(frozen=True)
class BuildProgress:
    """Progress of a build: files that were read, or mixtures that were stored.

    Attributes:
        stage: Stage of the build.
        done: Files or mixtures done.
        total: All of them.
        hours: Duration of those done, in hours.
    """

    stage: Literal["reading", "mixing"]
    done: int
    total: int
    hours: float


OnProgress = Callable[[BuildProgress], None]


def build(
    clean: Path,
    noise: Path,
    output: Path,
    recipe: Recipe,
    *,
    test_clean: Path | None = None,
    test_noise: Path | None = None,
    valid_clean: Path | None = None,
    valid_noise: Path | None = None,
    reverb: Path | None = None,
    train_name: str = "train",
    valid_name: str = "valid",
    test_name: str = "test",
    jobs: int = 1,
    executor: Executor | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: OnProgress = lambda progress: None,
) -> None:
    """Build a dataset of mixtures from folders of recordings.

    Clean recordings, noises and rooms are all split before anything is mixed: no recording is in
    two sets. Recordings that cannot be used, and copies of others, are left out and listed in the
    manifest. The same recordings and recipe give the same pairs, bit for bit, whatever processes
    compute them. Memory does not grow with the corpus: every recording is decoded once, and kept
    at the rate of the dataset in a work folder until the sets are complete.

    Args:
        clean: Folder of clean recordings, searched recursively.
        noise: Folder of noise recordings, searched recursively; or of noisy recordings, if the
            recipe is of pairs, and likewise for the other folders of noise.
        output: Folder for ``dataset.json`` and the folders of the sets; other files in it stay.
        recipe: The parameters of the dataset.
        test_clean: Folder of the clean recordings of the test set, which gets no others.
        test_noise: Folder of the noise recordings of the test set.
        valid_clean: Folder of the clean recordings of the validation set, which gets no others.
        valid_noise: Folder of the noise recordings of the validation set.
        reverb: Folder of impulse responses of rooms.
        train_name: Name of the training set's folder.
        valid_name: Name of the validation set's folder, if there is one.
        test_name: Name of the test set's folder.
        jobs: Number of processes; 1 works in this one. More need a script that can be imported
            (``if __name__ == "__main__":``).
        executor: Computes instead of local processes, such as the executor of a Dask client; its
            machines must see recordings and ``output`` under the same paths.
        resume: Continue an interrupted build, whose work folder was kept.
        overwrite: Replace an existing dataset.
        on_progress: Called with the progress of the build.

    Raises:
        UsageError: TensorFlow is not installed; a folder does not exist, is a file or has no audio
            files in it; the split does not fit the folders; the name of a set is not allowed; there
            is already a dataset; or the interrupted build was of something else.
        DatasetError: Too few recordings can be used.
        DenoiseError: ``output`` cannot be written, or a process died.
    """
    require("train", "tensorflow", "google_crc32c", purpose="building datasets")
    if recipe.pairs and reverb is not None:
        raise UsageError("reverberation cannot be added to existing pairs")
    if recipe.rooms:
        require_pyroomacoustics()
    output = Path(output)
    own_folders: dict[str, tuple[Path | None, Path | None]] = {
        "test": (test_clean, test_noise),
        "valid": (valid_clean, valid_noise),
    }
    sources = _source_folders(clean, noise, own_folders, reverb)
    names = {"train": train_name, "valid": valid_name, "test": test_name}
    folders = {name: names[name] for name in _set_names(recipe, sources)}
    is_moving = resume and (output / WORK / MANIFEST).exists()
    _check_targets(output, folders, overwrite=overwrite or is_moving)
    request = BuildRequest(
        folders={role: folder.absolute() for role, folder in sources.items()},
        recipe=recipe,
        files=tuple(find_recordings(sources)),
    )
    try:
        with work_folder(request, output, resume=resume) as work, ExitStack() as stack:
            if not (work / MANIFEST).exists():
                workers = Workers(executor) if executor else stack.enter_context(processes(jobs))
                _build_sets(work, request, sources, folders, workers, on_progress)
            move_into_place(work, output, folders)
    except OSError as error:
        raise DenoiseError(f"cannot write {output}: {error.strerror or error}") from error


def _source_folders(
    clean: Path,
    noise: Path,
    own_folders: Mapping[str, tuple[Path | None, Path | None]],
    reverb: Path | None,
) -> dict[Role, Path]:
    folders: dict[Role, Path | None] = {"clean": clean, "noise": noise}
    for name, own in own_folders.items():
        if own.count(None) == 1:
            raise UsageError(f"a {name} set needs two folders, of clean recordings and of noise")
        folders |= zip(OWN_ROLES[name], own, strict=True)
    folders["room"] = reverb
    return {role: Path(folder) for role, folder in folders.items() if folder is not None}


def _set_names(recipe: Recipe, sources: Mapping[Role, Path]) -> list[str]:
    """Return the names of the sets that the recipe makes, or may make of enough recordings."""
    names = list(recipe.shares)
    has_test_folders, has_valid_folders = "test clean" in sources, "valid clean" in sources
    if has_valid_folders and "valid" in names:
        raise UsageError(
            "the validation set has folders of its own: leave out its share of the split"
        )
    if has_valid_folders or recipe.chooses_valid:
        names.insert(1, "valid")
    if has_test_folders and "test" in names:
        raise UsageError(
            "the test set has folders of its own: the split must be 1, or the shares of train and "
            "valid"
        )
    if not has_test_folders and "test" not in names:
        raise UsageError(
            "the test set would be empty: give a split below 1, or the shares of train, valid and "
            "test, or give the test set folders of its own"
        )
    return [*names, "test"] if has_test_folders else names


def _check_targets(output: Path, folders: Mapping[str, str], *, overwrite: bool) -> None:
    """Check that the finished sets can be moved into place, and replace nothing but a dataset."""
    check_path(output)
    for folder in folders.values():
        if folder in ("", "..", MANIFEST) or folder.startswith(".") or Path(folder).name != folder:
            raise UsageError(f"'{folder}' cannot be the name of the folder of a set")
        target = output / folder
        check_path(target)
        refuse_existing(target, overwrite=overwrite)
        if target.exists() and not (target / "dataset_spec.pb").exists():
            raise UsageError(
                f"{target} does not hold a dataset, and is not replaced; move it, or give the set "
                "another name"
            )
    refuse_existing(output / MANIFEST, overwrite=overwrite)
    if len(set(folders.values())) < len(folders):
        raise UsageError("the sets need different names")


class Totals(NamedTuple):
    """Number of pairs, their samples, and the bytes of their records and reverberant speech."""

    pairs: int = 0
    samples: int = 0
    bytes: int = 0
    speech_bytes: int = 0

    def plus(self, other: "Totals") -> "Totals":
        """Return the sums of both totals."""
        return Totals(*(sum(values) for values in zip(self, other, strict=True)))


class MixedPart(BaseModel):
    """Result of a task: the rows and total size of its pairs, and the clips it left out."""

    rows: list[Row]
    skipped: list[Skipped]
    totals: Totals


@dataclass(frozen=True)
class MixTask:
    """Mixtures to be computed together.

    Attributes:
        work: The work folder.
        build_id: Differs from build to build, even in the same folder.
        recipe: The recipe.
        set_name: Name of the set.
        start: Number of the first mixture.
        end: Number after that of the last mixture.
    """

    work: Path
    build_id: str
    recipe: Recipe
    set_name: str
    start: int
    end: int

    @property
    def records(self) -> Path:
        """The file of the pairs, until they are appended to the set."""
        return self.work / PARTS / f"{self.set_name}-{self.start:09d}.tfrecord"

    @property
    def speech(self) -> Path:
        """The file of the reverberant speech, until it is appended to that of the set."""
        return self.records.with_suffix(".speech")

    @property
    def index(self) -> Path:
        """The JSON file of the ``MixedPart``; it is written last."""
        return self.records.with_suffix(".json")

    def part(self) -> MixedPart:
        """Read what the task made."""
        return MixedPart.model_validate_json(self.index.read_bytes())


def mix_part(task: MixTask) -> Totals:
    """Compute and write the pairs of a task, unless that is done; runs in any process.

    Raises:
        UsageError: This machine lacks a package.
        DatasetError: No noise can be found that is not silent.
        DenoiseError: The pairs cannot be written.
    """
    if not task.index.exists():
        require("train", "google_crc32c", purpose="building datasets")
        mixtures = load_sets(task.work, task.build_id, task.recipe)[0][task.set_name]
        results = (mixtures.mix(number) for number in range(task.start, task.end))
        rows, skipped = [], []
        with (
            replacing(task.records, overwrite=True) as path,
            path.open("wb") as file,
            replacing(task.speech, overwrite=True) as speech_path,
            speech_path.open("wb") as speech,
        ):
            for result in results:
                if isinstance(result, Pair):
                    write_tensor(file, result.noisy)
                    write_tensor(file, result.clean)
                    rows.append(result.row)
                    if result.speech is not None:
                        speech.write(result.speech.astype("<f4").tobytes())
                elif result is not None:
                    skipped.append(result)
            samples = sum(row.samples for row in rows)
            totals = Totals(len(rows), samples, file.tell(), speech.tell())
        part = MixedPart(rows=rows, skipped=skipped, totals=totals)
        write_text(task.index, part.model_dump_json(exclude_defaults=True))
    return task.part().totals


@lru_cache(maxsize=1)
def load_sets(
    work: Path, build_id: str, recipe: Recipe
) -> tuple[dict[str, Mixtures], list[Skipped], list[str], list[list[str]]]:
    """Split the decoded recordings into sets; every process that mixes does it for itself.

    Args:
        work: The work folder, with all recordings decoded.
        build_id: Differs from build to build, even in the same folder.
        recipe: The recipe.

    Returns:
        The mixtures of each set, the recordings that were left out, notes for the user, and the
        recordings that are copies of each other.

    Raises:
        DatasetError: Too few recordings can be used.
        UsageError: They cannot be grouped or weighted as the recipe says.
    """
    recordings, skipped = _decoded(work, recipe)
    check_weights("clean", (one.name for one in recordings["clean"]), recipe.clean_weights)
    check_weights("noise", (one.name for one in recordings["noise"]), recipe.noise_weights)
    copies, mixed = _read_copies(work, recordings, skipped)
    check_roles(recordings, skipped)
    pairs, unpaired = _matched(recordings)
    problems: dict[tuple[str, ...], str | None] = {
        tuple(names): problem for *names, problem in json.loads((work / _PAIRS).read_text())
    }
    if recipe.pairs:
        skipped += with_partners_left_out(unpaired, skipped)
        fitting = []
        for clean, noisy in pairs:
            names = (noisy.role, noisy.name, clean.name)
            problem = problems.get(names, "has a clean recording that is left out")
            if problem is None:
                fitting.append((clean, noisy))
            else:
                skipped.append(Skipped(noisy.role, noisy.name, problem))
        kept = _clean_of(fitting, [role for role in recordings if role.endswith("clean")], skipped)
        sets, notes = split_into_sets(kept, recipe, copies)
        for name, part in sets.items():
            cut, partners = partners_of(part["clean"], fitting)
            sets[name] = {"clean": cut, "noise": partners}
    else:
        sets, notes = split_into_sets(recordings, recipe, copies)
        noises = sum(len(part) for role, part in recordings.items() if role.endswith("noise"))
        notes += note_on_noisy_speech(mixed, noises) or _suspicion(
            [*problems.values()], len(pairs), noises
        )
    mixtures = StoredPairs if recipe.pairs else Mixtures
    longest = recipe.longest_clip * recipe.sample_rate
    spoken = [recording for part in sets.values() for recording in part["clean"]]
    long = {part.digest for part in spoken if part.samples > longest}
    if recipe.segment is None and long:
        what = "1 clean recording is" if len(long) == 1 else f"{len(long)} clean recordings are"
        notes.append(
            f"{what} longer than {recipe.longest_clip:g} s and cut into equal clips; --segment "
            "sets their length"
        )
    notes += _narrow_bands(spoken, recipe.sample_rate)
    listed = [[f"{part.role} {part.name}" for part in pair] for pair in copies]
    if listed:
        count = len({pair[1] for pair in listed})
        what = "1 recording is a copy" if count == 1 else f"{count} recordings are copies"
        notes.append(
            f"{what} of others, for example {listed[0][1]} of {listed[0][0]}; copies are in one "
            "set, and listed in the manifest"
        )
    all_mixtures = {name: mixtures(name, part, recipe) for name, part in sets.items()}
    return all_mixtures, skipped, notes, listed


def _decoded(work: Path, recipe: Recipe) -> tuple[dict[Role, list[Recording]], list[Skipped]]:
    """List the recordings that ``_decode_all`` decoded, and those that were left out."""
    return load_recordings(sorted((work / PACKS).glob("*.json")), pairs=recipe.pairs)


_COPIES = "copies.json"  # in the work folder, pairs of recordings that are copies


def _find_copies(work: Path, recipe: Recipe, workers: Workers) -> None:
    """Find recordings that are copies of others, and noises that contain clean recordings."""
    if (work / _COPIES).exists():
        return
    recordings, _ = _decoded(work, recipe)
    kinds = ("clean",) if recipe.pairs else ("clean", "noise")
    compared = [
        one
        for kind in kinds
        for role in ROLES
        if role.endswith(kind)
        for one in recordings.get(role, ())
    ]
    found = [
        [(compared[number].role, compared[number].name) for number in pair]
        for pair in find_copies(compared, recipe.sample_rate, workers)
    ]
    write_text(work / _COPIES, json.dumps(found))


def _read_copies(
    work: Path, recordings: Mapping[Role, list[Recording]], skipped: list[Skipped]
) -> tuple[Copies, Copies]:
    """Read what ``_find_copies`` found, and leave out copies of what another role keeps.

    Returns:
        The copies within a role, and the noises with the clean recordings that they contain.
    """
    known = {(one.role, one.name): one for part in recordings.values() for one in part}
    copies, mixed = [], []
    for first, second in json.loads((work / _COPIES).read_text()):
        one, other = known[tuple(first)], known[tuple(second)]
        if one.role == other.role:
            copies.append((one, other))
        elif one.role.endswith("clean") and other.role.endswith("noise"):
            mixed.append((one, other))
        elif other in recordings[other.role]:
            recordings[other.role].remove(other)
            reason = f"is a copy of {one.role} file {one.name}"
            skipped.append(Skipped(other.role, other.name, reason))
    return copies, mixed


NARROW = 0.8
"""A bandwidth below this share of half of the sample rate is narrow."""


def _narrow_bands(clean: Sequence[Recording], sample_rate: int) -> list[str]:
    """Return a note if clean recordings have nothing in the upper part of the dataset's band."""
    narrow = sorted(
        recording.bandwidth
        for recording in clean
        if 0 < recording.bandwidth < NARROW * sample_rate / 2
    )
    if not narrow:
        return []
    middle = narrow[len(narrow) // 2]
    return [
        f"{len(narrow)} of {len(clean)} clean recordings have nothing above {narrow[-1]} Hz (half "
        f"of them nothing above {middle} Hz), but the dataset reaches to {sample_rate // 2} Hz: "
        "nothing is learned from them above that. Add others, or give a lower --sample-rate"
    ]


_PAIRS = "pairs.json"  # in the work folder, the problems of pairs of recordings of one name
_SUSPECTS = 32  # noises that are compared with the clean recordings of their names


def _matched(
    recordings: Mapping[Role, Sequence[Recording]],
) -> tuple[list[tuple[Recording, Recording]], list[Skipped]]:
    """Match the clean and the noisy recordings of all sets."""
    pairs, skipped = [], []
    training: tuple[Role, Role] = ("clean", "noise")
    for clean, noisy in (OWN_ROLES["test"], OWN_ROLES["valid"], training):
        matched, rest = match_pairs(recordings.get(clean, ()), recordings.get(noisy, ()))
        pairs += matched
        skipped += rest
    return pairs, skipped


def _clean_of(
    pairs: Sequence[tuple[Recording, Recording]], roles: Sequence[Role], skipped: Sequence[Skipped]
) -> dict[Role, list[Recording]]:
    """Return the clean recordings of pairs; raise DatasetError if one of the roles has none."""
    clean: dict[Role, list[Recording]] = {role: [] for role in roles}
    for recording, _ in pairs:
        clean[recording.role].append(recording)
    for role, kept in clean.items():
        if not kept:
            noisy = role.removesuffix("clean") + "noise"
            reasons = [
                f"{skip.file} {skip.reason}" for skip in skipped if skip.role in (role, noisy)
            ]
            raise DatasetError(
                f"no pair of {role} recordings can be used: " + "; ".join(reasons[:3])
            )
    return clean


def _suspicion(problems: Sequence[str | None], count: int, noises: int) -> list[str]:
    """Return a note if noises with the names of clean recordings seem to be noisy ones."""
    found = sum(problem is None for problem in problems)
    if found:
        return [
            f"{found} of {len(problems)} noise recordings that have the name of a clean recording "
            "contain it; a model that is given speech as noise removes speech. If they are noisy "
            "recordings, build with --pairs"
        ]
    if count >= max(_NAMESAKES, 0.8 * noises):
        return [
            f"{count} of {noises} noise recordings have the name of a clean recording; if they are "
            "noisy recordings, build with --pairs"
        ]
    return []


_NAMESAKES = 10  # noises with names of clean recordings: fewer may well be "1.wav" and so on


def _check_pairs(work: Path, recipe: Recipe, workers: Workers) -> None:
    """Compare the recordings of one name, or some of them if they are not meant to be pairs."""
    if (work / _PAIRS).exists():
        return
    recordings, _ = _decoded(work, recipe)
    pairs = _matched(recordings)[0]
    if not recipe.pairs:
        pairs = pairs[:: max(1, len(pairs) // _SUSPECTS)]
    problems = check_pairs(pairs, recipe.sample_rate, workers)
    found = [
        (noisy.role, noisy.name, clean.name, problem)
        for (clean, noisy), problem in zip(pairs, problems, strict=True)
    ]
    write_text(work / _PAIRS, json.dumps(found))


def _build_sets(
    work: Path,
    request: BuildRequest,
    sources: Mapping[Role, Path],
    folders: Mapping[str, str],
    workers: Workers,
    on_progress: OnProgress,
) -> None:
    """Build all sets and their manifest in the work folder, or what is left to do of it."""
    recipe = request.recipe
    _decode_all(work, request, workers, on_progress)
    _find_copies(work, recipe, workers)
    _check_pairs(work, recipe, workers)
    build_id = uuid4().hex
    sets, skipped, notes, copies = load_sets(work, build_id, recipe)
    tasks = {
        name: [MixTask(work, build_id, recipe, name, *span) for span in mixtures.spans()]
        for name, mixtures in sets.items()
    }
    totals = _mix_all(work, tasks, workers, on_progress)
    for name in sets:
        _complete_set(work, recipe, tasks[name], totals[name])
    for name in folders.keys() - sets:
        absent_mark(work, name).touch()
    facts = DatasetFacts(
        denoise_version=request.denoise_version,
        id=_content_hash(recipe, sets, tasks),
        sources={role: str(folder) for role, folder in sources.items()},
        recipe=recipe,
        sets={
            name: SetFacts(
                folder=folders[name],
                **{f"{role}_files": len(part) for role, part in mixtures.recordings.items()},
                mixtures=totals[name].pairs,
                hours=totals[name].samples / recipe.sample_rate / 3600,
                bytes=totals[name].bytes,
            )
            for name, mixtures in sets.items()
        },
        skipped=[*skipped, *(skip for part in _parts(tasks) for skip in part.skipped)],
        notes=notes,
        copies=copies,
        recordings=[
            Source(recording.role, recording.name, recording.rate, recording.bandwidth)
            for mixtures in sets.values()
            for role, part in mixtures.recordings.items()
            if role != "room"
            for recording in part
        ],
    )
    with replacing(work / MANIFEST, overwrite=True) as path:
        write_manifest(path, facts, (row for part in _parts(tasks) for row in part.rows))


def _parts(tasks: Mapping[str, Sequence[MixTask]]) -> Iterator[MixedPart]:
    for set_tasks in tasks.values():
        for task in set_tasks:
            yield task.part()


def _decode_all(
    work: Path, request: BuildRequest, workers: Workers, on_progress: OnProgress
) -> None:
    """Decode all recordings that are not decoded yet."""
    tasks = decode_tasks(request.files, request.folders, work / PACKS, request.recipe)
    files, seconds, total = 0, 0.0, sum(len(task.files) for task in tasks)
    for task, duration in zip(tasks, workers.map(decode, tasks), strict=True):
        files += len(task.files)
        seconds += duration
        on_progress(BuildProgress("reading", files, total, seconds / 3600))


def _mix_all(
    work: Path,
    tasks: Mapping[str, Sequence[MixTask]],
    workers: Workers,
    on_progress: OnProgress,
) -> dict[str, Totals]:
    """Mix all pairs that are missing, and append them to the records of their set in order.

    Returns:
        The totals of each set.
    """
    all_tasks = [task for set_tasks in tasks.values() for task in set_tasks]
    totals = {name: Totals() for name in tasks}
    mixed, samples, total = 0, 0, sum(task.end - task.start for task in all_tasks)
    for task, part in zip(all_tasks, workers.map(mix_part, all_tasks), strict=True):
        name = task.set_name
        if task.records.exists():  # otherwise an interrupted build appended them
            append_records(task.records, records_file(work / SETS / name), totals[name].bytes)
        if part.speech_bytes and task.speech.exists():
            target = speech_file(work / SETS / name)
            append_records(task.speech, target, totals[name].speech_bytes)
        totals[name] = totals[name].plus(part)
        mixed += task.end - task.start
        samples += part.samples
        hours = samples / task.recipe.sample_rate / 3600
        on_progress(BuildProgress("mixing", mixed, total, hours))
    return totals


def _complete_set(work: Path, recipe: Recipe, tasks: Sequence[MixTask], totals: Totals) -> None:
    """Write what TensorFlow needs to load the records of a set.

    Raises:
        DatasetError: The set has no pairs, or some are lost.
    """
    from denoisecli.datasets.stored import write_metadata

    name = tasks[0].set_name
    if not totals.pairs:
        skip = next(skip for task in tasks for skip in task.part().skipped)
        raise DatasetError(
            f"no clean clip of the {name} set can be used: {skip.file} {skip.reason}"
        )
    check_size(records_file(work / SETS / name), totals.bytes)
    frequencies = recipe.n_fft // 2 + 1 if recipe.kind == Kind.SPECTROGRAM else None
    write_metadata(work / SETS / name, totals.pairs, frequencies)


def _content_hash(
    recipe: Recipe, sets: Mapping[str, Mixtures], tasks: Mapping[str, Sequence[MixTask]]
) -> str:
    """Return a hash of the recipe, the recordings and the rows."""
    digests = [
        recording.digest
        for mixtures in sets.values()
        for part in mixtures.recordings.values()
        for recording in part
    ]
    header = [FORMAT_VERSION, recipe.model_dump(mode="json"), digests]
    content = hashlib.sha256(json.dumps(header).encode())
    row_type = TypeAdapter(Row)
    for part in _parts(tasks):
        for row in part.rows:
            content.update(row_type.dump_json(row))
    return content.hexdigest()[:16]
