"""How the process of a command ends: its exit code, closed pipes, and signals."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

RESUMES = "The same command without --overwrite resumes."

ENDS: dict[int, str] = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated"}
"""The signals that end a command, with the word for it."""


def run_process(program: Callable[[], int]) -> NoReturn:
    """Runs a program as the whole process, and exits with its code.

    A reader that closes the output early, such as ``head``, ends it quietly; an interrupt or
    SIGTERM ends it at once, with one line. The exit code is then that of other commands, 128 plus
    the signal's number.
    """
    _end_on_signals()
    try:
        code = program()
        sys.stdout.flush()
    except BrokenPipeError:
        code = 128 + signal.SIGPIPE
        _discard_output()
    except OSError as error:  # for example of a full disk that the output goes to
        code = 1
        print(f"error: {error}", file=sys.stderr)
        _discard_output()
    sys.exit(code)


def _discard_output() -> None:
    """Lets what Python still writes at its end go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())


def _end_on_signals() -> None:
    """Lets an interrupt or SIGTERM end this process and its workers at once, with one line.

    A handler of Python's alone would wait until a compiled program returns, for minutes, and a
    KeyboardInterrupt that is raised within a callback of JAX's is lost. Python writes the number
    of a signal to the wake-up file at once, where a thread waits for it. Records are safe: they are
    made for processes that are killed at any moment.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in ENDS:
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_wait, args=(read,), daemon=True).start()


def _wait(read: int) -> None:
    while (number := os.read(read, 1)[0]) not in ENDS:
        pass
    for worker in multiprocessing.active_children():
        worker.kill()  # a forked one has inherited the handlers above
    # Descriptor 2 is where libraries write to, which may be hidden (`gradflow.study.distributed`).
    os.write(sys.stderr.fileno(), f"{ENDS[number]}. {RESUMES}\n".encode())
    os._exit(128 + number)
