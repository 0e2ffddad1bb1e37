#!/usr/bin/env bash
# Collect the wheels that a machine with Python 3.12, JAX, NumPy, SciPy, Matplotlib, Typer, Rich,
# jaxtyping, onnx and ONNX Runtime lacks, below 60 MB in all.
#
#     bash examples/accelerator/wheels.sh kit/wheels
set -euo pipefail
target=${1:?folder for the wheels}
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$target"
python3 -m pip wheel --quiet --no-deps --wheel-dir "$target" "$root"
python3 -m pip download --quiet --no-deps --dest "$target" --only-binary :all: \
    --python-version 3.12 --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
    keras absl-py namex h5py optree ml-dtypes packaging soundfile cffi pycparser soxr filelock mutagen
# These two belong together, so pip chooses their versions.
python3 -m pip download --quiet --dest "$target" --only-binary :all: \
    --python-version 3.12 --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 pydantic
du -sh "$target"
