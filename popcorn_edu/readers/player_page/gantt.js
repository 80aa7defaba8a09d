// The boots over time: a lane for each kernel, a bar for each stage it is in.
//
// Ten milliseconds of INIT and eight seconds of a kernel's start do not fit on one scale. So the
// time scale zooms, around the current record; and a second scale gives every stage the same width
// and writes into it how long it took.

const STAGES = { // words, fill, ink on it
  OFF: ["off", "#fff", "#1b1f23"], LOADED: ["loaded", "#d9dee3", "#1b1f23"], INIT: ["INIT", "#8a97a3", "#000"],
  REAL: ["real mode", "#D55E00", "#000"], PROTECTED: ["protected mode", "#E69F00", "#000"], LONG: ["long mode", "#F0E442", "#000"],
  KERNEL: ["kernel starts", "#56B4E9", "#000"], CHECKED_IN: ["✓ checked in", "#009E73", "#000"], FAILED: ["✗ failed", "#A32000", "#fff"],
};
const ZOOM_STEP = 8; // each press shows an eighth of the time
const ZOOM_AT_MOST = 10;
const LANE_NAME_WIDTH = 74;

class Gantt {
  constructor(app) {
    this.app = app;
    this.story = app.story;
    this.scale = "time";
    this.zoom = 0;
    this.lanes = this.read();
    this.end = this.story.time[this.story.count - 1] || 1;
    this.drawn = "";
    this.build();
  }

  // From the patches of the table boot.stage: when each kernel came to each stage.
  read() {
    const { story } = this, number = story.tableNumber.get("boot.stage"), lanes = new Map();
    for (const kernel of story.data.kernels) lanes.set(kernel, []);
    for (let i = 0; i < story.count; i++) {
      for (let p = story.patchStart[i]; p < story.patchStart[i + 1]; p++) {
        const cell = story.patchCell[p];
        if (story.data.cellTable[cell] !== number || story.patchNew[p] < 0) continue;
        lanes.get(story.data.cellKey[cell])?.push({ stage: story.plain(story.patchNew[p]), record: i, from: story.time[i] });
      }
    }
    return [...lanes].map(([kernel, bars]) => {
      bars.forEach((bar, n) => { bar.to = bars[n + 1]?.from; });
      return { kernel, bars };
    });
  }

  build() {
    this.scaleSelect = make("select", { id: "gantt-scale", onchange: () => { this.scale = this.scaleSelect.value; this.update(); } },
      make("option", { value: "time" }, "simulated time"), make("option", { value: "stages" }, "stages, not to scale"));
    this.zoomOut = make("button", { type: "button", "aria-label": "Show more time", onclick: () => this.zoomBy(-1) }, "−");
    this.zoomIn = make("button", { type: "button", "aria-label": "Show less time", onclick: () => this.zoomBy(1) }, "+");
    this.zoomText = make("span", { class: "quiet" });
    this.picture = make("svg", { role: "img", class: "gantt" });
    this.axis = make("svg", { class: "gantt-axis", height: 22, "aria-hidden": "true" });
    this.box = make("div", { class: "gantt-box", tabindex: 0, role: "group", "aria-label": "Boots, one lane for each kernel" }, this.picture);
    this.box.addEventListener("scroll", () => { this.scrolled = this.box.scrollTop; });
    this.facts = make("p", { class: "facts" });
    this.rows = make("tbody");
    this.twin = make("details", { class: "twin", ontoggle: () => this.showTable() }, make("summary", {}, "Boots as a table: when each kernel came to each stage"),
      make("div", { class: "scroll tall" }, make("table", { class: "boots" }, make("thead", {}, make("tr", {},
        ...["Kernel", "CPU", ...this.stages().map((stage) => `${STAGES[stage][0]} (ms)`)].map((name) => make("th", { scope: "col" }, name)))), this.rows)));
    this.node = make("section", { class: "view wide", "aria-label": "Boots" },
      make("div", { class: "view-head" }, make("h3", {}, "Who has come how far"), make("label", { for: "gantt-scale" }, "Across:"), this.scaleSelect,
        make("span", { class: "group" }, this.zoomOut, this.zoomIn, this.zoomText)),
      this.box, this.axis,
      make("ul", { class: "legend", "aria-label": "Stages" }, ...this.stages().map((stage) => make("li", {},
        make("span", { class: "swatch", style: `background:${STAGES[stage][1]}`, "aria-hidden": "true" }), STAGES[stage][0]))),
      this.facts, this.twin);
    new ResizeObserver(() => { this.drawn = ""; if (!this.node.hidden) this.update(); }).observe(this.box);
  }

  stages() { // those that some kernel comes to
    const met = new Set(this.lanes.flatMap((lane) => lane.bars.map((bar) => bar.stage)));
    return this.story.data.boot.stages.filter((stage) => met.has(stage));
  }

