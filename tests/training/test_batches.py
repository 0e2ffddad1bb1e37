import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from denoisecli.datasets.building import build
from denoisecli.datasets.choices import Kind, ReverbTarget
from denoisecli.datasets.manifest import Joined, hashes_of, load_manifest
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.records import open_records
from denoisecli.errors import DatasetError
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.training import batches as module
from denoisecli.training import segments
from denoisecli.training.augmentation.filters import remove_rumble
from denoisecli.training.batches import Batches, open_batches
from denoisecli.training.segments import CHUNKS
from denoisecli.training.stream import Stream

RATE = 4000
STEP = 0.02
FILES = 15
RECIPE = Recipe(ratio=0.5, sample_rate=RATE, mixtures_per_clip=2, seed=1)


def spec_of(**training: Any) -> Spec:
    """Segments of 0.3 s, which most clips are shorter than, in batches of 2."""
    level = [{"filters": 1}]
    training = {
        "batch_size": 2,
        "segment_seconds": 0.3,
        "validation_share": 0.3,
        "augmentation": None,
        **training,
    }
    return parse_spec(
        {
            "name": "test",
            "audio": {"sample_rate": RATE},
            "downsampling": level,
            "upsampling": level,
            "training": training,
        }
    )


def write_sources(folder: Path, clean_files: int, rng: np.random.Generator) -> tuple[Path, Path]:
    """Clean "recordings" of constant magnitude, which is different in each of them."""
    for kind in ("clean", "noise"):
        (folder / kind).mkdir(parents=True)
    for number in range(clean_files):
        sound = STEP * (number + 1) * (-1.0) ** np.arange(450 + 70 * number)
        soundfile.write(folder / "clean" / f"{number}.flac", sound, RATE)
    for number in range(4):
        sound = 0.1 * rng.normal(size=3000)
        soundfile.write(folder / "noise" / f"{number}.flac", sound, RATE)
    return folder / "clean", folder / "noise"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    build(*write_sources(folder, FILES, np.random.default_rng(0)), folder / "data", RECIPE)
    return folder / "data"


