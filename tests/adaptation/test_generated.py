import numpy as np

from denoisecli.adaptation.generated import generated_noise
from denoisecli.datasets import synthetic_noise

RATE = 16000


def test_every_fourth_piece_is_a_babble_and_the_others_are_of_every_kind(monkeypatch):
    drawn = []
    synthesize = synthetic_noise.synthesize

    def spy(kind, *args):
        drawn.append(kind)
        return synthesize(kind, *args)

    monkeypatch.setattr(synthetic_noise, "synthesize", spy)
    speech = np.sin(2 * np.pi * 300 / RATE * np.arange(3 * RATE)).astype(np.float32)
    found, again, other = (
        generated_noise(24, 8001, RATE, speech, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert sorted(drawn[:18]) == sorted(synthetic_noise.KINDS)
    for index, (piece, same, another) in enumerate(zip(found, again, other, strict=True)):
        assert piece.shape == (8001,)
        assert piece.any()
        np.testing.assert_array_equal(piece, same)
        assert not np.array_equal(piece, another)
        if index % 4 == 3:  # the voices are a tone of 300 Hz
            power = np.abs(np.fft.rfft(piece)) ** 2
            assert power[140:160].sum() > 0.95 * power.sum()
