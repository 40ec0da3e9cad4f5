// One video on the page: its scores over time, the video itself, and thumbnails of its highest clips.
"use strict";

const MARGIN = { left: 42, right: 10, top: 12, bottom: 28 }; // of the charts over time, in pixels
const CLICK_PIXELS = 4; // a pointer that moves further is dragging
const SEEK_MARGIN = 0.001; // seconds: times are rounded, and a hair too early would be the frame before
const CURVE_COLOURS = 5; // --curve-1 to --curve-5 in the style sheet

// The same detector has the same colour everywhere on the page.
const allCurves = [...report.videos.flatMap((video) => video.curves), ...report.roc];
const curveLabels = [...new Set(allCurves.map((curve) => curve.label))];

function curveColourName(label) {
  return `--curve-${1 + (curveLabels.indexOf(label) % CURVE_COLOURS)}`;
}

/** How high the charts reach. Where no score comes near the threshold, an axis up to 1 would hide them all. */
const scoreScale = {
  fit: report.top > 0 && report.top < report.threshold,
  get top() {
    return this.fit ? report.top : 1;
  },
};

/** Small scores need more decimals to be told apart. */
function formatScore(score) {
  return score.toFixed(score < 0.1 ? 4 : 2);
}

/** Positions and labels of about `count` ticks between two times, at round steps of a clock. */
function timeTicks(first, end, count) {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
  const step = steps.find((candidate) => (end - first) / candidate <= count) ?? steps.at(-1);
  const values = [];
  for (let tick = Math.ceil(first / step - 1e-9); tick * step <= end + 1e-9; tick += 1) values.push(tick * step);
  return { tickvals: values, ticktext: values.map((value) => formatTime(value, step < 1 ? 1 : 0)) };
}

/** The thresholds of the detectors themselves, such as calibrated ones. */
function ownThresholds(video) {
  return video.curves
    .filter((curve) => curve.threshold !== null)
    .map(({ label, threshold }) => ({ label, threshold, colourName: curveColourName(label) }));
}

/** The scores of a video over time, with a line where the video plays and one under the pointer. */
class ScoreChart {
  constructor(video, root, onSeek) {
    this.video = video;
    this.root = root;
    this.onSeek = onSeek;
    this.plot = root.querySelector(".plot");
    this.time = null; // where the video is
    this.range = [video.start, video.end];
    this.drawn = false;
    for (const line of root.querySelectorAll(".line")) {
      Object.assign(line.style, { top: `${MARGIN.top}px`, bottom: `${MARGIN.bottom}px` });
    }
    this.listen();
  }

  draw() {
    this.drawn = true;
    Plotly.react(this.plot, this.traces(), this.layout(), PLOT_CONFIG);
    if (this.listensToPlot) return;
    this.listensToPlot = true;
    this.plot.on("plotly_relayout", () => this.follow());
  }

  release() {
    if (!this.drawn) return;
    Plotly.purge(this.plot);
    this.drawn = this.listensToPlot = false;
  }

  traces() {
    // The first curve is drawn last, over the others.
    const traces = this.video.curves.map((curve, index) => ({
      x: curve.times,
      y: curve.scores,
      mode: "lines",
      line: { shape: "hv", width: index ? 1.5 : 2, color: styleColour(curveColourName(curve.label)) },
      ...(index ? {} : { fill: "tozeroy", fillcolor: `${styleColour(curveColourName(curve.label))}1c` }),
    }));
    return traces.reverse();
  }

  layout() {
    const spans = this.video.spans.map(([first, end]) => ({
      type: "rect",
      xref: "x",
      yref: "paper",
      x0: first,
      x1: end,
      y0: 0,
      y1: 1,
      layer: "below",
      line: { width: 0 },
      fillcolor: styleColour("--anomaly-fill"),
    }));
    const { top } = scoreScale;
    const ticks = scoreScale.fit ? { nticks: 5 } : { tickvals: [0, 0.25, 0.5, 0.75, 1] };
    const thresholds = [{ threshold: report.threshold, colourName: "--quiet" }, ...ownThresholds(this.video)]
      .filter(({ threshold }) => threshold <= top)
      .map(({ threshold, colourName }) => ({
        ...{ type: "line", xref: "paper", yref: "y", x0: 0, x1: 1, layer: "above", y0: threshold, y1: threshold },
        line: { color: styleColour(colourName), width: 1, dash: "dash" },
      }));
    return {
      ...chartLayout(MARGIN),
      xaxis: { ...axisStyle(), range: [...this.range], showgrid: false, showline: true, ...this.ticks() },
      yaxis: { ...axisStyle(), range: [0, 1.03 * top], ...ticks, fixedrange: true },
      hovermode: false,
      dragmode: "zoom",
      shapes: [...spans, ...thresholds],
    };
  }

