"""Paths as people type them, files that have to lie in a folder, atomic writes, and free room."""

import contextlib
import errno
import os
import tempfile
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The numbers of the errors of a full disk, an exhausted quota, and a limit of a file's size."""


def user_path(path: str | os.PathLike[str]) -> Path:
    """Returns a path whose leading ``~`` or ``~user`` is replaced by the home directory.

    Raises:
      ValueError: If there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(
            f"Expected the home directory of a known user, got {str(path)!r}. Write the whole path "
            "without ~."
        ) from None


def check_inside(path: Path, folder: Path) -> Path:
    """Returns the path of a file or folder that lies in another folder, after links are followed.

    A data set from elsewhere may have links to other files of this machine, whose content would
    be read as data. The outer folder itself may be a link.

    Raises:
      ValueError: If the path leads out of the folder, by links or by ``..``.
    """
    content = Path(os.path.realpath(path))
    if not content.is_relative_to(os.path.realpath(folder)):
        raise ValueError(
            f"Expected files in the folder {str(folder)!r}, got {str(path)!r}, which leads out of "
            f"it to {str(content)!r}. Replace the link by a copy if it is part of the data."
        )
    return path


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically, in a new folder if there is none.

    A reader, and a process that is killed at any moment, sees the old file or the new one.

    Raises:
      OSError: If the file cannot be written, such as on a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(
            f"Expected room for {path}, got: {error.strerror}. Free some space and run it again: a "
            "study resumes."
        ) from None
    finally:
        with contextlib.suppress(OSError):  # the disk has become read-only
            draft.unlink(missing_ok=True)


def check_room(folder: Path, size: int) -> None:
    """Checks that a folder's disk, quotas and limits leave room for ``size`` bytes.

    It is for a library that cannot end well when a disk is full: the bytes are allotted to a
    temporary file, which is removed. Where the system cannot do that, nothing is checked.

    Raises:
      OSError: If there is no room.
    """
    if size and hasattr(os, "posix_fallocate"):
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
