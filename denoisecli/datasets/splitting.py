"""Recordings divided into sets, such that no file, folder or speaker is in two of them."""

import re
from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np

from denoisecli.datasets.recordings import Source
from denoisecli.errors import DatasetError, UsageError


def split(
    sources: Sequence[Source],
    shares: Sequence[float],
    rng: np.random.Generator,
    group_by: str = "file",
) -> list[list[Source]]:
    """Divide recordings at random into lists, none of them empty.

    Args:
        sources: The recordings, at least one.
        shares: Share of the files that goes to each list, more than 0, 1 in sum; they are met as
            closely as whole groups allow.
        rng: Where the order is drawn from.
        group_by: "file", "folder" to keep all files of a folder (a speaker) together, or a regular
            expression whose first group, found in the name, says what belongs together.

    Raises:
        DatasetError: there are fewer files, or groups, than lists.
        UsageError: the regular expression does not match the name of a clean recording.
    """
    groups: dict[str, list[Source]] = {}
    for source, key in zip(sources, group_keys(sources, group_by), strict=True):
        groups.setdefault(key, []).append(source)
    if len(groups) < len(shares):
        unit = group_by if group_by in ("file", "folder") else "group"
        raise DatasetError(
            f"cannot split the {sources[0].role} recordings: what can be used is "
            f"{len(groups)} {unit}{'s' if len(groups) > 1 else ''}, and {len(shares)} sets need at "
            f"least one {unit} each"
        )
    names = sorted(groups)
    shuffled = [sorted(groups[names[i]], key=_name) for i in rng.permutation(len(names))]
    ends = np.cumsum([len(group) for group in shuffled])
    cuts = [0]
    for number, share in enumerate(np.cumsum(shares[:-1]), start=1):
        # Those before and after need a group each as well.
        possible = slice(cuts[-1], len(shuffled) - (len(shares) - number))
        distance = np.abs(ends[possible] - share * len(sources))
        cuts.append(cuts[-1] + int(np.argmin(distance)) + 1)
    cuts.append(len(shuffled))
    return [sorted(chain(*shuffled[start:end]), key=_name) for start, end in pairwise(cuts)]


def group_keys(sources: Sequence[Source], group_by: str) -> list[str]:
    """Say for each recording which others it must not be separated from.

    Noises that all lie in one folder, and those that a regular expression does not match, are on
    their own.

    Raises:
        UsageError: the regular expression does not match the name of a clean recording.
    """
    one_folder = len({source.folder for source in sources}) == 1
    if group_by == "file" or (group_by == "folder" and one_folder and _lenient(sources)):
        return [source.name for source in sources]
    if group_by == "folder":
        return [source.folder for source in sources]
    found = [re.search(group_by, source.name) for source in sources]
    if None in found and not _lenient(sources):
        name = sources[found.index(None)].name
        raise UsageError(
            f"--group-by {group_by!r} does not match {found.count(None)} of {len(found)} clean "
            f"recordings, such as {name}"
        )
    # NUL is in no file's name: a group is never taken for a file.
    return [
        f"\0{match[1]}" if match is not None else source.name
        for source, match in zip(sources, found, strict=True)
    ]


def _lenient(sources: Sequence[Source]) -> bool:
    return not sources[0].role.endswith("clean")


def _name(source: Source) -> str:
    return source.name
