"""Every tutorial and every page of the cookbook runs, and its answer is computed by itself."""

import ast
import re
import sys
import types
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import pytest

DOCS = Path(__file__).parents[2] / "docs"
FOLDERS = ("tutorials", "cookbook")
PAGES = [
    page for name in FOLDERS for page in sorted((DOCS / name).glob("*.md")) if page.stem != "index"
]
EACH = pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")

CODE_CELL = re.compile(
    r"^```\{code-cell\}[^\n]*\n(?P<options>(?::[^\n]*\n)*)(?P<code>.*?)^```", re.S | re.M
)
GLUED = re.compile(r"\{glue:text\}`(?P<name>[^`:]+)(?::(?P<format>[^`]*))?`")
ANSWER = re.compile(
    r"^# [^\n]+\n\n:::\{admonition\} Answer\n:class: tip\n(?P<text>.*?)^:::$", re.S | re.M
)
NO_PROSE = re.compile(r"\{glue:text\}`[^`]*`|\$[^$]*\$|`[^`]*`|\{doc\}`[^`]*`", re.S)
"""What may have a digit in an answer: computed numbers, mathematics and code."""


def cells(page: Path) -> list[str]:
    return [match["code"] for match in CODE_CELL.finditer(page.read_text())]


def requirements(page: Path) -> list[str]:
    found = re.search(r"^requires: \[(.*)\]$", page.read_text(), re.M)
    return found[1].split(", ") if found else []


def execute(code: str, name: str, space: dict[str, Any]) -> None:
    """Runs a cell as a notebook does: its last expression is shown."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), space)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), name, "eval"), space)
        getattr(value, "_repr_png_", lambda: None)()


# All pages together train and measure for minutes.
@pytest.mark.slow
@EACH
def test_the_page_runs_and_computes_the_numbers_of_its_sentences(
    page, tmp_path, monkeypatch, without_checks_of_types
):
    for package in requirements(page):
        pytest.importorskip(package)
    glued: dict[str, Any] = {}
    myst_nb = types.ModuleType("myst_nb")
    myst_nb.glue = lambda name, value, display: glued.update({name: value})  # type: ignore
    monkeypatch.setitem(sys.modules, "myst_nb", myst_nb)
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("agg")
    space: dict[str, Any] = {"__name__": "__main__"}
    try:
        for number, code in enumerate(cells(page)):
            execute(code, f"{page.stem}, cell {number + 1}", space)
            for figure in map(plt.figure, plt.get_fignums()):
                figure.canvas.draw()
            plt.close("all")
    finally:
        plt.close("all")
        jax.clear_caches()  # no page uses what another one has compiled
    shown = {match["name"]: match["format"] or "" for match in GLUED.finditer(page.read_text())}
    assert set(shown) == set(glued)
    # MyST-NB formats what `repr` writes, and that of a NumPy scalar is not a number.
    assert {type(value) for value in glued.values()} <= {int, float, str}
    for name, form in shown.items():
        assert "nan" not in format(glued[name], form), f"{name} is NaN"


@EACH
def test_the_page_asserts_what_it_says(page):
    last = ast.parse(cells(page)[-1])
    assert any(isinstance(node, ast.Assert) for node in ast.walk(last))
    assert GLUED.search(page.read_text())


@EACH
def test_no_cell_is_within_another_block(page):
    """MyST-NB executes the code cells at the top level only."""
    outside = CODE_CELL.sub("", page.read_text())
    assert "{code-cell}" not in outside
    for block in re.findall(r"^:::\{.*?^:::$", page.read_text(), re.S | re.M):
        assert "{code-cell}" not in block


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.parent.name == "cookbook"], ids=lambda page: page.stem
)
def test_an_answer_comes_first_and_has_no_typed_number(page):
    answer = ANSWER.search(page.read_text())
    assert answer, "Expected the answer as a tip below the title."
    assert GLUED.search(answer["text"]), "Expected a computed number in the answer."
    assert not re.findall(r"\b\d[\d.,]*", NO_PROSE.sub("", answer["text"]))


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_page_is_in_the_contents(folder):
    contents = (DOCS / folder / "index.md").read_text()
    listed = re.findall(r"^[a-z0-9_]+$", contents, re.M)
    assert sorted(listed) == [page.stem for page in PAGES if page.parent.name == folder]


def test_links_between_pages_lead_somewhere():
    broken = [
        (page.stem, target)
        for page in PAGES
        for target in re.findall(r"\{doc\}`([^`]+)`", page.read_text())
        if not (page.parent / f"{target}.md").exists()
    ]
    assert not broken
