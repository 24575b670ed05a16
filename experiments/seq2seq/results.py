"""What the trained encoder-decoders came to, and the claims about them."""

import xarray
from _kit import curves, decisions

from gradflow import study

STAGES = ("initialisation", "trained")


def reaching(dataset: xarray.Dataset) -> xarray.DataArray:
    """Computes log10 of ‖∂L/∂s_1‖ over ‖∂L/∂s_T‖ in the encoder, by cell, stage and seed."""
    first = dataset.log_adjoint.isel(step=1) - dataset.log_adjoint.sel(step=0)
    return first.median("sequence") / curves.NATS


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """What gated cells gain, what free-running costs, and what training does to the gradient."""
    cells = [str(cell) for cell in dataset.cell.values]
    others = [cell for cell in cells if cell != "rnn"] if "rnn" in cells else []
    return [
        *(_gains(dataset, cell) for cell in others),
        *(_costs(dataset, cell) for cell in cells),
        *(_lifts(dataset, cell) for cell in cells),
    ]


def _gains(dataset: xarray.Dataset, cell: str) -> study.Claim:
    correct = dataset.sequences.isel(update=-1)
    return decisions.positive(
        decisions.identifier("more-sequences", cell),
        f"{cell} writes more held-out sequences correctly than rnn.",
        "accuracy of sequences less that of rnn",
        (correct.sel(cell=cell) - correct.sel(cell="rnn")).values,
    )


def _costs(dataset: xarray.Dataset, cell: str) -> study.Claim:
    data = dataset.sel(cell=cell)
    return decisions.positive(
        decisions.identifier("free-running-costs", cell),
        f"Free-running costs accuracy of characters, on average over the training ({cell}).",
        "accuracy under teacher forcing less free-running",
        (data.forced - data.free).mean("update").values,
    )


def _lifts(dataset: xarray.Dataset, cell: str) -> study.Claim:
    before, after = (reaching(dataset.sel(cell=cell, stage=stage)).values for stage in STAGES)
    return decisions.positive(
        decisions.identifier("training-lifts", cell),
        "Training increases the gradient at the encoder's first step, relative to that at its last "
        f"({cell}).",
        "change of log10 ‖∂L/∂s_1‖ / ‖∂L/∂s_T‖",
        after - before,
    )
