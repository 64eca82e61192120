// All runs in one table, and any set of them side by side in two pictures.

import { get } from "./api.js";
import { Chart, MOST_LINES, swatch } from "./chart.js";
import { choice, h, say, select, toggle } from "./dom.js";
import { age, AXES, duration, human, isPerToken, labels, metric, score, status, title, whole } from "./format.js";

const MOST_COMPARED = 100;
const SMOOTH = [["0", "no smoothing"], ["0.02", "mean of 2 %"], ["0.05", "mean of 5 %"], ["0.15", "mean of 15 %"]];
// The server sorts and filters: it knows all runs, the page only those that are listed.
const COLUMNS = [
  { name: "run", text: true },
  { name: "status", text: true },
  { name: "val", unit: "bits/byte" },
  { name: "test", unit: "bits/byte" },
  { name: "steps", wide: true },
  { name: "parameters", wide: true },
  { name: "training", unit: "time", wide: true },
  { name: "speed", unit: "tokens/s", wide: true },
  { name: "begun", wide: true },
];

export class Overview {
  constructor(app) {
    this.app = app;
    this.rows = new Map();
    this.styles = new Map();
    this.stamp = "";
    this.keys = [];
    const look = app.look;
    this.charts = ["left", "right"].map((side) => {
      const chart = new Chart(metric(look[side]), { onzoom: (range) => this.#set({ zoom: range }) });
      const heading = select("what is drawn", [[look[side], metric(look[side])]], look[side],
        (name) => this.#set({ [side]: name }));
      heading.className = "metric";
      const note = h("p", { class: "caption", hidden: true });
      return { side, chart, heading, note, node: h("section", { class: "picture" }, heading, chart.node, note) };
    });
    this.unzoom = h("button", { type: "button", class: "toggle", hidden: true, onclick: () => this.#set({ zoom: null }) }, "whole run");
    const controls = h("div", { class: "controls" },
      choice("over", Object.entries(AXES), look.axis, (axis) => this.#set({ axis, zoom: null })),
      toggle("log x", look.logX, (logX) => this.#set({ logX })),
      toggle("log y", look.logY, (logY) => this.#set({ logY })),
      select("smoothing", SMOOTH, String(look.smooth), (smooth) => this.#set({ smooth: Number(smooth) })),
      this.unzoom);
    this.filter = h("input", {
      type: "search", placeholder: "Filter: gpt char finished", "aria-label": "filter the runs", value: app.list.words,
      oninput: () => this.#list({ words: this.filter.value }),
    });
    this.count = h("small");
    this.rest = h("p", { class: "caption rest", hidden: true });
    this.chosen = h("p", { class: "chosen" });
    this.heads = COLUMNS.map((column) => h("th", { scope: "col", class: classes(column) },
      h("button", { type: "button", onclick: () => this.#order(column) }, column.name,
        column.unit ? h("small", {}, column.unit) : null)));
    this.body = h("tbody");
    this.differences = h("section", { class: "differences" });
    this.empty = h("section", { class: "nothing", hidden: true });
    this.full = h("div", {},
      controls, h("div", { class: "pictures" }, this.charts.map((each) => each.node)),
      h("div", { class: "listbar" }, h("h2", {}, "Runs", this.count), this.chosen, this.filter),
      h("div", { class: "scroll" }, h("table", { class: "runs" },
        h("thead", {}, h("tr", {}, h("th", { class: "pick" }, h("span", { class: "unseen" }, "compare")), this.heads)), this.body)),
      this.rest, this.differences);
    this.#mark();
    this.node = h("div", {}, this.empty, this.full);
  }

  // What changes how the pictures look, here and in the address.
  #set(change) {
    Object.assign(this.app.look, change);
    this.app.remember();
    this.stamp = "";
    this.update();
  }

  // What changes which runs are listed.
  #list(change) {
    Object.assign(this.app.list, change);
    this.app.refresh().catch(() => {}); // asked again soon, and said then
  }

  #order(column) {
    const { sort, up } = this.app.list;
    this.#list({ sort: column.name, up: sort === column.name ? !up : column.text === true });
    this.#mark();
  }

  #mark() {
    const { sort, up } = this.app.list;
    for (const [k, head] of this.heads.entries()) {
      if (COLUMNS[k].name === sort) head.setAttribute("aria-sort", up ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
  }

  update() {
    const { runs, found } = this.app;
    this.full.hidden = found.known === 0;
    this.empty.hidden = found.known > 0;
    if (!found.known) return this.#welcome();
    this.picked = this.#pick(runs);
    this.#style(this.picked);
    this.#table(runs);
    this.#curves();
    this.#differ();
  }

  #welcome() {
    if (this.empty.childElementCount) return;
    this.empty.append(h("h2", {}, "No runs here yet"),
      h("p", {}, "Looked for in ", h("code", {}, this.app.setup.folders.join(", ")), ". Start a training here, or in a terminal:"),
      h("pre", {}, "python -m harness.train model=gpt tokenizer=char"));
  }

  // The runs that were chosen, or those of a sweep as they begin; else those that train and the newest.
  #pick(runs) {
    const { chosen, sweep } = this.app.look;
    if (sweep) return runs.filter((run) => run.folder.startsWith(`${sweep}/`));
    const followed = new Set(this.app.found.followed);
    return runs.filter((run) => (chosen ?? followed).has(run.id));
  }

  // An architecture has one colour, and its seeds share it, as long as the page is open; whoever joins.
  #style(picked) {
    const { colours } = this.app;
    this.styles.clear();
    for (const run of [...picked].sort((a, b) => a.begun - b.begun)) {
      const name = kind(run);
      if (!colours.has(name)) colours.set(name, colours.size);
      this.styles.set(run.id, colours.get(name));
    }
  }

  #toggle(id, on) {
    const chosen = new Set(this.picked.map((run) => run.id));
    if (on) chosen.add(id); else chosen.delete(id);
    this.#set({ chosen, sweep: null });
  }

  #table(runs) {
    const byId = new Map(runs.map((run) => [run.id, run]));
    const shown = this.app.found.listed.map((id) => byId.get(id));
    const several = new Set(runs.map((run) => run.data)).size > 1;
    const rows = shown.map((run) => this.#row(run, several));
    for (const id of [...this.rows.keys()]) if (!byId.has(id)) this.rows.delete(id);
    if (rows.length !== this.body.rows.length || rows.some((row, k) => row !== this.body.rows[k])) {
      this.body.replaceChildren(...rows);
    }
    this.#say(shown);
  }

  #say(shown) {
    const { chosen, sweep } = this.app.look;
    const { words } = this.app.list;
    this.#sayRest(shown.length);
    const count = this.picked.length;
    const text = chosen ? `${whole(count)} compared` : `following the newest ${count}`;
    const stamp = JSON.stringify([text, sweep, shown.map((run) => run.id), words]);
    if (this.chosen.dataset.said === stamp) return;
    this.chosen.dataset.said = stamp;
    const few = shown.slice(0, MOST_COMPARED);
    const these = few.length < shown.length ? `compare the first ${few.length}` : words ? `compare these ${few.length}` : "compare all";
    const link = (name, set) => h("button", { type: "button", class: "link", onclick: () => this.#set({ chosen: set, sweep: null }) }, name);
    this.chosen.replaceChildren(sweep ? `following ${sweep}` : text,
      link(these, new Set(few.map((run) => run.id))),
      chosen || sweep ? link("follow the newest", null) : "", count ? link("none", new Set()) : "");
  }

  // How many runs there are beside those in the table.
  #sayRest(shown) {
    const { known, matching, unread, beyond } = this.app.found;
    const part = matching < known - unread || shown < matching;
    say(this.count, part ? `${whole(shown)} of ${whole(known)}` : whole(known));
    say(this.rest, [
      shown < matching ? `The first ${whole(shown)} of ${whole(matching)} are listed; filter or sort to see others.` : "",
      unread ? `${whole(unread)} are not read yet.` : "",
      beyond ? `${whole(beyond)} more were found than the page follows: start it with the folders that matter.` : "",
    ].filter(Boolean).join(" "));
    this.rest.hidden = !this.rest.textContent;
  }

  #row(run, several) {
    let row = this.rows.get(run.id);
    if (!row) {
      row = this.#build(run);
      this.rows.set(run.id, row);
    }
    const parts = row.parts, style = this.styles.get(run.id);
    const on = style != null;
    if (parts.box.checked !== on) parts.box.checked = on;
    if (parts.style !== style) {
      parts.style = style;
      parts.swatch.replaceChildren(on ? swatch(style) : "");
    }
    row.classList.toggle("picked", on);
    say(parts.name, title(run));
    say(parts.folder, several ? `${run.data} · ${run.folder}` : run.folder);
    badge(parts.badge, run);
    say(parts.progress, progress(run));
    parts.bar.hidden = !["running", "stopped", "lost", "silent"].includes(run.status) || run.share == null;
    if (!parts.bar.hidden) parts.bar.value = run.share;
    say(parts.val, run.lossless ? score(run.val) : perToken(run.val_nats));
    say(parts.test, run.lossless ? score(run.test) : perToken(run.test_nats));
    say(parts.step, run.step == null ? "–" : run.step.toLocaleString("en"));
    say(parts.parameters, human(run.parameters));
    say(parts.seconds, duration(run.seconds));
    say(parts.speed, human(run.tokens_per_second));
    say(parts.begun, age(run.begun));
    return row;
  }

  #build(run) {
    const box = h("input", { type: "checkbox", "aria-label": `compare ${title(run)}`, onchange: () => this.#toggle(run.id, box.checked) });
    const made = (tag, attributes = {}) => h(tag, attributes);
    const parts = {
      box, swatch: made("span", { class: "line" }), name: made("a", { href: `#/run/${run.id}` }), folder: made("small"),
      badge: made("span"), progress: made("small"), bar: h("progress", { max: 1, hidden: true, "aria-label": "share of the budget that is spent" }),
      val: made("td"), test: made("td"), step: made("td", { class: "wide" }), parameters: made("td", { class: "wide" }),
      seconds: made("td", { class: "wide" }), speed: made("td", { class: "wide" }), begun: made("td", { class: "wide" }),
    };
    const row = h("tr", {},
      h("td", { class: "pick" }, h("label", {}, box, parts.swatch)),
      h("td", { class: "text run" }, parts.name, parts.folder),
      h("td", { class: "text state" }, parts.badge, parts.bar, parts.progress),
      parts.val, parts.test, parts.step, parts.parameters, parts.seconds, parts.speed, parts.begun);
    row.parts = parts;
    return row;
  }

  // Asked for only when something that is drawn has changed.
  async #curves() {
    const look = this.app.look;
    const drawn = this.picked.slice(0, MOST_LINES);
    const stamp = JSON.stringify([drawn.map((run) => [run.id, run.changed]), look.left, look.right, look.axis, look.zoom]);
    if (stamp === this.stamp || this.asking) return;
    this.asking = true;
    try {
      const query = { run: drawn.map((run) => run.id), name: [look.left, look.right], axis: look.axis };
      if (look.zoom) [query.start, query.end] = look.zoom;
      const answer = await get("curves", query);
      this.stamp = Object.values(answer.runs).every((each) => each.read >= 1) ? stamp : "";
      this.#draw(drawn, answer);
    } finally {
      this.asking = false;
    }
  }

  #draw(drawn, answer) {
    const { look } = this.app;
    this.unzoom.hidden = !look.zoom;
    const names = labels(drawn);
    const tokenizers = new Set(drawn.map((run) => run.tokenizer));
    for (const { side, chart, heading, note } of this.charts) {
      const name = look[side];
      this.#offer(heading, answer.names, name);
      chart.name = metric(name);
      const lines = drawn.filter((run) => answer.runs[run.id]?.curves[name]).map((run) => ({
        label: names.get(run.id), style: this.styles.get(run.id), ...answer.runs[run.id].curves[name],
      }));
      chart.show(lines, { axis: { name: AXES[look.axis], log: look.logX }, logY: look.logY, smooth: look.smooth });
      const share = Math.min(1, ...Object.values(answer.runs).map((each) => each.read));
      say(note, [
        share < 1 ? `reading: ${Math.floor(share * 100)} % of the longest run so far.` : "",
        isPerToken(name) && tokenizers.size > 1 ? "Per token: comparable on one tokenizer only." : "",
        ...unequal(drawn),
        this.picked.length > drawn.length ? `The first ${drawn.length} of ${this.picked.length} are drawn.` : "",
      ].filter(Boolean).join(" "));
      note.hidden = !note.textContent;
    }
  }

  #offer(heading, keys, name) {
    const wanted = [...new Set([name, ...keys])].sort((a, b) => rank(a) - rank(b));
    if (heading.dataset.keys === wanted.join("\n")) return;
    heading.dataset.keys = wanted.join("\n");
    heading.replaceChildren(...wanted.map((value) => h("option", { value, selected: value === name }, metric(value))));
  }

  // Which settings tell the compared runs apart.
  async #differ() {
    const runs = this.picked;
    const stamp = runs.map((run) => run.id).join();
    if (stamp === this.compared) return;
    this.compared = stamp;
    if (runs.length < 2) return this.differences.replaceChildren();
    const details = await Promise.all(runs.map((run) => this.app.details(run.id)));
    if (stamp !== this.compared) return;
    const keys = [...new Set(details.flatMap((each) => Object.keys(each.flat_config)))].sort();
    const differing = keys.filter((key) => new Set(details.map((each) => each.flat_config[key])).size > 1);
    const [shared, own] = [true, false].map((all) =>
      differing.filter((key) => details.every((each) => key in each.flat_config) === all));
    const names = labels(runs);
    const heads = runs.map((run) => h("th", { scope: "col", class: "text" }, swatch(this.styles.get(run.id)), names.get(run.id)));
    const table = (settings) => h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", { class: "text" }, "setting"), heads.map((head) => head.cloneNode(true)))),
      h("tbody", {}, settings.map((key) => h("tr", {}, h("th", { scope: "row", class: "text" }, h("code", {}, key)),
        details.map((each) => h("td", { class: "text" }, each.flat_config[key] ?? "–")))))));
    this.differences.replaceChildren(...[h("h2", {}, "What differs between them"),
      shared.length ? table(shared) : null,
      own.length ? h("details", {}, h("summary", {}, `${own.length} settings that only some of them have`), table(own)) : null,
      differing.length ? null : h("p", { class: "caption" }, "Nothing but the seed, and where files lie."),
      h("p", { class: "caption" }, "Ranked, with spreads over seeds, as one file: ",
        h("code", {}, `python -m harness.compare ${runs.map((run) => quote(run.folder)).join(" ")} --out report.html`))].filter(Boolean));
  }
}

