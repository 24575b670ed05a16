// The parts beside a plot: its legend of buttons, and its numbers as a table.

const MAX_ROWS = 200;
const MAX_CELLS = { rows: 20, columns: 10 };

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function swatch(trace) {
  const space = "http://www.w3.org/2000/svg";
  const { color, dash } = seriesStyle(trace.meta.series);
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 30 12");
  svg.setAttribute("aria-hidden", "true");
  const isCloud = trace.mode === "markers";
  const sign = document.createElementNS(space, isCloud ? "circle" : "path");
  const attributes = isCloud
    ? { cx: 15, cy: 6, r: 4.5, fill: `var(--${color})` }
    : { d: "M0 6H30", stroke: `var(--${color})`, "stroke-width": 2.5, "stroke-dasharray": dash.replaceAll("px", "") };
  for (const [name, value] of Object.entries(attributes)) sign.setAttribute(name, value);
  svg.append(sign);
  return svg;
}

function addLegend(panel) {
  const traces = panel.figure.data.filter((trace) => trace.type === "scatter");
  if (!traces.length) return;
  const legend = element("div", { className: "legend", role: "group", "aria-label": "Show or hide curves" });
  for (const trace of traces) {
    const key = [swatch(trace), element("span", { textContent: trace.meta.label })];
    if (traces.length === 1) {
      legend.append(element("span", { className: "key" }, ...key));
      continue;
    }
    const button = element("button", { type: "button", "aria-pressed": "true" }, ...key);
    button.addEventListener("click", () => {
      const number = trace.meta.series;
      const wasHidden = panel.hidden.delete(number);
      if (!wasHidden) panel.hidden.add(number);
      button.setAttribute("aria-pressed", String(wasHidden));
      draw(panel);
    });
    legend.append(button);
  }
  panel.plot.after(legend);
}

function shown(value) {
  return value === null || value === undefined ? "none" : String(value);
}

// One row for each place, with a column for each curve that has a value there.
function curvesAsTable(figure) {
  const head = [figure.layout.xaxis.title.text];
  const rows = new Map();
  figure.data.forEach((trace) => {
    const edges = trace.customdata ? ["low", "high"] : [];
    const first = head.length;
    head.push(trace.meta.label, ...edges.map((edge) => `${trace.meta.label}, ${edge}`));
    trace.x.forEach((x, at) => {
      if (!rows.has(x)) rows.set(x, [x]);
      rows.get(x)[first] = trace.y[at];
      edges.forEach((_, edge) => { rows.get(x)[first + 1 + edge] = trace.customdata[at][edge]; });
    });
  });
  const sorted = [...rows.values()].sort((a, b) => a[0] - b[0]);
  return { head, rows: sorted.slice(0, MAX_ROWS), note: thinned(sorted.length, MAX_ROWS) };
}

function pointsAsTable(figure) {
  const { xaxis, yaxis } = figure.layout;
  const rows = figure.data.flatMap((t) => t.x.map((x, at) => [t.meta.label, x, t.y[at]]));
  const head = ["Set", xaxis.title.text, yaxis.title.text];
  return { head, rows: rows.slice(0, MAX_ROWS), note: thinned(rows.length, MAX_ROWS) };
}

function mapAsTable(figure) {
  const [map] = figure.data;
  const pick = (values, most) => {
    const every = Math.max(1, Math.ceil(values.length / most));
    return { every, at: values.map((_, at) => at).filter((at) => at % every === 0) };
  };
  const rows = pick(map.y, MAX_CELLS.rows), columns = pick(map.x, MAX_CELLS.columns);
  const { xaxis, yaxis } = figure.layout;
  return {
    head: [`${plain(yaxis.title.text)} \\ ${plain(xaxis.title.text)}`, ...columns.at.map((at) => map.x[at])],
    rows: rows.at.map((row) => [map.y[row], ...columns.at.map((column) => map.z[row][column])]),
    note: rows.every * columns.every > 1
      ? `Every row in ${rows.every} and every column in ${columns.every} is listed.` : "",
  };
}

function thinned(number, most) {
  return number > most ? `The first ${most} of ${number} rows.` : "";
}

function tableOf(panel) {
  const { kind } = panel.figure.layout.meta;
  const make = { lines: curvesAsTable, points: pointsAsTable, map: mapAsTable }[kind];
  const { head, rows, note } = make(panel.figure);
  const cells = (tag, row) => head.map((_, at) => element(tag, { textContent: shown(row[at]) }));
  const heading = head.map((name) => element("th", { scope: "col", textContent: plain(shown(name)) }));
  const body = rows.map((row) => element("tr", {}, ...cells("td", row)));
  const table = element("table", { "aria-label": panel.title }, element("thead", {}, element("tr", {}, ...heading)), element("tbody", {}, ...body));
  const scroll = element("div", { className: "scroll", role: "region", tabIndex: 0, "aria-label": `${panel.title}, numbers` }, table);
  return note ? [element("p", { className: "caption", textContent: note }), scroll] : [scroll];
}

function addDisclosure(panel) {
  const details = element("details", { className: "data" }, element("summary", { textContent: "Data as table" }));
  const fill = () => {
    if (details.open && details.children.length === 1) details.append(...tableOf(panel));
  };
  details.addEventListener("toggle", fill);
  panel.element.append(details);
}
