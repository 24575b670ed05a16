"""What the trained encoder-decoders came to, and the claims about them."""

from typing import TYPE_CHECKING

from _kit import curves, decisions

from gradflow import statistics, study

if TYPE_CHECKING:
    import xarray

STAGES = ("initialisation", "trained")


def reaching(dataset: "xarray.Dataset") -> "xarray.DataArray":
    """Computes log10 of ‖∂L/∂s_1‖ over ‖∂L/∂s_T‖ in the encoder, by cell, stage and seed."""
    first = dataset.log_adjoint.isel(step=1) - dataset.log_adjoint.sel(step=0)
    return first.median("sequence") / curves.NATS


def claims(dataset: "xarray.Dataset") -> list[study.Claim]:
    """What gated cells gain, what free-running costs, and what training does to the gradient."""
    cells = [str(cell) for cell in dataset.cell.values]
    others = [cell for cell in cells if cell != "rnn"] if "rnn" in cells else []
    return [
        *(_gains(dataset, cell) for cell in others),
        *(_costs(dataset, cell) for cell in cells),
        *(_lifts(dataset, cell) for cell in cells),
    ]


def _gains(dataset: "xarray.Dataset", cell: str) -> study.Claim:
    correct = dataset.sequences.isel(update=-1)
    gain = statistics.estimate((correct.sel(cell=cell) - correct.sel(cell="rnn")).values)
    return study.claim(
        decisions.identifier("more-sequences", cell),
        f"{cell} writes more held-out sequences correctly than rnn.",
        decisions.above(gain),
        measured=study.Measured.of("accuracy of sequences less that of rnn", gain),
        criterion="the 95 % interval of the paired differences over seeds lies above 0",
    )


def _costs(dataset: "xarray.Dataset", cell: str) -> study.Claim:
    data = dataset.sel(cell=cell)
    cost = statistics.estimate((data.forced - data.free).mean("update").values)
    return study.claim(
        decisions.identifier("free-running-costs", cell),
        f"Free-running costs accuracy of characters, on average over the training ({cell}).",
        decisions.above(cost),
        measured=study.Measured.of("accuracy under teacher forcing less free-running", cost),
        criterion="the 95 % interval of the paired differences over seeds lies above 0",
    )


def _lifts(dataset: "xarray.Dataset", cell: str) -> study.Claim:
    before, after = (reaching(dataset.sel(cell=cell, stage=stage)).values for stage in STAGES)
    lift = statistics.estimate(after - before)
    return study.claim(
        decisions.identifier("training-lifts", cell),
        "Training increases the gradient at the encoder's first step, relative to that at its last "
        f"({cell}).",
        decisions.above(lift),
        measured=study.Measured.of("change of log10 ‖∂L/∂s_1‖ / ‖∂L/∂s_T‖", lift),
        criterion="the 95 % interval of the change over seeds lies above 0",
    )
