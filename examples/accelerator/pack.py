"""Pack folders of recordings as Opus into tar files that are small enough to be sent.

    python examples/accelerator/pack.py OUTPUT --clean speech --noise noise [--music music]

The folders become `clean`, `noise` and `music` in the archives; names and folders below them stay,
so that groups and weights mean the same.
"""

import argparse
import io
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import soundfile

from denoisecli.audio.files import find_audio, read_mono
from denoisecli.errors import DenoiseError

PART_BYTES = 60_000_000
"""Largest size of a part."""

COMPRESSION = 0.5
"""Compression level of Opus, 0 (about 256 kbit/s per channel) to 1 (about 6 kbit/s)."""


def encode(path: Path, sample_rate: int) -> bytes | str:
    """Return a recording as mono Ogg Opus, or why it cannot be used."""
    try:
        sound, _ = read_mono(path, sample_rate)
    except DenoiseError as error:
        return str(error)
    file = io.BytesIO()
    soundfile.write(
        file, sound, sample_rate, format="OGG", subtype="OPUS", compression_level=COMPRESSION
    )
    return file.getvalue()


def encoded(folders: dict[str, Path], sample_rate: int) -> Iterator[tuple[str, bytes]]:
    """Yield the name in the archive and the content of each recording."""
    files = [
        (f"{name}/{path.relative_to(folder).as_posix()}.opus", path)
        for name, folder in folders.items()
        for path in find_audio(folder)
    ]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        paths = [path for _, path in files]
        results = pool.map(encode, paths, [sample_rate] * len(paths), chunksize=16)
        for (name, path), result in zip(files, results, strict=True):
            if isinstance(result, str):
                print(f"left out {path}: {result}")
            else:
                yield name, result


def main() -> None:
    """Pack the folders that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder for part-000.tar and so on")
    for name in ("clean", "noise", "music"):
        parser.add_argument(f"--{name}", type=Path, help=f"folder of {name} recordings")
    parser.add_argument("--rate", type=int, default=48_000, help="8000, 12000, 16000, 24000, 48000")
    options = parser.parse_args()
    folders = {
        name: getattr(options, name)
        for name in ("clean", "noise", "music")
        if getattr(options, name) is not None
    }
    options.output.mkdir(parents=True, exist_ok=True)
    for part in options.output.glob("part-*.tar"):  # of an earlier call, perhaps with more of them
        part.unlink()
    number, size = -1, PART_BYTES
    with ExitStack() as stack:
        for name, content in encoded(folders, options.rate):
            if size + len(content) + 2048 > PART_BYTES:  # with its header and padding
                stack.close()
                number, size = number + 1, 20_480
                path = options.output / f"part-{number:03d}.tar"
                archive = stack.enter_context(tarfile.open(path, "w"))
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
            size += len(content) + 2048
    print(f"wrote {number + 1} parts to {options.output}")


if __name__ == "__main__":
    main()
