import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from denoisecli.audio import files as audio
from denoisecli.audio import level
from denoisecli.audio.resampling import resample
from denoisecli.datasets.decoding import DecodeTask, decode, decode_tasks
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.recordings import Recording, find_recordings, load_recordings


@pytest.fixture
def tasks(tmp_path: Path) -> Callable[..., list[DecodeTask]]:
    """Make ``tasks(**arguments of Recipe)`` for the folder "clean"."""

    def make(**arguments: object) -> list[DecodeTask]:
        roots = {"clean": tmp_path / "clean"}
        packs = tmp_path / "packs"
        packs.mkdir(exist_ok=True)
        recipe = Recipe(**{"ratio": 0.5, "max_clipped": 1.0, **arguments})
        return decode_tasks(find_recordings(roots), roots, packs, recipe)

    return make


def decoded(tasks: list[DecodeTask]) -> tuple[dict[str, Recording], dict[str, str]]:
    for task in tasks:
        decode(task)
    recordings, skipped = load_recordings([task.index for task in tasks])
    kept = {recording.name: recording for part in recordings.values() for recording in part}
    return kept, {skip.file: skip.reason for skip in skipped}


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_as_read_and_resampled_at_once(
    tasks: Callable[..., list[DecodeTask]],
    audio_file: Callable[..., Path],
    rng: np.random.Generator,
    suffix: str,
) -> None:
    for rate in (8000, 16000, 44100, 48000):
        t = np.arange(3 * rate + 11) / rate
        sound = 0.5 * np.sin(2 * np.pi * 100 * t + 5 * t**2) + 0.01 * rng.standard_normal(t.size)
        audio_file(f"clean/{rate}.{suffix}", np.array([sound, 0.5 * sound]), rate)
    kept, _ = decoded(tasks())
    for name, recording in kept.items():
        whole, _ = audio.read_mono(recording.pack.parents[1] / "clean" / name, 16000)
        assert recording.samples == whole.size
        np.testing.assert_allclose(recording.read(), whole, atol=1e-6)
        assert recording.rms == pytest.approx(level.rms(whole), rel=1e-6)


def test_digest_is_that_of_the_sound(
    tasks: Callable[..., list[DecodeTask]],
    audio_file: Callable[..., Path],
    rng: np.random.Generator,
) -> None:
    samples = rng.integers(-9000, 9000, 4000, dtype=np.int16)
    audio_file("clean/a.wav", samples)
    audio_file("clean/slower.wav", samples, 8000)
    audio_file("clean/a.flac", samples)
    samples[-1] += 1
    audio_file("clean/b.wav", samples)
    kept, reasons = decoded(tasks())
    assert kept.keys() == {"a.flac", "b.wav", "slower.wav"}
    assert reasons == {"a.wav": "is identical to clean file a.flac"}


def test_skips_and_says_why(
    tasks: Callable[..., list[DecodeTask]],
    audio_file: Callable[..., Path],
    rng: np.random.Generator,
    tmp_path: Path,
) -> None:
    good = rng.integers(-9000, 9000, 48000, dtype=np.int16)
    audio_file("clean/good.wav", good)
    audio_file("clean/silent.wav", np.zeros(16000))
    tone = np.sin(2 * np.pi * 12000 * np.arange(48000) / 48000) * np.hanning(48000)
    audio_file("clean/high.wav", 1e-3 * tone, 48000, "FLOAT")
    audio_file("clean/short.wav", good[:1599])
    audio_file("clean/long enough.wav", good[:1600])
    audio_file("clean/empty.wav", good[:0])
    bad = good / 32768
    bad[40000] = np.nan
    audio_file("clean/nan.wav", bad, subtype="FLOAT")
    audio_file("clean/huge.wav", np.full(16000, 1e300), subtype="DOUBLE")
    audio_file("clean/large.wav", np.full(16000, 3e38), 44100, subtype="DOUBLE")
    clipped = 1.2 * np.sin(np.arange(16000) / 5)
    audio_file("clean/clipped.wav", clipped)
    audio_file("clean/touching.wav", clipped / 1.2)
    (tmp_path / "clean" / "text.wav").write_text("no sound at all")
    (tmp_path / "clean" / "nothing.flac").write_bytes(b"")
    cut = audio_file("clean/cut.flac", good)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    odd = audio_file("clean/odd rate.wav", good)
    data = bytearray(odd.read_bytes())
    data[24:28] = struct.pack("<I", 1)
    odd.write_bytes(data)
    gone = audio_file("clean/gone.wav", good)
    todo = tasks(max_clipped=0.1)
    gone.unlink()

    kept, reasons = decoded(todo)
    for file, reason in {
        "silent.wav": "is silent",
        "high.wav": "silent, at least at 16000 Hz",
        "short.wav": "too short: 0.100 s",
        "empty.wav": "no samples",
        "nan.wav": "2.500 s",
        "huge.wav": "NaN or infinite",
        "large.wav": "",
        "clipped.wav": "is clipped: 37",
        "text.wav": "not an audio file",
        "nothing.flac": "is empty",
        "cut.flac": "",
        "gone.wav": "does not exist",
        "odd rate.wav": "sample rate of 1 Hz",
    }.items():
        assert reason in reasons.pop(file)
    assert not any(str(tmp_path) in reason for reason in reasons.values())
    assert kept.keys() == {"good.wav", "long enough.wav", "touching.wav"}
    # What was written of the others before they failed is not in the way.
    np.testing.assert_array_equal(kept["good.wav"].read(), np.float32(good / 32768))


