"""Antisymmetric weights keep a net's state on a circle, where others leave, collapse or forget it.

Eight nets of two units without input, 50 steps from three starts: h_t = tanh(W h_{t-1}) with a
random, the identity and two orthogonal W, which all shrink to zero; and the feedback nets ::

    h_t = h_{t-1} + eps tanh(W h_{t-1})    eps = 0.1

with eigenvalues of W of 2, -2, ±2i and -0.15 ± 2i. Proposition 2: stable if |1 + eps λ| <= 1 for
the eigenvalues of the field's Jacobian.

Source: Chang, Chen, Haber, Chi 2019, arXiv:1902.09689, Fig. 1 and Proposition 2.

    python experiments/papers/chang2019.py

Takes about 5 seconds on two cores.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from _claims import OWN, Claim, Paper, numbers, statement, verdicts

from gradflow import Cell, study, unroll
from gradflow.cells import rnn

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

    from gradflow import Params

EPS = 0.1
STARTS = ((0.0, 0.5), (-0.5, -0.5), (0.5, -0.75))
FEEDBACK = {
    "positive": ((2, -2), (0, 2)),
    "negative": ((-2, 2), (0, -2)),
    "imaginary": ((0, -2), (2, 0)),
    "diffusion": ((-0.15, -2), (2, -0.15)),
}
EIGENVALUES = {
    "positive": (2, 2),
    "negative": (-2, -2),
    "imaginary": (complex(0, -2), complex(0, 2)),
    "diffusion": (-0.15 - 2j, -0.15 + 2j),
}


@dataclass(frozen=True)
class Config(study.Config):
    """How long the nets run."""

    num_steps: int = study.field(50, help="Steps T.", positive=True)
    long_steps: int = study.field(5000, help="Steps in which a net is to shrink.", positive=True)


def vanilla_weights(seed: int) -> dict[str, np.ndarray]:
    """W of panels (a) to (d): random, identity, and two random orthogonal ones."""
    draws = np.random.default_rng(seed).standard_normal((3, 2, 2))
    orthogonal = [np.linalg.qr(draw)[0] for draw in draws[1:]]
    return dict(zip(("random", "identity", "orthogonal 1", "orthogonal 2"),
                    (draws[0], np.eye(2), *orthogonal), strict=True))  # fmt: skip


def feedback() -> Cell:
    """h_t = h_{t-1} + eps tanh(W h_{t-1}), with any W."""

    def step(params: "Params", h: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = h + EPS * jnp.tanh(params["W_h"] @ h)
        return h, h

    return Cell(lambda key: {"W_h": jnp.eye(2)}, step, lambda: jnp.zeros(2))


def path(cell: Cell, num_steps: int, params: "Params", start: jax.Array) -> jax.Array:
    """h_0 ... h_T."""
    return unroll(cell, params, jnp.zeros((num_steps, 0)), carry=start).carries


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """The path of every net from every start, its size after many steps, and the eigenvalues."""
    import xarray

    del once  # it takes seconds
    vanilla = vanilla_weights(config.seed)
    starts = jnp.asarray(STARTS)
    plain = {"W_x": jnp.zeros((2, 0)), "b": jnp.zeros(2)}
    paths, ends = [], []
    for cell, weights in ((rnn(0, 2), vanilla), (feedback(), FEEDBACK)):
        for steps, into in ((config.num_steps, paths), (config.long_steps, ends)):
            over = jax.jit(jax.vmap(jax.vmap(partial(path, cell, steps), (None, 0)), (0, None)))
            W_h = jnp.asarray(np.stack([np.asarray(W, float) for W in weights.values()]))
            params = {"W_h": W_h} | {k: jnp.stack([v] * len(W_h)) for k, v in plain.items()}
            into.append(np.asarray(over(params, starts)))
    paths, ends = np.concatenate(paths), np.concatenate(ends)
    at_zero = jax.jacobian(lambda h, W: feedback().step({"W_h": W}, h, jnp.zeros(0))[0])
    jacobians = [at_zero(jnp.zeros(2), jnp.asarray(W, float)) for W in FEEDBACK.values()]
    return xarray.Dataset(
        {
            "path": (("net", "start", "time", "unit"), paths),
            "end": (("net", "start"), np.linalg.norm(ends[:, :, -1], axis=-1)),
            "jacobian": (("field", "row", "column"), np.stack(jacobians)),
        },
        coords={"net": [*vanilla, *FEEDBACK], "field": list(FEEDBACK)},
    )


def loop(num_steps: int) -> np.ndarray:
    """‖h_T‖ of the feedback nets by a plain loop, without this library; (net, start)."""
    W = np.array(list(FEEDBACK.values()), float)[:, None]
    h = np.broadcast_to(np.array(STARTS)[None, :, :, None], (4, 3, 2, 1))
    for _ in range(num_steps):
        h = h + EPS * np.tanh(W @ h)
    return np.linalg.norm(h[..., 0], axis=-1)


def claims(dataset: "xarray.Dataset") -> list[Claim]:
    """Each claim beside what was measured."""
    size = np.linalg.norm(dataset.path.values, axis=-1)
    norms = dict(zip(dataset.net.values, size[:, :, -1], strict=True))
    found = (np.linalg.eigvals(dataset.jacobian.values) - 1) / EPS
    found = np.stack([v[np.lexsort((v.imag, v.real))] for v in found])
    wanted = np.array([EIGENVALUES[name] for name in dataset.field.values], complex)
    radius = np.abs(1 + EPS * found).max(axis=1)
    ends = dataset.end.sel(net=["identity", "orthogonal 1", "orthogonal 2"]).values
    means = [float(norms[net].mean()) for net in FEEDBACK]
    half = size.shape[-1] // 2
    kept = size[-1, :, -1] / size[-1, :, half]
    grown = size[-2, :, -1] / size[-2, :, 0]
    energy = np.log(np.cosh(2 * dataset.path.values[-2])).sum(axis=-1)
    shrink = np.diff(size[1:4], axis=-1).max()
    return [
        numbers(
            "fig1-eigenvalues",
            "eigenvalues of the four W, from the step Jacobians at 0",
            np.stack([np.real(wanted), np.imag(wanted)]),
            np.stack([np.real(found), np.imag(found)]),
            atol=1e-6,
            source="Fig. 1, below panels (e) to (h)",
            exact=True,
            digits=3,
        ),
        numbers(
            "fig1-radius",
            "|1 + eps λ| of Proposition 2 at 0",
            (1.2, 0.8, 1.04**0.5, 1.010225**0.5),
            radius,
            atol=1e-6,
            source=OWN + "|1 + eps λ| from the printed eigenvalues",
            exact=True,
        ),
        numbers(
            "fig1-norms",
            "‖h_50‖ of the feedback nets, all starts",
            loop(dataset.sizes["time"] - 1),
            np.stack([norms[net] for net in FEEDBACK]),
            atol=1e-10,
            source=OWN + "a plain NumPy loop",
            exact=True,
            digits=3,
        ),
        statement(
            "fig1-shrink",
            "identity and orthogonal vanilla nets all shrink to zero",
            "trajectories shrink to the origin",
            f"‖h‖ at most {ends.max():.2g} in the long run",
            source="Fig. 1 (b) to (d) and section 4",
            condition="the norm falls at every step, and is below 0.05 in the long run",
            holds=shrink < 0 and ends.max() < 0.05,
        ),
        statement(
            "fig1-order",
            "W+ leaves, W- collapses, the others circle",
            "unstable, stable but lossy, critical",
            "‖h_50‖ " + " / ".join(f"{m:.3g}" for m in means),
            source="Fig. 1 (e) to (h)",
            exact=True,
            condition="mean ‖h_50‖ is in the order W- < with diffusion < W0 < W+",
            holds=means[1] < means[3] < means[2] < means[0],
        ),
        statement(
            "fig1-spiral",
            "forward Euler makes W0 spiral outwards slowly",
            "slow outward spiral",
            "‖h_50‖/‖h_0‖ " + " / ".join(f"{ratio:.3g}" for ratio in grown),
            source="Fig. 1 (g)",
            condition="Σ log cosh 2h, which the continuous field keeps, grows at every step, and "
            "each norm by a factor between 1 and e",
            exact=True,
            holds=(np.diff(energy) > 0).all() and (grown > 1).all() and (grown < np.e).all(),
        ),
        statement(
            "fig1-distance",
            "with diffusion the distance to the origin stays constant",
            "constant distance",
            "second half times " + " / ".join(f"{k:.3g}" for k in kept),
            source="Fig. 1 (h)",
            condition="over the second half of the steps each norm changes by less than a tenth",
            holds=(np.abs(kept - 1) < 0.1).all(),
        ),
    ]


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Eight panels, (a) to (h), as in the paper."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7.0, 3.8))
    axes = fig.subplots(2, 4, sharex=True, sharey=True)
    fields = {name: np.array(W, float) for name, W in FEEDBACK.items()}
    for letter, ax, net in zip("abcdefgh", axes.flat, dataset.net.values, strict=True):
        for start, color in zip(range(3), ("#0072B2", "#D55E00", "#009E73"), strict=True):
            x, y = dataset.path.sel(net=net, start=start).values.T
            ax.plot(x, y, ".-", color=color, lw=0.8, ms=2.5)
            ax.plot(x[0], y[0], "o", color=color, ms=4)
        if net in fields:
            grid = np.stack(np.meshgrid(*[np.linspace(-0.9, 0.9, 9)] * 2))
            ax.quiver(*grid, *np.tanh(np.einsum("ij,jkl->ikl", fields[net], grid)), color="0.75")
        ax.set_title(f"({letter}) {net}")
        ax.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal")
    fig.supxlabel("unit 1", fontsize=9)
    fig.supylabel("unit 2", fontsize=9)
    return fig


def summary(dataset: "xarray.Dataset") -> str:
    """The table of verdicts."""
    return verdicts(claims(dataset))


EXPERIMENT = study.Experiment(
    name="papers/chang2019",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    quick={"long_steps": 2000},
    doc=__doc__,
)

PAPER = Paper(
    citation="Chang, Chen, Haber, Chi 2019, AntisymmetricRNN: a dynamical system view on recurrent "
    "neural networks, arXiv:1902.09689",
    experiment=EXPERIMENT,
    claims=claims,
    figures={"fig1": figure},
    traps=(
        "The net with diffusion has |1 + eps λ| = 1.005 > 1 at the origin although the text "
        "presents it as the stable case: it is tanh that bounds the radius.",
        "The random and orthogonal W of panels (a), (c), (d) are not printed: ours are drawn anew.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
