"""A net can be evaluated in parallel over time where it is predictable: where no gradient explodes.

The net s_{t+1} = W tanh(s_t) + u_t with 100 units, W ~ g N(0, 1)/√100 without a diagonal, driven
by weak sines. As the gain g rises, its largest Lyapunov exponent passes zero; and DEER, which
finds all steps at once by Newton's method ::

    s_t <- f(s_{t-1}^old) + J_t (s_{t-1} - s_{t-1}^old)
    until ½ Σ_t ‖s_t - f(s_{t-1})‖² / T < 1e-10

needs a few iterations where the exponent is negative, and about as many as there are steps
where it is positive.

Source: Gonzalez et al. 2025, arXiv:2508.16817, the figure of exponent against gain and Fig. 2.

    python experiments/papers/gonzalez2025.py

Takes about a minute on two cores.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from _claims import OWN, Claim, Paper, numbers, statement, verdicts

from gradflow import Cell, flow, study, unroll

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

    from gradflow import Params

BURN_IN = 100


@dataclass(frozen=True)
class Config(study.Config):
    """The nets and the gains."""

    units: int = study.field(100, help="Units D.", positive=True)
    num_steps: int = study.field(1000, help="Steps T.", positive=True)
    num_gains: int = study.field(26, help="Gains g, even from 0.5 to 2.", positive=True)
    deer_gains: tuple[float, ...] = study.field(
        (0.5, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0), help="Gains at which DEER is run.", positive=True
    )
    deer_seeds: int = study.field(3, help="Seeds of DEER.", positive=True)


def driven(units: int) -> Cell:
    """s_{t+1} = W tanh(s_t) + u_t."""

    def step(params: "Params", s: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
        s = params["W_h"] @ jnp.tanh(s) + u
        return s, s

    return Cell(lambda key: {"W_h": jnp.eye(units)}, step, lambda: jnp.zeros(units))


def draw(config: Config, seed: int, num_steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W at gain 1, u of shape (T, D), and s_0."""
    D = config.units
    rng = np.random.default_rng([config.seed, seed])
    W = rng.standard_normal((D, D)) / np.sqrt(D)
    np.fill_diagonal(W, 0)
    size, rate, phase = (rng.uniform(*ends, D) for ends in ((0, 0.2), (0.5, 3), (0, 2 * np.pi)))
    u = size * np.sin(rate * np.arange(num_steps)[:, None] + phase)
    return W, u, rng.uniform(-1, 1, D)


def exponent(W: jax.Array, u: jax.Array, s_0: jax.Array) -> jax.Array:
    """The largest Lyapunov exponent by QR along the path."""
    found = flow.lyapunov_exponents(
        driven(len(s_0)), {"W_h": W}, u, num_exponents=1, burn_in=BURN_IN, carry=s_0
    )
    return found.exponents[0]


def tangent_exponents(W: np.ndarray, u: np.ndarray, s: np.ndarray) -> np.ndarray:
    """The same in NumPy, as the mean growth of 3 random directions; leading axis = nets."""
    v = np.random.default_rng(0).standard_normal((*s.shape, 3))
    total = np.zeros((len(s), 3))
    for t in range(u.shape[1]):
        v = W @ ((1 - np.tanh(s) ** 2)[..., None] * v)
        s = (W @ np.tanh(s)[..., None])[..., 0] + u[:, t]
        size = np.linalg.norm(v, axis=1)
        v = v / size[:, None]
        total += np.log(size) * (t >= BURN_IN)
    return total.mean(axis=1) / (u.shape[1] - BURN_IN)


