"""Without its stabiliser an exponential gate gives wrong gradients long before it overflows.

The sLSTM and the mLSTM have the same output with and without the stabiliser, which divides the
state by exp(m). The plain form is run in float32 and float64 with a bias a of one gate:

    forget   f_t = exp(a_t), a_t = a + W_x x_t + ...: the state grows as exp(a t)
    input    i_t = exp(a_t) beside a sigmoid forget gate: the state stays about exp(a)

Derived: the state overflows at the step log(max)/a for the largest float max, 88.7/a in float32
and 709.8/a in float64, or at once where a > log(max). The gradient of h = c/n is wrong earlier: the
derivative by n has a factor 1/n², which is rounded to 0 where n exceeds about √max, at half of that
step, or for a > log(max)/2. Nothing is infinite or NaN there.

Measured: the first step with a state that is not finite; the first length at which the gradient
∂(uᵀh_T)/∂x_1 ... x_T of the plain form, for a random u, differs from that of the stabilised form in
float64 by more than 1 %; and the differences between both forms before that. Each claim compares
one of these with what is derived.

Source: Beck et al. 2024, arXiv:2405.04517, eq. 15 to 17 and appendix A.

    python experiments/exponential_gates.py
    python experiments/exponential_gates.py --forget_biases=0.5,1,2 --num_steps=400

Takes a few minutes on two cores at the defaults.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import decisions, fields, runs

from gradflow import Cell, Params, statistics, study, unroll
from gradflow.cell import whole_carry
from gradflow.cells import mlstm, slstm
from gradflow.study.figure import Axes, Figure

CELLS: dict[str, Callable[..., Cell]] = {"slstm": slstm, "mlstm": mlstm}

PRECISIONS = {"float32": "#D55E00", "float64": "#0072B2"}
"""The precisions with their colours."""

WRONG = 0.01
"""The relative error from which a gradient counts as wrong."""

MARGIN = 5.0
"""Nats below log(max)/2 up to which gradients are compared.

1/n² is rounded to 0 from n = 1/√tiny on, 0.7 nats below √max, and the mLSTM divides by nᵀq, which
can exceed the largest entry of its state.
"""

EVERY = 2
"""Steps between two lengths at which gradients are computed."""


class Gate(NamedTuple):
    """A gate whose bias is swept.

    Attributes:
      name: Its name in the parameters.
      forget_gate: The kind of the cell's forget gate.
    """

    name: str
    forget_gate: str


GATES = {"forget": Gate("f", "exp"), "input": Gate("i", "sigmoid")}


@dataclass(frozen=True)
class Config(study.Config):
    """Which biases are swept."""

    num_seeds: int = fields.num_seeds(5)
    hidden_size: int = fields.hidden_size(8)
    input_size: int = fields.input_size(4)
    num_steps: int = fields.num_steps(180)
    forget_biases: tuple[float, ...] = fields.positive(
        (0.6, 1.0, 2.0, 4.0, 8.0), help="Biases of the exponential forget gate."
    )
    input_biases: tuple[float, ...] = fields.positive(
        (20.0, 40.0, 50.0, 100.0, 300.0, 400.0, 800.0),
        help="Biases of the input gate beside a sigmoid forget gate.",
    )


def log_max(precision: str) -> float:
    """Computes the natural logarithm of the largest float."""
    return float(np.log(np.finfo(precision).max))


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Runs both forms; dimensions cell, precision, setting (a gate and its bias), run."""
    if config.precision != "float64":
        raise ValueError(
            f"Expected float64, in which the reference is computed beside both precisions, got "
            f"{config.precision}. Remove --precision."
        )
    parts = [
        once(f"{cell},{gate},{precision}", partial(_measure, config, cell, gate, precision))
        for cell in CELLS
        for gate in GATES
        for precision in PRECISIONS
    ]
    by_cell = [
        xarray.concat(
            [xarray.concat(parts[i : i + 2], "precision") for i in (at, at + 2)], "setting"
        )
        for at in range(0, len(parts), 4)
    ]
    return xarray.concat(by_cell, "cell", coords="minimal", compat="equals")


