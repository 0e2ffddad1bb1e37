import json
from pathlib import Path
from typing import Any

import pytest

from denoisecli.datasets.manifest import load_manifest, write_manifest
from denoisecli.errors import DatasetError

FACTS = {"id": "1", "recipe": {"snr_db": [-5, 20]}, "sets": {}, "skipped": []}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_write_and_load(tmp_path: Path, count: int) -> None:
    rows = [{"clean": f"ä {number}", "snr_db": None} for number in range(count)]
    write_manifest(tmp_path / "dataset.json", FACTS, iter(rows))
    manifest = load_manifest(tmp_path)
    assert manifest["mixes"] == rows
    assert {key: manifest[key] for key in FACTS} == FACTS
    assert manifest["format_version"] == 1
    with pytest.raises(ValueError, match="JSON compliant"):
        write_manifest(tmp_path / "nan.json", FACTS, [{"snr_db": float("nan")}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99, "denoise_version": "9.9"}, r"9\.9 in a newer format"),
        ({"format": "other"}, "not the manifest"),
        ({}, "no mixes, sets"),
    ],
)
def test_other_manifests(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    manifest = {"format": "denoise dataset", "format_version": 1, "id": "", "recipe": {}}
    (tmp_path / "dataset.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(DatasetError, match=message):
        load_manifest(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "\udcff"])
def test_nonsense(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        load_manifest(tmp_path)


def test_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("file", "nothing", "."):
        with pytest.raises(DatasetError, match="is no dataset"):
            load_manifest(tmp_path / name)
