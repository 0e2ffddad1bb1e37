import signal
import subprocess
import sys

import pytest

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    start = "from denoisecli.cli import main; main()"
    command = [sys.executable, "-c", code + start, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("denoisecli.cli.clean", signal.SIGTERM),
        ("soundfile", signal.SIGINT),
        ("numpy", signal.SIGHUP),
    ],
)
def test_a_signal_during_an_import_ends_the_program(module: str, number: signal.Signals) -> None:
    code = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {int(number)})

sys.meta_path.insert(0, Interrupt())
"""
    done = run(code, "clean", __file__, "-o", "out.wav", "--dry-run")
    assert (done.returncode, done.stderr) == (SIGNALS[number], "error: stopped\n")


def test_a_signal_while_python_ends() -> None:
    code = """
import atexit, os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
atexit.register(os.kill, os.getpid(), signal.SIGINT)
"""
    done = run(code, "--version")
    assert (done.returncode, done.stderr) == (130, "error: stopped\n")


def test_an_ignored_signal_stays_ignored() -> None:
    code = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from denoisecli.system.early_exit import exit_on_signals
exit_on_signals()
os.kill(os.getpid(), signal.SIGINT)
"""
    assert run(code, "--version").returncode == 0


def test_nothing_heavy_is_imported_before_signals_are_handled() -> None:
    code = "import denoisecli.cli, sys; print(len(sys.modules.keys() - before)); raise SystemExit;"
    done = run(f"import sys, signal, re; before = set(sys.modules); {code}")
    assert int(done.stdout) < 10
