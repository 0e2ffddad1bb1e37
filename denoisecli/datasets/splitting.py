"""Recordings divided into sets, such that no file, folder or speaker is in two of them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import accumulate, chain
from operator import attrgetter
from pathlib import PurePosixPath
from typing import NamedTuple

from denoisecli.datasets.recipe import VALID_SHARE, Recipe
from denoisecli.datasets.recordings import SIMULATED, Recording, Role
from denoisecli.errors import DatasetError, UsageError

TEST_ROOMS = 0.2
"""Share of the rooms that a test or validation set with folders of its own gets."""

VALID_GROUPS = 10
"""A validation set is made by default if training keeps 9 or more groups of each role: of fewer,
one would be missed."""

GAP_SECONDS = 1.0
"""Gap between parts of one recording that are in different sets, at most 5 % of the recording."""

PART_SECONDS = 1.0
"""Shortest part of a recording that is split in time."""

TIME_VALID_SHARE = 0.1
"""Share of the training set that validates by default if recordings are split in time."""

OWN_ROLES: dict[str, tuple[Role, Role]] = {
    "valid": ("valid clean", "valid noise"),
    "test": ("test clean", "test noise"),
}
"""Roles of the recordings of a set that has folders of its own."""

_SPLIT: tuple[Role, ...] = ("clean", "noise", "room")

Sets = dict[str, dict[Role, Sequence[Recording]]]


class Split(NamedTuple):
    """Recordings of a role, divided into sets.

    Attributes:
        parts: The recordings of each set.
        moved: The set of each group that was moved because the set would have been empty.
        followers: For each group that would be in another set if it were not for copies, the group
            whose set it is in.
    """

    parts: dict[str, list[Recording]]
    moved: dict[str, str]
    followers: dict[str, str]


def split_into_sets(
    recordings: Mapping[Role, Sequence[Recording]],
    recipe: Recipe,
    copies: Sequence[tuple[Recording, Recording]] = (),
) -> tuple[Sets, list[str]]:
    """Divide recordings, noises and rooms among the sets of a dataset.

    The set of a recording depends only on the seed and the name of its group, so that recordings
    can be added without any of the others changing sides, unless they are copies (see `split`).
    Fewer files than sets are split in time.

    Args:
        recordings: The recordings of each role, perhaps without noise. The test set gets those of
            "test clean" and "test noise", if there are some, and likewise the validation set.
        recipe: Its shares, the keys it groups by, and its seed are used.
        copies: Pairs of recordings whose groups must be in one set.

    Returns:
        For each set ("train", "valid", "test"), the recordings of the roles "clean", "noise" and,
        if there are some, "room"; and sentences about what the user should know.

    Raises:
        DatasetError: There are fewer files or groups than sets.
        UsageError: A regular expression does not match a clean recording, or none of the noises.
    """
    notes: list[str] = []
    own = [name for name, (clean, _) in OWN_ROLES.items() if clean in recordings]
    shares = recipe.shares
    if recipe.chooses_valid and "valid" not in own:
        shares = _with_valid(recordings, recipe, copies, notes)
    rate = recipe.sample_rate
    sets: Sets = {name: {} for name in ("train", "valid", "test") if name in {*shares, *own}}
    for name in own:
        clean, noise = OWN_ROLES[name]
        sets[name] = {"clean": recordings[clean]}
        if noise in recordings:
            sets[name]["noise"] = recordings[noise]
    for role in _SPLIT:
        if role not in recordings:
            continue
        role_shares = shares
        if role == "room":
            left = 1 - TEST_ROOMS * len(own)
            role_shares = {name: share * left for name, share in shares.items()}
            role_shares |= dict.fromkeys(own, TEST_ROOMS)
        elif _splits_in_time(recordings[role], shares, _group_by(role, recipe), rate, copies):
            for name, part in split_in_time(recordings[role], shares, rate).items():
                sets[name][role] = part
            count = len(recordings[role])
            notes.append(
                f"{count} {role} recording{' is' if count == 1 else 's are'} split in time, with a "
                f"gap of up to {GAP_SECONDS:g} s: more recordings make the test more reliable"
            )
            continue
        group_by = _group_by(role, recipe)
        found = split(recordings[role], role_shares, recipe.seed, group_by, copies)
        for name, part in found.parts.items():
            sets[name][role] = part
        notes += [
            f"the {name} set would have no {role} recording; {group} is moved there, and may be in "
            "another set if the dataset is built again with more recordings"
            for group, name in found.moved.items()
        ]
        if found.followers:
            group, other = next(iter(found.followers.items()))
            notes.append(
                f"copies change the set of {len(found.followers)} {role} recordings or groups, for "
                f"example of {group}, which has copies in {other}; in a dataset without the copies "
                "they may be in another set"
            )
    return sets, notes


def _group_by(role: Role, recipe: Recipe) -> str:
    return recipe.group_noise_by or recipe.group_by if role == "noise" else recipe.group_by


def _with_valid(
    recordings: Mapping[Role, Sequence[Recording]],
    recipe: Recipe,
    copies: Sequence[tuple[Recording, Recording]],
    notes: list[str],
) -> dict[str, float]:
    """Return the shares with a validation set, unless there are too few groups for one."""
    shares, rate = recipe.shares, recipe.sample_rate
    with_valid = recipe.with_valid(TIME_VALID_SHARE)
    if rooms := recordings.get("room"):
        count = len({*group_keys(rooms, _group_by("room", recipe))})
        own = {name for name, (role, _) in OWN_ROLES.items() if role in recordings}
        if count < len({*with_valid} | own):
            notes.append(
                "no validation set is stored, because there are too few rooms for one; training "
                "validates with some of its clean files"
            )
            return shares
    if _splits_in_time(recordings["clean"], shares, recipe.group_by, rate, copies) and (
        _splits_in_time(recordings["clean"], with_valid, recipe.group_by, rate, copies)
    ):
        if "noise" not in recordings:
            return with_valid
        group_by = _group_by("noise", recipe)
        enough = len(_groups(recordings["noise"], group_by, copies)[0]) >= len(with_valid)
        if enough or _splits_in_time(recordings["noise"], with_valid, group_by, rate, copies):
            return with_valid
    for role in _SPLIT[:2]:
        if role not in recordings:
            continue
        group_by = _group_by(role, recipe)
        kept: Sequence[Recording] = recordings[role]
        if not _splits_in_time(kept, shares, group_by, rate, copies):
            try:
                kept = split(kept, shares, recipe.seed, group_by, copies).parts["train"]
            except DatasetError:
                return shares  # it is raised again
        count = len(_groups(kept, group_by, copies)[0])
        if count < VALID_GROUPS:
            unit = group_by if group_by in ("file", "folder") else "group"
            notes.append(
                f"no validation set is stored, because training has only {count} {unit}"
                f"{'' if count == 1 else 's'} of {role} recordings, fewer than {VALID_GROUPS}; "
                "training validates with some of its clean files, and with the noises that it "
                "trains on. Add recordings, or give --valid-share or folders of its own"
            )
            return shares
    return recipe.with_valid(VALID_SHARE)


def split_in_time(
    recordings: Sequence[Recording], shares: Mapping[str, float], sample_rate: int
) -> dict[str, list[Recording]]:
    """Cut every recording into parts for the sets, in their order, with gaps in between.

    Args:
        recordings: The recordings.
        shares: Share of each set, with a sum of 1.
        sample_rate: Sample rate of the recordings in Hz.

    Returns:
        The parts of each set. Their names state the time that they are of, in seconds; offsets in
        the rows of the manifest count from there.
    """
    parts: dict[str, list[Recording]] = {name: [] for name in shares}
    for recording in recordings:
        gap = _gap(recording, sample_rate)
        left = recording.samples - gap * (len(shares) - 1)
        first = 0
        for name, share in shares.items():
            last = min(first + round(share * left), recording.samples)
            label = f" [{first / sample_rate:.1f}-{last / sample_rate:.1f} s]"
            parts[name].append(
                replace(
                    recording,
                    name=labelled(recording.name, label),
                    samples=last - first,
                    start=recording.start + first,
                )
            )
            first = last + gap
    return parts


def labelled(name: str, label: str) -> str:
    """Return the name of a recording with a label in front of its suffix."""
    path = PurePosixPath(name)
    return path.with_name(f"{path.stem}{label}{path.suffix}").as_posix()


def _splits_in_time(
    recordings: Sequence[Recording],
    shares: Mapping[str, float],
    group_by: str,
    rate: int,
    copies: Sequence[tuple[Recording, Recording]],
) -> bool:
    """Return whether there are fewer files than sets, not grouped, and long enough to be cut.

    What has copies is not cut, because the copy of a part would be in another set.
    """
    groups, _ = _groups(recordings, group_by, copies)
    is_grouped = [*groups] != [recording.name for recording in recordings]
    if is_grouped or len(recordings) >= len(shares):
        return False
    left = min(
        recording.samples - _gap(recording, rate) * (len(shares) - 1) for recording in recordings
    )
    return min(shares.values()) * left >= PART_SECONDS * rate


def _gap(recording: Recording, rate: int) -> int:
    return min(round(GAP_SECONDS * rate), recording.samples // 20)


def split(
    recordings: Sequence[Recording],
    shares: Mapping[str, float],
    seed: int,
    group_by: str = "file",
    copies: Sequence[tuple[Recording, Recording]] = (),
) -> Split:
    """Divide recordings into sets, none of them empty.

    A hash of the seed and the group places the group in 0..1, where every set has an interval. On
    average, the sizes of the sets therefore match the shares. Groups that share copies
    have the place of the one with the most recordings, or else the shortest name, which is rarely
    the copy. A set whose interval is empty gets the group that is nearest to it; any but the last
    set takes it from the first that can spare one.

    Args:
        recordings: The recordings of one role, at least one.
        shares: Share of each set, above 0, with a sum of 1.
        seed: Seed of the hash.
        group_by: "file"; "folder" to keep all files of a folder (a speaker) together; or a regular
            expression whose first group, found in the name, names the group.
        copies: Pairs of recordings, whose groups become one.

    Raises:
        DatasetError: There are fewer files or groups than sets.
        UsageError: See :func:`group_keys`.
    """
    groups, merged = _groups(recordings, group_by, copies)
    if len(groups) < len(shares):
        unit = group_by if group_by in ("file", "folder") else "group"
        raise DatasetError(
            f"cannot split the {recordings[0].role} recordings: only {len(groups)} "
            f"{unit}{'s' if len(groups) > 1 else ''} can be used, and {len(shares)} sets need at "
            f"least one {unit} each" + ("; copies of one recording count once" if merged else "")
        )
    places = {key: _place(seed, recordings[0].role, key) for key in groups}
    ends = dict(zip(shares, accumulate(shares.values()), strict=True))
    last = list(shares)[-1]

    def side_of(place: float) -> str:
        return next((name for name, end in ends.items() if place < end), last)

    sides = {key: side_of(place) for key, place in places.items()}
    followers = {
        _label(key): _label(first)
        for key, first in merged.items()
        if side_of(_place(seed, recordings[0].role, key)) != sides[first]
    }
    moved: dict[str, str] = {}
    for name in reversed(list(shares)):
        if name in sides.values():
            continue
        sizes = Counter(sides.values())
        # The test set comes first, so that it is the same with and without a validation set.
        donors = [side for side in shares if sizes[side] > 1]
        candidates = {*shares} if name == last else {donors[0]}
        low, high = ends[name] - shares[name], ends[name]
        key = min(
            (key for key, side in sides.items() if side in candidates),
            key=lambda key: (max(low - places[key], places[key] - high), key),
        )
        sides[key] = name
        moved[_label(key)] = name
    parts = {
        name: sorted(
            chain(*(groups[key] for key in groups if sides[key] == name)), key=attrgetter("name")
        )
        for name in shares
    }
    return Split(parts, moved, followers)


def _label(key: str) -> str:
    """Return the name of a group for messages."""
    return key.removeprefix("\0") or "the top folder"


def _groups(
    recordings: Sequence[Recording], group_by: str, copies: Sequence[tuple[Recording, Recording]]
) -> tuple[dict[str, list[Recording]], dict[str, str]]:
    """Return the recordings by group, and for each group with copies the one it is merged into."""
    groups: dict[str, list[Recording]] = {}
    keys = group_keys(recordings, group_by)
    merged = _merged(dict(zip(recordings, keys, strict=True)), copies)
    for recording, key in zip(recordings, keys, strict=True):
        groups.setdefault(merged.get(key, key), []).append(recording)
    return groups, merged


def _merged(
    keys: Mapping[Recording, str], copies: Sequence[tuple[Recording, Recording]]
) -> dict[str, str]:
    """Return for each group with a copy in another the group whose place it has; see `split`."""
    from scipy.cluster.hierarchy import DisjointSet  # slow to import

    linked = [(keys[one], keys[other]) for one, other in copies if one in keys and other in keys]
    groups = DisjointSet(sorted({key for pair in linked for key in pair}))
    for first, second in linked:
        groups.merge(first, second)
    sizes = Counter(keys.values())
    return {
        key: min(group, key=lambda key: (-sizes[key], len(key), key))
        for group in groups.subsets()
        for key in group
        if len(group) > 1
    }


def _place(seed: int, role: Role, key: str) -> float:
    """Return the place of a group in 0..1, which is the same on every machine."""
    digest = blake2b(f"{seed}\0{role}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def group_keys(recordings: Sequence[Recording], group_by: str) -> list[str]:
    """Return the name of the group of each recording; see `groups_of_names`.

    Simulated rooms are groups of their own.
    """
    role = recordings[0].role
    names = [recording.name for recording in recordings]
    measured = [name for name in names if role != "room" or not name.startswith(SIMULATED)]
    found = groups_of_names(measured, group_by, role.endswith("clean")) if measured else []
    keys = dict(zip(measured, found, strict=True))
    return [keys.get(name, name) for name in names]


def groups_of_names(names: Sequence[str], group_by: str, is_clean: bool) -> list[str]:
    """Return the name of the group of each recording, whose members stay together.

    A regular expression names the group by the first of its groups that took part in the match.
    Noise recordings for which there is none, or that all lie in one folder, are groups of their
    own.

    Raises:
        UsageError: The regular expression finds no group in the name of a clean recording, or in
            those of all noises.
    """
    folders = [name.rpartition("/")[0] for name in names]
    if group_by == "file" or (group_by == "folder" and len({*folders}) == 1 and not is_clean):
        return list(names)
    if group_by == "folder":
        return folders
    found = [_first_group(group_by, name) for name in names]
    if None in found and is_clean:
        name = names[found.index(None)]
        raise UsageError(
            f"--group-by {group_by!r} does not match {found.count(None)} of {len(found)} clean "
            f"recordings, such as {name}"
        )
    # No file name contains NUL, so that a group is never mistaken for a file.
    return [
        f"\0{group}" if group is not None else name
        for name, group in zip(names, found, strict=True)
    ]


def _first_group(pattern: str, name: str) -> str | None:
    match = re.search(pattern, name)
    return next((group for group in match.groups() if group is not None), None) if match else None
