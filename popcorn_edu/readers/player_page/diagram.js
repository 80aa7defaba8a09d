// The space-time diagram: kernels as lanes, time across, messages and interrupts as arrows.
//
// Two layers: the records in view, redrawn only when the view moves on by most of a page, and the
// cursor above them, redrawn at each step. Of a run with 100,000 records only what is in view is
// drawn; where that is still too much, its density.

const ZOOMS = [20, 40, 80, 160, 400, 1000, 4000, 20000, Infinity]; // records in view
const DETAIL_AT_MOST = 2500; // more records than this in view are drawn as a density
const ROW_HEIGHTS = [[30, 240], [24, 300], [18, 420], [15, 420], [12, 420]]; // [px, if all lanes fit in]
const LIST_ROWS = 15;

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
    this.scroller.addEventListener("scroll", () => { this.scrolled = this.scroller.scrollTop; });
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
    this.roomH = this.scroller.clientHeight;
    this.scrolled = this.scroller.scrollTop;
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
    setOff(this.zoomOut, this.to - this.from >= story.count);
    setOff(this.zoomIn, this.zoom === 0);
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

  scrollToLane() { // from what is known: asking the browser would make it lay out the page at once
    const i = this.story.applied - 1, at = i < 0 ? undefined : this.place.get(this.story.lane[i]);
    if (at === undefined || this.H <= this.roomH) return;
    const bottom = at.top + at.height;
    let top = this.scrolled;
    if (at.top < top) top = at.top;
    else if (bottom > top + this.roomH) top = bottom - this.roomH;
    if (top !== this.scrolled) this.scroller.scrollTop = this.scrolled = top;
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
    const inside = this.list.contains(app.root.activeElement);
    this.list.replaceChildren(...rows);
    if (inside) this.list.querySelector("[aria-current] button")?.focus();
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
