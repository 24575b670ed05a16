"""What lies in the folder of a record: whose files, of which run, and how they are removed."""

import contextlib
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradflow.locks import LOCK, OWNER
from gradflow.study.config import differences
from gradflow.study.store import read_verified

CONFIG, RESULT, ENVIRONMENT, DONE = "config.json", "result.nc", "env.json", "DONE"
PARTS, UNITS, PARAMS = "parts", "units", "params"
"""The folders of stored units, of what long units keep while they run, and of parameters."""

# In the order of removal: without its marks first, and nameable as a run of ours until the end.
_FILES = (DONE, ENVIRONMENT, "figure.pdf", "figure.png", RESULT, CONFIG)
_OURS = {*_FILES, PARTS, UNITS, PARAMS, LOCK, OWNER}
_DRAFT = re.compile(r"\.(.+)\.\d+\.tmp")
_FIX = "Choose another --workdir"


def stored_identity(folder: Path, overwrite: bool) -> dict[str, Any] | None:
    """Reads which run a folder holds; None if it holds none, or a damaged one to be replaced.

    Args:
      folder: The folder; it need not exist.
      overwrite: Whether the run there is to be replaced.

    Raises:
      ValueError: If what lies there is damaged, or is no run.
    """
    found = [name for name in (*_FILES, PARTS, UNITS, PARAMS) if (folder / name).exists()]
    if not found:
        return None
    stored = {}
    if (folder / CONFIG).is_file():
        try:
            stored = read_verified(folder / CONFIG)
        except ValueError as error:
            others = [path.name for path in folder.iterdir() if not _is_ours(path.name)]
            if others:
                raise ValueError(
                    f"{error} Beside it are other files, {', '.join(sorted(others))}. {_FIX}."
                ) from None
            if not overwrite:
                raise ValueError(
                    f"{error} Replace that run with --overwrite, or choose another --workdir."
                ) from None
            return None
    if isinstance(stored.get("experiment"), str) and isinstance(stored.get("config"), dict):
        return stored
    raise ValueError(
        f"Expected {folder} to hold a run or nothing, got {', '.join(found)} and no {CONFIG} of a "
        f"run. {_FIX}."
    )


def _is_ours(name: str) -> bool:
    draft = _DRAFT.fullmatch(name)
    return (draft[1] if draft else name) in _OURS


def check_same(folder: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Checks that the run in a folder is the wanted one, and that its files have not changed.

    Raises:
      ValueError: If a field of the configuration or the content of a file is another one.
    """
    pairs = [{"experiment": one["experiment"], **one["config"]} for one in (stored, wanted)]
    if found := differences(*pairs):
        raise ValueError(
            f"{folder} holds a run of another configuration: {', '.join(found)}. "
            f"{_FIX}, or replace that run with --overwrite."
        )
    before, now = (one.get("files", {}) for one in (stored, wanted))
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            raise ValueError(
                f"Expected the file {name} as it was when the run in {folder} began (digest "
                f"{before.get(name, 'not recorded')}), got {now.get(name, 'no such file')}. Run "
                "with --overwrite, or choose another --workdir."
            )


def check_writable(folder: Path) -> None:
    """Checks that files can be written to a folder, without leaving a trace.

    Raises:
      OSError: If they cannot.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryDirectory(dir=existing):
            pass
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written, {existing}: {error.strerror}. {_FIX}."
        ) from None


def clear(folder: Path) -> None:
    """Removes the run in a folder, and no other file."""
    for name in _FILES[:-1]:
        (folder / name).unlink(missing_ok=True)
    clear_parts(folder)
    for name in (UNITS, PARAMS):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / CONFIG).unlink(missing_ok=True)


def clear_parts(folder: Path) -> None:
    """Removes the stored units and what a killed process was writing, and no other file."""
    drafts = [path for name in _FILES for path in folder.glob(f".{name}.*.tmp")]
    for path in [*drafts, *folder.glob(f"{PARTS}/*.nc"), *folder.glob(f"{PARTS}/.*.tmp")]:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # there are none, or a file that is not ours
        (folder / PARTS).rmdir()
