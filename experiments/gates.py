"""How gates carry the gradient: the forget gate's bias, its activations, the paths through gates.

An LSTM with forget biases b, c_t = f_t ∘ c_{t-1} + i_t ∘ g_t, and with chrono initialisation,
b = log u for u ~ U(1, max_lag - 1): the norm ‖∂c_T/∂c_k‖ against the lag and the horizon, the lag
at which it is 1e-3; the forget gate's activations along time; the four terms of ∂c_t/∂c_{t-1},
diag(f) and the paths through f, i and g; and ‖∂h_T/∂h_k‖ of the LSTM's and the GRU's forms.

The claims, as they are taught: a larger bias carries the gradient of the cell further; and it
shrinks by the forget gate, σ(b) per step. Each is supported by a rule fixed beforehand: the horizon
of every network at the largest bias is beyond that at the smallest, and the median horizon does not
fall from any bias to the next; the measured log factor per step lies within 25 % of log σ(b) at
every bias, by its 95 % interval.

Source: Gers, Schmidhuber, Cummins 2000, doi:10.1162/089976600300015015 (forget gates); Jozefowicz,
Zaremba, Sutskever 2015 (the bias); Tallec & Ollivier 2018, arXiv:1804.11188 (chrono).

    python experiments/gates.py
    python experiments/gates.py --biases=0,2,4,8 --chrono=100,1000 --num_steps=1000 --num_seeds=5

Takes about a minute on two cores at the defaults.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import curves, decisions, fields, rates, runs
from numpy.typing import ArrayLike

from gradflow import Params, flow, statistics, study
from gradflow.cells import lstm, resolve
from gradflow.flow.summary import HORIZON
from gradflow.initializers import chrono
from gradflow.spec import check_name
from gradflow.study.figure import Axes, Figure

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
"""The relative distance from log σ(b) up to which a measured log factor counts as equal."""


@dataclass(frozen=True)
class Config(study.Config):
    """Which biases, on what."""

    biases: tuple[float, ...] = study.field(
        (-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0), help="Forget biases, in ascending order."
    )
    chrono: tuple[int, ...] = study.field((50, 200), help="max_lag of chrono initialisations.")
    hidden_size: int = fields.hidden_size(64)
    input_size: int = fields.input_size(16)
    num_steps: int = fields.num_steps(200)
    needed_lag: int | None = fields.needed_lag()
    forms: tuple[str, ...] = study.field(
        tuple(FORMS), help="Of lstm, peephole, coupled, no_forget_gate, gru and gru_reset_before."
    )
    bins: int = fields.positive(25, help="Bins of the histograms of the gates.")


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures the settings of the bias and the forms; dimensions setting or form, run, lag."""
    if list(config.biases) != sorted(set(config.biases)):
        raise ValueError(f"Expected biases in ascending order, got {config.biases}. Sort --biases.")
    for form in config.forms:
        check_name("form of a gated cell", form, FORMS)
    forms = [
        once(f"form={form}", partial(_measure_form, config, form))
        for form in study.progress(config.forms, "forms")
    ]
    parts = [
        once("settings", partial(_measure_settings, config)),
        once("terms", partial(_measure_terms, config)),
        xarray.concat(forms, dim="form", join="exact"),
    ]
    merged = xarray.merge(parts, join="exact", compat="no_conflicts")
    return merged.assign_attrs(rates.needed(config))


def init_settings(config: Config, key: jax.Array) -> Params:
    """Initialises one network under every setting of the forget bias, with the same matrices."""
    sizes = config.input_size, config.hidden_size
    laws = [*config.biases, *map(chrono, config.chrono)]
    by_law = [lstm(*sizes, forget_bias=law).init(key) for law in laws]

    def stacked(gate: str) -> Params:
        same = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(laws)), by_law[0][gate])
        return same | {"b": jnp.stack([params[gate]["b"] for params in by_law])}

    return {gate: stacked(gate) for gate in by_law[0]}


