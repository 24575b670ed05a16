"""A linear network whose eigenvalues are all zero still carries a signal far if it is not normal.

The network is h_t = Θ h_{t-1} with 100 units and a lower triangular Θ: d on the diagonal, alpha
on the first subdiagonal, and beta everywhere below that. Its transients grow before they decay. Its
Fisher memory ::

    J(t) = e_tᵀ C⁻¹ e_t    e_t = Θ^t e_0    C = Σ_k Θ^k Θ^kᵀ    J_tot = Σ_t J(t)

exceeds 1, the value of any normal network. The mean square of ‖h_t‖ over initial states on the unit
sphere is ‖Θ^t‖_F²/100, which `flow.log_norms` measures.

Source: Kerg et al. 2019, arXiv:1905.12080, Fig. 1 and Table 6 of the supplement.

    python experiments/papers/kerg2019.py

Takes about 10 seconds on two cores.
"""

from dataclasses import dataclass
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import fields
from _paper import Paper
from jax.scipy.linalg import solve_triangular

from gradflow import flow, study, unroll
from gradflow.cells import rnn
from gradflow.devices import map_runs
from gradflow.study import Claim, derived, numbers, statement
from gradflow.study.figure import Figure

UNITS = 100
MEMORY_STEPS = 150
ALPHAS = (0.95, 1.0, 1.05)
BETAS = (0.0, 0.005)
DIAGONALS = (0.0, 0.2)
TABLE_6 = np.array(
    [[[3.03, 5.19, 12.1], [3.18, 5.30, 12.1]], [[12.0, 16.2, 20.5], [12.1, 16.3, 20.4]]]
)
"""J_tot of the paper, by d, beta and alpha."""


@dataclass(frozen=True)
class Config(study.Config):
    """The number of initial states and of steps."""

    num_starts: int = fields.positive(1000, help="Initial states on the unit sphere.")
    num_steps: int = fields.num_steps(125)


def theta(d: float, beta: float, alpha: float) -> np.ndarray:
    """Gives the recurrent matrix Θ."""
    below = np.tril(np.full((UNITS, UNITS), beta), -2)
    return d * np.eye(UNITS) + alpha * np.eye(UNITS, k=-1) + below


