"""ARIMA from rolling origins, against statsmodels' own forecasts."""

import sys

import numpy as np
import pytest
from studies import load_part

arima = load_part("forecasting.arima").arima
SERIES = np.random.default_rng(0).normal(size=60).cumsum()


@pytest.mark.parametrize("order", [(1, 0, 0), (1, 1, 1)])
def test_arima_from_an_origin_is_what_statsmodels_forecasts(order):
    model = pytest.importorskip("statsmodels.tsa.arima.model")
    values = SERIES - SERIES[:40].mean()
    found = arima(values, 40, 48, 5, orders=[order])
    fitted = model.ARIMA(values[:40], order=order, trend="n").fit()
    for origin in (30, 50):
        expected = fitted.apply(values[: origin + 1]).forecast(5)
        np.testing.assert_allclose(found.forecasts[origin], expected, rtol=1e-8)
    errors = []
    for one in ((1, 0, 0), order):
        forecasts = arima(values, 40, 48, 5, orders=[one]).forecasts
        errors.append(np.mean((forecasts[39:47, 0] - values[40:48]) ** 2))
    chosen = arima(values, 40, 48, 5, orders=[(1, 0, 0), order]).order
    assert chosen == ((1, 0, 0), order)[int(np.argmin(errors))]


def test_without_statsmodels_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels.tsa.arima.model", None)
    with pytest.raises(ValueError, match="ARIMA needs statsmodels, which is not installed"):
        arima(SERIES, 40, 48, 5)
