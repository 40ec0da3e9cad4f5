// The page from top to bottom.
"use strict";

// ---- heading, tables and ROC ----

function showHeading() {
  const seconds = report.videos.reduce((sum, video) => sum + video.end - video.start, 0);
  const high = report.videos.filter((video) => video.alarm > 0).length;
  document.getElementById("totals").textContent = [
    plural(report.videos.length, "video"),
    `${formatTime(seconds)} of footage`,
    `${high.toLocaleString("en")} with a score of ${report.threshold} or more`,
  ].join("  ·  ");
  showSettings();
}

/** Rows under their heads; columns in which there is a number are aligned as numbers. */
function fillTable(table, [corner, ...columns], rows) {
  const kinds = columns.map((_, index) => (rows.some((row) => /^[+−]?\d/.test(row[index + 1])) ? "number" : ""));
  const cell = (tag, textContent, index) => element(tag, { textContent, className: kinds[index] });
  const heads = columns.map((column, index) => cell("th", column, index));
  table.querySelector("thead").append(element("tr", {}, element("th", { textContent: corner }), ...heads));
  table.querySelector("tbody").append(
    ...rows.map(([name, ...values]) => {
      const cells = values.map((value, index) => cell("td", value, index));
      return element("tr", {}, element("th", { textContent: name, scope: "row" }), ...cells);
    }),
  );
}

/** The first table stands above the curves, all others beneath. */
function showTables() {
  for (const [index, { title, columns, rows, notes }] of report.tables.entries()) {
    const table = element("table", {}, element("thead"), element("tbody"));
    fillTable(table, columns, rows);
    const heading = element("h2", { textContent: title });
    const text = element("ul", { className: "notes quiet" }, ...notes.map((note) => element("li", { textContent: note })));
    const scroll = element("div", { className: "scroll" }, table);
    const card = element("section", { className: "card results" }, heading, scroll, text);
    document.getElementById(index ? "tables" : "results").append(card);
  }
}

function drawRoc() {
  const axis = (text) => ({ ...axisStyle(), title: { text, font: { size: 12 } }, range: [0, 1.005], dtick: 0.2 });
  const chance = { x: [0, 1], y: [0, 1], mode: "lines", hoverinfo: "skip" };
  chance.line = { color: styleColour("--quiet"), width: 1, dash: "dot" };
  const curves = report.roc.map((curve) => ({
    x: curve.x,
    y: curve.y,
    name: curve.label,
    mode: "lines",
    line: { color: styleColour(curveColourName(curve.label)), width: 2 },
    hovertemplate: "false positives %{x:.3f}<br>true positives %{y:.3f}<extra></extra>",
  }));
  Plotly.react(
    document.querySelector(".roc-chart"),
    [chance, ...curves],
    {
      ...chartLayout({ left: 52, right: 8, top: 8, bottom: 46 }),
      xaxis: axis("False positive rate"),
      yaxis: axis("True positive rate"),
      hovermode: "closest",
    },
    PLOT_CONFIG,
  );
}

function showRoc() {
  const section = document.getElementById("roc");
  section.querySelector(".legend").append(
    ...report.roc.map((curve) => legendItem(`${curve.label}, AUC ${curve.area}`, "", curveColourName(curve.label))),
  );
  section.hidden = false;
  drawRoc();
}

// ---- overview table ----

/** The score of a video in a strip as wide as a table cell: the highest score of each of its columns, up to `top`. */
function scoreStrip(video, top) {
  const [columns, height] = [150, 26];
  const duration = video.end - video.start;
  const { times, scores } = video.curves[0];
  const column = (time) => clamp(((time - video.start) / duration) * columns, 0, columns);
  const highest = new Array(columns).fill(0);
  for (let run = 0; run + 1 < times.length; run += 1) {
    const last = Math.max(Math.floor(column(times[run])) + 1, Math.ceil(column(times[run + 1]) - 1e-6));
    for (let x = Math.floor(column(times[run])); x < Math.min(last, columns); x += 1) {
      highest[x] = Math.max(highest[x], scores[run]);
    }
  }
  const outline = highest.map((score, x) => `V${(height - 2) * (1 - score / top)}H${x + 1}`).join("");
  const svg = svgElement("svg", { viewBox: `0 0 ${columns} ${height}`, preserveAspectRatio: "none" });
  svg.setAttribute("aria-hidden", "true");
  const bar = (className, first, end, y) => {
    const [x, width] = [column(first), column(end) - column(first)];
    return svgElement("rect", { class: className, x, width, y, height: height - y });
  };
  svg.append(
    ...video.spans.map(([first, end]) => bar("span", first, end, 0)),
    svgElement("path", { class: "score", d: `M0 ${height - 2}${outline}V${height - 2}Z` }),
    bar("base", video.start, video.end, height - 1),
    ...video.spans.map(([first, end]) => bar("span-base", first, end, height - 2)),
  );
  return svg;
}

