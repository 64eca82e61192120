// Questions to the server, and orders.

let token = "";

async function answer(response) {
  const found = await response.json();
  if (!response.ok) throw new Error(found.error);
  return found;
}

// Lists become repeated names: {run: ["a", "b"]} is run=a&run=b.
export async function get(path, query = {}) {
  const pairs = Object.entries(query)
    .flatMap(([name, value]) => [value].flat().map((each) => [name, each]));
  return answer(await fetch(`/api/${path}?${new URLSearchParams(pairs)}`));
}

export async function post(path, order) {
  return answer(await fetch(`/api/${path}`, {
    method: "POST", headers: { "X-Zoo-Token": token }, body: JSON.stringify(order),
  }));
}

export async function setup() {
  const found = await get("setup");
  token = found.token;
  return found;
}
