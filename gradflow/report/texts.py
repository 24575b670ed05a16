"""Numbers as a report writes them."""

import numpy as np


def number(value: float) -> str:
    """Writes a number with two digits: 0.13, 36, 1.2e-17."""
    if not np.isfinite(value):
        return "not finite" if np.isnan(value) else "infinite"
    if value == 0:
        return "0"
    return f"{value:.2g}" if 1e-2 <= abs(value) < 100 else _scientific(value)


def _scientific(value: float) -> str:
    if 100 <= abs(value) < 10_000:
        return f"{value:.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def magnitude(log_value: float) -> str:
    """Writes exp(log_value), also where it is beyond the range of floats."""
    if not np.isfinite(log_value):
        return "0" if log_value == -np.inf else number(log_value)
    if abs(log_value) < 600:
        return number(float(np.exp(log_value)))
    return f"1e{log_value / np.log(10):.0f}"


def percent(share: float) -> str:
    """Writes a share in percent."""
    return f"{100 * share:.0f} %"


def steps_text(steps: float, longest: int) -> str:
    """Writes a number of steps, or that it lies beyond what was measured."""
    return f"{steps:.0f}" if np.isfinite(steps) else f"> {longest}"
