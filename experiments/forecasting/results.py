"""What the models came to on generated series, and the claims about them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import xarray
from _kit import decisions

from forecasting.generated import COLUMNS
from forecasting.reach import further_is_better, horizon
from gradflow import statistics, study

NOTEBOOK = {
    ("naive", "one"): 0.020211,
    ("naive", "direct"): 0.256974,
    ("linear", "one"): 0.00417,
    ("linear", "direct"): 0.0187,
    ("deep_rnn", "one"): 0.00262,
    ("deep_rnn", "iterated"): 0.02751,
    ("deep_rnn", "direct"): 0.0085,
    ("deep_rnn", "seq2seq"): 0.0096,
    ("batch_norm", "seq2seq"): 0.0164,
    ("deep_lstm", "seq2seq"): 0.0086,
    ("deep_gru", "seq2seq"): 0.0103,
    ("conv_deep_gru", "seq2seq"): 0.0080,
}
"""Validation errors that the notebook prints, of one run each; its linear model is trained."""


class Limit(NamedTuple):
    """An error that a model is claimed to stay below.

    Attributes:
      id: That of the claim.
      statement: The claim.
      model: The model; None for the best over ten steps.
      below: The bound of its error.
    """

    id: str
    statement: str
    model: str | None
    below: float


LIMITS = (
    Limit("linear-one-step", "A line fitted by least squares has an error of at most 0.0029, to "
          "two digits, one step ahead.", "linear", 0.00295),
    Limit("deep-rnn-one-step", "The deep RNN has an error of at most 0.0033 one step ahead.",
          "deep_rnn", 0.0033),
    Limit("ten-at-once", "The best model has an error of at most 0.012 over ten steps at once.",
          None, 0.012),
)  # fmt: skip


def best(dataset: xarray.Dataset) -> tuple[str, str]:
    """Finds the model and the column with the lowest error over ten steps at once."""
    errors = dataset.mse.sel(column=["direct", "seq2seq"]).mean("seed")
    place = np.unravel_index(np.nanargmin(errors.values), errors.shape)
    return str(errors.model.values[place[0]]), str(errors.column.values[place[1]])


def published_for(dataset: xarray.Dataset, name: str, column: str) -> float | None:
    """Gives the error that the notebook prints, if the windows have its length."""
    return NOTEBOOK.get((name, column)) if _has_published_windows(dataset) else None


def _has_published_windows(dataset: xarray.Dataset) -> bool:
    return dataset.sizes["step"] == 50


def summary(dataset: xarray.Dataset) -> str:
    """The table of all errors."""
    rows = [_row(dataset, str(name)) for name in dataset.model.values]
    return f"{study.table(rows)}\n(validation error, median over seeds; in brackets: published)"


def _row(dataset: xarray.Dataset, name: str) -> dict[str, str]:
    errors = dataset.mse.sel(model=name).median("seed")
    found = {column: float(errors.sel(column=column)) for column in COLUMNS}
    last = "seq2seq" if np.isfinite(found["seq2seq"]) else "direct"
    return {
        "model": name,
        **{column: _shown(dataset, name, column, value) for column, value in found.items()},
        "in 80 %": f"{float(dataset.coverage.sel(model=name, column=last)):.2f}",
        "horizon": horizon(dataset, name)[1],
    }


def _shown(dataset: xarray.Dataset, name: str, column: str, value: float) -> str:
    published = published_for(dataset, name, column)
    shown = f"{value:.{6 if name == 'naive' else 5}f}" if np.isfinite(value) else ""
    return f"{shown} ({published})" if published else shown


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """Whether errors are as low as published, and what forecasts better than what."""
    names = [str(name) for name in dataset.model.values]
    horizons = np.array([horizon(dataset, name)[0] for name in names])
    errors = dataset.mse.sel(column="seq2seq").mean("seed").values
    return [
        *([_naive(dataset), *_low_errors(dataset)] if _has_published_windows(dataset) else []),
        *_at_once(dataset),
        *further_is_better("further-is-better", "", horizons, errors),
    ]


def _naive(dataset: xarray.Dataset) -> study.Claim:
    columns = {"one": "one step", "direct": "ten steps"}
    errors = dataset.mse.sel(model="naive").median("seed")
    found = {words: float(errors.sel(column=column)) for column, words in columns.items()}
    published = [NOTEBOOK["naive", column] for column in columns]
    off = np.abs(np.subtract(list(found.values()), published))
    return study.claim(
        "naive-as-published",
        "The naive forecast has the published errors, one and ten steps ahead.",
        bool(off.max() < 1e-6),
        measured=found,
        criterion="both are within 1e-6 of {} and {}".format(*published),
        digits=6,
    )


def _low_errors(dataset: xarray.Dataset) -> Iterator[study.Claim]:
    for limit in LIMITS:
        model, column = best(dataset) if limit.model is None else (limit.model, "one")
        if model not in dataset.model:
            continue
        error = statistics.estimate(dataset.mse.sel(model=model, column=column).values)
        yield study.claim(
            limit.id,
            limit.statement,
            decisions.below(error, limit.below),
            measured={f"squared error of {model} ({column})": error},
            criterion=f"the 95 % interval over seeds lies below {limit.below:g}",
        )


def _at_once(dataset: xarray.Dataset) -> Iterator[study.Claim]:
    """Errors of autoregressive forecasts over those of ten at once: other networks, the same."""
    pairs = (
        ("at-once-other-networks", "iterated", "direct",
         "Networks asked for ten values at once forecast better than networks trained for one step "
         "that run autoregressively."),
        ("at-once-same-networks", "own", "seq2seq",
         "A network asked for ten values at once forecasts better than when it runs "
         "autoregressively."),
    )  # fmt: skip
    for id, slow, fast, statement in pairs:
        logs = np.log(dataset.mse.sel(column=slow) / dataset.mse.sel(column=fast))
        logs = logs.dropna("model", how="all").drop_sel(model="linear", errors="ignore")
        if not logs.size:
            continue
        ratio = statistics.estimate(logs.mean("model").values).map(np.exp)
        least = float(np.exp(logs.mean("seed").min()))
        yield study.claim(
            id,
            statement,
            decisions.above(ratio, 1),
            measured={
                "error autoregressive over at once, mean over models": ratio,
                "the least of a model": least,
            },
            criterion="the 95 % interval over seeds of the ratio of the errors lies above 1",
        )
