from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import mostly_slow, pink_noise

from denoisecli.adaptation import adapt, judgement
from denoisecli.adaptation import material as module
from denoisecli.adaptation.adapt import _mixing, _write_sources
from denoisecli.adaptation.judgement import YOURS, comparison_sets
from denoisecli.adaptation.material import (
    LEAST_NOISE,
    SPEEDS,
    Material,
    gather,
    held_out_mixtures,
    passages,
    voices,
    write_pieces,
)
from denoisecli.adaptation.recipe import SEED, adaptation_spec
from denoisecli.adaptation.voice_activity import spans, voice_activity, widened
from denoisecli.audio.files import read_mono
from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.errors import AudioError, UsageError
from denoisecli.evaluation.metrics import snr
from denoisecli.models.catalogue import load_spec
from denoisecli.training.mixed_batches import mix_batches
from denoisecli.types import AudioVector

RATE = 16000


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return Denoiser("speech-16k", threads=1)


@pytest.fixture(scope="module")
def voice() -> AudioVector:
    """Ten seconds of a voice that comes with the package."""
    return read_mono(voices()[0], RATE)[0][: 10 * RATE]


@pytest.fixture
def one_voice(
    voice: AudioVector, audio_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read seconds of one voice instead of the minutes of three that come with the package."""
    path = audio_file("voice.wav", voice, RATE, "FLOAT")
    monkeypatch.setattr(module, "voices", lambda: [path])


@pytest.fixture
def few_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generate little noise, as it takes seconds."""
    monkeypatch.setattr(adapt, "PIECES", 4)
    monkeypatch.setattr(adapt, "SECONDS", 0.5)
    monkeypatch.setattr(judgement, "GENERATED", 2)


def take(voice: AudioVector, noise: AudioVector) -> tuple[AudioVector, AudioVector]:
    """Return a recording of 28 s with two passages of speech of 4 s, and its clean part."""
    clean = np.zeros(28 * RATE, np.float32)
    for start, part in ((2 * RATE, voice[: 4 * RATE]), (12 * RATE, voice[4 * RATE : 8 * RATE])):
        clean[start : start + part.size] = part
    return clean + noise, clean


def test_speech_is_heard_and_noise_is_not(voice: AudioVector, rng: np.random.Generator) -> None:
    noise = pink_noise(5, RATE, rng)
    assert voice_activity(voice, RATE).mean() > 0.6
    assert voice_activity(0.001 * voice, RATE).mean() > 0.6
    assert voice_activity(noise, RATE).max() < 0.3


def test_spans_are_where_a_condition_holds() -> None:
    holds = np.array([1, 1, 0, 1, 0, 0, 1, 1, 1], bool)
    assert spans(holds, 10.0, 15.0, 85) == [(0, 20), (60, 85)]
    assert spans(np.zeros(4, bool), 10.0, 1.0, 40) == []
    assert widened(np.array([0, 0, 1, 0, 0, 0], bool), 1).tolist() == [0, 1, 1, 1, 0, 0]


@pytest.mark.usefixtures("one_voice")
def test_the_pauses_of_a_take_are_its_noise(
    voice: AudioVector,
    denoiser: Denoiser,
    rng: np.random.Generator,
    audio_file: Callable[..., Path],
) -> None:
    noise = pink_noise(28, RATE, rng)
    noisy, clean = take(voice, noise)
    found = gather([audio_file("take.wav", noisy, RATE, "FLOAT")], [], [], denoiser)
    assert 15 < found.found < 20  # of 20 s
    parts = [*found.noise[0], *found.held_out_noise[0]]
    assert sum(part.size for part in parts) == pytest.approx(found.found * RATE, abs=2)
    for part in parts:  # nothing of the speech is in them
        places = np.flatnonzero(np.isclose(noisy, part[0], atol=1e-6))
        start = next(p for p in places if np.allclose(noisy[p : p + part.size], part, atol=1e-5))
        assert np.abs(clean[start : start + part.size]).max() < 0.02


@pytest.mark.slow
def test_the_last_third_is_held_out(
    denoiser: Denoiser, rng: np.random.Generator, audio_file: Callable[..., Path]
) -> None:
    sounds = {name: pink_noise(30, RATE, rng) for name in ("a.wav", "b.wav")}
    paths = [audio_file(name, sound, RATE, "FLOAT") for name, sound in sounds.items()]
    found = gather([], paths, [], denoiser)
    for sound, first, last in zip(sounds.values(), found.noise, found.held_out_noise, strict=True):
        np.testing.assert_allclose(np.concatenate([*first, *last]), sound, atol=1e-6)
        assert sum(part.size for part in last) == pytest.approx(10 * RATE, abs=2)
    assert len(found.speech) == len(found.held_out_speech) == len(voices())


@pytest.mark.usefixtures("one_voice")
def test_own_clean_speech_is_trained_with_too(
    voice: AudioVector,
    denoiser: Denoiser,
    rng: np.random.Generator,
    audio_file: Callable[..., Path],
) -> None:
    noise = audio_file("noise.wav", pink_noise(20, RATE, rng))
    own = audio_file("own.wav", np.stack([voice, voice]), RATE, "FLOAT")
    found = gather([], [noise], [own], denoiser)
    np.testing.assert_allclose(
        np.concatenate([*found.speech[0], *found.held_out_speech[0]]), voice, atol=1e-6
    )


@pytest.mark.usefixtures("one_voice")
def test_what_cannot_be_learnt_from_is_refused(
    voice: AudioVector,
    denoiser: Denoiser,
    rng: np.random.Generator,
    audio_file: Callable[..., Path],
) -> None:
    short = audio_file("short.wav", pink_noise(11, RATE, rng))
    with pytest.raises(UsageError, match="11 s of noise were found, and 12 s are needed"):
        gather([], [short], [], denoiser)
    silent = audio_file("silent.wav", np.zeros(20 * RATE))
    fan = audio_file("fan.wav", pink_noise(20, RATE, rng))
    found = gather([], [silent, fan], [], denoiser)
    assert any("silent.wav is silent and left out" in text for text in found.warnings)
    with pytest.raises(UsageError, match=r"silent\.wav is silent"):
        gather([silent], [], [], denoiser)
    t = np.arange(8 * RATE) / RATE
    chords = sum(np.sin(2 * np.pi * f * t) * (1 + np.sin(2 * np.pi * t)) for f in (220, 277, 330))
    music = audio_file("music.wav", 0.1 * chords)
    message = (
        r"no speech in the noisy recordings \(.*music\.wav\); .* --noise, which takes one file"
    )
    with pytest.raises(UsageError, match=message):
        gather([music], [], [], denoiser)
    no_pause = audio_file("talk.wav", voice)
    with pytest.raises(UsageError, match="longer pauses"):
        gather([no_pause], [], [], denoiser)


@pytest.mark.usefixtures("one_voice")
@pytest.mark.parametrize("silent", [(0, 4), (10, 6), (14, 16)])
def test_silence_in_recordings_of_noise_is_left_out(
    denoiser: Denoiser,
    rng: np.random.Generator,
    audio_file: Callable[..., Path],
    silent: tuple[int, int],
) -> None:
    """It could be all that is held out."""
    start, seconds = silent
    sound = np.insert(pink_noise(14, RATE, rng), start * RATE, np.zeros(seconds * RATE))
    found = gather([], [audio_file("noise.wav", sound, RATE, "FLOAT")], [], denoiser)
    for part in [*found.noise[0], *found.held_out_noise[0]]:
        assert np.abs(part[:RATE]).max() > 0 and np.abs(part[-RATE // 4 :]).max() > 0
    assert found.seconds(found.noise) == pytest.approx(14 * 2 / 3, abs=0.1)
    assert found.seconds(found.held_out_noise) == pytest.approx(14 / 3, abs=0.1)


@pytest.mark.usefixtures("one_voice")
def test_takes_without_speech_are_reported(
    voice: AudioVector,
    denoiser: Denoiser,
    rng: np.random.Generator,
    audio_file: Callable[..., Path],
) -> None:
    spoken = audio_file("take.wav", take(voice, pink_noise(28, RATE, rng))[0], RATE, "FLOAT")
    noise = audio_file("noise.wav", pink_noise(4, RATE, rng), RATE, "FLOAT")
    (warning,) = gather([spoken, noise], [], [], denoiser).warnings
    assert warning.startswith(f"warning: there is no speech in {noise}; if it is noise alone")


@pytest.mark.usefixtures("one_voice")
def test_damaged_recordings_are_reported(
    denoiser: Denoiser, rng: np.random.Generator, audio_file: Callable[..., Path]
) -> None:
    path = audio_file("fan.flac", 0.1 * pink_noise(40, RATE, rng), RATE)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))
    found = gather([], [path], [], denoiser)
    (warning,) = found.warnings
    assert "fan.flac is damaged" in warning
    assert 15 < found.seconds([*found.noise, *found.held_out_noise]) < 25
    audio = data.index(b"\xff\xf8")
    path.write_bytes(data[: audio + 40])
    with pytest.raises(AudioError, match=r"fan\.flac"):
        gather([], [path], [], denoiser)


@pytest.mark.usefixtures("one_voice")
def test_only_the_beginning_of_long_recordings_is_read(
    denoiser: Denoiser,
    rng: np.random.Generator,
    audio_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LONGEST", 15.0)
    path = audio_file("long.wav", pink_noise(40, RATE, rng), RATE, "FLOAT")
    found = gather([], [path], [], denoiser)
    assert found.seconds([*found.noise, *found.held_out_noise]) == pytest.approx(15)


@pytest.mark.usefixtures("one_voice")
def test_short_recordings_leave_their_share_to_longer_ones(
    denoiser: Denoiser,
    rng: np.random.Generator,
    audio_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LONGEST_OF_ALL", 40.0)
    paths = [
        audio_file(f"{number}.wav", pink_noise(seconds, RATE, rng), RATE, "FLOAT")
        for number, seconds in enumerate([30, 2, 2, 2, 2, 2])
    ]
    found = gather([], paths, [], denoiser)
    assert found.seconds([*found.noise, *found.held_out_noise]) == pytest.approx(40)
    assert not found.warnings
    monkeypatch.setattr(module, "LONGEST_OF_ALL", 20.0)
    found = gather([], paths, [], denoiser)
    assert found.seconds([*found.noise, *found.held_out_noise]) == pytest.approx(20)
    assert found.warnings == ("warning: only the first 10 s of each recording are used",)


@pytest.fixture
def sines() -> Material:
    """Noise and speech whose frequencies tell where they are from."""

    def sine(hertz: float, seconds: float) -> AudioVector:
        t = np.arange(round(seconds * 4000)) / 4000
        return np.sin(2 * np.pi * hertz * t).astype(np.float32)

    return Material(
        sample_rate=4000,
        noise=[[sine(100, 10.0)], [sine(200, 3), sine(200, 9)]],
        speech=[[sine(300, 20)]],
        held_out_noise=[[sine(500, 2)], [sine(600, 6)]],
        held_out_speech=[[sine(700, 8)], [sine(800, 8)]],
        held_out_voices=[[sine(800, 8)]],
        found=0.0,
    )


def hertz_of(sound: AudioVector) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(sound))) * 4000 / sound.size)


