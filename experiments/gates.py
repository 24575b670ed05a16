"""How gates keep the flow: the forget gate's bias, what the gates do, and the paths through them.

An LSTM with forget biases b, c_t = f_t ∘ c_{t-1} + i_t ∘ g_t, with chrono initialisation too, where
b = log u for u ~ U(1, max_lag - 1): the norm ‖∂c_T/∂c_k‖ against the lag and the horizon, the lag
at which it is 1e-3; the forget gate's activations along time; the four terms of ∂c_t/∂c_{t-1},
diag(f) and the paths through f, i and g; and ‖∂h_T/∂h_k‖ of the LSTM's and the GRU's forms.

The claim, as it is taught: the gradient along the cell decays by the forget gate, σ(b) a step, so
that a larger bias carries it further. Two parts, each supported by a rule fixed beforehand: the
horizon of every net at the largest bias is beyond that at the smallest, and no shorter on the
median from any bias to the next; and the measured log decay lies within 25 % of log σ(b) at every
bias.

Source: Gers, Schmidhuber, Cummins 2000, doi:10.1162/089976600300015015 (forget gates); Jozefowicz,
Zaremba, Sutskever 2015 (the bias); Tallec & Ollivier 2018, arXiv:1804.11188 (chrono).

    python experiments/gates.py
    python experiments/gates.py --biases=0,2,4,8 --chrono=100,1000 --num_steps=1000 --num_seeds=5

Takes about a minute on two cores at the defaults.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from gradflow import flow, statistics, study
from gradflow.cells import lstm, resolve
from gradflow.devices import map_runs
from gradflow.flow.summary import HORIZON
from gradflow.initializers import chrono
from gradflow.spec import unknown_name
from gradflow.statistics import slope

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradflow import Params

FORMS = {
    "lstm": "lstm",
    "peephole": "lstm(peephole=True)",
    "coupled": "lstm(coupled=True)",
    "no_forget_gate": "lstm(forget_gate=False)",
    "gru": "gru",
    "gru_reset_before": "gru_reset_before",
}

TERMS = ("forget", "through_f", "through_i", "through_g")
PRODUCTS = ("product_forget", "product_total", "exact_total")

TOLERANCE = 0.25
"""How far, as a share, the measured log decay may lie from the forget gate's own."""


