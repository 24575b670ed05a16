"""What the trained classifiers came to: accuracies, horizons, and the claims about them."""

import numpy as np
import xarray
from _kit import decisions

from gradflow import flow, study

WHEN = ("at initialisation", "trained")

LENGTH_BINS = 4


def correct(dataset: xarray.Dataset) -> xarray.DataArray:
    """Tells whether each model of each seed predicted the class of each test text."""
    return dataset.predicted == dataset.label


def accuracy(dataset: xarray.Dataset, spec: str) -> np.ndarray:
    """Computes the test accuracy of a model, by seed."""
    return correct(dataset).sel(model=spec).mean("example").values


def horizons(log_norm: xarray.DataArray) -> np.ndarray:
    """Computes the lag, by seed, at which the median norm is 1e-3; infinite beyond the longest."""
    curves = log_norm.transpose("seed", "sequence", "lag").values
    return np.array([np.nan if np.isnan(c).all() else flow.summary(c).horizon for c in curves])


def length_bins(dataset: xarray.Dataset) -> list[np.ndarray]:
    """Divides the test texts by length into parts of about one size, the shortest first."""
    length = dataset.length.values
    edges = np.unique(np.quantile(length, np.linspace(0, 1, LENGTH_BINS + 1)[1:-1], method="lower"))
    place = np.searchsorted(edges, length)
    parts = [np.flatnonzero(place == part) for part in range(len(edges) + 1)]
    return [part for part in parts if len(part)]


def chosen(dataset: xarray.Dataset) -> str:
    """Gives the model with the fewest validation errors, by the mean over its seeds."""
    return str(dataset.model.values[int(dataset.error.min("epoch").mean("seed").argmin("model"))])


def gated(dataset: xarray.Dataset) -> list[str]:
    """Gives the gated cells that are compared with the tanh RNN; none without that."""
    specs = [str(spec) for spec in dataset.model.values]
    return [spec for spec in ("lstm", "gru") if {"rnn", spec} <= set(specs)]


def confusions(dataset: xarray.Dataset, spec: str) -> np.ndarray:
    """Computes the fraction of the texts of each class (row) predicted as each (column)."""
    number = len(dataset.attrs["classes"])
    predicted = dataset.predicted.sel(model=spec).values
    counts = np.zeros((number, number))
    np.add.at(counts, (np.broadcast_to(dataset.label.values, predicted.shape), predicted), 1)
    return counts / counts.sum(axis=1, keepdims=True)


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """Whether gated cells classify better than the tanh RNN, and whether they reach further."""
    specs = gated(dataset)
    return [
        *(_better(dataset, spec) for spec in specs),
        *(_further(dataset, spec) for spec in specs),
    ]


def _better(dataset: xarray.Dataset, spec: str) -> study.Claim:
    return decisions.positive(
        f"classifies-better-{spec}",
        f"On {dataset.attrs['data']} {spec} classifies better than rnn.",
        "test accuracy less that of rnn",
        accuracy(dataset, spec) - accuracy(dataset, "rnn"),
    )


def _further(dataset: xarray.Dataset, spec: str) -> study.Claim:
    # A horizon beyond the longest lag counts as that lag: this can only make differences smaller.
    longest, trained = dataset.lag.values[-1], dataset.log_norm.sel(when=WHEN[1])
    own, other = (np.minimum(horizons(trained.sel(model=m)), longest) for m in (spec, "rnn"))
    return decisions.positive(
        f"reaches-further-{spec}",
        f"On {dataset.attrs['data']} the gradient of {spec} reaches further than that of rnn after "
        "training.",
        "horizon less that of rnn",
        own - other,
        unit="steps",
    )
