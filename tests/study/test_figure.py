import io
import itertools
import re

import matplotlib
import numpy as np
import pytest
import xarray
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from gradflow.study.figure import (
    CELL_STYLES,
    SERIES_STYLES,
    STYLE,
    band,
    cell_style,
    empty,
    handle,
    legend_above,
    render,
    save,
    series_style,
    style,
)


def axes():
    with style():
        return Figure().subplots()


def test_a_band_is_the_median_and_the_quantiles():
    values = np.random.default_rng(0).normal(size=(41, 5))
    ax = axes()
    line = band(ax, np.arange(5), values, 0, color="#0072B2", label="lstm")
    ordered = np.sort(values, axis=0)
    np.testing.assert_allclose(line.get_ydata(), ordered[20], rtol=1e-14)
    (path,) = ax.collections[0].get_paths()
    corners = {(x, round(y, 12)) for x, y in path.vertices}
    for row in (ordered[4], ordered[36]):  # 10 and 90 % of 41 values, without interpolation
        assert {(float(x), round(y, 12)) for x, y in enumerate(row)} <= corners
    assert line.get_label() == "lstm"


def test_a_band_has_gaps_where_a_value_is_not_finite():
    values = np.zeros((11, 7))
    values[:, 2] = -np.inf  # cut in every repetition
    values[0, 4] = np.nan
    values[:3, 5] = -np.inf  # cut in too many for a band, in too few for the median
    ax = axes()
    line = band(ax, np.arange(7), values, 0)
    assert np.isnan(line.get_ydata()).tolist() == [False, False, True, False, True, False, False]
    spans = [path.get_extents().intervalx.tolist() for path in ax.collections[0].get_paths()]
    assert spans == [[0.0, 1.0], [3.0, 3.0], [6.0, 6.0]]


def test_a_band_takes_the_axis_by_number_or_name():
    values = np.random.default_rng(0).normal(size=(4, 9))
    named = xarray.DataArray(values, dims=("lag", "seed"))
    ax = axes()
    lines = [band(ax, np.arange(4), named, "seed"), band(ax, np.arange(4), values, 1)]
    np.testing.assert_array_equal(lines[0].get_ydata(), np.median(values, axis=1))
    np.testing.assert_array_equal(lines[0].get_ydata(), lines[1].get_ydata())


def test_an_empty_figure_has_the_size_of_a_column():
    assert tuple(empty().get_size_inches()) == STYLE["figure.figsize"]
    assert empty(7.0, 2.0).get_size_inches().tolist() == [7.0, 2.0]


def test_a_legend_above_has_the_lines_of_one_panel():
    with style():
        fig = empty(7.0, 2.0)
        left, right = fig.subplots(1, 2)
        for label in ("a", "b"):
            left.plot([0], [1], label=label)
        right.plot([0], [1], label="c")
        legend_above(fig, left)
    (legend,) = fig.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert handle(label="d", color="red").get_label() == "d"


def test_a_band_of_another_length_is_refused():
    message = r"of shape \(5,\), got shape \(3,\) without the axis 1. Name the axis of the"
    with pytest.raises(ValueError, match=message):
        band(axes(), np.arange(5), np.zeros((3, 5)), 1)


def test_the_common_cells_look_the_same_at_any_place():
    for name in ("rnn", "lstm", "gru", "gru_reset_before"):
        assert cell_style(name, 0) == cell_style(name, 9) == CELL_STYLES[name]
    cell_style("lstm", 0)["color"] = "changed by a caller"
    assert cell_style("lstm", 0)["color"] != "changed by a caller"


def looks(count: int) -> list[dict]:
    return [*CELL_STYLES.values(), *(cell_style("mine.py:cell", i) for i in range(count))]


def test_any_two_series_differ_in_each_part_of_their_look():
    for kind in ("color", "linestyle", "marker"):
        assert len({series_style(i)[kind] for i in range(len(SERIES_STYLES))}) == 6
    assert series_style(7) == series_style(1)
    series_style(0)["color"] = "changed by a caller"
    assert series_style(0) == SERIES_STYLES[0]