@jax.jit
def deer(W: jax.Array, u: jax.Array, s_0: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How many iterations DEER needs from a guess of zeros, and the error of its states then."""
    num_steps = len(u)
    step = partial(driven(len(s_0)).step, {"W_h": W})
    ahead = jax.vmap(lambda s, u: step(s, u)[0])

    def before(states: jax.Array) -> jax.Array:
        return jnp.concatenate([s_0[None], states[:-1]])

    def iterate(state: tuple) -> tuple:
        states, values, count, _ = state
        old = before(states)
        slopes = 1 - jnp.tanh(old) ** 2

        def advance(s: jax.Array, at: tuple) -> tuple[jax.Array, jax.Array]:
            value, slope, old = at
            s = value + W @ (slope * (s - old))
            return s, s

        _, new = jax.lax.scan(advance, s_0, (values, slopes, old))
        new = jnp.where(jnp.isfinite(new), new, 0)
        values = ahead(before(new), u)
        return new, values, count + 1, 0.5 * jnp.sum((new - values) ** 2) / num_steps

    def going(state: tuple) -> jax.Array:
        return (state[3] >= 1e-10) & (state[2] < num_steps)

    guess = jnp.zeros_like(u)
    first = (guess, ahead(before(guess), u), jnp.zeros((), int), jnp.asarray(jnp.inf, u.dtype))
    states, _, count, _ = jax.lax.while_loop(going, iterate, first)
    path = unroll(driven(len(s_0)), {"W_h": W}, u, carry=s_0).outputs
    return count, jnp.max(jnp.abs(states - path))


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """The exponent of every gain and seed by two routes, and the iterations of DEER."""
    import xarray

    gains = np.linspace(0.5, 2, config.num_gains)
    drawn = [draw(config, seed, config.num_steps + BURN_IN) for seed in range(config.num_seeds)]
    W, u, s_0 = (np.stack(parts) for parts in zip(*drawn, strict=True))

    def seeds(gain: jax.Array) -> jax.Array:
        return jax.vmap(exponent)(gain * jnp.asarray(W), jnp.asarray(u), jnp.asarray(s_0))

    by_qr = np.asarray(jax.jit(partial(jax.lax.map, seeds))(jnp.asarray(gains)))
    by_tangent = np.stack([tangent_exponents(gain * W, u, s_0) for gain in gains])
    parts = [
        once(f"deer gain={gain:g}", partial(_solve, config, gain))
        for gain in study.progress(config.deer_gains, "DEER")
    ]
    return xarray.merge([
        xarray.Dataset(
            {"exponent": (("gain", "seed"), by_qr), "tangent": (("gain", "seed"), by_tangent)},
            coords={"gain": gains},
            attrs={"num_steps": config.num_steps},
        ),
        xarray.concat(parts, dim="deer_gain"),
    ])  # fmt: skip


def _solve(config: Config, gain: float) -> "xarray.Dataset":
    import xarray

    found = []
    for seed in range(config.deer_seeds):
        W, u, s_0 = draw(config, seed, config.num_steps)
        at = gain * jnp.asarray(W), jnp.asarray(u), jnp.asarray(s_0)
        found.append([*map(float, deer(*at)), float(exponent(*at))])
    values = np.array(found).T[:, None]
    names = ("iterations", "state_error", "deer_exponent")
    return xarray.Dataset(
        {
            name: (("deer_gain", "deer_seed"), part)
            for name, part in zip(names, values, strict=True)
        },
        coords={"deer_gain": [gain]},
    )


def crossing(dataset: "xarray.Dataset") -> float:
    """The gain at which the median exponent passes zero, linear between two gains."""
    median = dataset.exponent.median("seed").values
    at = int(np.argmax(median > 0))
    if median[at] <= 0 or at == 0:
        return float("nan")
    share = -median[at - 1] / (median[at] - median[at - 1])
    return float(dataset.gain[at - 1] + share * (dataset.gain[at] - dataset.gain[at - 1]))


def claims(dataset: "xarray.Dataset") -> list[Claim]:
    """Each claim beside what was measured."""
    zero = crossing(dataset)
    low = dataset.gain < 0.8
    T = dataset.attrs["num_steps"]
    medians = dataset.iterations.median("deer_seed").values
    calm = dataset.iterations.where(dataset.deer_exponent < -0.2)
    wild = dataset.iterations.sel(deer_gain=dataset.deer_gain.max()).values
    error = dataset.state_error.values
    return [
        numbers(
            "lle-tangent",
            "largest distance between the figure's curve, the median exponent over "
            "seeds, by QR and by tangent vectors",
            0,
            np.abs(dataset.exponent.median("seed") - dataset.tangent.median("seed")).max(),
            atol=0.01,
            source=OWN + "the mean growth of 3 directions in NumPy",
        ),
        numbers(
            "lle-linear",
            "largest distance of the median exponent from ln g, g < 0.8",
            0,
            np.abs(dataset.exponent.median("seed") - np.log(dataset.gain))[low].max(),
            atol=0.1,
            source=OWN + "the circular law: the net is nearly linear there",
        ),
        numbers(
            "lle-crossing",
            "gain at which the median exponent passes zero",
            1.25,
            zero,
            atol=0.15,
            source=OWN + "between 1.1 and 1.4: the drive holds chaos back beyond g = 1",
        ),
        statement(
            "fig2-calm",
            "DEER needs few iterations where the exponent is negative",
            "few steps",
            f"at most {float(calm.max()):.0f} of {T}",
            source="Fig. 2 (read through a second source)",
            condition="at most 10 iterations where the exponent is below -0.2",
            holds=bool(calm.notnull().any()) and calm.max() <= 10,
        ),
        statement(
            "fig2-wild",
            "DEER needs about T iterations where it is positive",
            "about T steps",
            f"{' / '.join(f'{w:.0f}' for w in wild)} of {T}",
            source="Fig. 2 (read through a second source)",
            condition="over T/2 iterations at the largest gain, from every seed",
            holds=(wild > T / 2).all(),
        ),
        statement(
            "fig2-turn",
            "the iterations rise with the exponent, turning near zero",
            "turning near 0",
            "medians " + " / ".join(f"{m:.0f}" for m in medians),
            source="Fig. 2, right",
            picture=True,
            condition="their medians never fall as the gain rises",
            holds=(np.diff(medians) >= 0).all(),
        ),
        statement(
            "fig2-states",
            "a small residual means that the states are right where it is predictable",
            "near-zero residual, wrong path, where it is not",
            f"largest state error {error[medians <= 10].max(initial=0):.2g} where calm, "
            f"{error[-1].max():.2g} at the largest gain",
            source="a reading of the paper through a second source",
            picture=True,
            condition="the states are within 1e-3 of the path wherever 10 iterations were enough",
            holds=(medians <= 10).any() and error[medians <= 10].max(initial=0) < 1e-3,
        ),
    ]


def figure_lle(dataset: "xarray.Dataset") -> "Figure":
    """The exponent against the gain: median, least and greatest over seeds."""
    from matplotlib.figure import Figure

    fig = Figure()
    ax = fig.subplots()
    data = dataset.exponent
    ax.fill_between(
        dataset.gain, data.min("seed"), data.max("seed"), color="#0072B2", alpha=0.2, lw=0
    )
    ax.plot(dataset.gain, data.median("seed"), color="#0072B2", label="median, min to max")
    ax.plot(dataset.gain, np.log(dataset.gain), ":", color="0.5", label="ln g")
    ax.axhline(0, color="0.3", lw=0.8)
    ax.set(xlabel="gain g", ylabel="largest exponent (nats a step)", xlim=(0.5, 2))
    ax.set_title("Predictable and chaotic gains")
    ax.legend()
    return fig


def figure_2(dataset: "xarray.Dataset") -> "Figure":
    """Iterations of DEER against the exponent, the error of its states in the colour."""
    from matplotlib.figure import Figure

    fig = Figure()
    ax = fig.subplots()
    worst = np.log10(np.maximum(dataset.state_error.values, 1e-16))
    points = ax.scatter(dataset.deer_exponent, dataset.iterations, c=worst, s=14, cmap="viridis_r")
    fig.colorbar(points, label=r"$\log_{10}$ state error")
    ax.axvline(0, color="0.3", lw=0.8)
    ax.axhline(dataset.attrs["num_steps"], color="0.3", lw=0.8, ls=":")
    ax.set(yscale="log", xlabel="largest exponent", ylabel="iterations", title="DEER")
    return fig


def summary(dataset: "xarray.Dataset") -> str:
    """The table of verdicts."""
    return verdicts(claims(dataset))


EXPERIMENT = study.Experiment(
    name="papers/gonzalez2025",
    config=Config,
    run=run,
    figure=figure_2,
    summary=summary,
    quick={"units": 40, "num_steps": 200, "num_gains": 6, "num_seeds": 2, "deer_seeds": 1,
           "deer_gains": (0.5, 2.0)},
    doc=__doc__,
)  # fmt: skip

PAPER = Paper(
    citation="Gonzalez et al. 2025, Predictability enables parallelization of nonlinear state "
    "space models, arXiv:2508.16817",
    experiment=EXPERIMENT,
    claims=claims,
    figures={"lle": figure_lle, "fig2": figure_2},
    traps=(
        "The authors' plotting script calls the figure of exponent against gain Fig. 4, a reading "
        "of the fourth version of the paper Fig. 5.",
        "In the chaotic range the residual can be small while the states are wrong: the error of "
        "the states is shown beside the iterations.",
        "The time of the drive's sines is counted in steps here; how the authors scale it was "
        "not read.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
