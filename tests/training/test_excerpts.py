import numpy as np
import pytest

from denoisecli.training.excerpts import sample_excerpts


@pytest.mark.parametrize(
    ("total", "count", "chosen"),
    [(20, 4, [0, 6, 12, 19]), (3, 24, [0, 1, 2]), (7, 4, [0, 2, 4, 6]), (3, 1, [0])],
)
def test_evenly_spaced(total: int, count: int, chosen: list[int]) -> None:
    clips = np.arange(total, dtype=np.float32)[:, None] * np.ones((1, 5), np.float32)
    batches = [(clips[at : at + 3], -clips[at : at + 3]) for at in range(0, total, 3)]
    found = sample_excerpts(batches, count)
    np.testing.assert_array_equal(found.noisy, clips[chosen])
    np.testing.assert_array_equal(found.clean, -clips[chosen])