def test_pieces_to_train_with_hold_nothing_that_is_held_out(
    sines: Material, tmp_path: Path
) -> None:
    write_pieces(sines.speech, tmp_path / "clean", 4000)
    write_pieces(sines.noise, tmp_path / "noise", 4000, repeats=True)
    clean, noise = (sorted((tmp_path / name).iterdir()) for name in ("clean", "noise"))
    assert {round(hertz_of(soundfile.read(path)[0]), -1) for path in clean} == {300}
    assert {round(hertz_of(soundfile.read(path)[0]), -1) for path in noise} == {100, 200}
    assert len(noise) >= 10  # some are needed to validate with
    seconds = sum(soundfile.info(path).duration for path in noise)
    assert seconds == pytest.approx(22 - 0.05 * len(noise))  # all but the seams


@pytest.mark.usefixtures("few_pieces")
def test_speech_is_trained_with_at_several_speeds_and_noise_at_its_own(
    sines: Material, tmp_path: Path
) -> None:
    _write_sources(sines, tmp_path)
    clean, noise = (
        sorted(hertz_of(soundfile.read(path)[0]) for path in (tmp_path / folder).rglob("*.wav"))
        for folder in ("clean", "noise/own")
    )
    nearest = [min(SPEEDS, key=lambda speed: abs(300 * speed - hertz)) for hertz in clean]
    assert set(nearest) == set(SPEEDS)
    np.testing.assert_allclose(clean, 300 * np.array(nearest), rtol=0.01)
    assert {round(hertz, -1) for hertz in noise} == {100, 200}


