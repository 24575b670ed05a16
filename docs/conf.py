"""Configuration of the documentation's site, which `./run.sh docs` builds."""

import hashlib
import importlib
import inspect
import os
import re
import struct
import sys
import tomllib
import typing
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(ROOT / "experiments")]
# Makes jaxtyping write "Float[Array, 'steps input']" without the name of its own module.
typing.GENERATING_DOCUMENTATION = "gradflow"  # type: ignore[attr-defined]

import gradflow  # noqa: E402  (after the two lines above)

project = "gradflow"
author = "The gradflow authors"
project_copyright = "The gradflow authors, Apache-2.0"
release = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
version = release

# What was computed is kept beside the build, as long as no source file of the library changes.
SOURCES = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted((ROOT / "gradflow").rglob("*.py")))
).hexdigest()[:12]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx-mathjax-offline",  # a copy of MathJax in the site, which needs no network
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]

# Every reference that leads nowhere is a warning, and `./run.sh docs` makes warnings errors.
nitpicky = True
# No inventory of another project is downloaded, so that a build needs no network. References to
# other projects' types, to type variables and to type aliases stay plain text.
nitpick_ignore_regex = [
    # A name in backticks becomes a link where it is public, and is plain code elsewhere.
    ("py:obj", r".*"),
    ("py:(class|data|exc|meth|func|mod)", r"(?!gradflow\.).*"),
    # Types in signatures that nobody but the library makes: type variables, settings of its parts.
    ("py:class", r"gradflow\..*\.(Kept|Settings|Subject|T|WindowGradient|_R)"),
]
default_role = "py:obj"
# Blocks without a language are equations, commands and what commands print.
highlight_language = "text"

# The notebooks of the tutorials and the cookbook. Progress bars do not belong into their outputs.
os.environ["TQDM_DISABLE"] = "1"
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "jupyter_cache" / SOURCES)
nb_execution_timeout = 300
nb_execution_show_tb = True  # a cell that fails is a warning, so that a build reports all of them
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 4

autosummary_generate = True
# The context below has a function, which is no reason to read every page again.
suppress_warnings = ["config.cache"]
autodoc_default_options = {"no-value": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the signature has them
napoleon_use_rtype = False
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = "gradflow"
html_static_path = ["_static"]
html_css_files = ["gradflow.css"]
html_sourcelink_suffix = ""  # the file of a notebook can be downloaded and run
# A summary of each result is fetched from its page, which browsers refuse for files.
html_show_search_summary = False
html_theme_options = {
    "header_links_before_dropdown": 8,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc", "sourcelink"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
# Sections of one page or two have no list of pages beside it; the text links the second.
html_sidebars = dict.fromkeys(
    ("index", "cells", "measurements", "catalogue/index", "studies", "papers"), []
)
html_context = {"default_mode": "auto"}


def exported(module_name: str) -> dict[str, Any]:
    """The public names of a module with their values, each at the one place that documents it.

    They are those of ``__all__``, or what the module defines, and all cells of `gradflow.cells`.
    What `gradflow` itself exports is documented there, but for `unroll`, whose name is also that
    of a module.
    """
    module = importlib.import_module(module_name)
    top = [name for name in gradflow.__all__ if name != "unroll"]
    if module is gradflow:
        vars(module).update({name: getattr(module, name) for name in top})  # the lazy ones too
        return {name: getattr(module, name) for name in top}
    if hasattr(module, "__all__"):
        names = list(module.__all__)
    elif module_name == "gradflow.cells":
        factories = [factory.__name__ for factory in module.CELLS.values()]
        names = ["CELLS", "resolve", "LSTMCarry", *factories]
    else:
        names = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_")
            and (inspect.isfunction(value) or inspect.isclass(value))
            and value.__module__ == module_name
        ]
    found = {name: getattr(module, name) for name in names if name not in top}
    return {name: value for name, value in found.items() if not inspect.ismodule(value)}


def constants(module_name: str) -> dict[str, str]:
    """The tables and types that a module exports from another, with the text below each there.

    Autodoc finds that text only in the module that defines the value.
    """
    own = ModuleAnalyzer.for_module(module_name).find_attr_docs()
    texts = {
        name: (" ".join(lines), vars(module).get(name))
        for found, module in list(sys.modules.items())
        if found.startswith(f"{module_name}.")
        for (_, name), lines in ModuleAnalyzer.for_module(found).find_attr_docs().items()
    }
    return {
        name: texts[name][0].strip()
        for name, value in exported(module_name).items()
        if ("", name) not in own and name in texts and texts[name][1] is value
    }


def public_names(module_name: str) -> list[str]:
    """The public names that autodoc documents."""
    return [name for name in exported(module_name) if name not in constants(module_name)]


autosummary_context = {"public_names": public_names, "constants": constants}


def skip_fields(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool:
    """Skips the fields of named tuples, which the docstrings describe as attributes."""
    del app, what, name, options
    return skip or "Alias for field number" in (getattr(obj, "__doc__", None) or "")


def escape_markup(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: Any) -> None:
    """Escapes | and * in docstrings, where they are absolute values and axes and never markup."""
    del app, what, name, obj, options
    block = None  # the indentation of the paragraph before a block of code
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if block is not None and line.strip():
            if indent > block:
                continue
            block = None
        parts = re.split("(`+.*?`+)", line)
        parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
        lines[i] = "".join(parts)
        if line.rstrip().endswith("::"):
            block = indent


def size_pictures(app: Sphinx, tree: nodes.document) -> None:
    """Shows the project's own pictures, of 200 pixels an inch, at 110 pixels an inch."""
    for node in tree.findall(nodes.image):
        path = HERE / node["uri"]
        if path.suffix == ".png" and path.parent.name in ("figures", "papers", "catalogue"):
            (width,) = struct.unpack(">I", path.read_bytes()[16:20])  # of the PNG's header
            node["width"] = f"{0.55 * width:.0f}px"


def write_measurements(app: Sphinx) -> None:
    """Writes the page of all measurements, with a picture of each."""
    from _kit.measurements_page import write

    write(HERE / "catalogue", HERE / "_build" / "measurements" / SOURCES)


def list_external_links(app: Sphinx, error: Exception | None) -> None:
    """Lists every external link with its pages in external_links.txt; none is opened."""
    if error is not None:
        return
    found: dict[str, set[str]] = {}
    for page in app.env.found_docs:
        for node in app.env.get_doctree(page).findall():
            target = getattr(node, "attributes", {}).get("refuri", "")
            if target.startswith(("http:", "https:")):
                found.setdefault(target, set()).add(page)
    lines = [f"{target}  {' '.join(sorted(pages))}\n" for target, pages in sorted(found.items())]
    (Path(app.outdir) / "external_links.txt").write_text("".join(lines), encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Connects the functions above to the build."""
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("autodoc-process-docstring", escape_markup, priority=400)  # before napoleon
    app.connect("doctree-read", size_pictures)
    # Before autosummary, which looks for pages as well.
    app.connect("builder-inited", write_measurements, priority=100)
    app.connect("build-finished", list_external_links)
