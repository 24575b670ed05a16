"""The origin of a record: versions, machine, commit and command, without names of people."""

import importlib.metadata
import os
import platform
import re
import resource
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import jax

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "xarray", "gradflow-rnn")

# A path ends where no path goes on: at a quote, a bracket, or what separates options.
_ABSOLUTE_PATH = re.compile(r"(?<![\w.+/-])(?:~\w*)?/[^=,:;'\"()\[\]{}]*")


def shorten(text: str) -> str:
    """Reduces every absolute path in a text to its last component.

    Records are shown to others, and where a file lies tells whose it is.
    """
    return _ABSOLUTE_PATH.sub(lambda match: PurePosixPath(match[0]).name, text)


def command_line(program: str, argv: Sequence[str]) -> str:
    """Returns the command of this run as typed in a shell, without absolute paths."""
    return shlex.join([shorten(part) for part in (program, *argv)])


def versions() -> dict[str, str | None]:
    """Returns the versions of Python and of the main packages; None where not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def checkout(root: Path = ROOT) -> dict[str, Any]:
    """Returns the git commit of the checkout at ``root``, and whether files differ from it.

    Both are None where ``root`` is no checkout: an installed package must not be taken for a
    part of the repository that its environment happens to lie in.
    """
    unknown = {"git_commit": None, "git_dirty": None}
    if not (root / ".git").exists():
        return unknown
    git = ["git", "--no-optional-locks", "-C", str(root)]
    try:
        commit, status = (
            subprocess.run([*git, *arguments], capture_output=True, text=True, check=True).stdout
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return unknown
    return {"git_commit": commit.strip(), "git_dirty": bool(status)}


def machine() -> dict[str, Any]:
    """Returns the devices that JAX computes on, and its numerical settings."""
    return {
        "backend": jax.default_backend(),
        "num_devices": jax.device_count(),
        "num_processes": jax.process_count(),
        "device_kind": jax.devices()[0].device_kind,
        "x64": jax.config.values["jax_enable_x64"],
        "matmul_precision": jax.config.values["jax_default_matmul_precision"],
        "threefry_partitionable": jax.config.values.get("jax_threefry_partitionable"),
        "xla_flags": shorten(os.environ.get("XLA_FLAGS", "")),
    }


def memory() -> dict[str, int | None]:
    """Returns the peak memory of this process so far, in bytes, on host and device."""
    unit = 1 if sys.platform == "darwin" else 1024
    device = jax.local_devices()[0].memory_stats() or {}
    return {
        "host_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "device_peak_bytes": device.get("peak_bytes_in_use"),
    }
