import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from denoisecli import audio
from denoisecli.errors import AudioError, DatasetError, UsageError
from denoisecli.sources import Source, check, in_order, scan, split


@pytest.fixture
def source(audio_file: Callable[..., Path]) -> Callable[..., Source]:
    def make(name: str, samples: np.ndarray, sample_rate: int = 16000) -> Source:
        return check("clean", audio_file(name, samples, sample_rate), name)

    return make


def fake(name: str) -> Source:
    return Source("clean", Path("/nowhere") / name, name, 16000, 16000, 0.1, name, True)


def test_check_measures(source: Callable[..., Source], rng: np.random.Generator) -> None:
    stereo = 0.1 * rng.standard_normal((2, 300_000))  # more than one block
    made = source("speaker/a.wav", stereo, 44100)
    decoded, _ = soundfile.read(made.path)
    assert (made.sample_rate, made.frames, made.folder) == (44100, 300_000, "speaker")
    assert made.rms == pytest.approx(np.sqrt(np.mean(decoded.mean(axis=1) ** 2)), rel=1e-6)


def test_digest_is_that_of_the_sound(
    source: Callable[..., Source], rng: np.random.Generator
) -> None:
    samples = rng.integers(-9000, 9000, 4000, dtype=np.int16)
    wav, flac = source("a.wav", samples), source("a.flac", samples)
    assert wav.digest == flac.digest
    assert source("b.wav", samples, 8000).digest != wav.digest
    samples[-1] += 1
    assert source("c.wav", samples).digest != wav.digest


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_a_piece_is_the_piece_of_the_whole(
    source: Callable[..., Source], rng: np.random.Generator, suffix: str, rate: int
) -> None:
    t = np.arange(3 * rate) / rate
    made = source(f"a.{suffix}", 0.5 * np.sin(2 * np.pi * 100 * t + 5 * t**2), rate)
    whole, _ = audio.read_mono(made.path, 16000)
    assert made.length(16000) == whole.size == made.read(16000).size
    np.testing.assert_allclose(made.read(16000), whole, atol=1e-6)
    for offset in rng.integers(whole.size - 4000, size=5).tolist():
        piece = made.read(16000, offset, 4000)
        assert piece.dtype == np.float32
        assert piece.size == 4000
        # Resampling a piece, its ends are not what they are inside the whole, and the start is
        # rounded to one of the file's own samples.
        np.testing.assert_allclose(piece[100:-100], whole[offset:][100:3900], atol=0.05)
    end = made.read(16000, whole.size - 1001, 1001)
    np.testing.assert_allclose(end[100:-100], whole[-1001:][100:-100], atol=0.05)


def test_read_tells_of_a_changed_file(
    source: Callable[..., Source], audio_file: Callable[..., Path], rng: np.random.Generator
) -> None:
    samples = 0.1 * rng.standard_normal(16000)
    made = source("a.wav", samples)
    audio_file("a.wav", samples[:8000])
    with pytest.raises(AudioError, match=r"a\.wav"):
        made.read(16000)
    made.path.unlink()
    with pytest.raises(AudioError, match=r"a\.wav"):
        made.read(16000)


