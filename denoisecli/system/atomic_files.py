"""Write beside the target, then rename: a target is either complete or not there.

A temporary folder holds a lock for as long as its process lives. What a process that was killed
has left is removed by the next one that writes to the same place.
"""

import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir

from filelock import FileLock

from denoisecli.errors import StorageError, UsageError
from denoisecli.system.locks import is_locked

_SUFFIX = ".denoise-part"  # of a temporary folder
_LOCK = "lock"
_NEW_SECONDS = 1.0  # after which a process surely has locked the folder that it created

_swept: set[Path] = set()
"""Folders in which this process has looked for what others have left."""


@contextmanager
def replacing(
    target: Path, *, overwrite: bool = False, source: Path | None = None
) -> Iterator[Path]:
    """Provide a temporary path, which is renamed to the target when the block succeeds.

    A link stays a link: what it leads to is replaced. A file that is replaced keeps its
    permissions, and its owner if that is allowed.

    The block may create a file or a folder there. If it raises an exception, including
    KeyboardInterrupt, what it wrote is removed and the target stays as it was.

    Args:
        target: The file or folder to write.
        overwrite: Replace an existing target of the same kind.
        source: File that the target is made from. Other users may do no more with a new target
            than with it: what is made from a private file is private.

    Yields:
        A path beside the target with the same suffix.

    Raises:
        UsageError: The target exists and ``overwrite`` is false.
        StorageError: The target cannot be written, or the disk is full.
    """
    target = Path(target)
    refuse_existing(target, overwrite=overwrite)
    if target.is_symlink():
        target = target.resolve()
    new_folders = [path for path in (target.parent, *target.parent.parents) if not path.exists()]
    try:
        with ExitStack() as stack:
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                beside = temporary_folder(target.parent, f".{target.stem[:40]}.")
                folder = stack.enter_context(beside)
            except OSError as error:
                reason = error.strerror or error
                raise StorageError(f"cannot write to {target.parent}: {reason}") from error
            try:
                part = folder / f"part{target.suffix}"
                yield part
                refuse_existing(target, overwrite=overwrite)  # another process may have written it
                if part.is_dir() and target.is_dir():
                    _replace_folder(part, target, folder / "replaced")
                else:
                    if target.is_file():
                        with suppress(OSError, AttributeError):  # only root may, and not on Windows
                            os.chown(part, target.stat().st_uid, target.stat().st_gid)
                        part.chmod(stat.S_IMODE(target.stat().st_mode))
                    elif source is not None and source.is_file() and part.is_file():
                        allowed = stat.S_IMODE(source.stat().st_mode) | stat.S_IRWXU
                        part.chmod(stat.S_IMODE(part.stat().st_mode) & allowed)
                    part.replace(target)
            except OSError as error:
                if error.filename is not None and not Path(error.filename).is_relative_to(folder):
                    raise  # the error is about another file
                raise StorageError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        _remove_empty(new_folders)


def write_text(target: Path, text: str, *, overwrite: bool = True) -> None:
    """Write a file of UTF-8 text by way of `replacing`, which it takes the exceptions of."""
    with replacing(target, overwrite=overwrite) as part:
        part.write_text(text, encoding="utf-8")


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders that hold nothing, the deepest first."""
    for folder in folders:
        with suppress(OSError):  # it holds the target or other files
            folder.rmdir()


@contextmanager
def temporary_folder(parent: Path | None = None, prefix: str = "denoise-") -> Iterator[Path]:
    """Provide a new folder, which is removed after the block.

    If the process is killed, the next one that creates such a folder in ``parent`` removes it.

    Args:
        parent: Existing folder (default: that of the system for temporary files).
        prefix: Beginning of the name of the new one.

    Raises:
        OSError: The folder cannot be created.
    """
    parent = parent or Path(gettempdir())
    _remove_abandoned(parent)
    # The name is known before the folder exists, so that Ctrl-C at any moment leaves none behind.
    folder = parent / f"{prefix}{secrets.token_hex(8)}{_SUFFIX}"
    lock = FileLock(folder / _LOCK, thread_local=False)
    try:
        # On Windows, files keep the access rights of this folder when they are moved out of it.
        folder.mkdir(mode=0o777 if os.name == "nt" else 0o700)
        try:
            lock.acquire()
        except (OSError, NotImplementedError):  # the file system has no locks
            (folder / _LOCK).unlink(missing_ok=True)  # without it the folder is left alone
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Remove the temporary folders of processes that were killed, once per process and parent."""
    parent = parent.resolve()
    if parent in _swept:
        return
    _swept.add(parent)
    for folder in parent.glob(f"*{_SUFFIX}"):
        with suppress(OSError):  # another process removes it, or it is that of another user
            is_old = folder.stat().st_mtime < time.time() - _NEW_SECONDS
            if is_old and (folder / _LOCK).is_file() and not is_locked(folder / _LOCK):
                shutil.rmtree(folder)


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
        raise UsageError(f"{target} already exists; give --overwrite to replace it")
