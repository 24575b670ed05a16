"""The page of a report, without a browser: complete, escaped, deterministic, and its figures."""

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects
import pytest
import report_samples as samples

from gradflow.report import page, plots
from gradflow.report.limits import limits_of
from gradflow.report.parts import Finding, Image, Line, Panel, Report, Section, Table
from gradflow.study.figure import SERIES_STYLES

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)> \u2028\"'&amp;"


class Elements(HTMLParser):
    """The elements of a document, its words, and what its scripts contain."""

    def __init__(self, document: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.feed(document)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script" and not self.scripts[-1]:
            self.scripts[-1] = data
        elif self.tags and self.tags[-1][0] != "style":
            self.words.append(data)


@pytest.fixture(scope="module")
def document() -> str:
    return page.render(samples.report())


@pytest.fixture(scope="module")
def elements(document: str) -> Elements:
    return Elements(document)


def script_digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_the_same_report_gives_the_same_document(document):
    assert page.render(samples.report()) == document


def test_nothing_is_loaded(elements):
    links = [
        value
        for _, attributes in elements.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href")
    ]
    assert len(links) > 10
    assert [link for link in links if not link.startswith(("#", "data:"))] == []
    styles = page.read("page.css") + page.read("dark.css")
    assert "url(" not in styles and "@import" not in styles


def test_the_policy_allows_these_scripts_alone(elements):
    policy = next(a["content"] for t, a in elements.tags if "http-equiv" in a)
    allowed = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert allowed["default-src"] == "'none'" and "unsafe" not in allowed["script-src"]
    kinds = [a.get("type") for t, a in elements.tags if t == "script"]
    run = [s for kind, s in zip(kinds, elements.scripts, strict=True) if kind is None]
    packed = elements.scripts[kinds.index("text/plain")]
    plotly = gzip.decompress(base64.b64decode(packed)).decode()
    digests = {f"'{script_digest(script)}'" for script in [*run, plotly]}
    assert digests == set(allowed["script-src"].split()) and len(digests) == 3
    assert "plotly.js v" in plotly[:100] and "MIT" in "".join(elements.words)


def hostile_report() -> Report:
    x = np.arange(3.0)
    line = Line(HOSTILE, x, x, x, x)
    image = Image(x, x, np.eye(3), HOSTILE)
    marks = ((HOSTILE, 1.0),)
    panels = (
        Panel(HOSTILE, HOSTILE, HOSTILE, HOSTILE, (line,), marks=marks, levels=marks),
        Panel(HOSTILE, HOSTILE, HOSTILE, HOSTILE, points=(line,)),
        Panel(HOSTILE, HOSTILE, HOSTILE, HOSTILE, image=image),
    )
    table = Table(HOSTILE, HOSTILE, (HOSTILE,), ((HOSTILE,),), ("bad",))
    facts = ((HOSTILE, HOSTILE),)
    finding = Finding(HOSTILE, HOSTILE, "bad")
    section = Section(HOSTILE, HOSTILE, "bad", facts, (finding,) * 5, (table,) * 2, panels)
    return Report(HOSTILE, HOSTILE, (section,) * 2, facts, (HOSTILE,))


def test_names_of_foreign_files_are_harmless():
    hostile = hostile_report()
    document = page.render(hostile)
    names = [tag for tag, _ in Elements(document).tags]
    assert "img" not in names and names.count("script") == 5  # 3 own ones, and two of figures
    assert not re.search(r"<script>\s*alert", document) and "onerror=alert(1)>" not in document
    found = Elements(document)
    assert HOSTILE in "".join(found.words)
    figures = json.loads(found.scripts[1])
    assert figures[0]["data"][0]["meta"]["label"] == HOSTILE
    assert "<" not in figures[0]["data"][0]["name"] + figures[0]["layout"]["xaxis"]["title"]["text"]


def test_embedded_json_cannot_end_its_element():
    text = page.embedded_json([HOSTILE, "\ud800", None])
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == [HOSTILE, "\ud800", None]
    with pytest.raises(ValueError, match="not JSON compliant"):
        page.embedded_json(float("nan"))


def test_identifiers_are_unique_and_every_reference_has_its_target(elements):
    found = [a["id"] for _, a in elements.tags if "id" in a]
    assert len(found) == len(set(found))
    named = ("aria-labelledby", "aria-controls", "aria-describedby")
    wanted = {a[name] for _, a in elements.tags for name in named if name in a}
    wanted |= {a["href"][1:] for _, a in elements.tags if a.get("href", "").startswith("#")}
    assert wanted <= set(found) and "lstm-0-backward" in wanted


def test_everything_is_readable_without_javascript(elements):
    words = " ".join("".join(elements.words).split())
    report = samples.report()
    for part in (report.title, report.lead, *report.notes):
        assert part in words
    for section in report.sections:
        assert section.summary in words
        for panel in section.panels:
            assert plots.describe(panel) in words and panel.caption in words
    for finding in samples.FINDINGS:
        assert finding.sentence in words
    for word in page.WORDS.values():  # a level is never a colour alone
        assert word in words
    assert "112 [98, 130]" in words and "9f86d081" in words


def test_a_page_of_nothing_renders():
    assert "The report has no layers." in page.render(Report("t", "l", (), ()))
    bare = Section("a", "s", "good", (), ())
    document = page.render(Report("t", "l", (bare,), ()))
    assert '<nav class="layers' not in document and 'id="a"' in document


def test_the_page_is_small():
    assert len(page.render(samples.large_report()).encode()) < 3.5e6


def test_the_page_is_written_at_once(tmp_path):
    report = samples.report()._replace(title="broken \ud800 name")
    page.write_page(report, tmp_path / "new" / "report.html")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]
    assert "broken \\ud800 name" in (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        page.write_page(report, tmp_path / "file" / "report.html")


def test_layers_have_addresses_of_their_own():
    names = ["LSTM layer 0, forward", "lstm layer 0 forward", "層", "", "LSTM layer 0, forward-2"]
    assert page.unique_slugs(names) == [
        "lstm-layer-0-forward",
        "lstm-layer-0-forward-2",
        "layer",
        "layer-2",
        "lstm-layer-0-forward-2-2",
    ]


def test_the_whole_is_marked_as_its_worst_part():
    assert page.worst(["good", "unknown", "warning"]) == "warning"
    assert page.worst(["good", "unknown"]) == "unknown"
    assert page.worst([]) == "unknown"


def test_columns_of_numbers_are_aligned_to_the_right(elements):
    cells = {a["data-column"]: a.get("class") for t, a in elements.tags if t == "td"}
    assert cells["Norm at lag 200"] == cells["Horizon after"] == "number"
    assert cells["Change"] is None and cells["format"] is None


def all_panels() -> list[Panel]:
    x = np.arange(3.0)
    nothing = Line("n", x, np.full(3, np.nan))
    return [
        samples.norms(),
        samples.pairs(),
        samples.eigenvalues(),
        samples.gates(),
        Panel("t", "c", "x", "y", (nothing,), marks=(("m", 1.0),)),
        Panel("t", "c", "x", "y", (Line("e", x[:0], x[:0]),)),
        Panel("t", "c", "x", "y"),
        Panel("t", "c", "x", "y", (Line("one", x[:1], x[:1]),), levels=(("inf", np.inf),)),
        Panel("t", "c", "x", "y", (Line("huge", x, np.array([-1.7e308, np.inf, 1.7e308])),)),
        Panel("t", "c", "x", "y", image=Image(x, x[:1], np.full((1, 3), np.nan), "u")),
        Panel("t", "c", "x", "y", image=Image(x[:1], x[:1], np.zeros((1, 1)), "u")),
    ]


@pytest.mark.parametrize("panel", all_panels(), ids=range(11))
def test_every_figure_is_valid_for_plotly_and_as_json(panel):
    figure = plots.figure(panel)
    json.dumps(figure, allow_nan=False)
    plotly.graph_objects.Figure(figure)  # raises at a property that does not exist
    for axis in ("xaxis", "yaxis"):
        low, high = figure["layout"][axis].get("range", (0, 1))
        assert np.isfinite(high - low) and low < high
    assert plots.describe(panel).endswith(".")
    is_empty = [note["name"] for note in figure["layout"]["annotations"]].count("nothing")
    assert is_empty == (limits_of(panel)[1] is None)


def test_what_is_not_finite_is_a_gap():
    trained, gap, cut = plots.figure(samples.norms())["data"]
    assert gap["y"][9:12] == [-1.765, None, None] and gap["y"][15] == -2.275
    assert cut["y"][29] == -4.465 and cut["y"][30:] == [None] * 171
    assert trained["customdata"][4:6] == [[None, -0.3], [-0.475, -0.375]]
    assert plots.numbers(np.array([np.inf, -0.0, 1 / 3, 1e20, 7])) == [None, 0, 0.33333, 1e20, 7]


def test_a_point_between_gaps_is_marked():
    x = np.arange(30.0)
    y = np.where(x == 7, np.nan, x)
    assert plots.figure(samples.norms())["data"][0]["mode"] == "lines"
    lone = np.where(np.isin(x, [5, 7]), np.nan, x)
    for values, mode in [(y, "lines"), (lone, "lines+markers"), (x[:5], "lines+markers")]:
        panel = Panel("t", "c", "x", "y", (Line("a", x[: len(values)], values),))
        assert plots.figure(panel)["data"][0]["mode"] == mode


def test_lines_of_reference_are_drawn_if_they_are_near():
    layout = plots.figure(samples.norms())["layout"]
    drawn = [(shape["name"], shape.get("x0"), shape.get("y0")) for shape in layout["shapes"]]
    assert drawn[:3] == [("mark", 36, 0), ("mark", 12, 0), ("mark", 200, 0)]
    assert [y for name, _, y in drawn if name == "level"] == [-3, -4.2]
    names = [note["text"] for note in layout["annotations"]]
    assert names[-1] == "far away \u2193" and "1e-3" in names
    assert layout["annotations"][-1]["y"] == pytest.approx(layout["yaxis"]["range"][0], rel=1e-4)
    assert layout["xaxis"]["range"] == [0, 200]  # a mark at the end needs no more room


def test_limits_show_near_lines_of_reference_beyond_the_data():
    x = np.arange(11.0)
    near, far = (("a", 12.0),), (("b", 13.0),)
    for marks, end, texts in [(near, 12.4, ["a"]), (far, 10.0, ["b \u2192"])]:
        panel = Panel("t", "c", "x", "y", (Line("l", x, x),), marks=marks)
        layout = plots.figure(panel)["layout"]
        assert layout["xaxis"]["range"] == [0.0, pytest.approx(end)]
        assert [note["text"] for note in layout["annotations"]] == texts


def test_eigenvalues_have_equal_axes_and_the_unit_circle():
    layout = plots.figure(samples.eigenvalues())["layout"]
    assert layout["yaxis"]["scaleanchor"] == "x" and layout["yaxis"]["scaleratio"] == 1
    (circle,) = layout["shapes"]
    assert circle["type"] == "circle" and [circle[k] for k in ("x0", "x1", "y0", "y1")] == [
        *(-1, 1),
        *(-1, 1),
    ]
    assert layout["xaxis"]["range"][0] <= -1.05 and layout["yaxis"]["range"][1] >= 1.05


def test_a_map_reaches_to_the_edges_of_its_cells_and_names_its_unit():
    figure = plots.figure(samples.pairs(10))
    assert figure["layout"]["xaxis"]["range"] == [-0.5, 9.5]
    (heat,) = figure["data"]
    assert heat["colorbar"]["title"]["text"] == "log10 norm of the pair"
    assert heat["z"][3][2:5] == [-0.03, 0, None]  # row t = 3, column k


def test_descriptions_give_the_course():
    words = plots.describe(samples.norms())
    assert "trained: 0 at 0, -17 at 200;" in words and "horizon 36 [31, 44] at 36" in words
    assert "cut: -2 at 0, -4.465 at 29" in words
    assert "between 0.1" in plots.describe(samples.gates())
    assert "from -0.27 to 0, 45 of 100 not finite" in plots.describe(samples.pairs(10))
    assert "step 100: 512 points" in plots.describe(samples.eigenvalues())
    assert "e: no value is finite" in plots.describe(all_panels()[5])


def colours(name: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#\w{6})", page.read(name)))


def test_the_light_colours_of_curves_are_the_houses():
    light = colours("page.css")
    assert [light[f"series-{n}"] for n in range(6)] == [style["color"] for style in SERIES_STYLES]


def luminance(colour: str) -> float:
    values = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    """The ratio of the Web Content Accessibility Guidelines 2.2."""
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_words_have_contrast_on_every_ground(dark):
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    found = colours("page.css") | (colours("dark.css") if dark else {})
    pairs = [(ink, ground) for ink in ("ink", "muted") for ground in ("page", "paper", "void")]
    pairs += [(level, f"{level}-wash") for level in ("good", "warning", "bad", "unknown")]
    pairs += [("accent", "paper"), ("accent-ink", "accent")]
    weak = {pair: contrast(*(found[name] for name in pair)) for pair in pairs}
    assert {pair: ratio for pair, ratio in weak.items() if ratio < 4.5} == {}
    assert contrast(found["mark"], found["paper"]) > 3
    if dark:
        series = [found[f"series-{number}"] for number in range(6)]
        assert min(contrast(colour, found["paper"]) for colour in series) > 3
