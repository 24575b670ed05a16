// How a figure is drawn: in the colours of the page, as wide as its place.

const root = document.documentElement;
const DASHES = ["solid", "8px,4px", "6px,2px,2px,2px", "10px,3px,2px,3px", "2px,3px", "14px,4px"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross"];
const PRINTED = { width: 318, lines: 186, map: 240, points: 214 };
const HEIGHTS = { lines: 272, map: 328, points: 328 };
// A finger scrolls the page, so that nothing can be zoomed by it.
const BUTTONS = { mouse: [["zoom2d", "pan2d", "resetScale2d", "toImage"]], touch: [["toImage"]] };
const touch = matchMedia("(pointer: coarse)");

function palette() {
  const style = getComputedStyle(root);
  return (name) => style.getPropertyValue(`--${name}`).trim();
}

function seriesStyle(number) {
  // The dashes move on by one after each turn of the colours, so that 36 curves differ.
  const turn = Math.floor(number / 6);
  return { color: `series-${number % 6}`, dash: DASHES[(number + turn) % 6], symbol: SYMBOLS[number % 6] };
}

function faded(hex, opacity) {
  const parts = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${parts.join(",")},${opacity})`;
}

// Each run of points whose two edges are there is a polygon of its own.
function bandOf(trace, color) {
  const x = [], y = [];
  let run = [];
  const close = () => {
    const back = [...run].reverse();
    x.push(...run.map((p) => p[0]), ...back.map((p) => p[0]), null);
    y.push(...run.map((p) => p[1]), ...back.map((p) => p[2]), null);
    run = [];
  };
  trace.customdata.forEach(([low, high], at) => {
    if (low !== null && high !== null && trace.x[at] !== null) run.push([trace.x[at], low, high]);
    else if (run.length) close();
  });
  if (run.length) close();
  return {
    type: "scatter", mode: "lines", x, y, fill: "toself", fillcolor: faded(color, 0.2),
    line: { width: 0 }, hoverinfo: "skip", showlegend: false, meta: { ...trace.meta, band: true },
  };
}

function styledTrace(trace, look, ground) {
  const style = seriesStyle(trace.meta.series);
  const color = look(style.color);
  if (trace.type === "heatmap") {
    return {
      ...trace, hoverongaps: false,
      hovertemplate: "%{y:.4~g}, %{x:.4~g}: %{z:.4~g}<extra></extra>",
      colorbar: {
        ...trace.colorbar, orientation: "h", x: 0.5, xanchor: "center", y: 0, yref: "container",
        yanchor: "bottom", len: 1, thickness: 10, outlinewidth: 0, ypad: 2, xpad: 0, nticks: 7,
        tickfont: { size: 11 }, title: { ...trace.colorbar.title, side: "bottom", font: { size: 12 } },
      },
    };
  }
  const isCloud = trace.mode === "markers";
  return {
    ...trace,
    line: { color, width: 2, dash: style.dash },
    marker: {
      color: isCloud ? faded(color, 0.55) : color, size: isCloud ? 7 : 5, symbol: style.symbol,
      line: { color: isCloud ? color : ground, width: isCloud ? 1 : 0 },
    },
    hovertemplate: isCloud ? "%{x:.4~g}, %{y:.4~g}" : "%{y:.4~g}",
    connectgaps: false,
  };
}

function styledData(panel, look) {
  const traces = [];
  for (const trace of panel.figure.data) {
    const hidden = panel.hidden.has(trace.meta.series);
    const styled = { ...styledTrace(trace, look, look("paper")), visible: !hidden };
    if (trace.customdata) traces.push({ ...bandOf(trace, styled.line.color), visible: !hidden });
    traces.push(styled);
  }
  // The bands lie below all curves.
  return [...traces.filter((t) => t.meta.band), ...traces.filter((t) => !t.meta.band)];
}

function styledAxis(axis, look, length) {
  // A copy of the range, since plotly writes the reader's zoom into it.
  return {
    ...axis, ...(axis.range && { range: [...axis.range] }), gridcolor: look("grid"), zeroline: false, linecolor: look("mark"), showline: true,
    ticks: "outside", ticklen: 4, tickcolor: look("mark"), automargin: true, nticks: 7,
    tickfont: { size: 11 }, hoverformat: ".4~g", exponentformat: "power",
    title: { text: wrapped(axis.title.text, length, 12), font: { size: 12 }, standoff: 8 },
  };
}

function styledShapes(shape, look, kind) {
  const dash = shape.name === "level" ? "5px,3px" : "solid";
  const drawn = (color, width, layer) => ({ ...shape, layer, line: { color, width, dash } });
  if (kind !== "map") return [drawn(look("mark"), 1.3, "below")];
  // A map has dark and light colours, on which a black line with a white edge is seen.
  return [drawn("#ffffff", 3.5, "above"), drawn("#000000", 1.5, "above")];
}

function styledLayout(panel, look, size) {
  const { layout } = panel.figure;
  const kind = layout.meta.kind;
  const margin = { l: 58, r: 14, t: 12, b: kind === "map" ? 104 : 48 };
  const inner = { width: size.width - margin.l - margin.r, height: size.height - margin.t - margin.b };
  const styled = {
    ...size, margin, autosize: false, showlegend: false, uirevision: "a zoom outlasts a drawing",
    paper_bgcolor: look("paper"),
    plot_bgcolor: kind === "map" ? look("void") : look("paper"),
    font: { family: look("font"), color: look("ink"), size: 12 },
    hovermode: kind === "lines" && panel.figure.data.length <= 8 ? "x unified" : "closest",
    hoverlabel: { bgcolor: look("paper"), bordercolor: look("line"), font: { color: look("ink"), size: 12 } },
    dragmode: touch.matches ? false : "zoom",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: look("muted"), activecolor: look("accent") },
    xaxis: styledAxis(layout.xaxis, look, inner.width),
    yaxis: styledAxis(layout.yaxis, look, inner.height),
    shapes: layout.shapes.flatMap((shape) => styledShapes(shape, look, kind)),
  };
  styled.xaxis.unifiedhovertitle = { text: `${layout.xaxis.title.text}: %{x}` };
  if (kind === "map") for (const axis of [styled.xaxis, styled.yaxis]) axis.showgrid = false;
  if (kind === "points") styled.yaxis.constrain = styled.xaxis.constrain = "domain";
  return styled;
}

function sizeOf(panel, isPrinted) {
  const kind = panel.figure.layout.meta.kind;
  return isPrinted
    ? { width: PRINTED.width, height: PRINTED[kind] }
    : { width: panel.plot.clientWidth, height: HEIGHTS[kind] };
}

// What a drawing depends on: it is drawn again when this has changed.
function stateOf(panel, isPrinted) {
  const { width, height } = sizeOf(panel, isPrinted);
  return [palette()("paper"), width, height, isPrinted, touch.matches].join(" ");
}

function draw(panel, isPrinted = false) {
  const look = palette();
  const size = sizeOf(panel, isPrinted);
  panel.state = stateOf(panel, isPrinted);
  const layout = placedLabels(styledLayout(panel, look, size), panel, look, size);
  const config = {
    displaylogo: false, displayModeBar: !isPrinted, modeBarButtons: touch.matches ? BUTTONS.touch : BUTTONS.mouse, responsive: false,
    showTips: false, staticPlot: isPrinted, doubleClick: "reset",
    toImageButtonOptions: { format: "png", scale: 2, filename: panel.fileName },
  };
  Plotly.react(panel.plot, styledData(panel, look), layout, config);
  nameDrawing(panel);
}

// A screen reader hears the description once, and none of the ticks.
function nameDrawing(panel) {
  panel.plot.querySelectorAll(".main-svg").forEach((svg) => svg.setAttribute("aria-hidden", "true"));
  panel.plot.querySelectorAll(".modebar-btn").forEach((button) => {
    const title = button.getAttribute("data-title");
    if (title) button.setAttribute("aria-label", title);
  });
}
