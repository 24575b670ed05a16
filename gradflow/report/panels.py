"""The plots of a layer, from its dataset."""

from typing import TYPE_CHECKING

import numpy as np

from gradflow.report.parts import Image, Line, Panel

if TYPE_CHECKING:
    import xarray

LOG = np.log(10)
"""Nats in one order of magnitude."""


def panels(data: "xarray.Dataset", needed_lag: int) -> tuple[Panel, ...]:
    """All plots of a layer; what it has no measurement for is left out."""
    drawn = [
        norms(data, needed_lag),
        norm_map(data),
        credit(data),
        adjoint(data),
        singular_values(data),
        exponents(data),
        eigenvalues(data),
        units(data),
    ]
    if "gate_usage" in data:
        drawn += [gate_means(data), gate_saturation(data)]
    if "steps_by_path" in data:
        drawn.append(path_shares(data))
    return tuple(drawn)


def _band(label: str, x: np.ndarray, values: np.ndarray) -> Line:
    """The median over runs (first axis), with the band from 10 to 90 %."""
    values = np.where(np.isfinite(values), values, np.nan)
    keep = np.isfinite(values).any(axis=0)
    low, middle, high = (np.full(len(x), np.nan) for _ in range(3))
    low[keep], middle[keep], high[keep] = np.nanquantile(values[:, keep], (0.1, 0.5, 0.9), axis=0)
    return Line(label, np.asarray(x), middle, low, high)


def norms(data: "xarray.Dataset", needed_lag: int) -> Panel:
    """‖∂h_T/∂h_k‖ against the lag."""
    return Panel(
        "Norm against lag",
        "How much of a change of h_k is left in h_T: median and 10–90 % over sequences. Below the "
        "line at 1e-3 little can be learnt.",
        "lag T − k (steps)",
        "log10 ‖∂h_T/∂h_k‖",
        lines=(_band("spectral norm", data.lag.values, data.log_norm.values / LOG),),
        marks=(("needed", float(needed_lag)),),
        levels=(("1e-3", -3.0),),
    )


def norm_map(data: "xarray.Dataset") -> Panel:
    """‖∂h_t/∂h_k‖ for pairs of steps."""
    values = data.log_norm_map.values / LOG
    return Panel(
        "Map of all pairs",
        "Each point is one pair of steps of the longest sequence. A horizontal cut is the plot of "
        "norm against lag for the step t.",
        "step k",
        "step t",
        image=Image(
            data.earlier.values,
            data.later.values,
            np.where(np.isfinite(values), values, np.nan),
            "log10 ‖∂h_t/∂h_k‖",
        ),
    )


def credit(data: "xarray.Dataset") -> Panel:
    """The component of each step in the gradient of the loss."""
    caption = "The part of each step in ∂L/∂θ: where the parameters learn from."
    line = _band("component", data.step.values, data.log_component.values / LOG)
    return _by_step("Credit by step", caption, "log10 ‖component of step k‖", line)


def adjoint(data: "xarray.Dataset") -> Panel:
    """The gradient of the loss with respect to the state."""
    caption = "The gradient of the loss with respect to the whole state after each step."
    line = _band("adjoint", data.step.values, data.log_adjoint_norm.values / LOG)
    return _by_step("Adjoint by step", caption, "log10 ‖∂L/∂s_k‖", line)


def _by_step(title: str, caption: str, y_label: str, line: Line) -> Panel:
    return Panel(title, caption, "step k", y_label, lines=(line,))


def singular_values(data: "xarray.Dataset") -> Panel:
    """The singular values of ∂h_T/∂h_k at a few lags."""
    index = np.arange(1, data.sizes["index"] + 1)
    lines = []
    for lag, values in zip(data.spectrum_lag.values, data.log_singular_value.values, strict=True):
        shown = np.where(np.isfinite(values), values / LOG, np.nan)
        lines.append(Line(f"lag {lag}", index, shown))
    return Panel(
        "Singular values",
        "How many directions survive, of the longest sequence; values below rounding are left out.",
        "index, largest first",
        "log10 σ(∂h_T/∂h_k)",
        lines=tuple(lines),
    )


def exponents(data: "xarray.Dataset") -> Panel:
    """The leading Lyapunov exponents."""
    values = data.lyapunov_exponent.values
    return Panel(
        "Lyapunov spectrum",
        "Mean growth per step of the leading directions; above 0 the network is chaotic.",
        "index, largest first",
        "exponent (nats per step)",
        lines=(
            Line(
                "exponents",
                np.arange(1, len(values) + 1),
                np.where(np.isfinite(values), values, np.nan),
            ),
        ),
        levels=(("0", 0.0),),
    )


def eigenvalues(data: "xarray.Dataset") -> Panel:
    """The eigenvalues of the step Jacobian at two steps."""
    places = ("in the middle", "at the last step")
    return Panel(
        "Eigenvalues of the step Jacobian",
        "∂s_t/∂s_{t-1} of the longest sequence. Outside of the circle a direction grows, near it "
        "one is kept, far inside it is lost.",
        "real part",
        "imaginary part",
        points=tuple(
            Line(place, values[:, 0], values[:, 1])
            for place, values in zip(places, data.eigenvalue.values, strict=True)
        ),
    )


def units(data: "xarray.Dataset") -> Panel:
    """How the units of the state vary and saturate."""
    deviation = np.sort(data.unit_deviation.values)[::-1]
    saturation = np.sort(data.unit_saturation.values)[::-1]
    index = np.arange(1, len(deviation) + 1)
    return Panel(
        "Units",
        "Standard deviation of each unit, and the fraction of steps in which it is saturated, each "
        "sorted. A unit with deviation 0 is dead.",
        "rank of the unit",
        "deviation, fraction",
        lines=(
            Line("standard deviation", index, deviation),
            Line("fraction saturated", index, saturation),
        ),
    )


def gate_means(data: "xarray.Dataset") -> Panel:
    """The mean activation of each gate by step."""
    return Panel(
        "Gates over time",
        "Mean activation over units and sequences. The forget gate of an LSTM, and the update gate "
        "of a GRU, say how much is kept.",
        "step t",
        "mean activation",
        lines=tuple(
            Line(
                f"gate {gate}", data.step.values, data.gate_usage.sel(gate=gate, use="mean").values
            )
            for gate in data.gate.values
        ),
    )


def gate_saturation(data: "xarray.Dataset") -> Panel:
    """The fraction of the units at which each gate is shut or open."""
    return Panel(
        "Saturated gates",
        "Fraction of the units at which a gate is shut (below 0.1) or open (above 0.9).",
        "step t",
        "fraction of units",
        lines=tuple(
            Line(f"{gate} {use}", data.step.values, data.gate_usage.sel(gate=gate, use=use).values)
            for gate in data.gate.values
            for use in ("shut", "open")
        ),
    )


def path_shares(data: "xarray.Dataset") -> Panel:
    """The share of each path through an LSTM in the steps of the gradient."""
    lag = data.lag.values[1:]
    with np.errstate(invalid="ignore"):
        shares = data.steps_by_path.values[:, 1:] / lag
    names = [str(name).replace("_", " ") for name in data.path.values]
    return Panel(
        "Paths of the gradient",
        "Which part of its steps ∂c_T/∂c_k takes along each path. A negative part works against "
        "the others.",
        "lag T − k (steps)",
        "part of the steps",
        lines=tuple(Line(name, lag, share) for name, share in zip(names, shares, strict=True)),
    )
