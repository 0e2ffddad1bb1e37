"""Where a search moves: fields of a spec by their paths, and the spec with other values in them."""

import difflib
import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from pydantic import ValidationError

from denoisecli.errors import SpecError
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.spec.search import Boolean, Choice, IntRange, Searched


def with_values(spec: Spec, values: Mapping[str, Any]) -> Spec:
    """Give the spec with other values in it, without its `search` section.

    Args:
        spec: any.
        values: by path, as in `search.space`; the parts of a path are keys, or numbers of elements
            from 0, or patterns with `*`. All fields that match get the value.

    Raises:
        SpecError: a path matches nothing, or the spec is not valid with these values.
    """
    document = _document(spec)
    for path, value in values.items():
        for container, key in _fields(document, path):
            container[key] = value
    return parse_spec(document)


def values_at(spec: Spec, path: str) -> list[Any]:
    """What all fields that a path matches hold now; at least one.

    Raises:
        SpecError: it matches nothing.
    """
    return [container[key] for container, key in _fields(_document(spec), path)]


def check_space(spec: Spec) -> None:
    """Refuse a `search` section that cannot be meant.

    Values that are only wrong together with others are left to the trials: they may be right
    together with what else is searched.

    Raises:
        SpecError: a path matches nothing, two set the same field, or a value can never be valid.
    """
    if spec.search is None:
        return
    objective = spec.search.objective
    if objective in ("val_pesq", "val_estoi") and spec.training.perceptual_every is None:
        raise SpecError(f"search.objective: {objective!r} needs training.perceptual_every")
    taken: dict[tuple[int, Any], str] = {}
    document = _document(spec)
    for path, searched in spec.search.space.items():
        where = f"search.space.{path}"
        for container, key in _fields(document, path):
            other = taken.setdefault((id(container), key), path)
            if other != path:
                raise SpecError(f"{where}: {other} sets the same field; name it once")
        for value in _extremes(searched):
            try:
                with_values(spec, {path: value})
            except SpecError as error:
                if len(spec.search.space) == 1 or not _is_combination(error):
                    raise SpecError(f"{where}: {json.dumps(value)} is refused: {error}") from error


def _document(spec: Spec) -> Any:
    return spec.model_dump(mode="json", exclude={"search"})


def _fields(document: Any, path: str) -> list[tuple[Any, Any]]:
    """All (container, key or index) that a path leads to."""
    found: list[tuple[Any, Any]] = [({"": document}, "")]
    for part in path.split("."):
        sections = [container[key] for container, key in found]
        children = [(section, key) for section in sections for key in _keys(section)]
        found = [(section, key) for section, key in children if fnmatchcase(str(key), part)]
        if not found:
            names = list(dict.fromkeys(str(key) for _, key in children))
            close = difflib.get_close_matches(part, names, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            there = f"there are: {', '.join(names)}" if names else "nothing is there"
            raise SpecError(f"search.space.{path}: no {part!r} in the spec; {hint}{there}")
    return found


def _keys(section: Any) -> list[Any]:
    if isinstance(section, dict):
        return list(section)
    return list(range(len(section))) if isinstance(section, list) else []


def _extremes(searched: Searched) -> list[Any]:
    """All values, or those among them that are refused if any is."""
    if isinstance(searched, Choice):
        return list(searched.values)
    if isinstance(searched, Boolean):
        return [False, True]
    if isinstance(searched, IntRange):
        low, step = searched.min, searched.step
        return [low, low + step, low + (searched.max - low) // step * step]
    return [searched.min, searched.max]


def _is_combination(error: SpecError) -> bool:
    """Whether each value is valid and only their combination is not."""
    cause = error.__cause__
    return isinstance(cause, ValidationError) and all(
        problem["type"] == "value_error" for problem in cause.errors()
    )