def test_channels_that_cancel_each_other_out_are_not_called_silent(
    tasks: Callable[..., list[DecodeTask]],
    audio_file: Callable[..., Path],
    rng: np.random.Generator,
) -> None:
    sound = 0.1 * rng.standard_normal(16000)
    audio_file("clean/good.wav", sound)
    audio_file("clean/inverted.wav", np.stack([sound, -sound]), 16000, "FLOAT")
    _, reasons = decoded(tasks())
    assert reasons == {"inverted.wav": "has channels that cancel each other out; keep one of them"}


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_constant_is_silent_and_an_offset_is_no_level(
    tasks: Callable[..., list[DecodeTask]],
    audio_file: Callable[..., Path],
    rng: np.random.Generator,
    rate: int,
) -> None:
    sound = 0.01 * rng.standard_normal(3 * rate)
    audio_file("clean/constant.wav", np.full(rate, 0.3), rate)
    audio_file("clean/dead.flac", np.array([np.full(rate, -0.25), np.zeros(rate)]), rate)
    audio_file("clean/plain.wav", sound, rate, "FLOAT")
    audio_file("clean/offset.wav", sound + 0.5, rate, "FLOAT")
    kept, reasons = decoded(tasks())
    assert {file: reason[:9] for file, reason in reasons.items()} == {
        "constant.wav": "is silent",
        "dead.flac": "is silent",
    }
    tolerance = 1e-5 if rate == 16000 else 0.2  # resampled, the steps at both ends ring
    assert kept["offset.wav"].rms == pytest.approx(kept["plain.wav"].rms, rel=tolerance)


@pytest.mark.parametrize(
    ("rate", "made_at", "cutoff"),
    [(48000, 16000, 8000), (48000, 48000, 24000), (16000, 8000, 4000), (44100, 44100, 22050)],
)
@pytest.mark.parametrize("level", [0.1, 0.003])
def test_bandwidth_is_that_of_the_sound(
    tasks: Callable[..., list[DecodeTask]],
    audio_file: Callable[..., Path],
    rng: np.random.Generator,
    rate: int,
    made_at: int,
    cutoff: int,
    level: float,
) -> None:
    sound = level * rng.standard_normal(3 * made_at).clip(-3, 3) + 0.05
    audio_file("clean/a.wav", resample(sound.astype(np.float32), made_at, rate), rate)
    kept, _ = decoded(tasks(sample_rate=8000))
    assert kept["a.wav"].rate == rate
    assert kept["a.wav"].bandwidth == pytest.approx(cutoff, rel=0.04)


def test_tasks_hold_all_files_once(
    tasks: Callable[..., list[DecodeTask]],
    audio_file: Callable[..., Path],
    rng: np.random.Generator,
) -> None:
    for number in range(70):
        audio_file(f"clean/{number}.wav", 0.1 * rng.standard_normal(2000))
    todo = tasks()
    assert len(todo) == 3
    assert [task.number for task in todo] == [0, 1, 2]
    assert len({name for task in todo for _, _, name in task.files}) == 70
    assert sum(decode(task) for task in todo) == pytest.approx(70 * 2000 / 16000)


def test_what_is_done_is_not_done_again(
    tasks: Callable[..., list[DecodeTask]],
    audio_file: Callable[..., Path],
    rng: np.random.Generator,
) -> None:
    path = audio_file("clean/a.wav", 0.1 * rng.standard_normal(16000))
    (task,) = tasks()
    # A pack without an index is what a killed build leaves.
    task.pack.write_bytes(b"half")
    assert decode(task) == 1
    before = json.loads(task.index.read_text())
    path.unlink()
    assert decode(task) == 1
    assert json.loads(task.index.read_text()) == before
    assert len(list(task.folder.iterdir())) == 2


def test_rooms(
    tasks: Callable[..., list[DecodeTask]],
    audio_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def response(number: int, seed: int, sample_rate: int) -> np.ndarray:
        return np.full(sample_rate, number + seed, np.float32)

    monkeypatch.setattr("denoisecli.datasets.decoding.synthetic_response", response)
    audio_file("clean/a.wav", np.tile([0.1, -0.1], 8000))
    kept, _ = decoded(tasks(rooms=3, seed=5))
    rooms = [recording for recording in kept.values() if recording.role == "room"]
    assert [room.name for room in rooms] == [f"synthetic/{number}" for number in range(3)]
    assert [room.samples for room in rooms] == [16000] * 3
    assert [set(room.read()) for room in rooms] == [{5}, {6}, {7}]
