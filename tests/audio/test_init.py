import pkgutil
import subprocess
import sys

from denoisecli import audio


def test_importing_the_room_loads_neither_librosa_nor_matplotlib() -> None:
    modules = [f"denoisecli.audio.{module.name}" for module in pkgutil.iter_modules(audio.__path__)]
    assert "denoisecli.audio.plot" in modules
    slow = {"librosa", "matplotlib", "scipy", "av", "tensorflow", "keras"}
    code = (
        f"import sys, {', '.join(modules)}\n"
        f"loaded = {slow} & set(sys.modules)\n"
        "sys.exit(f'loaded {loaded}' if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
