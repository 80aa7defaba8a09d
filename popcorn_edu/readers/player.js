// The player's front end: steps through a run in the browser, with no kernel and no network.
//
// Python has already folded the run once and noted, for each record, which table cells change and
// to what (player.py). This file never repeats a rule of the model: it applies those patches, or
// undoes them, and draws the tables. Words: a *record* has a number; *applied* is how many records
// the shown state includes; the *current* record is the last applied one; a *cell* is one key of
// one table; *horizon* is the first record that an unanswered prediction still hides.
(() => {
  "use strict";

  const FILLS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#333333"];
  const INKS = ["#00507D", "#7A5200", "#00664A", "#86365F", "#1B658F", "#933F00", "#675F00", "#111111"];
  const ON_FILL = ["#fff", "#000", "#000", "#000", "#000", "#000", "#000", "#fff"];
  const ALERT = "#A32000";
  const ZOOMS = [20, 40, 80, 160, 400, 1000, 4000, 20000, Infinity]; // records in view
  const DETAIL_AT_MOST = 2500; // more records than this in view are drawn as a density
  const SPEEDS = [0.5, 1, 2, 4, 8, 16, 32, 64, 250]; // steps per second
  const ROW_HEIGHTS = [[30, 240], [24, 300], [18, 420], [15, 420], [12, 420]]; // [px, if all lanes fit in]
  const LIST_ROWS = 15;
  const SLOTS_DRAWN = 128;
  const KERNEL_WAIT_MS = 120000;

  // ---- small helpers -------------------------------------------------------------------------

  const SVG = "http://www.w3.org/2000/svg";
  const grouped = (n) => String(n).replace(/\B(?=(\d{3})+(?!\d))/g, ",");

  function make(tag, attributes = {}, ...children) {
    const space = tag === "svg" || make.svg.has(tag) ? SVG : null;
    const node = space ? document.createElementNS(space, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value === true) node.setAttribute(name, "");
      else if (value !== false && value != null) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child != null));
    return node;
  }
  make.svg = new Set(["path", "circle", "rect", "g", "text", "line", "defs", "pattern", "title"]);

  const setText = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const setClass = (node, name, on) => { if (node.classList.contains(name) !== on) node.classList.toggle(name, on); };
  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

  const ICONS = {
    first: "M3 3v10M13 3L6 8l7 5z", back: "M11 3L4 8l7 5z", next: "M5 3l7 5-7 5z",
    last: "M13 3v10M3 3l7 5-7 5z", play: "M4 2l10 6-10 6z", pause: "M4 2h3v12H4zM9 2h3v12H9z",
  };

  function icon(name) {
    return make("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true", class: "icon" },
      make("path", { d: ICONS[name] }));
  }

  async function unpack(base64) {
    const bytes = Uint8Array.from(atob(base64.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }

  // ---- the run: records, and the state after any number of them --------------------------------

  class Story {
    constructor(data) {
      const count = data.kind.length;
      Object.assign(this, { data, count, first: data.first, kinds: data.kinds, actors: data.actors });
      this.time = running(data.time);
      this.cause = data.cause; // how many records back; 0 for none
      this.fieldStart = new Int32Array(count + 1);
      for (let i = 0; i < count; i++) {
        this.fieldStart[i + 1] = this.fieldStart[i] + this.kinds[data.kind[i]].fields.length;
      }
      this.patchStart = running([0, ...data.patches]);
      this.patchCell = Int32Array.from(data.patchCell);
      this.patchNew = Int32Array.from(data.patchValue);
      this.patchOld = new Int32Array(this.patchNew.length);
      this.state = new Int32Array(data.cellKey.length);
      this.begin();
      this.index = data.tables.map(() => new Map());
      data.cellTable.forEach((table, cell) => {
        this.index[table].set(String(data.cellKey[cell]), cell); // [0, 7] reads "0,7"
      });
      this.tableNumber = new Map(data.tables.map((table, number) => [`${table.part}.${table.name}`, number]));
      this.groups = []; // the live cells of each kernel in tables keyed by (kernel, more)
      this.groupOf = new Int32Array(this.state.length).fill(-1);
      this.groupNumber = new Map();
      data.cellTable.forEach((table, cell) => {
        const key = data.cellKey[cell];
        if (!data.tables[table].perKernel || !Array.isArray(key)) return;
        const name = `${table} ${key[0]}`;
        if (!this.groupNumber.has(name)) this.groupNumber.set(name, this.groups.push(new Set()) - 1);
        this.groupOf[cell] = this.groupNumber.get(name);
        if (this.state[cell] >= 0) this.groups[this.groupOf[cell]].add(cell);
      });
      for (let i = 0; i < this.patchNew.length; i++) { // once forward: learn what each patch replaces
        const cell = this.patchCell[i];
        this.patchOld[i] = this.state[cell];
        this.state[cell] = this.patchNew[i];
      }
      this.begin();
      this.lane = Int32Array.from(data.who, (who) => data.lane[who]);
      this.horizon = count;
    }

    begin() {
      this.state.fill(-1);
      this.data.initial.forEach((value, cell) => { this.state[cell] = value; });
      this.applied = 0;
    }

    move(target) { // every patch between here and there; 100,000 records take about 2 ms
      const { patchStart, applied } = this;
      if (target >= applied) {
        for (let i = patchStart[applied]; i < patchStart[target]; i++) this.put(this.patchCell[i], this.patchNew[i]);
      } else {
        for (let i = patchStart[applied] - 1; i >= patchStart[target]; i--) this.put(this.patchCell[i], this.patchOld[i]);
      }
      this.applied = target;
    }

    put(cell, value) {
      this.state[cell] = value;
      const group = this.groupOf[cell];
      if (group < 0) return;
      if (value < 0) this.groups[group].delete(cell); else this.groups[group].add(cell);
    }

    cell(table, key) {
      const number = this.tableNumber.get(table);
      return number === undefined ? undefined : this.index[number].get(String(key));
    }

    valueNumber(table, key) {
      const cell = this.cell(table, key);
      return cell === undefined ? -1 : this.state[cell];
    }

    value(table, key) { return this.plain(this.valueNumber(table, key)); }

    plain(number) { // the value as JSON; undefined where the table has no such key
      if (number < 0) return undefined;
      const value = this.data.values[number];
      return value !== null && typeof value === "object" ? value[1] : value;
    }

    text(number) {
      if (number < 0) return "–";
      const value = this.data.values[number];
      if (value !== null && typeof value === "object") return value[0];
      return typeof value === "boolean" ? (value ? "True" : "False") : value === null ? "None" : String(value);
    }

    kindOf(i) { return this.kinds[this.data.kind[i]]; }

    fields(i) {
      const kind = this.kindOf(i), start = this.fieldStart[i], texts = {};
      kind.fields.forEach((field, place) => {
        const raw = this.data.field[start + place];
        texts[field] = kind.coded[place] ? this.text(raw) : String(raw);
      });
      return texts;
    }

    number(i, field) { // an integer field of a record, or undefined
      const kind = this.kindOf(i), place = kind.fields.indexOf(field);
      return place < 0 || kind.coded[place] ? undefined : this.data.field[this.fieldStart[i] + place];
    }

    sentence(i) {
      const kind = this.kindOf(i);
      if (kind.says === null) return this.data.values[this.data.sentence[i]];
      const texts = this.fields(i);
      return kind.says.replace(/\{\{|\}\}|\{(\w+)(?::([^{}]*))?\}/g, (whole, name, how) => {
        if (!name) return whole[0];
        if (how === "#x") return `0x${Number(texts[name]).toString(16)}`;
        return how === "," ? texts[name].replace(/\B(?=(\d{3})+$)/g, ",") : texts[name];
      });
    }

    snapshot() { // every table as [key, value] pairs, for tests and for whoever reads along
      const { tables, cellTable, cellKey } = this.data, all = {};
      for (const table of tables) all[`${table.part}.${table.name}`] = [];
      cellTable.forEach((table, cell) => {
        if (this.state[cell] >= 0) {
          const { part, name } = tables[table];
          all[`${part}.${name}`].push([cellKey[cell], this.plain(this.state[cell])]);
        }
      });
      return all;
    }
  }

  function running(deltas) {
    const sums = new Float64Array(deltas.length);
    let sum = 0;
    for (let i = 0; i < deltas.length; i++) sums[i] = sum += deltas[i];
    return sums;
  }

  // ---- the space-time diagram ------------------------------------------------------------------

  class Diagram {
    constructor(app) {
      this.app = app;
      this.story = app.story;
      this.axis = "order";
      this.zoom = 2;
      this.hidden = new Set();
      this.stepX = Float64Array.from({ length: this.story.count }, (_, i) => i);
      this.from = 0;
      this.to = -1;
      this.seen = [];
      const { data } = this.story;
      this.laneRows = data.lanes.map((_, lane) => {
        const used = data.row.filter((__, actor) => data.lane[actor] === lane);
        return used.length ? [...new Set(used)].sort((a, b) => a - b) : [0];
      });
      this.unpackArrows();
      this.build();
    }

    unpackArrows() {
      const all = [];
      this.story.data.arrows.forEach((group, style) => {
        let from = 0;
        group.from.forEach((delta, i) => {
          from += delta;
          all.push([from, group.span[i] < 0 ? -1 : from + group.span[i], style]);
        });
      });
      all.sort((a, b) => a[0] - b[0] || a[2] - b[2]);
      this.arrowFrom = Int32Array.from(all, (a) => a[0]);
      this.arrowTo = Int32Array.from(all, (a) => a[1]);
      this.arrowStyle = Int32Array.from(all, (a) => a[2]);
      this.arrowAt = new Map(); // record -> the arrow that starts or ends there
      all.forEach(([from, to], i) => {
        this.arrowAt.set(from, i);
        if (to >= 0) this.arrowAt.set(to, i);
      });
    }

    build() {
      const app = this.app, lanes = this.story.data.lanes;
      this.axisSelect = make("select", {
        id: "axis", onchange: () => { this.axis = this.axisSelect.value; this.to = -1; app.refresh(); },
      }, ...[["order", "step order"], ["time", "simulated time"], ["causal", "causal order"]]
        .map(([value, name]) => make("option", { value }, name)));
      this.zoomOut = make("button", { type: "button", onclick: () => this.zoomBy(1), "aria-label": "Zoom out" }, "−");
      this.zoomIn = make("button", { type: "button", onclick: () => this.zoomBy(-1), "aria-label": "Zoom in" }, "+");
      this.zoomText = make("span", { class: "quiet" });
      const shown = make("details", { class: "menu" }, make("summary", {}, "Kernels shown"),
        make("div", { class: "menu-body" }, ...lanes.map((lane, number) => make("label", {},
          make("input", {
            type: "checkbox", checked: true,
            onchange: (event) => {
              if (event.target.checked) this.hidden.delete(number); else this.hidden.add(number);
              this.layout();
            },
          }), lane.name))));
      this.labels = make("div", { class: "lane-labels" });
      this.base = make("canvas", { role: "img", "aria-label": "Space-time diagram" });
      this.overlay = make("canvas", { class: "overlay", "aria-hidden": "true" });
      this.axisCanvas = make("canvas", { class: "axis", "aria-hidden": "true" });
      this.stack = make("div", { class: "stack" }, this.base, this.overlay);
      this.scroller = make("div", { class: "lanes" }, this.labels, this.stack);
      this.tip = make("div", { class: "tip", hidden: true });
      this.stack.append(this.tip);
      this.overlay.addEventListener("mousemove", (event) => this.hover(event));
      this.overlay.addEventListener("mouseleave", () => { this.tip.hidden = true; });
      this.overlay.addEventListener("click", (event) => {
        const i = this.nearest(event);
        if (i >= 0) app.go(i + 1);
        else this.selectLaneAt(event);
      });
      this.list = make("tbody");
      this.twin = make("details", { class: "twin", ontoggle: () => this.showList() },
        make("summary", {}, "Diagram as a table: the records around this one"),
        make("div", { class: "scroll" }, make("table", { class: "records" },
          make("thead", {}, make("tr", {}, ...["Record", "Time (ns)", "Who", "What happens", "Because of"]
            .map((name) => make("th", { scope: "col" }, name)))), this.list)));
      this.node = make("section", { class: "view diagram", "aria-label": "Space-time diagram" },
        make("div", { class: "view-head" }, make("h3", {}, "Who does what, and when"),
          make("label", { for: "axis" }, "Across:"), this.axisSelect,
          make("span", { class: "group" }, this.zoomOut, this.zoomIn, this.zoomText), shown),
        this.scroller, make("div", { class: "axis-row" }, this.axisCanvas), this.legend(), this.twin);
      this.buildLabels();
      new ResizeObserver(() => this.layout()).observe(this.scroller);
    }

    buildLabels() {
      this.laneButtons = this.story.data.lanes.map((lane, number) => {
        const chip = lane.kernel === null ? null : chipOf(lane.kernel);
        return make("button", {
          type: "button", class: "lane-label", "aria-pressed": "false",
          onclick: () => this.app.selectLane(number),
        }, chip, make("span", { class: "lane-name" }, lane.name),
        make("span", { class: "rows", "aria-hidden": "true" }));
      });
      this.labels.append(...this.laneButtons);
    }

    legend() {
      const { arrows, spans, kinds } = this.story.data;
      const used = (name) => kinds.some((kind) => kind.glyph === name);
      const items = [];
      for (const style of arrows) {
        items.push([style.name, (c) => {
          drawLine(c, 2, 9, 34, 9, style.dash, "#222", 1.6);
          drawGlyph(c, style.glyph, 2 + 3, 9, 4, "#fff", "#222");
          drawHead(c, 34, 9, 0, style.head, "#222");
        }]);
      }
      for (const span of spans.filter((one, i) => spans.findIndex((two) => two.name === one.name) === i)) {
        items.push([span.name, (c) => drawSpan(c, span.look, 2, 3, 34, 12)]);
      }
      for (const [glyph, name] of Object.entries(this.story.data.glyphWords)) {
        if (used(glyph)) items.push([name, (c) => drawGlyph(c, glyph, 18, 9, 5, "#fff", glyph === "cross" ? ALERT : "#222")]);
      }
      return make("ul", { class: "legend", "aria-label": "Legend" }, ...items.map(([name, draw]) => {
        const canvas = make("canvas", { "aria-hidden": "true" });
        draw(sized(canvas, 38, 18));
        return make("li", {}, canvas, name);
      }));
    }

    zoomBy(change) {
      this.zoom = clamp(this.zoom + change, 0, ZOOMS.length - 1);
      while (change > 0 && this.zoom > 0 && ZOOMS[this.zoom - 1] >= this.story.count) this.zoom--;
      this.to = -1;
      this.app.refresh();
    }

    // Where a record lies across: its number, its time, or how many steps must come before it.
    across() {
      if (this.axis === "order") return this.stepX;
      if (this.axis === "time") return this.story.time;
      if (!this.causalX) {
        const { story, arrowFrom, arrowTo } = this, clock = new Float64Array(story.count);
        const source = new Int32Array(story.count).fill(-1), last = new Map();
        for (let i = 0; i < arrowTo.length; i++) if (arrowTo[i] >= 0) source[arrowTo[i]] = arrowFrom[i];
        for (let i = 0; i < story.count; i++) {
          let before = last.get(story.lane[i]) ?? 0;
          if (source[i] >= 0) before = Math.max(before, clock[source[i]]);
          if (story.cause[i] && i - story.cause[i] >= 0) before = Math.max(before, clock[i - story.cause[i]]);
          last.set(story.lane[i], clock[i] = before + 1);
        }
        this.causalX = clock;
      }
      return this.causalX;
    }

    layout() {
      const { lanes, rows } = this.story.data;
      this.order = lanes.map((_, number) => number).filter((number) => !this.hidden.has(number));
      const height = (rowH) => (lane) => Math.max(rowH + 10, 8 + rowH * this.laneRows[lane].length);
      const total = (h) => this.order.map(height(h)).reduce((a, b) => a + b, 0);
      const [rowH] = ROW_HEIGHTS.find(([h, most]) => total(h) <= most) ?? [];
      this.rowsShown = rowH !== undefined; // else there are too many lanes: one thin row each
      const heights = this.order.map(this.rowsShown ? height(rowH) : () => 20);
      this.place = new Map();
      this.H = 0;
      this.order.forEach((lane, i) => {
        this.place.set(lane, { top: this.H, height: heights[i], shade: i % 2 });
        this.H += heights[i];
      });
      this.laneButtons.forEach((button, lane) => {
        button.hidden = this.hidden.has(lane);
        if (button.hidden) return;
        button.style.height = `${this.place.get(lane).height}px`;
        setClass(button, "shade", this.place.get(lane).shade === 1);
        const names = this.rowsShown && this.laneRows[lane].length > 1 ? this.laneRows[lane] : [];
        button.querySelector(".rows").replaceChildren(...names.map((row) => make("span", {}, rows[row])));
      });
      this.W = Math.max(200, this.stack.clientWidth);
      this.H = Math.max(20, this.H);
      this.stack.style.height = `${this.H}px`;
      this.context = sized(this.base, this.W, this.H);
      this.over = sized(this.overlay, this.W, this.H);
      this.axisContext = sized(this.axisCanvas, this.W, 22);
      this.to = -1;
      this.update();
    }

    y(i) {
      const { data, lane } = this.story, at = this.place.get(lane[i]);
      return at === undefined ? -1 : this.rowY(lane[i], at, data.row[data.who[i]]);
    }

    rowY(lane, at, row) {
      const rows = this.laneRows[lane];
      if (!this.rowsShown) return at.top + at.height / 2;
      return at.top + 4 + ((at.height - 8) * (rows.indexOf(row) + 0.5)) / rows.length;
    }

    x(i) { return this.xOf(this.across()[i]); }

    xOf(value) { return 14 + ((value - this.x0) / (this.x1 - this.x0)) * (this.W - 28); }

    // The part of the run in view moves only when the cursor comes near its edge, by most of a page,
    // so that a step usually redraws nothing but the cursor's own layer.
    keepInView() {
      const { story } = this, cursor = clamp(story.applied - 1, 0, Math.max(0, story.count - 1));
      const wanted = Math.min(ZOOMS[this.zoom], story.count);
      const width = this.to - this.from;
      const stays = this.to >= 0 && this.drawnHorizon === story.horizon && cursor >= this.from && cursor < this.to
        && (cursor >= this.from + width * 0.1 || this.from === 0)
        && (cursor < this.to - width * 0.12 || this.to === story.count);
      if (stays) return false;
      const back = cursor < this.from && this.to >= 0 ? 0.75 : 0.25;
      this.from = clamp(Math.round(cursor - wanted * back), 0, Math.max(0, story.count - wanted));
      this.to = Math.min(story.count, this.from + wanted);
      const across = this.across();
      if (this.axis === "causal") {
        const middle = across[cursor] ?? 0, most = across.reduce((a, b) => Math.max(a, b), 1);
        const spread = Math.min(most, Math.max(10, (most * wanted) / Math.max(1, story.count)));
        this.x0 = clamp(middle - spread * back, 0, Math.max(0, most - spread));
        this.x1 = this.x0 + spread;
      } else {
        this.x0 = across[this.from] ?? 0;
        this.x1 = across[this.to - 1] ?? 1;
      }
      if (this.x1 <= this.x0) this.x1 = this.x0 + 1;
      return true;
    }

    update() {
      if (!this.context || !this.story.count) return;
      if (this.keepInView()) this.drawBase();
      this.drawCursor();
      this.scrollToLane();
      this.showList();
    }

    visible() {
      const { story } = this, end = story.horizon;
      const found = [];
      if (this.axis === "causal") {
        const across = this.across();
        for (let i = 0; i < end; i++) if (across[i] >= this.x0 && across[i] <= this.x1) found.push(i);
      } else {
        for (let i = this.from; i < Math.min(this.to, end); i++) found.push(i);
      }
      return found;
    }

    drawBase() {
      const { context: c, W, H, story } = this;
      this.drawnHorizon = story.horizon;
      c.clearRect(0, 0, W, H);
      for (const { top, height, shade } of this.place.values()) {
        c.fillStyle = shade ? "#f5f7f9" : "#fff";
        c.fillRect(0, top, W, height);
      }
      this.seen = this.visible();
      this.dense = this.seen.length > DETAIL_AT_MOST;
      if (this.dense) this.drawDensity(c);
      else {
        this.drawSpans(c, true);
        this.drawLaneLines(c);
        this.drawSpans(c, false);
        this.drawArrows(c);
        for (const i of this.seen) this.drawMark(c, i, 4.5);
      }
      this.drawAxis();
      const first = story.first + (this.seen[0] ?? 0), last = story.first + (this.seen[this.seen.length - 1] ?? 0);
      setText(this.zoomText, this.dense ? `${grouped(this.seen.length)} records, drawn as a density` : `${grouped(this.seen.length)} records in view`);
      this.zoomOut.disabled = this.to - this.from >= story.count;
      this.zoomIn.disabled = this.zoom === 0;
      this.base.setAttribute("aria-label", `Space-time diagram of ${this.order.length} lanes, records ${first} to ${last}; `
        + "the table below says the same in words");
    }

    drawLaneLines(c) {
      c.strokeStyle = "#c9d2da";
      c.lineWidth = 1;
      c.beginPath();
      for (const [lane, at] of this.place) {
        for (const row of this.rowsShown ? this.laneRows[lane] : [0]) {
          const y = Math.round(this.rowY(lane, at, row)) + 0.5;
          c.moveTo(0, y);
          c.lineTo(this.W, y);
        }
      }
      c.stroke();
    }

    drawSpans(c, behind) {
      const { story } = this, across = this.across(), end = story.horizon;
      for (const span of story.data.spans) {
        if ((span.look === "band") !== behind) continue;
        let open = 0;
        for (let i = 0; i < span.from.length; i++) {
          open += span.from[i];
          const close = span.span[i] < 0 ? -1 : open + span.span[i];
          if (open >= end || across[open] > this.x1) continue;
          const closed = close >= 0 && close < end;
          if (closed && across[close] < this.x0) continue;
          const at = this.place.get(story.lane[open]);
          if (at === undefined) continue;
          const left = Math.max(-5, this.x(open)), right = Math.min(this.W + 5, closed ? this.x(close) : this.W + 5);
          const y = behind ? at.top + 1 : this.y(open) - 7, height = behind ? at.height - 2 : 14;
          drawSpan(c, span.look, left, y, Math.max(2, right - left), height);
        }
      }
    }

    drawArrows(c) {
      const { story, arrowFrom, arrowTo, arrowStyle } = this, across = this.across(), end = story.horizon;
      const inView = [];
      for (let i = 0; i < arrowFrom.length; i++) {
        const from = arrowFrom[i];
        if (from >= end) break;
        const to = arrowTo[i] < end ? arrowTo[i] : -1;
        if (across[from] <= this.x1 && (to >= 0 ? across[to] : across[from]) >= this.x0) inView.push(i);
      }
      c.globalAlpha = clamp(40 / inView.length, 0.25, 1); // a crowd of arrows must not hide the marks
      for (const i of inView) this.drawArrow(c, i, 1.4);
      c.globalAlpha = 1;
    }

    drawArrow(c, i, width) {
      const { story } = this, style = story.data.arrows[this.arrowStyle[i]];
      const from = this.arrowFrom[i], to = this.arrowTo[i] < story.horizon ? this.arrowTo[i] : -1;
      const ink = style.ink || INKS[this.hue(from)], x = this.x(from), y = this.y(from);
      if (y < 0) return;
      if (to < 0) { // sent, and (so far as may be told) never arrived
        drawLine(c, x, y, x + 16, y + 9, style.dash, ink, width);
        c.fillStyle = ink;
        c.font = "bold 11px sans-serif";
        c.fillText(this.arrowTo[i] < 0 ? "…" : "?", x + 17, y + 12);
        return;
      }
      const endX = this.x(to), endY = this.y(to);
      if (endY < 0) return;
      const angle = Math.atan2(endY - y, endX - x);
      drawLine(c, x, y, endX - Math.cos(angle) * 6, endY - Math.sin(angle) * 6, style.dash, ink, width);
      drawHead(c, endX - Math.cos(angle) * 5, endY - Math.sin(angle) * 5, angle, style.head, ink);
    }

    hue(i) { return hueOf(this.story.data.lanes[this.story.lane[i]].kernel); }

    drawMark(c, i, size) {
      const y = this.y(i);
      if (y < 0) return;
      const kind = this.story.kindOf(i), hue = this.hue(i);
      const bad = kind.glyph === "cross";
      drawGlyph(c, kind.glyph, this.x(i), y, kind.glyph === "dot" ? size - 1.5 : size,
        kind.hollow ? "#fff" : FILLS[hue], bad ? ALERT : INKS[hue]);
    }

    drawDensity(c) {
      const across = this.across(), columns = Math.floor(this.W / 2);
      const counts = new Map(this.order.map((lane) => [lane, new Float32Array(columns)]));
      let most = 1;
      for (const i of this.seen) {
        const row = counts.get(this.story.lane[i]);
        if (row === undefined) continue;
        const column = clamp(Math.floor(this.xOf(across[i]) / 2), 0, columns - 1);
        most = Math.max(most, ++row[column]);
      }
      for (const [lane, row] of counts) {
        const at = this.place.get(lane), room = at.height - 4;
        c.fillStyle = FILLS[hueOf(this.story.data.lanes[lane].kernel)];
        row.forEach((count, column) => {
          if (!count) return;
          const height = Math.max(1.5, room * (count / most) ** 0.4);
          c.fillRect(column * 2, at.top + at.height - 2 - height, 2, height);
        });
      }
    }

    drawAxis() {
      const c = this.axisContext, ns = this.axis === "time";
      c.clearRect(0, 0, this.W, 22);
      c.fillStyle = "#333";
      c.strokeStyle = "#7a858f";
      c.font = "11px system-ui, sans-serif";
      const span = this.x1 - this.x0, rough = span / Math.max(2, this.W / 110);
      const power = 10 ** Math.floor(Math.log10(rough));
      const step = Math.max(ns ? 1 : 1, [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough));
      const offset = this.axis === "order" ? this.story.first : 0;
      for (let value = Math.ceil((this.x0 + offset) / step) * step; value <= this.x1 + offset; value += step) {
        const x = this.xOf(value - offset);
        c.beginPath();
        c.moveTo(x, 0);
        c.lineTo(x, 5);
        c.stroke();
        const text = grouped(Math.round(value)) + (ns ? " ns" : ""), width = c.measureText(text).width;
        c.fillText(text, clamp(x - width / 2, 0, this.W - width), 17);
      }
    }

    drawCursor() {
      const { over: c, W, H, story, app } = this;
      c.clearRect(0, 0, W, H);
      if (app.lane !== null && this.place.has(app.lane)) {
        c.strokeStyle = "#111";
        c.lineWidth = 2;
        const { top, height } = this.place.get(app.lane);
        c.strokeRect(1, top + 1, W - 2, height - 2);
      }
      const i = story.applied - 1;
      const x = i < 0 ? 4 : this.x(i);
      if (this.axis !== "causal") {
        c.fillStyle = "rgba(255,255,255,0.62)"; // what has not happened yet is pale
        c.fillRect(x + 7, 0, W, H);
      }
      c.strokeStyle = "#111";
      c.lineWidth = 1.5;
      c.beginPath();
      c.moveTo(x, 0);
      c.lineTo(x, H);
      c.stroke();
      if (i < 0 || this.dense) return;
      const cause = story.cause[i] ? i - story.cause[i] : -1;
      const arrow = this.arrowAt.get(i);
      if (cause >= 0 && this.y(cause) >= 0 && this.y(i) >= 0 && !(arrow !== undefined && this.arrowFrom[arrow] === cause)) {
        drawLine(c, this.x(cause), this.y(cause), x, this.y(i), [1, 3], "#111", 1.5);
      }
      if (arrow !== undefined) this.drawArrow(c, arrow, 3);
      if (this.y(i) < 0) return;
      this.drawMark(c, i, 6.5);
      c.strokeStyle = "#111";
      c.lineWidth = 2;
      c.beginPath();
      c.arc(x, this.y(i), 10, 0, 7);
      c.stroke();
    }

    scrollToLane() {
      const i = this.story.applied - 1, box = this.scroller;
      if (i < 0 || box.scrollHeight <= box.clientHeight) return;
      const at = this.place.get(this.story.lane[i]);
      if (at === undefined) return;
      const bottom = at.top + at.height;
      if (at.top < box.scrollTop) box.scrollTop = at.top;
      else if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight;
    }

    showList() {
      if (!this.twin.open) return;
      const { story, app } = this, current = story.applied - 1;
      const end = Math.min(story.horizon, story.count);
      const from = clamp(current - 7, 0, Math.max(0, end - LIST_ROWS));
      const rows = [];
      for (let i = from; i < Math.min(end, from + LIST_ROWS); i++) {
        const cause = story.cause[i] ? grouped(story.first + i - story.cause[i]) : "";
        rows.push(make("tr", { class: i === current ? "now" : i > current ? "later" : null, "aria-current": i === current ? "step" : null },
          make("td", {}, make("button", { type: "button", class: "link", tabindex: i === current ? 0 : -1, onclick: () => app.go(i + 1) }, grouped(story.first + i))),
          make("td", { class: "number" }, grouped(story.time[i])), make("td", {}, story.actors[story.data.who[i]]),
          make("td", {}, story.sentence(i)), make("td", { class: "number" }, cause)));
      }
      this.list.replaceChildren(...rows);
    }

    nearest(event) {
      if (this.dense) return this.nearestAcross(event);
      let best = -1, distance = 14;
      for (const i of this.seen) {
        const d = Math.hypot(this.x(i) - event.offsetX, this.y(i) - event.offsetY);
        if (d < distance) { distance = d; best = i; }
      }
      return best;
    }

    nearestAcross(event) {
      let best = -1, distance = Infinity;
      for (const i of this.seen) {
        const d = Math.abs(this.x(i) - event.offsetX);
        if (d < distance) { distance = d; best = i; }
      }
      return best;
    }

    selectLaneAt(event) {
      for (const [lane, { top, height }] of this.place) {
        if (event.offsetY >= top && event.offsetY < top + height) return this.app.selectLane(lane);
      }
    }

    hover(event) {
      const i = this.nearest(event);
      this.tip.hidden = i < 0;
      if (i < 0) return;
      setText(this.tip, `${grouped(this.story.first + i)}: ${this.story.sentence(i)}`);
      const x = this.x(i);
      this.tip.style.left = `${clamp(x + 12, 0, Math.max(0, this.W - 260))}px`;
      this.tip.style.top = `${Math.min(this.y(i) + 12, this.H - 10)}px`;
    }
  }

  function sized(canvas, width, height) {
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    return context;
  }

  const hueOf = (kernel) => (kernel === null || kernel === undefined ? 7 : kernel % FILLS.length);

  function chipOf(kernel) {
    const hue = hueOf(kernel);
    return make("span", { class: "chip", "aria-hidden": "true", style: `background:${FILLS[hue]};color:${ON_FILL[hue]}` }, String(kernel));
  }

  function drawLine(c, x0, y0, x1, y1, dash, ink, width) {
    c.strokeStyle = ink;
    c.lineWidth = width;
    c.setLineDash(dash || []);
    c.beginPath();
    c.moveTo(x0, y0);
    c.lineTo(x1, y1);
    c.stroke();
    c.setLineDash([]);
  }

  function drawHead(c, x, y, angle, head, ink) {
    c.save();
    c.translate(x, y);
    c.rotate(angle);
    c.beginPath();
    c.moveTo(-7, -4);
    c.lineTo(1, 0);
    c.lineTo(-7, 4);
    c.fillStyle = c.strokeStyle = ink;
    c.lineWidth = 1.6;
    if (head === "open") c.stroke(); else { c.closePath(); c.fill(); }
    c.restore();
  }

  function drawGlyph(c, glyph, x, y, size, fill, ink) {
    c.beginPath();
    if (glyph === "triangle") { c.moveTo(x, y - size * 1.15); c.lineTo(x + size * 1.1, y + size * 0.85); c.lineTo(x - size * 1.1, y + size * 0.85); c.closePath(); }
    else if (glyph === "square") c.rect(x - size * 0.9, y - size * 0.9, size * 1.8, size * 1.8);
    else if (glyph === "diamond") { c.moveTo(x, y - size * 1.25); c.lineTo(x + size * 1.1, y); c.lineTo(x, y + size * 1.25); c.lineTo(x - size * 1.1, y); c.closePath(); }
    else if (glyph === "bar") c.rect(x - size * 0.45, y - size * 1.3, size * 0.9, size * 2.6);
    else if (glyph === "cross") { c.moveTo(x - size, y - size); c.lineTo(x + size, y + size); c.moveTo(x + size, y - size); c.lineTo(x - size, y + size); }
    else c.arc(x, y, size, 0, 7);
    if (glyph !== "cross") { c.fillStyle = fill; c.fill(); }
    c.strokeStyle = ink;
    c.lineWidth = glyph === "cross" ? 2.5 : 1.4;
    c.stroke();
  }

  const SPAN_LOOKS = { // fill, edge
    solid: ["#5b4a8a", "#3b2e63"], soft: ["#d9d2ee", "#6a59a0"], band: ["#fdf3d0", null], hatch: ["#fff", "#933F00"],
  };

  function drawSpan(c, look, x, y, width, height) {
    const [fill, edge] = SPAN_LOOKS[look];
    c.fillStyle = fill;
    c.fillRect(x, y, width, height);
    if (look === "hatch") {
      c.save();
      c.beginPath();
      c.rect(x, y, width, height);
      c.clip();
      c.strokeStyle = edge;
      c.lineWidth = 1.2;
      c.beginPath();
      for (let at = x - height - ((x - height) % 6); at < x + width; at += 6) { c.moveTo(at, y + height); c.lineTo(at + height, y); }
      c.stroke();
      c.restore();
    }
    if (edge) {
      c.strokeStyle = edge;
      c.lineWidth = 1;
      c.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
    }
  }

  // ---- the ring --------------------------------------------------------------------------------

  class Ring {
    constructor(app) {
      this.app = app;
      this.story = app.story;
      this.config = app.story.data.ring;
      this.ring = this.config.rings[0];
      this.follow = true;
      this.last = "";
      this.build();
    }

    build() {
      this.select = make("select", {
        id: "ring", onchange: () => { this.ring = Number(this.select.value); this.setFollow(false); this.update(); },
      }, ...this.config.rings.map((ring) => make("option", { value: ring }, `ring ${ring}: kernel ${ring} reads it`)));
      this.followBox = make("input", { type: "checkbox", checked: true, onchange: () => { this.setFollow(this.followBox.checked); this.app.refresh(); } });
      this.picture = make("svg", { viewBox: "-190 -190 380 380", role: "img", class: "ring", "aria-label": "Ring" });
      this.facts = make("p", { class: "facts" });
      this.rows = make("tbody");
      this.twin = make("details", { class: "twin", ontoggle: () => this.showTable() }, make("summary", {}, "Ring as a table"),
        make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {},
          ...["Slot", "State", "Ticket", "From"].map((name) => make("th", { scope: "col" }, name)))), this.rows)));
      this.node = make("section", { class: "view", "aria-label": "Ring" },
        make("div", { class: "view-head" }, make("h3", {}, "The ring"), make("label", { for: "ring", class: "hide" }, "Ring"), this.select,
          make("label", {}, this.followBox, "follow the step")),
        this.picture, this.facts,
        make("ul", { class: "legend" },
          legendSlot("free", "free"), legendSlot("taken", "ticket taken"), legendSlot("copied", "copied, not ready"), legendSlot("ready", "ready to read")), this.twin);
      this.draw();
    }

    setFollow(on) { this.follow = on; this.followBox.checked = on; }

    slots() { return Math.min(SLOTS_DRAWN, this.config.slots); }

    // A ring too long to draw is shown as the stretch that begins at the tail.
    slotAt(place) {
      if (this.config.slots <= SLOTS_DRAWN) return place;
      return ((this.story.value("rings.tail", this.ring) ?? 0) + place) % this.config.slots;
    }

    draw() {
      const count = this.slots(), gap = count > 40 ? 0.006 : 0.012;
      this.wedges = [];
      this.picture.replaceChildren(make("title", {}, "The slots of one ring"), make("defs", {},
        make("pattern", { id: "hatch", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
          make("rect", { width: 5, height: 5, fill: "#fff" }), make("rect", { width: 2, height: 5, fill: "#7a858f" }))));
      for (let place = 0; place < count; place++) {
        const a = (place / count) * 2 * Math.PI - Math.PI / 2 + gap, b = ((place + 1) / count) * 2 * Math.PI - Math.PI / 2 - gap;
        const middle = (a + b) / 2, size = count > 64 ? 7 : count > 24 ? 9 : 13;
        const path = make("path", { d: wedge(a, b, 100, 136), class: "slot" });
        const who = make("text", { x: 118 * Math.cos(middle), y: 118 * Math.sin(middle), "font-size": size, class: "slot-text" });
        const number = make("text", { x: 146 * Math.cos(middle), y: 146 * Math.sin(middle), "font-size": 10, class: "slot-number" });
        this.picture.append(path, who, number);
        this.wedges.push({ path, who, number, middle, now: "" });
      }
      this.head = make("g", { class: "pointer" }, make("path", { d: "M-7 -10L0 2L7 -10z" }), make("text", { y: -21, "font-size": 13 }, "head"));
      this.tail = make("g", { class: "pointer" }, make("path", { d: "M-7 10L0 -2L7 10z" }), make("text", { y: 23, "font-size": 13 }, "tail"));
      this.middle = [-22, 0, 22].map((y) => make("text", { y, class: "middle", "font-size": y ? 12 : 15 }));
      this.picture.append(this.head, this.tail, ...this.middle);
    }

    slotState(slot) {
      const { story, ring } = this, key = `${ring},${slot}`;
      const slots = this.config.slots, tail = story.value("rings.tail", ring) ?? 0;
      const due = tail + ((slot - (tail % slots) + slots) % slots); // the ticket whose turn this slot is
      const taken = story.value("rings.taken", `${ring},${due}`), copied = story.value("rings.slots", key);
      const state = story.valueNumber("rings.ready", key) >= 0 ? "ready" : copied !== undefined ? "copied"
        : taken !== undefined ? "taken" : "free";
      return { state, sender: copied?.sender ?? taken, ticket: state === "free" ? undefined : copied?.ticket ?? due };
    }

    update() {
      const { story } = this, i = story.applied - 1;
      if (this.follow && i >= 0) {
        const ring = story.number(i, "ring") ?? (this.app.diagram.arrowAt.has(i) ? story.number(i, "dst") : undefined);
        if (ring !== undefined && ring !== this.ring && this.config.rings.includes(ring)) this.ring = ring;
      }
      if (Number(this.select.value) !== this.ring) this.select.value = this.ring;
      const head = story.value("rings.head", this.ring) ?? 0, tail = story.value("rings.tail", this.ring) ?? 0;
      const enabled = story.value("rings.int_enabled", this.ring);
      const slots = this.config.slots, touched = i >= 0 && story.number(i, "ring") === this.ring ? story.number(i, "slot") : undefined;
      let used = 0;
      this.wedges.forEach((part, place) => {
        const slot = this.slotAt(place), { state, sender } = this.slotState(slot);
        if (state !== "free") used++;
        const key = `${slot} ${state} ${sender} ${slot === touched}`;
        if (key === part.now) return;
        part.now = key;
        const hue = hueOf(sender);
        part.path.setAttribute("class", `slot ${state}${slot === touched ? " touched" : ""}`);
        part.path.setAttribute("style", state === "ready" ? `fill:${FILLS[hue]}` : state === "free" ? "" : `stroke:${INKS[hue]}`);
        part.who.setAttribute("style", state === "ready" ? `fill:${ON_FILL[hue]}` : `fill:${INKS[hue]}`);
        setText(part.who, state === "free" || sender === undefined ? "" : String(sender));
        setText(part.number, slot % (slots > 24 ? 8 : 1) === 0 || slot === touched ? String(slot) : "");
      });
      this.point(this.head, head, 154);
      this.point(this.tail, tail, 97);
      setText(this.middle[0], `kernel ${this.ring} reads`);
      setText(this.middle[1], `${used} of ${slots} in use`);
      setText(this.middle[2], enabled === undefined ? "" : enabled ? "interrupts on" : "interrupts off");
      setText(this.facts, `head ${grouped(head)} (slot ${head % slots}) · tail ${grouped(tail)} (slot ${tail % slots}) · `
        + `head − tail = ${head - tail}${head - tail > slots ? ": senders wait" : ""}`);
      this.picture.setAttribute("aria-label", `Ring ${this.ring}: ${used} of ${slots} slots in use, head ${head}, tail ${tail}`
        + (enabled === undefined ? "" : `, interrupts ${enabled ? "on" : "off"}`));
      this.showTable();
    }

    point(group, counter, radius) {
      const count = this.slots(), slots = this.config.slots;
      const tail = this.story.value("rings.tail", this.ring) ?? 0;
      const place = slots <= SLOTS_DRAWN ? counter % slots : counter - tail;
      const angle = ((place + 0.5) / count) * 360;
      const turn = `rotate(${angle}) translate(0 ${-radius})`;
      if (group.getAttribute("transform") === turn) return;
      group.setAttribute("transform", turn);
      const text = group.querySelector("text");
      text.setAttribute("transform", `rotate(${-angle} 0 ${text.getAttribute("y")})`);
    }

    showTable() {
      if (!this.twin.open) return;
      const words = { free: "free", taken: "ticket taken", copied: "copied, not ready", ready: "ready to read" };
      this.rows.replaceChildren(...Array.from({ length: this.slots() }, (_, place) => {
        const slot = this.slotAt(place), { state, sender, ticket } = this.slotState(slot);
        return make("tr", {}, ...[slot, words[state], ticket ?? "", sender === undefined ? "" : `kernel ${sender}`]
          .map((text) => make("td", {}, String(text))));
      }));
    }
  }

  function legendSlot(state, name) {
    return make("li", {}, make("span", { class: `swatch ${state}`, "aria-hidden": "true" }), name);
  }

  function wedge(a, b, inner, outer) {
    const at = (r, angle) => `${(r * Math.cos(angle)).toFixed(1)} ${(r * Math.sin(angle)).toFixed(1)}`;
    return `M${at(inner, a)}L${at(outer, a)}A${outer} ${outer} 0 0 1 ${at(outer, b)}L${at(inner, b)}A${inner} ${inner} 0 0 0 ${at(inner, a)}z`;
  }

  // ---- the machine -----------------------------------------------------------------------------

  class Machine {
    constructor(app) {
      this.app = app;
      this.story = app.story;
      this.config = app.story.data.machine;
      this.owner = new Map();
      for (const [kernel, cpus] of this.config.kernels) for (const cpu of cpus) this.owner.set(cpu, kernel);
      this.build();
    }

    build() {
      const { config } = this, edge = config.radius + 16;
      this.picture = make("svg", { viewBox: `${-edge} ${-edge} ${2 * edge} ${2 * edge}`, role: "img", class: "machine",
        "aria-label": `${config.name}: ${config.cpus.length} CPUs on a circle, coloured and numbered by the kernel that owns them` });
      const line = (name) => ([x1, y1, x2, y2]) => make("line", { x1, y1, x2, y2, class: name });
      this.picture.append(...config.links.map(line("link-line")), ...config.spokes.map(line("spoke")));
      for (const [kind, number, x, y] of config.inner) {
        const name = `${kind === "package" ? "P" : "N"}${number}`;
        this.picture.append(kind === "package"
          ? make("rect", { x: x - 12, y: y - 10, width: 24, height: 20, rx: 3, class: "box" })
          : make("circle", { cx: x, cy: y, r: 11, class: "box" }), make("text", { x, y, class: "box-name" }, name));
      }
      const size = clamp((2 * Math.PI * config.radius * 0.9) / config.cpus.length, 2, 19);
      this.centre = new Map();
      this.tiles = config.cpus.map(([cpu, x, y]) => {
        const kernel = this.owner.get(cpu), hue = hueOf(kernel), owned = kernel !== undefined;
        const grown = owned ? Math.max(size, 15) : size; // on a machine of 384 CPUs the kernels' own still show
        const tile = make("rect", { x: x - grown / 2, y: y - grown / 2, width: grown, height: grown, rx: grown / 6, class: "cpu", style: owned ? `fill:${FILLS[hue]}` : "" });
        const group = make("g", { onclick: () => owned && this.app.selectKernel(kernel) },
          make("title", {}, owned ? `CPU ${cpu}: kernel ${kernel}` : `CPU ${cpu}: no kernel`), tile,
          owned ? make("text", { x, y, class: "cpu-text", style: `fill:${ON_FILL[hue]}` }, String(kernel)) : null);
        if (owned && !this.centre.has(kernel)) this.centre.set(kernel, [x, y]);
        return { group, tile, kernel };
      });
      this.tiles.sort((a, b) => (a.kernel !== undefined) - (b.kernel !== undefined));
      this.arrow = make("path", { class: "wire" });
      this.picture.append(this.arrow, ...this.tiles.map(({ group }) => group));
      const rows = config.kernels.map(([kernel, cpus, nodes, packages]) => make("tr", {},
        make("th", { scope: "row" }, `kernel ${kernel}`), ...[cpus, nodes, packages].map((list) => make("td", {}, ranges(list)))));
      this.node = make("section", { class: "view", "aria-label": "Machine" },
        make("div", { class: "view-head" }, make("h3", {}, "The machine"), make("span", { class: "quiet" }, config.name)),
        this.picture, make("p", { class: "facts" }, "Around: CPUs, with the number of their kernel. Inside: NUMA nodes (N), packages (P)."),
        make("details", { class: "twin" }, make("summary", {}, "Machine as a table"), make("div", { class: "scroll" },
          make("table", {}, make("thead", {}, make("tr", {}, ...["Kernel", "CPUs", "NUMA nodes", "Packages"].map((name) => make("th", { scope: "col" }, name)))),
            make("tbody", {}, ...rows)))));
    }

    update() {
      const { story, app } = this, i = story.applied - 1;
      const arrow = i < 0 ? undefined : app.diagram.arrowAt.get(i);
      const kernelAt = (record) => story.data.lanes[story.lane[record]].kernel;
      const acting = i < 0 ? null : kernelAt(i);
      for (const { group, kernel } of this.tiles) {
        setClass(group, "acting", kernel !== undefined && kernel === acting);
        setClass(group, "selected", kernel !== undefined && kernel === app.kernel());
      }
      let d = "";
      if (arrow !== undefined) {
        const style = story.data.arrows[app.diagram.arrowStyle[arrow]];
        const from = this.centre.get(kernelAt(app.diagram.arrowFrom[arrow]));
        const target = app.diagram.arrowTo[arrow];
        const to = this.centre.get(target >= 0 && target < story.horizon ? kernelAt(target) : story.number(i, "ring") ?? story.number(i, "dst"));
        if (from && to && from !== to) d = wire(from, to);
        this.arrow.setAttribute("stroke-dasharray", style.dash ? style.dash.join(" ") : "");
      }
      if (this.arrow.getAttribute("d") !== d) this.arrow.setAttribute("d", d);
    }
  }

  function wire([x0, y0], [x1, y1]) { // bent towards the middle, and ending short of its CPU
    const bx = (x0 + x1) * 0.25, by = (y0 + y1) * 0.25, angle = Math.atan2(y1 - by, x1 - bx);
    const x = x1 - 10 * Math.cos(angle), y = y1 - 10 * Math.sin(angle);
    const head = (turn) => `${(x - 10 * Math.cos(angle + turn)).toFixed(1)} ${(y - 10 * Math.sin(angle + turn)).toFixed(1)}`;
    return `M${x0} ${y0}Q${bx} ${by} ${x} ${y}M${head(0.45)}L${x} ${y}L${head(-0.45)}`;
  }

  function ranges(numbers) { // 0,1,2,5 reads 0-2, 5
    const parts = [];
    for (const n of numbers) {
      const last = parts[parts.length - 1];
      if (last && last[1] === n - 1) last[1] = n; else parts.push([n, n]);
    }
    return parts.map(([a, b]) => (a === b ? `${a}` : `${a}–${b}`)).join(", ");
  }

  // ---- per-kernel state ------------------------------------------------------------------------

  class Kernels {
    constructor(app) {
      this.app = app;
      this.story = app.story;
      const { data } = this.story;
      this.tables = data.tables.map((table, number) => ({ ...table, number })).filter((table) => table.perKernel);
      const lively = new Set(); // tables in which a value is ever replaced: those come first
      this.story.patchOld.forEach((old, p) => { if (old >= 0) lively.add(data.cellTable[this.story.patchCell[p]]); });
      const partAt = (table) => data.tables.findIndex((other) => other.part === table.part);
      this.tables.sort((a, b) => partAt(a) - partAt(b) || lively.has(b.number) - lively.has(a.number) || a.number - b.number);
      this.cells = [];
      const parts = [...new Set(this.tables.map((table) => table.part))];
      const body = data.kernels.map((kernel) => make("tr", { "data-kernel": kernel },
        make("th", { scope: "row" }, make("button", { type: "button", class: "link", "aria-pressed": "false", onclick: () => app.selectKernel(kernel) },
          chipOf(kernel), make("span", { class: "hide" }, `kernel ${kernel}`))),
        ...this.tables.map((table) => {
          const td = make("td");
          this.cells.push({
            td, cell: this.story.index[table.number].get(String(kernel)), value: -2, fresh: false,
            group: this.story.groupNumber.get(`${table.number} ${kernel}`), isSet: table.isSet,
          });
          return td;
        })));
      this.rows = body;
      this.node = make("section", { class: "view kernels", "aria-label": "State of each kernel" },
        make("div", { class: "view-head" }, make("h3", {}, "What each kernel knows"), make("span", { class: "quiet" }, "a frame marks what this step changed")),
        make("div", { class: "scroll tall" }, make("table", { class: "state" },
          make("thead", {},
            make("tr", {}, make("td", {}), ...parts.map((part) => make("th", { scope: "colgroup", colspan: this.tables.filter((table) => table.part === part).length }, part))),
            make("tr", {}, make("th", { scope: "col" }, "kernel"), ...this.tables.map((table) => make("th", { scope: "col" }, table.name.replaceAll("_", " "))))),
          make("tbody", {}, ...body))));
    }

    update() {
      const { story, app } = this, changed = new Set(), changedGroups = new Set(), i = story.applied - 1;
      if (i >= 0) {
        for (let p = story.patchStart[i]; p < story.patchStart[i + 1]; p++) {
          changed.add(story.patchCell[p]);
          changedGroups.add(story.groupOf[story.patchCell[p]]);
        }
      }
      for (const item of this.cells) {
        if (item.group !== undefined) this.showGroup(item);
        else {
          const value = item.cell === undefined ? -1 : story.state[item.cell];
          if (value !== item.value) this.put(item, story.text(value));
          item.value = value;
        }
        const fresh = item.group === undefined ? changed.has(item.cell) : changedGroups.has(item.group);
        if (fresh !== item.fresh) { item.td.classList.toggle("changed", fresh); item.fresh = fresh; }
      }
      this.mark(app.kernel());
    }

    put({ td }, text) {
      setText(td, shorten(text, 30));
      if (text.length > 30) td.title = text; else td.removeAttribute("title");
    }

    // Rows with longer keys: (0, HIGH) -> 3 and (0, NORMAL) -> 7 read "HIGH: 3, NORMAL: 7"; many
    // rows, or rows that hold messages, read as their number.
    showGroup(item) {
      const { story } = this, { data } = story, parts = [], live = story.groups[item.group];
      for (const cell of live) {
        const key = data.cellKey[cell].slice(1).join(" "), value = story.plain(story.state[cell]);
        parts.push(item.isSet ? key : `${key}: ${story.text(story.state[cell])}`);
        if (parts.length === 4 || (live.size > 1 && typeof value === "object")) break;
      }
      const text = !live.size ? "–" : live.size > parts.length ? `${live.size} entries` : parts.join(", ");
      if (text !== item.value) this.put(item, text);
      item.value = text;
    }

    mark(selected) {
      this.rows.forEach((row) => {
        const on = Number(row.dataset.kernel) === selected;
        setClass(row, "selected", on);
        row.querySelector("button").setAttribute("aria-pressed", String(on));
      });
    }
  }

  const shorten = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

  // ---- the player ------------------------------------------------------------------------------

  class Player {
    constructor(host, root, data) {
      Object.assign(this, { host, root, data });
      this.story = new Story(data);
      this.lane = null;
      this.speed = 3;
      this.timer = 0;
      this.explaining = false;
      this.breakpoints = new Map(); // "record 7" | "kind 3" | "kernel 2" -> its name
      this.gates = data.ask.map((gate) => ({ ...gate, chosen: null }));
      this.choices = [];
      this.build();
      this.diagram = new Diagram(this);
      this.views = [this.diagram];
      if (data.ring) this.views.push(new Ring(this));
      if (data.machine) this.views.push(new Machine(this));
      if (data.kernels.length && data.tables.some((table) => table.perKernel)) this.views.push(new Kernels(this));
      this.body.append(this.diagram.node, make("div", { class: "side" }, ...this.views.slice(1).map((view) => view.node)));
      this.buildViewToggles();
      this.host.addEventListener("keydown", (event) => this.key(event));
      for (const name of ["keyup", "keypress"]) this.host.addEventListener(name, (event) => event.stopPropagation());
      this.setHorizon();
      this.start = data.at;
      this.go(this.start, true);
      this.expose();
    }

    // -- moving

    go(target, quietly) {
      const { story } = this, limit = this.limit(), wanted = clamp(target, 0, story.count);
      if (wanted > limit && story.applied === limit && !quietly) this.say("Answer the prediction first (p), then the run goes on.");
      else this.say("");
      story.move(Math.min(wanted, limit));
      this.refresh();
      return story.applied;
    }

    limit() { return Math.min(this.story.count, this.story.horizon); }

    setHorizon() {
      const open = this.gates.filter((gate) => gate.chosen === null).map((gate) => gate.at);
      this.story.horizon = Math.min(this.story.count, ...open);
    }

    gate() { return this.gates.find((gate) => gate.chosen === null && gate.at === this.story.applied); }

    step(change) { this.pause(); this.go(this.story.applied + change); }

    find(direction, wanted) { // the number of records applied when that record is current, or -1
      const { story } = this, end = Math.min(story.count, story.horizon);
      for (let i = story.applied - 1 + direction; i >= 0 && i < end; i += direction) if (wanted(i)) return i + 1;
      return -1;
    }

    jump(direction, wanted, name) {
      this.pause();
      const target = this.find(direction, wanted);
      if (target >= 0) this.go(target);
      else if (direction > 0 && this.story.horizon < this.story.count) this.go(this.story.count);
      else this.say(`There is no ${direction > 0 ? "later" : "earlier"} ${name}.`);
    }

    jumpKind(direction) {
      const i = this.story.applied - 1, { kind } = this.data;
      if (i < 0) return this.step(direction);
      this.jump(direction, (j) => kind[j] === kind[i], this.story.kindOf(i).name);
    }

    jumpMessage(direction) {
      const { story } = this, i = story.applied - 1;
      const lane = this.lane ?? (i >= 0 ? story.lane[i] : 0), name = this.data.lanes[lane].name;
      this.jump(direction, (j) => story.lane[j] === lane && this.diagram.arrowAt.has(j), `message event of ${name}`);
    }

    jumpChosen(direction) {
      const [what, number] = this.jumpSelect.value.split(" "), name = this.jumpSelect.selectedOptions[0].textContent;
      const { story, data } = this;
      if (what === "kind") this.jump(direction, (i) => data.kind[i] === Number(number), name);
      else if (what === "lane") this.jump(direction, (i) => story.lane[i] === Number(number), `record of ${name}`);
      else this.jump(direction, (i) => this.breaksAt(i), "breakpoint");
    }

    breaksAt(i) {
      const { breakpoints: b, story } = this;
      return b.size > 0 && (b.has(`record ${i}`) || b.has(`kind ${this.data.kind[i]}`) || b.has(`lane ${story.lane[i]}`));
    }

    play() {
      if (this.timer) return this.pause();
      if (this.story.applied >= this.limit() && !this.gate()) this.go(0);
      this.live.setAttribute("aria-live", "off"); // a screen reader cannot keep up with a film
      let last = performance.now(), owed = 1;
      const tick = (now) => {
        this.timer = requestAnimationFrame(tick);
        owed += ((now - last) / 1000) * SPEEDS[this.speed];
        last = now;
        let steps = Math.min(Math.floor(owed), 50), target = this.story.applied, stop = false;
        if (!steps) return;
        owed -= Math.floor(owed);
        while (steps-- && !stop) {
          if (target >= this.limit()) { stop = true; break; }
          target++;
          stop = this.breaksAt(target - 1);
        }
        this.go(target, true);
        if (stop || target >= this.story.count || this.gate()) this.pause();
      };
      this.timer = requestAnimationFrame(tick);
      this.showPlaying();
    }

    pause() {
      if (!this.timer) return;
      cancelAnimationFrame(this.timer);
      this.timer = 0;
      this.live.setAttribute("aria-live", "polite");
      this.showPlaying();
      this.showStep();
    }

    showPlaying() {
      this.playButton.replaceChildren(icon(this.timer ? "pause" : "play"), this.timer ? "Pause" : "Play");
    }

    changeSpeed(change) {
      this.speed = clamp(this.speed + change, 0, SPEEDS.length - 1);
      this.speedSelect.value = this.speed;
      this.say(`Speed: ${SPEEDS[this.speed]} steps a second.`);
    }

    reset() {
      this.pause();
      this.go(this.start, true);
      this.say("Back to where the player opened.");
    }

    selectLane(lane) {
      this.lane = this.lane === lane ? null : lane;
      this.refresh();
      this.say(this.lane === null ? "No kernel is marked." : `${this.data.lanes[lane].name} is marked in every view.`);
    }

    selectKernel(kernel) {
      const lane = this.data.lanes.findIndex((item) => item.kernel === kernel);
      if (lane >= 0) this.selectLane(lane);
    }

    kernel() { return this.lane === null ? null : this.data.lanes[this.lane].kernel; }

    toggleBreakpoint(key, name) {
      if (this.breakpoints.has(key)) this.breakpoints.delete(key); else this.breakpoints.set(key, name);
      this.say(this.breakpoints.has(key) ? `Breakpoint set: ${name}.` : `Breakpoint removed: ${name}.`);
      this.showBreakpoints();
    }

    breakHere() {
      const i = this.story.applied - 1;
      if (i < 0) return this.say("There is no record here to break on.");
      this.toggleBreakpoint(`record ${i}`, `record ${grouped(this.story.first + i)}`);
    }

    breakOnChosen() {
      const value = this.jumpSelect.value;
      if (value === "break") return this.breakHere();
      this.toggleBreakpoint(value, this.jumpSelect.selectedOptions[0].textContent);
    }

    // -- showing

    refresh() {
      this.showStep();
      for (const view of this.views) if (!view.node.hidden) view.update();
      this.diagram.laneButtons.forEach((button, lane) => {
        const on = String(lane === this.lane);
        if (button.getAttribute("aria-pressed") !== on) button.setAttribute("aria-pressed", on);
      });
    }

    showStep() {
      const { story } = this, n = story.applied, i = n - 1;
      const time = i < 0 ? 0 : story.time[i];
      if (document.activeElement !== this.host || this.root.activeElement !== this.recordInput) {
        this.recordInput.value = i < 0 ? "" : story.first + i;
      }
      this.slider.value = n;
      this.slider.setAttribute("aria-valuetext", i < 0 ? "before the first record" : `record ${story.first + i}, ${time} ns`);
      setText(this.timeText, `${grouped(time)} ns`);
      const locked = Boolean(this.gate());
      this.buttons.back.disabled = this.buttons.first.disabled = n === 0;
      this.buttons.next.disabled = this.buttons.last.disabled = n >= story.count || locked;
      setText(this.stamp, i < 0
        ? (story.first ? `Before record ${grouped(story.first)}` : "Before the first record")
        : `Record ${grouped(story.first + i)} · ${grouped(time)} ns · ${story.actors[this.data.who[i]]} · ${story.kindOf(i).name}`);
      if (!this.timer || SPEEDS[this.speed] <= 16 || n >= story.count) {
        setText(this.live, i < 0 ? "Nothing has happened yet: step forward to begin." : `${sentenceCase(story.sentence(i))}.`);
      }
      this.showCause(i);
      this.showChanges(i);
      this.showWhy(i);
      this.showGate();
    }

    showCause(i) {
      const { story } = this, cause = i >= 0 && story.cause[i] ? i - story.cause[i] : -1;
      this.causeLine.hidden = cause < 0;
      if (cause < 0) return;
      setText(this.causeButton, `record ${grouped(story.first + cause)}`);
      this.causeButton.title = story.sentence(cause);
      this.causeTarget = cause + 1;
    }

    showChanges(i) {
      const { story, data } = this, parts = [];
      if (i >= 0) {
        for (let p = story.patchStart[i]; p < Math.min(story.patchStart[i + 1], story.patchStart[i] + 8); p++) {
          const cell = story.patchCell[p], table = data.tables[data.cellTable[cell]];
          const key = String(data.cellKey[cell]).replaceAll(",", ", ");
          parts.push(make("li", {}, make("span", { class: "name" }, `${table.part}.${table.name}[${key}]`), " ",
            shorten(story.text(story.patchOld[p]), 40), " → ", make("b", {}, shorten(story.text(story.patchNew[p]), 40))));
        }
      }
      this.changes.replaceChildren(...(parts.length ? parts : [make("li", { class: "none" }, "no table changes")]));
    }

    showWhy(i) {
      this.why.hidden = !this.explaining;
      this.buttons.explain.setAttribute("aria-expanded", String(this.explaining));
      if (!this.explaining) return;
      const kind = i < 0 ? null : this.story.kindOf(i);
      setText(this.whyText, kind ? kind.why || "This kind of event has no further explanation." : "Step forward to a record, then ask why.");
      setText(this.popcornText, kind && kind.popcorn ? kind.popcorn : "no single place in Popcorn's source");
    }

    explain() {
      this.explaining = !this.explaining;
      this.showWhy(this.story.applied - 1);
    }

    say(text) { setText(this.status, text); }

    showBreakpoints() {
      this.breakList.hidden = !this.breakpoints.size;
      this.breakList.replaceChildren(make("span", {}, "Breakpoints:"), ...[...this.breakpoints].map(([key, name]) => make("button", {
        type: "button", class: "tag", "aria-label": `Remove breakpoint: ${name}`, onclick: () => this.toggleBreakpoint(key, name),
      }, `${name} ×`)));
      this.showTicks();
    }

    showTicks() {
      const { count } = this.story, at = (i) => `left:${((i + 1) / Math.max(1, count)) * 100}%`;
      const breaks = [...this.breakpoints.keys()].filter((key) => key.startsWith("record "))
        .map((key) => make("span", { class: "tick", style: at(Number(key.slice(7))) }));
      const gates = this.gates.map((gate) => make("span", { class: `tick gate${gate.chosen === null ? "" : " done"}`, style: at(gate.at - 1) }));
      this.ticks.replaceChildren(...breaks, ...gates);
    }

    // -- predicting

    showGate() {
      const gate = this.gate();
      if (gate === this.shownGate) return;
      this.shownGate = gate;
      this.predict.hidden = !gate;
      if (!gate) return;
      this.pause();
      const name = `gate${this.gates.indexOf(gate)}`;
      const field = gate.options.length
        ? gate.options.map(([value, label]) => make("label", { class: "option" }, make("input", { type: "radio", name, value }), label))
        : [make("label", { class: "option" }, "Your answer: ", make("input", { type: "text", name, size: 30 }))];
      const form = make("form", {
        onsubmit: (event) => {
          event.preventDefault();
          const chosen = new FormData(form).get(name);
          if (chosen === null || chosen === "") return this.say("Choose an answer first.");
          this.commit(gate, String(chosen));
        },
      }, make("fieldset", {}, make("legend", {}, gate.question), ...field), make("button", { type: "submit", class: "main" }, "Commit and see"));
      this.predict.replaceChildren(make("h3", {}, "Predict"), form);
    }

    commit(gate, chosen) {
      gate.chosen = chosen;
      this.setHorizon();
      this.showTicks();
      this.go(gate.at + 1);
      const i = gate.at, { story } = this, sentence = `${sentenceCase(story.sentence(i))}.`;
      const right = gate.answer === null ? null : sameAnswer(chosen, gate.answer);
      this.choices.push({ at: story.first + gate.at, question: gate.question, chosen, answer: gate.answer, right });
      this.outcomes.append(make("li", {}, make("b", {}, gate.question), ` You said: ${chosen}. `,
        make("span", { class: right === false ? "wrong" : "right" }, right === null ? "" : right ? "✓ That is what happened. " : `✗ It was: ${gate.answer}. `),
        `Record ${grouped(story.first + i)}: ${sentence} `, make("span", { class: "because" }, gate.why || story.kindOf(i).why)));
      this.outcomeBox.hidden = false;
      this.host.dispatchEvent(new CustomEvent("popcorn-predict", { bubbles: true, detail: this.choices[this.choices.length - 1] }));
      this.say(right === null ? "Committed." : right ? "That is what happened." : `It was ${gate.answer}.`);
      this.host.focus({ preventScroll: true });
    }

    focusGate() {
      if (!this.gate()) {
        const later = this.gates.find((gate) => gate.chosen === null);
        if (!later) return this.say("There is no question waiting in this run.");
        this.go(later.at, true);
      }
      this.predict.querySelector("input")?.focus();
    }

    // -- keys

    key(event) {
      event.stopPropagation(); // a key pressed in the player is the player's, not the notebook's
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const target = event.composedPath()[0], tag = target.tagName, type = target.type;
      if (this.root.querySelector("dialog[open]")) return; // the dialog has the keyboard; Esc is its own
      if (event.key === "Escape") { this.closeMenus(); return; }
      if (tag === "SELECT" || tag === "TEXTAREA" || (tag === "INPUT" && !["range", "checkbox", "radio"].includes(type))) return;
      if (type === "radio" && event.key.startsWith("Arrow")) return;
      if ((event.key === " " || event.key === "Enter") && (tag === "BUTTON" || tag === "SUMMARY" || tag === "INPUT") && type !== "range") return;
      const action = this.actions()[event.key];
      if (!action || (event.shiftKey && !["ArrowLeft", "ArrowRight", "?", "+"].includes(event.key))) return;
      event.preventDefault();
      action(event);
    }

    actions() {
      return {
        ArrowRight: (event) => (event.shiftKey ? this.jumpKind(1) : this.step(1)),
        ArrowLeft: (event) => (event.shiftKey ? this.jumpKind(-1) : this.step(-1)),
        Home: () => this.step(-Infinity), End: () => this.step(Infinity),
        "[": () => this.jumpMessage(-1), "]": () => this.jumpMessage(1),
        " ": () => this.play(), b: () => this.breakHere(), f: () => this.openFork(), p: () => this.focusGate(),
        e: () => this.explain(), c: () => {}, r: () => this.reset(),
        "+": () => this.changeSpeed(1), "=": () => this.changeSpeed(1), "-": () => this.changeSpeed(-1),
        "?": () => this.openHelp(),
      };
    }

    closeMenus() { for (const menu of this.root.querySelectorAll("details.menu[open]")) menu.open = false; }

    // -- building

    build() {
      const { data, story } = this, button = (name, label, keys, action, ...content) => {
        const node = make("button", { type: "button", "aria-label": label, title: `${label} (${keys})`, "aria-keyshortcuts": keys, onclick: action }, ...content);
        this.buttons[name] = node;
        return node;
      };
      this.buttons = {};
      this.playButton = make("button", { type: "button", class: "main play", title: "Play or pause (space)", onclick: () => this.play() });
      this.showPlaying();
      this.speedSelect = make("select", { "aria-label": "Speed", title: "Speed (+ and −)", onchange: () => { this.speed = Number(this.speedSelect.value); } },
        ...SPEEDS.map((speed, number) => make("option", { value: number, selected: number === this.speed }, `${speed} steps/s`)));
      this.slider = make("input", { type: "range", min: 0, max: story.count, step: 1, "aria-label": "Records applied", oninput: () => { this.pause(); this.go(Number(this.slider.value)); } });
      this.ticks = make("div", { class: "ticks", "aria-hidden": "true" });
      this.recordInput = make("input", {
        type: "number", id: "record", min: story.first, max: story.first + story.count - 1,
        onchange: () => { const wanted = parseInt(this.recordInput.value, 10); if (Number.isFinite(wanted)) { this.pause(); this.go(wanted - story.first + 1); } },
      });
      this.timeText = make("span", { class: "clock" });
      const move = make("div", { class: "bar" },
        make("div", { class: "group", role: "group", "aria-label": "Step" },
          button("first", "First", "Home", () => this.step(-Infinity), icon("first")),
          button("back", "Step back", "ArrowLeft", () => this.step(-1), icon("back")),
          button("next", "Step forward", "ArrowRight", () => this.step(1), icon("next")),
          button("last", "Last", "End", () => this.step(Infinity), icon("last"))),
        this.playButton, this.speedSelect, make("div", { class: "scrub" }, this.slider, this.ticks),
        make("div", { class: "where" }, make("label", { for: "record" }, "record"), this.recordInput,
          make("span", { class: "quiet" }, `of ${grouped(data.total)}`), this.timeText));
      const counts = new Array(data.kinds.length).fill(0);
      for (const kind of data.kind) counts[kind]++;
      this.jumpSelect = make("select", { id: "jump" },
        make("optgroup", { label: "An event of this kind" }, ...data.kinds.map((kind, number) => counts[number] ? make("option", { value: `kind ${number}` }, kind.name) : null)),
        make("optgroup", { label: "Anything done by" }, ...data.lanes.map((lane, number) => make("option", { value: `lane ${number}` }, lane.name))),
        make("option", { value: "break" }, "breakpoint"));
      this.viewMenu = make("details", { class: "menu" }, make("summary", {}, "Views"));
      const more = make("div", { class: "bar" },
        make("label", { for: "jump" }, "Jump to"), this.jumpSelect,
        make("div", { class: "group" },
          make("button", { type: "button", onclick: () => this.jumpChosen(-1) }, "previous"),
          make("button", { type: "button", onclick: () => this.jumpChosen(1) }, "next"),
          make("button", { type: "button", onclick: () => this.breakOnChosen() }, "break on it")),
        make("span", { class: "space" }),
        make("div", { class: "group" },
          button("break", "Breakpoint here", "b", () => this.breakHere(), "Break here"),
          button("reset", "Reset", "r", () => this.reset(), "Reset"),
          button("fork", "Fork here", "f", () => this.openFork(), "Fork here"),
          button("help", "Help", "?", () => this.openHelp(), "?")),
        this.viewMenu);
      this.breakList = make("div", { class: "bar breaks", hidden: true });
      this.status = make("p", { class: "status", role: "status" });
      this.stamp = make("span");
      this.live = make("p", { class: "sentence", "aria-live": "polite" });
      this.causeButton = make("button", { type: "button", class: "link", onclick: () => { this.pause(); this.go(this.causeTarget); } });
      this.causeLine = make("span", {}, " · woken by ", this.causeButton);
      this.changes = make("ul", { class: "changes", "aria-label": "What this step changes" });
      this.whyText = make("p");
      this.popcornText = make("code");
      this.why = make("div", { class: "why", id: "why", hidden: true, "aria-live": "polite" }, this.whyText, make("p", {}, "In Popcorn: ", this.popcornText));
      const explain = button("explain", "Explain this step", "e", () => this.explain(), "Why?");
      explain.setAttribute("aria-controls", "why");
      this.predict = make("section", { class: "predict", hidden: true, "aria-label": "Prediction" });
      this.outcomes = make("ol");
      this.outcomeBox = make("section", { class: "outcomes", hidden: true, "aria-label": "Your predictions" }, make("h3", {}, "Your predictions"), this.outcomes);
      const head = make("header", {}, make("h2", {}, data.title), make("p", { class: "quiet" }, data.subtitle));
      if (data.forked) head.append(make("p", { class: "quiet" }, "In Python: ", make("code", {}, data.forked)));
      if (data.notice) head.append(make("p", { class: "notice" }, data.notice));
      this.body = make("div", { class: "body" });
      this.card = make("div", { class: `card${data.compact ? " compact" : ""}` }, head, move, more, this.breakList,
        make("section", { class: "step", "aria-label": "This step" },
          make("div", { class: "step-head" }, make("p", { class: "stamp" }, this.stamp, this.causeLine), explain), this.live, this.changes, this.why),
        this.predict, this.outcomeBox, this.status, this.body, this.buildHelp(), this.buildFork());
      this.root.append(this.card);
      this.showTicks();
    }

    buildViewToggles() {
      this.viewMenu.append(make("div", { class: "menu-body" }, ...this.views.map((view, number) => {
        const box = make("input", { type: "checkbox", onchange: () => show(box.checked) });
        const show = (on) => { view.node.hidden = !on; if (on) view.update(); };
        box.checked = number === 0 || !this.data.compact;
        view.node.hidden = !box.checked;
        return make("label", {}, box, view.node.getAttribute("aria-label"));
      })));
    }

    dialog(id, title, ...content) {
      const dialog = make("dialog", { "aria-labelledby": id, onclick: (event) => { if (event.target === dialog) dialog.close(); } },
        make("div", { class: "dialog-body" }, make("div", { class: "dialog-head" }, make("h2", { id }, title),
          make("button", { type: "button", "aria-label": "Close", onclick: () => dialog.close() }, "×")), ...content));
      dialog.addEventListener("keydown", (event) => trapFocus(dialog, event));
      return dialog;
    }

    buildHelp() {
      const keys = [["← →", "step back, step forward"], ["Shift + ← →", "previous, next event of the same kind"], ["Home, End", "first, last record"],
        ["[ ]", "previous, next message event of the marked kernel (else of this record's kernel)"], ["Space", "play, pause"], ["+ −", "faster, slower"],
        ["b", "breakpoint on this record"], ["e", "explain: why, and where in Popcorn"], ["p", "predict: go to the question that waits"],
        ["f", "fork: what if this step went otherwise?"], ["r", "reset"], ["?", "this help"], ["Esc", "close a dialog or menu"]];
      this.help = this.dialog("help-title", "Keys", make("p", {}, "They work while the player has the focus: click in it, or reach it with Tab."),
        make("table", { class: "keys" }, make("tbody", {}, ...keys.map(([key, what]) => make("tr", {}, make("th", { scope: "row" }, make("kbd", {}, key)), make("td", {}, what))))),
        make("p", {}, "A click on a mark goes to that record; a click on a kernel marks it in every view."));
      return this.help;
    }

    openHelp() { this.pause(); this.help.showModal(); }

    // -- forking

    buildFork() {
      const { data } = this, settings = Object.entries(data.fork.settings);
      this.forkTitle = make("p", { class: "stamp" });
      this.forkSentence = make("p", { class: "sentence" });
      const radio = (value, ...label) => make("label", { class: "option" }, make("input", { type: "radio", name: "edit", value, checked: value === "drop", onchange: () => this.showForkLine() }), ...label);
      const refresh = (value) => () => { this.forkForm.elements.edit.value = value; this.showForkLine(); };
      this.delayInput = make("input", { type: "number", min: 1, max: 1e12, step: 1, value: 1000, "aria-label": "Delay in nanoseconds", oninput: refresh("delay") });
      this.forkWho = make("span");
      this.settingSelect = make("select", { "aria-label": "Setting", onchange: () => { this.suggestSetting(); refresh("setting")(); } },
        ...settings.map(([name]) => make("option", { value: name }, name)));
      this.settingInput = make("input", { type: "text", size: 8, "aria-label": "New value", oninput: refresh("setting") });
      this.forkLine = make("code");
      this.copyButton = make("button", { type: "button", onclick: () => this.copyFork() }, "Copy");
      this.forkButton = make("button", { type: "submit", class: "main" }, "Fork and show it below");
      this.forkForm = make("form", { onsubmit: (event) => { event.preventDefault(); this.runFork(); } },
        make("fieldset", {}, make("legend", {}, "What if…"),
          radio("drop", "this never happens"),
          radio("delay", this.forkWho, this.delayInput, " ns"),
          settings.length ? radio("setting", "from here on the setting ", this.settingSelect, " is ", this.settingInput) : null),
        make("p", {}, "The same in Python:"), make("div", { class: "code" }, this.forkLine, this.copyButton), this.forkButton);
      this.forkStatus = make("p", { class: "status", role: "status" });
      this.forkDialog = this.dialog("fork-title", "Fork here", this.forkTitle, this.forkSentence, this.forkForm, this.forkStatus);
      return this.forkDialog;
    }

    suggestSetting() {
      const old = this.data.fork.settings[this.settingSelect.value];
      this.settingInput.value = typeof old === "boolean" ? (old ? "False" : "True") : String(old);
    }

    openFork() {
      this.pause();
      const i = this.story.applied - 1;
      if (i < 0) return this.say("Step to a record first; the fork is made at the record that is shown.");
      setText(this.forkTitle, `At record ${grouped(this.story.first + i)}, ${grouped(this.story.time[i])} ns`);
      setText(this.forkSentence, `${sentenceCase(this.story.sentence(i))}.`);
      setText(this.forkWho, `${this.story.actors[this.data.who[i]]} is held up before it for `);
      if (!this.settingInput.value && this.settingSelect.value) this.suggestSetting();
      this.showForkLine();
      const live = this.data.live && jupyterServer();
      this.forkButton.hidden = !live;
      setText(this.forkStatus, live ? "" : "No Python is behind this page. Copy the line into a cell of a running notebook.");
      this.forkDialog.showModal();
      this.forkForm.querySelector("input:checked").focus();
    }

    forkEdit() { // [name, value as Python] or a sentence saying what is wrong
      const what = this.forkForm.elements.edit.value;
      if (what === "drop") return ["drop", "True"];
      if (what === "delay") {
        const ns = this.delayInput.value.trim();
        return /^[1-9]\d{0,11}$/.test(ns) ? ["delay", ns] : "The delay must be a whole number of nanoseconds, 1 or more.";
      }
      const name = this.settingSelect.value, value = this.settingInput.value.trim();
      if (!/^[A-Za-z_]\w*$/.test(name)) return "Choose a setting.";
      if (typeof this.data.fork.settings[name] === "boolean") return /^(True|False)$/.test(value) ? [name, value] : `${name} must be True or False.`;
      return /^\d{1,12}$/.test(value) ? [name, String(Number(value))] : `${name} must be a whole number.`;
    }

    showForkLine() {
      const edit = this.forkEdit(), wrong = typeof edit === "string";
      setText(this.forkLine, wrong ? edit : `${this.data.fork.name}.fork(${this.story.first + this.story.applied - 1}, ${edit[0]}=${edit[1]}).play()`);
      this.copyButton.disabled = this.forkButton.disabled = wrong;
    }

    async copyFork() {
      try {
        await navigator.clipboard.writeText(this.forkLine.textContent);
        setText(this.forkStatus, "Copied.");
      } catch {
        getSelection().selectAllChildren(this.forkLine);
        setText(this.forkStatus, "Select the line and copy it.");
      }
    }

    async runFork() {
      const edit = this.forkEdit();
      if (typeof edit === "string") return setText(this.forkStatus, edit);
      if (!this.data.live || !jupyterServer()) return setText(this.forkStatus, "No Python is behind this page. Copy the line into a cell of a running notebook.");
      const record = this.story.first + this.story.applied - 1;
      setText(this.forkStatus, "Asking the notebook's kernel…");
      this.forkButton.disabled = true;
      try {
        const html = await askKernel(this.data.live, `${record}, ${JSON.stringify(edit[0])}, ${edit[1]}`);
        this.forkDialog.close();
        await this.showFork(html);
      } catch (problem) {
        setText(this.forkStatus, problem.plain || `The fork failed: ${problem.message}`);
      } finally {
        this.forkButton.disabled = false;
      }
    }

    async showFork(html) {
      const box = make("div", { class: "pk-fork" });
      this.host.after(box);
      box.innerHTML = html;
      for (const old of box.querySelectorAll("script")) { // scripts set by innerHTML do not run by themselves
        const fresh = document.createElement("script");
        for (const { name, value } of old.attributes) fresh.setAttribute(name, value);
        fresh.textContent = old.textContent;
        old.replaceWith(fresh);
      }
      const player = box.querySelector(".pk-player");
      await player?.ready;
      player?.scrollIntoView({ block: "start", behavior: calm() ? "auto" : "smooth" });
      player?.focus({ preventScroll: true });
    }

    expose() { // for tests, and for a panel around the player
      const app = this, { story } = this;
      this.host.popcorn = {
        get n() { return story.first + story.applied; },
        get sentence() { return app.live.textContent; },
        get choices() { return app.choices; },
        get breakpoints() { return [...app.breakpoints.values()]; },
        first: story.first, count: story.count, total: app.data.total,
        go: (n) => app.go(n - story.first), state: () => story.snapshot(),
        sentenceOf: (record) => story.sentence(record - story.first),
      };
    }
  }

  const sentenceCase = (text) => text.charAt(0).toUpperCase() + text.slice(1);
  const sameAnswer = (a, b) => String(a).trim().toLowerCase() === String(b).trim().toLowerCase();
  const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

  function trapFocus(dialog, event) {
    if (event.key !== "Tab") return;
    const stops = [...dialog.querySelectorAll("button, input, select")].filter((node) => !node.disabled && node.offsetParent !== null);
    const active = dialog.getRootNode().activeElement, edge = event.shiftKey ? stops[0] : stops[stops.length - 1];
    if (active === edge) {
      event.preventDefault();
      (event.shiftKey ? stops[stops.length - 1] : stops[0]).focus();
    }
  }

  // ---- the way back to Python, in a live notebook only -------------------------------------------

  function jupyterServer() { // where the page's own Jupyter server is, or null in a saved page
    const node = document.getElementById("jupyter-config-data");
    if (!node) return null;
    try {
      const config = JSON.parse(node.textContent), base = new URL(config.baseUrl || "/", location.href);
      return base.origin === location.origin ? { base, token: config.token || "" } : null;
    } catch {
      return null;
    }
  }

  function plain(sentence) { return Object.assign(new Error(sentence), { plain: sentence }); }

  async function askKernel(live, edit) {
    const { base, token } = jupyterServer();
    const at = new URL(`api/kernels/${encodeURIComponent(live.kernel)}`, base);
    const answer = await fetch(at, { headers: token ? { Authorization: `token ${token}` } : {} });
    if (!answer.ok) throw plain("The kernel that made this run is gone. Run the cell again, then fork.");
    const session = Math.random().toString(36).slice(2), id = `${session}-fork`;
    const address = new URL(`${at.pathname}/channels`, at);
    address.protocol = at.protocol === "https:" ? "wss:" : "ws:";
    address.searchParams.set("session_id", session);
    if (token) address.searchParams.set("token", token);
    const socket = new WebSocket(address);
    const expression = `__import__("popcorn_edu.readers.player", fromlist=["player"]).fork_for_page(${JSON.stringify(live.run)}, ${edit})`;
    try {
      const content = await new Promise((resolve, reject) => {
        setTimeout(() => reject(plain("The kernel did not answer in two minutes; it may be busy with another cell.")), KERNEL_WAIT_MS);
        socket.onerror = socket.onclose = () => reject(plain("The connection to the notebook's kernel was refused or lost."));
        socket.onmessage = ({ data }) => {
          if (typeof data !== "string") return;
          const message = JSON.parse(data);
          if (message.parent_header?.msg_id === id && message.header.msg_type === "execute_reply") resolve(message.content);
        };
        socket.onopen = () => socket.send(JSON.stringify({
          channel: "shell", parent_header: {}, metadata: {}, buffers: [],
          header: { msg_id: id, session, username: "", date: new Date().toISOString(), msg_type: "execute_request", version: "5.3" },
          content: { code: "", silent: true, store_history: false, user_expressions: { fork: expression }, allow_stdin: false, stop_on_error: false },
        }));
      });
      const result = content.user_expressions?.fork;
      if (result?.status !== "ok") throw plain(result?.evalue || content.evalue || "The kernel could not make the fork.");
      if (!result.data["text/html"]) throw plain(result.data["text/plain"] || "The kernel's answer holds no player.");
      return result.data["text/html"];
    } finally {
      socket.onclose = socket.onerror = null;
      socket.close();
    }
  }

  // ---- start ---------------------------------------------------------------------------------------

  async function start(host) {
    if (host.shadowRoot) return;
    const root = host.attachShadow({ mode: "open" }); // the page's styles stay outside, ours inside
    try {
      const data = await unpack(host.querySelector("script[type='text/plain']").textContent);
      root.append(make("style", {}, data.css));
      host.player = new Player(host, root, data);
    } catch (problem) { // show the plain table instead, and say so
      root.replaceChildren(make("p", {}, `The player cannot start in this browser (${problem.message}). The steps as a table:`), make("slot"));
      throw problem;
    }
  }

  const script = document.currentScript;
  const hosts = script?.closest(".pk-player") ? [script.closest(".pk-player")] : document.querySelectorAll(".pk-player");
  for (const host of hosts) host.ready = start(host);
})();
