// Where the labels of lines of reference stand: not on each other, nor outside of the plot.

const LABEL = 11;
const LANE = 15;
const pen = document.createElement("canvas").getContext("2d");

function plain(text) {
  return text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
}

function widthOf(text, size = LABEL) {
  pen.font = `${size}px ${palette()("font")}`;
  return pen.measureText(plain(text)).width;
}

// Words in lines that are no wider than a length, as plotly reads them.
function wrapped(text, length, size) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = lines.at(-1) ? `${lines.at(-1)} ${word}` : word;
    if (widthOf(longer, size) <= length || !lines.at(-1)) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines.join("<br>");
}

function overlap(a, b) {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

// Labels of marks stand above the plot like flags, each beside its line, in as few rows as fit.
function placedMarks(marks, scale, width) {
  const taken = [], placed = [];
  for (const mark of [...marks].sort((a, b) => b.x - a.x)) {
    const at = scale(mark.x);
    const text = wrapped(mark.text, width, LABEL);
    const lines = text.split("<br>");
    const long = Math.max(...lines.map((line) => widthOf(line))) + 8;
    const left = at + long <= width + 10 ? at : Math.max(at - long, -40);
    const isFree = (row) => !taken.some((other) => overlap(other, rect(row)));
    const rect = (row) => ({ left, right: left + long, top: row, bottom: row + lines.length });
    let row = 0;
    while (!isFree(row)) row += 1;
    placed.push({ ...rect(row), mark, text, at });
    taken.push(rect(row), { left: at - 2, right: at + 2, top: 0, bottom: row });
  }
  return placed;
}

// Of the places beside a level's ends, the one that covers the fewest points and no other label.
function placedLevel(level, y, width, height, taken, points, lines) {
  const long = Math.min(widthOf(level.text) + 8, width);
  const options = [];
  for (const isAbove of [true, false]) {
    for (const left of [width - long, 0, (width - long) / 2]) {
      const top = isAbove ? y - LANE : y;
      options.push({ left, right: left + long, top, bottom: top + LANE });
    }
  }
  const cost = (rect) =>
    (rect.top < -2 || rect.bottom > height + 2 ? 1e6 : 0) +
    1e4 * taken.filter((other) => overlap(other, rect)).length +
    20 * lines.filter((line) => line > rect.top && line < rect.bottom).length +
    points.filter((p) => overlap({ left: p[0], right: p[0], top: p[1], bottom: p[1] }, rect)).length;
  return options.reduce((best, rect) => (cost(rect) < cost(best) ? rect : best));
}

function pointsOf(panel, scaleX, scaleY) {
  const points = [];
  for (const trace of panel.figure.data) {
    if (trace.type !== "scatter") continue;
    trace.x.forEach((x, at) => {
      if (x !== null && trace.y[at] !== null) points.push([scaleX(x), scaleY(trace.y[at])]);
    });
  }
  return points;
}

function scaleOf(axis, length, isUp) {
  const [low, high] = axis.range ?? [0, 1];
  return (value) => (isUp ? (high - value) / (high - low) : (value - low) / (high - low)) * length;
}

function placedLabels(layout, panel, look, size) {
  const notes = panel.figure.layout.annotations;
  const font = { size: LABEL, color: look("ink") };
  const common = { font, showarrow: false, borderpad: 1, bgcolor: faded(look("paper"), 0.8) };
  const width = size.width - layout.margin.l - layout.margin.r;
  const scaleX = scaleOf(layout.xaxis, width, false);
  const marks = placedMarks(notes.filter((note) => note.name === "mark"), scaleX, width);
  const rows = Math.max(0, ...marks.map((mark) => mark.bottom));
  layout.margin.t += rows * LANE;
  layout.height = size.height + rows * LANE;
  const height = layout.height - layout.margin.t - layout.margin.b;
  layout.annotations = marks.map((place) => ({
    ...place.mark, ...common, text: place.text, align: "left",
    xanchor: "left", xshift: place.left - place.at, yanchor: "bottom", yshift: place.top * LANE,
  }));
  // A mark's line goes up to its label.
  const drawn = layout.shapes.filter((shape) => shape.name === "mark");
  for (const shape of drawn) {
    const place = marks.find((found) => found.mark.x === shape.x0);
    if (place) shape.y1 = 1 + (place.bottom * LANE) / height;
  }
  const scaleY = scaleOf(layout.yaxis, height, true);
  const points = pointsOf(panel, scaleX, scaleY);
  const taken = [];
  const levels = notes.filter((note) => note.name === "level");
  const lines = levels.map((level) => scaleY(level.y));
  for (const level of levels) {
    const at = scaleY(level.y);
    const rect = placedLevel(level, at, width, height, taken, points, lines);
    taken.push(rect);
    layout.annotations.push({
      ...level, ...common, x: 0, xref: "paper", xanchor: "left", xshift: rect.left,
      yanchor: rect.top < at ? "bottom" : "top",
    });
  }
  const others = notes.filter((note) => note.name === "nothing");
  layout.annotations.push(...others.map((note) => ({ ...note, font: { size: 13, color: look("muted") } })));
  return layout;
}
