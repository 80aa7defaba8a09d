// A CPU that climbs from real mode to a kernel; the memory below 1 MiB that it climbs by; and the
// page tables that it builds there.

const RUNGS = [["WAITING", "waits", "for a STARTUP IPI"], ["REAL", "real mode", "16 bits, 1 MiB"], ["PROTECTED", "protected mode", "32 bits, no paging"],
  ["LONG", "long mode", "64 bits, paging"], ["KERNEL", "a kernel", "Linux runs"]];
const BITS = { // of the registers that matter: bit, name, what it says when it is set
  CR0: [[0, "PE", "protected mode"], [31, "PG", "paging"]], CR4: [[5, "PAE", "wide page-table entries"]],
  EFER: [[8, "LME", "long mode, when paging begins"], [10, "LMA", "long mode is active"]],
};
const MEANINGS = { CS: "code segment; in real mode × 16", DS: "data; ES and SS are the same", IP: "next instruction", SP: "stack", GDTR: "segment descriptors", IDTR: "no interrupt handlers", CR3: "root of the page tables", RSI: "boot_params, for the kernel", RIP: "next instruction" };
const REGISTERS = ["CS", "DS", "IP", "SP", "IDTR", "GDTR", "CR0", "CR4", "EFER", "CR3", "RSI", "RIP"];
const hex = (value) => `0x${value.toString(16)}`;

function changedCells(story) { // the cells that the current record changes
  const i = story.applied - 1, changed = new Set();
  if (i >= 0) for (let p = story.patchStart[i]; p < story.patchStart[i + 1]; p++) changed.add(story.patchCell[p]);
  return changed;
}

function tableOf(headings) {
  const body = make("tbody");
  return [make("table", {}, make("thead", {}, make("tr", {}, ...headings.map((name) => make("th", { scope: "col" }, name)))), body), body];
}

// The numbers of some tables' values, and what the step changed: while these stay, so does a view.
class Watch {
  constructor(story, tables) {
    const numbers = new Set(tables.map((name) => story.tableNumber.get(`boot.${name}`)));
    this.story = story;
    this.cells = [...story.state.keys()].filter((cell) => numbers.has(story.data.cellTable[cell]));
    this.last = "";
  }

  same(more, changed) {
    const key = `${more} ${this.cells.map((cell) => this.story.state[cell])} ${this.cells.filter((cell) => changed.has(cell))}`;
    const same = key === this.last;
    this.last = key;
    return same;
  }
}

const rowOf = (first, cells, changed) => make("tr", { class: changed ? "fresh" : null }, make("th", { scope: "row" }, first), ...cells.map((cell) => make("td", {}, cell)));

class Climb {
  constructor(app) {
    this.app = app;
    this.story = app.story;
    this.targets = this.story.data.boot.cpus.filter(([kernel]) => kernel !== 0).map(([kernel, cpu]) => [cpu, kernel]);
    this.cpu = this.targets[0]?.[0];
    this.follow = true;
    this.watch = new Watch(this.story, ["mode", "owner", "registers"]);
    this.select = make("select", { id: "cpu", onchange: () => { this.cpu = Number(this.select.value); this.followBox.checked = this.follow = false; this.update(); } },
      ...this.targets.map(([cpu, kernel]) => make("option", { value: cpu }, `CPU ${cpu}: for kernel ${kernel}`)));
    this.followBox = make("input", { type: "checkbox", checked: true, onchange: () => { this.follow = this.followBox.checked; this.update(); } });
    this.rungs = RUNGS.map(([mode, name, more]) => make("li", { "data-mode": mode }, make("b", {}, name), make("span", {}, more)));
    this.gone = make("li", { "data-mode": "SHUT_DOWN", hidden: true }, make("b", {}, "✗ shut down"), make("span", {}, "triple fault"));
    [this.table, this.rows] = tableOf(["Register", "Value", "What it says"]);
    const [all, allRows] = tableOf(["CPU", "Mode", "Runs"]);
    this.allRows = allRows;
    this.twin = make("details", { class: "twin", ontoggle: () => this.showAll() }, make("summary", {}, "All CPUs as a table"),
      make("div", { class: "scroll tall", tabindex: 0, role: "group", "aria-label": "All CPUs" }, all));
    this.node = make("section", { class: "view", "aria-label": "CPU" },
      make("div", { class: "view-head" }, make("h3", {}, "The CPU that climbs"), make("label", { for: "cpu", class: "hide" }, "CPU"), this.select,
        make("label", {}, this.followBox, "follow the step")),
      make("ol", { class: "rungs" }, ...this.rungs, this.gone), make("div", { class: "scroll" }, this.table), this.twin);
  }

