// Per-kernel state: one row for each kernel, one column for each table that has rows by kernel.
// A *steady* column, which only the run's first record fills, is left out until it is asked for.

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
    const moving = new Set(); // tables that some later record changes
    const begun = this.story.first ? 0 : this.story.patchStart[Math.min(1, this.story.count)];
    this.story.patchCell.subarray(begun).forEach((cell) => moving.add(data.cellTable[cell]));
    for (const table of this.tables) table.look = { class: moving.has(table.number) ? null : "steady" };
    this.steady = this.tables.filter((table) => table.look.class).length;
    this.cells = [];
    this.parts = [...new Set(this.tables.map((table) => table.part))].map((part) => ({
      th: make("th", { scope: "colgroup" }, part), tables: this.tables.filter((table) => table.part === part),
    }));
    const body = data.kernels.map((kernel) => make("tr", { "data-kernel": kernel },
      make("th", { scope: "row" }, make("button", { type: "button", class: "link", "aria-pressed": "false", onclick: () => app.selectKernel(kernel) },
        chipOf(kernel), make("span", { class: "hide" }, `kernel ${kernel}`))),
      ...this.tables.map((table) => {
        const td = make("td", table.look);
        this.cells.push({
          td, cell: this.story.index[table.number].get(String(kernel)), value: -2, fresh: false,
          group: this.story.groupNumber.get(`${table.number} ${kernel}`), isSet: table.isSet,
        });
        return td;
      })));
    this.rows = body;
    this.table = make("table", { class: "state" },
      make("thead", {},
        make("tr", {}, make("td", {}), ...this.parts.map((part) => part.th)),
        make("tr", {}, make("th", { scope: "col" }, "kernel"),
          ...this.tables.map((table) => make("th", { scope: "col", ...table.look }, table.name.replaceAll("_", " "))))),
      make("tbody", {}, ...body));
    this.left = make("span");
    this.toggle = make("button", { type: "button", class: "link", onclick: () => this.showSteady(!this.whole) });
    this.node = make("section", { class: "view kernels", "aria-label": "State of each kernel" },
      make("div", { class: "view-head" }, make("h3", {}, "What each kernel knows"), make("span", { class: "quiet" }, "a frame marks what this step changed"),
        this.steady ? make("span", { class: "quiet left-out" }, this.left, " ", this.toggle) : null),
      make("div", { class: "scroll tall" }, this.table));
    this.showSteady(this.steady === this.tables.length);
  }

  showSteady(whole) {
    const one = this.steady === 1, columns = one ? "1 column" : `${this.steady} columns`;
    this.whole = whole;
    setClass(this.table, "whole", whole);
    for (const { th, tables } of this.parts) {
      const shown = tables.filter((table) => whole || !table.look.class).length;
      th.colSpan = Math.max(1, shown);
      th.hidden = !shown;
    }
    setText(this.left, whole ? `${columns} never ${one ? "changes" : "change"}:`
      : `${columns} that never ${one ? "changes is" : "change are"} left out:`);
    setText(this.toggle, `${whole ? "leave" : "show"} ${one ? "it" : "them"}${whole ? " out" : ""}`);
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
      const key = data.cellKey[cell].slice(1).join(" "), value = story.plain(story.state[cell]), text = story.text(story.state[cell]);
      parts.push(item.isSet ? key : value?.kind ? text : `${key}: ${text}`); // an event says itself what it is
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
