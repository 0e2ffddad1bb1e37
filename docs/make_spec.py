"""Write docs/spec.md, the reference of the spec, from its pydantic models.

python docs/make_spec.py
"""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from denoisecli.spec.document import Spec
from denoisecli.spec.network import Convolutions
from denoisecli.spec.schema import Schema, bare, range_text, type_text

TARGET = Path(__file__).with_name("spec.md")

INTRODUCTION = """\
# Reference of the spec

    denoise spec my-model.json

This checks a spec and shows the network that it describes. A spec is a JSON file. `name` and, for
the class `unet`, `downsampling` and `upsampling` are required; all other keys have defaults:

```json
{
  "name": "my-model",
  "stft": {"n_fft": 512, "hop_length": 256},
  "downsampling": [
    {"filters": 16, "kernel_size": [8, 3], "strides": [4, 1]},
    {"filters": 32, "kernel_size": 3}
  ],
  "valley": [{"block": "recurrent", "axis": "time", "units": 32, "bidirectional": false}],
  "upsampling": [{"filters": 16}, {"filters": 16}],
  "training": {"epochs": 10, "losses": ["compressed_complex", {"kind": "si_sdr", "weight": 0.02}]}
}
```

A pair of integers is [frequency, time]; one integer stands for both. An unknown key is an error.
`denoise spec NAME --resolved` prints a spec with all its defaults; `denoise spec --schema` prints
the JSON Schema, which editors use for completion. `python docs/make_spec.py` writes this page.
"""


def render() -> str:
    """Return the text of docs/spec.md."""
    root = Spec.model_json_schema()
    sections = {"Spec": root} | {name: root["$defs"][name] for name in _references(root, root)}
    stacks = {kind.__name__ for kind in Convolutions.__subclasses__()}
    parts = [INTRODUCTION]
    for name, section in sections.items():
        if name in stacks and stacks.isdisjoint(part.partition("\n")[0][3:] for part in parts):
            parts.append(_section("Convolutions", Convolutions.model_json_schema(), root))
        parts.append(_section(name, section, root, has_stack=name in stacks))
    return "\n".join(parts)


def _references(schema: Any, root: Schema) -> Iterator[str]:
    """Yield the names of the sections that a schema refers to, and of those that they refer to."""
    for name in _direct_references(schema):
        yield name
        yield from _references(root["$defs"][name], root)


def _direct_references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].rpartition("/")[2]
        children = [schema[key] for key in schema if key not in ("$defs", "discriminator")]
    else:
        children = schema if isinstance(schema, list) else []
    for child in children:
        yield from _direct_references(child)


def _section(name: str, section: Schema, root: Schema, *, has_stack: bool = False) -> str:
    lines = [f"## {name}", "", inspect.cleandoc(section["description"]), ""]
    properties = section["properties"]
    if has_stack:
        lines += ["It has the keys of [Convolutions](#convolutions) and these:", ""]
        properties = {
            key: value for key, value in properties.items() if key not in Convolutions.model_fields
        }
    lines += ["| key | type | default | range | meaning |", "|---|---|---|---|---|"]
    for key, value in properties.items():
        default = "required" if key in section.get("required", ()) else _default(value)
        cells = [
            f"`{key}`",
            _type(value, root),
            default,
            _range(value, root),
            _meaning(value, root),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _type(value: Schema, root: Schema) -> str:
    links = [f"[{name}](#{name.lower()})" for name in dict.fromkeys(_direct_references(value))]
    text = bare(type_text(value, root)).replace("[", "\\[").replace(" or an ", " or ")
    if not links:
        return _quoted(text)
    if text.startswith("list of objects"):
        return f"list of {' or '.join(links)}"
    if "additionalProperties" in value:
        return f"object of {' or '.join(links)}"
    return " or ".join([*links, *(["null"] if text.endswith("null") else [])])


def _default(value: Schema) -> str:
    default = value.get("default")
    return "its defaults" if isinstance(default, dict) else f"`{json.dumps(default)}`"


def _range(value: Schema, root: Schema) -> str:
    if any(_direct_references(value)):
        return ""
    text = range_text(value, root).removeprefix("one of ")
    return f"`{value['pattern']}`" if "pattern" in value else _quoted(text)


def _meaning(value: Schema, root: Schema) -> str:
    """Return the description of a key, which the schema omits if it is that of the section."""
    section = root["$defs"][next(_direct_references(value))] if "$ref" in value else {}
    return value.get("description") or section["description"]


def _quoted(text: str) -> str:
    return re.sub('"[^"]*"', r"`\g<0>`", text)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