  choose() {
    const { story, app } = this, i = story.applied - 1;
    if (!this.follow) return;
    const kernel = app.kernel() ?? (i < 0 ? null : kernelOf(story, i));
    const target = this.targets.find(([, mine]) => mine === kernel);
    if (target) this.cpu = target[0];
  }

  modeOf(cpu) {
    const { story } = this, mode = story.value("boot.mode", cpu);
    return mode === "LONG" && story.value("boot.owner", cpu) !== undefined ? "KERNEL" : mode;
  }

  update() {
    const { story } = this;
    this.choose();
    if (Number(this.select.value) !== this.cpu) this.select.value = this.cpu;
    const changed = changedCells(story);
    if (this.watch.same(`${this.cpu} ${this.twin.open}`, changed)) return;
    const mode = this.modeOf(this.cpu), place = RUNGS.findIndex(([name]) => name === mode);
    this.rungs.forEach((rung, n) => {
      setClass(rung, "done", n < place);
      if (n === place) rung.setAttribute("aria-current", "step"); else rung.removeAttribute("aria-current");
    });
    this.gone.hidden = mode !== "SHUT_DOWN";
    if (mode === "SHUT_DOWN") this.gone.setAttribute("aria-current", "step");
    const rows = REGISTERS.map((name) => {
      const key = `${this.cpu},${name}`, value = story.value("boot.registers", key);
      if (value === undefined) return null;
      const bits = (BITS[name] ?? []).filter(([bit]) => Math.floor(value / 2 ** bit) % 2).map(([, short, says]) => `${short}: ${says}`);
      return rowOf(name, [hex(value), bits.length ? bits.join("; ") : BITS[name] ? "no bit that matters is set" : MEANINGS[name]], changed.has(story.cell("boot.registers", key)));
    }).filter(Boolean);
    this.rows.replaceChildren(...(rows.length ? rows : [make("tr", {}, make("td", { colspan: 3 }, mode === undefined ? "nobody has woken this CPU" : "nothing is known of its registers"))]));
    this.showAll();
  }

  showAll() {
    if (!this.twin.open) return;
    const { story } = this;
    this.allRows.replaceChildren(...story.data.boot.cpus.flatMap(([, ...cpus]) => cpus).map((cpu) => {
      const owner = story.value("boot.owner", cpu), mode = this.modeOf(cpu);
      const words = mode === "KERNEL" ? "long mode" : RUNGS.find(([name]) => name === mode)?.[1] ?? (mode ? "shut down" : "not woken");
      return rowOf(`CPU ${cpu}`, [words, owner === undefined ? "no kernel" : `kernel ${owner}`], false);
    }));
  }
}

// Below 1 MiB, from low to high addresses: not to scale. A frame marks what this step wrote.
class LowMemory {
  constructor(app) {
    this.app = app;
    this.story = app.story;
    this.words = this.story.data.boot.low;
    this.watch = new Watch(this.story, ["low", "pages", "boot_params", "meant_for"]);
    this.blocks = this.words.map(([address, bytes, name]) => {
      const value = make("span", { class: "what" });
      return { address, bytes, name, value, node: make("div", { class: bytes < 4096 ? "word" : null }, make("code", {}, hex(address)), make("b", {}, name), value) };
    });
    const [fields, fieldRows] = tableOf(["Field", "Value", "Written for"]);
    this.fieldRows = fieldRows;
    const [all, allRows] = tableOf(["Address", "Bytes", "What it is", "What is there"]);
    this.allRows = allRows;
    this.picture = make("div", { class: "low", role: "img", "aria-label": "Memory below 1 MiB; the table below says the same" }, ...this.blocks.map((block) => block.node));
    this.twin = make("details", { class: "twin", ontoggle: () => this.showTable() }, make("summary", {}, "Memory below 1 MiB as a table"),
      make("div", { class: "scroll tall", tabindex: 0, role: "group", "aria-label": "Memory below 1 MiB" }, all));
    this.node = make("section", { class: "view two-high", "aria-label": "Low memory" },
      make("div", { class: "view-head" }, make("h3", {}, "Below 1 MiB"), make("span", { class: "quiet" }, "one page for every boot; a frame marks what this step wrote")),
      this.picture, make("h4", {}, "boot_params"), make("div", { class: "scroll" }, fields), this.twin);
  }

