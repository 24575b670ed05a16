"""The page of a report in a real browser: drawn, operated by keyboard, and printed."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import report_samples as samples

from gradflow.report.page import write_page

playwright = pytest.importorskip("playwright.sync_api")

DRAWN = "html[data-drawn]"
TRACES = ".layer.active .plot .scatterlayer .trace, .layer.active .plot .heatmaplayer image"


def executable() -> str | None:
    """A browser of the system, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        path = executable() or driver.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("There is no Chromium on this machine.")
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(samples.report(), path)
    return path.as_uri()


class Opened:
    """A page opened from its file with the network off, and what it complained about."""

    def __init__(self, browser: Any, address: str, **look: Any):
        self.complaints: list[str] = []
        self.requests: list[str] = []
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **look})
        context.set_offline(True)
        self.page = context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.route(re.compile("^(http|ws)"), lambda route: route.abort())
        self.page.goto(address)

    def drawn(self) -> Any:
        self.page.wait_for_selector(DRAWN)
        return self.page

    def colour(self, selector: str) -> str:
        script = "e => getComputedStyle(e).fill + getComputedStyle(e).backgroundColor"
        return self.page.locator(selector).first.evaluate(script)


@pytest.fixture(scope="module")
def opened(browser, address) -> Iterator[Opened]:
    """The page in a wide window, which the tests below share."""
    opened = Opened(browser, address)
    opened.drawn()
    yield opened
    assert opened.complaints == []
    opened.page.context.close()


def chosen(page: Any) -> str:
    (tab,) = page.locator("[role=tab][aria-selected=true]").all()
    assert tab.get_attribute("tabindex") == "0"
    (shown,) = [layer for layer in page.locator("[role=tabpanel]").all() if layer.is_visible()]
    assert shown.get_attribute("id") == tab.get_attribute("aria-controls")
    assert shown.get_attribute("aria-labelledby")
    return shown.get_attribute("id")


def test_it_opens_without_a_network_and_draws_every_plot(opened, address):
    page = opened.page
    assert opened.requests == [address]
    assert page.locator(".layer.active figure.panel").count() == 4
    for plot in page.locator(".layer.active .plot").all():
        assert plot.locator(".main-svg").count() > 0 and plot.get_attribute("aria-label")
        assert not plot.locator(".fallback").count()
    # Three curves with one band, one map, one set of points, four curves with four bands.
    assert page.locator(TRACES).count() == 4 + 1 + 1 + 8
    assert page.locator(".layer:not(.active) .main-svg").count() == 0
    assert page.locator(".modebar-btn--logo, a[href*=plotly]").count() == 0
    assert opened.complaints == []


def test_gaps_are_not_bridged(opened):
    traces = opened.page.locator("#panel_0_0 .scatterlayer .trace").all()
    pieces = [
        "".join(line.get_attribute("d") for line in trace.locator(".js-line").all()).count("M")
        for trace in traces
    ]
    # The band has both edges from lag 5 to 19 and from 22 on; one curve has a gap.
    assert pieces == [2, 1, 2, 1]


def test_labels_stand_on_nothing_else(opened):
    boxes = [b.bounding_box() for b in opened.page.locator("#panel_0_0 .annotation .bg").all()]
    assert len(boxes) == 6
    for at, one in enumerate(boxes):
        for other in boxes[at + 1 :]:
            apart = (
                one["x"] + one["width"] <= other["x"] + 1
                or other["x"] + other["width"] <= one["x"] + 1
                or one["y"] + one["height"] <= other["y"] + 3
                or other["y"] + other["height"] <= one["y"] + 3
            )
            assert apart, (one, other)


def test_eigenvalues_have_equal_axes(opened):
    circle = opened.page.locator("#panel_0_2 .shapelayer path").first.bounding_box()
    assert circle["width"] == pytest.approx(circle["height"], abs=1.5) and circle["width"] > 100


def test_tabs_work_by_keyboard(opened):
    page = opened.page
    first, last = "lstm-0-forward", "lstm-0-backward"
    page.locator("[role=tab]").first.focus()
    for key, expected in [
        *[("ArrowRight", last), ("ArrowRight", first), ("ArrowLeft", last)],
        *[("Home", first), ("End", last), ("Home", first)],
    ]:
        page.keyboard.press(key)
        assert chosen(page) == expected and page.url.endswith(f"#{expected}")
        assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    page.keyboard.press("End")
    opened.drawn()
    assert page.locator(TRACES).count() == 14
    page.keyboard.press("Home")


def test_an_address_opens_its_layer(opened):
    page = opened.page
    page.evaluate("location.hash = '#panel_1_3'")
    page.wait_for_selector("#lstm-0-backward.active")
    assert chosen(page) == "lstm-0-backward"
    for stray in ("#%E0%A4%A", "#nothing", "#page_theme"):
        page.evaluate(f"location.hash = '{stray}'")
    page.evaluate("location.hash = '#lstm-0-forward'")
    page.wait_for_selector("#lstm-0-forward.active")


def test_curves_are_hidden_by_keyboard(opened):
    page = opened.page
    curves = page.locator("#panel_0_0 .scatterlayer .trace")
    button = page.get_by_role("button", name="trained").first
    button.focus()
    for key, pressed, number in [("Space", "false", 2), ("Enter", "true", 4)]:
        page.keyboard.press(key)
        assert button.get_attribute("aria-pressed") == pressed and curves.count() == number


