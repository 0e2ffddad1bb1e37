import os
import sys
import time

import pytest

from denoisecli.errors import DenoiseError, UsageError
from denoisecli.live import virtual
from denoisecli.live.virtual import virtual_microphone

PACTL = """#!{python} -IS
import pathlib, sys
state = pathlib.Path("{state}")
modules = state.read_text().splitlines() if state.exists() else []
if sys.argv[1:] == ["list", "short", "modules"]:
    print("\\n".join(modules))
elif sys.argv[1] == "load-module":
    if sys.argv[2] == "{broken}":
        sys.exit("Failure: Module initialization failed")
    number = str(int(modules[-1].split("\t")[0]) + 1 if modules else 7)
    line = "\\t".join([number, sys.argv[2], " ".join(sys.argv[3:])])
    state.write_text("\\n".join([*modules, line]))
    print(number)
else:
    assert sys.argv[1] == "unload-module", sys.argv
    state.write_text("\\n".join(line for line in modules if line.split("\t")[0] != sys.argv[2]))
"""


@pytest.fixture
def pactl(tmp_path, monkeypatch):
    """Return a function that installs a `pactl` and returns one that reads its modules."""

    def install(broken=""):
        program, state = tmp_path / "pactl", tmp_path / "modules"
        program.write_text(PACTL.format(python=sys.executable, state=state, broken=broken))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return lambda: state.read_text().splitlines() if state.exists() else []

    return install


@pytest.mark.skipif(os.name == "nt", reason="PulseAudio is not there")
class TestVirtualMicrophone:
    def test_it_exists_while_the_block_runs(self, pactl, monkeypatch):
        monkeypatch.setenv("PULSE_SINK", "mine")
        modules = pactl()
        with virtual_microphone(16000):
            assert os.environ["PULSE_SINK"] == "denoise"
            sink, source = modules()
            assert "module-null-sink" in sink and "sink_name=denoise rate=16000" in sink
            assert "source_name=denoise_microphone master=denoise.monitor" in source
            with (
                pytest.raises(UsageError, match=f"process {os.getpid()} already provides"),
                virtual_microphone(16000),
            ):
                pass
            assert modules() == [sink, source]
        assert modules() == []
        assert os.environ["PULSE_SINK"] == "mine"

    @pytest.mark.parametrize(
        "process", ["4194999.17", f"{os.getpid()}.17"], ids=["ended", "another one"]
    )
    def test_what_a_killed_process_left_is_removed(self, pactl, tmp_path, process):
        """Also if another process has its number now."""
        modules = pactl()
        (tmp_path / "modules").write_text(
            f"3\tmodule-x\n5\tmodule-null-sink\tdenoise.process={process}"
        )
        with virtual_microphone(48000):
            assert [line.split("\t")[1] for line in modules()] == [
                "module-x",
                "module-null-sink",
                "module-remap-source",
            ]
        assert len(modules()) == 1

    @pytest.mark.parametrize("left", [0, 1])
    def test_a_server_that_was_started_again_gets_it_again(self, pactl, tmp_path, left):
        """And its other modules, which may have the numbers that ours had, stay."""
        modules = pactl()
        with virtual_microphone(16000) as provide:
            sink, source = modules()
            provide()
            assert modules() == [sink, source]
            others = [f"{number}\tmodule-other" for number in (7, 8)[left:]]
            (tmp_path / "modules").write_text("\n".join(others + [sink][:left]))
            provide()
            kinds = [line.split("\t")[1] for line in modules()]
            expected = ["module-other"] * len(others) + ["module-null-sink", "module-remap-source"]
            assert kinds == expected
            (tmp_path / "modules").write_text("\n".join(others))
        assert modules() == others

    def test_a_failure_leaves_nothing(self, pactl):
        modules = pactl(broken="module-remap-source")
        with (
            pytest.raises(DenoiseError, match="pactl load-module failed: Failure: Module"),
            virtual_microphone(16000),
        ):
            pass
        assert modules() == []

    def test_a_sound_system_that_does_not_answer_holds_up_nothing(
        self, pactl, tmp_path, monkeypatch
    ):
        pactl()
        hanging = tmp_path / "hanging"
        hanging.write_text("#!/bin/sh\nexec sleep 60\n")
        hanging.chmod(0o755)
        start = time.monotonic()
        with virtual_microphone(16000):
            hanging.replace(tmp_path / "pactl")
            monkeypatch.setattr(virtual, "_ANSWER_SECONDS", 0.1)
        with (
            pytest.raises(DenoiseError, match="pactl list failed: the sound system does not answ"),
            virtual_microphone(16000),
        ):
            pass
        assert time.monotonic() - start < 30

    def test_pactl_is_needed(self, monkeypatch):
        monkeypatch.setenv("PATH", "")
        with (
            pytest.raises(UsageError, match=r"needs pactl, .*docs/live\.md"),
            virtual_microphone(16000),
        ):
            pass
