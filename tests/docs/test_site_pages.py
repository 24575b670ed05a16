"""The pages that the build of the site generates, without building it."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import pytest

from gradflow.flow import CATALOGUE

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

from _kit import cells_page, measurements_page, tables  # noqa: E402  (after the path)

PROSE = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")


def test_every_measurement_has_an_entry_with_its_equation_variables_and_code():
    page = measurements_page.page()
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == list(CATALOGUE)
    for name, entry in CATALOGUE.items():
        part = page[page.index(f"\n## {name}\n") :].split("\n## ")[1]
        assert f"```text\n{entry.equation}\n```" in part
        assert f"```python\n{measurements_page.code(name)}\n```" in part
        assert (f"({name}.png)" in part) is (entry.kind != "matrices")
        for one in entry.variables:
            assert f"| `{one.name}` | ({', '.join(one.dims)}) |" in part


def test_an_entry_that_is_read_from_another_measurement_names_both_functions():
    part = measurements_page.page().split("\n## effective_rank\n")[1].split("\n## ")[0]
    assert (
        "The function is {py:obj}`gradflow.flow.log_singular_values`. "
        "{py:obj}`gradflow.flow.effective_rank` computes this from its result."
    ) in part


def test_the_code_of_every_entry_gives_what_it_needs():
    """What each computes is tested with the catalogue; here is how the page calls it."""
    names = {"gradflow": SimpleNamespace(measure=lambda *args, **options: options), "jnp": jnp}
    names |= dict.fromkeys(("cell", "params", "inputs"))
    shapes = {"loss": (), "losses": (5,)}
    for name in CATALOGUE:
        exec(measurements_page.code(name), names)
        options: dict[str, Any] = names["found"]
        assert options.pop("what") == [name]
        assert set(options) == {"loss", "losses", "lags"} & {CATALOGUE[name].needs}
        for key in set(options) & set(shapes):
            assert options[key](jnp.ones((5, 3))).shape == shapes[key]


def test_a_section_on_what_misleads_is_linked_from_the_measurements_it_concerns():
    found = measurements_page.pitfalls(PROSE)
    assert "Exponents of a short run" in found["lyapunov_exponents"]
    link = "[Exponents of a short run](../measurements.md#exponents-of-a-short-run)"
    assert link in measurements_page.page()
    headings = {one for names in found.values() for one in names}
    assert len(headings) > 10 and all(f"\n### {one}\n" in PROSE for one in headings)


def test_a_section_that_concerns_nothing_known_is_refused():
    with pytest.raises(ValueError, match="Expected the names of measurements below 'Heat', got"):
        measurements_page.pitfalls("### Heat\n\n*Concerns `log_norms`, `heat`.*\n")


def test_the_cells_are_measured_by_the_record_of_the_zoo():
    record = tables.read_record("cell_zoo")
    assert record is not None
    rows = {row["cell"]: row for row in cells_page.measured_rows(record["summary"])}
    assert len(rows) == len(record["summary"]) - 3  # two lines of the head, one of the foot
    found = rows["deltanet"]
    assert (found["state"], found["blocks"], found["horizon"]) == ("S", "32 of 32", "> 100")
    page = cells_page.page(record)
    row = f"| [deltanet](#deltanet) | S | 32 of 32 | {found['factor per step']} | > 100 | stable |"
    assert row in page and "| [lstm(coupled=True)](#lstm) |" in page
    assert "| S |" not in cells_page.page(None)


def test_the_reference_has_every_package_that_names_what_is_public():
    listed = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    packages = [
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for path in [ROOT / "gradflow/__init__.py", *ROOT.glob("gradflow/*/__init__.py")]
        if "__all__" in path.read_text(encoding="utf-8")
    ]
    assert len(packages) > 8
    assert [name for name in packages if f"   {name}\n" not in listed] == []
