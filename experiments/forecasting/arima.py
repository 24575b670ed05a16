"""ARIMA forecasts from rolling origins, with a model that is fitted once by statsmodels."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Order = tuple[int, int, int]

ORDERS: tuple[Order, ...] = ((1, 0, 0), (3, 0, 0), (2, 0, 1), (0, 1, 1), (1, 1, 1), (2, 1, 2))
"""The orders p, d, q that are tried."""


class Arima(NamedTuple):
    """A fitted model.

    Attributes:
      order: p, d, q.
      forecasts: The forecasts from each origin, 1 to ``ahead`` steps ahead.
    """

    order: Order
    forecasts: Float[np.ndarray, "origins ahead"]


def arima(
    series: Float[np.ndarray, " steps"],
    fitted: int,
    chosen: int,
    ahead: int,
    *,
    history: int = 2000,
    orders: Sequence[Order] = ORDERS,
) -> Arima:
    """Computes the forecasts of an ARIMA model without constant from every origin of a series.

    The orders are fitted to the last ``history`` steps before ``fitted``, by maximum likelihood;
    the one with the lowest squared error one step ahead between ``fitted`` and ``chosen`` is
    taken, with the coefficients that it has. The Kalman filter then goes through the whole
    series, and no forecast has read anything behind its origin.

    Args:
      series: The values, of mean zero.
      fitted: Steps that are fitted.
      chosen: Where the steps end by which the order is chosen.
      ahead: Steps to forecast from each origin.
      history: The most steps to fit.
      orders: p, d, q to choose from.

    Raises:
      ValueError: If statsmodels is not installed.
    """
    try:
        from statsmodels.tsa.arima.model import ARIMA
    except ImportError:
        raise ValueError(
            "ARIMA needs statsmodels, which is not installed. Install it, or remove arima from "
            "--models."
        ) from None
    found = []
    for order in orders:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a start that was changed, of slow convergence
            model = ARIMA(series[max(0, fitted - history) : fitted], order=order, trend="n")
            result = model.fit().apply(series)
        state = result.filter_results
        forecasts = _from_states(state.design, state.transition, state.filtered_state, ahead)
        errors = forecasts[fitted - 1 : chosen - 1, 0] - series[fitted:chosen]
        found.append((float(np.mean(errors**2)), order, forecasts))
    _, order, forecasts = min(found, key=lambda one: one[0])
    return Arima(order, forecasts)


def _from_states(
    design: np.ndarray, transition: np.ndarray, states: np.ndarray, ahead: int
) -> np.ndarray:
    """Z F^h a_t for every state a_t, h = 1 ... ahead; (steps, ahead)."""
    rows, row = [], design[:, :, 0]
    for _ in range(ahead):
        row = row @ transition[:, :, 0]
        rows.append(row[0])
    return (np.stack(rows) @ states).T
