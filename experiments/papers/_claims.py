"""What a paper claims, what was measured, and the verdict that the two numbers come to.

A verdict is decided here and nowhere else. *Published* is what was read in the paper or in its
authors' code; a reference of our own says so in its source, and is marked in every table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gradflow import study

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

Verdict = Literal["reproduced", "reproduced in shape only", "not reproduced"]

OWN = "own: "
"""What the source of a reference begins with that no paper printed."""


@dataclass(frozen=True)
class Claim:
    """One claim of a paper beside what was measured.

    Attributes:
      id: The figure or table that it is about, a dash, and a name: ``fig6-wall``.
      what: The claim, as one phrase.
      published: The number or the words that were read.
      source: Where: page, table, figure, or `OWN` and how the reference was found.
      measured: What came out here.
      tolerance: What counts as reproduced, in words.
      verdict: Decided by `number`, `numbers` or `statement`.
      reason: Why.
      exact: Whether it must hold at every size of the run, with ``--quick`` too.
    """

    id: str
    what: str
    published: str
    source: str
    measured: str
    tolerance: str
    verdict: Verdict
    reason: str
    exact: bool = False

    @property
    def figure(self) -> str:
        """The figure or table that the claim is about."""
        return self.id.partition("-")[0]

    @property
    def shown(self) -> str:
        """The published value, marked where it is a reference of our own."""
        return f"{self.published} (own)" if self.source.startswith(OWN) else self.published


@dataclass(frozen=True)
class Paper:
    """A paper, or a part of one that runs by itself.

    Attributes:
      citation: Authors, year, title, identifier.
      experiment: What is run.
      claims: dataset -> what it says about each claim.
      figures: The pictures, by the name of the original: dataset -> Figure.
      traps: What goes wrong, or differs between sources.
    """

    citation: str
    experiment: study.Experiment
    claims: "Callable[[xarray.Dataset], list[Claim]]"
    figures: "Mapping[str, Callable[[xarray.Dataset], Figure]]"
    traps: Sequence[str] = ()


def numbers(
    id: str,
    what: str,
    published: Any,
    measured: Any,
    *,
    source: str,
    rtol: float = 0.0,
    atol: float = 0.0,
    shape: tuple[str, bool] | None = None,
    exact: bool = False,
    digits: int = 4,
) -> Claim:
    """Compares numbers: reproduced if each is within rtol of its own size or within atol.

    Where they are not, and ``shape`` (what it is, whether it holds) is true, the claim is
    reproduced in shape only.
    """
    wanted, found = np.broadcast_arrays(np.asarray(published, float), np.asarray(measured, float))
    bounds = np.maximum(rtol * np.abs(wanted), atol)
    with np.errstate(invalid="ignore"):
        errors = np.abs(found - wanted)
        excess = np.where(np.isnan(errors), np.inf, errors) - bounds
    worst = np.unravel_index(int(np.argmax(excess)), wanted.shape)
    off = f"off by {errors[worst]:.2g}" + (" at worst" if wanted.size > 1 else "")
    allowed = [f"{rtol:g} relative"] * (rtol > 0) + [f"{atol:g}"] * (atol > 0)
    tolerance = f"within {' or '.join(allowed) or 'nothing'}"
    verdict, reason = "not reproduced", f"{off} where {bounds[worst]:.2g} is allowed"
    if np.all(excess <= 0):
        verdict, reason = "reproduced", f"{off}, {bounds[worst]:.2g} is allowed"
    elif shape and shape[1]:
        verdict, reason = "reproduced in shape only", f"{shape[0]}, but {reason}"
    shown = (_show(values, digits) for values in (np.asarray(published), np.asarray(measured)))
    first, second = shown
    return Claim(id, what, first, source, second, tolerance, verdict, reason, exact)


def statement(
    id: str,
    what: str,
    published: str,
    measured: Any,
    *,
    source: str,
    condition: str,
    holds: Any,
    picture: bool = False,
    exact: bool = False,
    digits: int = 3,
) -> Claim:
    """A claim in words, which a condition on what was measured decides.

    Args:
      condition: What must hold, in words.
      holds: Whether it does.
      picture: Whether the original is only a picture, without numbers to compare with: then the
        shape is all that can be reproduced.
    """
    verdict, reason = "not reproduced", f"it does not hold that {condition}"
    if bool(holds):
        verdict = "reproduced in shape only" if picture else "reproduced"
        reason = condition + (", and there is no number to compare with" if picture else "")
    shown = measured if isinstance(measured, str) else _show(np.asarray(measured), digits)
    return Claim(id, what, published, source, shown, condition, verdict, reason, exact)


def _show(values: np.ndarray, digits: int) -> str:
    return " / ".join(f"{value:.{digits}g}" for value in np.ravel(values))


def verdicts(claims: Sequence[Claim]) -> str:
    """The closing table of one paper."""
    return study.table(
        [
            {
                "claim": claim.id,
                "published": claim.shown,
                "measured": claim.measured,
                "verdict": claim.verdict,
                "why": claim.reason,
            }
            for claim in claims
        ]
    )
