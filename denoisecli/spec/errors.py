"""What is wrong with a spec, in sentences."""

import difflib
import json
from typing import Any

from denoisecli.spec.network import AttentionBlock, ConvolutionBlock, RecurrentBlock, Section
from denoisecli.spec.search import Boolean, Choice, FloatRange, IntRange


def explain(problem: Any, document: type[Section]) -> str:
    """One line for one pydantic error of this section, which is the whole file."""
    location, found = list(problem["loc"]), problem["input"]
    for name, place in (("valley", 2), ("search", 3)):
        if location[:1] == [name] and len(location) > place:
            del location[place]  # the kind of block or of range, which is no key in the file
    where = _path(location)
    if problem["type"] == "extra_forbidden":
        allowed = _allowed_keys(document, problem["loc"][:-1])
        close = difflib.get_close_matches(str(location[-1]), allowed, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{where}: unknown key; {hint}allowed: {', '.join(allowed)}"
    if problem["type"] == "missing":
        return f"{where}: missing, but required"
    if problem["type"] in ("union_tag_not_found", "union_tag_invalid"):
        key, kinds = ("block", _BLOCKS) if location[0] == "valley" else ("kind", _RANGES)
        what = f"found {json.dumps(found[key])}" if key in found else "missing, but required"
        return f"{where}.{key}: {what}; allowed: {', '.join(kinds)}"
    if problem["type"] == "value_error":
        message = problem["msg"].removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    message = f"{where or 'the spec'}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"
    return message if isinstance(found, dict | list) else f"{message}, found {json.dumps(found)}"


_BLOCKS = {
    "convolution": ConvolutionBlock,
    "recurrent": RecurrentBlock,
    "attention": AttentionBlock,
}
_RANGES = {"choice": Choice, "int": IntRange, "float": FloatRange, "boolean": Boolean}


def _path(location: list[Any]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _allowed_keys(document: type[Section], location: tuple[Any, ...]) -> list[str]:
    """Keys of the section at ``location``, found by walking the model's fields."""
    section: Any = document
    for part in location:
        if part in _BLOCKS | _RANGES:
            section = (_BLOCKS | _RANGES)[part]
        elif part in section.model_fields:
            section = _section_of(section.model_fields[part].annotation)
    return list(section.model_fields)


def _section_of(annotation: Any) -> Any:
    """The Section class inside ``tuple[Section, ...]``, ``Section | None`` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_of(argument)
        if found is not None:
            return found
    return None