def _measure(config: Config, name: str, gate: str, precision: str) -> xarray.Dataset:
    biases = np.array(getattr(config, f"{gate}_biases"))
    forms = _forms(config, name, gate)
    params = runs.initialise(forms[0], runs.keys(config))
    u = jax.vmap(lambda key: jax.random.normal(runs.stream(key, 0), (config.hidden_size,)))

    def one_run(params: Params, x: jax.Array, u: jax.Array) -> dict[str, jax.Array]:
        def at_bias(bias: jax.Array) -> dict[str, jax.Array]:
            own = params[GATES[gate].name]
            shifted = params | {GATES[gate].name: own | {"b": jnp.full_like(own["b"], bias)}}
            return compare(forms, shifted, x, u, precision)

        return jax.vmap(at_bias)(jnp.asarray(biases))

    found = runs.measure(one_run, params, runs.inputs(config), u(runs.keys(config)))
    variables = {key: (("run", "setting"), values) for key, values in found.items()}
    return xarray.Dataset(
        variables,
        coords={
            "cell": name,
            "precision": precision,
            "gate": ("setting", [gate] * len(biases)),
            "bias": ("setting", biases),
        },
    )


def _forms(config: Config, name: str, gate: str) -> list[Cell]:
    """The stabilised form and the plain one."""
    return [
        CELLS[name](
            config.input_size,
            config.hidden_size,
            stabilised=stabilised,
            forget_gate=GATES[gate].forget_gate,
        )
        for stabilised in (True, False)
    ]


def compare(
    forms: list[Cell], params: Params, x: jax.Array, u: jax.Array, precision: str
) -> dict[str, jax.Array]:
    """Compares the plain form in a precision with the stabilised one in float64.

    Args:
      forms: The stabilised form and the plain one.
      params: Their parameters, which are the same.
      x: The inputs (T, input).
      u: The direction of h_T whose gradient is taken.
      precision: That of the plain form.

    Returns:
      The first step with a state that is not finite, measured and as the reference predicts it, and
      the first length with a wrong gradient, infinite where there is none; and the largest relative
      errors: of h and of the gradient as long as the largest entry of the state is `MARGIN` below
      √max, of the gradient at the last length, and of that of the stabilised form at any length.
    """
    exact = unroll(forms[0], params, x)
    low = partial(_cast, dtype=jnp.dtype(precision))
    plain = unroll(forms[1], low(params), low(x), carry=low(forms[1].initial_carry()))
    finite = jnp.isfinite(jax.vmap(whole_carry)(plain.carries)).all(axis=1)[1:]
    log_size = jax.vmap(_log_size)(exact.carries)[1:]
    safe = jax.lax.cummax(log_size) < log_max(precision) / 2 - MARGIN
    lengths = jnp.arange(1, len(x) + 1, EVERY)
    truth = _gradients(forms[0], params, x, u, lengths)
    errors = [
        _relative(_gradients(form, low(params), low(x), low(u), lengths), truth) for form in forms
    ]
    of_h = _relative(plain.outputs, exact.outputs)
    return {
        "overflow_step": _first(~finite, jnp.arange(1, len(x) + 1)),
        "predicted_step": _first(log_size > log_max(precision), jnp.arange(1, len(x) + 1)),
        "gradient_step": _first(~(errors[1] < WRONG), lengths),
        "output_error": jnp.max(jnp.where(safe, of_h, 0)),
        "gradient_error": jnp.max(jnp.where(safe[lengths - 1], errors[1], 0)),
        "error_at_the_end": errors[1][-1],
        "stabilised_error": jnp.max(errors[0]),
    }


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def _log_size(carry: Any) -> jax.Array:
    """The logarithm of the largest entry of the state of the plain form, from the other one's."""
    states = [getattr(carry, name) for name in ("C", "c", "n") if hasattr(carry, name)]
    m = carry.m.ravel()
    logs = [jnp.log(jnp.abs(s)) + m.reshape(-1, *[1] * (s.ndim - 1)) for s in states]
    return jnp.max(jnp.concatenate([log.ravel() for log in logs]))


def _gradients(
    cell: Cell, params: Params, x: jax.Array, u: jax.Array, lengths: jax.Array
) -> jax.Array:
    """Computes ∂(uᵀh_n)/∂x for each length n, of shape (lengths, T, input)."""
    carry = _cast(cell.initial_carry(), x.dtype)

    def value(x: jax.Array, length: jax.Array) -> jax.Array:
        return u @ unroll(cell, params, x, carry=carry, lengths=length).outputs[-1]

    return jax.vmap(jax.grad(value), in_axes=(None, 0))(x, lengths)


