"""What the measurements of a layer come to: sentences with their numbers."""

from typing import TYPE_CHECKING

import numpy as np

from gradflow import flow
from gradflow.report.advice import helps, result_of
from gradflow.report.measuring import median_over_runs
from gradflow.report.parts import Finding, magnitude, percent, steps_text

if TYPE_CHECKING:
    import xarray

FORMATS = {  # largest number and smallest above zero
    "float16": (65504.0, 2.0**-24),
    "bfloat16": (3.39e38, 2.0**-133),
    "float32": (3.40e38, 2.0**-149),
}


FINE = (
    "The flow is fine: if the loss does not fall, the reason is elsewhere, such as in the targets, "
    "the data or the learning rate."
)
"""The conclusion where reach, credit, state and readout are good."""

BLOCKED = "The flow through this layer is fine: what reads its outputs blocks the gradient."
"""The conclusion where the gradient would arrive, but the loss does not depend on the layer."""


INPUTS = "Inputs"
"""The topic of a finding from which all others follow: the inputs are not finite."""


def findings(data: "xarray.Dataset", needed_lag: int) -> tuple[Finding, ...]:
    """Reach, credit, state and readout of a layer, and what else has to be known."""
    always = [reach(data, needed_lag), credit(data), state(data), readout(data)]
    others = [nonfinite(data), cause(data, needed_lag), precision(data), paths(data)]
    return (*always, *(one for one in others if one is not None))


def reach(data: "xarray.Dataset", needed_lag: int) -> Finding:
    """Whether ∂h_T/∂h_k arrives at the lag that the task needs."""
    curves = data.log_norm.values
    median = median_over_runs(curves)
    last = median[needed_lag]
    if not np.isfinite(last) and not last == -np.inf:
        lag = int(np.flatnonzero(~np.isfinite(median) & (median != -np.inf))[0])
        return Finding("Reach", f"The gradient is not a finite number from lag {lag} on.", "bad")
    horizon = float(flow.horizons(median[: needed_lag + 1]))
    if np.isfinite(horizon):
        return Finding("Reach", _vanishing(curves, horizon, needed_lag), "bad")
    grown = magnitude(last)
    if last > np.log(1e3):
        sentence = f"The gradient grows to {grown} at lag {needed_lag}: it explodes."
        return Finding("Reach", sentence, "bad")
    sentence = f"The gradient has the size {grown} at lag {needed_lag}"
    if abs(last) > np.log(10):
        change = "grows" if last > 0 else "shrinks"
        return Finding("Reach", f"{sentence}: it {change} by more than a factor of 10.", "warning")
    return Finding("Reach", f"{sentence}: every step can be learnt from.", "good")


def _vanishing(curves: np.ndarray, horizon: float, needed_lag: int) -> str:
    each = flow.horizons(np.where(np.isnan(curves), np.inf, curves))
    low, high = (steps_text(q, needed_lag) for q in np.quantile(each, (0.1, 0.9), method="nearest"))
    lost = needed_lag - int(horizon)
    return (
        f"The gradient falls below 1e-3 after {horizon:.0f} steps [{low}, {high}]; the task needs "
        f"{needed_lag}: the first {lost} steps can hardly be learnt from the last one."
    )


def credit(data: "xarray.Dataset") -> Finding:
    """From which steps the gradient of the loss with respect to the parameters comes."""
    logs = data.log_component.values
    if not np.isfinite(np.nanmax(logs, initial=-np.inf)):
        return Finding("Credit", "No step contributes to the gradient of the loss.", "bad")
    shares = _shares(logs)
    back = np.cumsum(shares[::-1])
    count, steps = int(np.searchsorted(back, 0.9)) + 1, len(shares)
    sentence = f"90 % of the gradient of the loss comes from the last {count} of {steps} steps."
    deviation = data.input_deviation.values
    blank = int((deviation[-count:] <= 1e-6 * max(deviation.max(), 1e-300)).sum())
    if blank > count / 2:
        same = "is the same in all sequences" if data.sizes["run"] > 1 else "does not change"
        sentence += f" In {blank} of these the input {same}: there is nothing to learn from."
        return Finding("Credit", sentence, "bad")
    return Finding("Credit", sentence, "warning" if count < 0.1 * steps else "good")


def _shares(log_components: np.ndarray) -> np.ndarray:
    """The share of each step in the sum of the norms of all, on average over sequences."""
    logs = np.where(np.isnan(log_components), -np.inf, log_components)
    peaks = logs.max(axis=1, keepdims=True)
    norms = np.exp(logs - np.where(np.isfinite(peaks), peaks, 0))
    sums = norms.sum(axis=1, keepdims=True)
    return (norms / np.where(sums > 0, sums, 1)).mean(axis=0)


def state(data: "xarray.Dataset") -> Finding:
    """Saturated and dead units, and how many directions the state uses."""
    deviation, saturation = data.unit_deviation.values, data.unit_saturation.values
    size = len(deviation)
    dead, full = int((deviation < 1e-6).sum()), int((saturation > 0.5).sum())
    rank = float(data.effective_rank)
    sentence = (
        f"The states have an effective rank of {rank:.1f}. Of {size} units {dead} never change, "
        f"and {full} are saturated (|h| > 0.99) in over half of the steps."
    )
    if not np.isfinite(rank):
        return Finding("State", "The states are not finite numbers.", "bad")
    if dead > size / 2 or full > size / 2:
        return Finding("State", sentence, "bad")
    return Finding("State", sentence, "warning" if dead or full > size / 10 else "good")


