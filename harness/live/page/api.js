// Questions to the server, and orders. Each carries the key, which this page keeps for its own origin:
// a cookie would go to every server of this machine, whatever its port and whoever runs it.

const KEY = "zoo-key";

async function answer(response) {
  const found = await response.json();
  if (!response.ok) throw new Error(found.error);
  return found;
}

const ask = (path, options) => fetch(`/api/${path}`, options);
const carried = () => ({ "X-Zoo-Key": localStorage.getItem(KEY) ?? "" });

// The address that was printed, or that a browser was opened at, is good for the key; and it is not
// to be read over a shoulder or sent on.
export async function admit() {
  const given = new URLSearchParams(location.search).get("key");
  if (given === null) return;
  history.replaceState(null, "", location.pathname + location.hash);
  const headers = { "X-Zoo-Key": given };
  const { key } = await answer(await ask("key", { method: "POST", headers }));
  localStorage.setItem(KEY, key);
}

// Lists become repeated names: {run: ["a", "b"]} is run=a&run=b.
export async function get(path, query = {}) {
  const pairs = Object.entries(query)
    .flatMap(([name, value]) => [value].flat().map((each) => [name, each]));
  return answer(await ask(`${path}?${new URLSearchParams(pairs)}`, { headers: carried() }));
}

export async function post(path, order) {
  return answer(await ask(path, {
    method: "POST", headers: carried(), body: JSON.stringify(order),
  }));
}