  zoomBy(change) {
    this.zoom = clamp(this.zoom + change, 0, ZOOM_AT_MOST);
    this.update();
  }

  // The part of the time in view: all of it, or a stretch that moves on by most of a page.
  window(now) {
    const length = Math.max(1000, this.end / ZOOM_STEP ** this.zoom);
    if (this.zoom === 0) return [0, this.end];
    const [from, to] = this.view ?? [0, 0];
    if (Math.abs(to - from - length) < 1 && now >= from && now <= to - length * 0.05) return this.view;
    const start = clamp(now - length * 0.2, 0, Math.max(0, this.end - length));
    return [start, start + length];
  }

  update() {
    const { story } = this, i = story.applied - 1, now = i < 0 ? 0 : story.time[i];
    this.view = this.window(now);
    const key = `${this.scale} ${this.view} ${story.horizon}`;
    if (key !== this.drawn) this.draw(Math.max(260, this.box.clientWidth - 2));
    this.drawn = key;
    this.mark(i, now);
    setOff(this.zoomOut, this.scale !== "time" || this.zoom === 0);
    setOff(this.zoomIn, this.scale !== "time" || this.zoom === ZOOM_AT_MOST || this.end / ZOOM_STEP ** this.zoom < 1000);
    setText(this.zoomText, this.scale === "time" ? `${duration(this.view[1] - this.view[0])} in view` : "");
    const count = (stage) => this.lanes.filter((lane) => this.stageOf(lane) === stage).length;
    const up = count("CHECKED_IN"), failed = count("FAILED");
    const says = `${up} of ${this.lanes.length} kernels are up${failed ? `, ${failed} failed` : ""}`;
    setText(this.facts, says);
    this.picture.setAttribute("aria-label", `${says}; the table below has every time`);
    this.showTable();
  }

  stageOf(lane) { return this.story.value("boot.stage", lane.kernel) ?? "OFF"; }

  known(lane) { return lane.bars.filter((bar) => bar.record < this.story.horizon); }

  x(time) { return LANE_NAME_WIDTH + ((time - this.view[0]) / (this.view[1] - this.view[0])) * (this.width - LANE_NAME_WIDTH - 4); }

  draw(width) {
    this.width = width;
    const { lanes } = this, high = clamp(Math.floor(360 / lanes.length), 13, 26), H = lanes.length * high;
    const stages = this.stages(), column = (width - LANE_NAME_WIDTH - 4) / stages.length;
    this.bars = [];
    const nodes = lanes.map((lane, n) => {
      const y = n * high, hue = hueOf(lane.kernel);
      const name = make("g", { class: "gantt-name", onclick: () => this.app.selectKernel(lane.kernel) },
        make("rect", { x: 2, y: y + 1, width: 66, height: high - 2, rx: 3, fill: FILLS[hue] }),
        make("text", { x: 35, y: y + high / 2, "font-size": Math.min(12, high - 3), style: `fill:${ON_FILL[hue]}` }, `kernel ${lane.kernel}`));
      const bars = this.known(lane).map((bar) => {
        const [words, fill, ink] = STAGES[bar.stage], last = bar.to === undefined || bar.to > this.story.time[this.story.horizon - 1];
        let left, right;
        if (this.scale === "stages") {
          left = LANE_NAME_WIDTH + column * stages.indexOf(bar.stage);
          right = left + column - 2;
        } else {
          left = this.x(bar.from);
          right = last ? width : this.x(bar.to);
          if (right < LANE_NAME_WIDTH || left > width) return null;
          left = Math.max(left, LANE_NAME_WIDTH);
          right = Math.min(Math.max(right, left + 1), width);
        }
        const says = `kernel ${lane.kernel}: ${words} at ${duration(bar.from)}${last ? "" : `, for ${duration(bar.to - bar.from)}`}`;
        const text = this.scale === "stages" ? (last ? words.slice(0, 1) : duration(bar.to - bar.from)) : words;
        const room = right - left > text.length * 6 + 4;
        const node = make("g", { class: "gantt-bar", onclick: () => this.app.go(bar.record + 1) }, make("title", {}, says),
          make("rect", { x: left, y: y + 2, width: right - left, height: high - 4, fill }),
          room ? make("text", { x: (left + right) / 2, y: y + high / 2, "font-size": Math.min(11, high - 3), style: `fill:${ink}` }, text) : null);
        this.bars.push({ node, record: bar.record, on: null });
        return node;
      });
      return make("g", {}, make("rect", { x: 0, y, width, height: high, fill: n % 2 ? "#f5f7f9" : "#fff" }), name, ...bars);
    });
    this.frame = make("rect", { x: 1, width: width - 2, height: high - 1, class: "gantt-frame" });
    this.pale = make("rect", { y: 0, height: H, class: "gantt-pale" });
    this.cursor = make("line", { y1: 0, y2: H, class: "gantt-cursor" });
    this.high = high;
    this.picture.replaceChildren(...nodes, this.pale, this.cursor, this.frame);
    for (const [name, value] of Object.entries({ width, height: H, viewBox: `0 0 ${width} ${H}` })) this.picture.setAttribute(name, value);
    this.drawAxis(width, stages, column);
    this.room = this.box.clientHeight;
    this.scrolled = this.box.scrollTop;
  }

