"""The OpenAPI document of the API, from the models of its requests."""

import re
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel

_TAGS = {"clean": "Clean", "jobs": "Jobs, as the page uses them", "server": "The server"}

_JOB = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "Unguessable; all that gives access to the job."},
        "name": {"type": "string", "description": "Name of the recording."},
        "bytes": {"type": "integer", "description": "Its size."},
        "model": {"type": "string", "description": "Name of the model."},
        "stage": {"enum": ["waiting", "working", "done", "failed"]},
        "progress": {"type": "number", "description": "Share of the work that is done, 0..1."},
        "before": {"type": "integer", "description": "Number of recordings that come before."},
        "error": {"type": "string", "description": "Why it failed."},
        "result": {
            "type": "object",
            "description": "Facts about the result: length in s, levels in dBFS, warnings, the "
            "number of channels of the preview and the size of the spectrograms.",
        },
    },
}
_JOB_REFERENCE = {"$ref": "#/components/schemas/Job"}


def openapi(
    clean: type[BaseModel],
    job: type[BaseModel],
    rendering: type[BaseModel],
    archive: type[BaseModel],
) -> dict[str, Any]:
    """Return the OpenAPI document.

    Args:
        clean: Fields of ``POST /api/clean``.
        job: Fields of ``POST /api/jobs`` and ``POST /api/jobs/{id}``.
        rendering: Body of ``POST /api/jobs/{id}/file``.
        archive: Body of ``POST /api/zip``.
    """
    a_job = _json("The job.", _JOB_REFERENCE)
    address = {"type": "string", "description": "Where it is."}
    a_file = _object(
        url=address,
        name={"type": "string", "description": "Name to save it under."},
        bytes={"type": "integer", "description": "Its size."},
        warnings={"type": "array", "items": {"type": "string"}},
    )
    choice = _object(
        strength={"type": "number"},
        ovrl={
            "type": "object",
            "description": "DNSMOS OVRL of the strengths that were compared.",
            "additionalProperties": {"type": "number"},
        },
        note={"type": ["string", "null"]},
    )
    several = _object(jobs={"type": "array", "items": _JOB_REFERENCE})
    operations = {
        "post /api/clean": _operation(
            "Clean a recording and answer with it.", _binary(), _form(clean)
        ),
        "post /api/jobs": _operation(
            "Send a recording, to be cleaned in the background.", a_job, _form(job)
        ),
        "get /api/jobs": _operation(
            'Return the jobs of the parameters "id"; those that are gone are left out.',
            _json("The jobs.", several),
        ),
        "get /api/jobs/{id}": _operation("Return a job.", a_job),
        "post /api/jobs/{id}": _operation(
            "Clean the recording of a job again, with another model.", a_job, _body(job)
        ),
        "delete /api/jobs/{id}": _operation(
            "Remove a job and its files.", {"description": "It was removed."}
        ),
        "get /api/jobs/{id}/preview": _operation(
            "Return the noisy channels followed by the clean ones, as FLAC.", _binary()
        ),
        "get /api/jobs/{id}/spectrogram": _operation(
            "Return the levels of the noisy and then of the clean sound, a byte each, row by "
            "row from the highest frequency; 255 is 0 dBFS, a step is 0.5 dB.",
            _binary(),
        ),
        "post /api/jobs/{id}/strength": _operation(
            "Choose the strength that suits the recording best, by DNSMOS.",
            _json(
                "The strength, and why the recording should stay as it is, if it should.", choice
            ),
        ),
        "post /api/jobs/{id}/file": _operation(
            "Write the result at a strength and in a format.",
            _json("The file.", a_file),
            _body(rendering),
        ),
        "get /api/jobs/{id}/file/{key}": _operation("Return a file that was written.", _binary()),
        "post /api/zip": _operation(
            "Prepare an archive of several results.",
            _json("The archive.", _object(url=address)),
            _body(archive),
        ),
        "get /api/zip/{key}": _operation("Return an archive.", _binary()),
        "get /api/models": _operation("List the models.", _json("The models.", _object())),
        "get /api/server": _operation(
            "Return limits and formats.", _json("The limits.", _object())
        ),
        "get /api/openapi.json": _operation(
            "Return this document.", _json("The OpenAPI document.", _object())
        ),
    }
    paths: dict[str, dict[str, Any]] = {}
    for name, operation in operations.items():
        method, path = name.split()
        tag = re.sub(r"\W.*", "", path.removeprefix("/api/")).replace("zip", "jobs")
        operation["tags"] = [tag if tag in _TAGS else "server"]
        operation["parameters"] = [
            {"name": part, "in": "path", "required": True, "schema": {"type": "string"}}
            for part in re.findall(r"{(\w+)}", path)
        ]
        paths.setdefault(path, {})[method] = operation
    ids = {"type": "array", "items": {"type": "string"}}
    paths["/api/jobs"]["get"]["parameters"] = [{"name": "id", "in": "query", "schema": ids}]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "denoise",
            "version": version("denoisecli"),
            "description": "Removes noise from recordings. An error is answered with a status of "
            '400 or above and {"error": "a sentence"}.',
        },
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {"Job": _JOB},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(
    summary: str, answer: dict[str, Any], body: dict[str, Any] | None = None
) -> dict[str, Any]:
    error = _json("An error.", _object(error={"type": "string"}))
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"2XX": answer, "default": error},
        "security": [{}, {"token": []}],
    }
    return operation | ({"requestBody": body} if body else {})


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _binary() -> dict[str, Any]:
    content = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    return {"description": "The content.", "content": content}


def _form(model: type[BaseModel]) -> dict[str, Any]:
    """Return the body of an upload: the recording, and the fields of a model."""
    schema = model.model_json_schema()
    file = {"type": "string", "format": "binary", "description": "The recording, with its name."}
    form = schema | {"properties": {"file": file, **schema["properties"]}, "required": ["file"]}
    return {"required": True, "content": {"multipart/form-data": {"schema": form}}}


def _body(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    for definition in definitions.values():  # the entries of the only list
        next(iter(schema["properties"].values()))["items"] = definition
    return {"content": {"application/json": {"schema": schema}}}
