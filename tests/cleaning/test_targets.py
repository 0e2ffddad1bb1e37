import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from denoisecli.cleaning import targets
from denoisecli.cleaning.targets import Job, Status, plan
from denoisecli.errors import UsageError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create files without content: a plan depends on names only."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "in/b.flac", "in/deep/c.MP3", "in/deep/d.mp4", "in/notes.txt", "e f.wav"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path


def pairs(*arguments: Any, **options: Any) -> list[tuple[str, str]]:
    return [(str(job.source), str(job.target)) for job in plan(*arguments, **options).jobs]


def test_one_file(tree: Path) -> None:
    assert plan(["a.wav"], "b.flac").jobs == [Job(Path("a.wav"), Path("b.flac"))]
    assert pairs(["a.wav"], "out") == [("a.wav", "out/a.wav")]
    assert pairs(["a.wav"], "out.d/") == [("a.wav", "out.d/a.wav")]
    assert pairs(["a.wav"], "in") == [("a.wav", "in/a.wav")]
    assert pairs(["in/deep/d.mp4"], "out") == [("in/deep/d.mp4", "out/d.wav")]
    with pytest.raises(UsageError, match=r"unknown audio format '\.xyz'"):
        plan(["a.wav"], "b.xyz")
    assert pairs(["in/deep/d.mp4"], "x.mp4") == [("in/deep/d.mp4", "x.mp4")]
    with pytest.raises(UsageError, match=r"\.avi files can be read but not written"):
        plan(["in/deep/d.mp4"], "x.avi")


def test_folders_are_mirrored(tree: Path) -> None:
    assert pairs(["in"], "out") == [
        ("in/b.flac", "out/b.flac"),
        ("in/deep/c.MP3", "out/deep/c.MP3"),
        ("in/deep/d.mp4", "out/deep/d.wav"),
    ]
    assert [target for _, target in pairs(["in"], "out", suffix=".ogg")] == [
        "out/b.ogg",
        "out/deep/c.ogg",
        "out/deep/d.ogg",
    ]
    with pytest.raises(UsageError, match=r"unknown audio format '\.xyz'"):
        plan(["in"], "out", suffix=".xyz")


def test_patterns(tree: Path) -> None:
    assert pairs(["*.wav"], "out") == [("a.wav", "out/a.wav"), ("e f.wav", "out/e f.wav")]
    assert pairs(["in/**/*.[mM]*"], "out") == [
        ("in/deep/c.MP3", "out/deep/c.MP3"),
        ("in/deep/d.mp4", "out/deep/d.wav"),
    ]
    with pytest.raises(UsageError, match=r"\*\.aiff matches no recordings"):
        plan(["*.aiff"], "out")


def test_several_inputs(tree: Path) -> None:
    assert pairs(["a.wav", "in/deep", "a.wav"], "out") == [
        ("a.wav", "out/a.wav"),
        ("in/deep/c.MP3", "out/c.MP3"),
        ("in/deep/d.mp4", "out/d.wav"),
    ]


def test_names_with_wildcards_in_them(tree: Path) -> None:
    Path("take [1].wav").touch()
    assert pairs(["take [1].wav"], "out") == [("take [1].wav", "out/take [1].wav")]
    Path("mic [a]").mkdir()
    Path("mic [a]/c.wav").touch()
    assert pairs(["mic [a]/*.wav"], "out") == [("mic [a]/c.wav", "out/c.wav")]


def test_links_that_lead_round_in_circles(tree: Path) -> None:
    Path("in/loop").symlink_to(tree / "in")
    assert pairs(["in/**/b.flac"], "out") == [("in/b.flac", "out/b.flac")]


def test_suffix(tree: Path) -> None:
    for suffix in ("flac", ".flac"):
        assert pairs(["a.wav"], "out", suffix=suffix) == [("a.wav", "out/a.flac")]
    assert pairs(["a.wav"], "b.flac", suffix=".flac") == [("a.wav", "b.flac")]
    with pytest.raises(UsageError, match=r"b\.wav already has a suffix; --suffix \.flac is for"):
        plan(["a.wav"], "b.wav", suffix=".flac")


