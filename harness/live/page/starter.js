// A training from the page: the command line that one would type, and help in writing it.

import { get, post } from "./api.js";
import { h } from "./dom.js";

const RECIPE = "experiment";
const PATIENCE = 300; // milliseconds between questions while it starts

export class Starter {
  constructor(app) {
    this.app = app;
    const { choices } = app.setup;
    this.command = h("textarea", { rows: 3, spellcheck: "false", autocapitalize: "off", "aria-label": "settings", oninput: () => this.#read() });
    this.command.value = "model=gpt tokenizer=char train.steps=1000";
    this.selects = Object.entries(choices).map(([group, said]) => {
      const options = ["", ...Object.keys(said)].map((name) => h("option", { value: name, title: said[name] ?? "" }, name || "(default)"));
      const chosen = h("select", { "aria-label": group, onchange: () => this.#choose(group, chosen.value) }, options);
      const what = h("small", {});
      return { group, said, chosen, what, node: h("label", {}, h("span", {}, group === RECIPE ? "recipe" : group), chosen, what) };
    });
    this.numbers = [["train.steps", "steps"], ["optimizer.lr", "learning rate"], ["seed", "seed"]].map(([group, name]) => {
      const chosen = h("input", { inputmode: "decimal", placeholder: "default", oninput: () => this.#write(group, chosen.value.trim()) });
      return { group, chosen, node: h("label", {}, h("span", {}, name), chosen) };
    });
    this.said = h("p", { class: "note", role: "alert", hidden: true });
    this.state = h("p", { class: "caption", role: "status" });
    this.go = h("button", { type: "submit", class: "primary" }, "Train");
    this.cancel = h("button", { type: "button", onclick: () => this.#close() }, "Close");
    this.node = h("dialog", { class: "starter", "aria-label": "Start a training" },
      h("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); this.#start(); } },
        h("h2", {}, "Start a training"),
        h("div", { class: "fields" }, [...this.selects, ...this.numbers].map((each) => each.node)),
        h("label", { class: "command" }, h("code", {}, "python -m harness.train"), this.command),
        h("p", { class: "caption" }, "Any setting goes, and -m for a sweep: ", h("code", {}, "-m model=bigram,gpt seed=0,1,2")),
        this.said, h("div", { class: "buttons" }, this.state, this.cancel, this.go)));
  }

  open() {
    this.#read();
    this.said.hidden = true;
    this.node.showModal();
    this.command.focus();
  }

  // The command line is what counts; the fields show what it says, and change it.
  #read() {
    for (const { group, chosen } of [...this.selects, ...this.numbers]) {
      const value = this.command.value.match(pattern(group))?.[2] ?? "";
      if (chosen.value !== value) chosen.value = value;
      if (chosen.tagName === "SELECT" && chosen.value !== value) chosen.value = "";
    }
    for (const { said, chosen, what } of this.selects) what.textContent = said[chosen.value] ?? "";
  }

  // A recipe says what is trained, for how long and at which rate: what the line said of that goes.
  #choose(group, name) {
    if (group === RECIPE && name)
      for (const each of [...this.selects, ...this.numbers].map((one) => one.group))
        if (each !== RECIPE && each !== "seed") this.#write(each, "");
    this.#write(group, name);
    this.#read();
  }

  #write(group, value) {
    const setting = value ? `${group}=${value}` : "";
    const line = this.command.value, found = pattern(group);
    this.command.value = (found.test(line) ? line.replace(found, `$1${setting}`) : `${line.trimEnd()} ${setting}`)
      .replace(/ {2,}/g, " ").trim();
  }

  async #start() {
    this.said.hidden = true;
    this.go.disabled = true;
    this.state.textContent = "Checking the settings …";
    try {
      const { training } = await post("start", { command: this.command.value });
      this.training = training;
      this.cancel.textContent = "Cancel";
      await this.#follow(training);
    } catch (error) {
      this.#fail(error.message);
    }
    this.training = null;
    this.go.disabled = false;
    this.state.textContent = "";
    this.cancel.textContent = "Close";
  }

  // Until it has a run, or has said why not.
  async #follow(training) {
    for (const begun = Date.now(); ;) {
      const { runs, exit_code: code, error } = await get("training", { training });
      if (runs.length) {
        this.node.close();
        await this.app.refresh();
        const sweep = /(^|\s)(-m|--multirun)(\s|$)/.test(this.command.value);
        return this.app.go(sweep ? "#/" : `#/run/${runs[0]}`);
      }
      if (code != null) return this.#fail(error ?? "It ended without a run.");
      if (Date.now() - begun > 4000) this.state.textContent = "Preparing the text …";
      await new Promise((resolve) => setTimeout(resolve, PATIENCE));
    }
  }

  #fail(words) {
    this.said.hidden = false;
    this.said.textContent = words;
  }

  #close() {
    if (this.training) post("cancel", { training: String(this.training) }).catch(() => {});
    else this.node.close();
  }
}

const pattern = (group) => new RegExp(`(^|\\s)${group.replace(".", "\\.")}=(\\S*)`);