function overviewRow(video, index) {
  const number = (text) => element("td", { className: "number", textContent: text });
  const row = element(
    "tr",
    {},
    element("td", {}, element("a", { href: `#video-${index}`, textContent: video.name })),
    element("td", { className: "timeline-cell" }, scoreStrip(video, scoreScale.top)),
    element("td", {}, labelBadge(video.label)),
    number(formatTime(video.end - video.start)),
    number(formatScore(video.highest.score)),
    number(formatTime(video.highest.time)),
    number(`${video.alarm.toFixed(1)} s`),
  );
  row.addEventListener("click", () => document.getElementById(`video-${index}`).scrollIntoView());
  return row;
}

const SORT_VALUES = {
  name: (video) => video.name,
  label: (video) => ["anomalous", "normal", null].indexOf(video.label),
  duration: (video) => video.end - video.start,
  highest: (video) => video.highest.score,
  time: (video) => video.highest.time,
  alarm: (video) => video.alarm,
};

const STARTS_DESCENDING = new Set(["duration", "highest", "alarm"]); // the large ones are looked for

function compareValues(one, other) {
  return typeof one === "string" ? one.localeCompare(other, "en", { numeric: true }) : one - other;
}

function showOverview() {
  const section = document.getElementById("overview");
  const body = section.querySelector("tbody");
  const rows = report.videos.map((video, index) => ({ video, node: overviewRow(video, index) }));
  const heads = [...section.querySelectorAll("th[data-key]")];
  document.getElementById("threshold").textContent = report.threshold;

  function sortBy(head) {
    const { key } = head.dataset;
    const before = head.getAttribute("aria-sort");
    const descending = before ? before === "ascending" : STARTS_DESCENDING.has(key);
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const value = SORT_VALUES[key];
    rows.sort((one, other) => (descending ? -1 : 1) * compareValues(value(one.video), value(other.video)));
    body.append(...rows.map((row) => row.node));
  }

  heads.forEach((head) => head.querySelector("button").addEventListener("click", () => sortBy(head)));
  body.append(...rows.map((row) => row.node));
  return () => {
    for (const { video, node } of rows) node.querySelector("svg").replaceWith(scoreStrip(video, scoreScale.top));
  };
}

/** The box that says how high charts reach; all of the page reach equally high, so that videos can be compared. */
function showScale(redraw) {
  const box = document.querySelector("#scale input");
  document.querySelector("#scale span").textContent =
    `charts reach up to the highest score, ${formatScore(report.top)}, instead of 1`;
  box.checked = scoreScale.fit;
  box.addEventListener("change", () => {
    scoreScale.fit = box.checked;
    redraw();
  });
}

// ---- the videos ----

function showVideos() {
  const sections = report.videos.map((video, index) => new VideoSection(video, index));
  const byNode = new Map(sections.map((section) => [section.node, section]));
  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        const section = byNode.get(target);
        if (isIntersecting) section.mount();
        else section.release();
      }
    },
    { rootMargin: "800px 0px" },
  );
  document.getElementById("videos").append(...sections.map((section) => section.node));
  sections.forEach((section) => observer.observe(section.node));
  return sections;
}

// ---- the page ----

showHeading();
if (report.roc.length) showRoc();
showTables();
const redrawStrips = showOverview();
const sections = showVideos();
showScale(() => {
  redrawStrips();
  redrawCharts();
});

function redrawCharts() {
  sections.filter((section) => section.chart.drawn).forEach((section) => section.chart.draw());
}

// A link to a section: it was not there yet when the browser looked for it.
if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  if (report.roc.length) drawRoc();
  redrawCharts();
});