def test_a_recording_is_only_ever_replaced_by_its_own_clean_sound(tree: Path) -> None:
    assert pairs(["a.wav"], "a.wav") == [("a.wav", "a.wav")]
    for arguments, options in (
        ((["a.wav"], "out.wav"), {"noise_output": "a.wav"}),
        ((["in"], "out"), {"noise_output": "in"}),
    ):
        with pytest.raises(UsageError, match="is one of the recordings; choose another output"):
            plan(*arguments, **options)


def test_output_among_the_inputs_is_left_out(tree: Path) -> None:
    Path("in/clean").mkdir()
    Path("in/clean/b.flac").touch()
    assert [source for source, _ in pairs(["in"], "in/clean")] == [
        "in/b.flac",
        "in/deep/c.MP3",
        "in/deep/d.mp4",
    ]
    assert pairs(["in/deep"], "in/deep")[0] == ("in/deep/c.MP3", "in/deep/c.MP3")


def test_noise_goes_beside(tree: Path) -> None:
    (job,) = plan(["a.wav"], "out/x.wav", noise_output="n.wav").jobs
    assert job.noise_target == Path("n.wav")
    (job,) = plan(["a.wav"], "out/x.wav", noise_output="noise").jobs
    assert job.noise_target == Path("noise/x.wav")
    jobs = plan(["in"], "out", noise_output="noise").jobs
    assert [str(job.noise_target) for job in jobs][1:] == ["noise/deep/c.MP3", "noise/deep/d.wav"]
    with pytest.raises(UsageError, match=r"n\.wav names a file"):
        plan(["in"], "out", noise_output="n.wav")


def test_refusals(tree: Path) -> None:
    with pytest.raises(UsageError, match="no recordings were given"):
        plan([], "out")
    with pytest.raises(UsageError, match="the name of a recording is empty"):
        plan([""], "out")
    os.mkfifo("pipe")
    with pytest.raises(UsageError, match="pipe is a pipe; give it as -"):
        plan(["pipe"], "out")
    with pytest.raises(UsageError, match="/ is the root of the file system"):
        plan(["/"], "out")
    with pytest.raises(UsageError, match=r"no\.wav does not exist"):
        plan(["no.wav"], "out")
    with pytest.raises(UsageError, match=r"a\.wav is a file, but the output for several"):
        plan(["in"], "a.wav")
    with pytest.raises(UsageError, match=r"out\.wav names a file"):
        plan(["a.wav", "e f.wav"], "out.wav")
    Path("in/a.wav").touch()
    with pytest.raises(
        UsageError, match=r"a\.wav and in/a\.wav would both be written to out/a\.wav"
    ):
        plan(["a.wav", "in"], "out")
    Path("empty").mkdir()
    with pytest.raises(UsageError, match="empty has no audio files"):
        plan(["empty"], "out")


