"""The site of the documentation: built as `./run.sh docs` builds it, and read in a browser."""

import html
import importlib
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gradflow
from gradflow.cells import CELLS

for package in ("myst_nb", "pydata_sphinx_theme", "sphinx_design", "sphinx_copybutton"):
    pytest.importorskip(package, reason="It needs the packages of the extra docs.")
pytest.importorskip("torch", reason="Two notebooks read a network of PyTorch.")

# Building executes the notebooks and measures every measurement: minutes.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACKAGES = "flow initializers interop models report study tasks testing train unroll".split()
SECTIONS = ["Start", "Tutorials", "Cookbook", "Measurements", "Cells", "Studies", "Reference"]
SECTIONS += ["Develop"]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q"]
    done = subprocess.run([*command, "docs", str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def pages(site: Path) -> list[str]:
    return sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html")
                  if "_static" not in path.parts)  # fmt: skip


def test_every_page_of_the_sources_is_in_the_site(site):
    sources = {path.stem for path in ROOT.glob("docs/*.md")}
    assert {f"{name}.html" for name in sources} <= set(pages(site))
    assert {"catalogue/index.html", "reference/gradflow.flow.html"} <= set(pages(site))


def test_every_measurement_and_cell_has_its_picture_or_its_signature(site):
    catalogue = (site / "catalogue" / "index.html").read_text(encoding="utf-8")
    assert 'src="../_images/log_norms.png"' in catalogue
    assert 'href="../reference/gradflow.flow.html#gradflow.flow.log_norms"' in catalogue
    flow = (site / "reference" / "gradflow.flow.html").read_text(encoding="utf-8")
    text = html.unescape(re.sub(r"<[^>]*>", "", flow))
    assert "inputs: Float[Array, 'steps input']" in text and "jaxtyping" not in text


def test_every_public_name_is_in_the_reference(site):
    pages = "".join(path.read_text(encoding="utf-8") for path in site.glob("reference/*.html"))
    documented = set(re.findall(r'id="(gradflow\.[^"]*)"', pages))
    packages = [gradflow, *(importlib.import_module(f"gradflow.{name}") for name in PACKAGES)]
    missing = [
        f"{package.__name__}.{name}"
        for package in packages
        for name in package.__all__
        if not inspect.ismodule(getattr(package, name))
        and not {f"{package.__name__}.{name}", f"gradflow.{name}"} & documented
    ]
    assert set(missing) == {"gradflow.unroll"}  # which is at gradflow.unroll.unroll
    assert {f"gradflow.cells.{one.__name__}" for one in CELLS.values()} <= documented


def test_external_links_are_listed_and_none_is_loaded(site):
    lines = (site / "external_links.txt").read_text(encoding="utf-8").splitlines()
    assert lines == sorted(lines) and all(re.match(r"https?://\S+  \S", line) for line in lines)
    for page in pages(site):
        text = (site / page).read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|link|iframe)[^>]+(?:src|href)="(https?:[^"]*)"', text)
        assert loaded == [], page


def executable() -> str | None:
    """A browser of the system, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="It needs playwright.")
    with playwright.sync_playwright() as driver:
        path = executable() or driver.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("There is no Chromium on this machine.")
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A window with the network off, and the errors on its console."""

    def __init__(self, browser: Any, **look: Any):
        self.errors: list[str] = []
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **look})
        context.set_offline(True)
        self.page = context.new_page()
        self.page.route(re.compile("^(http|ws)"), self._refuse)
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _refuse(self, route: Any) -> None:
        self.errors.append(f"asked for {route.request.url}")
        route.abort()

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)


@pytest.mark.parametrize("width", [360, 1280])
def test_every_page_opens_without_a_network_and_is_as_wide_as_the_window(browser, site, width):
    look = {"viewport": {"width": width, "height": 800}}
    opened = Opened(browser, **look, is_mobile=width < 500, has_touch=width < 500)
    wide = {}
    for page in pages(site):
        opened.page.goto((site / page).as_uri())
        found = opened.page.evaluate("document.documentElement.scrollWidth")
        if found > width:
            wide[page] = found
        broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
        assert opened.page.evaluate(broken) == [], page
        assert opened.errors == [], page
    assert wide == {}
    opened.page.context.close()


def test_the_navigation_has_the_sections(browser, site):
    opened = Opened(browser)
    opened.page.goto((site / "index.html").as_uri())
    shown = opened.page.locator("header nav .nav-link.nav-internal").all_inner_texts()
    assert [name.strip() for name in shown] == SECTIONS
    opened.page.context.close()


def test_a_search_finds_the_forget_bias(browser, site):
    opened = Opened(browser)
    opened.page.goto((site / "search.html").as_uri() + "?q=forget+bias")
    results = opened.page.locator("#search-results ul.search li a")
    results.first.wait_for()
    targets = [link.get_attribute("href").partition("?")[0] for link in results.all()]
    assert any(target.startswith(("cells.html", "studies.html")) for target in targets)
    assert opened.errors == []
    opened.page.context.close()


def test_dark_mode_follows_the_system_and_the_button(browser, site):
    opened = Opened(browser, color_scheme="dark")
    page = opened.page

    def brightness() -> float:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / (3 * 255)

    page.goto((site / "start.html").as_uri())
    assert brightness() < 0.2
    page.emulate_media(color_scheme="light")
    page.wait_for_function("document.documentElement.dataset.theme === 'light'")
    assert brightness() > 0.9
    page.locator("button.theme-switch-button:visible").click()
    page.locator("button.theme-change-button[data-mode=dark]:visible").click()
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    assert brightness() < 0.2
    page.reload()
    assert brightness() < 0.2 and opened.errors == []
    page.context.close()


def test_mathematics_is_typeset_without_a_network(browser, site):
    opened = Opened(browser)
    pages = [path for path in site.glob("tutorials/*.html") if "MathJax" in path.read_text("utf-8")]
    assert pages
    opened.page.goto(pages[0].as_uri())
    opened.page.locator("mjx-container mjx-math").first.wait_for()
    assert opened.errors == []
    opened.page.context.close()


def test_code_is_copied_by_a_button(browser, site):
    opened = Opened(browser)
    opened.page.goto((site / "start.html").as_uri())
    assert opened.page.locator("button.copybtn").count() > 3
    opened.page.context.close()
