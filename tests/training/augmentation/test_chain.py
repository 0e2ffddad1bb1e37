from typing import Any

import numpy as np
import pytest

from denoisecli.spec.training import Augmentation
from denoisecli.training.augmentation.chain import Chain
from denoisecli.training.augmentation.mixing import Remix
from denoisecli.training.stream import compiled

BATCH, LENGTH, RATE = 8, 4800, 8000
SEED = [3, 4]

OFF = Augmentation(
    remix=False,
    snr_db=(-5.0, 20.0),
    second_noise=0.3,
    third_noise=0.0,
    level_dbfs=None,
    equalization_db=0.0,
)
NEW: dict[str, Any] = {
    "whisper": 0.7,
    "speed": 0.7,
    "time_shift": True,
    "level_change": 0.7,
    "reverberation": 0.7,
    "target_highpass_hz": 100.0,
    "target_pause_db": -20.0,
    "coloured_noise": 0.7,
    "hum": 0.7,
    "clicks": 0.7,
    "band_limit": 0.7,
    "high_cut_hz": (1000.0, 3000.0),
    "low_pass": 0.7,
    "low_pass_hz": (1000.0, 2500.0),
    "clipping": 0.7,
    "masking": 0.7,
}
RANGES: dict[str, Any] = {
    "snr_db": (-5.0, 20.0),
    "second_noise": 0.3,
    "third_noise": 0.0,
    "level_dbfs": (-45.0, -12.0),
}
ALL = Augmentation(**{**RANGES, "third_noise": 0.5}, **NEW)
CUTOFFS = ("high_cut_hz", "low_pass_hz")
BOTH = ("speed", "level_change", "band_limit", "low_pass", "whisper")
INPUT_ONLY = ("clipping", "masking")
TARGET_ONLY = ("target_highpass_hz", "target_pause_db")
MORE_IN_THE_INPUT = ("reverberation", *TARGET_ONLY, "coloured_noise", "hum", "clicks")