def test_any_two_looks_differ_and_the_common_ones_in_grey_too():
    assert len({tuple(look.values()) for look in looks(100)}) == 104
    for kind in ("linestyle", "marker"):
        common = {look[kind] for look in CELL_STYLES.values()}
        assert len(common) == 4
        assert not common & {cell_style("x", i)[kind] for i in range(100)}


# Machado, Oliveira & Fernandes 2009, doi:10.1109/TVCG.2009.113, severity 1.
EYES = {
    "usual": np.eye(3),
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
}
XYZ = [
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
]


def seen(color: str, eye: str) -> np.ndarray:
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(EYES[eye] @ linear, 0, 1) / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eye", EYES)
def test_the_colours_are_apart_for_every_eye(eye):
    colors = {look["color"] for look in looks(5)}
    assert len(colors) == 9
    for one, other in itertools.combinations([seen(color, eye) for color in sorted(colors)], 2):
        assert np.linalg.norm(one - other) > 15  # ΔE of 2.3 is just noticeable


def test_the_style_ends_with_its_block_and_ignores_a_users_own():
    with matplotlib.rc_context({"font.size": 31, "lines.linestyle": ":"}):
        with style():
            assert matplotlib.rcParams["font.size"] == STYLE["font.size"] == 9
            assert matplotlib.rcParams["lines.linestyle"] == "-"
        assert matplotlib.rcParams["font.size"] == 31


def drawn(metadata: dict) -> Figure:
    del metadata
    with style():
        figure = Figure()
        ax = figure.subplots()
        ax.plot([0, 1], [1, 2], label="lstm")
        ax.set_xlabel(r"lag, $\partial h_t$ é")
        ax.legend()
    return figure


METADATA = {"Title": "Powers", "Subject": "tiny.py --seed=3", "Keywords": "git commit abc"}


def test_a_backend_that_becomes_interactive_within_the_block_stays_so():
    # As that of a notebook, which is loaded with the first figure.
    with matplotlib.rc_context({"interactive": False}):
        with style():
            matplotlib.interactive(True)
        assert matplotlib.is_interactive()
        with style():
            assert matplotlib.is_interactive()
            matplotlib.interactive(False)
        assert not matplotlib.is_interactive()


def test_a_saved_figure_says_where_it_comes_from_and_embeds_its_fonts(tmp_path):
    save(drawn({}), tmp_path / "new", "figure", METADATA)
    with Image.open(tmp_path / "new" / "figure.png") as image:
        assert {key: image.info[key] for key in METADATA} == METADATA
        assert image.size == (700, 520)  # 3.5 by 2.6 inches at 200 dots an inch
    pdf = (tmp_path / "new" / "figure.pdf").read_bytes()
    assert b"tiny.py --seed=3" in pdf and b"git commit abc" in pdf
    assert b"/CreationDate" not in pdf
    kinds = set(re.findall(rb"/Subtype /(Type3|TrueType|CIDFontType2|Type1)\b", pdf))
    assert kinds and b"Type3" not in kinds
    assert b"/FontFile2" in pdf


@pytest.mark.parametrize("kind", ["pdf", "png"])
def test_the_same_figure_has_the_same_bytes_whatever_a_user_sets(kind):
    first = render(drawn({}), kind, METADATA)
    with matplotlib.rc_context({"savefig.dpi": 50, "pdf.fonttype": 3}):
        assert render(drawn({}), kind, METADATA) == first
    assert render(drawn({}), kind, {**METADATA, "Title": "Other"}) != first


def test_the_picture_is_the_same_after_a_year(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    early = render(drawn({}), "pdf", METADATA)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(366 * 86400))
    assert render(drawn({}), "pdf", METADATA) == early
    assert io.BytesIO(early).read(5) == b"%PDF-"
