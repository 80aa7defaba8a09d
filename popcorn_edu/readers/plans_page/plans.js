// The page's half of the plan view: it tells Python what was done, and keeps the keyboard's place
// while Python writes blocks anew. What an action means is Python's business (plan_widget.py).
//
// Actions go one at a time: the channel is a widget's value, of which only the newest may arrive.
// Python answers each with a message that carries its number.
//
//   data-do      the action of a button, a field, or a thing in a picture
//   data-key     names an element across rewrites, so that the focus can come back to it
//   data-roving  a picture whose things are reached by arrow keys, and by Tab as one
//   data-form    fields with data-name that go along with the button inside

(() => {
  const here = document.currentScript.parentElement;
  const SUPPRESS = "data-lm-suppress-shortcuts";
  const WAIT_MS = 200; // after the last letter, before a typed line is looked at
  const ANSWER_MS = 8000; // then the person is told that nobody answers

  const keyOf = (node) => node.dataset.key ?? node.dataset.do;

  class Page {
    constructor(root) {
      this.root = root;
      this.count = 0;
      this.waiting = []; // actions that Python has not been told yet
      root.setAttribute(SUPPRESS, "true");
      root.querySelector(".pk-block-message .widget-html-content")?.setAttribute("role", "status");
      root.querySelector(".pk-channel").setAttribute("aria-hidden", "true");
      this.channel = root.querySelector(".pk-channel input");
      this.channel.tabIndex = -1;
      root.addEventListener("click", (event) => this.clicked(event));
      root.addEventListener("change", (event) => this.changed(event));
      root.addEventListener("input", (event) => this.typed(event));
      root.addEventListener("keydown", (event) => this.pressed(event));
      root.addEventListener("pointerdown", (event) => this.grabbed(event));
      root.addEventListener("pointerover", (event) => this.dragged(event));
      window.addEventListener("pointerup", () => this.dropped());
      root.addEventListener("focusin", (event) => this.focused(event.target));
      root.addEventListener("toggle", (event) => this.toggled(event.target), true);
      this.open = new Set();
      new MutationObserver(() => this.rewritten()).observe(root, { childList: true, subtree: true });
      this.rewritten();
      this.hideStatic();
    }

    send(action) {
      const last = this.waiting.at(-1);
      if (last && last.do === "line" && action.do === "line") this.waiting.pop(); // only the newest
      this.waiting.push(action);
      if (!this.asked) this.next();
    }

    next() {
      clearTimeout(this.patience);
      const action = this.waiting.shift();
      this.asked = action ? ++this.count : 0;
      if (!action) return;
      this.channel.value = JSON.stringify({ ...action, n: this.asked });
      this.channel.dispatchEvent(new Event("input", { bubbles: true }));
      this.channel.dispatchEvent(new Event("change", { bubbles: true }));
      this.patience = setTimeout(() => this.unanswered(), ANSWER_MS);
    }

    unanswered() {
      this.waiting = [];
      this.asked = 0;
      const message = this.root.querySelector(".pk-block-message .widget-html-content");
      message.textContent = "Python does not answer. Is the notebook's kernel busy, or gone? Run the cell again.";
    }

    answered() {
      const number = Number(this.root.querySelector(".pk-block-message [data-n]")?.dataset.n);
      if (this.asked && number === this.asked) this.next();
    }

    hideStatic() { // the picture needs no Python: it makes room only where there is some
      const area = this.root.closest(".jp-OutputArea, .output_area")?.parentElement || document;
      const twins = [...area.querySelectorAll(".pk-plan-static")];
      const live = document.getElementById("jupyter-config-data");
      if (!live && twins.length) this.root.style.display = "none"; // a saved page
      if (!live) return;
      for (const twin of twins) {
        twin.hidden = true;
        const child = twin.closest(".jp-OutputArea-child");
        if (child) child.style.display = "none";
      }
    }

    // doing

    act(node, more = {}) {
      const { do: what, key: _, ...data } = node.dataset;
      const form = node.closest("[data-form]");
      const fields = {};
      if (form) for (const part of form.querySelectorAll("[data-name]")) fields[part.dataset.name] = part.value;
      if (what === "cpu") return this.send({ do: more.shift ? "node" : "cpus", cpus: data.cpu });
      if (what === "kernel") return this.send({ do: "choose", kernel: data.kernel });
      this.send({ do: what, ...data, ...fields, ...more });
    }

    clicked(event) {
      const node = event.target.closest("[data-do]");
      if (!node || /^(INPUT|SELECT|TEXTAREA)$/.test(node.tagName) || this.skipClick) { this.skipClick = false; return; }
      if (node.getAttribute("aria-disabled") === "true") return;
      this.act(node, { shift: event.shiftKey });
    }

    changed(event) {
      const node = event.target;
      if (node === this.channel || !node.dataset.do || node.dataset.live || node.sent === node.value) return;
      this.act(node, node.type === "checkbox" ? { checked: node.checked } : { value: node.value });
    }

    typed(event) {
      const node = event.target;
      if (!node.dataset.live) return;
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.act(node, { value: node.value }), WAIT_MS);
    }

    pressed(event) {
      const node = event.target;
      if (event.key === "Enter" && node.matches("input[type=text][data-do]")) { // not only when it is left
        node.sent = node.value;
        this.act(node, { value: node.value });
      }
      const roving = node.closest("[data-roving]");
      if (!roving || event.ctrlKey || event.metaKey || event.altKey) return;
      const { key } = event;
      const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (key === "Enter" || key === " ") this.act(node, { shift: event.shiftKey });
      else if (key === "[" || key === "]") this.send({ do: "choose", kernel: key === "]" ? "next" : "previous" });
      else if (roving.dataset.zoom && "+-=".includes(key)) this.send({ do: "zoom", to: key === "-" ? "out" : "in" });
      else if (roving.dataset.zoom && key === "0") this.send({ do: "zoom", to: "all" });
      else if (roving.dataset.zoom && event.shiftKey && arrows[key] && arrows[key][0]) this.send({ do: "zoom", to: key === "ArrowLeft" ? "left" : "right" });
      else if (arrows[key]) this.move(roving, node, arrows[key]);
      else if (key === "Home" || key === "End") this.moveTo(this.stops(roving).at(key === "Home" ? 0 : -1));
      else return;
      event.preventDefault();
      event.stopPropagation();
    }

    // the keyboard inside a picture: the nearest thing in the arrow's direction

    stops(roving) { return [...roving.querySelectorAll("[data-do]")]; }

    move(roving, from, [dx, dy]) {
      const middle = (node) => { const box = node.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; };
      const [x, y] = middle(from);
      let best = null, least = Infinity;
      for (const node of this.stops(roving)) {
        if (node === from) continue;
        const [a, b] = middle(node);
        const along = (a - x) * dx + (b - y) * dy, across = Math.abs((a - x) * dy) + Math.abs((b - y) * dx);
        if (along < 1) continue;
        const far = along + 4 * across;
        if (far < least) [best, least] = [node, far];
      }
      const stops = this.stops(roving), next = stops[stops.indexOf(from) + (dx || dy)];
      this.moveTo(best && (dy || least < 400) ? best : next);
    }

    moveTo(node) { if (node) { this.focused(node); node.focus({ preventScroll: false }); } }

    focused(node) {
      const roving = node.closest?.("[data-roving]");
      if (roving && node.dataset.do) for (const stop of this.stops(roving)) stop.setAttribute("tabindex", stop === node ? "0" : "-1");
      this.last = node.dataset?.do || node.dataset?.key ? { key: keyOf(node), block: this.blockOf(node), roving: roving?.dataset.roving } : null;
    }

    blockOf(node) { return [...(node.closest("[class*='pk-block-']")?.classList ?? [])].find((name) => name.startsWith("pk-block-")); }

    toggled(node) {
      if (!node.dataset?.key) return;
      if (node.open) this.open.add(node.dataset.key); else this.open.delete(node.dataset.key);
    }

    // Python has written a block anew: give the keyboard its place back

    rewritten() {
      this.answered();
      for (const roving of this.root.querySelectorAll("[data-roving]")) {
        const stops = this.stops(roving);
        const kept = stops.find((stop) => this.last && keyOf(stop) === this.last.key) || stops.find((stop) => stop.getAttribute("tabindex") === "0") || stops[0];
        for (const stop of stops) stop.setAttribute("tabindex", stop === kept ? "0" : "-1");
      }
      for (const node of this.root.querySelectorAll("details[data-key]")) if (this.open.has(node.dataset.key)) node.open = true;
      const lost = document.activeElement === document.body || document.activeElement === null || !document.activeElement.isConnected;
      if (!lost || !this.last) return;
      const block = this.root.querySelector(`.${this.last.block}`) || this.root;
      const roving = this.last.roving && block.querySelector(`[data-roving="${this.last.roving}"]`);
      const node = [...block.querySelectorAll("[data-do], [data-key]")].find((one) => keyOf(one) === this.last.key)
        || roving?.querySelector("[tabindex='0']"); // what had the focus is out of the picture
      if (!node) return;
      node.focus({ preventScroll: true });
      if (node.matches("input[type=text]")) node.setSelectionRange(node.value.length, node.value.length);
    }

    // dragging over CPUs gives all of them to the chosen kernel

    grabbed(event) {
      const node = event.target.closest("[data-do='cpu']");
      if (!node || event.button !== 0 || event.shiftKey) return;
      this.drag = [node];
    }

    dragged(event) {
      const node = event.target.closest?.("[data-do='cpu']");
      if (!this.drag || !node || this.drag.includes(node)) return;
      this.drag.push(node);
      for (const one of this.drag) one.classList.add("pk-dragged");
      event.preventDefault();
    }

    dropped() {
      const drag = this.drag;
      this.drag = null;
      if (!drag || drag.length < 2) return;
      this.skipClick = true;
      setTimeout(() => { this.skipClick = false; }, 50);
      this.send({ do: "cpus", cpus: drag.map((node) => node.dataset.cpu).join(",") });
    }
  }

  const start = () => {
    const root = here.isConnected && here.closest(".pk-plans");
    if (root && root.querySelector(".pk-channel input") && root.querySelector(".pk-block-message .widget-html-content")) {
      root.popcornPlan ??= new Page(root);
    } else requestAnimationFrame(start);
  };
  start();

  window.popcornPlanKeys ??= (event) => { // before anybody else hears of the key; Ctrl S stays JupyterLab's
    const root = event.target.closest?.(".pk-plans");
    if (!root) return;
    const saves = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s";
    root.toggleAttribute(SUPPRESS, !saves);
  };
  window.addEventListener("keydown", window.popcornPlanKeys, true);
})();
