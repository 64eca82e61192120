// A run's own page: how far it is, its curves, what it writes, what it is made of.

import { get, post } from "./api.js";
import { byDepth, Chart } from "./chart.js";
import { choice, h, say, select, toggle } from "./dom.js";
import { AXES, age, duration, exact, human, metric, parent, score, title } from "./format.js";
import { badge, progress } from "./overview.js";
import { Ridges } from "./ridges.js";

const SMOOTH = [["0", "no smoothing"], ["0.02", "mean of 2 %"], ["0.05", "mean of 5 %"], ["0.15", "mean of 15 %"]];
const TITLES = { val: "Other validation scores", dead: "Dead units", more: "More" };
const PAGES = { calibration: "Calibration", inside: "Inside" };
const MOST_HISTOGRAMS = 96, AT_ONCE = 32, MOST_NAMES = 250, SURE_FOR = 4000;
// A rule of thumb: updates of a thousandth of the weights (Karpathy, makemore part 3).
const MARKS = [[/^updates?\/.*log10/, { y: -3, label: "−3 is usual" }]];

export class RunPage {
  constructor(app, id) {
    this.app = app;
    this.id = id;
    this.stamp = this.shown = "";
    this.groups = new Map();
    this.zoom = null;
    this.heading = h("h1", {});
    this.sweep = h("a", { hidden: true }, "its sweep");
    this.badge = h("span");
    this.progress = h("small");
    this.bar = h("progress", { max: 1, "aria-label": "share of the budget that is spent" });
    this.error = h("p", { class: "note", hidden: true });
    this.action = h("button", { type: "button", hidden: true, onclick: () => this.#act() });
    this.facts = h("dl", { class: "facts" });
    this.pages = h("p", { class: "chosen", hidden: true });
    const look = app.look;
    this.unzoom = h("button", { type: "button", class: "toggle", hidden: true, onclick: () => this.#look({ zoom: null }) }, "whole run");
    this.controls = h("div", { class: "controls" },
      choice("over", Object.entries(AXES), look.axis, (axis) => this.#look({ axis, zoom: null })),
      toggle("log x", look.logX, (logX) => this.#look({ logX })),
      toggle("log y", look.logY, (logY) => this.#look({ logY })),
      select("smoothing", SMOOTH, String(look.smooth), (smooth) => this.#look({ smooth: Number(smooth) })),
      this.unzoom);
    this.curves = h("div");
    this.samples = new Samples();
    this.config = h("div", { class: "config" });
    this.log = h("pre");
    this.made = h("div", { class: "config" });
    this.terminal = h("pre");
    this.node = h("article", { class: "one" },
      h("p", {}, h("a", { href: "#/" }, "← All runs"), " ", this.sweep),
      h("header", { class: "title" }, this.heading, this.badge, this.bar, this.progress, this.action),
      this.error, this.facts, this.pages, this.controls, this.curves, this.samples.node,
      h("section", {}, h("h2", {}, "Configuration"), this.config),
      h("section", {}, h("h2", {}, "Made with"), this.made, h("p", { class: "caption" }, "In a terminal:"), this.terminal),
      h("details", { class: "log" }, h("summary", {}, "Log"), this.log));
  }

  #look(change) {
    Object.assign(this.app.look, change);
    this.stamp = "";
    this.update();
  }

  async update() {
    const run = this.app.runs.find((each) => each.id === this.id);
    if (!run) return say(this.heading, this.app.asked.has(this.id) ? "There is no such run any more" : "");
    this.run = run;
    this.#head(run);
    const { axis, zoom, logX, logY, smooth } = this.app.look;
    const stamp = JSON.stringify([run.changed, run.status, axis, zoom, logX, logY, smooth]);
    if (stamp === this.stamp || this.asking) return;
    this.asking = true;
    try {
      const details = await get("run", { run: this.id });
      this.#say(details);
      this.#arrange(details);
      const read = await this.#draw();
      this.stamp = read >= 1 ? stamp : "";
    } finally {
      this.asking = false;
    }
  }

  #head(run) {
    say(this.heading, title(run));
    this.sweep.hidden = !run.in_sweep;
    this.sweep.href = `#/?${new URLSearchParams({ sweep: parent(run.folder) })}`;
    this.sweep.onclick = () => Object.assign(this.app.look, { chosen: null, sweep: parent(run.folder) });
    document.title = `${title(run)} · The zoo`;
    badge(this.badge, run);
    this.bar.hidden = run.share == null || run.status === "finished";
    if (run.share != null) this.bar.value = run.share;
    say(this.progress, progress(run));
    const wrong = this.refusal ?? run.error ?? this.complaint; // of its rows
    this.error.hidden = !wrong;
    say(this.error, wrong ?? "");
    this.#offer(run);
    const score_of = (bits, nats) => (run.lossless ? score(bits) : nats == null ? "–" : `${nats.toFixed(3)} nats/token`);
    const facts = [
      ["validation, best", score_of(run.val, run.val_nats), run.lossless ? "bits per byte" : "lossy tokenizer"],
      ["test", score_of(run.test, run.test_nats), run.lossless ? "bits per byte" : "lossy tokenizer"],
      ["certificate", run.certificate ?? "–", ""],
      ["parameters", human(run.parameters), run.active === run.parameters ? "" : `${human(run.active)} active`],
      ["FLOPs per token", human(run.flops_per_token), ""],
      ["steps", run.step == null ? "–" : run.step.toLocaleString("en"), ""],
      ["training time", duration(run.seconds), ""],
      ["speed", human(run.tokens_per_second), "tokens/s"],
      ["peak memory", human(run.peak_memory_bytes), "bytes"],
      ["data", run.data, ""],
      ["begun", age(run.begun), ""],
    ];
    const text = JSON.stringify(facts);
    if (text === this.said) return;
    this.said = text;
    this.facts.replaceChildren(...facts.map(([name, value, unit]) =>
      h("div", {}, h("dt", {}, name), h("dd", {}, value, unit ? h("small", {}, unit) : null))));
  }

  #offer(run) {
    const can = run.can_stop ? "stop" : run.can_resume ? "resume" : null;
    this.action.hidden = !can;
    if (can === this.can) return;
    this.can = can;
    this.sure = false;
    this.action.disabled = false;
    this.action.className = "";
    this.action.textContent = can === "stop" ? (run.in_sweep ? "Stop the sweep" : "Stop") : "Go on with it";
  }

  // To stop takes two clicks; nothing is lost by it, but a slip of the hand should not do it.
  async #act() {
    const { can, action } = this;
    if (can === "stop" && !this.sure) {
      this.sure = true;
      action.className = "sure";
      action.textContent = this.run.in_sweep ? "Really, with its later runs? Work is saved" : "Really? Work is saved";
      this.doubt = setTimeout(() => { this.can = null; this.#offer(this.run); }, SURE_FOR);
      return;
    }
    clearTimeout(this.doubt);
    this.refusal = null;
    action.disabled = true;
    action.textContent = can === "stop" ? "Saving …" : "Starting …";
    try {
      const answer = await post(can, { run: this.id });
      if (answer.training) this.#follow(answer.training);
    } catch (error) {
      this.#refuse(error.message);
    }
  }

  // What was asked for can't be: said until something else is asked for.
  #refuse(words) {
    this.refusal = words;
    this.can = null;
    this.#head(this.run);
  }

  async #follow(training) {
    const { exit_code: code, error, runs } = await get("training", { training });
    if (error) this.#refuse(error);
    else if (code == null && !runs.length) setTimeout(() => this.#follow(training), 300);
  }

  #say(details) {
    this.complaint = details.complaint;
    this.#link(details.pages);
    this.samples.show(details.samples);
    const text = JSON.stringify([details.config, details.versions]);
    if (text !== this.shown) {
      this.shown = text;
      this.config.replaceChildren(...settings(details.config));
      const { machine, versions, git, corpus } = details;
      this.made.replaceChildren(...settings({ code: git, machine, versions, "corpus (SHA-256)": corpus, folder: this.run.folder }));
      const folder = /^[\w./+-]+$/.test(this.run.folder) ? this.run.folder : `'${this.run.folder.replaceAll("'", "'\\''")}'`;
      say(this.terminal, [
        `python -m harness.sample ${folder} --prompt "ROMEO:" --tokens 200`,
        `python -m harness.evaluate ${folder} --calibration`,
        `python -m harness.inside ${folder} --out ${folder}/inside.png`,
      ].join("\n"));
    }
    say(this.log, details.log);
  }

  // What other commands left in its folder opens beside this page.
  #link(pages) {
    if (this.pages.dataset.said === pages.join()) return;
    this.pages.dataset.said = pages.join();
    this.pages.hidden = !pages.length;
    const open = async (page) => window.open((await post("open", { run: this.id, page })).address, "_blank", "noopener");
    this.pages.replaceChildren("Made from it: ", ...pages.map((page) =>
      h("button", { type: "button", class: "link", onclick: () => open(page).catch((error) => this.#refuse(error.message)) }, `${PAGES[page]} ↗`)));
  }

  // One section for each kind of metric; those with many layers stay shut until they are wanted.
  #arrange(details) {
    for (const [name, pictures] of families(details.names)) this.#group(name, pictures, []);
    for (const [name, snapshots] of byFirst(details.snapshot_names)) this.#group(name, [], snapshots);
  }

  #group(name, pictures, snapshots) {
    let group = this.groups.get(name);
    if (!group) {
      const grid = h("div", { class: "grid" });
      const ridges = h("div", { class: "grid small" });
      const more = h("p", { class: "caption", hidden: true });
      const node = name === ""
        ? h("section", {}, grid)
        : h("details", { ontoggle: () => { this.stamp = ""; this.update(); } }, h("summary", {}, TITLES[name] ?? metric(name)), grid, ridges, more);
      group = { name, node, grid, ridges, more, charts: new Map(), histograms: new Map() };
      this.groups.set(name, group);
      this.curves.append(node);
    }
    for (const { heading, lines } of pictures) {
      if (!group.charts.has(heading)) {
        const chart = new Chart(metric(heading), { tall: false, onzoom: (zoom) => this.#look({ zoom }) });
        const last = h("output");
        group.charts.set(heading, { chart, lines, last });
        group.grid.append(h("figure", {}, h("h3", {}, metric(heading), last), chart.node));
      }
      group.charts.get(heading).lines = lines;
    }
    for (const snapshot of snapshots.slice(0, MOST_HISTOGRAMS)) {
      if (group.histograms.has(snapshot)) continue;
      const ridges = new Ridges(snapshot.split("/").slice(1).filter((part) => part !== "histogram").join(" · ") || snapshot);
      group.histograms.set(snapshot, ridges);
      group.ridges.append(ridges.node);
    }
    if (snapshots.length > MOST_HISTOGRAMS) {
      group.more.hidden = false;
      say(group.more, `The first ${MOST_HISTOGRAMS} of ${snapshots.length} histograms.`);
    }
  }

  async #draw() {
    const { axis, zoom, logX, logY, smooth } = this.app.look;
    this.unzoom.hidden = !zoom;
    let read = 1;
    for (const group of this.groups.values()) {
      if (group.node.tagName === "DETAILS" && !group.node.open) continue;
      const name = [...group.charts.values()].flatMap(({ lines }) => lines.map((line) => line.name)).slice(0, MOST_NAMES);
      if (name.length) {
        const query = { run: this.id, name, axis };
        if (zoom) [query.start, query.end] = zoom;
        const found = (await get("curves", query)).runs[this.id];
        if (!found) continue;
        read = Math.min(read, found.read);
        for (const { chart, lines, last } of group.charts.values()) {
          const drawn = byDepth(lines.filter((line) => found.curves[line.name])
            .map((line) => ({ label: line.label, ...found.curves[line.name] })));
          const marks = MARKS.filter(([pattern]) => lines.some((line) => pattern.test(line.name))).map(([, mark]) => mark);
          say(last, drawn.length === 1 ? exact(drawn[0].y.at(-1)) : "");
          chart.show(drawn, { axis: { name: AXES[axis], log: logX }, logY: logY && !marks.length, smooth, marks });
        }
      }
      const wanted = [...group.histograms.keys()];
      for (let first = 0; first < wanted.length; first += AT_ONCE) {
        const found = await get("histograms", { run: this.id, name: wanted.slice(first, first + AT_ONCE) });
        for (const [key, snapshots] of Object.entries(found)) this.#snapshots(group.histograms.get(key), snapshots);
      }
    }
    return read;
  }

  // A list of numbers (a loss for each position, say) is drawn as a curve over its places.
  #snapshots(ridges, snapshots) {
    const last = snapshots.at(-1);
    if (last?.values) {
      ridges.chart ??= new Chart(ridges.name, { tall: false });
      if (!ridges.chart.node.isConnected) ridges.box.replaceWith(ridges.chart.node);
      const lines = [...new Set([snapshots[0], last])].map(({ step, values }, k) => ({
        label: `step ${step}`, style: k, x: values.map((_, place) => place), y: values, low: values, high: values,
      }));
      ridges.chart.show(lines, { axis: { name: "place", log: false } });
    } else ridges.show(snapshots);
  }
}

class Samples {
  constructor() {
    this.found = [];
    this.at = null; // null: the newest, whichever that is
    this.slider = h("input", { type: "range", min: 0, value: 0, "aria-label": "which sample", oninput: () => {
      this.at = Number(this.slider.value) === this.found.length - 1 ? null : Number(this.slider.value);
      this.draw();
    } });
    this.step = h("output");
    this.text = h("pre");
    this.node = h("section", { class: "samples", hidden: true },
      h("h2", {}, "What it writes"), h("div", { class: "controls" }, this.slider, this.step), this.text);
  }

  show(found) {
    this.found = found;
    this.node.hidden = !found.length;
    this.slider.max = Math.max(0, found.length - 1);
    this.slider.hidden = found.length < 2;
    this.draw();
  }

  draw() {
    const at = Math.min(this.at ?? Infinity, this.found.length - 1);
    if (at < 0) return;
    this.slider.value = at;
    say(this.step, `after step ${this.found[at].step.toLocaleString("en")}`);
    say(this.text, this.found[at].text);
  }
}

// Pictures by section: a quantity that every layer has ("activations/blocks.0/mean"), or every head
// of it ("attention/blocks.0/entropy/1"), or every place ("val/loss_by_position/0"), shares one.
function families(names) {
  const groups = new Map();
  const main = ["val/bits_per_byte", "train/loss", "lr", "grad_norm", "grad_norm_clipped"];
  if (!names.includes(main[0])) main[0] = "val/nats_per_token"; // a lossy tokenizer
  const add = (group, heading, line) => {
    if (!groups.has(group)) groups.set(group, new Map());
    const pictures = groups.get(group);
    if (!pictures.has(heading)) pictures.set(heading, []);
    pictures.get(heading).push(line);
  };
  for (const name of order(names)) {
    const parts = name.split("/");
    const [kind, layer, quantity, head] = parts;
    if (/^loss_by/.test(layer)) add(kind, layer, { name, label: parts.slice(2).join("/") });
    else if (parts.length === 4) {
      add(kind, `${kind} ${quantity}`, { name, label: `${layer} · ${head}` });
    } else if (parts.length > 2) {
      add(parts[0], `${parts[0]} ${parts.at(-1)}`, { name, label: parts.slice(1, -1).join("/") });
    } else if (main.includes(name)) {
      const heading = name.replace("_clipped", "");
      add("", heading, { name, label: name === heading ? "as it was" : "clipped" });
    } else if (parts.length === 1) add("more", name, { name, label: name });
    else add(kind, name, { name, label: layer });
  }
  return [...groups].map(([group, pictures]) =>
    [group, [...pictures].map(([heading, lines]) => ({ heading, lines }))]);
}

const FIRST = ["val/bits_per_byte", "train/loss", "val/nats_per_token", "val/perplexity", "lr", "grad_norm"];
const place = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
const order = (names) => [...names].sort((a, b) => place(a) - place(b)); // else as the run wrote them

function byFirst(names) {
  const groups = new Map();
  for (const name of order(names)) {
    const [first] = name.split("/");
    groups.set(first, [...(groups.get(first) ?? []), name]);
  }
  return groups;
}

// A table for each group of settings, and one for what stands alone.
function settings(config) {
  if (typeof config !== "object" || config === null) return [h("pre", {}, String(config ?? ""))];
  const alone = Object.entries(config).filter(([, value]) => !isGroup(value));
  const groups = Object.entries(config).filter(([, value]) => isGroup(value));
  return [...groups, ["run", Object.fromEntries(alone)]].map(([name, values]) =>
    h("section", {}, h("h3", {}, name), h("table", {}, h("tbody", {}, flat(values).map(([key, value]) =>
      h("tr", {}, h("th", { scope: "row", class: "text" }, key), h("td", { class: "text" }, value)))))));
}

const isGroup = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

function flat(values, prefix = "") {
  return Object.entries(values).flatMap(([key, value]) =>
    isGroup(value) && Object.keys(value).length ? flat(value, `${prefix}${key}.`)
      : [[prefix + key, /^\S(.*\S)?$/.test(value) && typeof value === "string" ? value : JSON.stringify(value)]]);
}
