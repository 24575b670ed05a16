"""Reports of plausible numbers, for the tests of the page."""

import numpy as np

from gradflow.report.parts import Finding, Image, Level, Line, Panel, Report, Section, Table

FINDINGS = (
    Finding("Reach", "The gradient falls below 1e-3 after 36 steps [31, 44].", "bad"),
    Finding("Credit", "93 % of the gradient comes from the last 20 steps.", "warning"),
    Finding("State", "2 % of the units are saturated.", "good"),
    Finding("Readout", "No loss was given."),
    Finding("Precision", "float16 flushes the gradient to zero from lag 51 on.", "warning"),
)
ADVICE = Table(
    "Measured advice",
    "Each change was applied to a copy and measured again.",
    ("Change", "Horizon after", "Norm at lag 200"),
    (("forget bias +1", "112 [98, 130]", "-5.1"), ("orthogonal W_h", "> 200", "-17.2")),
    ("good", "bad"),
)


def norms(steps: int = 200) -> Panel:
    """Three curves: with a band, with a gap, and cut exactly from a lag on."""
    lag = np.arange(steps + 1.0)
    norm = -0.085 * lag
    gap, cut = norm - 1, norm - 2
    gap[10:15] = np.nan
    cut[30:] = -np.inf
    low, high = norm - 0.01 * lag, norm + 0.01 * lag
    low[:5] = high[20:22] = np.nan
    lines = (Line("trained", lag, norm, low, high), Line("gap", lag, gap), Line("cut", lag, cut))
    marks = (("horizon 36 [31, 44]", 36.0), ("half-life 12", 12.0), ("a lag of 200", 200.0))
    levels = (("1e-3", -3.0), ("smallest normal float16", -4.2), ("far away", -400.0))
    return Panel("Norm against lag", "Median.", "lag", "log10 norm", lines, (), None, marks, levels)


def pairs(size: int = 100) -> Panel:
    """A map whose upper half has no values."""
    steps = np.arange(float(size))
    values = -0.03 * (steps[:, None] - steps[None, :])
    values[values > 0] = np.nan
    image = Image(steps, steps, values, "log10 norm of the pair")
    return Panel("Map of all pairs", "Row t is the later step.", "step k", "step t", image=image)


def eigenvalues(size: int = 512) -> Panel:
    """Points in the unit circle."""
    radius, angle = np.sqrt(np.linspace(0, 0.9, size)), np.arange(size) * 2.4
    points = (Line("step 100", radius * np.cos(angle), radius * np.sin(angle)),)
    return Panel("Eigenvalues", "Those outside grow.", "real part", "imaginary part", points=points)


def gates(steps: int = 200) -> Panel:
    """Four curves with bands between two levels."""
    step = np.arange(1.0, steps + 1)
    middle = [0.5 + 0.4 * np.sin(step / (7 + 4 * number)) for number in range(4)]
    lines = (
        Line(f"gate {g}", step, y, y - 0.05, y + 0.05) for g, y in zip("ifgo", middle, strict=True)
    )
    levels = (("0.95, saturated", 0.95), ("0.05, saturated", 0.05))
    return Panel("Gates over time", "Median.", "step", "gate", tuple(lines), levels=levels)


def section(name: str, level: Level = "bad", panels: tuple[Panel, ...] = ()) -> Section:
    """One layer, of few panels if none are given."""
    facts = (("cell", "LSTM, 256 units"), ("verified", "agrees to 3.1e-7"))
    few = (norms(40), pairs(10), eigenvalues(16), gates(30))
    summary = f"Of {name}: the first 164 steps cannot be learnt."
    tables = (ADVICE, Table("First bad steps", "", ("format", "step"), (("float16", "51"),)))
    return Section(name, summary, level, facts, FINDINGS, tables, panels or few)


def report(*sections: Section) -> Report:
    """A whole page, of two small layers if none are given."""
    layers = sections or (section("LSTM 0, forward"), section("LSTM 0, backward", "good"))
    facts = (("file", "speech.pt"), ("sha256", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b8"))
    notes = ("The embedding was not imported.",)
    return Report("speech.pt: an LSTM", "Layer 0 forgets after 36 steps.", layers, facts, notes)


def large_report(layers: int = 4) -> Report:
    """The size that the page is made for: 12 panels a layer, 200 steps, maps of 100 x 100."""
    panels = (norms(), pairs(), eigenvalues(), *[gates()] * 9)
    names = (f"LSTM layer {number}, forward" for number in range(layers))
    return report(*(section(name, "warning", panels) for name in names))
