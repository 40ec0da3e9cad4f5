// The page of an ablation: its figure and its table.
"use strict";

const WORDS = 3; // columns of the table before those of figures: detector, losses, refresh
const TERMS = ["off", "L_v", "L_m", "both"];
const TERM_TITLES = ["off", "L<sub>v</sub>", "L<sub>m</sub>", "both"];
const MODES = {
  off: { title: "off", colour: "--curve-5", symbol: "circle" },
  epoch: { title: "refreshed every epoch", colour: "--curve-1", symbol: "circle" },
  batch: { title: "refreshed every batch", colour: "--curve-2", symbol: "diamond" },
};
// What the test set does not define, such as false alarms on normal videos where there are none, has no panel.
const PANELS = [
  { key: "auc", title: "AUC %", domain: [0.42, 1], rangemode: "normal" },
  { key: "far", title: "FAR on normal videos %", domain: [0, 0.34], rangemode: "tozero" },
].filter((panel) => report.points.every((point) => point.means[panel.key] !== null));
const COLUMN_GAP = 0.03; // between detectors, as a share of the width
const COLUMN_PIXELS = 230; // the least width of a detector

const detectors = [...new Set(report.points.map((point) => point.detector))];
const modes = Object.keys(MODES).filter((mode) => report.points.some((point) => point.mode === mode));

// ---- figure ----

/** Where a configuration stands on the axis of its detector: modes side by side within their losses. */
function placeOf(point) {
  const shift = point.mode === "off" || modes.length < 3 ? 0 : { epoch: -0.18, batch: 0.18 }[point.mode];
  return TERMS.indexOf(point.terms) + shift;
}

/** The seeds of a configuration side by side in a fixed order, so that one can be followed from place to place. */
function seedPlaces(point) {
  const step = Math.min(0.07, 0.22 / point.seeds.length);
  return point.seeds.map((_, index) => placeOf(point) + (index - (point.seeds.length - 1) / 2) * step);
}

function signed(number) {
  return `${number < 0 ? "−" : "+"}${Math.abs(number).toFixed(2)}`;
}

function hoverTexts(point, off, { key, title }) {
  const name = [point.detector, ...new Set([point.terms, point.mode])].join(", ");
  return point.seeds.map((seed, index) => {
    const value = point[key][index];
    const gain = point === off ? "" : `<br>${signed(value - off[key][off.seeds.indexOf(seed)])} against off`;
    return `${name}, seed ${seed}<br>${title} ${value.toFixed(2)}${gain}`;
  });
}

function pointTraces(point, off, panel, axes) {
  const { colour, symbol } = MODES[point.mode];
  const [x, mean] = [placeOf(point), point.means[panel.key]];
  const bar = { ...axes, x: [x - 0.15, x + 0.15], y: [mean, mean], mode: "lines", cliponaxis: false, hoverinfo: "skip" };
  bar.line = { color: styleColour(colour), width: 3 };
  const dots = { ...axes, x: seedPlaces(point), y: point[panel.key], mode: "markers", cliponaxis: false };
  dots.marker = { color: styleColour(colour), symbol, size: 8, opacity: 0.75 };
  dots.marker.line = { color: styleColour("--card"), width: 1 };
  dots.text = hoverTexts(point, off, panel);
  dots.hovertemplate = "%{text}<extra></extra>";
  return [bar, dots];
}

