"""Recordings divided into sets, such that no file, folder or speaker is in two of them."""

import re
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise

import numpy as np

from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.recordings import Recording, Role
from denoisecli.errors import DatasetError, UsageError

TEST_ROOMS = 0.2
"""Share of the rooms that a test set with folders of its own gets."""


def split_into_sets(
    recordings: Mapping[Role, Sequence[Recording]], recipe: Recipe
) -> dict[str, dict[Role, Sequence[Recording]]]:
    """Divide recordings, noises and rooms among the sets of a dataset.

    Args:
        recordings: The recordings of each role. The test set gets those of "test clean" and "test
            noise", if there are some.
        recipe: Its shares, ``group_by`` and seed are used.

    Returns:
        For each set ("train", "valid", "test"), the recordings of the roles "clean", "noise" and,
        if there are some, "room".

    Raises:
        DatasetError: There are fewer files or groups than sets.
        UsageError: The regular expression of ``group_by`` does not match a clean recording.
    """
    shares = recipe.shares
    sets: dict[str, dict[Role, Sequence[Recording]]] = {name: {} for name in shares}
    has_test_folders = "test clean" in recordings
    if has_test_folders:
        sets["test"] = {"clean": recordings["test clean"], "noise": recordings["test noise"]}
    roles: tuple[Role, ...] = ("clean", "noise", "room")
    for stream, role in enumerate(roles):
        if role not in recordings:
            continue
        role_shares = dict(shares)
        if role == "room" and has_test_folders:
            role_shares = {name: share * (1 - TEST_ROOMS) for name, share in shares.items()}
            role_shares["test"] = TEST_ROOMS
        rng = np.random.default_rng([recipe.seed, 0, stream])
        parts = split(recordings[role], list(role_shares.values()), rng, recipe.group_by)
        for name, part in zip(role_shares, parts, strict=True):
            sets[name][role] = part
    return sets


def split(
    recordings: Sequence[Recording],
    shares: Sequence[float],
    rng: np.random.Generator,
    group_by: str = "file",
) -> list[list[Recording]]:
    """Divide recordings at random into lists, none of them empty.

    Args:
        recordings: The recordings, at least one.
        shares: Share of the files of each list, above 0, with a sum of 1. They are met as closely
            as whole groups allow.
        rng: Source of the random order.
        group_by: "file"; "folder" to keep all files of a folder (a speaker) together; or a regular
            expression whose first group, found in the name, names the group.

    Raises:
        DatasetError: There are fewer files or groups than lists.
        UsageError: The regular expression does not match the name of a clean recording.
    """
    groups: dict[str, list[Recording]] = {}
    for recording, key in zip(recordings, group_keys(recordings, group_by), strict=True):
        groups.setdefault(key, []).append(recording)
    if len(groups) < len(shares):
        unit = group_by if group_by in ("file", "folder") else "group"
        raise DatasetError(
            f"cannot split the {recordings[0].role} recordings: only {len(groups)} "
            f"{unit}{'s' if len(groups) > 1 else ''} can be used, and {len(shares)} sets need at "
            f"least one {unit} each"
        )
    names = sorted(groups)
    shuffled = [sorted(groups[names[i]], key=_name) for i in rng.permutation(len(names))]
    ends = np.cumsum([len(group) for group in shuffled])
    cuts = [0]
    for number, share in enumerate(np.cumsum(shares[:-1]), start=1):
        # Every list before and after the cut needs at least one group.
        possible = slice(cuts[-1], len(shuffled) - (len(shares) - number))
        distance = np.abs(ends[possible] - share * len(recordings))
        cuts.append(cuts[-1] + int(np.argmin(distance)) + 1)
    cuts.append(len(shuffled))
    return [sorted(chain(*shuffled[start:end]), key=_name) for start, end in pairwise(cuts)]


def group_keys(recordings: Sequence[Recording], group_by: str) -> list[str]:
    """Return the name of the group of each recording, whose members stay together.

    Noise recordings that all lie in one folder, or that the regular expression does not match, are
    groups of their own.

    Raises:
        UsageError: The regular expression does not match the name of a clean recording.
    """
    one_folder = len({recording.folder for recording in recordings}) == 1
    is_clean = recordings[0].role.endswith("clean")
    if group_by == "file" or (group_by == "folder" and one_folder and not is_clean):
        return [recording.name for recording in recordings]
    if group_by == "folder":
        return [recording.folder for recording in recordings]
    found = [re.search(group_by, recording.name) for recording in recordings]
    if None in found and is_clean:
        name = recordings[found.index(None)].name
        raise UsageError(
            f"--group-by {group_by!r} does not match {found.count(None)} of {len(found)} clean "
            f"recordings, such as {name}"
        )
    # No file name contains NUL, so that a group is never mistaken for a file.
    return [
        f"\0{match[1]}" if match is not None else recording.name
        for recording, match in zip(recordings, found, strict=True)
    ]


def _name(recording: Recording) -> str:
    return recording.name