  // What is there, and which cells say so.
  content({ address, name }) {
    const { story } = this, of = (where) => [story.value("boot.low", where), [story.cell("boot.low", where)]];
    const pages = (keys) => [keys.map((key) => [key, story.value("boot.pages", key)]).filter(([, value]) => value !== undefined), keys.map((key) => story.cell("boot.pages", key))];
    if (name === "warm-reset vector") {
      const segment = story.value("boot.low", 0x469), offset = story.value("boot.low", 0x467);
      return [segment === undefined ? "" : `${hex(segment)}:${hex(offset)}`, [story.cell("boot.low", 0x467), story.cell("boot.low", 0x469)]];
    }
    if (name === "command line") {
      const [line, cells] = of(address), meant = story.value("boot.meant_for", "command line");
      return [line === undefined ? "" : `for kernel ${meant}: ${line}`, cells];
    }
    if (name === "boot_params") return [this.fields().length ? `${this.fields().length} fields, below` : "", this.fields().map(([, cell]) => cell)];
    if (name === "PML4") return pageText(pages(["4,0"]), "entry");
    if (name === "PDPT") return pageText(pages(this.slots(3)), "entries");
    if (name === "4 page directories") return pageText(pages([0, 1, 2, 3].map((slot) => `2,${slot}`)), "directories of 512 entries");
    if (name === "extra page directory") return pageText(pages(this.slots(2).filter((key) => Number(key.slice(2)) > 3)), "directory of 512 entries");
    const [value, cells] = of(address);
    if (name === "stack") return ["", []];
    return [value === undefined ? "" : typeof value === "number" ? hex(value) : value, cells];
  }

  slots(level) { // every slot of that level that is ever used
    const { story } = this, number = story.tableNumber.get("boot.pages");
    return [...story.index[number].keys()].filter((key) => key.startsWith(`${level},`));
  }

  fields() {
    const { story } = this;
    return [...story.index[story.tableNumber.get("boot.boot_params")]].filter(([, cell]) => story.state[cell] >= 0);
  }

  update() {
    const { story } = this, changed = changedCells(story);
    if (this.watch.same(this.twin.open, changed)) return;
    for (const block of this.blocks) {
      const [text, cells] = this.content(block);
      setText(block.value, shorten(text, 44));
      setClass(block.node, "empty", !text);
      setClass(block.node, "fresh", cells.some((cell) => changed.has(cell)));
    }
    const meant = (field) => story.value("boot.meant_for", field.includes("ramdisk") ? "ramdisk" : "command line");
    const fields = this.fields();
    this.fieldRows.replaceChildren(...(fields.length ? fields.map(([field, cell]) => rowOf(field, [story.text(story.state[cell]),
      /ramdisk|cmd/.test(field) && meant(field) !== undefined ? `kernel ${meant(field)}` : ""], changed.has(cell))) : [make("tr", {}, make("td", { colspan: 3 }, "not known yet"))]));
    this.showTable();
  }

  showTable() {
    if (!this.twin.open) return;
    this.allRows.replaceChildren(...this.blocks.map((block) => rowOf(hex(block.address), [grouped(block.bytes), block.name, this.content(block)[0] || "nothing yet"], false)));
  }
}

const pageText = ([entries, cells], words) => [entries.length ? `${entries.length} ${words}` : "", cells];

// The trampoline's page tables: one PML4, one PDPT of 512 slots of 1 GiB, and the directories.
class PageTables {
  constructor(app) {
    this.app = app;
    this.story = app.story;
    this.picture = make("svg", { viewBox: "0 0 452 250", role: "img", class: "pages" });
    [this.table, this.rows] = tableOf(["Level", "Slot", "Leads to", "Maps"]);
    this.facts = make("p", { class: "facts" });
    this.twin = make("details", { class: "twin", ontoggle: () => this.showTable() }, make("summary", {}, "Page tables as a table"), make("div", { class: "scroll" }, this.table));
    this.node = make("section", { class: "view", "aria-label": "Page tables" },
      make("div", { class: "view-head" }, make("h3", {}, "The trampoline's page tables"), make("span", { class: "quiet" }, "each address leads to itself")),
      this.picture, this.facts, this.twin);
    this.watch = new Watch(this.story, ["low", "pages"]);
  }