def _measure_settings(config: Config) -> xarray.Dataset:
    """The norms and the forget gate's histograms of all settings, in one program."""
    cell = lstm(config.input_size, config.hidden_size)

    def one(params: Params, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        gates = flow.gates(cell, params, x)
        histogram = flow.gate_histograms(gates, bins=config.bins)["f"]
        norms = flow.log_norms(cell, params, x, source="c", target="c")
        return norms, histogram, gates["f"].mean()

    def of_run(key: jax.Array, x: jax.Array) -> tuple[jax.Array, ...]:
        settings = init_settings(config, runs.cell_key(key))
        return jax.lax.map(lambda params: one(params, x), settings)

    norms, fractions, mean_f = runs.measure(of_run, runs.keys(config), runs.inputs(config))
    edges = np.linspace(0, 1, config.bins + 1)
    return xarray.Dataset(
        {
            "log_norm": (("run", "setting", "lag"), norms, {"units": "nats"}),
            "fraction": (("setting", "step", "activation"), fractions.mean(axis=0)),
            "mean_f": (("run", "setting"), mean_f),
            "bias": ("setting", [*config.biases, *(math.nan for _ in config.chrono)]),
        },
        coords={
            "setting": [f"{b:g}" for b in config.biases] + [f"chrono {m}" for m in config.chrono],
            "activation": (edges[1:] + edges[:-1]) / 2,
            **curves.coordinates(config.num_steps),
        },
    )


def _measure_terms(config: Config) -> xarray.Dataset:
    """The terms of ∂c_t/∂c_{t-1} in the cell with its default bias, and products of them."""
    cell = lstm(config.input_size, config.hidden_size)
    params = runs.initialise(cell, runs.keys(config))
    norms = runs.measure(partial(flow.decomposition_norms, cell), params, runs.inputs(config))
    terms, products = (
        np.stack([getattr(norms, name) for name in names]) for names in (TERMS, PRODUCTS)
    )
    return xarray.Dataset(
        {
            "log_term": (("term", "run", "step"), terms, {"units": "nats"}),
            "log_product": (("product", "run", "lag"), products, {"units": "nats"}),
        },
        coords={
            "term": list(TERMS),
            "product": list(PRODUCTS),
            **curves.coordinates(config.num_steps),
        },
    )


def _measure_form(config: Config, form: str) -> xarray.Dataset:
    cell = resolve(FORMS[form])(config.input_size, config.hidden_size)
    params = runs.initialise(cell, runs.keys(config))
    norms = runs.measure(partial(flow.log_norms, cell), params, runs.inputs(config))
    return xarray.Dataset(
        {"log_norm_h": (("form", "run", "lag"), norms[None], {"units": "nats"})},
        coords={"form": [form], **curves.coordinates(config.num_steps)},
    )


def log_forget(bias: ArrayLike) -> np.ndarray:
    """Computes log σ(b), the log factor per step of the forget gate alone."""
    return -np.log1p(np.exp(-np.asarray(bias)))


def figure(dataset: xarray.Dataset) -> Figure:
    """Norms, horizons and the forget gate's activations by bias; the terms, and the forms."""
    fig = study.figure.empty(7.0, 7.4)
    (settings, horizons), (terms, activations), (products, forms) = fig.subplots(3, 2)
    _draw_settings(settings, dataset)
    _draw_horizons(horizons, dataset)
    _draw_activations(activations, dataset)
    _draw_terms(terms, dataset)
    _draw_products(products, dataset)
    _draw_forms(forms, dataset)
    return fig


def _settings(dataset: xarray.Dataset) -> Iterator[tuple[str, Any, str]]:
    """Each setting's name, with its colour and line style: dark to light as the bias grows."""
    names = [str(name) for name in dataset.setting.values]
    colors = curves.shades(int(np.isfinite(dataset.bias.values).sum()))
    yield from ((name, color, "-") for name, color in zip(names, colors, strict=False))
    for index, name in enumerate(names[len(colors) :]):
        yield name, "#D55E00", ("--", ":", "-.")[index % 3]


def _draw_settings(ax: Axes, dataset: xarray.Dataset) -> None:
    for name, color, linestyle in _settings(dataset):
        look = {"color": color, "linestyle": linestyle, "label": name}
        curves.draw_norms(ax, dataset.lag, dataset.log_norm.sel(setting=name), **look)
    curves.lag_axis(ax, dataset)
    ax.set_ylabel(curves.norm_label("c", "c"))
    ax.set_title("LSTM by forget bias: median, 10–90 %")
    ax.legend(title="forget bias", ncols=2, handlelength=2, fontsize=7, loc="lower left")


def _draw_horizons(ax: Axes, dataset: xarray.Dataset) -> None:
    longest, fixed = dataset.sizes["lag"] - 1, _fixed(dataset)
    reached = np.minimum(flow.horizons(fixed.log_norm.values), longest)
    bias = fixed.bias.values
    alone = math.log(HORIZON) / log_forget(bias)
    look = study.figure.cell_style("lstm", 0) | {"markevery": 1, "label": "measured"}
    study.figure.band(ax, bias, reached, 0, **look)
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


def _draw_activations(ax: Axes, dataset: xarray.Dataset) -> None:
    """The forget gate's distribution over units, steps and runs: a column for each setting."""
    fractions = dataset.fraction.mean("step").transpose("activation", "setting")
    shown = fractions.where(fractions > 0)
    look: Any = {"origin": "lower", "aspect": "auto", "cmap": "Blues"}
    extent = (-0.5, shown.sizes["setting"] - 0.5, 0, 1)
    image = ax.imshow(shown, extent=extent, norm="log", vmin=1e-3, vmax=1, **look)
    names = [str(name) for name in dataset.setting.values]
    ax.set_xticks(range(len(names)), names, fontsize=7, rotation=40)
    ax.grid(False)
    ax.set(
        xlabel="forget bias", ylabel=r"forget gate $f_t$", title="Activations of the forget gate"
    )
    ax.figure.colorbar(image, ax=ax, label="fraction of units", extend="min")


def _draw_terms(ax: Axes, dataset: xarray.Dataset) -> None:
    labels = (r"diag $f_t$", r"through $f$", r"through $i$", r"through $g$")
    for index, (term, label) in enumerate(zip(TERMS, labels, strict=True)):
        # The first step has no path through a gate: h_0 does not depend on c_0.
        norms = dataset.log_term.sel(term=term)[:, 1:]
        look = study.figure.cell_style("", index) | {"label": label}
        curves.draw_norms(ax, dataset.sizes["step"] - norms.step, norms, **look)
    ax.set(
        xlabel="lag T − t (steps)",
        ylabel=r"$\log_{10}$ norm",
        title=r"Terms of $\partial c_t/\partial c_{t-1}$",
    )
    ax.margins(y=0.35)
    ax.legend(ncols=2, loc="lower center", fontsize=8, columnspacing=1)


def _draw_products(ax: Axes, dataset: xarray.Dataset) -> None:
    labels = (r"$\prod$ diag $f_t$", r"$\prod$ all four", "exact")
    for index, (product, label) in enumerate(zip(PRODUCTS, labels, strict=True)):
        look = study.figure.cell_style("", index) | {"label": label}
        curves.draw_norms(ax, dataset.lag, dataset.log_product.sel(product=product), **look)
    curves.lag_axis(ax, dataset)
    ax.set_title(r"Their products: $dc_T/dc_k$")
    ax.legend(loc="lower left")


def _draw_forms(ax: Axes, dataset: xarray.Dataset) -> None:
    for index, form in enumerate(dataset.form.values):
        label = str(form).replace("gru_", "gru, ").replace("_", " ")
        look = study.figure.cell_style(str(form), index) | {"label": label}
        curves.draw_norms(ax, dataset.lag, dataset.log_norm_h.sel(form=form), **look)
    curves.lag_axis(ax, dataset)
    ax.set_title(r"Forms: $\|\partial h_T/\partial h_k\|$")
    ax.legend(loc="lower left", fontsize=7)


def _fixed(dataset: xarray.Dataset) -> xarray.Dataset:
    """The settings with a constant bias."""
    return dataset.isel(setting=np.isfinite(dataset.bias.values))


def summary(dataset: xarray.Dataset) -> str:
    """Factor per step and horizon by bias and by form, and the error of the one-line formula."""
    needed = rates.needed_lag(dataset)
    settings = [_row(dataset.sel(setting=name), needed) for name in dataset.setting.values]
    forms = [
        {"form": str(form), **_columns(dataset.log_norm_h.sel(form=form), needed)}
        for form in dataset.form.values
    ]
    last = dataset.log_product.isel(lag=-1) / curves.NATS
    off = (last.sel(product="product_forget") - last.sel(product="exact_total")).values
    formula = (
        "Forget bias 1: log10 of the product of the forget gates alone over the exact dc_T/dc_k "
        f"is {statistics.estimate(off):+.1f} at lag {int(dataset.lag[-1])}."
    )
    return "\n".join([study.table(settings), "", study.table(forms), "", formula])


def _row(data: xarray.Dataset, needed_lag: int | None) -> dict[str, str]:
    bias = float(data.bias)
    return {
        "forget bias": str(data.setting.values),
        **_columns(data.log_norm, needed_lag),
        "σ(b)": f"{np.exp(log_forget(bias)):.4f}" if np.isfinite(bias) else "",
        "mean f": f"{float(data.mean_f.mean()):.3f}",
    }


def _columns(log_norms: xarray.DataArray, needed_lag: int | None) -> dict[str, str]:
    """The columns of curves; the horizon is the median of those of the runs."""
    longest = log_norms.sizes["lag"] - 1
    horizon = float(np.median(flow.horizons(log_norms.values)))
    row = rates.row(flow.summary(log_norms.values, needed_lag=needed_lag), longest)
    return row | {"horizon": rates.lag_text(horizon, longest)}


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """Whether a larger bias carries the gradient further, and whether σ(b) is its factor."""
    return [_further(_fixed(dataset)), _forget_gate(_fixed(dataset))]


def _further(fixed: xarray.Dataset) -> study.Claim:
    reached = flow.horizons(fixed.log_norm.transpose("run", "setting", "lag").values)
    # Two horizons beyond the longest lag count as equal: infinity minus infinity is not a number.
    medians = np.minimum(np.median(reached, axis=0), fixed.sizes["lag"])
    ends = {str(fixed.setting.values[at]): medians[at] for at in (0, -1)}
    return study.claim(
        "larger-bias-further",
        "A larger forget bias carries the gradient of the cell further.",
        bool((np.diff(medians) >= 0).all() and (reached[:, -1] > reached[:, 0]).all()),
        measured={f"median horizon at bias {name}": float(lag) for name, lag in ends.items()},
        unit="steps",
        criterion="every network's horizon at the largest bias is beyond that at the smallest, and "
        "the median horizon does not fall from any bias to the next",
    )


def _forget_gate(fixed: xarray.Dataset) -> study.Claim:
    measured = rates.slopes(fixed.log_norm.transpose("setting", "run", "lag"))
    ratios = measured / log_forget(fixed.bias.values)[:, None]
    found = {
        f"log factor over log σ(b) at bias {name}": statistics.estimate(of_runs)
        for name, of_runs in zip(fixed.setting.values, ratios, strict=True)
    }
    return study.claim(
        "forget-gate-factor",
        "The gradient of the cell shrinks by the forget gate, σ(b) per step.",
        decisions.every(
            decisions.within(ratio, 1 - TOLERANCE, 1 + TOLERANCE) for ratio in found.values()
        ),
        measured=found,
        criterion=f"the measured log factor per step lies within {TOLERANCE:.0%} of log σ(b) at "
        "every bias, by its 95 % interval",
    )


EXPERIMENT = study.Experiment(
    name="gates",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
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
