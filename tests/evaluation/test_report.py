"""The report, read by an HTML parser; browser_report.py opens it in a browser."""

import base64
import io
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from denoisecli.errors import DenoiseError, UsageError
from denoisecli.evaluation import report
from denoisecli.evaluation.pairs import Pair
from denoisecli.evaluation.report import check_report, choose, scatter, write_report
from denoisecli.evaluation.scores import Evaluation

VOID = {"meta", "link", "input", "img", "br", "path", "polygon"}


class Page(HTMLParser):
    """The elements of the page; raises if they are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.text.setdefault(self.open[-1], []).append(" ".join(data.split()))

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and wanted.items() <= attributes.items()
        ]


def written(
    folder: Path, result: Evaluation, pairs: list[Pair], **options: int
) -> tuple[str, Page]:
    output = folder / "report.html"
    write_report(result, pairs, output, overwrite=True, **options)
    text = output.read_text()
    return text, Page(text)


def test_the_page_is_self_contained(tmp_path, make_evaluation):
    result, pairs = make_evaluation(tmp_path, {f"file {i}": float(i) for i in range(12)})
    text, page = written(tmp_path, result, pairs)
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in page.all("meta")[3]["content"]
    identifiers = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in page.elements:
        labelled = attributes.get("aria-labelledby") or attributes.get("href", "#recordings")
        assert labelled.lstrip("#") in [*identifiers, "data:,"]
    for image in page.all("img"):
        assert image["alt"]
    assert {tag for tag, _ in page.elements} >= {"main", "header", "footer", "h1", "h2", "h3"}
    assert len(text) < 2**20


def test_the_script_finds_its_elements(tmp_path, make_evaluation):
    """All its selectors match, because a renamed class would break it silently."""
    result, pairs = make_evaluation(tmp_path, {"a": 3.0, "b": 2.0}, others=("old",))
    text, page = written(tmp_path, result, pairs)
    script = text.partition("<script>")[2]
    classes = {name for _, a in page.elements for name in (a.get("class") or "").split()}
    identifiers = {a.get("id") for _, a in page.elements}
    selectors = re.findall(r'querySelector(?:All)?\("([^"]+)"\)', script)
    assert len(selectors) > 8
    assert set(re.findall(r"\.([a-z]+)", " ".join(selectors))) <= classes
    assert set(re.findall(r'getElementById\("([^"]+)"\)', script)) <= identifiers
    assert re.findall(r"\[data-([a-z]+)\]", " ".join(selectors)) == ["zoom"]
    assert len(page.all("button", **{"data-zoom": "2"})) == len(pairs)
    recordings = page.all("details", **{"class": "recording"})
    assert [float(recording["data-seconds"]) for recording in recordings] == [1.0, 1.0]


def test_sounds_can_be_decoded_and_are_the_right_ones(tmp_path, make_evaluation):
    result, pairs = make_evaluation(tmp_path, {"a": 3.0})
    _, page = written(tmp_path, result, pairs)
    sounds = {}
    for audio in page.all("audio"):
        content = base64.b64decode(audio["src"].removeprefix("data:audio/ogg;base64,"))
        sounds[audio["aria-label"]] = soundfile.read(io.BytesIO(content))[0]
    assert list(sounds) == ["Noisy", "Cleaned", "Removed", "Clean"]
    spectra = {name: np.abs(np.fft.rfft(sound)) for name, sound in sounds.items()}
    for name, tones in {
        "Noisy": (True, True), "Cleaned": (True, False), "Removed": (False, True),
        "Clean": (True, False),
    }.items():  # fmt: skip
        heard = tuple(bool(spectra[name][hertz] > 500) for hertz in (440, 3000))
        assert heard == tones, name


def test_several_estimators(tmp_path, make_evaluation):
    result, pairs = make_evaluation(tmp_path, {"a": 3.0, "b": 1.0}, others=("old", "older"))
    _, page = written(tmp_path, result, pairs)
    assert [audio["aria-label"] for audio in page.all("audio")][:6] == [
        "Noisy", "Cleaned by mine", "Removed by mine", "Cleaned by old", "Cleaned by older", "Clean"
    ]  # fmt: skip
    assert page.text["option"] == ["all", "mine", "old", "older"]
    assert len(page.all("tr", **{"data-estimator": "old"})) == 2


def test_delays_do_not_show_in_the_removed_sound(tmp_path, make_evaluation):
    result, pairs = make_evaluation(tmp_path, {"a": 3.0})
    sound, rate = soundfile.read(pairs[0].noisy)
    late = tmp_path / "late.wav"
    soundfile.write(late, np.r_[np.zeros(480), sound], rate)
    result.files["mine"]["a"] = late
    score = next(score for score in result.scores if score.estimator == "mine")
    object.__setattr__(score, "delay_seconds", 0.03)
    _, page = written(tmp_path, result, pairs)
    removed = page.all("audio")[2]["src"].removeprefix("data:audio/ogg;base64,")
    assert np.abs(soundfile.read(io.BytesIO(base64.b64decode(removed)))[0]).max() < 0.01


def test_names_cannot_break_the_page(tmp_path, make_evaluation, nasty_name):
    result, pairs = make_evaluation(
        tmp_path, {nasty_name: 3.0, "b": 2.0}, others=(nasty_name[:30],)
    )
    object.__setattr__(result.scores[0], "error", "<b>broken</b>")
    text, page = written(tmp_path, result, pairs)
    assert len(page.all("script")) == 1
    assert not page.all("b", style="")
    assert "49" not in page.text["th"]
    assert nasty_name in page.text["th"]
    assert nasty_name in page.text["span"]
    assert text.count("<script>") == 1


def test_least_typical_and_most_gained(tmp_path, make_evaluation):
    gains = {f"f{i}": float(i) for i in (4, 8, 0, 2, 6, 5, 1, 7, 3)}
    result, _ = make_evaluation(tmp_path, {**gains, "broken": math.nan})
    assert choose(result, 6) == [
        ("Smallest gain in SI-SDR", ["f0", "f1"]),
        ("Typical gain in SI-SDR", ["f3", "f4"]),
        ("Largest gain in SI-SDR", ["f8", "f7"]),
    ]
    assert [len(names) for _, names in choose(result, 1)] == [1]
    assert [len(names) for _, names in choose(result, 2)] == [1, 1]
    ((heading, everything),) = choose(result, 9)
    assert heading.startswith("All recordings")
    assert everything == sorted(gains)
    assert choose(result, 0) == []


def test_a_distance_gains_by_decreasing(tmp_path, make_evaluation):
    result, _ = make_evaluation(tmp_path, {"a": 1.0, "b": 2.0})
    result = Evaluation(["lsd"], result.costs, result.scores, files=result.files)
    assert result.ranking == "lsd"
    assert report.best_means(result) == {"lsd": "mine"}
    assert [heading for heading, _ in choose(result, 1)] == ["Smallest gain in LSD"]


def test_number_of_recordings_with_sound(tmp_path, make_evaluation):
    result, pairs = make_evaluation(tmp_path, {f"f{i}": float(i) for i in range(4)})
    for files, shown in ((0, 0), (2, 2), (100, 4)):
        _, page = written(tmp_path, result, pairs, files=files)
        assert len(page.all("audio")) == 4 * shown
        assert len(page.all("tr", **{"data-estimator": "mine"})) == 4  # the table has them all


@pytest.mark.slow
def test_the_middle_of_a_long_recording_is_shown(tmp_path, make_evaluation):
    result, pairs = make_evaluation(tmp_path, {"long": 1.0}, seconds=14.0)
    text, page = written(tmp_path, result, pairs)
    assert page.all("details", **{"data-seconds": "10.0", "data-start": "2.0"})
    assert "from 2.0 to 12.0 s of 14.0 s" in text


def test_failures_are_shown_and_counted(tmp_path, make_evaluation):
    result, pairs = make_evaluation(tmp_path, {"good": 1.0, "bad": 2.0}, others=("old",))
    for score in result.scores:
        if (score.file, score.estimator) in {("bad", "old")}:
            object.__setattr__(score, "error", "it crashed")
            score.values.update(si_sdr=math.nan, lsd=math.nan)
            del result.files["old"]["bad"]
    _, page = written(tmp_path, result, pairs)
    assert page.text["li"].count(": bad: it crashed") == 1
    assert "1 failed" in page.text["small"]
    assert page.text["td"].count(report.MISSING) >= 4
    assert "old: it crashed" in page.text["p"]


def test_a_page_without_any_valid_score(tmp_path, make_evaluation):
    result, pairs = make_evaluation(tmp_path, {"a": math.nan})
    for score in result.scores:
        score.values["si_sdr"] = math.nan
    _, page = written(tmp_path, result, pairs)
    assert not page.all("audio")


def test_scatter_has_the_same_scale_on_both_axes(tmp_path, make_evaluation):
    result, _ = make_evaluation(tmp_path, {"a": 0.0, "b": 10.0, "c": math.nan})
    drawn = scatter(result)
    assert [point.file for point in drawn.points] == ["a", "b"]
    unchanged, better = drawn.points
    assert unchanged.x == unchanged.y
    assert better.y > better.x
    at = dict(drawn.ticks)
    assert (at["0"], at["5"], at["15"]) == (unchanged.x, better.x, better.y)
    assert min(at.values()) == 0
    assert max(at.values()) == drawn.size


@pytest.mark.parametrize("values", [[], [3.0], [0.61, 0.93], [-7.0, 28.0], [1.1, 1.1]])
def test_ticks_hold_all_values(values):
    ticks = report._ticks(values)
    assert ticks == sorted(ticks)
    assert ticks[0] < ticks[-1]  # the ends of an axis
    assert 2 <= len(ticks) <= 9
    assert all(ticks[0] <= value <= ticks[-1] for value in values)


def test_figures_are_typeset():
    assert report.figure(-0.004, 2) == "0.00"
    assert report.figure(-1.5, 1) == "\N{MINUS SIGN}1.5"
    assert report.figure(math.nan, 2) == report.signed(math.nan, 2) == "\N{EN DASH}"
    assert report.signed(2.0, 1) == "+2.0"


def test_wrong_use(tmp_path, monkeypatch, make_evaluation):
    result, pairs = make_evaluation(tmp_path, {"a": 1.0})
    with pytest.raises(UsageError, match=r"must have the suffix \.html"):
        check_report(tmp_path / "report.pdf")
    (tmp_path / "there.html").touch()
    with pytest.raises(UsageError, match="already exists"):
        write_report(result, pairs, tmp_path / "there.html")
    alone = Evaluation(["lsd"], {"input": result.costs["input"]}, result.scores[:1])
    with pytest.raises(UsageError, match="needs an estimator to compare"):
        write_report(alone, pairs, tmp_path / "new.html")
    (tmp_path / "file").touch()
    with pytest.raises(DenoiseError, match="cannot write"):
        write_report(result, pairs, tmp_path / "file" / "new.html")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UsageError, match=r"jinja2.*: pip install \"denoisecli\[metrics\]\""):
        check_report(tmp_path / "new.html")