def test_a_zoom_outlasts_a_hidden_curve_and_is_undone(opened):
    page = opened.page
    page.locator("#panel_0_0").scroll_into_view_if_needed()
    box = page.locator("#panel_0_0 .nsewdrag").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    limits = "document.querySelector('#panel_0_0 .plot').layout.xaxis.range"
    whole = page.evaluate(limits)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 60, steps=4)
    page.mouse.up()
    zoomed = page.evaluate(limits)
    assert whole == [0, 40] and zoomed[0] == pytest.approx(20, abs=1) and zoomed[1] < 30
    for _ in range(2):
        page.get_by_role("button", name="trained").first.click()
        assert page.evaluate(limits) == zoomed
    page.mouse.dblclick(x, y)
    page.wait_for_function(f"JSON.stringify({limits}) === '[0,40]'")


def test_numbers_are_read_as_a_table(opened):
    page = opened.page
    cells = []
    for number in range(4):
        figure = page.locator(f"#panel_0_{number}")
        assert figure.locator("table").count() == 0  # made when it is wanted
        figure.locator("summary").focus()
        page.keyboard.press("Enter")
        figure.locator("table").wait_for()
        rows = [row.locator("th, td").all_inner_texts() for row in figure.locator("tr").all()]
        cells.append(rows)
        page.keyboard.press("Enter")
    assert cells[0][0] == ["lag", "trained", "trained, low", "trained, high", "gap", "cut"]
    assert cells[0][3] == ["2", "-0.17", "none", "-0.15", "-1.17", "-2.17"]
    assert cells[1][0][:2] == ["step t \\ step k", "0"] and cells[1][3][1:5] == [
        *("-0.06", "-0.03", "0", "none"),
    ]
    assert cells[2][1][0] == "step 100" and len(cells[3]) == 31


def test_dark_and_light_are_chosen_by_the_system_and_by_hand(opened):
    page = opened.page
    ground = "#panel_0_0 .main-svg"

    def choose(theme: str, expected: str) -> None:
        page.get_by_role("radio", name=theme).check(force=True)
        page.wait_for_function(
            "([s, c]) => getComputedStyle(document.querySelector(s)).backgroundColor === c",
            arg=[ground, expected],
        )

    light, dark = "rgb(255, 255, 255)", "rgb(25, 29, 35)"
    choose("Dark", dark)
    choose("Light", light)
    page.emulate_media(color_scheme="dark")
    choose("System", dark)
    page.emulate_media(color_scheme="light")
    choose("System", light)


@pytest.mark.parametrize("width", [360, 1440])
def test_nothing_is_wider_than_the_window(browser, address, width):
    look = {"viewport": {"width": width, "height": 740}, "color_scheme": "dark"}
    opened = Opened(browser, address, **look, has_touch=width == 360, is_mobile=width == 360)
    page = opened.drawn()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("h1").bounding_box()["height"] < 100  # its words, and no gap below
    plots = page.locator(".layer.active .plot .main-svg").all()
    assert all(plot.bounding_box()["width"] <= width - 30 for plot in plots)
    if width == 360:
        assert not page.locator("[role=tablist]").is_visible()
        page.get_by_label("Layer", exact=True).select_option("lstm-0-backward")
        assert page.url.endswith("#lstm-0-backward")
        opened.drawn()
        assert page.locator(TRACES).count() == 14
        sizes = [b.bounding_box() for b in page.locator(".layer.active button").all()]
        assert min(size["height"] for size in sizes) >= 43
    assert opened.complaints == []
    page.context.close()


def test_it_is_read_without_javascript(browser, address):
    page = Opened(browser, address, java_script_enabled=False).page
    assert all(layer.is_visible() for layer in page.locator(".layer").all())
    assert page.locator(".fallback").last.is_visible()
    assert not page.locator("#page_theme").is_visible()
    page.context.close()


def test_a_browser_that_cannot_unpack_shows_the_words(browser, address):
    context = browser.new_context()
    context.add_init_script("delete globalThis.DecompressionStream")
    page = context.new_page()
    page.goto(address)
    page.locator(".fallback").first.wait_for()
    assert "Open the page in a browser from 2023" in page.locator("#page_status").inner_text()
    context.close()


def test_it_prints_all_layers_with_their_plots(browser, address):
    opened = Opened(browser, address)
    page = opened.drawn()
    assert page.locator(".layer:not(.active) .main-svg").count() == 0
    printed = page.pdf(outline=True, tagged=True, prefer_css_page_size=True)
    titles = set(re.findall(rb"/Title \(([^)]*)\)", printed))
    assert {b"LSTM 0, forward", b"LSTM 0, backward", b"Gates over time"} <= titles
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) >= 4
    missing = page.locator(".layer:not(.active) .plot:not(:has(.main-svg))")
    assert missing.count() == 0  # those of the hidden layer were drawn for printing
    assert page.evaluate("document.documentElement.className") == "js"
    assert opened.complaints == []
    page.context.close()


@pytest.mark.slow  # four layers of twelve plots: 10 s where much else runs
def test_a_large_page_is_ready_soon(browser, tmp_path):
    path = tmp_path / "report.html"
    write_page(samples.large_report(), path)
    opened = Opened(browser, "about:blank")
    session = opened.page.context.new_cdp_session(opened.page)
    # Seconds of the processor, which do not depend on what else runs. On an idle core 0.3 s pass
    # until the text is there, 1.5 s to the first plot, and 2 s until all twelve are drawn.
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    opened.page.goto(path.as_uri())
    opened.drawn()
    metrics = session.send("Performance.getMetrics")["metrics"]
    spent = {metric["name"]: metric["value"] for metric in metrics}["TaskDuration"]
    assert 0.3 < spent < 4 and opened.complaints == []
    assert opened.page.locator(".layer.active .main-svg").count() >= 12