def fisher_memory(matrix: jax.Array) -> jax.Array:
    """Computes J(t) = ‖L⁻¹ e_t‖² for t < 150, with C = L Lᵀ."""
    # The sum of n terms is doubled, L_2n L_2nᵀ = L_n L_nᵀ + Θ^n L_n L_nᵀ Θ^nᵀ, by a QR of the two
    # factors beside each other. C is never formed: its condition number is beyond float64.

    def double(_: int, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        root, power = state
        beside = jnp.concatenate([root, power @ root], axis=1)
        return jnp.linalg.qr(beside.T)[1].T, power @ power

    root, _ = jax.lax.fori_loop(0, 12, double, (jnp.eye(len(matrix)), matrix))
    first = jnp.eye(len(matrix))[0]
    _, e = jax.lax.scan(lambda e, _: (matrix @ e, e), first, length=MEMORY_STEPS)
    return jnp.sum(solve_triangular(root, e.T, lower=True) ** 2, axis=0)


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures the transients from random states, ‖Θ^t‖_F by `flow`, and the Fisher memory."""
    del once  # it takes seconds
    cell = rnn(1, UNITS, activation="identity")
    sampled = jax.random.normal(jax.random.key(config.seed), (config.num_starts, UNITS))
    starts = sampled / jnp.linalg.norm(sampled, axis=1, keepdims=True)
    inputs = jnp.zeros((config.num_steps, 1))

    def transient(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
        params = {"W_h": matrix, "W_x": jnp.zeros((UNITS, 1)), "b": jnp.zeros(UNITS)}
        batch = jnp.zeros((config.num_steps, config.num_starts, 1))
        h = unroll(cell, params, batch, carry=starts).carries
        return jnp.linalg.norm(h, axis=-1), flow.log_norms(cell, params, inputs, norm="frobenius")

    grid = jnp.asarray([[theta(0.0, beta, alpha) for alpha in ALPHAS] for beta in BETAS])
    size, log_norm = jax.jit(partial(jax.lax.map, transient))(grid.reshape(-1, UNITS, UNITS))
    over_starts = {
        "mean_norm": size.mean(-1),
        "spread": size.std(-1),
        "mean_square": (size**2).mean(-1),
        "log_frobenius": log_norm,
    }
    by_weights = (len(BETAS), len(ALPHAS), -1)
    memory = jax.jit(map_runs(fisher_memory))
    thetas = [theta(d, beta, alpha) for d in DIAGONALS for beta in BETAS for alpha in ALPHAS]
    return xarray.Dataset(
        {
            **{
                name: (("beta", "alpha", "time"), np.asarray(values).reshape(by_weights))
                for name, values in over_starts.items()
            },
            "memory": (
                ("d", "beta", "alpha", "lag"),
                np.asarray(memory(jnp.asarray(np.stack(thetas)))).reshape(2, 2, 3, -1),
            ),
        },
        coords={"d": list(DIAGONALS), "beta": list(BETAS), "alpha": list(ALPHAS)},
    )


def powers(num_steps: int) -> np.ndarray:
    """Computes log ‖Θ^t‖_F with d = 0 in NumPy: (beta, alpha, t), t < 100, where Θ^100 = 0."""
    logs = np.full((len(BETAS), len(ALPHAS), num_steps), -np.inf)
    for i, beta in enumerate(BETAS):
        for j, alpha in enumerate(ALPHAS):
            power = np.eye(UNITS)
            for t in range(num_steps):
                logs[i, j, t] = np.log(np.linalg.norm(power))
                power = theta(0.0, beta, alpha) @ power
    return logs


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The Fisher memory of Table 6, and the transients of Fig. 1."""
    return [*about_memory(dataset), *about_transients(dataset)]


def about_memory(dataset: xarray.Dataset) -> list[Claim]:
    """J_tot of each network of the table, and of all of them against a normal network."""
    memory = dataset.memory.sum("lag").values
    weights = zip(np.ndindex(2, 2, 3), product(DIAGONALS, BETAS, ALPHAS), strict=True)
    return [
        numbers(
            f"table6-{alpha:g}_{beta:g}_{d:g}",
            f"J_tot at alpha = {alpha:g}, beta = {beta:g} and d = {d:g} is that of the table.",
            TABLE_6[at],
            memory[at],
            rtol=0.01,
            atol=0.1,
            source="supplement, Table 6",
            exact=True,
            shape=(
                "J_tot increases with alpha as in the table",
                (np.diff(memory[at[:2]]) > 0).all(),
            ),
        )
        for at, (d, beta, alpha) in weights
    ]


def about_transients(dataset: xarray.Dataset) -> list[Claim]:
    """‖Θ^t‖_F against NumPy and against sampled states, and the growth of the transients."""
    longest = min(UNITS, dataset.sizes["time"])
    ends = dataset.log_frobenius.values[:, :, UNITS:]
    peak = dataset.mean_norm.sel(beta=0.005).max("time").values
    rms = np.exp(dataset.log_frobenius.values[:, :, :UNITS]) / np.sqrt(UNITS)
    sampled = np.sqrt(dataset.mean_square.values[:, :, :UNITS])
    return [
        derived(
            "fig1-frobenius",
            "The flow measures log ‖Θ^t‖_F, here at t = 0, 25, 50, 75, 99 and alpha = 1.05.",
            powers(longest)[:, -1, [0, 25, 50, 75, 99]],
            dataset.log_frobenius.values[:, -1, [0, 25, 50, 75, 99]],
            atol=1e-9,
            source="powers of Θ in NumPy",
        ),
        numbers(
            "fig1-transients",
            "The root mean square of ‖h_t‖ over initial states is ‖Θ^t‖_F/√n, here at t = 25, 50, "
            "75 and alpha = 1.05.",
            rms[:, -1, [25, 50, 75]],
            sampled[:, -1, [25, 50, 75]],
            rtol=0.05,
            kind="derived",
            source="‖Θ^t‖_F/√n is its expectation",
        ),
        statement(
            "fig1-growth",
            "Transients grow if alpha > 1, or if alpha = 1 and beta > 0, and then decay to zero.",
            "transient growth",
            {"largest mean ‖h_t‖": peak},
            source="Fig. 1, left",
            criterion="with beta = 0.005 the mean norm exceeds 1 for alpha of 1 and 1.05, but not "
            "for 0.95, and ∂h_t/∂h_0 is exactly zero from t = 100",
            holds=peak[0] <= 1 < min(peak[1:]) and (ends == -np.inf).all(),
            exact=True,
        ),
    ]


def figure(dataset: xarray.Dataset) -> Figure:
    """The transients on the left, the Fisher memory on the right."""
    fig = study.figure.empty(7.0, 3.0)
    left, right = fig.subplots(1, 2)
    colors = ("#0072B2", "#D55E00", "#009E73")
    for beta, look in zip(dataset.beta.values, ("-", "--"), strict=True):
        for alpha, color in zip(dataset.alpha.values, colors, strict=True):
            at = {"beta": beta, "alpha": alpha}
            mean, spread = dataset.mean_norm.sel(at), dataset.spread.sel(at)
            mean = mean.where(mean > 0)
            label = f"α = {alpha:g}, β = {beta:g}"
            left.semilogy(mean, look, color=color, label=label)
            low = np.maximum(mean - spread, mean / 10)
            left.fill_between(
                np.arange(len(mean)), low, mean + spread, color=color, alpha=0.15, lw=0
            )
            if not beta:
                for d, width in zip(dataset.d.values, (1.0, 2.0), strict=True):
                    memory = dataset.memory.sel(d=d, **at)
                    right.plot(memory, color=color, lw=width, label=f"α = {alpha:g}, d = {d:g}")
    left.set(xlim=(0, 125), ylim=(2.3e-5, 2.3e2), xlabel="t", ylabel=r"$\|h_t\|$")
    left.set_title("Transients, d = 0: mean ± standard deviation")
    left.legend(fontsize=6)
    right.set(xlim=(0, 125), xlabel="t", ylabel="J(t)", title="Fisher memory, β = 0")
    right.legend(fontsize=6)
    return fig


def figure_table(dataset: xarray.Dataset) -> Figure:
    """J_tot of Table 6, as published and as measured."""
    fig = study.figure.empty()
    ax = fig.subplots()
    memory = dataset.memory.sum("lag").values
    shapes = ("o", "s", "^", "D")
    for at, shape in zip(np.ndindex(2, 2), shapes, strict=True):
        label = f"d = {DIAGONALS[at[0]]:g}, β = {BETAS[at[1]]:g}"
        ax.plot(ALPHAS, TABLE_6[at], shape, mfc="none", color="0.4", ms=7)
        ax.plot(ALPHAS, memory[at], "-" + shape, lw=0.8, label=label)
    ax.set(
        xlabel="α", ylabel=r"$J_{tot}$", ylim=(0, None), title="Open: published; filled: measured"
    )
    ax.legend(fontsize=6)
    return fig


EXPERIMENT = Paper(
    name="papers/kerg2019",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={"num_starts": 200},
    doc=__doc__,
    citation="Kerg, Goyette, Touzel, Gidel, Vorontsov, Bengio, Lajoie 2019, Non-normal recurrent "
    "neural network (nnRNN), arXiv:1905.12080",
    figures={"fig1": figure, "table6": figure_table},
    traps=(
        "The saved output of the authors' notebook differs from Table 6 in four rows (17.13, "
        "20.33, 16.16, 20.32), because it uses a fixed number of iterations. The table is the "
        "reference here.",
        "With d = 0.2 the condition number of C is 1e19 at alpha = 1 and above 1e23 at 1.05. If C "
        "is formed in float64, J_tot is 20.5 and 20.2 to 20.4 there, near the table. The factor of "
        "C, computed without forming C, gives 20.83 and 20.88, as does integer arithmetic of 150 "
        "digits. The table's entries at alpha = 1.05 are affected by rounding.",
        "The initial states are sampled with this library's seed, not with the notebook's.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
