"""Products of orthogonal layers are isometries; products of Gaussian ones lose most directions.

A deep network, h_{l+1} = g W_l φ(h_l) with independent W_l, passes errors back through the
end-to-end Jacobian. With a linear φ and orthogonal W_l all of its singular values are 1. With
W_l ~ N(0, 1/N) it keeps the norm of a vector on average, in ever fewer directions. With tanh and
orthogonal W_l activity dies out below the critical gain g_c = 1, where the Jacobian of 100 layers
is still close to an isometry.

Source: Saxe, McClelland, Ganguli 2014, arXiv:1312.6120, sections 3 and 4, Fig. 6 and 7.

    python experiments/papers/saxe2014_isometry.py

Takes about a minute on two cores.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import curves, fields, runs
from _layers import layers, weights
from _paper import Paper

from gradflow import flow, study, unroll
from gradflow.study import Claim, numbers, statement
from gradflow.study.figure import Figure

NETS = {
    "linear, orthogonal": ("linear", "orthogonal", 1.0),
    "linear, Gaussian": ("linear", "gaussian", 1.0),
    "tanh, g = 0.9": ("tanh", "orthogonal", 0.9),
    "tanh, g = 1": ("tanh", "orthogonal", 1.0),
    "tanh, g = 1.1": ("tanh", "orthogonal", 1.1),
}
"""Activation, law of the weights and gain."""

GAINS = (0.9, 0.95, 1.05, 1.1, 1.15, 1.2)
SHALLOW = 5
ACTIVE_LAYERS = 400


@dataclass(frozen=True)
class Config(study.Config):
    """The sizes of the networks."""

    hidden_size: int = fields.hidden_size(64)
    num_layers: int = fields.positive(99, help="Weight matrices, one fewer than the layers N_l.")
    wide: int = fields.positive(300, help="Width of the networks whose eigenvalues are counted.")
    num_seeds: int = fields.num_seeds(8)


def singular_values(config: Config, activation: str) -> dict[str, np.ndarray]:
    """Measures log σ_i of the networks of one activation at every depth, (run, lag, index)."""
    n, depth = config.hidden_size, config.num_layers
    nets = {name: (law, gain) for name, (phi, law, gain) in NETS.items() if phi == activation}

    def one(inputs: jax.Array, h: jax.Array) -> jax.Array:
        return flow.log_singular_values(layers(n, activation), {}, inputs, carry=h)

    keys = jax.vmap(jax.random.split)(runs.keys(config))
    W = [
        jax.vmap(lambda key, law=law, gain=gain: weights(key, law, depth, n, gain))(keys[:, 0])
        for law, gain in nets.values()
    ]
    h = jax.vmap(lambda key: jax.random.normal(key, (n,)))(keys[:, 1])
    found = runs.measure(one, jnp.concatenate(W), jnp.tile(h, (len(nets), 1)))
    return dict(zip(nets, np.split(found, len(nets)), strict=True))


def eigenvalues_at_origin(config: Config) -> np.ndarray:
    """Measures the fraction of eigenvalues of W_Tot in the bin of width 0.1 around 0, (run,)."""
    n = config.wide
    cell = layers(n, "linear")

    def jacobian(key: jax.Array) -> jax.Array:
        inputs = weights(key, "gaussian", config.num_layers, n, 1.0)
        return jax.jacfwd(lambda h: unroll(cell, {}, inputs, carry=h).outputs[-1])(jnp.zeros(n))

    found = [np.linalg.eigvals(jax.jit(jacobian)(key)) for key in runs.keys(config)]
    inside = [(abs(each.real) < 0.05) & (abs(each.imag) < 0.05) for each in found]
    return np.mean(inside, axis=1)


def activity(config: Config) -> np.ndarray:
    """Measures q, the mean square of the activity after 400 layers from q = 1, (gain, run)."""
    n = config.hidden_size
    cell = layers(n, "tanh")

    def one(key: jax.Array, gain: jax.Array) -> jax.Array:
        k_w, k_h = jax.random.split(key)
        inputs = gain * weights(k_w, "orthogonal", ACTIVE_LAYERS, n, 1.0)
        h = unroll(cell, {}, inputs, carry=jax.random.normal(k_h, (n,))).outputs[-1]
        return jnp.mean(h**2)

    keys = jnp.tile(runs.keys(config), len(GAINS))
    found = runs.measure(one, keys, jnp.repeat(jnp.asarray(GAINS), config.num_seeds))
    return found.reshape(len(GAINS), config.num_seeds)


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures singular values of all networks, eigenvalues at 0, and the activity by gain."""
    del once  # it takes a minute
    found = {**singular_values(config, "linear"), **singular_values(config, "tanh")}
    return xarray.Dataset(
        {
            "log_value": (
                ("net", "run", "lag", "index"),
                np.stack([found[name] for name in NETS]),
                {"units": "nats"},
            ),
            "at_origin": (("run",), eigenvalues_at_origin(config)),
            "activity": (("gain", "run"), activity(config)),
        },
        coords={"net": list(NETS), "gain": list(GAINS)},
    )


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """Linear networks of Fig. 6, and tanh networks of Fig. 7."""
    return [*about_linear(dataset), *about_tanh(dataset)]


