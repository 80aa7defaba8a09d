// Fork here: what if this record went otherwise? The dialog always shows the line of Python that
// answers it. In a live notebook it also asks the notebook's own kernel, over the WebSocket of the
// page's own Jupyter server, and shows the fork's player below. Only numbers and known names go
// into the expression that the kernel evaluates (player.py, fork_for_page).

const KERNEL_WAIT_MS = 120000;
const NO_PYTHON = "No Python is behind this page. Copy the line into a cell of a running notebook.";

class Fork {
  constructor(app) {
    Object.assign(this, { app, story: app.story, settings: app.data.fork.settings });
    this.build();
  }

  build() {
    const option = (value, ...label) => make("label", { class: "option" },
      make("input", { type: "radio", name: "edit", value, checked: value === "drop", onchange: () => this.showLine() }), ...label);
    const choose = (value) => () => { this.form.elements.edit.value = value; this.showLine(); };
    const names = Object.keys(this.settings);
    this.stamp = make("p", { class: "stamp" });
    this.sentence = make("p", { class: "sentence" });
    this.who = make("span");
    this.delay = make("input", { type: "number", min: 1, max: 1e12, step: 1, value: 1000, "aria-label": "Delay in nanoseconds", oninput: choose("delay") });
    this.setting = make("select", { "aria-label": "Setting", onchange: () => { this.suggest(); choose("setting")(); } },
      ...names.map((name) => make("option", { value: name }, name)));
    this.value = make("input", { type: "text", size: 8, "aria-label": "New value", oninput: choose("setting") });
    this.fault = make("select", { "aria-label": "Fault", onchange: () => { this.explain(); choose("fault")(); } });
    this.models = make("span", { class: "quiet" });
    this.line = make("code");
    this.copyButton = make("button", { type: "button", onclick: () => this.copy() }, "Copy");
    this.runButton = make("button", { type: "submit", class: "main" }, "Fork and show it below");
    this.form = make("form", { novalidate: true, onsubmit: (event) => { event.preventDefault(); this.run(); } },
      make("fieldset", {}, make("legend", {}, "What if…"),
        option("drop", "this never happens"),
        option("delay", this.who, this.delay, " ns"),
        names.length ? option("setting", "from here on the setting ", this.setting, " is ", this.value) : null,
        this.faulty = option("fault", "here goes wrong: ", this.fault, " ", this.models)),
      make("p", {}, "The same in Python:"), make("div", { class: "code" }, this.line, this.copyButton), this.runButton);
    this.status = make("p", { class: "status", role: "status" });
    this.dialog = makeDialog("fork-title", "Fork here", this.stamp, this.sentence, this.form, this.status);
    if (names.length) this.suggest();
  }

  offer(i) { // the deck's faults that are possible at a record of this kind
    const { faults } = this.app.data.fork, kind = this.story.kindOf(i).name, old = this.fault.value;
    const names = Object.keys(faults).filter((one) => !faults[one].kinds.length || faults[one].kinds.includes(kind));
    this.fault.replaceChildren(...names.map((one) => make("option", { value: one, selected: one === old }, one)));
    this.faulty.hidden = !names.length;
    if (!names.length && this.form.elements.edit.value === "fault") this.form.elements.edit.value = "drop";
    this.explain();
  }

  explain() { setText(this.models, this.fault.value ? `(${this.app.data.fork.faults[this.fault.value].models})` : ""); }

  record() { return this.story.first + this.story.applied - 1; }

  isLive() { return Boolean(this.app.data.live && jupyterServer()); }

  suggest() {
    const old = this.settings[this.setting.value];
    this.value.value = typeof old === "boolean" ? (old ? "False" : "True") : String(old);
  }

  open() {
    const { app, story } = this, i = story.applied - 1;
    app.pause();
    if (i < 0) return app.say("Step to a record first: the fork is made at the record that is shown.");
    setText(this.stamp, `At record ${grouped(this.record())}, ${grouped(story.time[i])} ns`);
    setText(this.sentence, `${sentenceCase(story.sentence(i))}.`);
    this.offer(i);
    setText(this.who, `${story.actors[app.data.who[i]]} is held up before it for `);
    this.showLine();
    this.runButton.hidden = !this.isLive();
    setText(this.status, this.isLive() ? "" : NO_PYTHON);
    this.dialog.showModal();
    this.form.querySelector("input:checked").focus();
  }

