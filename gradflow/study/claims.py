"""Claims of studies and papers: the statement, the numbers measured for it, and the verdict."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

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
"""What a claim comes to: the first three are those of a study, the others those of a paper."""

TOO_SMALL = "quick: too small to judge"
"""What stands in place of a verdict on a run with the sizes of ``--quick``."""

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
      verdict: Decided by one of `gradflow.study.decide` and nowhere else.
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

    def shown_verdict(self, *, quick: bool = False) -> str:
        """Writes the verdict; of a quick run that of a claim that holds at every size alone."""
        return TOO_SMALL if quick and not self.exact else self.verdict

    def line(self, *, quick: bool = False) -> str:
        """Writes the claim as one line of the summary of a run, which may be a quick one."""
        published = f"; {self.reference.kind}: {self.reference.value}" if self.reference else ""
        verdict = self.shown_verdict(quick=quick)
        return f"{verdict}: {self.statement} (measured: {self.shown}{published})"


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


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