  ticks() {
    return timeTicks(...this.range, clamp(Math.floor(this.root.clientWidth / 80), 3, 12));
  }

  /** After a zoom: the labels of the axis and the lines over the chart go with it. */
  follow() {
    const [first, end] = this.plot.layout.xaxis.range;
    if (first === this.range[0] && end === this.range[1]) return;
    this.range = [first, end];
    const { tickvals, ticktext } = this.ticks();
    Plotly.relayout(this.plot, { "xaxis.tickvals": tickvals, "xaxis.ticktext": ticktext });
    this.showTime(this.time);
  }

  plotWidth() {
    return this.root.clientWidth - MARGIN.left - MARGIN.right;
  }

  pixelOf(time) {
    const [first, end] = this.range;
    return MARGIN.left + ((time - first) / (end - first)) * this.plotWidth();
  }

  /** The time under a pointer event, or null beside the plot. */
  timeUnder(event) {
    const box = this.root.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const inside = x >= MARGIN.left - 6 && x <= box.width - MARGIN.right + 6 && y >= 0 && y <= box.height;
    if (!inside) return null;
    const [first, end] = this.range;
    const time = first + ((x - MARGIN.left) / this.plotWidth()) * (end - first);
    return clamp(time, Math.max(first, this.video.start), Math.min(end, this.video.end));
  }

  listen() {
    // Plotly keeps clicks for itself, and only reports those on its points: hence the pointer is watched here.
    this.root.addEventListener("pointermove", (event) => this.showReading(this.timeUnder(event)));
    this.root.addEventListener("pointerleave", () => this.showReading(null));
    this.root.addEventListener(
      "pointerdown",
      (down) => {
        const time = this.timeUnder(down);
        if (time === null || down.button !== 0) return;
        const released = (up) => {
          const distance = Math.hypot(up.clientX - down.clientX, up.clientY - down.clientY);
          if (distance <= CLICK_PIXELS) this.onSeek(time);
        };
        window.addEventListener("pointerup", released, { capture: true, once: true });
      },
      { capture: true },
    );
    new ResizeObserver(() => this.showTime(this.time)).observe(this.root);
  }

  place(line, time) {
    const visible = time !== null && time >= this.range[0] - 1e-6 && time <= this.range[1] + 1e-6;
    line.hidden = !visible;
    if (visible) line.style.transform = `translateX(${this.pixelOf(time)}px)`;
    return visible;
  }

  showTime(time) {
    this.time = time;
    this.place(this.root.querySelector(".playhead"), time);
  }

  showReading(time) {
    const reading = this.root.querySelector(".reading");
    reading.hidden = !this.place(this.root.querySelector(".cursor"), time);
    if (reading.hidden) return;
    const scores = this.video.curves.map((curve) => {
      const score = formatScore(curve.scores[indexAt(curve.times, time)]);
      return element("div", { textContent: `${curve.label}  ${score}` });
    });
    reading.replaceChildren(element("strong", { textContent: formatTime(time, 1) }), ...scores);
    const x = this.pixelOf(time);
    const fitsRight = x + 12 + reading.offsetWidth < this.root.clientWidth;
    reading.style.left = `${fitsRight ? x + 12 : x - 12 - reading.offsetWidth}px`;
  }
}

/** The video itself; its element exists only while the section is near the screen. */
class Player {
  constructor(data, root, { onTime, onError }) {
    this.data = data;
    this.root = root;
    this.onTime = onTime;
    this.onError = onError;
    this.element = null;
    this.startAt = null; // media time to take up again, or asked for before the element was there
  }

  get available() {
    return Boolean(this.data.film || this.data.original);
  }

  mount() {
    if (this.element || !this.available) return;
    this.element = element("video", { controls: true, muted: true, playsInline: true, preload: "auto" });
    this.element.addEventListener("error", () => this.onError());
    this.element.addEventListener("loadedmetadata", () => {
      if (this.startAt !== null) this.element.currentTime = this.startAt;
    });
    this.element.addEventListener("play", () => {
      pauseOthers(this.element);
      this.followPlaying();
    });
    for (const event of ["timeupdate", "seeking", "seeked", "pause", "ended"]) {
      this.element.addEventListener(event, () => this.reportTime());
    }
    this.root.replaceChildren(this.element);
    this.load(this.element);
  }

  async load(video) {
    if (this.data.original) {
      video.src = this.data.original;
      return;
    }
    const url = URL.createObjectURL(await readFilm(this.data.film));
    if (this.element === video) {
      this.url = url;
      video.src = url;
    } else {
      URL.revokeObjectURL(url); // released again while the page was still loading
    }
  }