  entries() { // [level, slot, address] of every entry that is there
    const { story } = this, number = story.tableNumber.get("boot.pages");
    if (number === undefined) return [];
    return [...story.index[number]].filter(([, cell]) => story.state[cell] >= 0).map(([key, cell]) => [...key.split(",").map(Number), story.plain(story.state[cell])])
      .sort((a, b) => b[0] - a[0] || a[1] - b[1]);
  }

  wanted() { // the address that the trampoline will jump to
    const place = this.story.data.boot.low.find(([, , name]) => name === "kernel_phys_addr")[0];
    return this.story.value("boot.low", place) ?? 0;
  }

  update() {
    const changed = changedCells(this.story);
    if (this.watch.same(this.twin.open, changed)) return;
    const entries = this.entries(), fresh = entries.map(([level, slot]) => `${level},${slot}`).filter((key) => changed.has(this.story.cell("boot.pages", key)));
    this.draw(entries, this.wanted(), new Set(fresh));
    this.showTable();
  }

  draw(entries, wanted, fresh) {
    const slotWanted = Math.floor(wanted / 2 ** 30), has = (level, slot) => entries.some(([l, s]) => l === level && s === slot);
    const slots = [...new Set([0, 1, 2, 3, ...entries.filter(([level]) => level === 3).map(([, slot]) => slot), ...(wanted ? [slotWanted] : [])])].sort((a, b) => a - b);
    const nodes = [], row = Math.min(32, 200 / slots.length), y = (n) => 34 + n * row;
    const box = (x, top, width, state, text, more = "") => nodes.push(make("rect", { x, y: top, width, height: row - 6, rx: 3, class: `entry ${state}` }),
      make("text", { x: x + width / 2, y: top + (row - 6) / 2, "font-size": 11 }, text), ...(more ? [make("title", {}, more)] : []));
    const state = (level, slot) => `${has(level, slot) ? "there" : "absent"}${fresh.has(`${level},${slot}`) ? " fresh" : ""}`;
    const join = (x1, y1, x2, y2, on) => nodes.push(make("path", { d: `M${x1} ${y1}C${x1 + 18} ${y1} ${x2 - 18} ${y2} ${x2} ${y2}`, class: `join ${on ? "there" : "absent"}` }));
    ["PML4", "PDPT, 512 slots", "directories", "addresses"].forEach((name, n) => nodes.push(make("text", { x: [36, 138, 243, 372][n], y: 14, "font-size": 11, class: "middle" }, name)));
    box(6, y(0), 60, state(4, 0), "slot 0");
    slots.forEach((slot, n) => {
      const middle = y(n) + (row - 6) / 2;
      join(66, y(0) + (row - 6) / 2, 100, middle, has(4, 0) && has(3, slot));
      join(176, middle, 206, middle, has(3, slot) && has(2, slot));
      join(280, middle, 300, middle, has(2, slot));
      box(100, y(n), 76, `${state(3, slot)}${slot > 511 ? " outside" : ""}`, `slot ${slot}`);
      box(206, y(n), 74, state(2, slot), has(2, slot) ? "512 × 2 MiB" : "none");
      box(300, y(n), 146, has(4, 0) && has(3, slot) && has(2, slot) ? "there" : "absent", `${slot} to ${slot + 1} GiB${wanted && slot === slotWanted ? " ◄ kernel" : ""}`);
    });
    this.picture.setAttribute("viewBox", `0 0 452 ${y(slots.length) + 6}`);
    this.picture.replaceChildren(...nodes);
    const mapped = entries.filter(([level, slot]) => level === 2 && has(3, slot) && has(4, 0)).length;
    const reached = has(4, 0) && has(3, slotWanted) && has(2, slotWanted);
    const says = `${grouped(mapped * 512)} entries of 2 MiB map ${mapped} GiB` + (wanted ? `; the kernel at ${hex(wanted)} is ${reached ? "" : "not "}mapped` : "");
    setText(this.facts, says);
    this.picture.setAttribute("aria-label", `Page tables: ${says}`);
  }

  showTable() {
    if (!this.twin.open) return;
    const names = { 4: "PML4", 3: "PDPT", 2: "page directory" };
    const rows = this.entries().map(([level, slot, address]) => rowOf(names[level], [String(slot), level === 2 ? "512 entries of 2 MiB" : hex(address),
      level === 2 ? `${hex(address)} to ${hex(address + 2 ** 30 - 1)}` : level === 3 ? `${slot} to ${slot + 1} GiB` : "the first 512 GiB"], false));
    this.rows.replaceChildren(...(rows.length ? rows : [make("tr", {}, make("td", { colspan: 4 }, "no page tables yet"))]));
  }
}
