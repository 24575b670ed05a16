"""Several processes that execute one program: what the first one does, all of them know.

`jax.distributed.initialize` makes one program of several processes: each executes the same code on
the same values, and its computations use the devices of all. Files are the exception: the first
process alone reads and writes them, so that the others need no access to its disk. Without
`jax.distributed`, a process is the first one, and the only one.
"""

import functools
import pickle
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")
P = ParamSpec("P")

_LIMIT = 2**30  # of the two numbers that a length is sent as: without x64, JAX has 32 bits


class FirstProcessError(RuntimeError):
    """The first process has failed, as all processes know; there, the cause is its own error."""


def are_several() -> bool:
    """Returns whether this program consists of several processes."""
    # The second question would make JAX choose its devices, which a study sets later.
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Returns whether this process is the one that reads, writes and prints."""
    return not are_several() or jax.process_index() == 0


def from_first(call: Callable[[], T]) -> T:
    """Calls a function on the first process, and returns its value on all of them.

    All processes have to call this, in the same order.

    Args:
      call: What reads or writes; its value can be pickled.

    Raises:
      FirstProcessError: On all processes, if the function fails on the first of several. A single
        process raises the error itself.
    """
    if not are_several():
        return call()
    value, failure = None, None
    if is_first():
        try:
            value = call()
        except Exception as error:
            failure = error
    content = pickle.dumps((value, failure is not None)) if is_first() else b""
    value, failed = pickle.loads(_broadcast(content))
    if failed:
        raise FirstProcessError("The first process has failed; it reports why.") from failure
    return value


def by_first(function: Callable[P, T]) -> Callable[P, T]:
    """Makes a function that the first process executes for all, as `from_first` does."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        return from_first(lambda: function(*args, **kwargs))

    return called


def _broadcast(content: bytes) -> bytes:
    """Returns on every process the bytes that the first one has."""
    size = multihost_utils.broadcast_one_to_all(np.array(divmod(len(content), _LIMIT), np.int32))
    number = int(size[0]) * _LIMIT + int(size[1])
    # Powers of two, so that JAX compiles few programs.
    own = np.frombuffer(content.ljust(1 << number.bit_length(), b"\0"), np.uint8)
    return multihost_utils.broadcast_one_to_all(own)[:number].tobytes()


def differing(content: bytes) -> list[int]:
    """Returns the numbers of the processes whose bytes differ from those of the first.

    Args:
      content: As many bytes on every process.
    """
    if not are_several():
        return []
    every = multihost_utils.process_allgather(np.frombuffer(content, np.uint8))
    return np.flatnonzero((every != every[0]).any(axis=1)).tolist()
