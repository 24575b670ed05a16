"""What the trained language models came to: bits, horizons, the summary and the claims."""

import numpy as np
import xarray
from _kit import decisions, rates, tuning

from gradflow import flow, statistics, study
from gradflow.spec import parse_spec

TARGET = 2.5
"""The bits per character that a network of the default size reaches on Tiny Shakespeare."""


WHEN = ("at initialisation", "trained")

PUBLISHED = {"minGRU": 1.548, "Transformer": 1.547, "Mamba": 1.575}
"""Test losses on Tiny Shakespeare in nats per character: Feng et al. 2024."""


def per_character(dataset: xarray.Dataset) -> xarray.DataArray:
    """Computes the bits per character of the last tenth, by cell, seed and update."""
    return dataset.bits.weighted(dataset.length).mean("stretch")


def samples(dataset: xarray.Dataset, spec: str) -> np.ndarray:
    """Gives the final bits of each seed; of a single seed, those of each stretch of text."""
    last = dataset.sel(cell=spec).isel(update=-1)
    several = dataset.sizes["seed"] > 1
    return per_character(last).values if several else last.bits.isel(seed=0).values


def over(dataset: xarray.Dataset) -> str:
    """Names what the intervals of the bits are over."""
    return "seeds" if dataset.sizes["seed"] > 1 else "stretches of text"


def final_bits(dataset: xarray.Dataset, spec: str) -> statistics.Estimate:
    """Computes the bits per character after the training."""
    value = float(per_character(dataset.sel(cell=spec).isel(update=-1)).mean())
    return statistics.Estimate(value, *statistics.interval(samples(dataset, spec)))


def best(dataset: xarray.Dataset) -> str:
    """Gives the cell that needs the fewest bits."""
    return min(map(str, dataset.cell.values), key=lambda spec: final_bits(dataset, spec).value)


def horizons(dataset: xarray.Dataset, spec: str, probing: int) -> np.ndarray:
    """Computes the lag, by seed, at which ‖∂h_T/∂h_k‖ is 1e-3; infinite beyond the longest lag."""
    return flow.horizons(dataset.log_norm.sel(cell=spec).isel(probe_update=probing).values)


def summary(dataset: xarray.Dataset) -> str:
    """The bits and horizons of each cell, and what is published."""
    rows = [_row(spec, dataset) for spec in map(str, dataset.cell.values)]
    published = ", ".join(f"{name} {nats / np.log(2):.2f}" for name, nats in PUBLISHED.items())
    whole = dataset.attrs["num_characters"]
    held_out = whole - dataset.attrs["num_trained"]
    return "\n".join(
        [
            study.table(rows),
            f"(held out: the last {held_out} of {whole} characters; 95 % over {over(dataset)})",
            f"The frequencies of the characters alone give {dataset.attrs['alone']:.2f} bits per "
            "character.",
            f"Published for Tiny Shakespeare, larger networks, other splits: {published}.",
            f"The best network is {best(dataset)}.",
            tuning.note(dataset),
        ]
    )


def _row(spec: str, dataset: xarray.Dataset) -> dict[str, str]:
    data, longest = dataset.sel(cell=spec), dataset.sizes["lag"] - 1
    reached = [np.median(horizons(dataset, spec, at)) for at in (0, -1)]
    return {
        "cell": spec,
        "rate": tuning.text(data),
        "weights": f"{int(data.num_weights[0])}",
        "bits per character": f"{final_bits(dataset, spec):.3f}",
        "on the training text": f"{float(data.train_bits.isel(update=-1).mean()):.3f}",
        **{
            f"horizon {when}": rates.lag_text(float(lag), longest)
            for when, lag in zip(WHEN, reached, strict=True)
        },
    }


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """Whether gated cells need fewer bits than tanh and reach further, and what the best needs."""
    specs = [str(spec) for spec in dataset.cell.values]
    gated = [spec for spec in specs if parse_spec(spec)[0] in ("lstm", "gru") and "rnn" in specs]
    return [
        *(_fewer_bits(dataset, spec) for spec in gated),
        *(_reaches_further(dataset, spec) for spec in gated),
        _few_enough(dataset, best(dataset)),
    ]


def _fewer_bits(dataset: xarray.Dataset, spec: str) -> study.Claim:
    return decisions.positive(
        decisions.identifier("fewer-bits", parse_spec(spec)[0]),
        f"{spec} needs fewer bits per character than rnn, each at its own learning rate.",
        "bits of rnn less its own",
        samples(dataset, "rnn") - samples(dataset, spec),
        unit="bits per character",
        over=over(dataset),
    )


def _reaches_further(dataset: xarray.Dataset, spec: str) -> study.Claim:
    # A horizon beyond the longest lag counts as that lag: this can only make differences smaller.
    longest = dataset.sizes["lag"] - 1
    own, other = (np.minimum(horizons(dataset, one, -1), longest) for one in (spec, "rnn"))
    return decisions.positive(
        decisions.identifier("reaches-further", parse_spec(spec)[0]),
        f"After training the gradient of {spec} is above 1e-3 for more steps than that of rnn.",
        "horizon less that of rnn",
        own - other,
        unit="steps",
    )


def _few_enough(dataset: xarray.Dataset, spec: str) -> study.Claim:
    bits = final_bits(dataset, spec)
    return study.claim(
        "few-bits",
        f"The best network needs fewer than {TARGET} bits per character of the held-out text.",
        decisions.below(bits, TARGET),
        measured={spec: bits},
        unit="bits per character",
        criterion=f"the 95 % interval, over {over(dataset)}, lies below {TARGET}",
    )
