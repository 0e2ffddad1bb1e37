"""Write beside, then rename: a target is either whole or not there."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from denoisecli.errors import DenoiseError, UsageError


@contextmanager
def replacing(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path beside ``target`` (same suffix), renamed to it when the block succeeds.

    The block may create a file or a folder there. On any exception, Ctrl-C included, what it
    wrote is removed and ``target`` stays as it was.

    Raises:
        UsageError: ``target`` exists and ``overwrite`` is false, or is a folder to be replaced
            by a file (or the other way round).
        DenoiseError: the folder cannot be written to, or the disk is full.
    """
    target = Path(target)
    refuse_existing(target, overwrite=overwrite)
    new_parent = not target.parent.exists()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.stem[:40]}.", dir=target.parent))
    except OSError as error:
        raise DenoiseError(f"cannot write to {target.parent}: {error.strerror}") from error
    try:
        part = folder / f"part{target.suffix}"
        yield part
        refuse_existing(target, overwrite=overwrite)  # another run may have finished meanwhile
        if part.is_dir() and target.is_dir():
            _replace_folder(part, target, folder / "replaced")
        else:
            part.replace(target)
    except OSError as error:
        if error.filename is not None and not Path(error.filename).is_relative_to(folder):
            raise  # some other file's trouble: not ours to explain
        raise DenoiseError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if new_parent:
            with suppress(OSError):  # it holds the target now, or other files
                target.parent.rmdir()


def _replace_folder(part: Path, target: Path, replaced: Path) -> None:
    target.replace(replaced)
    try:
        part.replace(target)
    except BaseException:  # Ctrl-C included: better the old one than none
        replaced.replace(target)
        raise


def refuse_existing(target: Path, *, overwrite: bool) -> None:
    """Raise UsageError when ``target`` exists and may not be overwritten."""
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists already; give --overwrite to replace it")
