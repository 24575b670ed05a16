"""Claims of studies and papers, what was measured for each, and the verdict.

The constructors `claim`, `numbers` and `statement` decide every verdict; no other code does. They
compare unrounded numbers. A claim keeps its numbers rounded to significant digits, because the
committed records and tables would otherwise change in digits that no criterion depends on.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from gradflow.statistics import Estimate

Verdict = Literal[
    "supported",
    "not supported",
    "inconclusive",
    "reproduced",
    "qualitatively reproduced",
    "not reproduced",
]

Kind = Literal["published", "derived", "regression"]
"""What a reference is: a number or statement that the paper or its authors' code prints; a value
that follows from the paper's equations; or an earlier measurement of our own."""


class Measured(NamedTuple):
    """A measured number.

    Attributes:
      name: What it is; empty where the claim's statement says it.
      value: The number.
      interval: The ends of its 95 % interval, if it has one.
      unit: Its unit; "1" if it is dimensionless.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None
    unit: str = "1"

    @classmethod
    def of(cls, name: str, estimate: "Estimate", unit: str = "1") -> "Measured":
        """Takes the value and the interval from an estimate."""
        return cls(name, float(estimate.value), (float(estimate.low), float(estimate.high)), unit)

    def rounded(self, digits: int) -> "Measured":
        """Rounds the value and the interval to significant digits."""
        ends = self.interval and tuple(_rounded(end, digits) for end in self.interval)
        return self._replace(value=_rounded(self.value, digits), interval=ends)

    def __str__(self) -> str:
        """Writes the number with its interval and unit, without its name."""
        interval = "" if self.interval is None else " [{:.10g}, {:.10g}]".format(*self.interval)
        return f"{self.value:.10g}{interval}" + (f" {self.unit}" if self.unit != "1" else "")


Measurable = Measured | Iterable[Measured] | Mapping[str, ArrayLike] | ArrayLike
"""What the constructors take as measured: numbers with names, or arrays, with or without names."""


@dataclass(frozen=True)
class Reference:
    """What a measurement is compared with.

    Attributes:
      kind: Whether it is published, derived or a regression.
      value: The number or the words.
      source: The page, table or figure; or how the value was derived.
    """

    kind: Kind
    value: str
    source: str


@dataclass(frozen=True)
class Claim:
    """A claim, the numbers measured for it, and the verdict.

    Attributes:
      id: In kebab case, unique within its study. That of a paper begins with the figure or table
        that it is about: ``fig6-wall``.
      statement: One sentence that is true or false.
      measured: The numbers.
      criterion: What counts as supported or reproduced, in words.
      verdict: Decided by `claim`, `numbers` or `statement`.
      reason: Why.
      reference: What the numbers are compared with; None for a study's own claim.
      exact: Whether it must hold at every size of the run, with ``--quick`` too.
    """

    id: str
    statement: str
    measured: tuple[Measured, ...]
    criterion: str
    verdict: Verdict
    reason: str
    reference: Reference | None = None
    exact: bool = False

    @property
    def figure(self) -> str:
        """The figure or table of a paper that the claim is about."""
        return self.id.partition("-")[0]

    @property
    def shown(self) -> str:
        """The measured numbers as one text: ``decay 0.63 [0.62, 0.64]; half-life 1.5 / 3.6``."""
        groups: dict[str, list[str]] = {}
        for number in self.measured:
            groups.setdefault(number.name, []).append(str(number))
        return "; ".join(f"{name} {' / '.join(found)}".strip() for name, found in groups.items())

    def __str__(self) -> str:
        """Writes the claim as one line of a run's summary."""
        published = f"; {self.reference.kind}: {self.reference.value}" if self.reference else ""
        return f"{self.verdict}: {self.statement} (measured: {self.shown}{published})"


def claim(
    id: str,
    statement: str,
    holds: Any,
    *,
    measured: Measurable,
    criterion: str,
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
    kept = tuple(number.rounded(digits) for number in _named(measured))
    return Claim(id, statement, kept, criterion, verdict, reason or why[verdict], exact=exact)


def numbers(
    id: str,
    statement: str,
    reference: ArrayLike,
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


def _named(measured: Measurable) -> Iterator[Measured]:
    if isinstance(measured, Measured):
        yield measured
    elif isinstance(measured, Mapping):
        for name, values in measured.items():
            yield from (Measured(name, float(value)) for value in np.ravel(np.asarray(values)))
    elif isinstance(measured, list | tuple) and any(isinstance(one, Measured) for one in measured):
        yield from measured
    else:
        yield from (Measured("", float(value)) for value in np.ravel(np.asarray(measured)))


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def to_record(claim: Claim) -> dict[str, Any]:
    """The claim as the plain values that a JSON record holds."""
    return {
        **dataclasses.asdict(claim),
        "measured": [number._asdict() for number in claim.measured],
    }


def from_record(record: Mapping[str, Any]) -> Claim:
    """The claim in a JSON record, where infinities and NaN are strings."""

    def number(name: str, value: Any, interval: Any, unit: str) -> Measured:
        ends = interval and (float(interval[0]), float(interval[1]))
        return Measured(name, float(value), ends, unit)

    reference = record["reference"]
    changed = {
        "measured": tuple(number(**one) for one in record["measured"]),
        "reference": reference and Reference(**reference),
    }
    return Claim(**{**record, **changed})
