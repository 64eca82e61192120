// The address says what is shown; once a second the server says what has changed.

import { admit, get } from "./api.js";
import { useDashes } from "./chart.js";
import { say } from "./dom.js";
import { AXES, useStatuses, whole } from "./format.js";
import { Overview } from "./overview.js";
import { RunPage } from "./run.js";
import { Starter } from "./starter.js";

const LIVELY = 1000, CALM = 3000, UNSEEN = 10000; // milliseconds between questions

const MOST_ASKED = 200; // runs that were chosen by their ids

const find = (id) => document.getElementById(id);

const app = {
  runs: [], // those that are listed, drawn or looked at, of however many there are
  found: { known: 0, matching: 0, unread: 0, beyond: 0, listed: [], followed: [], counts: {} },
  list: { words: "", sort: null, up: false }, // what is listed
  asked: new Set(),
  turn: 0,
  setup: null,
  look: readLook(),
  cache: new Map(),
  colours: new Map(), // of architectures

  async details(id) {
    if (!this.cache.has(id)) this.cache.set(id, get("run", { run: id }));
    return this.cache.get(id).catch((error) => { this.cache.delete(id); throw error; });
  },

  // How the pictures look, kept in the address, so that it can be loaded again or sent on.
  remember() {
    const { chosen, sweep, axis, left, right, logX, logY, smooth } = this.look;
    const query = new URLSearchParams({ axis, left, right });
    if (logX) query.set("logx", "1");
    if (logY) query.set("logy", "1");
    if (smooth) query.set("smooth", smooth);
    if (sweep) query.set("sweep", sweep);
    if (chosen) query.set("runs", [...chosen].join(" "));
    history.replaceState(null, "", `#/?${query}`);
  },

  async refresh() {
    const { words, sort, up } = this.list;
    const run = [this.view?.id, ...(this.look.chosen ?? [])].filter(Boolean).slice(0, MOST_ASKED);
    const turn = this.turn += 1;
    const found = await get("runs", { run, ...(words && { words }), ...(sort && { sort, up: up ? 1 : 0 }) });
    if (turn !== this.turn) return; // something else was asked for meanwhile
    this.asked = new Set(run);
    this.runs = found.runs;
    this.found = found;
    const count = (status) => found.counts[status] ?? 0;
    const others = found.known - found.unread - count("running") - count("finished");
    say(find("summary"), [
      `${whole(count("running"))} training`, `${whole(count("finished"))} finished`, others ? `${whole(others)} other` : "",
      found.unread ? `reading ${whole(found.unread)} more` : "",
    ].filter(Boolean).join(" · "));
    document.title = count("running") ? `(${count("running")}) The zoo` : "The zoo";
    this.view?.update();
  },

  go(address) { location.hash = address; },
};

function readLook() {
  const query = new URLSearchParams(location.hash.split("?")[1] ?? "");
  const axis = query.get("axis") in AXES ? query.get("axis") : "step";
  return {
    axis,
    left: query.get("left") || "val/bits_per_byte",
    right: query.get("right") || "train/loss",
    logX: query.get("logx") === "1",
    logY: query.get("logy") === "1",
    smooth: Number(query.get("smooth") ?? 0.02) || 0,
    chosen: query.has("runs") ? new Set(query.get("runs").split(" ").filter(Boolean)) : null,
    sweep: query.get("sweep"),
    zoom: null,
  };
}

function route() {
  const run = location.hash.match(/^#\/run\/(\w+)/)?.[1];
  app.look.zoom = null;
  app.view = run ? new RunPage(app, run) : new Overview(app);
  find("view").replaceChildren(app.view.node);
  scrollTo(0, 0);
  app.view.update();
  if (run && !app.runs.some((each) => each.id === run)) app.refresh().catch(complain);
}

function complain(error) {
  const gone = error instanceof TypeError;
  say(find("offline"), gone ? "The server of this page has ended: python -m harness.live begins it again." : error.message);
  find("offline").hidden = false;
}

async function ask() {
  try {
    await app.refresh();
    find("offline").hidden = true;
  } catch (error) {
    complain(error);
  }
  const lively = app.found.counts.running || app.found.unread;
  setTimeout(ask, document.hidden ? UNSEEN : lively ? LIVELY : CALM);
}

async function begin() {
  try {
    await admit();
    app.setup = await get("setup");
  } catch (error) {
    complain(error);
    find("start").hidden = true;
    return;
  }
  useDashes(app.setup.dashes);
  useStatuses(app.setup.statuses);
  const large = find("large");
  const enlarge = (on) => {
    document.documentElement.classList.toggle("large", on);
    large.setAttribute("aria-pressed", on);
  };
  large.addEventListener("click", () => enlarge(!document.documentElement.classList.contains("large")));
  const starter = new Starter(app);
  document.body.append(starter.node);
  find("start").addEventListener("click", () => starter.open());
  addEventListener("hashchange", route);
  await app.refresh().catch(() => {});
  route();
  ask();
}

begin();
