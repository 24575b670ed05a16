"""The page of a report: one HTML document that needs no other file and no network."""

import base64
import functools
import gzip
import hashlib
import json
import os
import re
from collections.abc import Iterable
from importlib import resources
from typing import Any, NamedTuple, get_args

from gradflow.paths import user_path, write_bytes
from gradflow.report import plots
from gradflow.report.parts import Level, Report, Section, Table

CARDS = 4
"""How many findings of a section stand on its first screen."""

WORDS: dict[Level, str] = {
    "good": "Good",
    "warning": "Warning",
    "bad": "Problem",
    "unknown": "Unknown",
}
"""How the page calls the levels."""

MOST_SERIOUS_FIRST: tuple[Level, ...] = ("bad", "warning", "unknown", "good")

SCRIPTS = ("plotting.js", "labels.js", "controls.js", "page.js")
"""The parts of the page's own script, which see each other's functions."""

_START = 'document.documentElement.classList.add("js");'
_NUMBER = re.compile(r"\s*(?:[<>≤≥~≈]\s*)?[-+−]?(?:\d|\.\d|inf|nan|∞)|\s*[-–—]?\s*$", re.IGNORECASE)


def write_page(report: Report, path: str | os.PathLike[str]) -> None:
    """Writes a report's page atomically: a reader sees the old file or the new one.

    Raises:
      OSError: If the file cannot be written, such as on a full disk.
    """
    write_bytes(user_path(path), render(report).encode())


def render(report: Report) -> str:
    """Renders a report as one HTML document.

    The document is complete: it loads nothing, and a Content-Security-Policy forbids that it does.
    Everything but the plots can be read without JavaScript. The same report gives the same
    document. All words of the report are escaped, so that names in foreign files are harmless.

    The size is 2.1 MB for plotly, and about 8 bytes for each number that is drawn.
    """
    bundle = plotly_bundle()
    script = page_script()
    digests = [csp_digest(_START), csp_digest(script), bundle.digest]
    names = unique_slugs(section.name for section in report.sections)
    page = _template().render(
        report=report,
        level=worst(section.level for section in report.sections),
        layers=[
            _layer(section, name) for section, name in zip(report.sections, names, strict=True)
        ],
        scripts={"start": _START, "page": script, "sources": digests},
        styles={name: read(f"{name}.css") for name in ("page", "dark")},
        bundle=bundle,
    )
    # A lone surrogate, which a damaged name may have, cannot be written as UTF-8.
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


def worst(levels: Iterable[Level]) -> Level:
    """Returns the level that a reader has to see first; no levels at all are ``unknown``."""
    found = set(levels)
    for level in MOST_SERIOUS_FIRST:
        if level in found:
            return level
    return "unknown"


def unique_slugs(names: Iterable[str]) -> list[str]:
    """Makes names into parts of addresses: ``LSTM layer 0, forward`` into ``lstm-layer-0-forward``.

    Names that agree in this form get a number. No result has an underscore, which all other
    identifiers in the page have.
    """
    taken: list[str] = []
    for name in names:
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "layer"
        same = (f"{slug}-{number}" for number in range(2, len(taken) + 3))
        taken.append(slug if slug not in taken else next(new for new in same if new not in taken))
    return taken


def embedded_json(value: Any) -> str:
    """Writes a value as JSON that cannot end the script element around it.

    Raises:
      ValueError: If a number is not finite, which JSON cannot express.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":  # all that are not ASCII are escaped already, U+2028 too
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _layer(section: Section, slug: str) -> dict[str, Any]:
    """What the template needs of a section."""
    figures = [plots.figure(panel) for panel in section.panels]
    return {
        "slug": slug,
        "section": section,
        "cards": section.findings[:CARDS],
        "further": section.findings[CARDS:],
        "tables": [(table, _numeric_columns(table)) for table in section.tables],
        "panels": [(panel, plots.describe(panel)) for panel in section.panels],
        "kinds": [plots.kind(panel) for panel in section.panels],
        "json": embedded_json(figures),
    }


def _numeric_columns(table: Table) -> list[bool]:
    """Which columns have numbers alone, so that they are aligned to the right."""
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.columns)
    return [bool(column) and all(_NUMBER.match(cell) for cell in column) for column in columns]


@functools.cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(read),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals |= {"words": WORDS, "level_names": get_args(Level)}
    return environment.get_template("page.html.jinja")


class Bundle(NamedTuple):
    """The library that draws the plots.

    Attributes:
      packed: Its source, compressed by gzip and written in base64.
      digest: The source's hash as a Content-Security-Policy names it.
      credit: Its name, version, copyright and license.
    """

    packed: str
    digest: str
    credit: str


@functools.cache
def plotly_bundle() -> Bundle:
    """Returns plotly.js, compressed to two fifths of its size, as the page unpacks it."""
    from plotly.offline import get_plotlyjs

    source = get_plotlyjs()
    # Without a time of compression: the same report gives the same bytes.
    packed = base64.b64encode(gzip.compress(source.encode(), 9, mtime=0)).decode()
    header = re.match(r"\s*/\*(.*?)\*/", source, re.DOTALL)
    lines = [line.strip(" *") for line in header[1].splitlines()] if header else ["plotly.js"]
    return Bundle(packed, csp_digest(source), ". ".join(line for line in lines if line))


@functools.cache
def page_script() -> str:
    """Returns the page's own script, in one scope of its own."""
    parts = "\n".join(read(name) for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();\n'


def csp_digest(script: str) -> str:
    """Returns the hash by which a Content-Security-Policy allows one inline script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def read(name: str) -> str:
    """Reads a file of the folder ``templates``."""
    folder = resources.files("gradflow.report") / "templates"
    return (folder / name).read_text(encoding="utf-8")
