"""Files that are either complete or absent: write under a temporary name, flush to the disk, rename."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from rmtllmf_lib.arrays import file_path
from rmtllmf_lib.validated import validated_call

_DEVICE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)

_ROOM = re.compile(r"\..*\.[0-9a-f]{32}\.tmp")  # the folder of a file that is being written
_LOCK = "rmtllmf.lock"


@validated_call
@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path of the same name; the file written there is renamed to `path` when the block succeeds.

    The data are flushed to the disk (fsync) before the rename, so readers, also after a crash or with a full disk, see
    the old file or the new one, never a part. If the block raises, the temporary file is removed and the old file
    stays. The new file keeps the permissions of the old one; without an old one it gets the user's default ones,
    whatever the writer sets (safetensors makes its files private). The temporary file lies in a hidden, locked folder
    beside `path`. Such folders whose process was killed are removed first, whatever file they were for.

    Parameters
    ----------
    path
        Final name; `~` is the user's home folder. A missing folder is created; a symbolic link is followed, not
        replaced.

    Raises
    ------
    InputError
        if `path` is empty, or neither a text nor a path.
    OSError
        if the disk is full, fails or refuses; `filename` is the final name, even if the writer inside the block
        (safetensors) reports such an error in a type of its own.
    """
    final = Path(os.path.realpath(file_path(path, "path")))
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(final.parent)
    room = final.with_name(f".{final.stem[:100]}.{uuid.uuid4().hex}.tmp")
    temporary = room / final.name
    with device_errors(final, room), _locked_folder(room):
        mode = _mode(final, temporary)
        yield temporary
        if not temporary.exists():
            raise RuntimeError(f"nothing was written to {temporary}; {final} is unchanged")
        os.chmod(temporary, mode)
        sync(temporary)
        os.replace(temporary, final)
        sync(final.parent)


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """Create a folder that `_remove_leftovers` leaves alone as long as this process lives; remove it afterwards."""
    while True:
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / _LOCK)
        try:
            lock.acquire(timeout=0)
            break
        except (FileNotFoundError, Timeout):  # taken for left behind before it was locked
            continue
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)  # on Windows, an open file stays


def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary folders in `folder` whose processes were killed while they wrote."""
    for name in os.listdir(folder):
        if not _ROOM.fullmatch(name):
            continue
        left = folder / name
        with suppress(OSError, Timeout):
            if not (left / _LOCK).exists():
                left.rmdir()  # killed before it was locked; not empty if it is none of ours
                continue
            with FileLock(left / _LOCK, timeout=0):
                shutil.rmtree(left, ignore_errors=True)
            shutil.rmtree(left, ignore_errors=True)


@validated_call
@contextmanager
def device_errors(path: Path, temporary: Path) -> Iterator[None]:
    """Make an OSError of the block name `path` instead of `temporary`, whichever library reported it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors reports the code in the text of its own error: "I/O error: No space left on device (os error 28)"
        reported = re.search(r"\(os error (\d+)\)", str(error)) if isinstance(error, SafetensorError) else None
        code = int(reported[1]) if reported else error.errno if isinstance(error, OSError) else None
        ours = isinstance(error, OSError) and str(error.filename).startswith(str(temporary))
        if code is None or not (reported or ours or code in _DEVICE_ERRORS):
            raise
        raise OSError(code, f"{os.strerror(code)}; nothing was written, old files remain", str(path)) from error


def _mode(final: Path, temporary: Path) -> int:
    """Permissions of `final`, or those that a new file gets."""
    with suppress(FileNotFoundError):
        return stat.S_IMODE(final.stat().st_mode)
    temporary.touch(exist_ok=False)
    mode = stat.S_IMODE(temporary.stat().st_mode)
    temporary.unlink()
    return mode


@validated_call
def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
