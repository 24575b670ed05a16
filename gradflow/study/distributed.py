"""Makes this process one of several that run one study: `jax.distributed`, as the flags ask.

The processes run the same command. Each computes on its own devices a share of every distributed
computation; the first one alone writes the record, prints and draws (`gradflow.processes`).
"""

import atexit
import contextlib
import hashlib
import os
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax

from gradflow import processes
from gradflow.study import abort_report
from gradflow.study.abort_report import FATAL, reason
from gradflow.study.config import digest
from gradflow.study.flags import Options
from gradflow.study.provenance import versions

CONNECT_SECONDS = 45
"""How long a process waits for the others at the start; JAX gives up some seconds later."""

HEARTBEAT_SECONDS = 20
"""How long a process may be silent before the others end; it sends several heartbeats meanwhile."""


@contextlib.contextmanager
def connected(options: Options) -> Iterator[None]:
    """Makes this process one of several within the block, if the flags ask for that.

    Raises:
      ValueError: If the processes cannot be connected, or have different numbers of devices.
      RuntimeError: If another process has ended within the block, with --verbosity.
      gradflow.processes.FirstProcessError: If the first one has failed where all of them know, or
        another process has ended, which is then reported already.
    """
    if not options.is_distributed:
        yield
        return
    if options.verbosity < 1:
        _quieten()
    _connect(options)
    # Runs before JAX's own handler, which waits for the other processes.
    atexit.register(_leave)
    try:
        with contextlib.nullcontext() if processes.is_first() else _silence():
            yield
    except processes.FirstProcessError:
        atexit.unregister(_leave)  # all processes know, and end together
        raise
    except Exception as error:
        lost = reason(str(error))
        if options.verbosity < 1:
            if lost:  # JAX may abort this process at the same time: both are reported in one line
                os.write(2, f"\n{FATAL}{error}\n".encode())
                raise processes.FirstProcessError(lost) from None
            _discard(2)  # an abort before this process has ended by its own error says nothing new
        if lost:
            raise RuntimeError(lost) from error
        raise
    atexit.unregister(_leave)


def _connect(options: Options) -> None:
    # Its handler of SIGTERM would replace the one that ends the process (`gradflow.study.process`).
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            options.coordinator,
            options.num_processes,
            options.process_id,
            initialization_timeout=CONNECT_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except ValueError:
        raise ValueError(
            "Expected a cluster that JAX recognises (Slurm, Open MPI, Kubernetes, a TPU pod), got "
            "none. Add --coordinator, --num_processes and --process_id."
        ) from None
    except RuntimeError as error:
        raise ValueError(
            f"Expected a free port for {options.coordinator or 'the coordinator'}, got: {error}. "
            "Choose another one."
        ) from None


def check_agreement(about: Any) -> None:
    """Checks that all processes run the same code with the same flags.

    Args:
      about: What a run depends on, as JSON holds it.

    Raises:
      gradflow.processes.FirstProcessError: If they do not, or differ in the number of devices.
    """
    if not processes.are_several():
        return
    counts = Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        _refuse(
            "Expected as many devices in every process, got "
            f"{', '.join(str(counts[index]) for index in sorted(counts))}. Set "
            "--jax_num_cpu_devices, or make as many devices visible to each."
        )
    whats = {"code": _code(), "flags or input files": digest(about).encode()}
    for what, content in whats.items():
        if others := processes.differing(content):
            _refuse(
                f"Expected the same {what} in every process, but process "
                f"{', '.join(map(str, others))} has other {what} than process 0. Start the same "
                "command of the same version everywhere."
            )


def _refuse(message: str) -> NoReturn:
    """Raises what all processes know: the first one reports it."""
    cause = ValueError(message) if processes.is_first() else None
    raise processes.FirstProcessError(message) from cause


def _code() -> bytes:
    """A digest of the versions of the main packages, and of the loaded modules of no package."""
    installed = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
    own = Path(processes.__file__).parent
    whole = hashlib.sha256(repr(versions()).encode())
    files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
    for file in sorted(files):
        if file.endswith(".py") and (own in Path(file).parents or not file.startswith(installed)):
            whole.update(hashlib.sha256(Path(file).read_bytes()).digest())
    return whole.digest()


def _silence() -> contextlib.redirect_stdout:
    return contextlib.redirect_stdout(open(os.devnull, "w"))


def _quieten() -> None:
    """Hides what libraries print, and has an abort of this process reported in one line.

    Gloo prints its connections, and JAX aborts a process that has lost the others with a dump.
    Python's own output is not affected.
    """
    output, errors = os.dup(1), os.dup(2)
    sys.stdout, sys.stderr = (os.fdopen(fd, "w", buffering=1) for fd in (output, errors))
    _discard(1)
    program = [sys.executable, "-I", "-S", abort_report.__file__]
    reporter = subprocess.Popen(program, stdin=subprocess.PIPE, stderr=errors)
    assert reporter.stdin is not None
    os.dup2(reporter.stdin.fileno(), 2)
    reporter.stdin.close()


def _discard(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _leave() -> None:
    sys.stdout.flush()
    os._exit(1)