@pytest.mark.usefixtures("few_pieces")
@pytest.mark.slow
def test_a_passage_is_in_one_set_at_all_speeds(
    sines: Material, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Or else the best epoch would be chosen by speech that was trained on."""
    _write_sources(replace(sines, speech=[[pink_noise(60, 4000, rng)]]), tmp_path)
    mixing = replace(_mixing(tmp_path), cache=tmp_path / "cache")
    spec = adaptation_spec(load_spec("speech-16k"), "new", 5.0)
    sets = {
        name: {one.name.split("/")[0] for one in roles["clean"]}
        for name, roles in mix_batches(mixing, spec, tmp_path)._sets.items()
    }
    assert sets["train"]
    assert sets["valid"]
    assert sets["train"].isdisjoint(sets["valid"])


def test_every_voice_is_held_out_at_every_snr(sines: Material) -> None:
    """Also if there are as many voices as SNRs."""
    parts = [[tone(1.5 + index)] for index in range(3)]
    drawn = held_out_mixtures(replace(sines, held_out_noise=parts, held_out_speech=parts), 48, 3)
    snrs = np.round([snr(clean, noisy, 4000) for noisy, clean in drawn])
    by_voice = [set(snrs[voice::3]) for voice in range(3)]
    assert by_voice == [{0.0, 5.0, 10.0}] * 3


def test_held_out_mixtures_have_the_stated_snrs_and_use_all_sources(sines: Material) -> None:
    pairs = held_out_mixtures(sines, 12, seed=3)
    snrs = [snr(clean, noisy, 4000) for noisy, clean in pairs]
    assert sorted(snrs) == pytest.approx([0] * 4 + [5] * 4 + [10] * 4, abs=0.1)
    assert {round(hertz_of(clean), -1) for _, clean in pairs} == {700, 800}
    assert {round(hertz_of(noisy - clean), -1) for noisy, clean in pairs} == {500, 600}
    again = held_out_mixtures(sines, 12, seed=3)
    np.testing.assert_array_equal(pairs[5][0], again[5][0])


def tone(seconds: float) -> AudioVector:
    """Return a tone that ends at another phase than it began with."""
    t = np.arange(round(seconds * 4000)) / 4000
    return np.sin(2 * np.pi * 100.3 * t).astype(np.float32)


def clicks(sound: AudioVector) -> bool:
    """Return whether a tone has a greater step than it has by itself, faded into itself or not."""
    return float(np.abs(np.diff(sound)).max()) > 1.5 * 2 * np.pi * 100.3 / 4000


@pytest.mark.parametrize("seconds", [[1.1], [11.3], [1.7, 0.85, 7.9]])
def test_every_piece_of_noise_can_be_repeated_without_a_click(
    seconds: list[float], tmp_path: Path
) -> None:
    """Also those that a longer stretch is cut into."""
    assert clicks(np.tile(tone(1.1), 2))
    write_pieces([[tone(length) for length in seconds]], tmp_path / "noise", 4000, repeats=True)
    pieces = [soundfile.read(path)[0] for path in (tmp_path / "noise").iterdir()]
    assert len(pieces) >= int(sum(seconds))
    assert not any(clicks(np.tile(piece, 2)) for piece in pieces)


def test_held_out_mixtures_do_not_click_where_stretches_meet_or_repeat(sines: Material) -> None:
    parts = [[tone(0.93), tone(0.81)], [tone(1.3)]]
    found = held_out_mixtures(replace(sines, held_out_noise=parts, held_out_speech=parts), 6, 3)
    for noisy, clean in found:
        level = np.abs(clean).max()
        assert not clicks(clean / level)
        noise = noisy - clean
        assert not clicks(noise / np.abs(noise).max())


@pytest.mark.usefixtures("few_pieces")
@pytest.mark.parametrize("gain", mostly_slow([1.0, 30.0], 30.0))
def test_little_noise_is_enough_to_train_with(
    gain: float, rng: np.random.Generator, tmp_path: Path
) -> None:
    """At least two pieces of the least noise that is accepted, even if it is clipped."""
    sound = (gain * pink_noise(LEAST_NOISE, RATE, rng)).clip(-1, 1)
    noise, held_out_noise = module._hold_out([sound])
    speech, held_out_speech = module._hold_out([pink_noise(90, RATE, rng)])
    found = Material(RATE, [noise], [speech], [held_out_noise], *2 * [[held_out_speech]], 0.0)
    _write_sources(found, tmp_path)
    for piece in (tmp_path / "noise" / "own").iterdir():
        assert soundfile.info(piece).duration > 0.7
    spec = adaptation_spec(load_spec("speech-16k"), "new", 5.0)
    mixing = replace(_mixing(tmp_path), cache=tmp_path / "cache")
    batches = mix_batches(mixing, spec, tmp_path)
    own = [one for one in batches._sets["train"]["noise"] if one.name.startswith("own/")]
    assert len(own) >= 2
    assert batches._sets["valid"]["noise"]
    pairs = comparison_sets(found, SEED, 4)[YOURS]
    assert all(np.isfinite(noisy).all() and clean.any() for noisy, clean in pairs)


@pytest.mark.slow
@pytest.mark.usefixtures("one_voice")
def test_pauses_at_the_end_of_clean_speech_are_not_compared_with(
    voice: AudioVector,
    denoiser: Denoiser,
    rng: np.random.Generator,
    audio_file: Callable[..., Path],
) -> None:
    """Neither if they are digital silence nor if they are hiss, which would pass for speech."""
    noise = audio_file("noise.wav", pink_noise(20, RATE, rng))
    hiss = 1e-4 * rng.normal(size=8 * RATE)
    for number, ending in enumerate((np.zeros(8 * RATE), hiss)):
        own = audio_file(f"{number}.wav", np.concatenate([voice, ending]), RATE, "FLOAT")
        found = gather([], [noise], [own], denoiser)
        held_out = np.concatenate(found.held_out_speech[0])
        assert voice_activity(held_out, RATE).mean() > 0.4
        assert np.isfinite(passages(found, 8, rng)).all()
    silence = audio_file("hiss.wav", hiss, RATE, "FLOAT")
    with pytest.raises(UsageError, match=r"no speech in .*hiss\.wav, which was given with --spee"):
        gather([], [noise], [silence], denoiser)


def test_noise_with_digital_pauses_is_used(
    denoiser: Denoiser, rng: np.random.Generator, audio_file: Callable[..., Path]
) -> None:
    """As a noise gate leaves it; and a file of a single sample is left out."""
    sound = pink_noise(60, RATE, rng)
    sound[(np.arange(sound.size) // (RATE // 2)) % 2 == 1] = 0
    files = [audio_file("gated.wav", sound), audio_file("one.wav", np.full(1, 0.1))]
    found = gather([], files, [], denoiser)
    amount = found.seconds([*found.noise, *found.held_out_noise])
    assert amount == pytest.approx(30, abs=3)
    assert all(
        np.isfinite(sound).all() for pair in held_out_mixtures(found, 4, 0) for sound in pair
    )


def test_a_passage_of_digital_silence_stays_silent(sines: Material) -> None:
    silent = replace(sines, held_out_speech=[[np.zeros(20000, np.float32)]])
    assert not np.any(passages(silent, 2, np.random.default_rng(0)))
