// The page: its tabs, its colours, printing, and when plots are drawn.

const layers = [...document.querySelectorAll(".layer")];
const tabs = [...document.querySelectorAll("#page_tabs a")];
const dark = document.getElementById("page_dark");
const status = document.getElementById("page_status");
const panels = new Map();
let active = layers[0];
let isReady = false;
let isDrawing = false;
let choice = null;

function panelsOf(layer) {
  if (!panels.has(layer)) {
    const source = layer.querySelector("script[type='application/json']");
    const figures = source ? JSON.parse(source.textContent) : [];
    panels.set(layer, figures.map((figure, at) => panelOf(layer, figure, at)));
  }
  return panels.get(layer);
}

function panelOf(layer, figure, at) {
  const place = layer.querySelectorAll("figure.panel")[at];
  const title = place.querySelector("h4").textContent;
  const fileName = `${layer.id}-${title.toLowerCase().replace(/[^a-z0-9]+/g, "-")}`;
  const panel = { element: place, plot: place.querySelector(".plot"), figure, title, fileName, hidden: new Set(), state: null };
  addLegend(panel);
  addDisclosure(panel);
  return panel;
}

function attempt(panel, isPrinted) {
  try {
    if (!panel.state) panel.plot.replaceChildren();
    draw(panel, isPrinted);
  } catch (error) {
    panel.state = stateOf(panel, isPrinted);
    const words = `This plot cannot be drawn: ${error.message}`;
    panel.plot.replaceChildren(element("p", { className: "fallback shown", textContent: words }));
    console.error(error);
  }
}

// One plot in each turn of the event loop, so that the page answers meanwhile.
function refresh() {
  if (!isReady || isDrawing || !active || root.classList.contains("printing")) return;
  const next = panelsOf(active).find((panel) => panel.state !== stateOf(panel, false));
  if (!next) {
    root.dataset.drawn = active.id;
    return;
  }
  isDrawing = true;
  attempt(next, false);
  setTimeout(() => { isDrawing = false; refresh(); }, 0);
}

function show(layer, isFocused = false) {
  active = layer;
  delete root.dataset.drawn;
  layers.forEach((other) => other.classList.toggle("active", other === layer));
  tabs.forEach((tab, at) => {
    const isChosen = layers[at] === layer;
    tab.setAttribute("aria-selected", String(isChosen));
    tab.tabIndex = isChosen ? 0 : -1;
    if (isChosen && isFocused) tab.focus();
  });
  if (choice) choice.value = layer.id;
  refresh();
}

function choose(layer, isFocused) {
  show(layer, isFocused);
  history.replaceState(null, "", `#${layer.id}`);
}

function showAddressed() {
  const named = document.getElementById(location.hash.slice(1)); // in ASCII, by unique_slugs
  const layer = named?.closest(".layer");
  if (!layer) return;
  show(layer);
  if (named !== layer) named.scrollIntoView();
}

function onTabKey(event) {
  const at = tabs.indexOf(event.currentTarget);
  const last = tabs.length - 1;
  const next = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at === 0 ? last : at - 1, Home: 0, End: last, " ": at, Enter: at }[event.key];
  if (next === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  choose(layers[next], true);
}

function makeTabs() {
  const list = document.querySelector("#page_tabs ul");
  if (!list) return;
  list.setAttribute("role", "tablist");
  list.setAttribute("aria-label", "Layers");
  list.querySelectorAll("li").forEach((item) => item.setAttribute("role", "presentation"));
  tabs.forEach((tab, at) => {
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", layers[at].id);
    layers[at].setAttribute("role", "tabpanel");
    layers[at].tabIndex = 0;
    tab.addEventListener("keydown", onTabKey);
    tab.addEventListener("click", (event) => { event.preventDefault(); choose(layers[at], true); });
  });
  makeChoice(list);
}

// On a narrow screen the layers are chosen from a list.
function makeChoice(list) {
  const options = tabs.map((tab, at) => element("option", { value: layers[at].id, textContent: tab.textContent }));
  choice = element("select", { "aria-label": "Layer" }, ...options);
  choice.addEventListener("change", () => choose(document.getElementById(choice.value), false));
  const label = element("span", { textContent: "Layer", "aria-hidden": "true" });
  list.after(element("div", { className: "choice" }, label, choice));
}

function useTheme(theme) {
  dark.media = { dark: "screen", light: "not all", system: "screen and (prefers-color-scheme: dark)" }[theme];
  refresh();
}

function theme() {
  return document.querySelector("#page_theme input:checked")?.value ?? "system";
}

function beforePrint() {
  root.classList.add("printing");
  dark.media = "not all";
  if (isReady) layers.flatMap(panelsOf).forEach((panel) => attempt(panel, true));
}

function afterPrint() {
  root.classList.remove("printing");
  useTheme(theme());
}

async function loadPlotly() {
  const packed = document.getElementById("page_plotly");
  const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  packed.remove();
}

function sayWhy(error) {
  status.textContent = `The plots cannot be drawn by this browser (${error.message}). Open the page in a browser from 2023 or later.`;
  document.querySelectorAll(".fallback").forEach((words) => words.classList.add("shown"));
}

makeTabs();
document.getElementById("page_theme").addEventListener("change", () => useTheme(theme()));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
addEventListener("hashchange", showAddressed);
addEventListener("beforeprint", beforePrint);
addEventListener("afterprint", afterPrint);
if (layers.length) {
  show(active);
  showAddressed();
  let timer = 0;
  new ResizeObserver(() => { clearTimeout(timer); timer = setTimeout(refresh, 100); }).observe(document.body);
  loadPlotly().then(() => { isReady = true; refresh(); }).catch(sayWhy);
}
