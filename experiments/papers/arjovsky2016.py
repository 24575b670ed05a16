"""At initialisation a unitary net passes gradients back unchanged; the others lose them, or nearly.

The norm of ∂C/∂h_t against the time step t on the adding problem, C the squared error of a linear
readout of h_T, for the cells of the paper's Fig. 4 and the choices that decide their curves: the
law of a tanh net's weights, ReLU with and without the identity, the forget bias of an LSTM (of
which ∂C/∂c_t is drawn, with h_t held fixed, so that it begins at lag 1). The slope is fitted to
log10 of the root mean square over sequences, over 60 lags from lag 1 on.

Source: Arjovsky, Shah, Bengio 2016, arXiv:1511.06464, Fig. 4, at initialisation; Le, Jaitly, Hinton
2015, arXiv:1504.00941 (identity); Gers, Schmidhuber, Cummins 2000 and Jozefowicz, Zaremba,
Sutskever 2015 (forget bias).

    python experiments/papers/arjovsky2016.py

Takes about a minute on two cores.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from _claims import OWN, Claim, Paper, numbers, statement, verdicts

from gradflow import flow, study
from gradflow.cells import resolve
from gradflow.devices import map_runs
from gradflow.tasks.inputs import make_inputs

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

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
"""Each curve: the cell (an LSTM by its forget bias), and the block whose gradient is drawn."""

LAGS = 60  # over which the slope is fitted


@dataclass(frozen=True)
class Config(study.Config):
    """The size of the nets, and how many sequences."""

    nets: tuple[str, ...] = study.field(tuple(NETS), help="Which nets.")
    hidden_size: int = study.field(128, help="Hidden units.", positive=True)
    num_steps: int = study.field(200, help="Steps T.", positive=True)
    num_sequences: int = study.field(4, help="Sequences for each seed.", positive=True)
    num_seeds: int = study.field(5, help="Initialisations of each net.", positive=True)


def measure(config: Config, name: str) -> "xarray.Dataset":
    """log ‖∂C/∂h_k‖ from lag 1 on, less that at lag 1: root mean square over sequences, by seed."""
    import xarray

    spec, source = NETS[name]
    cell = resolve(spec)(2, config.hidden_size)
    key = jax.random.key(config.seed)
    shape = {"num_sequences": config.num_seeds * config.num_sequences, "input_size": 2}
    inputs = make_inputs("adding", key, num_steps=config.num_steps, **shape)

    def one(key: jax.Array, x: jax.Array) -> jax.Array:
        k_params, k_readout = jax.random.split(key)
        target = jnp.sum(x[:, 0] * x[:, 1])

        def error(outputs: jax.Array) -> jax.Array:
            size = outputs.shape[1]
            bound = jnp.sqrt(6 / (size + 1))
            w = jax.random.uniform(k_readout, (size,), minval=-bound, maxval=bound)
            return (w @ outputs[-1] - target) ** 2

        return flow.log_adjoint_norms(error, cell, cell.init(k_params), x, source=source)

    keys = jnp.repeat(jax.random.split(key, config.num_seeds), config.num_sequences)
    logs = np.asarray(jax.jit(map_runs(one))(keys, inputs))[:, -2::-1]
    logs = logs.reshape(config.num_seeds, config.num_sequences, -1)
    mean = np.logaddexp.reduce(2 * logs, axis=1) / 2
    return xarray.Dataset(
        {"log_norm": (("seed", "lag"), mean - mean[:, :1])},
        coords={"lag": np.arange(1, config.num_steps + 1)},
    )


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """The gradient of each net at every lag, relative to lag 1."""
    import xarray

    nets = study.progress(config.nets, "nets")
    parts = [once(f"net={name}", partial(measure, config, name)) for name in nets]
    return xarray.concat(parts, dim="net").assign_coords(net=list(config.nets))


def slopes(dataset: "xarray.Dataset") -> dict[str, np.ndarray]:
    """log10 of the norm per step, over 60 lags; of every seed."""
    data = dataset.log_norm.isel(lag=slice(0, LAGS + 1)) / np.log(10)
    lags = data.lag.values
    fits = np.polyfit(lags, data.transpose("lag", "net", "seed").values.reshape(len(lags), -1), 1)[
        0
    ]
    return dict(zip(dataset.net.values, fits.reshape(dataset.sizes["net"], -1), strict=True))


def claims(dataset: "xarray.Dataset") -> list[Claim]:
    """Each claim about nets that were run, beside what was measured."""
    there = set(dataset.net.values)
    slope = slopes(dataset)
    decided = [
        (about_identity, {"irnn", "urnn"}),
        (about_relu_and_tanh, {"relu", "tanh", "tanh_orthogonal"}),
        (about_forgetting, {"lstm_0", "lstm_1", "lstm_2"}),
    ]
    return [claim for make, nets in decided if nets <= there for claim in make(dataset, slope)]


def about_identity(dataset: "xarray.Dataset", slope: dict[str, np.ndarray]) -> list[Claim]:
    """The nets whose step Jacobian is unitary, or the identity where a unit is active."""
    unitary = np.abs(dataset.log_norm.sel(net="urnn").values).max()
    return [
        numbers(
            "fig4-urnn",
            "uRNN: largest |log ratio| of the norm at any lag to that at lag 1",
            0,
            unitary,
            atol=1e-9,
            source=OWN + "the step is unitary while its bias is zero",
            exact=True,
        ),
        numbers(
            "fig4-irnn",
            "IRNN: log10 slope of the norm per step",
            0,
            slope["irnn"],
            atol=0.002,
            source=OWN + "identity weights pass on what ReLU lets through",
        ),
    ]


def about_relu_and_tanh(dataset: "xarray.Dataset", slope: dict[str, np.ndarray]) -> list[Claim]:
    """The nets whose weights decide."""
    last = dataset.log_norm.median("seed").sel(lag=100, method="nearest") / np.log(10)
    turned = slope["tanh_orthogonal"]
    return [
        statement(
            "fig4-relu",
            "ReLU with Glorot's weights vanishes",
            "slope below -0.1",
            f"log10 slope {slope['relu'].max():.3g} at most",
            source=OWN + "an earlier measurement",
            condition="the log10 slope of every seed is below -0.1",
            holds=(slope["relu"] < -0.1).all(),
        ),
        statement(
            "fig4-orthogonal",
            "tanh with orthogonal weights decays slowly",
            "slope within ±0.05",
            f"log10 slope {turned.min():.3g} to {turned.max():.3g}",
            source=OWN + "an earlier measurement",
            condition="the log10 slope of every seed is between -0.05 and 0",
            holds=((turned > -0.05) & (turned < 0)).all(),
        ),
        statement(
            "fig4-tanh",
            "with the authors' own Glorot weights the tanh net does not vanish fast",
            "slope about -0.01",
            f"log10 slope {np.median(slope['tanh']):.3g}, norm at lag 100 "
            f"{10 ** float(last.sel(net='tanh')):.3g} of that at lag 1",
            source=OWN + "an earlier measurement",
            condition="the median log10 slope is between -0.02 and 0",
            holds=-0.02 < np.median(slope["tanh"]) < 0,
        ),
    ]


def about_forgetting(dataset: "xarray.Dataset", slope: dict[str, np.ndarray]) -> list[Claim]:
    """The LSTM and its forget bias."""
    del dataset  # the slopes say it
    biases = [float(np.median(slope[f"lstm_{b}"])) for b in (0, 1, 2)]
    return [
        statement(
            "fig4-forget",
            "the forget bias lengthens an LSTM's memory",
            "from below -0.1 to above -0.01",
            "log10 slopes of b_f = 0, 1, 2: " + " / ".join(f"{b:.3g}" for b in biases),
            source=OWN + "an earlier measurement",
            condition="the slope rises with b_f in 0, 1, 2, from below -0.1 to above -0.01",
            holds=biases[0] < -0.1 and biases[0] < biases[1] < biases[2] and biases[2] > -0.01,
        ),
    ]


def figure(dataset: "xarray.Dataset") -> "Figure":
    """The norm against the time step, T on the right as in the paper."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(5.2, 3.4))
    ax = fig.subplots()
    steps = dataset.sizes["lag"]
    for index, net in enumerate(dataset.net.values):
        color = ("#D55E00", "#E69F00", "#CC79A7", "#009E73", "#000000", "#9ecae1", "#56B4E9",
                 "#0072B2", "#661100")[index]  # fmt: skip
        decades = dataset.log_norm.sel(net=net).transpose("lag", "seed") / np.log(10)
        decades = decades.where(np.isfinite(decades))
        study.figure.band(ax, steps - dataset.lag, decades, "seed", label=net, color=color)
    ax.set(xlim=(0, steps), ylim=(-8, 2), xlabel="time step t")
    ax.set_ylabel(r"$\log_{10}\ \|\partial C/\partial h_t\|$, at $t = T - 1$: 0")
    ax.set_title("Adding problem, at initialisation (LSTM: ∂C/∂c)")
    ax.legend(fontsize=7, ncols=2)
    return fig


def summary(dataset: "xarray.Dataset") -> str:
    """The table of verdicts."""
    return verdicts(claims(dataset))


EXPERIMENT = study.Experiment(
    name="papers/arjovsky2016",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    quick={
        "nets": ("irnn", "urnn"),
        "hidden_size": 16,
        "num_steps": 70,
        "num_sequences": 1,
        "num_seeds": 2,
    },
    doc=__doc__,
)

PAPER = Paper(
    citation="Arjovsky, Shah, Bengio 2016, Unitary evolution recurrent neural networks, "
    "arXiv:1511.06464",
    experiment=EXPERIMENT,
    claims=claims,
    figures={"fig4": figure},
    traps=(
        "The figure itself was not read for this page, so that no verdict rests on it: every "
        "reference is our own.",
        "That every net but the unitary one vanishes exponentially does not hold for tanh with the "
        "authors' Glorot-uniform weights at T = 200.",
        "The authors' LSTM has a full matrix from c_t to the output gate, and their IRNN Glorot's "
        "input weights; the LSTM here has no such matrix.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
