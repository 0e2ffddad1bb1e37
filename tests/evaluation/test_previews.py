import base64
import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from denoisecli.evaluation import previews
from denoisecli.evaluation.previews import (
    ROWS,
    ceiling,
    excerpt,
    levels,
    opus,
    outline,
    playable_rate,
)


def content(uri: str, kind: str) -> io.BytesIO:
    head, _, data = uri.partition(",")
    assert head == f"data:{kind};base64"
    return io.BytesIO(base64.b64decode(data, validate=True))


def sine(frequency, seconds, sample_rate, amplitude=0.5):
    return amplitude * np.sin(
        2 * np.pi * frequency * np.arange(seconds * sample_rate) / sample_rate
    )


def test_opus_sounds_like_the_original_and_is_small(speech, noise):
    sound = speech(4.0, 16000) + noise(4.0, 16000)
    uri = opus(sound, 16000)
    assert len(uri) < 4 * 80_000 / 8 * 4 / 3  # at most 80 kbit/s, as base64
    decoded, rate = soundfile.read(content(uri, "audio/ogg"))
    assert (rate, decoded.shape) == (16000, sound.shape)
    assert np.corrcoef(decoded, sound)[0, 1] > 0.95


def test_opus_beyond_full_scale_is_clipped():
    decoded, _ = soundfile.read(content(opus(sine(500, 1, 48000, 3.0), 48000), "audio/ogg"))
    assert 0.9 < np.abs(decoded).max() < 1.3


@pytest.mark.parametrize(
    ("own", "playable"), [(8000, 8000), (11025, 12000), (16000, 16000), (44100, 48000)]
)
def test_playable_rate(own, playable):
    assert playable_rate(own) == playable
    assert playable_rate(96000) == 48000


@pytest.mark.parametrize("sample_rate", [8000, 16000, 48000])
def test_levels_are_at_their_frequency(sample_rate):
    matrix = levels(sine(sample_rate / 8, 1, sample_rate), sample_rate)
    assert matrix.shape[0] == ROWS
    assert matrix.shape[1] == pytest.approx(125, abs=2)  # every 8 ms
    assert matrix[:, 60].argmax() == pytest.approx(ROWS / 4, abs=1)
    assert -15 < matrix[:, 60].max() < -5  # half of full scale is -6 dBFS; bins are averaged


def test_ceiling_is_hardly_exceeded(rng):
    sound = 0.1 * rng.standard_normal(16000)
    matrix = levels(sound, 16000)
    assert np.mean(matrix > ceiling(matrix)) < 0.01
    assert ceiling(matrix) % 5 == 0
    assert ceiling(levels(np.zeros(16000), 16000)) == 0


def test_picture_of_a_rising_tone():
    """It is bright from the lower left to the upper right, and black elsewhere."""
    time = np.arange(32000) / 16000
    matrix = levels(0.5 * np.sin(2 * np.pi * 2000 * time**2), 16000)  # 0 to 8 kHz in 2 s
    uri = previews.spectrogram_image(matrix, ceiling(matrix))
    picture = Image.open(content(uri, "image/webp"))
    assert picture.size == (matrix.shape[1], ROWS)
    brightness = np.asarray(picture.convert("L")).astype(float)
    for share in (0.25, 0.5, 0.75):
        column = brightness[:, round(share * picture.width)]
        assert column.argmax() == pytest.approx((1 - share) * ROWS, abs=8)
        assert np.median(column) < 5


def test_outline_is_around_the_waveform():
    sound = np.r_[np.zeros(3000), sine(400, 1, 3000, 0.25), [1.0], np.zeros(2999)]
    points = [tuple(map(int, point.split(","))) for point in outline(sound, 1.0).split()]
    top, bottom = points[: len(points) // 2], points[len(points) // 2 :][::-1]
    assert [x for x, _ in top] == [x for x, _ in bottom] == list(range(600))
    assert (top[100][1], bottom[100][1]) == (49, 51)  # silence is a thin line
    assert top[300][1] == pytest.approx(50 - 12, abs=2)
    assert bottom[300][1] == pytest.approx(50 + 12, abs=2)
    assert top[400][1] == 0  # the one sample at full scale is not lost
    assert outline(np.zeros(10), 0.0).count(" ") == 19  # fewer samples than columns


def test_excerpt():
    sound = np.arange(1000) / 1000
    np.testing.assert_array_equal(excerpt(sound, 100, 100, 2.0, 3.0), sound[200:300])
    late = excerpt(sound, 100, 100, -0.5, 0.5)
    np.testing.assert_array_equal(late, np.r_[np.zeros(50), sound[:50]])
    early = excerpt(sound, 100, 100, 9.5, 10.5)
    np.testing.assert_array_equal(early, np.r_[sound[950:], np.zeros(50)])
    assert excerpt(sound, 100, 250, 1.0, 3.1).shape == (525,)
    assert not excerpt(sound, 100, 100, 20.0, 21.0).any()