def about_linear(dataset: xarray.Dataset) -> list[Claim]:
    """Isometry, the conserved norm, and the loss of directions."""
    orthogonal, gaussian = (
        dataset.log_value.sel(net=f"linear, {law}") for law in ("orthogonal", "Gaussian")
    )
    deep = gaussian.isel(lag=-1)
    median, top = float(deep.median()), float(deep.max("index").median())
    kurtosis = [excess_kurtosis(gaussian.isel(lag=lag)) for lag in (1, SHALLOW, -1)]
    return [
        numbers(
            "spectra-orthogonal",
            "All singular values of a product of orthogonal matrices are 1.",
            1.0,
            np.exp([float(orthogonal[:, -1].min()), float(orthogonal[:, -1].max())]),
            atol=1e-9,
            source="section 3, below eq. 19",
            exact=True,
        ),
        numbers(
            "spectra-norm",
            "A product of five Gaussian matrices keeps the squared norm of a vector on average.",
            1.0,
            float(np.exp(2 * gaussian.isel(lag=SHALLOW)).mean()),
            atol=0.15,
            source="section 3, below eq. 19",
        ),
        statement(
            "spectra-vanish",
            "At a depth of 100 layers most singular values of the Gaussian product have become "
            "vanishingly small while a long tail of large ones remains.",
            "most of the singular values become vanishingly small, a long tail remains",
            {"median of log10 σ": median / curves.NATS, "of the largest": top / curves.NATS},
            source="section 3, on Fig. 6 B",
            criterion="the median σ is below 1e-3 and the largest, in the median network, above 1",
            holds=median < -3 * curves.NATS and top > 0,
        ),
        statement(
            "spectra-kurtosis",
            "The distribution of singular values becomes highly kurtotic with depth.",
            "develops a highly kurtotic nature as the depth increases",
            {"excess kurtosis of σ at 1, 5 and all matrices": kurtosis},
            source="section 3, on Fig. 6 B",
            criterion="the excess kurtosis grows from 1 to 5 to 99 matrices and is above 10 at 99",
            holds=kurtosis[0] < kurtosis[1] < kurtosis[2] and kurtosis[2] > 10,
        ),
        numbers(
            "spectra-origin",
            "Of the eigenvalues of the Gaussian product, 94 % lie in the bin of width 0.1 that "
            "contains the origin.",
            0.94,
            float(dataset.at_origin.mean()),
            atol=0.01,
            source="caption of Fig. 6; the depth N_l = 100 from the caption of Fig. 7",
        ),
    ]


def excess_kurtosis(log_values: xarray.DataArray) -> float:
    """Computes the excess kurtosis of σ over all networks."""
    values = np.exp(np.ravel(log_values))
    centred = values - values.mean()
    return float(np.mean(centred**4) / np.mean(centred**2) ** 2 - 3)


