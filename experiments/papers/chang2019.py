"""An antisymmetric RNN keeps its state on a circle; other weights make it diverge or shrink to 0.

Runs eight networks of two units without input for 50 steps from three starts. Four are vanilla,
h_t = tanh(W h_{t-1}), with a random W, the identity and two orthogonal ones. Four are feedback
networks ::

    h_t = h_{t-1} + eps tanh(W h_{t-1})    eps = 0.1

whose W have the eigenvalues 2, -2, ±2i and -0.15 ± 2i. Proposition 2: the network is stable if
|1 + eps λ| <= 1 for all eigenvalues λ of the field's Jacobian.

Source: Chang, Chen, Haber, Chi 2019, arXiv:1902.09689, Fig. 1 and Proposition 2.

    python experiments/papers/chang2019.py

Takes about 5 seconds on two cores.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import curves, fields
from _paper import Paper

from gradflow import Cell, Params, study, unroll
from gradflow.cells import rnn
from gradflow.study import Claim, derived, numbers, statement
from gradflow.study.figure import Figure

EPS = 0.1
LIMIT = 1.5  # of the panels: the spiral of (g) reaches 1.3
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
    """How long the networks run."""

    num_steps: int = fields.num_steps(50)
    long_steps: int = fields.positive(
        5000, help="Steps after which a vanilla network must have shrunk to zero."
    )


def vanilla_weights(seed: int) -> dict[str, np.ndarray]:
    """W of panels (a) to (d): random, identity, and two random orthogonal matrices."""
    samples = np.random.default_rng(seed).standard_normal((3, 2, 2))
    first, second = (np.linalg.qr(sample)[0] for sample in samples[1:])
    return {
        "random": samples[0],
        "identity": np.eye(2),
        "orthogonal 1": first,
        "orthogonal 2": second,
    }


def feedback() -> Cell:
    """h_t = h_{t-1} + eps tanh(W h_{t-1}), with any W."""

    def step(params: Params, h: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = h + EPS * jnp.tanh(params["W_h"] @ h)
        return h, h

    return Cell(lambda key: {"W_h": jnp.eye(2)}, step, lambda: jnp.zeros(2))


def path(cell: Cell, num_steps: int, params: Params, start: jax.Array) -> jax.Array:
    """h_0 ... h_T."""
    return unroll(cell, params, jnp.zeros((num_steps, 0)), carry=start).carries


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Runs every network from every start; dimensions net, start, time, unit, and field."""
    del once  # it takes seconds
    vanilla = vanilla_weights(config.seed)
    paths, ends = [], []
    for cell, weights in ((rnn(0, 2), vanilla), (feedback(), FEEDBACK)):
        W_h = jnp.asarray(np.stack([np.asarray(W, float) for W in weights.values()]))
        for steps, into in ((config.num_steps, paths), (config.long_steps, ends)):
            over = jax.jit(jax.vmap(jax.vmap(partial(path, cell, steps), (None, 0)), (0, None)))
            params = {"W_h": W_h, "W_x": jnp.zeros((len(W_h), 2, 0)), "b": jnp.zeros((len(W_h), 2))}
            into.append(np.asarray(over(params, jnp.asarray(STARTS))))
    last = np.concatenate(ends)[:, :, -1]
    return xarray.Dataset(
        {
            "path": (("net", "start", "time", "unit"), np.concatenate(paths)),
            "end": (("net", "start"), np.linalg.norm(last, axis=-1)),
            "jacobian": (("field", "row", "column"), jacobians_at_zero()),
        },
        coords={"net": [*vanilla, *FEEDBACK], "field": list(FEEDBACK)},
    )


def jacobians_at_zero() -> np.ndarray:
    """The step Jacobians of the feedback networks at h = 0, by automatic differentiation."""
    at_zero = jax.jacobian(lambda h, W: feedback().step({"W_h": W}, h, jnp.zeros(0))[0])
    return np.stack([at_zero(jnp.zeros(2), jnp.asarray(W, float)) for W in FEEDBACK.values()])