@pytest.fixture
def speech_and_noise(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch of each; every row has a level of its own."""
    sounds = rng.normal(size=(2, BATCH, LENGTH)) * rng.uniform(0.02, 0.2, (2, BATCH, 1))
    return tuple(sounds.astype(np.float32))


def decibels(signal: np.ndarray) -> np.ndarray:
    return 20 * np.log10(np.std(signal, axis=1, dtype=float))


def unit(signal: np.ndarray) -> np.ndarray:
    return signal / np.sqrt(np.mean(np.square(signal), axis=1, keepdims=True))


def augmented(
    noisy: np.ndarray, clean: np.ndarray, settings: Augmentation, seed: Any = SEED
) -> tuple[np.ndarray, np.ndarray]:
    chain = Chain(settings, RATE)
    draws = chain.draw(len(noisy), LENGTH, np.random.default_rng(seed))
    changed = chain.apply(clean, noisy - clean, draws)
    return np.asarray(changed[0]), np.asarray(changed[1])


def only(**fields: Any) -> Augmentation:
    return OFF.model_copy(update={"low_pass_hz": NEW["low_pass_hz"], **fields})


ALONE = [
    only(remix=True),
    only(equalization_db=12.0),
    only(level_dbfs=(-30.0, -20.0)),
    *[only(**{name: value}) for name, value in NEW.items() if name not in CUTOFFS],
]


@pytest.mark.parametrize(
    "settings",
    [
        Augmentation(**RANGES),
        Augmentation(
            **{**RANGES, "second_noise": 1.0, "third_noise": 0.5},
            clean_only=0.3,
            noise_only=0.3,
        ),
        *[pytest.param(settings, marks=pytest.mark.slow) for settings in ALONE],
        ALL,
    ],
)
def test_the_result_depends_on_the_seed_alone(
    settings: Augmentation, speech_and_noise: tuple[np.ndarray, np.ndarray]
) -> None:
    speech, noise = speech_and_noise
    noisy = speech + noise
    chain = Chain(settings, RATE)
    program = compiled(chain.apply)

    def augment(seed: Any) -> list[np.ndarray]:
        draws = chain.draw(BATCH, LENGTH, np.random.default_rng(seed))
        return [np.asarray(part) for part in program(speech, noise, draws)]

    once, again, other = augment(SEED), augment(SEED), augment([3, 5])
    for part, same in zip(once, again, strict=True):
        assert part.shape == (BATCH, LENGTH)
        assert part.dtype == np.float32
        np.testing.assert_array_equal(part, same)
        assert np.isfinite(part).all()
    draws_nothing = any(getattr(settings, name) is not None for name in TARGET_ONLY)
    if settings == ALL or not draws_nothing:
        assert np.abs(once[0] - other[0]).max() > 1e-3
    eager = augmented(noisy, speech, settings)
    np.testing.assert_allclose(eager[0], once[0], atol=1e-4)
    np.testing.assert_allclose(eager[1], once[1], atol=1e-4)


def test_no_augmentation_changes_nothing(speech_and_noise: tuple[np.ndarray, np.ndarray]) -> None:
    speech, noise = speech_and_noise
    noisy, clean = augmented(speech + noise, speech, OFF)
    np.testing.assert_array_equal(clean, speech)
    np.testing.assert_allclose(noisy, speech + noise, atol=1e-7)


@pytest.mark.parametrize("name", [*INPUT_ONLY, *MORE_IN_THE_INPUT, *BOTH])
def test_which_augmentations_change_the_target(
    name: str, speech_and_noise: tuple[np.ndarray, np.ndarray]
) -> None:
    speech = speech_and_noise[0].copy()
    speech[:, : LENGTH // 2] *= 0.01  # a pause
    settings = only(**{name: NEW[name] if name in TARGET_ONLY else 1.0})
    settings = settings.model_copy(update={name: NEW[name] for name in CUTOFFS})
    noisy, clean = augmented(speech, speech, settings)  # without noise
    difference = np.abs(noisy - clean).max(axis=1)
    if name in BOTH:
        assert (difference < 1e-6).all()
        assert (np.abs(clean - speech).max(axis=1) > 1e-3).all()
    else:
        assert np.median(difference) > 1e-6  # an example may have no click
    if name not in (*BOTH, *TARGET_ONLY, "reverberation"):
        np.testing.assert_array_equal(clean, speech)
    if name in TARGET_ONLY:
        np.testing.assert_array_equal(noisy, speech)


def test_remix_within_a_batch(speech_and_noise: tuple[np.ndarray, np.ndarray]) -> None:
    speech, noise = speech_and_noise
    settings = only(remix=True, snr_db=(3.0, 3.0), second_noise=0.0, clean_only=0.0, noise_only=0.0)
    noisy, clean = augmented(speech + noise, speech, settings)
    np.testing.assert_array_equal(clean, speech)
    difference = noisy - clean
    np.testing.assert_allclose(decibels(clean) - decibels(difference), 3, atol=1e-3)
    similarity = unit(difference) @ unit(noise).T / LENGTH
    assert sorted(similarity.argmax(axis=1)) == list(range(BATCH))
    np.testing.assert_allclose(similarity.max(axis=1), 1, atol=1e-4)


@pytest.mark.parametrize("which", ["clean_only", "noise_only"])
def test_examples_of_speech_or_noise_alone(
    which: str, speech_and_noise: tuple[np.ndarray, np.ndarray]
) -> None:
    speech, noise = speech_and_noise
    settings = Augmentation(**{**RANGES, "clean_only": 0.0, "noise_only": 0.0, which: 1.0})
    noisy, clean = augmented(speech + noise, speech, settings)
    if which == "clean_only":
        np.testing.assert_array_equal(noisy, clean)
    else:
        assert (clean == 0).all()
    levels = decibels(noisy)
    assert ((levels > -45.1) & (levels < -11.9)).all()


def test_without_speech_the_target_is_silent(
    speech_and_noise: tuple[np.ndarray, np.ndarray],
) -> None:
    speech, noise = speech_and_noise
    settings = ALL.model_copy(update={"noise_only": 1.0, "clean_only": 0.0})
    noisy, clean = augmented(speech + noise, speech, settings)
    assert (clean == 0).all()
    assert (decibels(noisy) > -60).all()


@pytest.mark.parametrize("settings", [Augmentation(**RANGES), ALL])
@pytest.mark.parametrize("silent", ["speech", "noise", "both"])
def test_silence(
    settings: Augmentation, silent: str, speech_and_noise: tuple[np.ndarray, np.ndarray]
) -> None:
    speech, noise = speech_and_noise
    speech = speech * (silent == "noise")
    noise = noise * (silent == "speech")
    noisy, clean = augmented(speech + noise, speech, settings)
    assert np.isfinite(noisy).all()
    assert np.isfinite(clean).all()
    assert np.abs(noisy).max() <= 1.5  # a filter may pass the peak of a clipped signal
    if silent != "noise":
        assert (clean == 0).all()
    if silent == "both" and settings != ALL:
        assert (noisy == 0).all()


def test_one_example() -> None:
    silence = np.zeros((1, LENGTH), np.float32)
    for number in range(2):  # most of which change no row with some augmentation
        noisy, clean = augmented(silence, silence, ALL, [number, 0])
        assert noisy.shape == clean.shape == (1, LENGTH)


def test_ranges_left_to_the_dataset_are_refused(
    speech_and_noise: tuple[np.ndarray, np.ndarray],
) -> None:
    with pytest.raises(ValueError, match="leaves a range to the dataset"):
        augmented(*speech_and_noise, Augmentation())


@pytest.mark.parametrize(("dbfs", "softer"), [(-26, 0), (-79, 0), (-100, 20), (-180, 100)])
def test_nearly_silent_noise_is_not_raised_to_the_level_of_speech(
    dbfs: int, softer: int, rng: np.random.Generator
) -> None:
    speech = 0.05 * unit(rng.standard_normal((BATCH, LENGTH))).astype(np.float32)
    noise = np.float32(10 ** (dbfs / 20)) * unit(rng.standard_normal((BATCH, LENGTH)))
    remix = Remix((0.0, 0.0))
    _, found = remix.apply(speech, noise.astype(np.float32), remix.draw(BATCH, rng))
    np.testing.assert_allclose(decibels(speech) - decibels(np.asarray(found)), softer, atol=0.1)