  drawAxis(width, stages, column) {
    const nodes = [];
    const write = (x, text, anchor = "middle") => nodes.push(make("text", { x, y: 14, "font-size": 11, style: `text-anchor:${anchor}` }, text));
    if (this.scale === "stages") stages.forEach((stage, n) => write(LANE_NAME_WIDTH + column * (n + 0.5), STAGES[stage][0]));
    else {
      const [from, to] = this.view, rough = (to - from) / Math.max(2, width / 130), power = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
      for (let time = Math.ceil(from / step) * step; time <= to; time += step) {
        const x = this.x(time), edge = x > width - 30 ? "end" : "middle";
        nodes.push(make("line", { x1: x, x2: x, y1: 0, y2: 5, stroke: "#7a858f" }));
        write(Math.min(x, width - 2), duration(time, step), edge);
      }
    }
    this.axis.setAttribute("width", width);
    this.axis.replaceChildren(...nodes);
  }

  mark(i, now) {
    const timed = this.scale === "time", x = timed ? this.x(now) : 0;
    for (const bar of this.bars) {
      const on = timed || bar.record <= i;
      if (on !== bar.on) bar.node.setAttribute("opacity", on ? 1 : 0.25);
      bar.on = on;
    }
    for (const node of [this.pale, this.cursor]) setHidden(node, !timed);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    this.pale.setAttribute("x", x + 1);
    this.pale.setAttribute("width", Math.max(0, this.width - x));
    const marked = this.app.kernel() ?? (i < 0 ? null : kernelOf(this.story, i)), lane = this.lanes.findIndex((one) => one.kernel === marked);
    setHidden(this.frame, lane < 0);
    if (lane < 0) return;
    const top = lane * this.high; // compared with what is known: to ask would make the page lay itself out
    this.frame.setAttribute("y", top);
    if (top < this.scrolled || top + this.high > this.scrolled + this.room) this.box.scrollTop = this.scrolled = Math.max(0, top - this.room / 2);
  }

  showTable() {
    if (!this.twin.open) return;
    const { story, app } = this, stages = this.stages(), cpus = new Map(story.data.boot.cpus.map(([kernel, cpu]) => [kernel, cpu]));
    const inside = app.root.activeElement?.dataset.bar;
    this.rows.replaceChildren(...this.lanes.map((lane) => make("tr", {}, make("th", { scope: "row" }, `kernel ${lane.kernel}`), make("td", {}, cpus.get(lane.kernel)),
      ...stages.map((stage) => {
        const bar = this.known(lane).find((one) => one.stage === stage);
        return make("td", { class: "number" }, bar ? make("button", { type: "button", class: "link", "data-bar": bar.record, tabindex: bar.record === story.applied - 1 ? 0 : -1,
          "aria-label": `kernel ${lane.kernel}, ${STAGES[stage][0]}: ${millis(bar.from)} ms, go there`, onclick: () => app.go(bar.record + 1) }, millis(bar.from)) : "");
      }))));
    const first = this.rows.querySelector("button");
    if (first && !this.rows.querySelector("button[tabindex='0']")) first.tabIndex = 0;
    if (inside) this.rows.querySelector(`[data-bar='${inside}']`)?.focus();
  }
}

const setHidden = (node, on) => { if (node.hasAttribute("display") !== on) on ? node.setAttribute("display", "none") : node.removeAttribute("display"); };
const millis = (ns) => grouped(Math.floor(ns / 1e6)) + (ns % 1e6 ? (ns % 1e6 / 1e6).toFixed(3).slice(1) : "");

function duration(ns, step = 0) { // 12 ns, 3.4 us, 10 ms, 8.05 s; as fine as the step asks for
  const [unit, name] = ns >= 1e9 ? [1e9, "s"] : ns >= 1e6 ? [1e6, "ms"] : ns >= 1e3 ? [1e3, "µs"] : [1, "ns"];
  const digits = step ? clamp(Math.ceil(Math.log10(unit / step)), 0, 9) : ns / unit >= 100 || unit === 1 ? 0 : ns / unit >= 10 ? 1 : 2;
  return `${grouped((ns / unit).toFixed(digits).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, ""))} ${name}`;
}

function kernelOf(story, i) { // the kernel that a record is about: named, or the one whose CPU it names
  const kernel = story.number(i, "kernel");
  if (kernel !== undefined) return kernel;
  const cpu = story.number(i, "cpu");
  return cpu === undefined ? story.data.lanes[story.lane[i]].kernel : story.data.boot.cpus.find(([, ...cpus]) => cpus.includes(cpu))?.[0] ?? null;
}