@pytest.fixture(autouse=True)
def unfaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the fades where clips meet, so that each sample tells which clip it is of."""
    monkeypatch.setattr(segments, "fade_edges", lambda *arguments, **options: None)


def arrays(batches: Stream) -> list[Any]:
    return [tuple(map(np.asarray, batch)) for batch in batches]


def owners(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> set[int]:
    """Numbers of the clean files that chunks in these batches are of."""
    found = set()
    for _, clean in batches:
        chunks = clean.reshape(-1, clean.shape[1] // CHUNKS)
        for chunk in chunks:
            heard = chunk[chunk != 0]
            level = np.abs(heard) / (0.5 * STEP)
            np.testing.assert_allclose(level, level[0], rtol=0.01)  # never two clips in a chunk
            found.add(round(float(level[0])) - 1)
    return found


def sources(data: Path, name: str) -> set[int]:
    return {int(Path(row.clean).stem) for row in load_manifest(data).rows(name)}


def samples(data: Path, name: str, files: set[int]) -> np.ndarray:
    rows = load_manifest(data).rows(name)
    return np.array([row.samples for row in rows if int(Path(row.clean).stem) in files])


def assert_same(first: list[Any], second: list[Any]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("steps", [5, 20])
def test_successive_epochs_continue_through_the_data(data: Path, steps: int) -> None:
    batches = open_batches(data, spec_of(steps_per_epoch=steps))
    chunks = sum(batches.clips["train"].chunks(batches.chunk))
    passes = 2 * CHUNKS * (chunks // CHUNKS)  # segments in a whole number of windows and passes
    epochs = -(-passes // (2 * steps))
    heard: Counter[int] = Counter()
    for epoch in range(epochs):
        for _, clean in arrays(batches.training(epoch)):
            for chunk in clean.reshape(-1, batches.chunk):
                heard[round(abs(float(chunk[0])) / (0.5 * STEP)) - 1] += 1
    held_out = owners(arrays(batches.validation()))
    rows = load_manifest(data).rows("train")
    expected: Counter[int] = Counter()
    for row in rows:
        if (number := int(Path(row.clean).stem)) not in held_out:
            expected[number] += -(-row.samples // batches.chunk)
    assert set(heard) == set(expected)
    shares = [heard[number] / count for number, count in expected.items()]
    assert max(shares) - min(shares) < 0.1 * min(shares)


def test_a_stored_validation_set_is_used(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"split": (0.5, 0.3, 0.2)})
    build(*write_sources(tmp_path, FILES, np.random.default_rng(0)), tmp_path / "data", recipe)
    batches = open_batches(tmp_path / "data", spec_of(steps_per_epoch=60))
    stored = sources(tmp_path / "data", "valid")
    assert stored
    assert owners(arrays(batches.validation())) <= stored
    training = owners(arrays(batches.training(0)))
    assert training == sources(tmp_path / "data", "train")  # nothing of it is held out


def test_validation_has_the_targets_of_the_training(tmp_path: Path) -> None:
    for kind, hertz in (("clean", 40), ("noise", 700)):
        (tmp_path / kind).mkdir()
        for number in range(6):
            sound = 0.2 * np.sin(2 * np.pi * (hertz + number) * np.arange(RATE) / RATE)
            soundfile.write(tmp_path / kind / f"{number}.flac", sound, RATE)
    build(tmp_path / "clean", tmp_path / "noise", tmp_path / "data", RECIPE)
    rumble = {"target_highpass_hz": 100, "equalization_db": 0, "remix": False, "level_dbfs": None}
    for augmentation, share in (({**rumble, "target_highpass_hz": None}, 1), (rumble, 0)):
        batches = open_batches(tmp_path / "data", spec_of(augmentation=augmentation))
        for noisy, clean, *_ in (arrays(batches.training(0))[0], *arrays(batches.validation())):
            assert np.std(clean) / np.std(noisy) == pytest.approx(0.7 * share, abs=0.1)


def test_no_recording_is_on_two_sides(data: Path) -> None:
    # As many steps as it takes to see everything several times.
    batches = open_batches(data, spec_of(steps_per_epoch=60))
    training = owners(arrays(batches.training(0)))
    validation = owners(arrays(batches.validation()))
    test = owners(arrays(batches.test()))
    assert training | validation == sources(data, "train")
    assert training.isdisjoint(validation)
    assert len(validation) == round(0.3 * len(sources(data, "train")))
    assert test == sources(data, "test")
    assert test.isdisjoint(training | validation)
    manifest = load_manifest(data)
    for name, names in (("train", training), ("valid", validation), ("test", test)):
        known = batches.source_hashes(name)
        rows = [row for row in manifest.mixtures if int(Path(row.clean).stem) in names]
        others = [row for row in manifest.mixtures if int(Path(row.clean).stem) not in names]
        assert known == hashes_of(rows)
        assert known.isdisjoint(hashes_of(others, "clean"))
    assert batches.source_hashes("train", "valid") == manifest.source_hashes("train")


def test_all_is_used_and_little_wasted(data: Path) -> None:
    batches = open_batches(data, spec_of())
    assert batches.chunk == 100
    assert batches.segment == 1200
    for name, stored in (("train", batches.validation()), ("test", batches.test())):
        found = arrays(stored)
        lengths = samples(data, name, owners(found))
        assert lengths.max() < 3 * batches.segment
        chunks = int(np.ceil(lengths / 100).sum())
        clean = np.concatenate([clean for _, clean in found])
        assert clean.shape == (chunks // CHUNKS, batches.segment)
        padding = int((clean == 0).sum())
        assert padding <= (-lengths % 100).sum()  # only the last chunk of a clip is padded
        assert [len(clean) for _, clean in found[:-1]] == [2] * (len(found) - 1)
    training = arrays(batches.training(0))
    lengths = samples(data, "train", sources(data, "train") - owners(arrays(batches.validation())))
    assert len(training) == batches.train_steps == np.ceil(lengths / 100).sum() // CHUNKS // 2


def test_shapes(data: Path) -> None:
    batches = open_batches(data, spec_of(augmentation={}))
    for noisy, clean in arrays(batches.training(0)):
        assert noisy.shape == clean.shape == (2, batches.segment)
        assert noisy.dtype == clean.dtype == np.float32
        assert np.isfinite(noisy).all()
        assert np.isfinite(clean).all()
        assert np.abs(noisy).max() < 1
    stored = arrays(batches.validation())
    assert_same(stored, arrays(batches.validation()))
    # Noise of equal level at a ratio of one half: that is what was stored, nothing else.
    noisy, clean = (np.concatenate(part) for part in zip(*stored, strict=True))
    assert np.std(noisy - clean) == pytest.approx(np.sqrt(np.mean(clean**2)), rel=0.1)


@pytest.mark.parametrize("augmentation", [None, {}])
def test_epoch_and_seed_decide(data: Path, augmentation: dict[str, Any] | None) -> None:
    spec = spec_of(augmentation=augmentation, seed=5)
    first = arrays(open_batches(data, spec).training(2))
    assert_same(first, arrays(open_batches(data, spec).training(2)))
    others = [
        arrays(open_batches(data, spec).training(3)),
        arrays(open_batches(data, spec_of(augmentation=augmentation, seed=6)).training(2)),
    ]
    for other in others:
        assert any((a[1] != b[1]).any() for a, b in zip(first, other, strict=True))


def test_augmentation_knows_the_sample_rate(data: Path) -> None:
    only = {"remix": False, "level_dbfs": None, "equalization_db": 0.0, "target_highpass_hz": 60.0}
    plain = arrays(open_batches(data, spec_of()).training(0))
    filtered = arrays(open_batches(data, spec_of(augmentation=only)).training(0))
    for (noisy, clean), (same, target) in zip(plain, filtered, strict=True):
        np.testing.assert_allclose(same, noisy, atol=1e-6)
        np.testing.assert_allclose(target, remove_rumble(clean, 60.0, RATE), atol=1e-5)


def test_skipped_batches_do_not_change_the_others(data: Path) -> None:
    batches = open_batches(data, spec_of(augmentation={}, steps_per_epoch=8))
    whole = arrays(batches.training(1))
    for skip in (3, 8):
        assert_same(whole[skip:], arrays(batches.training(1, skip=skip)))


def test_the_largest_seed_and_a_late_epoch_are_valid(data: Path) -> None:
    batches = open_batches(data, spec_of(seed=2**32 - 1, augmentation={}, steps_per_epoch=1))
    assert len(arrays(batches.training(10_000))) == 1


def problem(data: Path, spec: Spec) -> str:
    with pytest.raises(DatasetError) as raised:
        open_batches(data, spec)
    message = str(raised.value)
    assert message.startswith(str(data))
    return message


def test_validation_shares_no_group_and_no_copy_with_the_training(data: Path) -> None:
    """Of a dataset without a validation set, whose recordings are grouped."""
    manifest = load_manifest(data)
    row = manifest.rows("train")[0]
    names = [f"{speaker}/{take}.wav" for speaker in "abcdef" for take in range(4)]

    def sides(
        group_by: str, copies: list[list[str]], joined: dict[str, str] | None = None
    ) -> dict[str, bool]:
        rows = [
            replace(row, clean=name, joined=[Joined((joined or {})[name], 0, 9)])
            if name in (joined or {})
            else replace(row, clean=name, joined=[])
            for name in names
        ]
        recipe = manifest.recipe.model_copy(update={"group_by": group_by})
        update = {"recipe": recipe, "mixtures": rows, "copies": copies}
        chosen = module._split_off(manifest.model_copy(update=update), 0.34, data)
        assert 0 < chosen.sum() < len(names)
        return dict(zip(names, chosen.tolist(), strict=True))

    for group_by in ("folder", "^(.)/"):
        found = sides(group_by, [])
        assert len({name[0] for name, valid in found.items() if valid}) == 2
        assert all(found[name] == found[f"{name[0]}/0.wav"] for name in names)
    first = next(name for name, valid in found.items() if valid)
    other = next(name for name, valid in found.items() if not valid)
    linked = sides("folder", [[f"clean {name}" for name in (first, "gone.wav", other)]])
    assert linked[first] == linked[other]
    copies = [["clean a/0.wav", "clean b/1.wav"], ["clean b/1.wav", "clean c/2.wav"]]
    by_file = sides("file", copies, {"c/2.wav": "d/3.wav"})
    assert len({by_file[name] for name in ("a/0.wav", "b/1.wav", "c/2.wav", "d/3.wav")}) == 1
    sides("^()", [])  # a single group is divided by file


def test_what_does_not_fit(data: Path, tmp_path: Path) -> None:
    rate = parse_spec({**spec_of().model_dump(mode="json"), "audio": {"sample_rate": 8000}})
    message = problem(data, rate)
    assert "a sample rate of 4000 Hz, but the spec 'test' needs 8000" in message
    message = problem(data, spec_of(batch_size=64))
    assert "segments of 0.3 s to train with, fewer than one batch of 64" in message
    assert isinstance(open_batches(data, spec_of(batch_size=64, steps_per_epoch=1)), Batches)
    for share, what in ((0.01, "to validate with"), (0.7, "to test with")):
        spec = spec_of(segment_seconds=4.0, validation_share=share, steps_per_epoch=1)
        assert f"less than a segment of 4 s {what}" in problem(data, spec)
    assert "is not a dataset" in problem(tmp_path, spec_of())


def test_damage_is_found_at_once(data: Path, tmp_path: Path) -> None:
    for name in ("train", "test"):
        copy = tmp_path / name
        shutil.copytree(data, copy)
        next((copy / name).rglob("*.snapshot")).write_bytes(b"")
        assert "damaged" in problem(copy, spec_of())


def test_datasets_of_another_kind_or_size(tmp_path: Path, rng: np.random.Generator) -> None:
    folders = write_sources(tmp_path, 2, rng)
    recipe = RECIPE.model_copy(update={"split": 0.5})
    build(*folders, tmp_path / "few", recipe)
    assert "cannot be split off from a single clean file" in problem(tmp_path / "few", spec_of())
    recipe = recipe.model_copy(update={"kind": Kind.SPECTROGRAM})
    build(*folders, tmp_path / "spectra", recipe)
    assert "holds pairs of spectrograms" in problem(tmp_path / "spectra", spec_of())


@pytest.fixture(scope="module")
def in_rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset whose speech has an echo: where it is steady, it is 1.5 times as strong."""
    folder = tmp_path_factory.mktemp("rooms")
    (folder / "rooms").mkdir()
    for number in range(8):
        response = np.zeros(400 + number)
        response[[20, 20 + ECHO]] = 0.8, 0.4
        soundfile.write(folder / "rooms" / f"{number}.wav", response, RATE, subtype="FLOAT")
    sources = write_sources(folder, FILES, np.random.default_rng(0))
    changes = {"reverb_share": 1.0, "reverb_target": ReverbTarget.DRY, "mixtures_per_clip": 1}
    recipe = RECIPE.model_copy(update=changes)
    build(*sources, folder / "data", recipe, reverb=folder / "rooms")
    return folder / "data"


