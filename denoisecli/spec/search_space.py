"""Fields of a spec by their paths: their values, a spec with other values, and a search space."""

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from pydantic import ValidationError

from denoisecli.errors import SpecError
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.spec.errors import did_you_mean
from denoisecli.spec.search import Boolean, Choice, IntRange, Searched


def with_values(spec: Spec, values: Mapping[str, Any]) -> Spec:
    """Return a spec with other values and without its `search` section.

    Args:
        spec: Spec to start from.
        values: Value of each field by its path, as in `search.space`. The parts of a path are keys,
            indices of elements from 0, or patterns with ``*``; all fields that match get the value.

    Raises:
        SpecError: A path matches nothing, or the spec is not valid with these values.
    """
    document = _document(spec)
    for path, value in values.items():
        for container, key in _fields(document, path):
            container[key] = value
    return parse_spec(document)


def values_at(spec: Spec, path: str) -> list[Any]:
    """Return the values of all fields that a path matches, at least one.

    Raises:
        SpecError: The path matches nothing.
    """
    return [container[key] for container, key in _fields(_document(spec), path)]


def check_space(spec: Spec) -> None:
    """Check the `search` section of a spec, if it has one.

    Values that are wrong only in combination with others are accepted, since other searched values
    may make them right; the trials find out.

    Raises:
        SpecError: A path matches nothing, two paths set the same field, a value can never be valid,
            or the objective is not measured.
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
                raise SpecError(f"{where}: {other} sets the same field; remove one of them")
        for value in _values_to_check(searched):
            try:
                with_values(spec, {path: value})
            except SpecError as error:
                if len(spec.search.space) == 1 or not _is_combination(error):
                    raise SpecError(
                        f"{where}: {json.dumps(value)} is not allowed: {error}"
                    ) from error


def _document(spec: Spec) -> Any:
    return spec.model_dump(mode="json", exclude={"search"})


def _fields(document: Any, path: str) -> list[tuple[Any, Any]]:
    """Return (container, key or index) of all fields that a path matches."""
    found: list[tuple[Any, Any]] = [({"": document}, "")]
    for part in path.split("."):
        sections = [container[key] for container, key in found]
        children = [(section, key) for section in sections for key in _keys(section)]
        found = [(section, key) for section, key in children if fnmatchcase(str(key), part)]
        if not found:
            names = list(dict.fromkeys(str(key) for _, key in children))
            allowed = f"allowed: {', '.join(names)}" if names else "it has no fields"
            hint = did_you_mean(part, names)
            raise SpecError(f"search.space.{path}: no {part!r} in the spec; {hint}{allowed}")
    return found


def _keys(section: Any) -> list[Any]:
    if isinstance(section, dict):
        return list(section)
    return list(range(len(section))) if isinstance(section, list) else []


def _values_to_check(searched: Searched) -> list[Any]:
    """Return all values of a range, or those that are invalid if any is."""
    if isinstance(searched, Choice):
        return list(searched.values)
    if isinstance(searched, Boolean):
        return [False, True]
    if isinstance(searched, IntRange):
        low, step = searched.min, searched.step
        return [low, low + step, low + (searched.max - low) // step * step]
    return [searched.min, searched.max]


def _is_combination(error: SpecError) -> bool:
    """Return whether each value is valid and only their combination is not."""
    cause = error.__cause__
    return isinstance(cause, ValidationError) and all(
        problem["type"] == "value_error" for problem in cause.errors()
    )
