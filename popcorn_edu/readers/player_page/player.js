// The player: the controls, the keys, and the views that follow the current record.
//
// `lane` is the marked lane, shown in every view. Every way of moving ends in go(); every change
// on the screen ends in refresh().

const SPEEDS = [0.5, 1, 2, 4, 8, 16, 32, 64, 250]; // steps per second

class Player {
  constructor(host, root, data) {
    Object.assign(this, { host, root, data });
    this.story = new Story(data);
    this.lane = null;
    this.speed = 3;
    this.timer = 0;
    this.explaining = false;
    this.breakpoints = new Map(); // "record 7" | "kind 3" | "kernel 2" -> its name
    this.predictions = new Predictions(this);
    this.fork = new Fork(this);
    this.build();
    this.diagram = new Diagram(this);
    this.views = [this.diagram];
    if (data.boot) this.views.push(new Gantt(this), new Climb(this), new LowMemory(this), new PageTables(this));
    if (data.ring) this.views.push(new Ring(this));
    if (data.machine) this.views.push(new Machine(this));
    if (data.kernels.length && data.tables.some((table) => table.perKernel)) this.views.push(new Kernels(this));
    this.body.append(this.diagram.node, make("div", { class: "side" }, ...this.views.slice(1).map((view) => view.node)));
    this.buildViewToggles();
    this.host.addEventListener("keydown", (event) => this.key(event));
    for (const name of ["keyup", "keypress"]) this.host.addEventListener(name, (event) => event.stopPropagation());
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
    this.host.dispatchEvent(new Event("pk-went")); // for a clock that two players share
    return story.applied;
  }

  limit() { return Math.min(this.story.count, this.story.horizon); }

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
    if (this.story.applied >= this.limit() && !this.predictions.open()) this.go(0);
    this.live.setAttribute("aria-live", "off"); // a screen reader cannot keep up with a film
    let last = performance.now(), owed = 1;
    const tick = (now) => {
      if (!this.host.isConnected) return this.pause();
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
      if (stop || target >= this.story.count || this.predictions.open()) this.pause();
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
    if (this.breakList.contains(this.root.activeElement)) this.takeFocus(); // its button goes away
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
    const locked = Boolean(this.predictions.open());
    for (const name of ["first", "back"]) setOff(this.buttons[name], n === 0);
    for (const name of ["next", "last"]) setOff(this.buttons[name], n >= story.count || locked);
    setText(this.stamp, i < 0
      ? (story.first ? `Before record ${grouped(story.first)}` : "Before the first record")
      : `Record ${grouped(story.first + i)} · ${grouped(time)} ns · ${story.actors[this.data.who[i]]} · ${story.kindOf(i).name}`);
    if (!this.timer || SPEEDS[this.speed] <= 16 || n >= story.count) {
      setText(this.live, i < 0 ? "Nothing has happened yet: step forward to begin." : `${sentenceCase(story.sentence(i))}.`);
    }
    this.showCause(i);
    this.showChanges(i);
    this.showWhy(i);
    this.predictions.update();
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

  takeFocus() { this.host.focus({ preventScroll: true }); }

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
    const gates = this.predictions.gates.map((gate) => make("span", { class: `tick gate${gate.chosen === null ? "" : " done"}`, style: at(gate.at - 1) }));
    this.ticks.replaceChildren(...breaks, ...gates);
  }

  // -- keys

  key(event) {
    if (!saves(event)) event.stopPropagation(); // other keys in the player are not the notebook's
    const bracket = "[]".includes(event.key); // which some keyboards have behind AltGr or Option
    if (event.metaKey || ((event.ctrlKey || event.altKey) && !bracket)) return;
    const target = event.composedPath()[0], tag = target.tagName, type = target.type;
    if (this.root.querySelector("dialog[open]")) return; // the dialog has the keyboard; Esc is its own
    if (event.key === "Escape") { this.closeMenus(); return; }
    if (tag === "SELECT" || tag === "TEXTAREA" || (tag === "INPUT" && !["range", "checkbox", "radio"].includes(type))) return;
    if (type === "radio" && event.key.startsWith("Arrow")) return;
    if ((event.key === " " || event.key === "Enter") && (tag === "BUTTON" || tag === "SUMMARY" || tag === "INPUT") && type !== "range") return;
    const action = this.actions()[event.key];
    if (!action || (event.shiftKey && ["Home", "End", " "].includes(event.key))) return;
    event.preventDefault();
    action(event);
  }

  actions() {
    return {
      ArrowRight: (event) => (event.shiftKey ? this.jumpKind(1) : this.step(1)),
      ArrowLeft: (event) => (event.shiftKey ? this.jumpKind(-1) : this.step(-1)),
      Home: () => this.step(-Infinity), End: () => this.step(Infinity),
      "[": () => this.jumpMessage(-1), "]": () => this.jumpMessage(1),
      " ": () => this.play(), b: () => this.breakHere(), f: () => this.fork.open(), p: () => this.predictions.goTo(),
      e: () => this.explain(), c: () => {}, r: () => this.reset(),
      "+": () => this.changeSpeed(1), "=": () => this.changeSpeed(1), "-": () => this.changeSpeed(-1),
      "?": () => this.openHelp(),
    };
  }

