from pathlib import Path

import numpy as np
import pytest

from denoisecli.evaluation import clusters as module
from denoisecli.evaluation.clusters import find_clusters, signature
from denoisecli.evaluation.pairs import Pair

RATE = 16000


def clusters(names, sounds=None, sources=None):
    """Return the clusters of pairs with these names, and clean sounds or sources."""
    pairs = [
        Pair(name, Path(name), Path(name), sources=() if sources is None else sources[index])
        for index, name in enumerate(names)
    ]
    signatures = [None if sounds is None else signature(sounds[i], RATE) for i in range(len(names))]
    return list(find_clusters(pairs, [RATE] * len(names), signatures).values())


def test_the_sources_of_a_dataset_decide():
    """A joined clip connects its recordings."""
    sources = [("a",), ("b",), ("a",), ("c", "b"), ("d",)]
    assert clusters(list("12345"), sources=sources) == ["1", "2", "1", "2", "5"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["v01_00dB", "v01_05dB", "v02_00dB"], ["v01_00dB", "v01_00dB", "v02_00dB"]),
        (["x-snr-5dB", "x_snr+10 db", "x-2.5dB"], ["x-snr-5dB"] * 3),
        (["p232_001", "p232_002"], ["p232_001", "p232_002"]),
        (["0dB", "5dB"], ["0dB", "5dB"]),
    ],
)
def test_names_that_differ_in_the_snr_belong_together(names, expected):
    assert clusters(names) == expected


def test_signals_of_equal_content_belong_together(speech, noise):
    """At another level, inverted, and with inaudible noise; not its reverse."""
    sound = speech(2.0, RATE)
    sounds = [sound, noise(2.0, RATE), -0.2 * sound, sound + 1e-4 * noise(2.0, RATE), sound[::-1]]
    assert clusters(list("abcde"), sounds) == ["a", "b", "a", "a", "e"]


def test_noises_of_equal_spectrum_do_not_belong_together(noise):
    """Two recordings of the same rain."""
    assert clusters(["a", "b"], [noise(2.0, RATE), noise(2.0, RATE)]) == ["a", "b"]


def test_sounds_without_a_signature(speech):
    assert signature(np.zeros(RATE, np.float32), RATE) is None
    assert signature(speech(0.05, RATE), RATE) is None
    assert signature(speech(1.0, 100), 100) is None
    assert clusters(["a", "b"], [np.zeros(RATE, np.float32)] * 2) == ["a", "b"]


def test_many_recordings(rng, monkeypatch):
    """The matrix of correlations is computed in blocks."""
    monkeypatch.setattr("denoisecli.evaluation.clusters._BLOCK", 2)
    sounds = [rng.standard_normal(RATE).astype(np.float32) for _ in range(4)]
    found = clusters(list("abcdefgh"), [*sounds, *sounds])
    assert found == list("abcdabcd")


def test_signatures_are_linked_through_others(rng):
    """A and B, B and C correlate, but A and C do not; the order does not matter."""
    a, c, alone = np.linalg.qr(rng.standard_normal((400, 3)))[0].T.astype(np.float32)
    b = (a + c) / np.float32(np.sqrt(2))
    for order in ([a, b, c, alone], [a, c, alone, b], [c, alone, a, b]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "CORRELATION", 0.7)
            labels = module._correlated(order)
        groups = [labels[i] for i, row in enumerate(order) if row is not alone]
        (other,) = (labels[i] for i, row in enumerate(order) if row is alone)
        assert len(set(groups)) == 1
        assert other not in groups