def loop(num_steps: int) -> np.ndarray:
    """‖h_T‖ of the feedback networks by a NumPy loop, independent of gradflow; (net, start)."""
    W = np.array(list(FEEDBACK.values()), float)[:, None]
    h = np.broadcast_to(np.array(STARTS)[None, :, :, None], (4, 3, 2, 1))
    for _ in range(num_steps):
        h = h + EPS * np.tanh(W @ h)
    return np.linalg.norm(h[..., 0], axis=-1)


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The printed eigenvalues, the closed forms, and what the panels show."""
    return [
        *about_eigenvalues(dataset),
        norms_of_feedback(dataset),
        *about_panels(dataset),
        *about_imaginary(dataset),
    ]


def about_eigenvalues(dataset: xarray.Dataset) -> list[Claim]:
    """The eigenvalues of W, and the radius of Proposition 2."""
    found = (np.linalg.eigvals(dataset.jacobian.values) - 1) / EPS
    found = np.stack([v[np.lexsort((v.imag, v.real))] for v in found])
    wanted = np.array([EIGENVALUES[name] for name in dataset.field.values], complex)
    return [
        numbers(
            "fig1-eigenvalues",
            "The step Jacobians at 0 give the eigenvalues of the four W that the paper prints.",
            np.stack([np.real(wanted), np.imag(wanted)]),
            np.stack([np.real(found), np.imag(found)]),
            atol=1e-6,
            source="Fig. 1, below panels (e) to (h)",
            exact=True,
            digits=3,
        ),
        derived(
            "fig1-radius",
            "|1 + eps λ| of Proposition 2 at 0 follows from the printed eigenvalues.",
            [1.2, 0.8, 1.04**0.5, 1.010225**0.5],
            np.abs(1 + EPS * found).max(axis=1),
            atol=1e-6,
            source="|1 + eps λ| of the printed eigenvalues",
        ),
    ]


def sizes(dataset: xarray.Dataset) -> np.ndarray:
    """‖h_t‖, of shape (net, start, time)."""
    return np.linalg.norm(dataset.path.values, axis=-1)


def norms_of_feedback(dataset: xarray.Dataset) -> Claim:
    """The norms at the end against an independent implementation."""
    return derived(
        "fig1-norms",
        f"‖h_{dataset.sizes['time'] - 1}‖ of the feedback networks equals that of a NumPy loop.",
        loop(dataset.sizes["time"] - 1),
        sizes(dataset)[-4:, :, -1],
        atol=1e-10,
        source="the paper's equation in a NumPy loop",
        digits=3,
    )


def about_panels(dataset: xarray.Dataset) -> list[Claim]:
    """Vanilla networks against feedback networks."""
    size = sizes(dataset)
    ends = dataset.end.sel(net=["identity", "orthogonal 1", "orthogonal 2"]).values
    means = size[-4:, :, -1].mean(axis=-1)
    return [
        statement(
            "fig1-shrink",
            "Vanilla networks with identity or orthogonal W shrink to zero.",
            "trajectories shrink to the origin",
            {"largest ‖h‖ in the long run": ends.max()},
            source="Fig. 1 (b) to (d) and section 4",
            criterion="the norm falls at every step, and is below 0.05 in the long run",
            holds=np.diff(size[1:4], axis=-1).max() < 0 and ends.max() < 0.05,
        ),
        statement(
            "fig1-order",
            "The network with W+ diverges, that with W- shrinks, and the other two circle.",
            "unstable, stable but lossy, critical",
            dict(zip(FEEDBACK, means, strict=True)),
            source="Fig. 1 (e) to (h)",
            criterion="mean ‖h_T‖ is in the order W- < with diffusion < W0 < W+",
            holds=means[1] < means[3] < means[2] < means[0],
            exact=True,
        ),
    ]


def about_imaginary(dataset: xarray.Dataset) -> list[Claim]:
    """The networks with imaginary eigenvalues, without and with diffusion."""
    size = sizes(dataset)
    grown = size[-2, :, -1] / size[-2, :, 0]
    kept = size[-1, :, -1] / size[-1, :, size.shape[-1] // 2]
    energy = np.log(np.cosh(2 * dataset.path.values[-2])).sum(axis=-1)
    return [
        statement(
            "fig1-spiral",
            "Forward Euler makes the network with W0 spiral outwards slowly.",
            "slow outward spiral",
            {"‖h_T‖/‖h_0‖": grown},
            source="Fig. 1 (g)",
            criterion="Σ log cosh 2h, which the continuous field conserves, grows at every step, "
            "and each norm by a factor between 1 and e",
            holds=(np.diff(energy) > 0).all() and (grown > 1).all() and (grown < np.e).all(),
            exact=True,
        ),
        statement(
            "fig1-distance",
            "With diffusion the distance to the origin stays constant.",
            "constant distance",
            {"norm at the end over that after half the steps": kept},
            source="Fig. 1 (h)",
            criterion="over the second half of the steps each norm changes by less than a tenth",
            holds=(np.abs(kept - 1) < 0.1).all(),
        ),
    ]


def figure(dataset: xarray.Dataset) -> Figure:
    """Eight panels, (a) to (h), as in the paper."""
    fig = study.figure.empty(7.0, 3.8)
    axes = fig.subplots(2, 4, sharex=True, sharey=True)
    for letter, ax, net in zip("abcdefgh", axes.flat, map(str, dataset.net.values), strict=True):
        for start, color in enumerate(curves.SHADES[1:4]):
            x, y = dataset.path.sel(net=net, start=start).values.T
            ax.plot(x, y, ".-", color=color, lw=0.8, ms=2.5)
            ax.plot(x[0], y[0], "o", color=color, ms=4)
        if net in FEEDBACK:
            grid = np.stack(np.meshgrid(*[np.linspace(-LIMIT, LIMIT, 11)[1:-1]] * 2))
            field = np.tanh(np.einsum("ij,jkl->ikl", np.array(FEEDBACK[net], float), grid))
            ax.quiver(*grid, *field, color="0.75")
        ax.set_title(f"({letter}) {net}")
        ax.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), aspect="equal")
    fig.supxlabel("unit 1", fontsize=9)
    fig.supylabel("unit 2", fontsize=9)
    return fig


EXPERIMENT = Paper(
    name="papers/chang2019",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={"long_steps": 2000},
    doc=__doc__,
    citation="Chang, Chen, Haber, Chi 2019, AntisymmetricRNN: a dynamical system view on recurrent "
    "neural networks, arXiv:1902.09689",
    figures={"fig1": figure},
    traps=(
        "The network with diffusion has |1 + eps λ| = 1.005 > 1 at the origin although the text "
        "presents it as the stable case: it is tanh that bounds the radius.",
        "The random and orthogonal W of panels (a), (c) and (d) are not printed. They are sampled "
        "here.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
