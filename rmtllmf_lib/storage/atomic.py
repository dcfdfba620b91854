"""Files that are either whole or absent: write beside the final name, bring to the disk, rename."""

from __future__ import annotations

import errno
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_DEVICE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there takes the final name when the block succeeds.

    The data are on the disk (fsync) before the rename, so a reader, a crash or a full disk sees the old file or the
    new one, never a part. When the block raises, the temporary file is removed and the old file stays. The new file has
    the permissions of the old one, or those that the user's files have, whatever the writer sets (safetensors: none for
    others).

    Parameters
    ----------
    path
        Final name. Its folder is created where missing; a symbolic link is followed, not replaced.

    Raises
    ------
    OSError
        if the disk is full, fails, or refuses; `filename` is the final name, also where the writer inside the block
        (safetensors) reports such an error in a type of its own.
    """
    final = Path(os.path.realpath(path))
    final.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: some writers append their own, or choose a compression, by what they see there.
    temporary = final.with_name(f".{final.stem[:100]}.{uuid.uuid4().hex}.tmp{final.suffix}")
    try:
        with device_errors(final, temporary):
            mode = _mode(final, temporary)
            yield temporary
            if not temporary.exists():
                raise RuntimeError(f"nothing was written to {temporary}, so {final} stays as it was")
            os.chmod(temporary, mode)
            sync(temporary)
            os.replace(temporary, final)
            sync(final.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def device_errors(path: Path, temporary: Path) -> Iterator[None]:
    """Let an OSError of the block name `path`, not the `temporary` one in use, whoever reported it and how."""
    try:
        yield
    except Exception as error:  # raised again unless it is the device's; safetensors has a type of its own for those
        # safetensors tells of it in the text of its own error: "I/O error: No space left on device (os error 28)"
        told = re.search(r"\(os error (\d+)\)", str(error)) if type(error).__name__ == "SafetensorError" else None
        code = int(told[1]) if told else error.errno if isinstance(error, OSError) else None
        ours = isinstance(error, OSError) and str(error.filename).startswith(str(temporary))
        if code is None or not (told or ours or code in _DEVICE_ERRORS):
            raise
        message = f"{os.strerror(code)}, so it was not written (nothing that was there before is lost)"
        raise OSError(code, message, str(path)) from error


def _mode(final: Path, temporary: Path) -> int:
    """Permissions of `final`, or of a new file in its place."""
    with suppress(FileNotFoundError):
        return stat.S_IMODE(final.stat().st_mode)
    temporary.touch(exist_ok=False)
    mode = stat.S_IMODE(temporary.stat().st_mode)
    temporary.unlink()
    return mode


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