def about_tanh(dataset: xarray.Dataset) -> list[Claim]:
    """The critical gain, and the Jacobians around it."""
    q = dataset.activity.mean("run").values
    # q grows linearly above the transition: the line through the two points next to it.
    (low, high), (q_low, q_high) = GAINS[2:4], q[2:4]
    critical = low - q_low * (high - low) / (q_high - q_low)
    last = {name: dataset.log_value.sel(net=name).isel(lag=-1) / curves.NATS for name in NETS}
    below, at, above = (float(last[f"tanh, g = {gain}"].median()) for gain in ("0.9", "1", "1.1"))
    near = float((abs(last["tanh, g = 1"] - at) < 0.5).mean())
    spread = {name: float(np.diff(last[name].quantile([0.1, 0.9]))[0]) for name in NETS}
    mild = {name: spread[name] for name in ("tanh, g = 1.1", "linear, Gaussian")}
    return [
        numbers(
            "spectra-critical",
            "The gain above which activity survives in deep orthogonal tanh networks is g_c = 1.",
            1.0,
            critical,
            atol=0.02,
            source="section 4: for tanh we compute g_c = 1",
        ),
        statement(
            "spectra-transition",
            "Activity decays to zero for g < g_c and to a positive variance for g > g_c.",
            "q → 0 for g < g_c and q → q∞(g) > 0 for g > g_c",
            {"q after 400 layers at g = 0.9, 0.95, 1.05, 1.1, 1.15, 1.2": q},
            source="section 4, below eq. 21",
            criterion="q is below 1e-6 at g = 0.9 and 0.95, above 0.01 at the others, and grows",
            holds=q[:2].max() < 1e-6 and q[2:].min() > 0.01 and (np.diff(q) > 0).all(),
        ),
        statement(
            "spectra-edge",
            "At g = 1 an O(1) fraction of the singular values of 100 tanh layers lies in a range "
            "that remains O(1).",
            "an O(1) fraction is concentrated in a range that remains O(1) despite 100 layers",
            {"fraction within a factor √10 of the median": near, "log10 of the median": at},
            source="section 4, on Fig. 7",
            criterion="over half within a factor √10 of the median, and the median above 0.03",
            holds=near > 0.5 and at > np.log10(0.03),
        ),
        statement(
            "spectra-robust",
            "The spectrum is more robust to gains above 1 than to gains below 1.",
            "more robust to perturbations that increase g from 1 than to those that decrease g",
            {"log10 of the median σ at g = 0.9, 1 and 1.1": [below, at, above]},
            source="section 4, on Fig. 7",
            criterion="the median log σ is further from that at g = 1 at 0.9 than at 1.1",
            holds=abs(below - at) > abs(above - at),
        ),
        statement(
            "spectra-mild",
            "The anisotropy at g = 1.1 is mild compared with that of random linear Gaussian "
            "networks of the same depth.",
            "relatively mild compared to that of random linear networks with Gaussian weights",
            {f"orders of magnitude from 10 to 90 % of σ, {name}": x for name, x in mild.items()},
            source="section 4, on Fig. 7 and Fig. 6 B",
            criterion="the orders of magnitude at g = 1.1 are less than half of the Gaussian ones",
            holds=mild["tanh, g = 1.1"] < mild["linear, Gaussian"] / 2,
        ),
    ]


def figure(dataset: xarray.Dataset) -> Figure:
    """The median and the 10-90 % band of all singular values against depth, and the activity."""
    fig = study.figure.empty(7.0, 2.8)
    left, right = fig.subplots(1, 2, width_ratios=[1.6, 1])
    lag = np.arange(dataset.sizes["lag"])
    for index, name in enumerate(NETS):
        values = dataset.log_value.sel(net=name).stack(all=("run", "index")) / curves.NATS
        look = {**study.figure.series_style(index), "marker": None}
        study.figure.band(left, lag, values.transpose("all", "lag").values, 0, label=name, **look)
    left.set(xlabel="weight matrices, from the output", ylabel=r"$\log_{10}\,\sigma_i$")
    left.set(xlim=(0, lag[-1]), ylim=(-16, 2))
    left.set_title("Singular values, median and 10–90 %")
    left.legend(loc="lower left")
    right.plot(dataset.gain, dataset.activity.mean("run"), "o-", color=curves.SHADES[1])
    right.axvline(1, color="0.6", ls=":", lw=1)
    right.set(xlabel="gain g", ylabel="q after 400 layers", title="Activity of tanh networks")
    return fig


EXPERIMENT = Paper(
    name="papers/saxe2014_isometry",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={"hidden_size": 8, "num_layers": 20, "wide": 20, "num_seeds": 2},
    doc=__doc__,
    citation="Saxe, McClelland, Ganguli 2014, Exact solutions to the nonlinear dynamics of "
    "learning in deep linear neural networks, arXiv:1312.6120",
    figures={"spectra": figure},
    traps=(
        "The paper has N = 1000 and 500 products; here are 8 of width 64 for singular values and "
        "of width 300 for eigenvalues.",
        "The depth of the middle panel of Fig. 6 C is not in the text; its 32 % is not compared.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
