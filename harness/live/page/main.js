// The address says what is shown; once a second the server says what has changed.

import { admit, get } from "./api.js";
import { useDashes } from "./chart.js";
import { say } from "./dom.js";
import { AXES } from "./format.js";
import { Overview } from "./overview.js";
import { RunPage } from "./run.js";
import { Starter } from "./starter.js";

const LIVELY = 1000, CALM = 3000, UNSEEN = 10000; // milliseconds between questions

const find = (id) => document.getElementById(id);

const app = {
  runs: [],
  setup: null,
  look: readLook(),
  cache: new Map(),

  async details(id) {
    if (!this.cache.has(id)) this.cache.set(id, get("run", { run: id }));
    return this.cache.get(id).catch((error) => { this.cache.delete(id); throw error; });
  },

  // How the pictures look, kept in the address, so that it can be loaded again or sent on.
  remember() {
    const { chosen, axis, left, right, logX, logY, smooth } = this.look;
    const query = new URLSearchParams({ axis, left, right });
    if (logX) query.set("logx", "1");
    if (logY) query.set("logy", "1");
    if (smooth) query.set("smooth", smooth);
    if (chosen) query.set("runs", [...chosen].join(" "));
    history.replaceState(null, "", `#/?${query}`);
  },

  async refresh() {
    this.runs = (await get("runs")).runs;
    const count = (status) => this.runs.filter((run) => run.status === status).length;
    const others = this.runs.length - count("running") - count("finished");
    say(find("summary"), [
      `${count("running")} training`, `${count("finished")} finished`, others ? `${others} other` : "",
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
  const lively = app.runs.some((run) => run.status === "running");
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
  const starter = new Starter(app);
  document.body.append(starter.node);
  find("start").addEventListener("click", () => starter.open());
  addEventListener("hashchange", route);
  await app.refresh().catch(() => {});
  route();
  ask();
}

begin();