def test_scan_skips_and_says_why(
    audio_file: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> None:
    good = rng.integers(-9000, 9000, 48000, dtype=np.int16)
    audio_file("clean/good.wav", good)
    audio_file("clean/z copy.flac", good)
    audio_file("clean/silent.wav", np.zeros(16000))
    audio_file("clean/short.wav", good[:1599])
    audio_file("clean/long enough.wav", good[:1600])
    audio_file("clean/empty.wav", good[:0])
    bad = good / 32768
    bad[40000] = np.nan
    audio_file("clean/nan.wav", bad, subtype="FLOAT")
    audio_file("clean/huge.wav", np.full(16000, 1e300), subtype="DOUBLE")
    (tmp_path / "clean" / "text.wav").write_text("no sound at all")
    cut = audio_file("clean/cut.flac", good)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    audio_file("noise/hum.wav", 0.1 * rng.standard_normal(16000))
    audio_file("noise/good again.wav", good)

    calls: list[tuple[int, int]] = []
    clean, noise, skipped = scan(
        tmp_path / "clean", tmp_path / "noise", progress=lambda *call: calls.append(call)
    )
    assert [made.name for made in clean] == ["good.wav", "long enough.wav"]
    assert [made.name for made in noise] == ["hum.wav"]
    reasons = {skip.file: skip.reason for skip in skipped}
    assert reasons.keys() == {
        "z copy.flac", "silent.wav", "short.wav", "empty.wav", "nan.wav", "huge.wav", "text.wav",
        "cut.flac", "good again.wav",
    }  # fmt: skip
    for file, reason in {
        "z copy.flac": "identical to clean file good.wav",
        "good again.wav": "identical to clean file good.wav",
        "silent.wav": "silent",
        "short.wav": "too short",
        "nan.wav": "2.500 s",
        "text.wav": "no audio file",
    }.items():
        assert reason in reasons[file]
    assert not any(str(tmp_path) in reason for reason in reasons.values())
    assert calls == [(done, 12) for done in range(1, 13)]


def test_scan_with_nothing_left(
    audio_file: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> None:
    audio_file("clean/a.wav", 0.1 * rng.standard_normal(16000))
    for number in range(5):
        audio_file(f"noise/{number}.wav", np.zeros(16000))
    with pytest.raises(DatasetError, match=r"none of the 5 noise .*0\.wav is silent;.*\.\.\."):
        scan(tmp_path / "clean", tmp_path / "noise")
    shutil.copytree(tmp_path / "clean", tmp_path / "copy")
    with pytest.raises(DatasetError, match="identical to clean file a"):
        scan(tmp_path / "clean", tmp_path / "copy")


def test_scan_of_no_folder(audio_file: Callable[..., Path], tmp_path: Path) -> None:
    path = audio_file("clean/a.wav", np.ones(16000))
    with pytest.raises(UsageError, match="is a file"):
        scan(path, tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        scan(tmp_path / "clean", tmp_path / "nothing")


@pytest.mark.parametrize("count", [2, 3, 10, 101])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.8, 0.99])
def test_split_by_file(count: int, share: float) -> None:
    sources = [fake(f"{number % 3}/{number}.wav") for number in range(count)]
    first, second = split(sources, share, np.random.default_rng(1))
    assert abs(len(first) - min(max(count * share, 1), count - 1)) <= 0.5
    assert sorted(s.name for s in first + second) == sorted(s.name for s in sources)
    backwards = split(sources[::-1], share, np.random.default_rng(1))
    assert (first, second) == backwards


def test_split_draws_evenly() -> None:
    sources = [fake(str(number)) for number in range(10)]
    counts = Counter(
        s.name for seed in range(300) for s in split(sources, 0.5, np.random.default_rng(seed))[0]
    )
    assert min(counts.values()) > 100
    assert max(counts.values()) < 200


@pytest.mark.parametrize("seed", range(5))
def test_split_by_folder(seed: int) -> None:
    sources = [fake(f"{s}/x/{n}.wav") for s in range(20) for n in range(s % 5 + 1)]
    first, second = split(sources, 0.8, np.random.default_rng(seed), "folder")
    assert {s.folder for s in first}.isdisjoint(s.folder for s in second)
    assert len(first) + len(second) == len(sources) == 60
    assert abs(len(first) - 48) <= 2


def test_split_of_too_few() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(DatasetError, match=r"clean recordings.*one file"):
        split([fake("a/1.wav")], 0.8, rng)
    with pytest.raises(DatasetError, match="one folder"):
        split([fake("a/1.wav"), fake("a/2.wav")], 0.8, rng, "folder")
    first, second = split([fake("1.wav"), fake("a/2.wav"), fake("a/3.wav")], 0.1, rng, "folder")
    assert len(first) + len(second) == 3


@pytest.mark.parametrize("jobs", [1, 3, None])
def test_in_order(jobs: int | None) -> None:
    taken = []

    def numbers():  # type: ignore[no-untyped-def]
        for number in range(1000):
            taken.append(number)
            yield number

    results = in_order(lambda number: number**2, numbers(), jobs=jobs)
    assert next(results) == 0
    assert len(taken) <= 17  # what is ahead is bounded
    assert list(results) == [number**2 for number in range(1, 1000)]


def test_in_order_hands_on_errors() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda number: 1 // number, [1, 0, 1]))
