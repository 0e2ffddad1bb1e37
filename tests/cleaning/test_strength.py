import numpy as np
import pytest
import soundfile
from helpers import constant_mask

from denoisecli.audio import dnsmos
from denoisecli.audio.dnsmos import Dnsmos
from denoisecli.audio.reading import reader
from denoisecli.cleaning import strength as module
from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.cleaning.file import FileOptions
from denoisecli.cleaning.strength import choose_strength
from denoisecli.errors import UsageError

RATE = 8000


@pytest.fixture
def rated(monkeypatch):
    """Set what a sound is rated, by its level in relation to that of the recording."""

    def rate(ratings):
        def dnsmos_of(sound, sample_rate):
            level = float(np.abs(sound).max())
            if level == 0:
                return None
            nearest = min(ratings, key=lambda known: abs(known - level / 0.5))
            sig, ovrl = ratings[nearest]
            return Dnsmos(sig, 3.0, ovrl)

        monkeypatch.setattr(dnsmos, "dnsmos", dnsmos_of)

    return rate


@pytest.fixture
def recording(audio_file):
    return audio_file("x.wav", 0.5 * np.sign(np.sin(np.arange(3 * RATE) / 50)), RATE, "FLOAT")


def chosen(path, gain=0.2, **options):
    with reader(path) as opened:
        return choose_strength(opened, lambda sound: gain * sound, **options)


# With a gain of 0.2 the strengths 0, 0.5, 0.75 and 1 leave 1, 0.6, 0.4 and 0.2 of the amplitude.
@pytest.mark.parametrize(
    ("ratings", "expected", "note"),
    [
        ({1: (3, 2.0), 0.6: (3, 2.5), 0.4: (3, 2.8), 0.2: (3, 3.0)}, 1.0, None),
        ({1: (3, 2.0), 0.6: (3, 2.5), 0.4: (3, 2.97), 0.2: (3, 3.0)}, 0.75, None),
        ({1: (3, 2.0), 0.6: (3, 2.9), 0.4: (3, 2.5), 0.2: (3, 2.0)}, 0.5, None),
        ({1: (3, 2.0), 0.6: (3, 2.5), 0.4: (2.7, 2.8), 0.2: (2.5, 3.0)}, 0.5, None),
        ({1: (3, 3.0), 0.6: (3, 3.05), 0.4: (3, 3.1), 0.2: (3, 3.1)}, 0.0, "no strength improves"),
        (
            {1: (3, 3.0), 0.6: (3, 2.9), 0.4: (3, 2.8), 0.2: (3, 2.7)},
            0.0,
            "every strength makes it worse",
        ),
    ],
    ids=["best", "as good with less", "half", "speech is damaged", "not worth it", "worse"],
)
def test_the_least_strength_among_the_best(rated, recording, ratings, expected, note):
    rated(ratings)
    choice = chosen(recording)
    assert choice.strength == expected
    assert list(choice.ovrl) == [0.0, 0.5, 0.75, 1.0]
    assert (choice.note is None) == (note is None)
    assert note is None or note in choice.note


def test_recordings_without_speech_stay(rated, recording, audio_file):
    rated({1: (1, 1.0), 0.01: (3, 3.0)})
    assert "almost nothing" in chosen(recording, gain=0.01).note
    # The same sound with a limit of 6 dB, which keeps half of what would be removed.
    assert "almost nothing" in chosen(recording, gain=0.505, amount=0.5).note
    assert chosen(recording, gain=0.505).note is None
    silence = audio_file("silence.wav", np.zeros(RATE), RATE)
    assert "silent" in chosen(silence).note


def test_excerpts_are_spread_and_have_what_comes_before(monkeypatch, audio_file):
    monkeypatch.setattr(dnsmos, "WINDOW_SECONDS", 1.0)
    path = audio_file("long.wav", np.arange(20 * RATE) / (20 * RATE), RATE, "DOUBLE")
    with reader(path, block_frames=3001) as opened:
        found = list(module._excerpts(opened, opened.info.frames, RATE))
    assert len(found) == module.EXCERPTS
    leads = [lead for lead, _ in found]
    assert leads == [0, *[2 * RATE] * 5]
    starts = [round(float(sound[0, lead]) * 20 * RATE) for lead, sound in found]
    assert starts == np.linspace(0, 19 * RATE - 1, 6).round().astype(int).tolist()
    assert {sound.shape[1] - lead for lead, sound in found} == {RATE + 1}