@dataclass(frozen=True)
class Config(study.Config):
    """Which biases, on what."""

    biases: tuple[float, ...] = study.field(
        (-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0), help="Forget biases, in ascending order."
    )
    chrono: tuple[int, ...] = study.field((50, 200), help="max_lag of chrono initialisations.")
    hidden_size: int = study.field(64, help="Hidden units.", positive=True)
    input_size: int = study.field(16, help="Channels of gaussian inputs.", positive=True)
    num_steps: int = study.field(200, help="Steps T, and so the longest lag.", positive=True)
    forms: tuple[str, ...] = study.field(
        tuple(FORMS), help="Of lstm, peephole, coupled, no_forget_gate, gru and gru_reset_before."
    )
    bins: int = study.field(25, help="Bins of the gates' histograms.", positive=True)


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Measures the settings of the bias and the forms; dimensions setting or form, run, lag."""
    import xarray

    if list(config.biases) != sorted(set(config.biases)):
        raise ValueError(f"biases in ascending order are expected, got {config.biases}")
    for form in config.forms:
        if form not in FORMS:
            raise ValueError(unknown_name("form of a gated cell", form, FORMS))
    forms = [
        once(f"form={form}", partial(_measure_form, config, form))
        for form in study.progress(config.forms, "forms")
    ]
    parts = [
        once("settings", partial(_measure_settings, config)),
        once("terms", partial(_measure_terms, config)),
        xarray.concat(forms, dim="form", join="exact"),
    ]
    return xarray.merge(parts, join="exact", compat="no_conflicts")


def _keys(config: Config) -> tuple[jax.Array, jax.Array]:
    """The keys of the parameters of each run, and the inputs (runs, T, input)."""
    k_params, k_inputs = jax.random.split(jax.random.key(config.seed))
    shape = config.num_seeds, config.num_steps, config.input_size
    return jax.random.split(k_params, config.num_seeds), jax.random.normal(k_inputs, shape)


def _coordinates(config: Config) -> dict:
    return {
        "lag": ("lag", np.arange(config.num_steps + 1), {"units": "steps"}),
        "step": ("step", np.arange(1, config.num_steps + 1), {"units": "steps"}),
    }


def _draw_settings(config: Config, key: jax.Array) -> "Params":
    """The parameters of one run under every setting of the forget bias: the same matrices."""
    params = lstm(config.input_size, config.hidden_size).init(key)
    k_chrono = jax.random.fold_in(key, 1)  # one number a unit, whatever the longest lag
    b = params["f"]["b"]
    drawn = [chrono(max_lag)(k_chrono, b.shape, b.dtype) for max_lag in config.chrono]
    fixed = [jnp.full_like(b, bias) for bias in config.biases]
    # With chrono the input gate's bias is the opposite one, as in the paper.
    b_f, b_i = jnp.stack(fixed + drawn), jnp.stack([0 * b for b in fixed] + [-b for b in drawn])
    same = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(b_f), *leaf.shape)), params)
    return same | {"f": same["f"] | {"b": b_f}, "i": same["i"] | {"b": b_i}}


def _measure_settings(config: Config) -> "xarray.Dataset":
    """The norms and the forget gate's histograms of all settings, in one program."""
    import xarray

    cell = lstm(config.input_size, config.hidden_size)
    keys, inputs = _keys(config)

    def one(params: "Params", x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        gates = flow.gates(cell, params, x)
        shares = flow.gate_histograms(gates, bins=config.bins)["f"]
        return flow.log_norms(cell, params, x, source="c", target="c"), shares, gates["f"].mean()

    def of_run(key: jax.Array, x: jax.Array) -> tuple[jax.Array, ...]:
        return jax.lax.map(lambda params: one(params, x), _draw_settings(config, key))

    results = jax.jit(map_runs(of_run))(keys, inputs)
    norms, shares, mean_f = (np.asarray(result) for result in results)
    names = [f"{bias:g}" for bias in config.biases] + [f"chrono {lag}" for lag in config.chrono]
    names_of_bias = [*config.biases, *(math.nan for _ in config.chrono)]
    edges = np.linspace(0, 1, config.bins + 1)
    return xarray.Dataset(
        {
            "log_norm": (("run", "setting", "lag"), norms, {"units": "nats"}),
            "share": (("setting", "step", "activation"), shares.mean(axis=0)),
            "mean_f": (("run", "setting"), mean_f),
            "bias": ("setting", names_of_bias),
        },
        coords={
            "setting": names,
            "activation": (edges[1:] + edges[:-1]) / 2,
            **_coordinates(config),
        },
    )


def _measure_terms(config: Config) -> "xarray.Dataset":
    """The terms of ∂c_t/∂c_{t-1} in the cell with its default bias, and products of them."""
    import xarray

    cell = lstm(config.input_size, config.hidden_size)

    def one(key: jax.Array, x: jax.Array) -> flow.DecompositionNorms:
        return flow.decomposition_norms(cell, cell.init(key), x)

    norms = jax.jit(map_runs(one))(*_keys(config))
    terms, products = (
        np.stack([getattr(norms, name) for name in names]) for names in (TERMS, PRODUCTS)
    )
    return xarray.Dataset(
        {
            "log_term": (("term", "run", "step"), terms, {"units": "nats"}),
            "log_product": (("product", "run", "lag"), products, {"units": "nats"}),
        },
        coords={"term": list(TERMS), "product": list(PRODUCTS), **_coordinates(config)},
    )


def _measure_form(config: Config, form: str) -> "xarray.Dataset":
    import xarray

    cell = resolve(FORMS[form])(config.input_size, config.hidden_size)

    def one(key: jax.Array, x: jax.Array) -> jax.Array:
        return flow.log_norms(cell, cell.init(key), x)

    norms = jax.jit(map_runs(one))(*_keys(config))
    return xarray.Dataset(
        {"log_norm_h": (("form", "run", "lag"), np.asarray(norms)[None], {"units": "nats"})},
        coords={"form": [form], **_coordinates(config)},
    )


def log_forget(bias: ArrayLike) -> np.ndarray:
    """log σ(b): the decay per step of a cell with the forget gate alone."""
    return -np.log1p(np.exp(-np.asarray(bias)))


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Norms and horizons by bias; the forget gate along time; the terms, and the forms."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7.0, 7.6))
    top, middle, bottom = fig.subfigures(3, 1, height_ratios=(3, 2, 3), squeeze=False)[:, 0]
    left, right = top.subplots(1, 2, width_ratios=(3, 2))
    _draw_settings_norms(left, dataset)
    _draw_horizons(right, dataset)
    _draw_histograms(middle, dataset)
    first, second, third = bottom.subplots(1, 3)
    _draw_terms(first, dataset)
    _draw_products(second, dataset)
    _draw_forms(third, dataset)
    return fig


def _settings(dataset: "xarray.Dataset") -> "Iterator[tuple[str, Any, str]]":
    """Each setting's name, with its colour and line style: dark to light as the bias grows."""
    from matplotlib import colormaps

    names = [str(name) for name in dataset.setting.values]
    number = int(np.isfinite(dataset.bias.values).sum())
    for index, name in enumerate(names):
        if index < number:
            yield name, colormaps["viridis"](0.9 * index / max(1, number - 1)), "-"
        else:
            yield name, "#D55E00", ("--", ":", "-.")[(index - number) % 3]


def _draw_settings_norms(ax: "Axes", dataset: "xarray.Dataset") -> None:
    for name, color, linestyle in _settings(dataset):
        decades = dataset.log_norm.sel(setting=name) / np.log(10)
        look = {"color": color, "linestyle": linestyle, "label": name}
        study.figure.band(ax, dataset.lag, decades, "run", **look)
    ax.set(
        xlabel="lag T − k (steps)",
        ylabel=r"$\log_{10}\,\|\partial c_T/\partial c_k\|$",
        title="LSTM by forget bias: median, 10–90 %",
        xlim=(0, dataset.sizes["lag"] - 1),
    )
    ax.legend(title="forget bias", ncols=2, handlelength=2, loc="lower left")


def _draw_horizons(ax: "Axes", dataset: "xarray.Dataset") -> None:
    longest = dataset.sizes["lag"] - 1
    fixed = dataset.isel(setting=np.isfinite(dataset.bias.values))
    reached = np.minimum(flow.horizons(fixed.log_norm.values), longest)
    bias = fixed.bias.values
    alone = math.log(HORIZON) / log_forget(bias)
    look = study.figure.cell_style("lstm", 0)
    study.figure.band(ax, bias, reached, 0, label="measured", **(look | {"markevery": 1}))
    ax.plot(bias, alone, color="#000000", ls="--", lw=1, label="forget gate alone")
    ax.axhline(longest, color="#808080", lw=0.6)
    ax.annotate("longest lag measured", (bias[0], longest), fontsize=7, va="bottom")
    ax.set(
        yscale="log",
        xlabel="forget bias (dimensionless)",
        ylabel="horizon (steps)",
        title="Lag at which the norm is 1e-3",
    )
    ax.legend(loc="lower right")


def _draw_histograms(fig: Any, dataset: "xarray.Dataset") -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import PowerNorm

    fixed = [str(name) for name in dataset.setting.values[np.isfinite(dataset.bias.values)]]
    names = [fixed[len(fixed) // 4], fixed[len(fixed) * 5 // 8], str(dataset.setting.values[-1])]
    shown = list(dict.fromkeys(names))
    panels = fig.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    # Shares of a few per cent are to be seen beside those of nearly one.
    norm = PowerNorm(0.4, 0, float(dataset.share.sel(setting=shown).max()))
    for ax, name in zip(panels, shown, strict=True):
        extent = (0.5, dataset.sizes["step"] + 0.5, 0, 1)
        look: Any = {"origin": "lower", "aspect": "auto", "cmap": "cividis", "norm": norm}
        ax.imshow(dataset.share.sel(setting=name).values.T, extent=extent, **look)
        ax.grid(False)
        ax.set_title(name if name.startswith("chrono") else f"forget bias {name}")
    panels[0].set_ylabel(r"forget gate $f_t$")
    panels[len(panels) // 2].set_xlabel("step t")
    fig.colorbar(ScalarMappable(norm, "cividis"), ax=list(panels), label="share of units")


def _draw_terms(ax: "Axes", dataset: "xarray.Dataset") -> None:
    num_steps = dataset.sizes["step"]
    labels = (r"diag $f_t$", r"through $f$", r"through $i$", r"through $g$")
    for index, (term, label) in enumerate(zip(TERMS, labels, strict=True)):
        decades = dataset.log_term.sel(term=term) / np.log(10)
        # The first step has a path through no gate: h_0 does not come from c_0.
        look = study.figure.cell_style("", index) | {"label": label}
        study.figure.band(ax, num_steps - dataset.step[1:], decades[:, 1:], "run", **look)
    ax.set(
        xlabel="lag T − t (steps)",
        ylabel=r"$\log_{10}$ norm",
        title=r"Terms of $\partial c_t/\partial c_{t-1}$",
    )
    ax.margins(y=0.35)
    ax.legend(ncols=2, loc="lower center", fontsize=6.5, handlelength=1.6, columnspacing=1)


def _draw_products(ax: "Axes", dataset: "xarray.Dataset") -> None:
    labels = (r"$\prod$ diag $f_t$", r"$\prod$ all four", "exact")
    for index, (product, label) in enumerate(zip(PRODUCTS, labels, strict=True)):
        decades = dataset.log_product.sel(product=product) / np.log(10)
        look = study.figure.cell_style("", index) | {"label": label}
        study.figure.band(ax, dataset.lag, decades, "run", **look)
    ax.set(
        xlabel="lag T − k (steps)",
        title=r"Their products: $dc_T/dc_k$",
        xlim=(0, dataset.sizes["lag"] - 1),
    )
    ax.legend(loc="lower left")


def _draw_forms(ax: "Axes", dataset: "xarray.Dataset") -> None:
    for index, form in enumerate(dataset.form.values):
        decades = dataset.log_norm_h.sel(form=form) / np.log(10)
        label = str(form).replace("gru_", "gru, ").replace("_", " ")
        look = study.figure.cell_style(str(form), index) | {"label": label}
        study.figure.band(ax, dataset.lag, decades, "run", **look)
    ax.set(
        xlabel="lag T − k (steps)",
        title=r"Forms: $\|\partial h_T/\partial h_k\|$",
        xlim=(0, dataset.sizes["lag"] - 1),
    )
    ax.legend(loc="lower left", fontsize=6.5)


def summary(dataset: "xarray.Dataset") -> str:
    """Decay and horizon by bias, the error of the one-line formula, and what held."""
    settings = [_row(dataset.sel(setting=name)) for name in dataset.setting.values]
    forms = [_form_row(dataset.log_norm_h.sel(form=form)) for form in dataset.form.values]
    return "\n".join(
        [study.table(settings), "", study.table(forms), "", _formula(dataset), _verdict(dataset)]
    )


def _steps(lag: float, longest: int) -> str:
    return f"{lag:.0f}" if np.isfinite(lag) else f"> {longest}"


def _row(data: "xarray.Dataset") -> dict[str, str]:
    reached = float(np.median(flow.horizons(data.log_norm.values)))
    bias, found = float(data.bias), flow.summary(data.log_norm.values)
    return {
        "forget bias": str(data.setting.values),
        "decay per step": f"{found.decay:.4f}",
        "forget gate alone": f"{np.exp(log_forget(bias)):.4f}" if np.isfinite(bias) else "",
        "mean f": f"{float(data.mean_f.mean()):.3f}",
        "horizon": _steps(reached, data.sizes["lag"] - 1),
        "word": found.word,
    }


def _form_row(log_norms: "xarray.DataArray") -> dict[str, str]:
    return {
        "form": str(log_norms.form.values),
        "decay per step": f"{flow.summary(log_norms.values).decay:.4f}",
        "horizon": _steps(
            float(np.median(flow.horizons(log_norms.values))), log_norms.sizes["lag"] - 1
        ),
    }


def _formula(dataset: "xarray.Dataset") -> str:
    at = dataset.log_product.isel(lag=-1) / np.log(10)
    off = (at.sel(product="product_forget") - at.sel(product="exact_total")).values
    return (
        f"diag(f) alone against the exact dc_T/dc_k at lag {int(dataset.lag[-1])}, forget bias 1: "
        f"{statistics.estimate(off):+.1f} decades"
    )


def _verdict(dataset: "xarray.Dataset") -> str:
    fixed = dataset.isel(setting=np.isfinite(dataset.bias.values))
    reached = flow.horizons(fixed.log_norm.values)
    ascending = np.diff(np.minimum(np.median(reached, axis=0), 1e9)) >= 0
    further = bool(ascending.all() and (reached[:, -1] > reached[:, 0]).all())
    rates = np.apply_along_axis(slope, -1, fixed.log_norm.values).mean(axis=0)
    off = rates / log_forget(fixed.bias.values) - 1
    alike = bool((np.abs(off) <= TOLERANCE).all())
    return (
        f"a larger bias carries it further: {study.verdict(further)}\n"
        f"the decay is the forget gate's: {study.verdict(alike)} (log "
        f"decay off by {100 * off.min():+.0f} % to {100 * off.max():+.0f} %)"
    )


EXPERIMENT = study.Experiment(
    name="gates",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    section="flow",
    order=7,
    gallery={"gates": study.Picture()},
    quick={
        "biases": (0.0, 2.0, 4.0),
        "chrono": (20,),
        "hidden_size": 6,
        "num_steps": 20,
        "num_seeds": 5,
        "forms": ("coupled", "no_forget_gate"),
        "bins": 10,
    },
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
