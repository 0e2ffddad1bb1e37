import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from denoisecli.datasets.recipe import Recipe
from denoisecli.errors import DatasetError, UsageError
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.training import mixed_batches, recordings
from denoisecli.training.losses.waveform import total_loss
from denoisecli.training.mixed_batches import MixedBatches, Mixing, mix_batches
from denoisecli.training.recordings import INDEX, Folders, open_store
from denoisecli.training.segments import CHUNKS, SegmentOrder, stored_order

RATE, FILES, NOISES = 4000, 24, 12


def spec_of(**training: Any) -> Spec:
    level = [{"filters": 1}]
    settings = {"batch_size": 4, "segment_seconds": 0.3, "augmentation": None, **training}
    document = {"name": "test", "audio": {"sample_rate": RATE}, "training": settings}
    return parse_spec({**document, "downsampling": level, "upsampling": level})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Clean recordings are tones of a frequency of their own, noises are noise."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    for kind, count in (("clean", FILES), ("noise", NOISES)):
        for number in range(count):
            t = np.arange(1500 + 100 * number) / RATE
            sound = 0.01 * (number + 1) * np.sin(2 * np.pi * hertz_of(number) * t)
            if kind == "noise":
                sound = 0.1 * rng.normal(size=t.size)
            path = folder / kind / f"{'abc'[number % 3]}" / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, sound, RATE, subtype="FLOAT")
    return Folders(folder / "clean", folder / "noise")


