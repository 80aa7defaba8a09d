// The machine: its CPUs on a circle, by kernel, in the places that networkx computed in Python.

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
