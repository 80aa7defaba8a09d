// Predictions: a question stands before a record, and the run goes on when it is answered.
//
// An unanswered question sets the story's horizon: nothing from its record on is drawn, listed or
// reached. Each answer stays in a list, beside what happened and why.

class Predictions {
  constructor(app) {
    this.app = app;
    this.gates = app.data.ask.map((gate) => ({ ...gate, chosen: null }));
    this.choices = [];
    this.question = make("section", { class: "predict", hidden: true, "aria-label": "Prediction" });
    this.list = make("ol");
    this.outcomes = make("section", { class: "outcomes", hidden: true, "aria-label": "Your predictions" },
      make("h3", {}, "Your predictions"), this.list);
    this.setHorizon();
  }

  setHorizon() {
    const open = this.gates.filter((gate) => gate.chosen === null).map((gate) => gate.at);
    this.app.story.horizon = Math.min(this.app.story.count, ...open);
  }

  open() { // the question that is to be answered now
    return this.gates.find((gate) => gate.chosen === null && gate.at === this.app.story.applied);
  }

  update() {
    const gate = this.open();
    if (gate === this.shown) return;
    this.shown = gate;
    this.question.hidden = !gate;
    if (!gate) return;
    this.app.pause();
    const name = `gate${this.gates.indexOf(gate)}`;
    const fields = gate.options.length
      ? gate.options.map(([value, label]) => make("label", { class: "option" }, make("input", { type: "radio", name, value }), label))
      : [make("label", { class: "option" }, "Your answer: ", make("input", { type: "text", name, size: 30 }))];
    const form = make("form", {
      onsubmit: (event) => {
        event.preventDefault();
        const chosen = new FormData(form).get(name);
        if (!chosen) return this.app.say("Choose an answer first.");
        this.commit(gate, String(chosen));
      },
    }, make("fieldset", {}, make("legend", {}, gate.question), ...fields), make("button", { type: "submit", class: "main" }, "Commit and see"));
    this.question.replaceChildren(make("h3", {}, "Predict"), form);
  }

  commit(gate, chosen) {
    const { app } = this, { story } = app;
    gate.chosen = chosen;
    this.setHorizon();
    app.showTicks();
    app.go(gate.at + 1);
    const right = gate.answer === null ? null : sameAnswer(chosen, gate.answer);
    const choice = { at: story.first + gate.at, question: gate.question, chosen, answer: gate.answer, right };
    this.choices.push(choice);
    const said = (value) => gate.options.find(([option]) => option === value)?.[1] ?? value;
    const verdict = right === null ? "" : right ? "✓ That is what happened. " : `✗ It was: ${said(gate.answer)}. `;
    this.list.append(make("li", {}, make("b", {}, gate.question), ` You said: ${said(chosen)}. `,
      make("span", { class: right === false ? "wrong" : "right" }, verdict),
      `Record ${grouped(choice.at)}: ${sentenceCase(story.sentence(gate.at))}. `,
      make("span", { class: "because" }, gate.why || story.kindOf(gate.at).why)));
    this.outcomes.hidden = false;
    app.host.dispatchEvent(new CustomEvent("popcorn-predict", { bubbles: true, detail: choice }));
    app.say(verdict || "Committed.");
    app.takeFocus();
  }

  goTo() {
    const { app } = this;
    if (!this.open()) {
      const later = this.gates.filter((gate) => gate.chosen === null).sort((a, b) => a.at - b.at)[0];
      if (!later) return app.say("There is no question waiting in this run.");
      app.go(later.at, true);
    }
    this.question.querySelector("input").focus();
  }
}

const sameAnswer = (a, b) => a.trim().toLowerCase() === b.trim().toLowerCase();