def readout(data: "xarray.Dataset") -> Finding:
    """How many units the loss reads."""
    weights = data.output_gradient.values
    if not weights.any():
        return Finding(
            "Readout", "The loss does not depend on this layer: ∂L/∂h is exactly 0.", "bad"
        )
    if not np.isfinite(weights).all():
        return Finding("Readout", "∂L/∂h is not finite.", "bad")
    weights = weights / weights.max()
    count = float(weights.sum() ** 2 / (weights**2).sum())
    sentence = f"The loss reads {count:.1f} of {len(weights)} units (participation ratio of ∂L/∂h)."
    return Finding("Readout", sentence, "good" if count > 0.05 * len(weights) else "warning")


def nonfinite(data: "xarray.Dataset") -> Finding | None:
    """The first step at which an input, or else a state, is not finite."""
    for topic, what, steps in (
        (INPUTS, "The inputs of this layer are not finite", data.first_nonfinite_input.values),
        ("Finite", "The state is NaN or infinite", data.first_nonfinite.values),
    ):
        if (steps >= 0).any():
            first, count = int(steps[steps >= 0].min()), int((steps >= 0).sum())
            sentence = f"{what} from step {first} on, in {count} of {len(steps)} sequences."
            return Finding(topic, sentence, "bad")
    return None


def cause(data: "xarray.Dataset", needed_lag: int) -> Finding | None:
    """Why the gradient vanishes or explodes, where one number explains it."""
    median = median_over_runs(data.log_norm.values)[: needed_lag + 1]
    found = flow.summary(median[None])
    keeping = next((g for g in ("f", "z") if "gate" in data and g in data.gate.values), None)
    if abs(found.rate) * needed_lag < np.log(10) or not np.isfinite(found.rate):
        return None
    factor = float(np.exp(found.rate))
    if keeping is not None and found.rate < 0:
        mean = float(data.gate_usage.sel(gate=keeping, use="mean").mean())
        name = {"f": "forget", "z": "update"}[keeping]
        sentence = (
            f"The {name} gate is {mean:.2f} on average, and the gradient shrinks by a factor "
        )
        sentence += f"{factor:.3f} per step."
        explained = mean < 0.8
        tail = " The gate forgets: raise its bias." if explained else ""
        return Finding("Cause", sentence + tail, "bad" if explained else "warning")
    radius = float(np.nanmax(data.spectral_radius.values, initial=0.0))
    verb = "grows" if found.rate > 0 else "shrinks"
    sentence = f"The gradient {verb} by a factor {factor:.3f} per step; the largest spectral radius"
    return Finding("Cause", f"{sentence} of a recurrent matrix is {radius:.2f}.", "warning")


def precision(data: "xarray.Dataset") -> Finding:
    """The first lag at which a gradient of this size leaves the range of a format."""
    median = median_over_runs(data.log_norm.values)
    parts = []
    for name, (largest, smallest) in FORMATS.items():
        over = np.flatnonzero(median > np.log(largest))
        under = np.flatnonzero(median < np.log(smallest))
        if len(over):
            parts.append(f"{name} overflows from lag {over[0]}")
        if len(under):
            parts.append(f"{name} rounds it to zero from lag {under[0]}")
    if not parts:
        return Finding("Precision", "float16 and bfloat16 hold ∂h_T/∂h_k at every lag.", "good")
    return Finding("Precision", f"Of ∂h_T/∂h_k: {'; '.join(parts)}.", "warning")


def paths(data: "xarray.Dataset") -> Finding | None:
    """Which path through an LSTM the gradient takes."""
    if "steps_by_path" not in data:
        return None
    steps = data.steps_by_path.values
    finite = np.flatnonzero(np.isfinite(steps).all(axis=0))
    if len(finite) < 2:
        return None
    lag = int(finite[-1])
    share = steps[0, lag] / lag
    sentence = f"At lag {lag} the gradient takes {percent(share)} of its steps along the forget "
    return Finding("Paths", sentence + "gate's own path, the rest through the other gates.")


def advice(data: "xarray.Dataset", needed_lag: int) -> Finding:
    """Which of the measured changes helps most."""
    before = float(data.log_norm_before)
    after = {str(name): float(v) for name, v in data.change_log_norm.to_series().items()}
    helping = {name: value for name, value in after.items() if helps(before, value)}
    if not helping:
        sentence = "None of the measured changes brings the gradient nearer to 1."
        return Finding("Advice", sentence, "good" if abs(before) < np.log(10) else "warning")
    best = min(helping, key=lambda name: abs(helping[name]))
    verb = result_of(before, helping[best])
    sentence = (
        f"Of the measured changes, {best!r} helps most: the gradient at lag {needed_lag} is "
        f"{magnitude(helping[best])}, from {magnitude(before)}."
    )
    return Finding("Advice", sentence, "good" if verb == "repairs" else "warning")