@pytest.fixture(scope="module")
def cache(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    open_store(folders, Mixing(folders).recipe(spec_of()), folder, jobs=1)
    return folder


def batches_of(
    folders: Folders, cache: Path, spec: Spec | None = None, **fields: Any
) -> MixedBatches:
    return mix_batches(Mixing(folders, cache=cache, **fields), spec or spec_of(), cache)


def hertz_of(number: int) -> float:
    return 100.0 + 70 * number


def arrays(stream: Any) -> list[tuple[np.ndarray, ...]]:
    return [tuple(map(np.asarray, batch)) for batch in stream]


def heard(batches: list[tuple[np.ndarray, ...]]) -> set[int]:
    """Return the numbers of the clean recordings whose tones are among the loudest of a segment."""
    found = set()
    for _, clean, *_ in batches:
        power = np.abs(np.fft.rfft(clean * np.hanning(clean.shape[1]))) ** 2
        hertz = np.fft.rfftfreq(clean.shape[1], 1 / RATE)
        for row in power / power.max(axis=1, keepdims=True):
            for number in range(FILES):
                if row[np.abs(hertz - hertz_of(number)) < 12].max() > 0.3:
                    found.add(number)
    return found


def test_samples_survive_the_cache(folders: Folders, cache: Path) -> None:
    store = open_store(folders, Mixing(folders).recipe(spec_of()), cache)
    assert len(store.recordings["clean"]) == FILES
    for recording in store.recordings["clean"][::7]:
        original, _ = soundfile.read(folders.clean / recording.name)
        found = np.empty(original.size + 700, np.float32)
        store.read(recording, 5, found)
        expected = np.resize(np.roll(original, -5), found.size)  # it repeats
        np.testing.assert_allclose(found, expected, atol=np.abs(original).max() / 60_000)


def test_a_cache_whose_writing_was_interrupted_is_not_read(
    folders: Folders, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old index never finds the samples of other recordings."""
    recipe = Mixing(folders).recipe(spec_of())
    first, second = (Folders(folders.clean / name, folders.noise / "a") for name in "ab")
    open_store(first, recipe, tmp_path, jobs=1)

    def killed(index: Any) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(recordings._Index, "model_dump_json", killed)
        open_store(second, recipe, tmp_path, jobs=1)
    for part in (first, second):
        store = open_store(part, recipe, tmp_path, jobs=1)
        recording = store.recordings["clean"][-1]
        original, _ = soundfile.read(part.clean / recording.name)
        found = np.empty(original.size, np.float32)
        store.read(recording, 0, found)
        np.testing.assert_allclose(found, original, atol=np.abs(original).max() / 60_000)
    assert len(list(tmp_path.glob("*.i16"))) == 1  # that of the recordings read last
    next(tmp_path.glob("*.i16")).unlink()
    assert open_store(second, recipe, tmp_path, jobs=1).recordings["clean"]


def test_a_cache_of_an_earlier_version_is_read(
    folders: Folders, cache: Path, tmp_path: Path
) -> None:
    index = json.loads((cache / INDEX).read_text())
    shutil.copy(cache / index.pop("file"), tmp_path / "recordings.i16")
    (tmp_path / INDEX).write_text(json.dumps(index))
    messages: list[str] = []
    recipe = Mixing(folders).recipe(spec_of())
    store = open_store(folders, recipe, tmp_path, jobs=1, on_message=messages.append)
    assert not messages
    assert len(store.recordings["clean"]) == FILES


def test_recordings_are_decoded_once(
    folders: Folders, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    messages: list[str] = []
    recipe = Mixing(folders).recipe(spec_of())
    before = (cache / INDEX).stat().st_mtime_ns
    open_store(folders, recipe, cache, on_message=messages.append)
    assert not messages
    assert (cache / INDEX).stat().st_mtime_ns == before
    few = Folders(folders.clean / "a", folders.noise / "a")
    open_store(few, recipe, tmp_path, jobs=1, on_message=messages.append)
    assert messages == [f"decoding {FILES // 3 + NOISES // 3} recordings"]
    # Other recordings are decoded in place of these.
    store = open_store(Folders(folders.clean / "b", folders.noise), recipe, tmp_path, jobs=1)
    assert {Path(one.name).stem for one in store.recordings["clean"]} == {
        str(number) for number in range(1, FILES, 3)
    }
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_sets_share_no_recording(folders: Folders, cache: Path) -> None:
    batches = batches_of(folders, cache, spec_of(steps_per_epoch=40))
    sets = [heard(arrays(part)) for part in (batches.training(0), batches.validation())]
    assert len(sets[0]) > FILES / 2
    assert sets[0].isdisjoint(sets[1])
    names = {name: {one.name for one in part["noise"]} for name, part in batches._sets.items()}
    assert names["train"].isdisjoint(names["valid"] | names["test"])
    assert len(batches.source_hashes("train", "valid")) == FILES + NOISES - len(
        names["test"]
    ) - len(batches._sets["test"]["clean"])


def test_a_batch_depends_on_seed_and_number_only(folders: Folders, cache: Path) -> None:
    spec = spec_of(steps_per_epoch=4, augmentation={"equalization_db": 3.0})
    whole = arrays(batches_of(folders, cache, spec).training(1))
    again = arrays(batches_of(folders, cache, spec).training(1, skip=2))
    assert len(whole) == 4
    for batch, same in zip(whole[2:], again, strict=True):
        for part, same_part in zip(batch, same, strict=True):
            np.testing.assert_array_equal(part, same_part)
    other = spec_of(steps_per_epoch=4, augmentation={"equalization_db": 3.0}, seed=1)
    assert (arrays(batches_of(folders, cache, other).training(1))[0][0] != whole[0][0]).any()
    assert (whole[0][0] != whole[1][0]).any()


def test_mixtures(folders: Folders, cache: Path) -> None:
    augmentation = {"snr_db": [3, 3], "level_dbfs": [-30, -30], "equalization_db": 0}
    augmentation |= {"clean_only": 0, "noise_only": 0}
    spec = spec_of(steps_per_epoch=3, augmentation=augmentation)
    batches = batches_of(folders, cache, spec)
    for stream in (batches.training(0), batches.validation(), batches.test()):
        for noisy, clean, *_ in arrays(stream):
            assert noisy.shape == clean.shape == (len(noisy), batches.segment)
            levels = [np.var(part, axis=1) for part in (clean, noisy - clean, noisy)]
            np.testing.assert_allclose(10 * np.log10(levels[0] / levels[1]), 3, atol=0.01)
            np.testing.assert_allclose(10 * np.log10(levels[2]), -30, atol=0.01)
    first, second = arrays(batches.validation()), arrays(batches.validation())
    for batch, same in zip(first, second, strict=True):
        for part, same_part in zip(batch, same, strict=True):
            np.testing.assert_array_equal(part, same_part)


def test_mixtures_that_validate_do_not_depend_on_the_batch_size(
    folders: Folders, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixed_batches, "_FIXED_BATCH", 3)
    found = [
        arrays(batches_of(folders, cache, spec_of(batch_size=size)).validation())
        for size in (2, 64)
    ]
    segments = len(stored_order(batches_of(folders, cache, spec_of())._voices["valid"].chunks))
    for sets in found:
        sizes = {len(noisy) for noisy, *_ in sets}
        assert len(sizes) == 1  # a program is compiled for every size
        assert sizes.pop() <= 3
        assert segments - len(sets) < sum(len(noisy) for noisy, *_ in sets) <= segments
    for batch, same in zip(*found, strict=True):
        for part, same_part in zip(batch, same, strict=True):
            np.testing.assert_array_equal(part, same_part)


@pytest.fixture(scope="module")
def bands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return clean recordings of the full band ("wide"), and tones that go on where they end."""
    folder = tmp_path_factory.mktemp("bands")
    rng = np.random.default_rng(1)
    t = np.arange(RATE) / RATE
    for number in range(FILES):
        tone = np.sin(2 * np.pi * (100 + 50 * number) * t)
        for kind, sound in (("wide", rng.normal(size=RATE)), ("narrow", tone)):
            (folder / kind).mkdir(exist_ok=True)
            soundfile.write(folder / kind / f"{number}.wav", 0.1 * sound, RATE)
    return folder


def test_every_batch_is_mixed_and_no_dataset_is_spoken_of(folders: Folders, tmp_path: Path) -> None:
    settings = {"equalization_db": 0, "second_noise": 0.0, "snr_db": (30.0, 40.0)}
    found = []
    for remix in (True, False):
        spec = spec_of(steps_per_epoch=1, augmentation={**settings, "remix": remix})
        batches = batches_of(folders, tmp_path, spec)
        found.append(arrays(batches.training(0))[0])
        assert not any("the dataset was" in message for message in batches.messages)
        assert any("remix has no effect" in text for text in batches.messages) == (not remix)
    np.testing.assert_array_equal(found[0][0], found[1][0])


def test_chunks_have_the_bands_of_their_recordings(
    folders: Folders, bands: Path, tmp_path: Path
) -> None:
    spec = spec_of(steps_per_epoch=4, augmentation={"equalization_db": 0, "noise_only": 0})
    both = r"(\d+)\.wav"  # a wide and a narrow one in each group, and thus in each set
    batches = batches_of(Folders(bands, folders.noise), tmp_path, spec, group_by=both)
    assert any(f"{RATE // 2} Hz; nothing is learned" in message for message in batches.messages)
    for stream in (batches.training(0), batches.validation(), batches.test()):
        found = set()
        for _, clean, known in arrays(stream):
            assert known.shape == (len(clean), CHUNKS)
            chunks = clean.reshape(-1, batches.chunk) * np.hanning(batches.chunk)
            power = np.abs(np.fft.rfft(chunks)) ** 2
            is_wide = power[:, -10:].sum(axis=1) > 0.02 * power.sum(axis=1)
            np.testing.assert_array_equal(known.ravel() == RATE / 2, is_wide)
            found |= set(is_wide)
        assert found == {True, False}


def test_the_loss_ignores_what_lies_above_the_band(folders: Folders, cache: Path) -> None:
    spec = spec_of(steps_per_epoch=1, augmentation={"clean_only": 0, "noise_only": 0})
    ((noisy, clean, known),) = arrays(batches_of(folders, cache, spec).training(0))
    t = np.arange(clean.shape[1]) / RATE
    estimate = (clean + 0.1 * np.abs(clean).max() * np.sin(2 * np.pi * 1950 * t)).astype("float32")
    right, learned, all_known = (
        float(total_loss(sound, clean, noisy, spec, band))
        for sound, band in ((clean, known), (estimate, known), (estimate, None))
    )
    assert learned - right < 0.1 * (all_known - right)


def test_recordings_of_the_full_band_have_none(
    folders: Folders, bands: Path, tmp_path: Path
) -> None:
    batches = batches_of(Folders(bands / "wide", folders.noise), tmp_path)
    assert not any("above their bands" in message for message in batches.messages)
    for stream in (batches.training(0), batches.validation(), batches.test()):
        assert {len(batch) for batch in arrays(stream)} == {2}


def test_all_clean_recordings_are_heard_equally_often(folders: Folders, cache: Path) -> None:
    batches = batches_of(folders, cache, clean_weights={"b": 2, "c": 0})
    names = [Path(one.name).parent.name for one in batches._voices["train"].recordings]
    assert "c" not in names
    train = {one.name for one in batches._sets["train"]["clean"]}
    assert names.count("b") == 2 * sum(name.startswith("b/") for name in train)
    assert names.count("a") == sum(name.startswith("a/") for name in train)
    passes = sum(batches._voices["train"].chunks) / 12 / 4
    assert batches.train_steps == int(passes)


def test_a_weight_of_0_leaves_recordings_out_of_all_sets(folders: Folders, cache: Path) -> None:
    batches = batches_of(folders, cache, clean_weights={"b": 3, "c": 0}, noise_weights={"a": 0.0})
    for name, voices in batches._voices.items():
        places = [Path(one.name).parent.name for one in voices.recordings]
        assert "c" not in places
        if name != "train":  # weights above 1 are for the training
            assert len(places) == len({one.name for one in voices.recordings})
        assert not [one.name for one in batches._sets[name]["noise"] if one.name[0] == "a"]


@pytest.mark.parametrize("kind", ["clean", "noise"])
def test_weights_for_no_recording_are_refused(folders: Folders, cache: Path, kind: str) -> None:
    value = 1 if kind == "clean" else 0.5
    with pytest.raises(UsageError, match=rf"no {kind} recording is in the folder .* tpyo"):
        batches_of(folders, cache, **{f"{kind}_weights": {"a": value, "tpyo": value}})


@pytest.fixture(scope="module")
def ramps(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Recordings whose samples rise from 0.25 to 0.75, so that each join and loop is a step."""
    folder = tmp_path_factory.mktemp("ramps")
    for kind, count, samples in (("clean", 60, 530), ("noise", 12, 3000)):
        (folder / kind).mkdir()
        for number in range(count):
            size = samples + 41 * number  # not a multiple of a chunk
            soundfile.write(
                folder / kind / f"{number}.wav", np.linspace(0.25, 0.75, size), RATE, "FLOAT"
            )
    return Folders(folder / "clean", folder / "noise")


def test_soft_recordings_do_not_drown(folders: Folders, cache: Path) -> None:
    batches = batches_of(folders, cache)
    voices = batches._voices["train"]
    levels: dict[bool, list[float]] = {}
    for scales in (False, True):
        rng = np.random.default_rng(0)
        segment = np.empty(batches.segment, np.float32)
        levels[scales] = []
        for places in stored_order(voices.chunks):
            batches._read_speech(voices, places, rng, segment, scales=scales)
            pieces = segment.reshape(CHUNKS, -1)[1:-1].std(axis=1)
            levels[scales] += pieces[pieces > 0].tolist()
    spread = {scales: np.ptp(20 * np.log10(found)) for scales, found in levels.items()}
    assert spread[True] < 14 < spread[False]


def test_joined_recordings_do_not_click_and_begin_where_they_begin(
    ramps: Folders, tmp_path: Path
) -> None:
    batches = batches_of(ramps, tmp_path)
    steps, joins, starts = [], 0, set()
    for name, voices in batches._voices.items():
        rng = np.random.default_rng(0)
        order = SegmentOrder(voices.chunks, 1) if name == "train" else stored_order(voices.chunks)
        segment = np.empty(batches.segment, np.float32)
        for number in range(min(len(stored_order(voices.chunks)), 60)):
            segment[:] = np.nan
            batches._read_speech(voices, order[number], rng, segment, scales=False)
            steps.append(np.abs(np.diff(segment)).max())
            joins += len({clip for clip, _ in order[number]}) - 1
            starts.add(float(segment[0]))
            for row in np.flatnonzero(order[number][1:, 1] == 0) + 1:
                begin = segment[row * batches.chunk :][: batches.chunk]
                assert begin[0] == 0
                assert begin[20] == pytest.approx(0.25, abs=0.03)  # after the fade of 5 ms
    assert joins > 20
    assert max(steps) < 0.05  # a fade of 20 samples
    assert len(starts) > 20  # segments begin anywhere


def test_noise_is_looped_only_if_it_is_short(ramps: Folders, tmp_path: Path) -> None:
    batches = batches_of(ramps, tmp_path)
    rng = np.random.default_rng(0)
    segment, starts = np.empty(batches.segment, np.float32), set()
    for _ in range(40):
        batches._read_noise("train", rng, segment)
        assert (np.diff(segment) > 0).all()
        starts.add(float(segment[0]))
    assert len(starts) > 30
    long = np.empty(4000, np.float32)
    batches._read_noise("train", rng, long)
    assert np.sum(np.diff(long) < -0.3) >= 1


def test_groups_and_music(folders: Folders, tmp_path: Path) -> None:
    music = Folders(folders.clean / "a", folders.noise, folders.clean / "b")
    mixing = Mixing(music, group_by=r"(\d)\.wav", group_noise_by="file", cache=tmp_path)
    batches = mix_batches(mixing, spec_of(), tmp_path)
    sets = [{Path(one.name).stem[-1] for one in part["clean"]} for part in batches._sets.values()]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    names = {one.name for part in batches._sets.values() for one in part["clean"]}
    assert "b/1.wav" in names
    assert "0.wav" in names


def test_rooms(folders: Folders, cache: Path) -> None:
    batches = batches_of(folders, cache, spec_of(steps_per_epoch=2))
    response = np.zeros(400, np.float32)
    response[[30, 200]] = 1, -0.5
    batches.recipe = batches.recipe.model_copy(update={"rooms": 3})
    batches._rooms = lambda name: [response[30:]]  # type: ignore[method-assign]
    assert batches._augment["train"].chain.settings.reverberation == 0.5
    for noisy, clean, *_ in arrays(batches.training(0)):
        assert np.isfinite(noisy).all()
        assert np.isfinite(clean).all()


def test_what_does_not_fit(folders: Folders, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="less than a segment of 9 s for the"):
        batches_of(folders, cache, spec_of(segment_seconds=9.0))
    with pytest.raises(UsageError, match="weight of 0"):
        batches_of(folders, cache, noise_weights={"a": 0.0, "b": 0.0, "c": 0.0})
    with pytest.raises(UsageError, match="does not exist"):
        mix_batches(Mixing(Folders(tmp_path / "no", folders.noise)), spec_of(), tmp_path)


def test_the_recipe_takes_rate_and_seed_of_the_spec(folders: Folders) -> None:
    recipe = Mixing(folders, rooms=7).recipe(spec_of(seed=3))
    assert isinstance(recipe, Recipe)
    assert (recipe.sample_rate, recipe.seed, recipe.rooms) == (RATE, 3, 7)


def test_a_quiet_piece_is_drawn_again_whatever_its_offset(rng: np.random.Generator) -> None:
    sound = np.full(32000, 0.2, np.float32)
    sound[::2][8000:] += 0.1  # the second half is loud
    noise = SimpleNamespace(samples=sound.size, rms=float(np.std(sound)))

    def read(recording: Any, offset: int, target: np.ndarray) -> None:
        target[:] = sound[offset : offset + target.size]

    batches = SimpleNamespace(
        _sets={"train": {"noise": [noise]}},
        _noise_bounds={"train": np.ones(1)},
        store=SimpleNamespace(read=read),
    )
    for _ in range(20):
        piece = np.empty(1000, np.float32)
        MixedBatches._read_noise(batches, "train", rng, piece)  # type: ignore[arg-type]
        assert piece.std() > 0.01
