"""Chains of units amplify a signal and remember it in noise and behind a nonlinearity.

A linear chain, W_ij = α δ_{j,i-1} (+ β δ_{j,i+1} with feedback), has a Fisher memory that grows
with its size; an orthogonal network does not. Without noise any of them keeps its first input in a
form that a linear decoder reads. With the nonlinearity elu between the steps a chain still does so
better than an orthogonal network.

Source: Orhan, Pitkow 2020, arXiv:1905.13715, section 2, Fig. 1 and 2.

    python experiments/papers/orhan2020.py

Takes less than a minute on two cores.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _fisher import chain, fisher_memory, params, source
from _kit import curves, fields
from _paper import Paper

from gradflow import flow, study, unroll
from gradflow.cells import rnn
from gradflow.study import Claim, numbers, statement
from gradflow.study.figure import Figure

SIZES = (25, 50, 100)
FORWARD, FEEDBACK = 1.2, 0.1
"""α and β; the radius of the chain with feedback is below 2√(αβ) = 0.69."""

NETS = ("chain", "feedback", "orthogonal")


@dataclass(frozen=True)
class Config(study.Config):
    """The size of the decoded networks, and the sequences."""

    hidden_size: int = fields.hidden_size(100)
    num_sequences: int = fields.num_sequences(4000)


def network(name: str, size: int, random: np.random.Generator) -> tuple[jax.Array, jax.Array]:
    """Gives W and v; the orthogonal W is scaled by 0.95, and its v is a random unit vector."""
    if name == "orthogonal":
        v = random.standard_normal(size)
        W = 0.95 * np.linalg.qr(random.standard_normal((size, size)))[0]
        return jnp.asarray(W), jnp.asarray(v / np.linalg.norm(v))
    W = chain(size, FORWARD, FEEDBACK if name == "feedback" else 0.0)
    return jnp.asarray(W), jnp.asarray(source(size))


def decoded(config: Config, name: str, activation: str) -> float:
    """Measures R² of the best linear decoder of s_1 from h_N, on sequences not used to fit it.

    The chain has α = 1 and the orthogonal matrix is not scaled, as in the paper's example.
    """
    n, random = config.hidden_size, np.random.default_rng(config.seed)
    W, v = network(name, n, random)
    W = jnp.asarray(chain(n, 1.0)) if name == "chain" else W / 0.95
    s = random.standard_normal((n, config.num_sequences))
    cell = rnn(1, n, activation=activation)
    run = jax.jit(lambda s: unroll(cell, params(W, v[:, None]), s[..., None]).outputs[-1])
    h = np.asarray(run(jnp.asarray(s)))
    half = config.num_sequences // 2
    design = np.concatenate([h, np.ones((len(h), 1))], axis=1)
    weights = np.linalg.lstsq(design[:half], s[0, :half], rcond=None)[0]
    error = s[0, half:] - design[half:] @ weights
    return float(1 - np.mean(error**2) / np.var(s[0, half:]))


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures Fisher memories by size, signals by lag, and what a decoder reads."""
    del once  # it takes seconds
    random = np.random.default_rng(config.seed)
    totals, signals, n = [], [], SIZES[-1]
    for name in NETS:
        sizes = [(network(name, size, random), max(200, 3 * size)) for size in SIZES]
        memory = [jax.jit(partial(fisher_memory, num_steps=T))(W, v) for (W, v), T in sizes]
        totals.append([float(J.sum()) for J in memory])
        (W, v), _ = sizes[-1]
        cell, zeros = rnn(1, n, activation="identity"), jnp.zeros((3 * n, 1))
        signals.append(flow.log_input_norms(cell, params(W, v[:, None]), zeros))
    read = [
        [decoded(config, name, activation) for activation in ("identity", "elu")]
        for name in ("chain", "orthogonal")
    ]
    return xarray.Dataset(
        {
            "total": (("net", "size"), totals),
            "signal": (("net", "lag"), np.stack(signals), {"units": "nats"}),
            "decoded": (("decoded_net", "activation"), read),
        },
        coords={
            "net": list(NETS),
            "size": list(SIZES),
            "decoded_net": ["chain", "orthogonal"],
            "activation": ["identity", "elu"],
        },
    )


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """Memory by size, the way signals die out, and decoding."""
    totals = {name: dataset.total.sel(net=name).values for name in NETS}
    signal = {name: dataset.signal.sel(net=name).values for name in NETS}
    # Of a memory that grows in proportion to N the two slopes are the same.
    slopes = {name: np.diff(totals[name]) / np.diff(SIZES) for name in NETS}
    peaks = [int(signal[name].argmax()) for name in ("chain", "feedback")]
    n = SIZES[-1]
    after = signal["feedback"][2 * n] - signal["feedback"].max()
    linear, elu = dataset.decoded.values.T
    return [
        numbers(
            "fig1-orthogonal",
            "A random orthogonal network has J_tot = 1, here at N = 25, 50 and 100.",
            1.0,
            totals["orthogonal"],
            atol=1e-6,
            source="caption of Fig. 1",
            exact=True,
        ),
        statement(
            "fig1-extensive",
            "The chain and the chain with feedback have an extensive memory, J_tot ~ O(N).",
            "J_tot ~ O(N)",
            {f"J_tot/N between N = 25, 50, 100, {name}": slopes[name] for name in NETS[:2]},
            source="caption of Fig. 1",
            criterion="J_tot gains over 0.1 per unit from N = 25 to 50, and within 15 % as much "
            "per unit from 50 to 100",
            holds=all(
                s[0] > 0.1 and abs(s[1] / s[0] - 1) < 0.15 for s in list(slopes.values())[:2]
            ),
            exact=True,
        ),
        statement(
            "fig1-amplify",
            "In both chains of 100 units the signal is amplified for a time O(N); in the "
            "orthogonal network it never is.",
            "the signal is amplified for a time of length O(N) before it dies out",
            {"lag of the largest signal, chain and feedback": peaks},
            source="caption of Fig. 1 c",
            criterion="the largest ‖∂h_T/∂x_k‖ of both chains lies between lags 50 and 200, that "
            "of the orthogonal network at lag 0",
            holds=all(n / 2 <= peak <= 2 * n for peak in peaks)
            and signal["orthogonal"].argmax() == 0,
            exact=True,
        ),
        statement(
            "fig1-abrupt",
            "The signal dies abruptly in the chain and more gradually in the chain with feedback.",
            "abruptly in the case of the chain and more gradually with feedback",
            {
                "log10 of the signal at lag 200 relative to its largest, feedback": after
                / curves.NATS
            },
            source="caption of Fig. 1 c",
            criterion="the signal of the chain is exactly zero one step after its largest; with "
            "feedback it is not zero at any lag, and below 1 % at lag 200",
            holds=np.isneginf(signal["chain"][peaks[0] + 1])
            and np.isfinite(signal["feedback"]).all()
            and after < np.log(0.01),
            exact=True,
        ),
        numbers(
            "fig2-linear",
            "From h_100 of a linear network without noise, s_1 is reconstructed perfectly by a "
            "linear decoder: R² of the chain and of the orthogonal network.",
            1.0,
            linear,
            atol=1e-6,
            source="caption of Fig. 2 a",
            exact=True,
        ),
        statement(
            "fig2-elu",
            "With elu between the steps the chain is decoded better than the orthogonal network.",
            "the chain network again outperforms the orthogonal one",
            {"R² of s_1, chain and orthogonal": elu},
            source="caption of Fig. 2 c",
            criterion="R² of the chain is larger by at least 0.2",
            holds=elu[0] > elu[1] + 0.2,
        ),
    ]


