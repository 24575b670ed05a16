"""The verdicts: `claim`, `numbers` and `statement` decide every one of them; no other code does.

They compare unrounded numbers. A claim keeps its numbers rounded to significant digits, because the
committed records and tables would otherwise change in digits that no criterion depends on.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from gradflow.statistics import Estimate
from gradflow.study.claims import Claim, Kind, Measured, Reference, Verdict

Numbers = Any
"""A number or an array of numbers, of NumPy, JAX, xarray or Python."""

Measurable = Measured | Iterable[Measured] | Mapping[str, Estimate | Numbers] | Numbers
"""What the constructors take as measured: estimates or arrays by name, named numbers, or arrays."""


def claim(
    id: str,
    statement: str,
    holds: Any,
    *,
    measured: Measurable,
    criterion: str,
    unit: str = "1",
    reason: str = "",
    exact: bool = False,
    digits: int = 4,
) -> Claim:
    """Decides a study's own claim.

    Args:
      id: In kebab case, unique within the study.
      statement: One sentence that is true or false.
      holds: Whether the criterion is met; None if the runs do not decide it.
      measured: The numbers that decide it.
      criterion: What counts as supported, in words.
      unit: The unit of numbers that are given by name.
      reason: Why; the criterion itself if empty.
      exact: Whether it must hold at every size of the run.
      digits: The significant digits that the claim keeps of its numbers.
    """
    verdict: Verdict = "inconclusive"
    if holds is not None:
        verdict = "supported" if holds else "not supported"
    why = {
        "supported": criterion,
        "not supported": f"it does not hold that {criterion}",
        "inconclusive": f"the runs do not decide whether {criterion}",
    }
    kept = tuple(number.rounded(digits) for number in _named(measured, unit))
    return Claim(id, statement, kept, criterion, verdict, reason or why[verdict], exact=exact)


def numbers(
    id: str,
    statement: str,
    reference: Numbers,
    measured: Measurable,
    *,
    source: str,
    kind: Kind = "published",
    rtol: float = 0.0,
    atol: float = 0.0,
    shape: tuple[str, Any] | None = None,
    exact: bool = False,
    digits: int = 4,
) -> Claim:
    """Compares numbers: reproduced if each is within rtol of its own size or within atol.

    Otherwise the claim is qualitatively reproduced if ``shape`` (what it is, whether it holds) is
    true.
    """
    found = [number.value for number in _named(measured)]
    wanted = np.ravel(np.asarray(reference, float))
    wanted, values = np.broadcast_arrays(wanted, np.asarray(found, float))
    bounds = np.maximum(rtol * np.abs(wanted), atol)
    with np.errstate(invalid="ignore"):
        errors = np.abs(values - wanted)
        excess = np.where(np.isnan(errors), np.inf, errors) - bounds
    worst = int(np.argmax(excess))
    off = f"off by {errors[worst]:.2g}" + (" at worst" if wanted.size > 1 else "")
    verdict, reason = "not reproduced", f"{off} where {bounds[worst]:.2g} is allowed"
    if np.all(excess <= 0):
        verdict, reason = "reproduced", f"{off}, {bounds[worst]:.2g} is allowed"
    elif shape and shape[1]:
        verdict, reason = "qualitatively reproduced", f"{shape[0]}, but {reason}"
    allowed = [f"{rtol:g} relative"] * (rtol > 0) + [f"{atol:g}"] * (atol > 0)
    criterion = f"within {' or '.join(allowed) or 'nothing'}"
    kept = tuple(number.rounded(digits) for number in _named(measured))
    value = " / ".join(f"{number:.{digits}g}" for number in np.ravel(np.asarray(reference)))
    return Claim(
        id, statement, kept, criterion, verdict, reason, Reference(kind, value, source), exact
    )


def derived(
    id: str, statement: str, reference: Numbers, measured: Measurable, *, source: str, **how: Any
) -> Claim:
    """Compares numbers with what follows from a paper's equations, which holds at every size."""
    given: dict[str, Any] = {"source": source, "kind": "derived", "exact": True, **how}
    return numbers(id, statement, reference, measured, **given)


def statement(
    id: str,
    statement: str,
    reference: str,
    measured: Measurable,
    *,
    source: str,
    criterion: str,
    holds: Any,
    kind: Kind = "published",
    picture: bool = False,
    exact: bool = False,
    digits: int = 3,
) -> Claim:
    """Decides a claim of a paper in words by a condition on what was measured.

    Args:
      criterion: The condition, in words.
      holds: Whether it is met.
      picture: Whether the original is only a picture, without numbers to compare with. The claim
        is then at best qualitatively reproduced.
    """
    verdict, reason = "not reproduced", f"it does not hold that {criterion}"
    if bool(holds):
        verdict = "qualitatively reproduced" if picture else "reproduced"
        reason = criterion + (", and there is no number to compare with" if picture else "")
    kept = tuple(number.rounded(digits) for number in _named(measured))
    return Claim(
        id, statement, kept, criterion, verdict, reason, Reference(kind, reference, source), exact
    )


def _named(measured: Measurable, unit: str = "1") -> Iterator[Measured]:
    if isinstance(measured, Measured):
        yield measured
    elif isinstance(measured, Mapping):
        for name, values in measured.items():
            if isinstance(values, Estimate):
                yield Measured.of(str(name), values, unit)
            else:
                ones = np.ravel(np.asarray(values))
                yield from (Measured(str(name), float(one), unit=unit) for one in ones)
    elif isinstance(measured, list | tuple) and any(isinstance(one, Measured) for one in measured):
        yield from (one for one in measured if isinstance(one, Measured))
    else:
        yield from (Measured("", float(value)) for value in np.ravel(np.asarray(measured)))