class TestWithoutAnOutput:
    def test_a_file_goes_beside_its_input(self, tree: Path) -> None:
        assert pairs(["a.wav"]) == [("a.wav", "a.clean.wav")]
        assert pairs(["in/deep/c.MP3", "in/deep/d.mp4"]) == [
            ("in/deep/c.MP3", "in/deep/c.clean.MP3"),
            ("in/deep/d.mp4", "in/deep/d.clean.wav"),
        ]
        assert pairs(["*.wav"], suffix="flac") == [
            ("a.wav", "a.clean.flac"),
            ("e f.wav", "e f.clean.flac"),
        ]

    def test_a_folder_goes_beside_its_input(self, tree: Path) -> None:
        assert pairs(["in", "a.wav"]) == [
            ("in/b.flac", "in-clean/b.flac"),
            ("in/deep/c.MP3", "in-clean/deep/c.MP3"),
            ("in/deep/d.mp4", "in-clean/deep/d.wav"),
            ("a.wav", "a.clean.wav"),
        ]
        inside = tree.with_name(f"{tree.name}-clean")
        assert pairs(["."])[0] == ("a.wav", str(inside / "a.wav"))

    def test_the_output_of_an_earlier_call_is_left_out(self, tree: Path) -> None:
        Path("a.clean.wav").touch()
        planned = plan(["a.clean.wav", "a.wav"])
        assert [str(job.source) for job in planned.jobs] == ["a.wav"]
        assert planned.notes == ["left out, since an earlier call wrote them: a.clean.wav"]
        assert pairs(["a.clean.wav"]) == [("a.clean.wav", "a.clean.clean.wav")]

    @pytest.mark.parametrize("suffix", [None, ".flac", ".m4a"])
    def test_a_second_call_plans_what_the_first_did(self, tree: Path, suffix: str | None) -> None:
        for name in ("in/deep/c.m4a", "in/deep/c.wav", "in/deep/c.mov", "in/deep/d.flac"):
            Path(name).touch()
        inputs = ["in", "in/deep/*", "*.wav"]
        for chosen in (inputs[:1], inputs[1:]):
            first = plan(chosen, suffix=suffix).jobs
            for job in first:
                job.target.parent.mkdir(parents=True, exist_ok=True)
                job.target.touch()
            assert plan(chosen, suffix=suffix).jobs == first

    def test_noise_goes_to_a_file_or_a_folder(self, tree: Path) -> None:
        (job,) = plan(["a.wav"], noise_output="n.wav").jobs
        assert job == Job(Path("a.wav"), Path("a.clean.wav"), Path("n.wav"))
        (job,) = plan(["a.wav"], noise_output="noise").jobs
        assert job.noise_target == Path("noise/a.wav")


def test_other_files_in_a_folder_are_named(tree: Path) -> None:
    why = "left out, since they do not have the suffix of a recording"
    assert plan(["in"], "out").notes == [f"{why}: in/notes.txt"]
    assert plan(["in/deep", "a.wav"], "out").notes == []
    for name in ("1.jpg", "2.JPG", "LICENSE"):
        (Path("in") / name).touch()
    names = "in/1.jpg, in/2.JPG, in/LICENSE"
    rest = f"{names} and 1 more (2 .jpg, 1 .txt, 1 without suffix in all)"
    assert plan(["in"], "out").notes == [f"{why}: {rest}"]


def test_what_a_pattern_leaves_out_is_named(tree: Path) -> None:
    assert plan(["in/*"], "out").notes == [
        "left out, since they do not have the suffix of a recording: in/notes.txt",
        "left out, since a pattern matches files, not folders: in/deep",
    ]
    (note,) = plan(["in/**"], "out").notes
    assert note.endswith(": in/notes.txt")
    assert plan(["in/*.flac"], "out").notes == []


def test_dangling_links_and_unreadable_folders_are_named(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("in/gone.wav").symlink_to("nowhere.wav")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "deep" and access(path, mode))
    planned = plan(["in"], "out")
    assert planned.notes == [
        "left out, since they do not have the suffix of a recording: in/notes.txt",
        "left out, since they are broken links or special files: in/gone.wav",
    ]
    assert planned.unreadable == [Path("in/deep")]


@pytest.mark.parametrize("name", ["noext", "a.dat", "a.avi"])
def test_a_suffix_that_cannot_be_written_becomes_wav(tree: Path, name: str) -> None:
    Path(name).touch()
    assert pairs([name]) == [(name, f"{Path(name).stem}.clean.wav")]


def test_an_existing_output_that_is_no_folder(tree: Path) -> None:
    Path("text").touch()
    for output in ("/dev/null", "text"):
        with pytest.raises(UsageError, match="is neither a folder nor a file name with an audio"):
            plan(["a.wav"], output)


def test_status_of_a_job(tree: Path) -> None:
    job = Job(Path("a.wav"), Path("out.wav"), Path("noise.wav"))
    planned, skipped, failed = Status.PLANNED, Status.SKIPPED, Status.FAILED

    def statuses() -> list[Status]:
        return [
            job.status(overwrite=overwrite, skip_existing=skip)
            for overwrite, skip in ((False, False), (True, False), (False, True), (True, True))
        ]

    assert statuses() == [planned, planned, planned, planned]
    Path("out.wav").touch()
    assert statuses() == [failed, planned, failed, planned]
    Path("noise.wav").touch()
    assert statuses() == [failed, planned, skipped, skipped]


