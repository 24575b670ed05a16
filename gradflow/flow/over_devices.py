"""Measurements of one network that is too large for one device: its rows lie on several."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax

from gradflow.numerics.distributed import by_rows_over

_P = ParamSpec("_P")
_R = TypeVar("_R")


def over_devices(
    measure: Callable[_P, _R], *, devices: Sequence[Any] | None = None
) -> Callable[_P, _R]:
    """Returns a measurement that distributes the rows of its products over devices.

    ::

        norms = flow.over_devices(flow.log_norms)(cell, params, inputs)

    The rows of S_target · J_T ... J_{k+1} are pulled back independently of each other, so that each
    device pulls an equal number of them through all steps, without communication. For a spectral
    norm and for a QR they are exchanged once, so that each device has all rows of an equal number
    of columns; the inner products of the search, of its certificate, and of Gram-Schmidt are sums
    over the devices. The Frobenius norm takes one sum a step. Numbers and certificates are those of
    one device to rounding.

    What stays whole on each device: the parameters; A Aᵀ where a norm is certified by a
    factorisation, or decomposed; for the map, the squares of the factors of a tile; and what is
    computed where a frame or a spectrum meets a step of extreme condition. A carry that falls into
    blocks is measured block by block and not distributed.

    Args:
      measure: A measurement, such as `log_norms`, `log_norm_map`, `log_singular_values` or
        `lyapunov_exponents`, or a function that calls some, compiled or differentiated.
      devices: The devices; by default all, of all processes, each of which makes the same call.

    Returns:
      A function of the same arguments; every device has the result.

    Raises:
      ValueError: If there is no device, or, when it is called, inside of `jax.jit` or `jax.grad`.
    """

    @wraps(measure)
    def measured(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with by_rows_over(jax.devices() if devices is None else devices):
            return measure(*args, **kwargs)

    return measured