// What the report would warn of.
function unequal(runs) {
  const several = (values) => [...new Set(values)];
  const texts = several(runs.map((run) => run.data));
  const steps = several(runs.filter((run) => run.status === "finished" && run.step > 1).map((run) => run.step)).sort((a, b) => a - b);
  return [
    texts.length > 1 ? `On different texts (${texts.join(", ")}): their scores do not compare.` : "",
    steps.length > 1 ? `Trained for ${whole(steps[0])} to ${whole(steps.at(-1))} steps: not one budget.` : "",
  ];
}

const kind = (run) => `${run.model} ${run.tokenizer}`;
const FIRST = ["val/bits_per_byte", "val/nats_per_token", "val/perplexity", "train/loss", "lr", "grad_norm"];
const rank = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
const classes = (column) => [column.text ? "text" : "", column.wide ? "wide" : ""].filter(Boolean).join(" ") || null;
const perToken = (value) => (value == null ? "–" : `${value.toFixed(3)} nats/token`);
const quote = (path) => (/^[\w./+-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`);

export function badge(element, run) {
  const [glyph, words] = status(run.status);
  element.className = `badge ${run.status}`;
  element.title = run.error ?? "";
  if (element.dataset.said === run.status) return;
  element.dataset.said = run.status;
  element.replaceChildren(h("i", { "aria-hidden": "true" }, glyph), words);
}

export function progress(run) {
  const said = [];
  if (run.share != null && run.status !== "finished") said.push(`${Math.floor(run.share * 100)} %`);
  if (run.status === "running") {
    if (run.loss != null) said.push(`loss ${run.loss.toFixed(3)}`);
    if (run.seconds_left != null) said.push(`${duration(run.seconds_left)} left`);
  }
  if (run.status === "silent") said.push(`last heard of ${age(run.changed)}`);
  return said.join(" · ");
}