/** Everything of one detector in one panel: traces, axes, the line of off, and the name above. */
function panelOf(detector, column, panel, row) {
  const named = (index) => (index ? String(index + 1) : ""); // plotly calls the first axes x and y, not x1 and y1
  const number = named(row * detectors.length + column);
  const first = named(row * detectors.length);
  const width = (1 - COLUMN_GAP * (detectors.length - 1)) / detectors.length;
  const left = column * (width + COLUMN_GAP);
  const points = report.points.filter((point) => point.detector === detector);
  const off = points.find((point) => point.mode === "off");
  const axes = { xaxis: `x${number}`, yaxis: `y${number}` };
  const yaxis = { ...axisStyle(), domain: panel.domain, anchor: `x${number}`, rangemode: panel.rangemode, nticks: 7 };
  if (column) Object.assign(yaxis, { matches: `y${first}`, showticklabels: false });
  else yaxis.title = { text: panel.title, font: { size: 12.5 }, standoff: 8 };
  const xaxis = { ...axisStyle(), domain: [left, left + width], anchor: `y${number}`, range: [-0.5, 3.5] };
  Object.assign(xaxis, { tickvals: [0, 1, 2, 3], ticktext: TERM_TITLES, showgrid: false, fixedrange: true });
  xaxis.tickfont = { ...xaxis.tickfont, size: 13 };
  const mean = off.means[panel.key];
  const line = { type: "line", xref: `x${number} domain`, x0: 0, x1: 1, yref: `y${number}`, y0: mean, y1: mean };
  Object.assign(line, { layer: "below", line: { color: styleColour("--quiet"), width: 1.2, dash: "dash" } });
  const name = { text: `<b>${detector}</b>`, showarrow: false, xref: "paper", yref: "paper", x: left + width / 2, y: 1 };
  Object.assign(name, { yanchor: "bottom", yshift: 6, font: { size: 14, color: styleColour("--text") } });
  return {
    traces: points.flatMap((point) => pointTraces(point, off, panel, axes)),
    axes: { [`xaxis${number}`]: xaxis, [`yaxis${number}`]: yaxis },
    line,
    names: row ? [] : [name],
  };
}

function drawFigure() {
  const plot = document.querySelector("#figure .plot");
  plot.style.minWidth = `${70 + COLUMN_PIXELS * detectors.length}px`;
  const panels = PANELS.flatMap((panel, row) =>
    detectors.map((detector, column) => panelOf(detector, column, panel, row)),
  );
  Plotly.react(
    plot,
    panels.flatMap((panel) => panel.traces),
    {
      ...chartLayout({ left: 62, right: 6, top: 32, bottom: 28 }),
      ...Object.assign({}, ...panels.map((panel) => panel.axes)),
      shapes: panels.map((panel) => panel.line),
      annotations: panels.flatMap((panel) => panel.names),
      hovermode: "closest",
    },
    PLOT_CONFIG,
  );
}

/** The mark of a mode in the figure. */
function markOf(mode) {
  const mark = element("i", { className: `mark ${MODES[mode].symbol}` });
  mark.style.background = `var(${MODES[mode].colour})`;
  return mark;
}

function showLegend() {
  const seeds = modes.map((mode) => element("li", {}, markOf(mode), MODES[mode].title));
  const lines = [legendItem("mean of the seeds", "bar"), legendItem("mean of off", "dashed")];
  document.querySelector("#figure .legend").append(...seeds, ...lines);
}

// ---- table ----

/** "79.07 ± 0.66" with the spread set back. */
function figureCell(text, className) {
  const [mean, spread] = text.split(" ± ");
  const cell = element("td", { className }, mean);
  if (spread) cell.append(element("span", { className: "spread", textContent: ` ± ${spread}` }));
  return cell;
}

/** L_v as L with an index. */
function termsCell(text) {
  const [letter, index] = text.split("_");
  return element("td", {}, letter, ...(index ? [element("sub", { textContent: index })] : []));
}

function tableRow([, terms, mode, ...figures]) {
  const cells = figures.map((text, index) =>
    figureCell(text, index === figures.length - 1 ? "number gain" : "number"),
  );
  const refresh = element("td", {}, ...(mode ? [markOf(mode), mode] : []));
  return element("tr", { className: mode || "off" }, termsCell(terms), refresh, ...cells);
}

function showTable() {
  const table = document.querySelector("#table table");
  const heads = report.head.map((text, index) =>
    element("th", { textContent: text, className: index < WORDS ? "" : "number", scope: "col" }),
  );
  table.querySelector("thead").append(element("tr", {}, ...heads));
  for (const detector of detectors) {
    const rows = report.body.filter(([name]) => name === detector);
    const body = element("tbody", {}, ...rows.map(tableRow));
    body.firstChild.prepend(
      element("th", { textContent: detector, scope: "rowgroup", rowSpan: rows.length }),
    );
    table.append(body);
  }
  document
    .querySelector("#table .notes")
    .append(...report.notes.map((note) => element("li", { textContent: note })));
  document.querySelector("#table .command").textContent = report.command;
}

// ---- the page ----

showSettings();
document.getElementById("totals").textContent = [
  plural(detectors.length, "detector"),
  plural(report.points.length, "configuration"),
  plural(report.points.reduce((sum, point) => sum + point.seeds.length, 0) * report.folds, "training"),
].join("  ·  ");
showLegend();
showTable();
drawFigure();

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawFigure);
