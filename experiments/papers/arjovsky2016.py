"""At initialisation a unitary RNN keeps the gradient's norm over all lags; other networks lose it.

Measures ‖∂C/∂h_t‖ against the time step t on the adding problem, where C is the squared error of a
linear readout of h_T. The networks are those of the paper's Fig. 4 and variants of them: tanh and
ReLU networks with different recurrent initialisers, and LSTMs with different forget biases. For an
LSTM ∂C/∂c_t is measured with h_t held fixed, so that its curve begins at lag 1. The slope is fitted
to log10 of the root mean square over sequences, over 60 lags from lag 1 on.

Source: Arjovsky, Shah, Bengio 2016, arXiv:1511.06464, Fig. 4, at initialisation; Le, Jaitly, Hinton
2015, arXiv:1504.00941 (identity); Gers, Schmidhuber, Cummins 2000 and Jozefowicz, Zaremba,
Sutskever 2015 (forget bias).

    python experiments/papers/arjovsky2016.py

Takes about a minute on two cores.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import curves, fields, runs
from _paper import Paper

from gradflow import flow, study
from gradflow.cells import resolve
from gradflow.spec import check_name
from gradflow.study import Claim, derived, numbers, statement
from gradflow.study.figure import Figure
from gradflow.tasks.inputs import make_inputs

G = "recurrent_init='glorot', input_init='glorot'"
NETS = {
    "tanh": (f"rnn({G})", "h"),
    "tanh_orthogonal": ("rnn(input_init='glorot')", "h"),
    "relu": (f"rnn(activation='relu', {G})", "h"),
    "irnn": ("irnn(input_init='glorot')", "h"),
    "gru": (f"gru({G})", "h"),
    "lstm_0": (f"lstm(forget_bias=0.0, {G})", "c"),
    "lstm_1": (f"lstm(forget_bias=1.0, {G})", "c"),
    "lstm_2": (f"lstm(forget_bias=2.0, {G})", "c"),
    "urnn": ("unitary", "h"),
}
"""For each curve the cell, and the block of the carry whose gradient is measured.

The number in the name of an LSTM is its forget bias.
"""

LABELS = {
    "tanh_orthogonal": "tanh, orthogonal",
    "relu": "ReLU",
    "irnn": "IRNN",
    "urnn": "unitary",
    "gru": "GRU",
    "lstm_0": "LSTM, forget bias 0",
    "lstm_1": "LSTM, forget bias 1",
    "lstm_2": "LSTM, forget bias 2",
}
"""The names of the networks in the figure, where they differ."""

LAGS = 60  # over which the slope is fitted

EARLIER: dict[str, Any] = {"kind": "regression", "source": "an earlier measurement of ours"}


@dataclass(frozen=True)
class Config(study.Config):
    """The networks, and the sequences that they are measured on."""

    nets: tuple[str, ...] = study.field(tuple(NETS), help="Names of the networks.")
    hidden_size: int = fields.hidden_size(128)
    num_steps: int = fields.num_steps(200)
    num_sequences: int = fields.num_sequences(4)
    num_seeds: int = fields.num_seeds(5)


def measure(config: Config, name: str) -> xarray.Dataset:
    """Measures log ‖∂C/∂h_k‖ of one network, relative to its value at lag 1.

    The result is the root mean square over sequences, for every seed and every lag from 1 on.
    """
    spec, source = NETS[name]
    cell = resolve(spec)(2, config.hidden_size)
    shape = {"num_sequences": config.num_seeds * config.num_sequences, "input_size": 2}
    key = jax.random.key(config.seed)
    inputs = make_inputs("adding", key, num_steps=config.num_steps, **shape)

    def one(key: jax.Array, x: jax.Array) -> jax.Array:
        k_params, k_readout = jax.random.split(key)
        target = jnp.sum(x[:, 0] * x[:, 1])

        def error(outputs: jax.Array) -> jax.Array:
            size = outputs.shape[1]
            bound = jnp.sqrt(6 / (size + 1))
            w = jax.random.uniform(k_readout, (size,), minval=-bound, maxval=bound)
            return (w @ outputs[-1] - target) ** 2

        return flow.log_adjoint_norms(cell, cell.init(k_params), x, loss=error, source=source)

    # Adjoints stand in the order of t = 0 ... T; reversed without the last, that is lag 1 ... T.
    logs = runs.measure(one, jnp.repeat(runs.keys(config), config.num_sequences), inputs)
    logs = logs[:, -2::-1].reshape(config.num_seeds, config.num_sequences, -1)
    mean = np.logaddexp.reduce(2 * logs, axis=1) / 2
    return xarray.Dataset(
        {"log_norm": (("seed", "lag"), mean - mean[:, :1])},
        coords={"lag": np.arange(1, config.num_steps + 1)},
    )


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures every network; dimensions net, seed, lag."""
    for name in config.nets:
        check_name("network", name, NETS)
    nets = study.progress(config.nets, "networks")
    parts = [once(f"net={name}", partial(measure, config, name)) for name in nets]
    return xarray.concat(parts, dim="net").assign_coords(net=list(config.nets))


