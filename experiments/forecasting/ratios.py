"""What the models came to on a real series, and the claims about them."""

from collections.abc import Iterator

import numpy as np
import xarray
from _kit import decisions

from forecasting.measuring import AHEAD
from forecasting.reach import further_is_better, horizon
from gradflow import statistics, study

BLOCK = 4 * AHEAD
"""Origins in a block of the bootstrap."""

BASELINES = {"naive": "the naive forecast", "seasonal": "that of a season before"}

STEPS = ("one step ahead", f"over {AHEAD} steps")

PUBLISHED_BITCOIN = (
    "Published, of other dates and prices and so for scale alone: Raju & Tarif 2020 give an RMSE "
    "of 198.448 USD\nfor an LSTM that reads prices, 197.515 for one that reads more, and 209.263 "
    "for ARIMA; none for the naive forecast."
)


def ratios(
    dataset: xarray.Dataset, name: str, *, to: str = "naive"
) -> tuple[statistics.Estimate, statistics.Estimate]:
    """Computes the squared error over that of another model, at one step and over all steps."""
    data = dataset.square.dropna("origin", how="all")

    def ratio(leads: list[int]) -> statistics.Estimate:
        own, other = (data.sel(model=m, lead=leads).mean("lead").values for m in (name, to))
        ends = statistics.block_bootstrap(own, other, BLOCK)
        return statistics.Estimate(float(own.mean() / other.mean()), *ends)

    return ratio([1]), ratio(list(data.lead.values))


def summary(dataset: xarray.Dataset) -> str:
    """The table of each view, and which models are better than the baselines."""
    views = [_summary_view(dataset.sel(view=view)) for view in dataset.view.values]
    lines = [f"{dataset.attrs['series']}, intervals by blocks of {BLOCK} origins", *views]
    if dataset.attrs["series"] == "bitcoin":
        lines.append(PUBLISHED_BITCOIN)
    return "\n\n".join(lines)


def _summary_view(data: xarray.Dataset) -> str:
    rows = [_row(data, name) for name in _models(data)]
    unit = str(data.unit.values)
    return "\n".join([f"RMSE one step ahead, in {unit}", study.table(rows), *_better(data)])


def _row(data: xarray.Dataset, name: str) -> dict[str, str]:
    (one, all_steps), own, view = ratios(data, name), data.sel(model=name), str(data.view.values)
    as_price = {"as price": f"{price_error(data, name):.5g}"} if view == "returns" else {}
    return {
        view: name,
        "RMSE train": f"{float(own.rmse_train):.5g}",
        "RMSE test": f"{np.sqrt(float(own.square.sel(lead=1).mean())):.5g}",
        "MSE / naive": f"{one:.3f}",
        f"RMSE 1-{AHEAD}": f"{np.sqrt(float(own.square.mean())):.5g}",
        f"MSE / naive, 1-{AHEAD}": f"{all_steps:.3f}",
        "in 80 %": f"{float(own.coverage):.2f}",
        "horizon": horizon(data, name)[1],
        **as_price,
    }


def _models(data: xarray.Dataset) -> list[str]:
    return [str(name) for name in data.model.values]


def _better(data: xarray.Dataset) -> Iterator[str]:
    """The models whose interval lies below 1, for each baseline and number of steps."""
    names = _models(data)
    for other in (name for name in BASELINES if name in names):
        found = {name: ratios(data, name, to=other) for name in names if name != other}
        for step, when in enumerate(STEPS):
            better = [name for name, ratio in found.items() if decisions.below(ratio[step], 1)]
            yield f"Better than {BASELINES[other]} {when}: {', '.join(better) or 'none'}."


def price_error(data: xarray.Dataset, name: str) -> float:
    """Computes the RMSE, in prices, of the first seed's next price, from its next return."""
    found = data.forecast.sel(model=name, lead=1).dropna("origin")
    at, prices = found.origin.values, data.value.values
    return float(np.sqrt(np.mean((prices[at] * np.exp(found.values / 100) - prices[at + 1]) ** 2)))


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """Whether some model beats the baselines, and whether further reach forecasts better."""
    return [
        claim for view in dataset.view.values for claim in _claims_of_view(dataset.sel(view=view))
    ]


def _claims_of_view(data: xarray.Dataset) -> Iterator[study.Claim]:
    names, view = _models(data), str(data.view.values)
    baselines = [name for name in BASELINES if name in names]
    found = {
        name: [ratios(data, name, to=other) for other in baselines]
        for name in names
        if name not in baselines
    }
    for step, when in enumerate(STEPS if found else ()):
        of_step = {name: [ratio[step] for ratio in each] for name, each in found.items()}
        yield _beaten(data, baselines, of_step, when)
    horizons = np.array([horizon(data, name)[0] for name in names])
    errors = np.array([float(data.square.sel(model=name).mean()) for name in names])
    id = decisions.identifier("further-is-better", view)
    where = f" ({data.attrs['series']}, {view})"
    yield from further_is_better(id, where, horizons, errors)


def _beaten(
    data: xarray.Dataset,
    baselines: list[str],
    found: dict[str, list[statistics.Estimate]],
    when: str,
) -> study.Claim:
    """Whether some model beats all baselines; the numbers are those of the best model."""
    view = str(data.view.values)
    decided = [decisions.every(decisions.below(r, 1) for r in each) for each in found.values()]
    # Some model beats them unless every model fails to.
    fails = decisions.every(None if one is None else not one for one in decided)
    best = min(found, key=lambda name: max(_upper(ratio) for ratio in found[name]))
    against = " and ".join(BASELINES[name] for name in baselines)
    return study.claim(
        decisions.identifier("beats-baselines", view, when),
        f"On {data.attrs['series']} ({view}) some model beats {against} {when}.",
        None if fails is None else not fails,
        measured={
            f"squared error of {best} over {BASELINES[name]}": ratio
            for name, ratio in zip(baselines, found[best], strict=True)
        },
        criterion="the 95 % intervals, by block bootstrap, of one model's ratios lie below 1",
    )


def _upper(ratio: statistics.Estimate) -> float:
    """The upper end of the interval; the ratio itself where there are too few blocks for one."""
    return ratio.high if np.isfinite(ratio.high) else ratio.value
