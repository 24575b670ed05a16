"""The plots of a layer, from its dataset."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from gradflow.report.parts import NATS, Image, Line, Panel, gaps

if TYPE_CHECKING:
    import xarray

NORM = "log10 ‖∂h_T/∂h_k‖"
LAG = "lag T − k (steps)"


def panels(data: "xarray.Dataset", needed_lag: int) -> tuple[Panel, ...]:
    """All plots of a layer; what it has no measurement for is left out."""
    drawn = [*_of_norms(data, needed_lag), *_of_loss(data), *_of_spectra(data), _units(data)]
    if "gate_usage" in data:
        drawn += _of_gates(data)
    if "steps_by_path" in data:
        drawn.append(_path_shares(data))
    return tuple(drawn)


def saturation(x_label: str, lines: Iterator[Line]) -> Panel:
    """Returns the plot of the fractions of the units at which each gate is shut or open."""
    title = "Saturated gates" + " by update" * (x_label == "update")
    caption = "Fraction of the units at which a gate is shut (below 0.1) or open (above 0.9)."
    return Panel(title, caption, x_label, "fraction of units", lines=tuple(lines))


def _band(label: str, x: np.ndarray, values: np.ndarray) -> Line:
    """The median over runs (first axis), with the band from 10 to 90 %."""
    values = gaps(values)
    keep = np.isfinite(values).any(axis=0)
    low, middle, high = (np.full(len(x), np.nan) for _ in range(3))
    if keep.any():  # of no step at all NumPy returns no quantiles
        quantiles = np.nanquantile(values[:, keep], (0.1, 0.5, 0.9), axis=0)
        low[keep], middle[keep], high[keep] = quantiles
    return Line(label, np.asarray(x), middle, low, high)


def _of_norms(data: "xarray.Dataset", needed_lag: int) -> Iterator[Panel]:
    """‖∂h_T/∂h_k‖ against the lag, and ‖∂h_t/∂h_k‖ for pairs of steps."""
    yield Panel(
        "Norm against lag",
        "How much of a change of h_k is left in h_T: median and 10–90 % over sequences. Below the "
        "line at 1e-3 little can be learnt.",
        LAG,
        NORM,
        lines=(_band("spectral norm", data.lag.values, data.log_norm.values / NATS),),
        marks=(("needed", float(needed_lag)),),
        levels=(("1e-3", -3.0),),
    )
    values = gaps(data.log_norm_map.values / NATS)
    yield Panel(
        "Map of all pairs",
        "Each point is one pair of steps of the longest sequence. A horizontal cut is the plot of "
        "norm against lag for the step t.",
        "step k",
        "step t",
        image=Image(data.earlier.values, data.later.values, values, "log10 ‖∂h_t/∂h_k‖"),
    )


def _of_loss(data: "xarray.Dataset") -> Iterator[Panel]:
    """The component of each step in the gradient of the loss, and the gradient by the state."""
    step = data.step.values
    yield Panel(
        "Credit by step",
        "The part of each step in ∂L/∂θ: where the parameters learn from.",
        "step k",
        "log10 ‖component of step k‖",
        lines=(_band("component", step, data.log_component.values / NATS),),
    )
    yield Panel(
        "Adjoint by step",
        "The gradient of the loss with respect to the whole state after each step.",
        "step k",
        "log10 ‖∂L/∂s_k‖",
        lines=(_band("adjoint", step, data.log_adjoint_norm.values / NATS),),
    )


def _of_spectra(data: "xarray.Dataset") -> Iterator[Panel]:
    """Singular values at a few lags, leading Lyapunov exponents, eigenvalues at two steps."""
    spectra = zip(data.spectrum_lag.values, data.log_singular_value.values, strict=True)
    index = np.arange(1, data.sizes["index"] + 1)
    yield Panel(
        "Singular values",
        "How many directions survive, of the longest sequence; values below rounding are left out.",
        "index, largest first",
        "log10 σ(∂h_T/∂h_k)",
        lines=tuple(Line(f"lag {lag}", index, gaps(values / NATS)) for lag, values in spectra),
    )
    exponents = gaps(data.lyapunov_exponent.values)
    yield Panel(
        "Lyapunov spectrum",
        "Mean growth per step of the leading directions; above 0 the network is chaotic.",
        "index, largest first",
        "exponent (nats per step)",
        lines=(Line("exponents", np.arange(1, len(exponents) + 1), exponents),),
        levels=(("0", 0.0),),
    )
    places = zip(("in the middle", "at the last step"), data.eigenvalue.values, strict=True)
    yield Panel(
        "Eigenvalues of the step Jacobian",
        "∂s_t/∂s_{t-1} of the longest sequence. Outside of the circle a direction grows, near it "
        "one is kept, far inside it is lost.",
        "real part",
        "imaginary part",
        points=tuple(Line(place, values[:, 0], values[:, 1]) for place, values in places),
    )


def _units(data: "xarray.Dataset") -> Panel:
    """How the units of the state vary and saturate."""
    deviation = np.sort(data.unit_deviation.values)[::-1]
    saturated = np.sort(data.unit_saturation.values)[::-1]
    index = np.arange(1, len(deviation) + 1)
    return Panel(
        "Units",
        "Standard deviation of each unit, and the fraction of steps in which it is saturated, each "
        "sorted. A unit with deviation 0 is dead.",
        "rank of the unit",
        "deviation, fraction",
        lines=(
            Line("standard deviation", index, deviation),
            Line("fraction saturated", index, saturated),
        ),
    )


def _of_gates(data: "xarray.Dataset") -> Iterator[Panel]:
    """The mean activation of each gate by step, and where it is shut or open."""
    step, usage = data.step.values, data.gate_usage
    yield Panel(
        "Gates over time",
        "Mean activation over units and sequences. The forget gate of an LSTM, and the update gate "
        "of a GRU, say how much is kept.",
        "step t",
        "mean activation",
        lines=tuple(
            Line(f"gate {gate}", step, usage.sel(gate=gate, use="mean").values)
            for gate in data.gate.values
        ),
    )
    yield saturation(
        "step t",
        (
            Line(f"{gate} {use}", step, usage.sel(gate=gate, use=use).values)
            for gate in data.gate.values
            for use in ("shut", "open")
        ),
    )


def _path_shares(data: "xarray.Dataset") -> Panel:
    """The share of each path through an LSTM in the steps of the gradient."""
    lag = data.lag.values[1:]
    with np.errstate(invalid="ignore"):
        shares = data.steps_by_path.values[:, 1:] / lag
    names = [str(name).replace("_", " ") for name in data.path.values]
    return Panel(
        "Paths of the gradient",
        "Which part of its steps ∂c_T/∂c_k takes along each path. A negative part works against "
        "the others.",
        LAG,
        "part of the steps",
        lines=tuple(Line(name, lag, share) for name, share in zip(names, shares, strict=True)),
    )
