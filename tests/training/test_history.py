from pathlib import Path

import matplotlib.image
import pytest

from denoisecli.training.history import plot_history

ROW = {"loss": 0.5, "si_sdr_improvement": 3.0, "val_loss": 0.4, "val_si_sdr_improvement": 4.0}
SCORED = {**ROW, "val_pesq": 1.5, "val_estoi": 0.6}


@pytest.mark.parametrize(
    ("rows", "panels"), [([ROW], 2), ([ROW] * 60, 2), ([ROW, SCORED, ROW, SCORED], 4)]
)
def test_a_panel_for_each_figure(rows: list[dict[str, float]], panels: int, tmp_path: Path) -> None:
    history = [{"audio_hours": 0.5 * number, **row} for number, row in enumerate(rows)]
    plot_history(history, tmp_path / "curves.png")
    height, width, _ = matplotlib.image.imread(tmp_path / "curves.png").shape
    assert (width, height) == (panels * 540, 432)
