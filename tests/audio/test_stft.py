import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from denoisecli.audio.stft import istft, stft, window_vector
from denoisecli.errors import AudioError, UsageError

RATE = 16000


def noise_of(length: int, level: float = 0.1) -> np.ndarray:
    generator = np.random.default_rng(length)
    return (level * generator.standard_normal(length)).astype(np.float32)


@pytest.mark.parametrize(
    ("window", "n_fft", "hop_length", "length"),
    [
        *(
            ("hann", *sizes, length)
            for sizes in ((512, 256), (512, 128), (1024, 333), (64, 64))
            for length in (1, 63, 512, 1000, 16001)
        ),
        *((window, 512, 128, 1000) for window in ("hamming", "sqrt_hann", "blackman", "boxcar")),
        *((window, 64, 64, 1000) for window in ("sqrt_hann", "blackman", "boxcar")),
    ],
)
def test_equals_librosa(window: str, n_fft: int, hop_length: int, length: int) -> None:
    sound = noise_of(length)
    taper = np.sqrt(librosa.filters.get_window("hann", n_fft)) if window == "sqrt_hann" else window
    settings = {"n_fft": n_fft, "hop_length": hop_length}
    ours = stft(sound, window=window, **settings)
    # Padding by hand is what librosa does itself, less its warning about short sounds.
    padded = np.pad(sound, n_fft // 2)
    theirs = librosa.stft(padded, window=taper, center=False, **settings)
    assert ours.dtype == np.complex64
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(np.abs(theirs).max(), 1))
    np.testing.assert_array_equal(ours, stft(padded, window=window, center=False, **settings))

    changed = ours * np.random.default_rng(1).uniform(size=ours.shape).astype(np.float32)
    if window in ("hann", "blackman", "sqrt_hann") and hop_length == n_fft:
        with pytest.raises(UsageError, match="cannot be inverted"):
            istft(changed, window=window, length=length, **settings)
        return
    theirs = librosa.istft(changed, window=taper, length=length, **settings)
    ours = istft(changed, window=window, length=length, **settings)
    assert ours.dtype == np.float32
    # The last samples may hang on the tail of one window, where librosa's rounding differs too.
    safe = (length // hop_length) * hop_length
    np.testing.assert_allclose(ours[:safe], theirs[:safe], atol=1e-5)
    assert ours.shape == theirs.shape


def test_centred_frames_are_librosas() -> None:
    sound = noise_of(RATE + 1)
    theirs = librosa.stft(sound, n_fft=512, hop_length=128)
    np.testing.assert_allclose(
        stft(sound, n_fft=512, hop_length=128, window="hann"), theirs, atol=1e-5
    )


@given(st.integers(1, 3000), st.sampled_from([(512, 128), (256, 64), (128, 30), (512, 100)]))
@settings(deadline=None)
def test_istft_inverts_stft(length: int, sizes: tuple[int, int]) -> None:
    n_fft, hop_length = sizes
    sound = noise_of(length)
    for window in ("hann", "sqrt_hann", "hamming"):
        spectrum = stft(sound, n_fft=n_fft, hop_length=hop_length, window=window)
        again = istft(spectrum, n_fft=n_fft, hop_length=hop_length, window=window, length=length)
        np.testing.assert_allclose(again, sound, atol=1e-5)


@given(st.integers(1, 3000))
@settings(deadline=None)
def test_half_overlap_inverts_too(length: int) -> None:
    sound = noise_of(length)
    np.testing.assert_allclose(istft(stft(sound), length=length), sound, atol=1e-5)


def test_istft_pads_to_a_longer_length() -> None:
    sound = noise_of(1000)
    longer = istft(stft(sound), length=5000)
    np.testing.assert_allclose(longer[:1000], sound, atol=1e-5)
    assert longer.shape == (5000,)
    assert not longer[2000:].any()


def test_double_precision_is_taken_too() -> None:
    sound = noise_of(1000).astype(np.float64)
    assert stft(sound).dtype == np.complex64
    np.testing.assert_allclose(istft(stft(sound).astype(complex), length=1000), sound, atol=1e-5)


@pytest.mark.parametrize("n_fft", [2, 16, 512])
def test_windows_are_periodic(n_fft: int) -> None:
    hann = window_vector("hann", n_fft)
    np.testing.assert_allclose(hann, librosa.filters.get_window("hann", n_fft), atol=1e-7)
    np.testing.assert_allclose(window_vector("sqrt_hann", n_fft) ** 2, hann, atol=1e-6)
    with pytest.raises(ValueError, match="read-only"):
        hann[0] = 1


def test_istft_refuses_what_does_not_fit() -> None:
    with pytest.raises(UsageError, match="257 rows does not come from n_fft 1024"):
        istft(stft(noise_of(1000)), n_fft=1024, hop_length=256, window="hann", length=1000)
    with pytest.raises(UsageError, match="gaps between the windows; use a hop_length of 128"):
        istft(stft(noise_of(1000)), hop_length=600, window="hann", length=1000)


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(AudioError, match="too few"):
        stft(noise_of(0))
    with pytest.raises(AudioError, match="511 samples are too few"):
        stft(noise_of(511), center=False)