def test_media_beside_a_recording_of_the_same_name(tree: Path) -> None:
    for name in ("in/deep/c.m4a", "in/deep/c.wav", "in/deep/c.mov"):
        Path(name).touch()
    expected = {
        "c.MP3": "c.MP3",
        "c.m4a": "c.m4a.wav",
        "c.mov": "c.mov.wav",
        "c.wav": "c.wav",
        "d.mp4": "d.wav",
    }
    assert pairs(["in/deep"], "out") == [
        (f"in/deep/{source}", f"out/{target}") for source, target in sorted(expected.items())
    ]
    assert pairs(["in/deep/c.m4a", "in/deep/c.wav"]) == [
        ("in/deep/c.m4a", "in/deep/c.m4a.clean.wav"),
        ("in/deep/c.wav", "in/deep/c.clean.wav"),
    ]
    assert pairs(["in/deep/c.m4a", "in/deep/c.wav"], "out", suffix=".flac") == [
        ("in/deep/c.m4a", "out/c.m4a.flac"),
        ("in/deep/c.wav", "out/c.wav.flac"),
    ]


def test_a_recording_and_a_link_to_it_are_cleaned_once_in_place(tree: Path) -> None:
    Path("in/linked.flac").symlink_to("b.flac")
    assert [source for source, _ in pairs(["in"], "in")] == [
        "in/b.flac",
        "in/deep/c.MP3",
        "in/deep/d.mp4",
    ]
    assert [source for source, _ in pairs(["in"], "out")].count("in/linked.flac") == 1


def test_noise_never_replaces_another_output(tree: Path) -> None:
    with pytest.raises(UsageError, match="would hold both the noise and another output"):
        plan(["in"], "out", noise_output="out")
    Path("in/clean").mkdir()
    Path("in/clean/b.flac").touch()
    with pytest.raises(UsageError, match="would hold both the noise and another output"):
        plan(["in"], "out", noise_output="out/clean/..")
    with pytest.raises(UsageError, match="would hold both the noise and another output"):
        plan(["a.wav", "in/clean/b.flac"], "out", noise_output="out/")


def test_a_dangling_link_is_an_existing_target(tree: Path) -> None:
    Path("out.wav").symlink_to("nowhere.wav")
    job = Job(Path("a.wav"), Path("out.wav"))
    assert job.status(overwrite=False, skip_existing=False) == Status.FAILED
    assert job.status(overwrite=True, skip_existing=False) == Status.PLANNED


def test_two_sources_of_which_the_last_is_meant_as_the_output(tmp_path, audio_file):
    source = audio_file("a.wav", np.zeros(10))
    with pytest.raises(UsageError, match=r"b\.wav does not exist; the output is given with -o"):
        plan([source, tmp_path / "b.wav"])


@pytest.mark.parametrize("name", ["Talk.wav", "tálk.wav"])
def test_names_that_differ_in_case_only_are_one_file_on_a_mac(
    tree: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """And so are those that differ in how their accents are written."""
    for folder, other in (("in", unicodedata.normalize("NFD", name.lower())), ("in2", name)):
        (tree / folder).mkdir(exist_ok=True)
        (tree / folder / other).write_bytes(b"sound")
    sources = [tree / folder / "*lk.wav" for folder in ("in", "in2")]
    assert len(plan(sources, tree / "out").jobs) == 2
    monkeypatch.setattr(targets, "_IGNORES_CASE", True)
    with pytest.raises(UsageError, match="would both be written to"):
        plan(sources, tree / "out")


def test_a_drive_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """The root of such a path is the current folder, which it is not relative to."""
    monkeypatch.setattr(targets, "_matches", lambda path: (Path("other"), []))
    with pytest.raises(UsageError, match=r"a\.wav does not exist"):
        plan(["missing/a.wav"])