  edit() { // [name, value as Python writes it], or a sentence saying what is wrong
    const what = this.form.elements.edit.value;
    if (what === "drop") return ["drop", "True"];
    if (what === "delay") {
      const ns = this.delay.value.trim();
      return /^[1-9]\d{0,11}$/.test(ns) ? ["delay", ns] : "The delay must be a whole number of nanoseconds, 1 or more.";
    }
    if (what === "fault") return ["fault", JSON.stringify(this.fault.value)];
    const name = this.setting.value, value = this.value.value.trim();
    if (typeof this.settings[name] === "boolean") return /^(True|False)$/.test(value) ? [name, value] : `${name} must be True or False.`;
    return /^\d{1,12}$/.test(value) ? [name, String(Number(value))] : `${name} must be a whole number.`;
  }

  showLine() {
    const edit = this.edit(), wrong = typeof edit === "string";
    const at = this.record(), call = edit[0] === "fault" ? `inject(${edit[1]}, at=${at})` : `fork(${at}, ${edit[0]}=${edit[1]})`;
    setText(this.line, wrong ? edit : `${this.app.data.fork.name}.${call}.play()`);
    setOff(this.copyButton, wrong);
    setOff(this.runButton, wrong);
  }

  async copy() {
    if (typeof this.edit() === "string") return;
    try {
      await navigator.clipboard.writeText(this.line.textContent);
      setText(this.status, "Copied.");
    } catch {
      getSelection().selectAllChildren(this.line);
      setText(this.status, "The browser does not let the page copy; the line is selected.");
    }
  }

  async run() {
    const edit = this.edit();
    if (this.running) return;
    if (typeof edit === "string") return setText(this.status, edit);
    if (!this.isLive()) return setText(this.status, NO_PYTHON);
    setText(this.status, "Asking the notebook's kernel…");
    this.running = true;
    try {
      const html = await askKernel(this.app.data.live, `${this.record()}, ${JSON.stringify(edit[0])}, ${edit[1]}`);
      this.dialog.close();
      await showBelow(this.app.host, html);
    } catch (problem) {
      setText(this.status, problem.plain || `The fork failed: ${problem.message}`);
    } finally {
      this.running = false;
    }
  }
}

async function showBelow(host, html) {
  const box = make("div", { class: "pk-fork" });
  host.after(box);
  box.innerHTML = html;
  for (const old of box.querySelectorAll("script")) { // a script set by innerHTML does not run by itself
    const fresh = document.createElement("script");
    for (const { name, value } of old.attributes) fresh.setAttribute(name, value);
    fresh.textContent = old.textContent;
    old.replaceWith(fresh);
  }
  const player = box.querySelector(".pk-player"), calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  await player?.ready;
  player?.scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
  player?.focus({ preventScroll: true });
}

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
  const found = await fetch(at, { headers: token ? { Authorization: `token ${token}` } : {} });
  if (!found.ok) throw plain("The kernel that made this run is gone. Run the cell again, then fork.");
  const session = Math.random().toString(36).slice(2);
  const address = new URL(`${at.pathname}/channels`, at);
  address.protocol = at.protocol === "https:" ? "wss:" : "ws:";
  address.searchParams.set("session_id", session);
  if (token) address.searchParams.set("token", token);
  const call = `fork_for_page(${JSON.stringify(live.run)}, ${edit})`;
  const answer = await evaluate(address, session, `__import__("popcorn_edu.readers.player", fromlist=["player"]).${call}`);
  const result = answer.user_expressions?.fork;
  if (result?.status !== "ok") throw plain(result?.evalue || answer.evalue || "The kernel could not make the fork.");
  if (!result.data["text/html"]) throw plain(result.data["text/plain"] || "The kernel's answer holds no player.");
  return result.data["text/html"];
}

// One execute_request in Jupyter's own messages (a text frame for each, channel named inside).
function evaluate(address, session, expression) {
  const id = `${session}-fork`, socket = new WebSocket(address);
  const request = {
    channel: "shell", parent_header: {}, metadata: {}, buffers: [],
    header: { msg_id: id, session, username: "", date: new Date().toISOString(), msg_type: "execute_request", version: "5.3" },
    content: { code: "", silent: true, store_history: false, user_expressions: { fork: expression }, allow_stdin: false, stop_on_error: false },
  };
  return new Promise((resolve, reject) => {
    const refuse = (sentence) => () => reject(plain(sentence));
    setTimeout(refuse("The kernel did not answer in two minutes; it may be busy with another cell."), KERNEL_WAIT_MS);
    socket.onerror = socket.onclose = refuse("The connection to the notebook's kernel was refused or lost.");
    socket.onopen = () => socket.send(JSON.stringify(request));
    socket.onmessage = ({ data }) => {
      if (typeof data !== "string") return;
      const message = JSON.parse(data);
      if (message.parent_header?.msg_id === id && message.header.msg_type === "execute_reply") resolve(message.content);
    };
  }).finally(() => {
    socket.onclose = socket.onerror = null;
    socket.close();
  });
}