  release() {
    if (!this.element || !this.element.paused) return; // what plays goes on playing
    this.startAt = this.element.currentTime;
    const video = this.element;
    this.element = null;
    video.removeAttribute("src");
    video.load();
    video.remove();
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = null;
  }

  seek(time) {
    if (!this.available) return;
    this.mount();
    this.startAt = Math.max(0, time - this.data.offset + SEEK_MARGIN);
    if (this.element.readyState === 0) {
      this.element.autoplay = true; // once it is loaded
      return;
    }
    this.element.currentTime = this.startAt;
    this.element.play().catch(() => {}); // a browser may refuse, or another click may come in between
  }

  reportTime() {
    if (this.element) this.onTime(this.element.currentTime + this.data.offset);
  }

  /** "timeupdate" comes four times a second; the line is to move smoothly. */
  followPlaying() {
    if (!this.element || this.element.paused || this.element.ended) return;
    this.reportTime();
    requestAnimationFrame(() => this.followPlaying());
  }
}

function pauseOthers(playing) {
  for (const video of document.querySelectorAll("video")) {
    if (video !== playing) video.pause();
  }
}

const pageLoaded = new Promise((resolve) => {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", resolve, { once: true });
  else resolve();
});

/** An embedded film. The films stand at the end of the page, so that all else is there before they are. */
async function readFilm(identifier) {
  if (!document.getElementById(identifier)) await pageLoaded;
  const text = atob(document.getElementById(identifier).textContent);
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index += 1) bytes[index] = text.charCodeAt(index);
  return new Blob([bytes], { type: "video/mp4" });
}

class VideoSection {
  constructor(video, index) {
    this.video = video;
    this.node = document.getElementById("video-template").content.firstElementChild.cloneNode(true);
    this.node.id = `video-${index}`;
    this.chart = new ScoreChart(video, this.find(".chart"), (time) => this.player.seek(time));
    this.player = new Player(video.player, this.find(".player"), {
      onTime: (time) => this.chart.showTime(clamp(time, video.start, video.end)),
      onError: () => this.showNote("This browser cannot play the file.", video.player.original),
    });
    this.describe();
  }

  find(selector) {
    return this.node.querySelector(selector);
  }

  describe() {
    const { video } = this;
    this.find("h3").textContent = video.name;
    this.find(".label").replaceWith(labelBadge(video.label));
    const highest = `highest score ${formatScore(video.highest.score)} at ${formatTime(video.highest.time)}`;
    this.find(".facts").textContent = `${formatTime(video.end - video.start)}  ·  ${highest}`;
    this.find(".stage").classList.toggle("without-player", !this.player.available);
    this.find(".chart").classList.toggle("plays", this.player.available);
    const click = this.player.available ? "Click to play from there, drag" : "Drag";
    this.find(".hint").textContent = `${click} to zoom, double-click for all.`;
    if (video.player.note) this.showNote(video.player.note, video.player.original);
    this.pictures = video.thumbnails.filter((each) => each.image).map((each) => this.thumbnail(each));
    this.find(".thumbnails").append(...this.pictures.map((picture) => picture.button));
    this.find(".legend").append(
      ...video.curves.map((curve) => legendItem(curve.label, "", curveColourName(curve.label))),
      ...(video.spans.length ? [legendItem("annotated as anomalous", "area")] : []),
      legendItem(`threshold ${report.threshold}`, "dashed"),
      ...ownThresholds(video).map(({ label, threshold, colourName }) =>
        legendItem(`threshold of ${label}, ${formatScore(threshold)}`, "dashed", colourName),
      ),
    );
  }

  showNote(text, url) {
    const link = url ? [" ", element("a", { href: url, textContent: "Open the original file" })] : [];
    this.find(".note").replaceChildren(text, ...link);
    this.find(".note").hidden = false;
  }

  mount() {
    if (!this.chart.drawn) this.chart.draw();
    this.player.mount();
    for (const { image, source } of this.pictures) image.src = source;
  }

  release() {
    this.chart.release();
    this.player.release();
  }

  /** A button whose picture has its size from the start, so that the page does not move, but is loaded only later. */
  thumbnail({ time, score, image: source }) {
    const [when, value] = [formatTime(time, 1), formatScore(score)];
    const caption = element("span", { className: "caption" });
    caption.append(element("span", { textContent: when }), element("span", { textContent: `score ${value}` }));
    const image = element("img", { alt: `Frame at ${when}` });
    image.style.aspectRatio = `${this.video.player.width} / ${this.video.player.height}`;
    const button = element("button", { type: "button", disabled: !this.player.available }, image, caption);
    button.addEventListener("click", () => this.player.seek(time));
    return { button, image, source };
  }
}
