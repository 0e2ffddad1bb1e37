#!/usr/bin/env bash
# Train on a machine that has JAX, and leave the model folder in $OUT (default: out).
#
#     bash train.sh SPEC MINUTES [options of denoise train]
#
# Beside this script lie `wheels/` (see wheels.sh) and `parts/` (see pack.py). Nothing is downloaded,
# and nothing but `work/` and $OUT is written.
set -euo pipefail
spec=${1:?spec}
minutes=${2:?minutes}
shift 2
here=$(cd "$(dirname "$0")" && pwd)
work=${WORK:-$here/work}
out=${OUT:-$here/out}
mkdir -p "$work" "$out"
export KERAS_BACKEND=jax TF_CPP_MIN_LOG_LEVEL=2
export JAX_COMPILATION_CACHE_DIR="$work/compiled"

if [ ! -d "$work/packages" ]; then
    ${PYTHON:-python3} -m pip install --quiet --no-index --no-deps --disable-pip-version-check \
        --target "$work/packages" "$here"/wheels/*.whl
fi
export PYTHONPATH="$work/packages${PYTHONPATH:+:$PYTHONPATH}"

if [ ! -d "$work/sounds" ]; then
    mkdir "$work/sounds.part"
    for part in "$here"/parts/*.tar; do tar -xf "$part" -C "$work/sounds.part"; done
    mv "$work/sounds.part" "$work/sounds"
fi
music=()
if [ -d "$work/sounds/music" ]; then music=(--music "$work/sounds/music"); fi

echo "ready after $SECONDS s"
${PYTHON:-python3} -c 'from denoisecli.cli.app import main; main()' train "$spec" \
    --clean "$work/sounds/clean" --noise "$work/sounds/noise" "${music[@]}" \
    --cache "$work/recordings" --run "$work/run" --minutes "$minutes" "$@"
rm -rf "$out/model"
cp -r "$work/run/model" "$out/model"
du -sh "$out/model"
