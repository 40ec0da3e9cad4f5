// What every page uses: its data, and small helpers.
"use strict";

const report = JSON.parse(document.getElementById("report-data").textContent);
const PLOT_CONFIG = { displayModeBar: false, responsive: true, doubleClick: "reset" };

/** An element with properties and children; text is always set as text, never as HTML. */
function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function svgElement(tag, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
  return node;
}

function styleColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** 83.44 as "1:23", or "1:23.4" with one decimal. */
function formatTime(seconds, decimals = 0) {
  const unit = 10 ** decimals;
  const rounded = Math.round(Math.abs(seconds) * unit) / unit;
  const [hours, minutes] = [Math.floor(rounded / 3600), Math.floor(rounded / 60) % 60];
  const rest = (rounded % 60).toFixed(decimals).padStart(decimals ? decimals + 3 : 2, "0");
  const text = hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
  return seconds < 0 && rounded > 0 ? `−${text}` : text;
}

function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

/** The index of the last of the ascending `times` that is not after `time`; 0 if all are. */
function indexAt(times, time) {
  let [low, high] = [0, times.length];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (times[middle] <= time) low = middle;
    else high = middle;
  }
  return low;
}

function labelBadge(label) {
  const text = { anomalous: "Anomalous", normal: "Normal" }[label] ?? "Unknown";
  return element("span", { className: `label ${label ?? "unknown"}`, textContent: text });
}

/** The names and values at the head of a page. */
function showSettings() {
  document.getElementById("settings").append(
    ...report.settings.map(([name, value]) =>
      element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value })),
    ),
  );
}

function legendItem(text, className, colourName) {
  const mark = element("i", { className });
  if (colourName) mark.style.borderColor = `var(${colourName})`;
  return element("li", {}, mark, text);
}

function axisStyle() {
  return {
    gridcolor: styleColour("--grid"),
    linecolor: styleColour("--border"),
    tickfont: { color: styleColour("--quiet"), size: 11.5 },
    zeroline: false,
    ticks: "",
  };
}

function chartLayout(margin) {
  return {
    margin: { l: margin.left, r: margin.right, t: margin.top, b: margin.bottom },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, color: styleColour("--quiet") },
    showlegend: false,
  };
}