def test_the_file_is_cleaned_at_the_chosen_strength(rated, model_folder, recording, tmp_path):
    rated({1: (3, 2.0), 0.75: (3, 3.0), 0.5: (3, 2.5)})
    target = tmp_path / "y.wav"
    denoiser = Denoiser(model_folder(constant_mask(0.5)))
    result = denoiser.clean_file(recording, target, FileOptions(auto_strength=True))
    assert result.strength == 0.5
    assert result.record()["strength_ovrl"]["0.5"] == 3.0
    noisy, clean = (soundfile.read(path)[0] for path in (recording, target))
    assert np.abs(clean).max() < 0.9 * np.abs(noisy).max()
    assert denoiser.clean_file(recording, tmp_path / "z.wav").strength is None


def test_the_reported_strength_is_that_of_a_denoiser(rated, model_folder, recording, tmp_path):
    """Whatever the upper end is, a denoiser of the reported strength yields the same sound."""
    rated({1: (3, 1.5), 0.75: (3, 3.0), 0.5: (3, 2.5)})
    folder = model_folder(constant_mask(0.5))
    for strength in (1.0, 0.5):
        chosen, given = tmp_path / f"chosen{strength}.wav", tmp_path / f"given{strength}.wav"
        denoiser = Denoiser(folder, strength=strength)
        result = denoiser.clean_file(recording, chosen, FileOptions(auto_strength=True))
        assert list(result.strength_ovrl) == [strength * share for share in module.STRENGTHS]
        assert result.strength in result.strength_ovrl
        assert 0 < result.strength < strength
        Denoiser(folder, strength=result.strength).clean_file(recording, given)
        np.testing.assert_allclose(soundfile.read(chosen)[0], soundfile.read(given)[0], atol=1e-4)


def test_a_recording_that_stays_is_the_same_to_the_sample(rated, model_folder, recording, tmp_path):
    rated({1: (3, 3.0), 0.5: (3, 2.0)})
    denoiser = Denoiser(model_folder(constant_mask(0.5)))
    result = denoiser.clean_file(recording, tmp_path / "y.wav", FileOptions(auto_strength=True))
    np.testing.assert_array_equal(
        soundfile.read(tmp_path / "y.wav")[0], soundfile.read(recording)[0]
    )
    assert "nothing was removed" in result.warnings[-1]


def test_a_pipe_is_refused(model_folder, recording, tmp_path):
    denoiser = Denoiser(model_folder(constant_mask(0.5)))
    with recording.open("rb") as pipe, pytest.raises(UsageError, match="give a file"):
        denoiser.clean_file(pipe, tmp_path / "y.wav", FileOptions(auto_strength=True))


def test_channels_of_inverse_polarity_are_rated(rated, audio_file):
    rated({1: (3, 2.0), 0.6: (3, 2.5), 0.4: (3, 2.8), 0.2: (3, 3.0)})
    square = 0.5 * np.sign(np.sin(np.arange(3 * RATE) / 50))
    assert chosen(audio_file("x.wav", np.stack([square, -square]), RATE, "FLOAT")).strength == 1.0


def test_a_recording_of_unknown_length_is_counted(monkeypatch, model_folder, audio_file, tmp_path):
    monkeypatch.setattr(dnsmos, "WINDOW_SECONDS", 1.0)
    monkeypatch.setattr(dnsmos, "dnsmos", lambda sound, rate: Dnsmos(3.0, 3.0, 3.0))
    path = audio_file("long.flac", 0.1 * np.ones(20 * RATE), RATE)
    content = bytearray(path.read_bytes())
    content[21:26] = bytes([content[21] & 0xF0]) + bytes(4)  # the number of samples
    path.write_bytes(content)
    excerpts, found = module._excerpts, []

    def spied(blocks, frames, rate):
        for lead, sound in excerpts(blocks, frames, rate):
            found.append(lead)
            yield lead, sound

    monkeypatch.setattr(module, "_excerpts", spied)
    denoiser = Denoiser(model_folder(constant_mask(0.5)))
    denoiser.clean_file(path, tmp_path / "y.flac", FileOptions(auto_strength=True))
    assert len(found) == module.EXCERPTS
