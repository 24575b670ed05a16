"""What a page contains besides its report: the style sheets, the scripts, and plotly itself."""

import base64
import functools
import gzip
import hashlib
import re
from importlib import resources
from typing import NamedTuple

SCRIPTS = ("plotting.js", "labels.js", "controls.js", "page.js")
"""The parts of the page's own script, which see each other's functions."""


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