  closeMenus() {
    for (const menu of this.root.querySelectorAll("details.menu[open]")) {
      if (menu.contains(this.root.activeElement)) menu.querySelector("summary").focus();
      menu.open = false;
    }
  }

  // -- building

  build() {
    const { data, story } = this;
    const button = (name, label, keys, action, ...content) => {
      const node = make("button", { type: "button", "aria-label": label, title: `${label} (${keys})`, "aria-keyshortcuts": keys, onclick: action }, ...content);
      this.buttons[name] = node;
      return node;
    };
    this.buttons = {};
    this.playButton = make("button", { type: "button", class: "main play", title: "Play or pause (space)", onclick: () => this.play() });
    this.showPlaying();
    this.speedSelect = make("select", { "aria-label": "Steps a second", title: "Steps a second (+ and −)", onchange: () => { this.speed = Number(this.speedSelect.value); } },
      ...SPEEDS.map((speed, number) => make("option", { value: number, selected: number === this.speed }, `${speed} / s`)));
    this.slider = make("input", { type: "range", min: 0, max: story.count, step: 1, "aria-label": "Records applied", oninput: () => { this.pause(); this.go(Number(this.slider.value)); } });
    this.ticks = make("div", { class: "ticks", "aria-hidden": "true" });
    this.recordInput = make("input", {
      type: "number", id: "record", "aria-label": "record", min: story.first, max: story.first + story.count - 1,
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
    const ipi = data.kinds.findIndex((kind) => kind.glyph === "triangle" && !kind.hollow);
    if (ipi >= 0) this.jumpSelect.value = `kind ${ipi}`;
    this.viewMenu = make("details", { class: "menu" }, make("summary", {}, "Views"));
    const more = make("div", { class: "bar" },
      make("label", { for: "jump" }, "Jump to"), this.jumpSelect,
      make("div", { class: "group" },
        make("button", { type: "button", onclick: () => this.jumpChosen(-1) }, "previous"),
        make("button", { type: "button", onclick: () => this.jumpChosen(1) }, "next"),
        make("button", { type: "button", onclick: () => this.breakOnChosen() }, "break on it")),
      make("span", { class: "space" }),
      make("div", { class: "group" },
        button("break", "Breakpoint here", "b", () => this.breakHere(), "Break"),
        button("reset", "Reset", "r", () => this.reset(), "Reset"),
        button("fork", "Fork here", "f", () => this.fork.open(), "Fork…"),
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
    const head = make("header", {}, make("h2", {}, data.title), make("p", { class: "quiet" }, data.subtitle));
    if (data.forked) head.append(make("p", { class: "quiet" }, "In Python: ", make("code", {}, data.forked)));
    if (data.notice) head.append(make("p", { class: "notice" }, data.notice));
    this.body = make("div", { class: "body" });
    this.card = make("div", { class: `card${data.compact ? " compact" : ""}` }, head, move, more, this.breakList,
      make("section", { class: "step", "aria-label": "This step" },
        make("div", { class: "step-head" }, make("p", { class: "stamp" }, this.stamp, this.causeLine), explain), this.live, this.changes, this.why),
      this.predictions.question, this.predictions.outcomes, this.status, this.body, this.buildHelp(), this.fork.dialog);
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

  buildHelp() {
    const keys = [["← →", "step back, step forward"], ["Shift + ← →", "previous, next event of the same kind"], ["Home, End", "first, last record"],
      ["[ ]", "previous, next message event of the marked kernel (else of this record's kernel)"], ["Space", "play, pause"], ["+ −", "faster, slower"],
      ["b", "breakpoint on this record"], ["e", "explain: why, and where in Popcorn"], ["p", "predict: go to the question that waits"],
      ["f", "fork: what if this step went otherwise?"], ["r", "reset"], ["?", "this help"], ["Esc", "close a dialog or menu"]];
    this.help = makeDialog("help-title", "Keys", make("p", {}, "They work while the player has the focus: click in it, or reach it with Tab."),
      make("table", { class: "keys" }, make("tbody", {}, ...keys.map(([key, what]) => make("tr", {}, make("th", { scope: "row" }, make("kbd", {}, key)), make("td", {}, what))))),
      make("p", {}, "A click on a mark goes to that record; a click on a kernel marks it in every view."));
    return this.help;
  }

  openHelp() { this.pause(); this.help.showModal(); }

  expose() { // for tests, and for a panel around the player
    const app = this, { story } = this;
    this.host.popcorn = {
      get n() { return story.first + story.applied; },
      get sentence() { return app.live.textContent; },
      get choices() { return app.predictions.choices; },
      get breakpoints() { return [...app.breakpoints.values()]; },
      first: story.first, count: story.count, total: app.data.total,
      go: (n) => app.go(n - story.first), state: () => story.snapshot(),
      sentenceOf: (record) => story.sentence(record - story.first),
    };
  }
}
