"""Training, export and cleaning need no TensorFlow."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "check_jax.py"


@pytest.mark.slow
def test_jax_trains_where_tensorflow_cannot_be_imported() -> None:
    """.ci/run does the same in an environment without it."""
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    losses = json.loads(done.stdout.splitlines()[-1])
    assert len(losses) == 2
    assert "training on 1 x cpu (JAX)" in done.stdout
    assert "stopped in epoch 2" in done.stdout
