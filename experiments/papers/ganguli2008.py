"""A linear network remembers at most N inputs in noise, a normal one exactly one.

The Fisher memory J(k) of `_fisher.py` is the information of the state about the input k steps
back, relative to the noise; J_tot is its sum over k. It is measured from the derivatives of the
unrolled network by its inputs, and the amplification of a signal by `flow.log_input_norms`.

Source: Ganguli, Huh, Sompolinsky 2008, doi:10.1073/pnas.0804451105, of which the abstract was read;
Orhan, Pitkow 2020, arXiv:1905.13715, section 2.1, for the networks.

    python experiments/papers/ganguli2008.py

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

from gradflow import flow, study
from gradflow.cells import rnn
from gradflow.devices import map_runs
from gradflow.study import Claim, numbers, statement
from gradflow.study.figure import Figure

GAINS = (0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0, 5.0, 10.0)
"""Forward weights α of the chains."""

AMPLIFYING = 1.2


@dataclass(frozen=True)
class Config(study.Config):
    """The size of the networks, and the number of random ones of each kind."""

    hidden_size: int = fields.hidden_size(50)
    num_seeds: int = fields.num_seeds(10)


def normal_networks(config: Config) -> np.ndarray:
    """Gives random normal matrices of radius 0.9: orthogonal, symmetric and circulant ones."""
    random = np.random.default_rng(config.seed)
    n, found = config.hidden_size, []
    for _ in range(config.num_seeds):
        Q = np.linalg.qr(random.standard_normal((n, n)))[0]
        symmetric = (Q * random.uniform(-1, 1, n)) @ Q.T
        row = random.standard_normal(n)
        circulant = np.stack([np.roll(row, shift) for shift in range(n)])
        found += [Q, symmetric, circulant]
    return np.stack([0.9 * W / np.abs(np.linalg.eigvals(W)).max() for W in found])


def other_networks(config: Config) -> np.ndarray:
    """Gives random matrices that are not normal: Gaussian ones of radius 0.9, and triangular."""
    random = np.random.default_rng(config.seed + 1)
    n, found = config.hidden_size, []
    for _ in range(config.num_seeds):
        gaussian = random.standard_normal((n, n))
        found.append(0.9 * gaussian / np.abs(np.linalg.eigvals(gaussian)).max())
        found.append(np.tril(random.standard_normal((n, n)) / np.sqrt(n), -1))
    return np.stack(found)


def total(W: np.ndarray, v: np.ndarray, num_steps: int) -> np.ndarray:
    """Measures J_tot of each network; v of shape (network, unit) or (network, unit, column)."""

    def one(W: jax.Array, v: jax.Array) -> jax.Array:
        return fisher_memory(W, v, num_steps).sum(axis=0)

    return np.asarray(jax.jit(map_runs(one))(jnp.asarray(W), jnp.asarray(v)))


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures J_tot of random networks and of chains, and the amplification along a chain."""
    del once  # it takes seconds
    n = config.hidden_size
    random = np.random.default_rng(config.seed + 2)
    normal, other = normal_networks(config), other_networks(config)
    v = random.standard_normal((len(normal), n))
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    steps = max(200, 2 * n)  # 0.9^400 < 1e-18
    chains = np.stack([chain(n, gain) for gain in GAINS])
    directions = random.standard_normal((n, 20))
    inputs = np.concatenate([np.eye(n), directions / np.linalg.norm(directions, axis=0)], axis=1)
    cell, zeros = rnn(1, n, activation="identity"), jnp.zeros((n + 10, 1))
    W, first = jnp.asarray(chain(n, AMPLIFYING)), jnp.asarray(source(n))[:, None]
    curve = jax.jit(partial(fisher_memory, num_steps=n))
    return xarray.Dataset(
        {
            "normal": (("normal_net",), total(normal, v, steps)),
            "other": (("other_net",), total(other, v[: len(other)], steps)),
            "chain": (("gain",), total(chains, np.tile(source(n), (len(GAINS), 1)), n)),
            "by_input": (("input",), total(chain(n, AMPLIFYING)[None], inputs[None], n)[0]),
            "signal": (("lag",), np.asarray(flow.log_input_norms(cell, params(W, first), zeros))),
            "chain_curve": (("k",), np.asarray(curve(W, first[:, 0]))),
            "normal_curve": (("k",), np.asarray(curve(jnp.asarray(normal[0]), jnp.asarray(v[0])))),
        },
        coords={"gain": list(GAINS), "k": np.arange(n)},
        attrs={"units": n},
    )


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The capacity of normal and of any networks, and what reaches the bound."""
    n = dataset.attrs["units"]
    every = np.concatenate([dataset[name].values for name in ("normal", "other", "chain")])
    by_gain = dict(zip(GAINS, dataset.chain.values / n, strict=True))
    signal = dataset.signal.values
    by_input = dataset.by_input.values
    return [
        numbers(
            "memory-normal",
            "The memory capacity J_tot of a network with a normal matrix is exactly 1, here of "
            "orthogonal, symmetric and circulant ones with random input vectors.",
            1.0,
            {"least and largest J_tot": [dataset.normal.min(), dataset.normal.max()]},
            atol=1e-6,
            source="abstract",
            exact=True,
        ),
        statement(
            "memory-bound",
            "The capacity of any network of N units is at most N.",
            "that of any network of N neurons is, at most, N",
            {"largest J_tot/N": every.max() / n},
            source="abstract",
            criterion="J_tot of all random networks and chains is at most N",
            holds=every.max() <= n * (1 + 1e-9),
            exact=True,
        ),
        numbers(
            "memory-achieved",
            "A feedforward chain that amplifies its input reaches the bound, here by 10 per unit.",
            1.0,
            {"J_tot/N": by_gain[10.0]},
            atol=0.02,
            source="abstract: a nonnormal network achieving this bound",
            exact=True,
        ),
        statement(
            "memory-amplify",
            "Only a chain that amplifies has a capacity of the order of N.",
            "it must have a hidden feedforward architecture that superlinearly amplifies its input",
            {f"J_tot/N at α = {gain:g}": by_gain[gain] for gain in GAINS},
            source="abstract",
            criterion="J_tot/N is below 0.1 for every α ≤ 1, above 0.25 for α ≥ 1.2, and grows",
            holds=max(by_gain[gain] for gain in GAINS[:3]) < 0.1
            and min(by_gain[gain] for gain in GAINS[4:]) > 0.25
            and (np.diff(list(by_gain.values())) > 0).all(),
        ),
        numbers(
            "memory-time",
            "The network amplifies its input for a time of order N: the derivative by the input "
            "grows until lag N - 1.",
            1.0,
            {"lag of the largest ‖∂h_T/∂x_k‖, relative to N - 1": signal.argmax() / (n - 1)},
            atol=1e-9,
            source="abstract: for a time of order N",
            exact=True,
        ),
        statement(
            "memory-match",
            "The input connectivity must match the feedforward structure.",
            "the input connectivity must optimally match this architecture",
            {"J_tot fed at the first unit, best of all others": [by_input[0], by_input[1:].max()]},
            source="abstract; that it is the source unit, Orhan & Pitkow 2020, section 2.1",
            criterion="the first unit has a larger J_tot than any other and 20 random directions",
            holds=by_input[0] > by_input[1:].max(),
            exact=True,
        ),
    ]


def figure(dataset: xarray.Dataset) -> Figure:
    """Memory curves of a normal network and of a chain, and the capacity of chains by α."""
    fig = study.figure.empty(6.4, 2.7)
    left, right = fig.subplots(1, 2)
    n, (blue, orange) = dataset.attrs["units"], curves.SHADES[1:3]
    left.semilogy(dataset.k, dataset.chain_curve, color=blue, label=f"chain, α = {AMPLIFYING:g}")
    left.semilogy(dataset.k, dataset.normal_curve, color=orange, label="orthogonal × 0.9")
    left.set(xlabel="lag k (steps)", ylabel="Fisher memory J(k)", title="Memory curves")
    left.legend()
    right.semilogx(dataset.gain, dataset.chain / n, "o-", color=blue, label="chain")
    right.axhline(1, color="0.6", ls=":", lw=1)
    right.text(GAINS[0], 0.95, "bound", color="0.4", va="top")
    right.axhline(1 / n, color=orange, label="any normal network")
    ticks = (0.8, 1, 2, 5, 10)
    right.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    right.minorticks_off()
    right.set(xlabel="forward weight α", ylabel=r"$J_\mathrm{tot}/N$", title="Capacity")
    right.legend(loc="center right")
    return fig


EXPERIMENT = Paper(
    name="papers/ganguli2008",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={"hidden_size": 12, "num_seeds": 2},
    doc=__doc__,
    citation="Ganguli, Huh, Sompolinsky 2008, Memory traces in dynamical systems, "
    "doi:10.1073/pnas.0804451105",
    figures={"memory": figure},
    traps=(
        "The abstract was read, and the definitions as Orhan & Pitkow 2020 quote them; the limit "
        "√N of saturating units is not measured.",
        "Between the bound and 1 lie chains with α near 1: at α = 1 J_tot is only Σ 1/k.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