def figure_memory(dataset: xarray.Dataset) -> Figure:
    """J_tot by size, and the signal by lag at the largest size."""
    fig = study.figure.empty(6.4, 2.7)
    left, right = fig.subplots(1, 2)
    for index, name in enumerate(NETS):
        look = {**study.figure.series_style(index), "marker": "o"}
        left.plot(SIZES, dataset.total.sel(net=name), label=name, **look)
        signal = dataset.signal.sel(net=name).values / curves.NATS
        shown = np.isfinite(signal)
        right.plot(np.arange(len(signal))[shown], signal[shown], **{**look, "marker": None})
    left.set(xlabel="units N", ylabel=r"$J_\mathrm{tot}$", title="Memory capacity")
    right.set(xlabel=curves.LAG, title=f"The signal, N = {SIZES[-1]}")
    right.set(ylabel=r"$\log_{10}\,\|\partial h_T/\partial x_k\|$", ylim=(-8, 16))
    left.legend()
    return fig


def figure_decoder(dataset: xarray.Dataset) -> Figure:
    """R² of the decoder of both networks, without and with a nonlinearity."""
    fig = study.figure.empty(3.5, 2.4)
    ax = fig.subplots()
    for index, name in enumerate(dataset.decoded_net.values):
        color = study.figure.series_style(2 * index)["color"]
        places = np.arange(2) + 0.18 * (2 * index - 1)
        bars = ax.bar(places, dataset.decoded.sel(decoded_net=name), 0.34, color=color, label=name)
        ax.bar_label(bars, fmt="%.2f", padding=2)
    ax.set_xticks([0, 1], ["linear", "elu"])
    ax.axhline(0, color="0.4", lw=0.8)
    ax.set(ylim=(-0.2, 1.4), ylabel=r"$R^2$", title="First of 100 inputs, decoded linearly")
    ax.legend(loc="upper right", ncols=2)
    return fig


EXPERIMENT = Paper(
    name="papers/orhan2020",
    config=Config,
    run=run,
    figure=figure_memory,
    claims=claims,
    quick={"hidden_size": 20, "num_sequences": 200},
    doc=__doc__,
    citation="Orhan, Pitkow 2020, Improved memory in recurrent neural networks with sequential "
    "non-normal dynamics, arXiv:1905.13715",
    figures={"fig1": figure_memory, "fig2": figure_decoder},
    traps=(
        "The figure's α, β and the scale of its orthogonal matrix are not in the text read; here "
        "are 1.2, 0.1 and 0.95.",
        "Fig. 2 b, decoding in noise, depends on the strength of the noise, which is not given.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
