from pathlib import Path

import pytest
from matplotlib.image import imread

from denoisecli.errors import DenoiseError
from denoisecli.training.history import (
    Row,
    history_figure,
    is_better,
    plot_history,
    read_history,
    write_history,
)

ROWS: list[Row] = [
    {"epoch": 1, "minutes": 0.5, "audio_hours": 0.1, "val_loss": 0.4},
    {"epoch": 2, "minutes": 1.0, "audio_hours": 0.2, "val_loss": 0.3, "val_pesq": 1.5},
]
FIGURES = {"loss": 0.5, "si_sdr_improvement": 3.0, "val_loss": 0.4, "val_si_sdr_improvement": 4.0}
SCORED = {**FIGURES, "val_pesq": 1.5, "val_estoi": 0.6}


def test_history_file(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    assert read_history(path) == []
    write_history(ROWS, path)
    assert read_history(path) == ROWS
    assert path.read_text().splitlines() == [
        "epoch,minutes,audio_hours,val_loss,val_pesq",
        "1,0.5,0.1,0.4,",
        "2,1.0,0.2,0.3,1.5",
    ]
    for text in ("epoch,minutes\n1,half\n", "epoch\n1,2,3\n", "epoch,minutes\n1\n"):
        path.write_text(text)
        message = r"history\.csv is not the history of a training run"
        with pytest.raises(DenoiseError, match=message):
            read_history(path)


def test_is_better() -> None:
    assert is_better("val_loss", 1.0, None)
    assert is_better("val_loss", 1.0, 2.0)
    assert not is_better("val_pesq", 1.0, 2.0)
    assert is_better("val_pesq", 2.0, 1.0)
    assert not is_better("val_loss", 1.0, 1.0)


@pytest.mark.parametrize(
    ("rows", "titles"),
    [
        ([FIGURES], ["Loss", "SI-SDR improvement (dB)"]),
        ([FIGURES] * 60, ["Loss", "SI-SDR improvement (dB)"]),
        (
            [FIGURES, SCORED, FIGURES, SCORED],
            ["Loss", "SI-SDR improvement (dB)", "PESQ", "ESTOI"],
        ),
    ],
)
def test_curves_have_a_panel_for_each_figure(rows: list[Row], titles: list[str]) -> None:
    history: list[Row] = [{"audio_hours": 0.5 * number, **row} for number, row in enumerate(rows)]
    figure = history_figure(history)
    assert [axes.get_title(loc="left") for axes in figure.axes] == titles
    assert {axes.get_xlabel() for axes in figure.axes} == {"Audio (hours)"}
    names = ["loss", "si_sdr_improvement", "pesq", "estoi"]
    for name, axes in zip(names, figure.axes, strict=False):
        curves = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
        expected = {
            label: [[row["audio_hours"], row[key]] for row in history if key in row]
            for label, key in (("training, augmented", name), ("validation", f"val_{name}"))
        }
        assert curves == {label: points for label, points in expected.items() if points}
        assert [text.get_text() for text in axes.get_legend().get_texts()] == list(curves)


def test_curves_are_written_as_png(tmp_path: Path) -> None:
    plot_history([{"audio_hours": 0.5, **FIGURES}], tmp_path / "curves.png")
    assert imread(tmp_path / "curves.png").ndim == 3
