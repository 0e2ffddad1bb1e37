"""The errors of pydantic as sentences: where, what is allowed, what was found."""

import difflib
import json
import re
from collections.abc import Sequence
from typing import Any, cast

from pydantic_core import ErrorDetails

from denoisecli.spec.schema import Schema, alternatives, find, keys, range_text, type_text

_LONGEST_VALUE = 60

_UNION_MEMBER = re.compile(r"(tuple|literal|list|dict)\[|constrained-")
"""Names that pydantic gives to the alternatives of a value that may have several types."""


def explain(problem: ErrorDetails, schema: Schema) -> str:
    """Return a sentence about an error.

    Args:
        problem: The error.
        schema: JSON Schema of the whole document.
    """
    location, found = problem["loc"], problem["input"]
    if problem["type"] == "missing" and location and isinstance(location[-1], int):
        location = location[:-1]  # too short a list: an error of the list, not of the element
    elif problem["type"] in ("missing", "extra_forbidden"):
        return _explain_key(problem, schema)
    try:
        section, where = find(location, schema)
    except LookupError:
        section, where = {}, ".".join(map(str, location))
    if problem["type"] in ("union_tag_not_found", "union_tag_invalid"):
        key = section["discriminator"]["propertyName"]
        state = f"found {json.dumps(found[key])}" if key in found else "missing, but required"
        return f"{where}.{key}: {state}; allowed: {', '.join(section['discriminator']['mapping'])}"
    if problem["type"] == "value_error":
        message = problem["msg"].removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    return f"{where or 'the spec'}: must be {_allowed(section, schema)}, found {_shown(found)}"


def merge_unions(problems: Sequence[ErrorDetails], document: Any) -> list[ErrorDetails]:
    """Return one error, not one for each type, about a value that may have several types.

    Args:
        problems: Errors of pydantic.
        document: The whole document.
    """
    merged: dict[object, ErrorDetails] = {}
    for number, problem in enumerate(problems):
        location = problem["loc"]
        members = [i for i, part in enumerate(location) if _UNION_MEMBER.match(str(part))]
        if not members:
            merged[number] = problem
            continue
        location = location[: members[0]]
        value = document
        for part in location:
            # The kind of a block is part of the location, but no key.
            value = value[part] if isinstance(part, int) or part in value else value
        union = {**problem, "type": "union", "loc": location, "input": value}
        merged.setdefault(location, cast(ErrorDetails, union))
    return list(merged.values())


def _explain_key(problem: ErrorDetails, schema: Schema) -> str:
    """Return a sentence about a missing or an unknown key."""
    *parent, key = problem["loc"]
    section, where = find(parent, schema)
    where = f"{where}.{key}".removeprefix(".")
    if problem["type"] == "missing":
        return f"{where}: missing, but required"
    allowed = keys(section, schema)
    return f"{where}: unknown key; {did_you_mean(str(key), allowed)}allowed: {', '.join(allowed)}"


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """Return a question that suggests the name most similar to an unknown one; may be empty."""
    close = difflib.get_close_matches(name, names, n=1)
    close = close or [other for other in names if name in other or other in name]
    return f"did you mean {close[0]!r}? " if close else ""


def _allowed(section: Schema, schema: Schema) -> str:
    texts, limits = [], []
    for option in alternatives(section, schema):
        limit = range_text(option, schema)
        texts.append(limit if "enum" in option else type_text(option, schema))
        limits += [limit] if limit and "enum" not in option else []
    return ", ".join([" or ".join(texts), *dict.fromkeys(limits)])


def _shown(value: Any) -> str:
    text = json.dumps(value)
    if len(text) <= _LONGEST_VALUE:
        return text
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, list) else f"{text[:_LONGEST_VALUE]}..."
