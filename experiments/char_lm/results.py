"""What the trained language models came to: bits, horizons, and the claims about them."""

import numpy as np
import xarray
from _kit import decisions

from gradflow import flow, statistics, study
from gradflow.spec import parse_spec

TARGET = 2.5
"""The bits per character that a network of the default size reaches on Tiny Shakespeare."""


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
        measured=study.Measured.of(spec, bits, "bits per character"),
        criterion=f"the 95 % interval, over {over(dataset)}, lies below {TARGET}",
    )
