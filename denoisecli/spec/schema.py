"""What a JSON Schema allows, in words: for error messages and for the reference of the spec."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

Schema = dict[str, Any]
Location = Sequence[str | int]
"""Keys and indices from the root of a document to a value, as in the errors of pydantic."""


def alternatives(schema: Schema, root: Schema) -> Iterator[Schema]:
    """Yield the schemas that a value may match, with references to the root resolved."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    options = schema.get("anyOf") or schema.get("oneOf")
    if options is None:
        yield schema
    for option in options or ():
        yield from alternatives(option, root)


def find(location: Location, root: Schema) -> tuple[Schema, str]:
    """Find the schema of a value.

    Args:
        location: Path of the value.
        root: Schema of the whole document.

    Returns:
        The schema, and the path of the value, such as "downsampling[0].filters".

    Raises:
        LookupError: The schema knows no such value.
    """
    schema, path = root, ""
    for part in location:
        tagged = schema.get("discriminator", {}).get("mapping", {})
        if part in tagged:  # the kind of a block or range, which is not a key of the document
            schema = {"$ref": tagged[part]}
            continue
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
        schema = next(_children(schema, part, root))
    return schema, path.removeprefix(".")


def _children(schema: Schema, part: str | int, root: Schema) -> Iterator[Schema]:
    for option in alternatives(schema, root):
        if isinstance(part, int):
            if "prefixItems" in option:
                yield option["prefixItems"][part]
            elif "items" in option:
                yield option["items"]
        elif part in option.get("properties", {}):
            yield option["properties"][part]
        elif isinstance(option.get("additionalProperties"), dict):
            yield option["additionalProperties"]
    raise LookupError(f"{part!r} is not in the schema")


def keys(schema: Schema, root: Schema) -> list[str]:
    """Return the keys of an object."""
    return [key for option in alternatives(schema, root) for key in option.get("properties", {})]


def type_text(schema: Schema, root: Schema) -> str:
    """Return the types of a value, such as "an integer or null"."""
    texts = [_type_text(option, root) for option in alternatives(schema, root)]
    return " or ".join(dict.fromkeys(texts))


def _type_text(schema: Schema, root: Schema) -> str:
    if "prefixItems" in schema:
        items = (type_text(item, root) for item in schema["prefixItems"])
        return f"[{', '.join(bare(item) for item in items)}]"
    if schema.get("items"):
        first, *_ = alternatives(schema["items"], root)  # objects, which names may stand for
        return f"a list of {bare(_type_text(first, root))}s"
    if "const" in schema:
        return json.dumps(schema["const"])
    names = {
        "integer": "an integer",
        "number": "a number",
        "boolean": "true or false",
        "string": "a string",
        "array": "a list",
        "object": "an object",
        "null": "null",
    }
    return names.get(schema.get("type", ""), "any value")


def bare(text: str) -> str:
    """Return a text without its article."""
    return text.removeprefix("an ").removeprefix("a ")


def range_text(schema: Schema, root: Schema) -> str:
    """Return the range of a value, such as "from 16 to 16384"; empty if it has none."""
    texts = (_range_text(option, root) for option in alternatives(schema, root))
    return " or ".join(dict.fromkeys(filter(None, texts)))


def _range_text(schema: Schema, root: Schema) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(json.dumps(value) for value in schema["enum"])
    items = [*schema.get("prefixItems", ()), *filter(None, [schema.get("items")])]
    items = [item for item in items if "object" not in bare(type_text(item, root))]
    parts = list(dict.fromkeys(filter(None, (range_text(item, root) for item in items))))
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        parts.append(f"from {_number(low)} to {_number(high)}")
    elif low is not None:
        parts.append(f"at least {_number(low)}")
    if "exclusiveMinimum" in schema:
        parts.append(f"greater than {_number(schema['exclusiveMinimum'])}")
    if high is not None and low is None:
        parts.append(f"at most {_number(high)}")
    if "exclusiveMaximum" in schema:
        parts.append(f"less than {_number(schema['exclusiveMaximum'])}")
    if "multipleOf" in schema:
        parts.append(f"a multiple of {_number(schema['multipleOf'])}")
    if "minItems" in schema and "prefixItems" not in schema:
        parts.append(_at_least(schema["minItems"], "element"))
    if "minProperties" in schema:
        parts.append(_at_least(schema["minProperties"], "key"))
    if "format" in schema:
        parts.append(f"of the form {schema['format']}")
    elif "pattern" in schema:
        parts.append(f"matching {schema['pattern']}")
    if "maxLength" in schema:
        parts.append(f"at most {schema['maxLength']} characters long")
    return " and ".join(parts)


def _at_least(count: int, name: str) -> str:
    return f"at least {count} {name}{'s' if count > 1 else ''}"


def _number(value: int | float) -> str:
    return str(int(value)) if value == int(value) else str(value)
