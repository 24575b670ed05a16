"""What the trained classifiers came to: accuracies, horizons, the summary and the claims."""

import numpy as np
import xarray
from _kit import decisions, rates

from gradflow import flow, statistics, study

WHEN = ("at initialisation", "trained")

LENGTH_BINS = 4

PUBLISHED = {
    "trec": {"conv": (0.912, "Kim 2014: windows of 3, 4, 5")},
    "ag_news": {
        "rnn": (0.8822, "MS course: 120,000 rows, validation"),
        "lstm": (0.8870, "MS course: 120,000 rows, validation"),
    },
    "imdb": {
        "rnn": (0.8460, "Chollet: 500 words, best validation"),
        "lstm": (0.8928, "Chollet: 500 words, best validation"),
        "bi_lstm": (0.8856, "Chollet: 500 words, best validation"),
        "conv": (0.8382, "Chollet: 500 words, best validation"),
    },
}
"""By corpus and model: the accuracy, and what it is of. Kim 2014, arXiv:1408.5882, Table 2,
CNN-rand; Microsoft's AI-For-Beginners; Chollet 2018, Deep Learning with Python, 6.2 to 6.4, whose
Keras keeps the last words of a review, as is done here."""


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


def summary(dataset: xarray.Dataset) -> str:
    """Accuracy and horizon of each model, what is published, and what only one of two gets."""
    attrs, best = dataset.attrs, chosen(dataset)
    rows = [_row(spec, dataset) for spec in map(str, dataset.model.values)]
    published = PUBLISHED[attrs["data"]]
    return "\n".join(
        [
            study.table(rows),
            f"(trained on {attrs['learnt']} texts with a vocabulary of {attrs['words']} words; "
            f"tested once, on {dataset.sizes['example']} texts)",
            f"The model with the fewest validation errors is {best}, with test accuracy "
            f"{_written(accuracy(dataset, best))}.",
            *(f"Published for {spec}: {value} ({of})." for spec, (value, of) in published.items()),
            *(_lost(dataset, spec) for spec in gated(dataset)),
        ]
    )


def _row(spec: str, dataset: xarray.Dataset) -> dict[str, str]:
    data, bins, longest = dataset.sel(model=spec), length_bins(dataset), int(dataset.lag[-1])
    reached = [np.median(horizons(data.log_norm.sel(when=when))) for when in WHEN]
    return {
        "model": spec,
        "test accuracy": _written(accuracy(dataset, spec)),
        "validation": f"{1 - float(data.error.min('epoch').mean()):.3f}",
        "shortest": f"{float(correct(data).isel(example=bins[0]).mean()):.3f}",
        "longest": f"{float(correct(data).isel(example=bins[-1]).mean()):.3f}",
        "best epoch": f"{float(data.best_epoch.mean()):.1f}",
        **{
            f"horizon {when}": "-" if np.isnan(lag) else rates.lag_text(float(lag), longest)
            for when, lag in zip(WHEN, reached, strict=True)
        },
    }


def _written(values: np.ndarray) -> str:
    """The mean over seeds, with its interval if there is one."""
    found = statistics.estimate(values)
    return f"{found:.3f}" if np.isfinite(found.low) else f"{found.value:.3f}"


def _lost(dataset: xarray.Dataset, spec: str) -> str:
    """How many texts most seeds of one of two models get right and most of the other do not."""
    right = correct(dataset).mean("seed") > 0.5
    ours, theirs = right.sel(model=spec).values, right.sel(model="rnn").values
    length = dataset.length.values

    def number(texts: np.ndarray) -> str:
        median = f" (median {np.median(length[texts]):.0f} words)" if texts.any() else ""
        return f"{texts.sum()}{median}"

    return (
        f"Texts that {spec} alone gets right: {number(ours & ~theirs)}; rnn alone: "
        f"{number(theirs & ~ours)}; of {number(length > 0)}."
    )


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