ECHO = 300
"""Delay in samples, longer than early reflections."""


def test_reverberant_speech_is_stored(in_rooms: Path) -> None:
    manifest = load_manifest(in_rooms)
    for name in manifest.sets:
        records = open_records(in_rooms, manifest, name)
        assert records.has_speech
        for index, row in enumerate(manifest.rows(name)):
            noisy, clean = records[index]
            speech = records.speech(index)
            echo = np.concatenate([np.zeros(ECHO), clean])[: clean.size] / 2
            np.testing.assert_allclose(speech, clean + echo, atol=1e-4)
            noise = noisy - speech
            assert 10 * np.log10(np.mean(speech**2) / np.mean(noise**2)) == pytest.approx(
                row.snr_db, abs=0.1
            )


@pytest.mark.parametrize("target", ["dry", "reverberant"])
def test_reverberation_stays_with_its_speaker(in_rooms: Path, target: str) -> None:
    only = {"clean_only": 1.0, "noise_only": 0.0, "level_dbfs": None, "equalization_db": 0.0}
    batches = open_batches(in_rooms, spec_of(augmentation=only, target=target, steps_per_epoch=8))
    heard = set()
    for noisy, clean in arrays(batches.training(0)):
        if target == "reverberant":
            np.testing.assert_allclose(noisy, clean, atol=1e-6)
            continue
        ratio = noisy[clean != 0] / clean[clean != 0]
        assert (np.minimum(np.abs(ratio - 1), np.abs(ratio - 1.5)) < 0.01).all()
        heard |= set(np.round(ratio, 1))
    assert heard == ({1.0, 1.5} if target == "dry" else set())
    for noisy, clean in arrays(batches.validation()):
        assert np.isfinite(noisy - clean).all()


def test_datasets_without_stored_speech_still_train(in_rooms: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(in_rooms, folder)
    for path in folder.rglob("speech.f32"):
        path.unlink()
    batches = open_batches(folder, spec_of(steps_per_epoch=1))
    assert any("build it again" in message for message in batches.messages)
    assert len(arrays(batches.training(0))) == 1
