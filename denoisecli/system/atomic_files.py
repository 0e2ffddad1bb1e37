"""Write beside the target, then rename: a target is either complete or not there."""

import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from denoisecli.errors import DenoiseError, UsageError


@contextmanager
def replacing(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Provide a temporary path, which is renamed to the target when the block succeeds.

    A link stays a link: what it leads to is replaced. A file that is replaced keeps its
    permissions.

    The block may create a file or a folder there. If it raises an exception, including
    KeyboardInterrupt, what it wrote is removed and the target stays as it was.

    Args:
        target: The file or folder to write.
        overwrite: Replace an existing target of the same kind.

    Yields:
        A path beside the target with the same suffix.

    Raises:
        UsageError: The target exists and ``overwrite`` is false.
        DenoiseError: The target cannot be written, or the disk is full.
    """
    target = Path(target)
    refuse_existing(target, overwrite=overwrite)
    if target.is_symlink():
        target = target.resolve()
    new_parent = not target.parent.exists()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.stem[:40]}.", dir=target.parent))
    except OSError as error:
        raise DenoiseError(f"cannot write to {target.parent}: {error.strerror}") from error
    try:
        part = folder / f"part{target.suffix}"
        yield part
        refuse_existing(target, overwrite=overwrite)  # another process may have written it
        if part.is_dir() and target.is_dir():
            _replace_folder(part, target, folder / "replaced")
        else:
            if target.is_file():
                part.chmod(stat.S_IMODE(target.stat().st_mode))
            part.replace(target)
    except OSError as error:
        if error.filename is not None and not Path(error.filename).is_relative_to(folder):
            raise  # the error is about another file
        raise DenoiseError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if new_parent:
            with suppress(OSError):  # it holds the target or other files
                target.parent.rmdir()


def _replace_folder(part: Path, target: Path, replaced: Path) -> None:
    target.replace(replaced)
    try:
        part.replace(target)
    except BaseException:  # restore the old folder, after Ctrl-C as well
        replaced.replace(target)
        raise


def refuse_existing(target: Path, *, overwrite: bool) -> None:
    """Raise an error if a target exists and may not be overwritten.

    Raises:
        UsageError: The target exists and ``overwrite`` is false.
    """
    if (target.exists() or target.is_symlink()) and not overwrite:
        raise UsageError(f"{target} exists already; give --overwrite to replace it")
