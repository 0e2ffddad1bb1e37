import os
import sys
import time

import pytest

from denoisecli.errors import DenoiseError, UsageError
from denoisecli.live import virtual
from denoisecli.live.virtual import virtual_microphone

PACTL = """#!{python}
import pathlib, sys
state = pathlib.Path("{state}")
modules = state.read_text().splitlines() if state.exists() else []
if sys.argv[1:] == ["list", "short", "modules"]:
    print("\\n".join(modules))
elif sys.argv[1] == "load-module":
    if sys.argv[2] == "{broken}":
        sys.exit("Failure: Module initialization failed")
    number = str(len(modules) + 7)
    line = "\\t".join([number, sys.argv[2], " ".join(sys.argv[3:])])
    state.write_text("\\n".join([*modules, line]))
    print(number)
else:
    assert sys.argv[1] == "unload-module", sys.argv
    state.write_text("\\n".join(line for line in modules if not line.startswith(sys.argv[2])))
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
        with virtual_microphone(16000) as device:
            assert device == "pulse"
            assert os.environ["PULSE_SINK"] == "denoise"
            sink, source = modules()
            assert "module-null-sink" in sink and "sink_name=denoise rate=16000" in sink
            assert "source_name=denoise_microphone master=denoise.monitor" in source
            with (
                pytest.raises(UsageError, match=f"process {os.getpid()} already provides"),
                virtual_microphone(16000),
            ):
                pass
        assert modules() == []
        assert os.environ["PULSE_SINK"] == "mine"

    def test_what_a_killed_process_left_is_removed(self, pactl, tmp_path):
        modules = pactl()
        (tmp_path / "modules").write_text(
            "3\tmodule-x\n5\tmodule-null-sink\tdenoise.process=4194999"
        )
        with virtual_microphone(48000):
            assert [line.split("\t")[1] for line in modules()] == [
                "module-x",
                "module-null-sink",
                "module-remap-source",
            ]
        assert len(modules()) == 1

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
