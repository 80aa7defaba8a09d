// The ring: its slots, head and tail, what is ready, and whose it is.

const SLOTS_DRAWN = 128; // of a longer ring, the stretch that begins at the tail

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