def _relative(values: jax.Array, truth: jax.Array) -> jax.Array:
    """The norm of each difference over that of the truth, along the first axis."""
    flat = (len(truth), -1)
    norm = jnp.linalg.norm(truth.reshape(flat), axis=1)
    return jnp.linalg.norm((values - truth).reshape(flat), axis=1) / norm


def _first(events: jax.Array, steps: jax.Array) -> jax.Array:
    """The first step with the event; infinity if there is none."""
    return jnp.where(events.any(), steps[jnp.argmax(events)], jnp.inf)


def of_gate(dataset: xarray.Dataset, gate: str) -> xarray.Dataset:
    """Selects the sweep of one gate, with the bias as a dimension."""
    settings = np.flatnonzero(dataset.gate.values == gate)
    return dataset.isel(setting=settings).swap_dims(setting="bias")


def figure(dataset: xarray.Dataset) -> Figure:
    """A column for each cell: steps against the forget bias, error against the input bias."""
    fig = study.figure.empty(7.0, 5.0)
    upper, lower = fig.subplots(2, 2, sharex="row", sharey="row")
    for above, below, cell in zip(upper, lower, map(str, dataset.cell.values), strict=True):
        for precision, color in PRECISIONS.items():
            data = dataset.sel(cell=cell, precision=precision)
            _draw_steps(above, of_gate(data, "forget"), precision, color)
            errors = of_gate(data, "input").error_at_the_end
            errors = errors.where(np.isfinite(errors)).clip(min=1e-17)
            below.plot(errors.bias, errors.median("run"), color=color, marker="o", label=precision)
            below.axvline(log_max(precision) / 2, color=color, lw=0.6, ls=":")
            below.axvline(log_max(precision), color=color, lw=0.6)
        above.set(title=cell, yscale="log", xlabel="bias of the forget gate")
        below.set(yscale="log", xlabel="bias of the input gate")
        for ax, gate in ((above, "forget"), (below, "input")):
            biases = of_gate(dataset, gate).bias.values
            ax.set_xscale("log")
            ax.set_xticks(biases, [f"{bias:g}" for bias in biases], fontsize=7, rotation=45)
            ax.minorticks_off()
        below.set_title("thin: log(max); dotted: half of it", fontsize=8)
    upper[0].set_ylabel("step")
    lower[0].set_ylabel("relative error of the gradient")
    study.figure.legend_above(fig, upper[0], ncols=4)
    return fig


def _draw_steps(ax: Axes, data: xarray.Dataset, precision: str, color: str) -> None:
    for name, marker, part in (("overflow_step", "s", 1), ("gradient_step", "o", 2)):
        what = {1: "overflow", 2: "wrong gradient"}[part]
        steps = data[name].where(np.isfinite(data[name])).median("run", skipna=False)
        ax.plot(data.bias, log_max(precision) / part / data.bias, color=color, lw=0.6, ls=":")
        look: dict[str, Any] = {"color": color, "marker": marker, "ls": "none"}
        ax.plot(data.bias, steps, label=f"{what}, {precision}", **look)


def summary(dataset: xarray.Dataset) -> str:
    """The steps of both sweeps, beside the derived ones."""
    return study.table(list(_rows(dataset)))


def _rows(dataset: xarray.Dataset) -> Iterator[dict[str, str]]:
    for cell in map(str, dataset.cell.values):
        for precision in PRECISIONS:
            for gate in GATES:
                data = of_gate(dataset.sel(cell=cell, precision=precision), gate)
                for bias in data.bias.values:
                    yield _row(cell, precision, gate, data.sel(bias=bias))


