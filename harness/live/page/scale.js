// From numbers to places and back, and round numbers in between.

export function scale(low, high, from, to, log) {
  const value = log ? Math.log : (number) => number;
  const back = log ? Math.exp : (number) => number;
  const start = value(low), width = value(high) - start || 1;
  const place = (number) => from + (value(number) - start) / width * (to - from);
  place.invert = (where) => back(start + (where - from) / (to - from) * width);
  place.log = log;
  return place;
}

export function ticks(low, high, most, log) {
  return log ? logTicks(low, high, most) : linearTicks(low, high, most);
}

function linearTicks(low, high, most) {
  const rough = (high - low) / Math.max(1, most);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((times) => times * power >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9), found = [];
  for (let k = first; k * step <= high + step * 1e-9; k += 1) found.push(Number((k * step).toPrecision(12)));
  return found;
}

function logTicks(low, high, most) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  for (const digits of [[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 5], [1, 3], [1]]) {
    const found = [];
    for (let power = first; power <= last; power += 1) {
      for (const digit of digits) {
        const value = Number(`${digit}e${power}`);
        if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
      }
    }
    if (digits.length === 1 && found.length > most) {
      return found.filter((_, index) => index % Math.ceil(found.length / most) === 0);
    }
    if (found.length <= most && found.length) return found;
  }
  return [low];
}

// Moves places as little as needed for a gap between neighbours.
export function spread(wanted, gap, low, high) {
  const order = wanted.map((_, index) => index).sort((a, b) => wanted[a] - wanted[b]);
  const places = [...wanted];
  gap = Math.min(gap, (high - low) / Math.max(1, wanted.length - 1));
  for (let k = 1; k < order.length; k += 1) {
    places[order[k]] = Math.max(places[order[k]], places[order[k - 1]] + gap);
  }
  let ceiling = high;
  for (const index of order.reverse()) {
    places[index] = Math.min(places[index], ceiling);
    ceiling = places[index] - gap;
  }
  return places;
}
