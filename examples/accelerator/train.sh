#!/usr/bin/env bash
# Train on a machine that has JAX, and leave the model folder in $OUT (default: out), or the
# checkpoint if it is interrupted. The same call resumes.
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

# What is whole has its own name; the rest of an interrupted call is deleted.
if [ ! -d "$work/packages" ]; then
    rm -rf "$work/packages.part"
    ${PYTHON:-python3} -m pip install --quiet --no-index --no-deps --disable-pip-version-check \
        --target "$work/packages.part" "$here"/wheels/*.whl
    mv "$work/packages.part" "$work/packages"
fi
export PYTHONPATH="$work/packages${PYTHONPATH:+:$PYTHONPATH}"

if [ ! -d "$work/sounds" ]; then
    rm -rf "$work/sounds.part"
    mkdir "$work/sounds.part"
    for part in "$here"/parts/*.tar; do tar -xf "$part" -C "$work/sounds.part"; done
    mv "$work/sounds.part" "$work/sounds"
fi
music=()
if [ -d "$work/sounds/music" ]; then music=(--music "$work/sounds/music"); fi

# Whatever ends the training, leave in $out what it came to.
leave() {
    for file in spec.json run.json history.csv checkpoint.npz; do
        if [ -f "$work/run/$file" ]; then cp "$work/run/$file" "$out/$file"; fi
    done
    if [ -d "$work/run/model" ] && [ ! -f "$work/run/checkpoint.npz" ]; then
        rm -rf "$out/model" "$out/checkpoint.npz"
        cp -r "$work/run/model" "$out/model"
    fi
    if [ "$(du -sk "$out" | cut -f 1)" -gt 16384 ]; then
        echo "more than 16 MiB: the checkpoint stays in $work/run" >&2
        rm -f "$out/checkpoint.npz"
    fi
    du -sh "$out"
}
trap leave EXIT

echo "ready after $SECONDS s"
${PYTHON:-python3} -c 'from denoisecli.cli.app import main; main()' train "$spec" \
    --clean "$work/sounds/clean" --noise "$work/sounds/noise" "${music[@]}" \
    --cache "$work/recordings" --run "$work/run" --minutes "$minutes" "$@" &
training=$!
trap 'kill -TERM "$training"' INT TERM  # it saves a checkpoint
status=0
wait "$training" || status=$?
if kill -0 "$training" 2>/dev/null; then wait "$training" || status=$?; fi  # after a signal
exit "$status"