def _row(cell: str, precision: str, gate: str, data: xarray.Dataset) -> dict[str, str]:
    bias = float(data.bias)
    derived = {"forget": f"{log_max(precision) / bias:.1f}"}
    derived["input"] = "1" if bias > log_max(precision) else "never"

    def shown(name: str) -> str:
        step = float(np.median(data[name]))
        return f"{step:.0f}" if np.isfinite(step) else "-"

    return {
        "cell": cell,
        "precision": precision,
        "gate": gate,
        "bias": f"{bias:g}",
        "derived": derived[gate],
        "overflow": shown("overflow_step"),
        "wrong gradient from": shown("gradient_step"),
        "error at the end": f"{float(np.median(data.error_at_the_end)):.1e}",
    }


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """When the plain form overflows, when its gradient is wrong, and that it is right before."""
    found = [_overflows(dataset), _as_derived(dataset), _half_way(dataset)]
    return [*found, *_same(dataset), _never_wrong(dataset)]


def _overflows(dataset: xarray.Dataset) -> study.Claim:
    found, predicted = dataset.overflow_step.values, dataset.predicted_step.values
    same = (found == predicted) | (np.abs(np.where(np.isinf(found), 0, found) - predicted) <= 1)
    return study.claim(
        "overflow-where-predicted",
        "The plain form overflows at the step at which the largest entry of its state, computed "
        "from the stabilised form, exceeds the largest float.",
        bool(same.all()),
        measured={"fraction of runs": float(same.mean())},
        criterion="the steps differ by at most one in every run, also where there is no overflow",
    )


def _ratios(data: xarray.DataArray, reference: xarray.DataArray | float) -> np.ndarray:
    """The mean over all settings of the ratio, for each seed; settings without a step left out."""
    ratio = (data / reference).where(np.isfinite(data) & np.isfinite(reference))
    return ratio.mean([dim for dim in ratio.dims if dim != "run"]).values


def _as_derived(dataset: xarray.Dataset) -> study.Claim:
    data = of_gate(dataset, "forget")
    limits = [log_max(precision) for precision in map(str, data.precision.values)]
    derived = xarray.DataArray(limits, dims="precision") / data.bias
    ratio = statistics.estimate(_ratios(data.overflow_step, derived + 0 * data.overflow_step))
    return study.claim(
        "overflow-as-derived",
        "With a forget gate exp(a) the plain form overflows at about the step log(max)/a.",
        decisions.within(ratio, 0.8, 1.2),
        measured={"step over log(max)/a": ratio},
        criterion="the 95 % interval of the mean ratio lies within 0.8 and 1.2",
    )


def _half_way(dataset: xarray.Dataset) -> study.Claim:
    data = of_gate(dataset, "forget")
    ratio = statistics.estimate(_ratios(data.gradient_step, data.overflow_step))
    return study.claim(
        "wrong-at-half",
        "The gradient of the plain form is wrong by more than 1 % from about half of that step on, "
        "where nothing is infinite or NaN.",
        decisions.within(ratio, 0.4, 0.6),
        measured={"first wrong length over the step of the overflow": ratio},
        criterion="the 95 % interval of the mean ratio lies within 0.4 and 0.6",
    )


def _same(dataset: xarray.Dataset) -> Iterator[study.Claim]:
    """One claim for each precision: both forms are the same function before that."""
    for precision, bound in zip(PRECISIONS, (1e-3, 1e-9), strict=True):
        data = dataset.sel(precision=precision)
        errors = {
            "output of the plain form": float(data.output_error.max()),
            "gradient of the plain form": float(data.gradient_error.max()),
        }
        yield study.claim(
            f"same-before-{precision}",
            f"In {precision} both forms have the same output and the same gradient as long as the "
            "state is well below √max.",
            all(error < bound for error in errors.values()),
            measured=errors,
            criterion=f"every relative error is below {bound:g} as long as the largest entry is "
            f"{MARGIN:g} nats below √max",
        )


def _never_wrong(dataset: xarray.Dataset) -> study.Claim:
    worst = float(dataset.stabilised_error.sel(precision="float32").max())
    return study.claim(
        "stabilised-never-wrong",
        "The gradient of the stabilised form is right in float32 for every bias and length.",
        worst < WRONG,
        measured={"largest relative error": worst},
        criterion=f"every relative error is below {WRONG:g}",
    )


EXPERIMENT = study.Experiment(
    name="exponential_gates",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    section="flow",
    order=11,
    gallery={"exponential_gates": study.Picture()},
    quick={
        "hidden_size": 3,
        "input_size": 2,
        "num_steps": 24,
        "num_seeds": 2,
        "forget_biases": (4.0, 8.0),
        "input_biases": (20.0, 60.0, 100.0),
    },
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
