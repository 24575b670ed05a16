"""A tiny experiment: powers of a gain, in units of work that log themselves and can be killed."""

import os
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import jax.numpy as jnp
import numpy as np
import xarray

from gradflow import study

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Config(study.Config):
    cells: tuple[str, ...] = study.field(("lstm", "gru"), help="What to measure.")
    gains: tuple[float, ...] = study.field((0.5, 0.25), help="Gains.", positive=True)
    num_steps: int = study.field(6, help="The largest lag.", positive=True)
    norm: Literal["spectral", "frobenius"] = study.field("spectral", help="Which norm.")
    bias: float | None = study.field(None, help="A bias, if any.")
    centre: bool = study.field(False, help="Whether to centre.")
    log: str = study.field("", help="A folder whose log.txt gets a line a unit.")
    kill_at: str = study.field("", help="The unit that kills its process the first time.")
    fail: str = study.field("", help="The stage that fails: run, figure or none.")


def measure(config: Config, cell: str) -> xarray.Dataset:
    log = Path(config.log, "log.txt")
    if config.kill_at == cell and cell not in log.read_text():
        log.write_text(log.read_text() + f"killed {cell}\n")
        os.kill(os.getpid(), signal.SIGKILL)
    if config.log:
        with log.open("a") as file:
            file.write(f"computed {cell}\n")
    log_norm = jnp.arange(config.num_steps) * jnp.log(jnp.asarray(config.gains))[:, None]
    dims = ("gain", "lag")
    return xarray.Dataset({"log_norm": (dims, np.asarray(log_norm))}).expand_dims(cell=[cell])


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    parts = [once(f"cell={cell}", partial(measure, config, cell)) for cell in config.cells]
    if config.fail == "run":
        raise ValueError("the gain is expected\nto be small")
    return xarray.concat(parts, dim="cell", join="exact")


def figure(dataset: xarray.Dataset) -> "Figure":
    from matplotlib.figure import Figure

    if "figure" in dataset.attrs["config"].split('"fail": ')[1]:
        raise ValueError("the figure is expected to be simple")
    drawn = Figure()
    ax = drawn.subplots()
    for index, cell in enumerate(dataset.cell.values):
        look = study.figure.cell_style(str(cell), index)
        values = dataset.log_norm.sel(cell=cell)
        study.figure.band(ax, dataset.lag, values, "gain", label=str(cell), **look)
    ax.set_xlabel(r"lag, $\partial h_t/\partial h_k$")
    ax.legend()
    return drawn


def summary(dataset: xarray.Dataset) -> str:
    return f"smallest log norm {float(dataset.log_norm.min()):.6f}"


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    smallest = float(dataset.log_norm.min())
    return [
        study.claim(
            "vanishing",
            "Powers of a gain below one vanish.",
            smallest < 0,
            measured={"smallest log norm": smallest},
            criterion="the smallest log norm is below 0",
        )
    ]


EXPERIMENT = study.Experiment(
    name="tiny",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    quick={"num_steps": 3, "num_seeds": 2},
    full={"num_steps": 50},
    doc="Powers of a gain vanish.\n\nlog norm = lag · log gain.\n",
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