def slopes(dataset: xarray.Dataset) -> dict[str, np.ndarray]:
    """Fits the slope of log10 of the norm per step, over 60 lags, for every network and seed."""
    data = dataset.log_norm.isel(lag=slice(0, LAGS + 1)) / curves.NATS
    values = data.transpose("lag", "net", "seed").values
    fits = np.polyfit(data.lag.values, values.reshape(len(values), -1), 1)[0]
    return dict(zip(dataset.net.values, fits.reshape(values.shape[1:]), strict=True))


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The claims about the networks that were run."""
    slope = slopes(dataset)
    decided = [
        (about_identity, {"irnn", "urnn"}),
        (about_relu_and_tanh, {"relu", "tanh", "tanh_orthogonal"}),
        (about_forget_bias, {"lstm_0", "lstm_1", "lstm_2"}),
    ]
    return [claim for make, nets in decided if nets <= set(slope) for claim in make(dataset, slope)]


def about_identity(dataset: xarray.Dataset, slope: dict[str, np.ndarray]) -> list[Claim]:
    """Networks whose step Jacobian is unitary, or is the identity on the active units."""
    return [
        derived(
            "fig4-urnn",
            "The uRNN's ‖∂C/∂h_t‖ is the same at every lag (largest |log ratio| to lag 1).",
            0,
            np.abs(dataset.log_norm.sel(net="urnn").values).max(),
            atol=1e-9,
            source="the step Jacobian is unitary while the bias is zero",
        ),
        numbers(
            "fig4-irnn",
            "The IRNN's ‖∂C/∂h_t‖ does not change with the lag (log10 slope per step).",
            0,
            slope["irnn"],
            atol=0.002,
            kind="derived",
            source="the step Jacobian of ReLU with W_h = I is the identity on the active units",
        ),
    ]


def about_relu_and_tanh(dataset: xarray.Dataset, slope: dict[str, np.ndarray]) -> list[Claim]:
    """Networks whose recurrent initialiser sets the slope."""
    last = dataset.log_norm.median("seed").sel(lag=100, method="nearest") / curves.NATS
    orthogonal = slope["tanh_orthogonal"]
    return [
        statement(
            "fig4-relu",
            "The gradient of a ReLU network with Glorot-uniform weights vanishes.",
            "slope below -0.1",
            {"largest log10 slope": slope["relu"].max()},
            criterion="the log10 slope of every seed is below -0.1",
            holds=(slope["relu"] < -0.1).all(),
            **EARLIER,
        ),
        statement(
            "fig4-orthogonal",
            "The gradient of a tanh network with orthogonal W_h decays slowly.",
            "slope within ±0.05",
            {"least and largest log10 slope": [orthogonal.min(), orthogonal.max()]},
            criterion="the log10 slope of every seed is between -0.05 and 0",
            holds=((orthogonal > -0.05) & (orthogonal < 0)).all(),
            **EARLIER,
        ),
        statement(
            "fig4-tanh",
            "A tanh network with the authors' Glorot-uniform weights keeps its gradient long.",
            "slope about -0.01",
            {
                "median log10 slope": np.median(slope["tanh"]),
                "norm at lag 100 over that at lag 1": 10 ** float(last.sel(net="tanh")),
            },
            criterion="the median log10 slope is between -0.02 and 0",
            holds=-0.02 < np.median(slope["tanh"]) < 0,
            **EARLIER,
        ),
    ]


def about_forget_bias(dataset: xarray.Dataset, slope: dict[str, np.ndarray]) -> list[Claim]:
    """The LSTM and its forget bias."""
    del dataset  # the slopes are enough
    biases = [float(np.median(slope[f"lstm_{b}"])) for b in (0, 1, 2)]
    return [
        statement(
            "fig4-forget",
            "A larger forget bias makes the gradient of an LSTM decay more slowly.",
            "from below -0.1 to above -0.01",
            {"log10 slope at b_f = 0, 1, 2": biases},
            criterion="the slope rises with b_f in 0, 1, 2, from below -0.1 to above -0.01",
            holds=biases[0] < -0.1 and biases[0] < biases[1] < biases[2] and biases[2] > -0.01,
            **EARLIER,
        ),
    ]


def figure(dataset: xarray.Dataset) -> Figure:
    """The norm against the time step, with T on the right as in the paper."""
    fig = study.figure.empty(7.0, 3.4)
    panels = fig.subplots(1, 2, sharey=True)
    steps = dataset.sizes["lag"]
    names = [str(net) for net in dataset.net.values]
    gated = [name for name in names if name.partition("_")[0] in ("gru", "lstm")]
    plain = [name for name in names if name not in gated]
    for ax, nets, title in zip(
        panels,
        (plain, gated),
        ("No gates", "Gates (LSTM: $\\partial C/\\partial c_t$)"),
        strict=True,
    ):
        for index, net in enumerate(nets):
            log10 = dataset.log_norm.sel(net=net).transpose("lag", "seed") / curves.NATS
            look = {**study.figure.series_style(index), "label": LABELS.get(net, net)}
            log10 = log10.where(np.isfinite(log10))
            study.figure.band(ax, steps - dataset.lag, log10, "seed", **look)
        ax.set(xlim=(0, steps), ylim=(-8, 2), xlabel="time step t", title=title)
        if nets:
            ax.legend(loc="lower left")
    panels[0].set_ylabel(r"$\log_{10}\ \|\partial C/\partial h_t\|$ relative to $t = T - 1$")
    return fig


EXPERIMENT = Paper(
    name="papers/arjovsky2016",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={
        "nets": ("irnn", "urnn"),
        "hidden_size": 16,
        "num_steps": 70,
        "num_sequences": 1,
        "num_seeds": 2,
    },
    doc=__doc__,
    citation="Arjovsky, Shah, Bengio 2016, Unitary evolution recurrent neural networks, "
    "arXiv:1511.06464",
    figures={"fig4": figure},
    traps=(
        "The published figure was not read, so no claim here has a published reference.",
        "The paper's claim that every network but the uRNN vanishes exponentially does not hold at "
        "T = 200 for a tanh network with the authors' Glorot-uniform weights.",
        "The authors' LSTM has a full matrix from c_t to the output gate, which the LSTM here does "
        "not have. Their IRNN has Glorot-uniform input weights, as here.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
