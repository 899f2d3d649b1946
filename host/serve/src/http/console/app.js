"use strict";
// What is shown came from outside: it is put in as text, never as markup.

const KEY = "graft.key";
const POINTS = 120;
const MOST_ROWS = 200;
const MOST_LABELS = 6;
const SVG = "http://www.w3.org/2000/svg";

const $ = (id) => document.getElementById(id);
const key = () => sessionStorage.getItem(KEY) || "";

function make(tag, set, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(set || {})) {
    if (name === "class") made.className = value;
    else if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...inside.filter((i) => i !== null && i !== undefined));
  return made;
}

function draw(tag, set) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(set)) made.setAttribute(name, value);
  return made;
}

// Numbers in words.

const digits = (x) => (x === 0 ? "0" : x < 10 ? x.toFixed(2) : x < 100 ? x.toFixed(1) : x.toFixed(0));
function amount(x) {
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (x >= size) return digits(x / (unit === "k" ? 1e3 : size)) + " " + unit;
  }
  return Number.isInteger(x) ? String(x) : digits(x);
}
function bytes(x) {
  for (const [size, unit] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) {
    if (x >= size) return digits(x / size) + " " + unit;
  }
  return x + " B";
}
function time(seconds) {
  if (seconds >= 1) return digits(seconds) + " s";
  if (seconds >= 1e-3) return digits(seconds * 1e3) + " ms";
  return digits(seconds * 1e6) + " µs";
}
function ago(ms) {
  const s = Math.max(0, (Date.now() - ms) / 1000);
  if (s < 60) return Math.round(s) + " s ago";
  if (s < 3600) return Math.round(s / 60) + " min ago";
  return s < 172800 ? Math.round(s / 3600) + " h ago" : Math.round(s / 86400) + " days ago";
}

// The server.

function headers(more) {
  return key() ? { authorization: "Bearer " + key(), ...more } : { ...more };
}

async function refusal(response) {
  let said = "";
  try {
    const body = await response.json();
    said = typeof body.error === "string" ? body.error : body.error.message;
  } catch {
    said = response.statusText || "no reason was given";
  }
  return Object.assign(new Error(said), { status: response.status });
}

async function state(part) {
  const address = "console/state" + (part ? "?part=" + part : "");
  const signal = AbortSignal.timeout(10000);
  const response = await fetch(address, { headers: headers(), cache: "no-store", signal });
  if (!response.ok) throw await refusal(response);
  return response.json();
}

function status(word, kind) {
  $("status").textContent = word;
  $("status").dataset.state = kind;
  document.body.classList.toggle("stale", kind === "gone");
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

// The curves.

const tiles = [
  { what: "requests", unit: "/s", of: (d) => d.answered / d.seconds },
  { what: "rows", unit: "/s", of: (d) => d.rows / d.seconds },
  { what: "tokens", unit: "/s", of: (d) => d.tokens / d.seconds },
  { what: "median", of: (d) => quantile(d.durations, 0.5), show: time },
  { what: "99 %", of: (d) => quantile(d.durations, 0.99), show: time },
  { what: "waiting", of: (d) => d.waiting },
  { what: "padding", unit: "%", of: (d) => (d.tokens + d.padding ? (100 * d.padding) / (d.tokens + d.padding) : null) },
  { what: "refused", unit: "/s", of: (d) => d.refused / d.seconds },
];

function quantile({ bounds, counts }, q) {
  const all = counts.reduce((a, b) => a + b, 0);
  if (!all) return null;
  let seen = 0;
  for (let i = 0; i < counts.length; i++) {
    if (counts[i] && seen + counts[i] >= q * all) {
      if (i >= bounds.length) return bounds[bounds.length - 1];
      const low = i ? bounds[i - 1] : bounds[0] / 1.5;
      return low * (bounds[i] / low) ** ((q * all - seen) / counts[i]);
    }
    seen += counts[i];
  }
  return bounds[bounds.length - 1];
}

function makeTiles() {
  for (const tile of tiles) {
    tile.points = [];
    tile.peak = make("span");
    tile.value = make("div", { class: "value" }, "–");
    tile.curve = draw("path", { class: "curve" });
    tile.under = draw("path", { class: "under" });
    const svg = draw("svg", { viewBox: `0 0 ${POINTS} 32`, preserveAspectRatio: "none", "aria-hidden": "true" });
    svg.append(draw("path", { class: "floor", d: `M0 32H${POINTS}` }), tile.under, tile.curve);
    $("tiles").append(make("div", { class: "tile" }, make("div", { class: "what" }, make("span", null, tile.what), tile.peak), tile.value, svg));
  }
}

function plot(tile, value) {
  tile.points.push(value);
  if (tile.points.length > POINTS) tile.points.shift();
  const show = tile.show || amount;
  const shown = value === null ? ["–"] : [show(value), tile.unit ? make("span", { class: "unit" }, tile.unit) : null];
  tile.value.replaceChildren(...shown.filter(Boolean));
  const top = Math.max(...tile.points.map((p) => p || 0));
  tile.peak.textContent = top ? "peak " + show(top) : "";
  let [line, under, last] = ["", "", null];
  const left = POINTS - tile.points.length;
  tile.points.forEach((p, i) => {
    if (p === null) return;
    const [x, y] = [left + i + 0.5, 31 - (top ? (29 * p) / top : 0)];
    line += (last === null ? "M" : "L") + x + " " + y.toFixed(2);
    under += (last === null ? `M${x} 32L` : "L") + x + " " + y.toFixed(2);
    last = x;
  });
  tile.curve.setAttribute("d", line);
  tile.under.setAttribute("d", last === null ? "" : under + `L${last} 32Z`);
}

let before = null;

function numbers(now, at) {
  $("tiles").hidden = !now;
  $("live-note").hidden = Boolean(now);
  if (!now) {
    $("live-note").textContent = "The curves need the key for the numbers, or the administrator's.";
    before = null;
    return;
  }
  const d = { seconds: before ? (at - before.at) / 1000 : 1, waiting: now.waiting };
  const since = (name) => Math.max(0, now[name] - (before ? before[name] : now[name]));
  for (const name of ["answered", "refused", "rows", "tokens", "padding"]) d[name] = since(name);
  const earlier = before ? before.durations.counts : now.durations.counts;
  d.durations = { bounds: now.durations.bounds, counts: now.durations.counts.map((c, i) => Math.max(0, c - earlier[i])) };
  if (before) for (const tile of tiles) plot(tile, tile.of(d));
  before = { ...now, at };
}

// The adapters.

const columns = [
  { name: "Adapter", of: (a) => a.name },
  { name: "Method", of: (a) => a.method || "" },
  { name: "Size", of: (a) => a.bytes, number: true },
  { name: "Revision", of: (a) => a.revision, number: true },
  { name: "Digest", of: (a) => a.digest },
  { name: "Rows/s", of: (a) => a.rate, number: true },
  { name: "Rows", of: (a) => a.rows, number: true },
  { name: "Median", of: (a) => a.p50 || 0, number: true },
  { name: "99 %", of: (a) => a.p99 || 0, number: true },
  { name: "Last", of: (a) => a.last, number: true },
];
let adapters = [];
let ticked = null;
let sorted = { column: 0, up: true };
const counted = new Map();

function makeColumns() {
  columns.forEach((column, i) => {
    const button = make("button", { type: "button" }, column.name);
    button.addEventListener("click", () => {
      const same = sorted.column === i;
      sorted = { column: i, up: same ? !sorted.up : !column.number };
      showAdapters();
    });
    column.head = make("th", { scope: "col", class: column.number ? "number" : "" }, button);
  });
  $("columns").append(...columns.map((c) => c.head));
}

function list(all, at) {
  for (const a of all) {
    const then = counted.get(a.name);
    const known = then && then.revision === a.revision && a.rows >= then.rows && at > then.at;
    a.rate = known ? (1000 * (a.rows - then.rows)) / (at - then.at) : 0;
    counted.set(a.name, { revision: a.revision, rows: a.rows, at });
  }
  adapters = all;
  if (ticked === null && all.length) ticked = new Set(all.filter((a) => !a.base).slice(0, 2).map((a) => a.name));
  if (ticked) for (const name of ticked) if (!all.some((a) => a.name === name)) ticked.delete(name);
  showAdapters();
}

function wanted() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const of = (a) => [a.name, a.method, a.objective, a.base ? "base" : ""].join(" ").toLowerCase();
  const found = adapters.filter((a) => words.every((w) => of(a).includes(w)));
  const { of: value } = columns[sorted.column];
  const order = (x, y) => (x < y ? -1 : x > y ? 1 : 0);
  found.sort((a, b) => b.base - a.base || (sorted.up ? 1 : -1) * order(value(a), value(b)) || order(a.name, b.name));
  return found;
}

function row(a) {
  const tick = make("input", { type: "checkbox", checked: ticked.has(a.name) });
  tick.dataset.name = a.name;
  const tags = [a.base ? "base" : "", a.pinned ? "pinned" : "", a.shared ? "" : "own pass"].filter(Boolean);
  const label = make("label", { title: a.name }, tick, " " + a.name, ...tags.map((t) => make("span", { class: "tag" }, t)));
  const cell = (text, more) => make("td", { class: ("number " + (more || "")).trim() }, text);
  const some = (x, show) => cell(x ? show(x) : "–", x ? "" : "zero");
  const made = make(
    "tr",
    { class: ticked.has(a.name) ? "ticked" : "" },
    make("td", { class: "name" }, label),
    make("td", { title: a.objective || "no head" }, a.method || (a.base ? "–" : "?")),
    some(a.bytes, bytes),
    some(a.revision, String),
    make("td", { class: "code", title: a.digest }, a.digest.replace(/^[a-z0-9]+:/, "").slice(0, 8)),
    some(a.rate, digits),
    cell(amount(a.rows), a.rows ? "" : "zero"),
    some(a.p50, time),
    some(a.p99, time),
    some(a.last, ago),
  );
  if (a.failed) made.lastChild.title = amount(a.failed) + " requests refused or failed";
  tick.addEventListener("change", () => {
    if (tick.checked) ticked.add(a.name);
    else ticked.delete(a.name);
    made.className = tick.checked ? "ticked" : "";
    showChosen();
  });
  return made;
}

function showAdapters() {
  ticked = ticked || new Set();
  const found = wanted();
  columns.forEach((c, i) => {
    if (i === sorted.column) c.head.setAttribute("aria-sort", sorted.up ? "ascending" : "descending");
    else c.head.removeAttribute("aria-sort");
  });
  // Whoever copies from the table is left alone, and whoever stands on a row stays there.
  const selection = getSelection();
  if (!selection.isCollapsed && $("rows").contains(selection.anchorNode)) return;
  const focused = document.activeElement && document.activeElement.dataset.name;
  $("rows").replaceChildren(...found.slice(0, MOST_ROWS).map(row));
  if (focused !== undefined) {
    for (const t of $("rows").querySelectorAll("input")) if (t.dataset.name === focused) t.focus({ preventScroll: true });
  }
  const own = adapters.filter((a) => !a.base).length;
  $("count").textContent = own === 1 ? "1" : String(own);
  const hidden = found.length - MOST_ROWS;
  const none = own ? "No adapter fits the filter." : "There are no adapters; the base answers with vectors.";
  $("more").textContent = hidden > 0 ? `${hidden} more: filter to see them.` : found.length && own ? "" : none;
  $("more").hidden = !$("more").textContent;
  showChosen();
}

function showChosen() {
  const names = [...(ticked || [])];
  const shown = names.slice(0, 4).join(", ") + (names.length > 4 ? ` and ${names.length - 4} more` : "");
  $("chosen").textContent = names.length ? shown : "tick an adapter";
  $("run").disabled = !names.length;
}

// Trying a text.

function scores(all) {
  const rows = all.slice(0, MOST_LABELS).map(({ label, score }) => {
    const fill = make("div", { class: "fill" });
    fill.style.width = 100 * Math.min(1, Math.max(0, score)) + "%";
    const name = make("span", { class: "label", title: label }, label);
    return make("div", { class: "score" }, name, make("span", { class: "number" }, score.toFixed(3)), make("div", { class: "track" }, fill));
  });
  if (all.length > MOST_LABELS) rows.push(make("p", { class: "note" }, `${all.length - MOST_LABELS} more labels`));
  return rows;
}

function spans(all, text) {
  if (!all.length) return [make("p", { class: "note" }, "nothing found in it")];
  const letters = Array.from(text);
  const mark = (s) => make("mark", { title: s.score.toFixed(3) }, s.word, make("span", { class: "tag" }, s.entity_group));
  const fits = all.every((s, i) => letters.slice(s.start, s.end).join("") === s.word && (!i || s.start >= all[i - 1].end));
  if (!fits) return [make("p", { class: "spans" }, ...all.flatMap((s) => [mark(s), " "]))];
  let [parts, at] = [[], 0];
  for (const s of all) {
    parts.push(letters.slice(at, s.start).join(""), mark(s));
    at = s.end;
  }
  parts.push(letters.slice(at).join(""));
  return [make("p", { class: "spans" }, ...parts)];
}

function vector(v) {
  const shown = v.slice(0, 96);
  const top = Math.max(...shown.map(Math.abs)) || 1;
  const svg = draw("svg", { class: "vector", viewBox: `0 0 ${shown.length} 44`, preserveAspectRatio: "none", role: "img" });
  shown.forEach((x, i) => {
    const h = (21 * Math.abs(x)) / top;
    svg.append(draw("rect", { x: i + 0.1, width: 0.8, y: x < 0 ? 22 : 22 - h, height: h, fill: "currentColor" }));
  });
  const head = v.slice(0, 6).map((x) => x.toFixed(3)).join(", ");
  return [svg, make("p", { class: "code head" }, `${head}${v.length > 6 ? ", …" : ""}`), make("p", { class: "note" }, `vector of ${v.length} numbers`)];
}

function answerOf(a, body, text) {
  if (!a.objective || a.objective === "embedding") return vector(body[0]);
  if (body.length ? "entity_group" in body[0] : a.objective === "token-classification") return spans(body, text);
  if (a.objective === "regression") {
    return body.map((n) => make("div", null, body.length > 1 ? make("p", { class: "note" }, n.label) : null, make("p", { class: "figure" }, n.score.toFixed(4))));
  }
  return scores(body);
}

let asking = null;

async function askOne(a, text, card, signal) {
  const vectors = !a.objective || a.objective === "embedding";
  const path = `a/${encodeURIComponent(a.name)}/${vectors ? "embed" : "predict"}`;
  const body = JSON.stringify(vectors ? { inputs: text } : { inputs: text, raw_scores: a.objective === "regression" });
  const began = performance.now();
  try {
    const response = await fetch(path, { method: "POST", headers: headers({ "content-type": "application/json" }), body, signal });
    if (!response.ok) throw await refusal(response);
    const answer = await response.json();
    const took = performance.now() - began;
    const of = (name) => response.headers.get(name);
    const tokens = of("x-compute-tokens");
    const foot = [`revision ${of("x-adapter-revision")}`, tokens ? `${tokens} tokens` : "", time(took / 1000)];
    card.append(...answerOf(a, answer, text), make("p", { class: "foot" }, foot.filter(Boolean).join(" · ")));
  } catch (e) {
    if (signal.aborted) return;
    card.classList.add("failed");
    const said = e.status ? `${e.status}: ${e.message}` : "the server does not answer";
    card.append(make("p", { class: "error" }, said));
  } finally {
    card.removeAttribute("aria-busy");
  }
}

async function ask() {
  const text = $("text").value;
  const chosen = adapters.filter((a) => ticked.has(a.name));
  if (!chosen.length) return;
  if (!text.trim()) {
    $("text").focus();
    return;
  }
  if (asking) asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const cards = chosen.map((a, i) => make("article", { class: "answer hue-" + (i % 4), "aria-busy": "true" }, make("h3", null, a.name)));
  $("answers").replaceChildren(...cards);
  // As many at a time as browsers open connections for.
  const left = chosen.map((a, i) => [a, cards[i]]);
  const worker = async () => {
    for (let next = left.shift(); next && !signal.aborted; next = left.shift()) await askOne(next[0], text, next[1], signal);
  };
  await Promise.all(Array.from({ length: 6 }, worker));
}

// The loop.

let turn = 0;
let failures = 0;
let timer = 0;

async function look() {
  clearTimeout(timer);
  const whole = turn++ % 3 === 0;
  const asked = key();
  try {
    const now = await state(whole ? "" : "numbers");
    if (asked !== key()) return;
    const at = performance.now();
    failures = 0;
    notice("");
    status(now.ready ? "ready" : "stopping", now.ready ? "ready" : "stopping");
    $("base").textContent = now.base ? `on ${now.base}` : "";
    const of = now.memory && now.memory.most ? " of " + bytes(now.memory.most) : "";
    const memory = now.memory && now.memory.used ? `${bytes(now.memory.used)}${of} in use` : "";
    const threads = now.numbers ? `${now.numbers.threads} ${now.numbers.threads === 1 ? "thread" : "threads"}` : "";
    $("about").textContent = [memory, threads, "Graft " + now.version].filter(Boolean).join(" · ");
    numbers(now.numbers, at);
    if (now.adapters) list(now.adapters, at);
  } catch (e) {
    if (asked !== key()) return;
    turn = 0;
    failures += 1;
    before = null;
    if (e.status === 401 || e.status === 403) {
      status("closed", "gone");
      notice(asked ? "The server does not know this key." : "This server wants a key: put it in at the top.");
      numbers(null, 0);
      list([], 0);
      $("more").hidden = true;
      ticked = null;
      if (failures === 1 && !asked) $("key").focus();
    } else {
      status("gone", "gone");
      notice(e.status ? `The server says ${e.status}: ${e.message}` : "The server does not answer. Trying again.");
    }
  }
  const wait = failures ? Math.min(1000 * 2 ** failures, 10000) : document.hidden ? 5000 : 1000;
  timer = setTimeout(look, wait);
}

function again() {
  turn = 0;
  failures = 0;
  before = null;
  look();
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = $("key").value.trim();
  if (given) sessionStorage.setItem(KEY, given);
  else sessionStorage.removeItem(KEY);
  ticked = null;
  $("answers").replaceChildren();
  again();
});
$("try-form").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
$("filter").addEventListener("input", showAdapters);
document.addEventListener("visibilitychange", () => document.hidden || again());
document.addEventListener("keydown", (event) => {
  const at = document.activeElement;
  const typing = at && (at.tagName === "TEXTAREA" || (at.tagName === "INPUT" && at.type !== "checkbox"));
  if (event.key === "Escape" && at) at.blur();
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
    event.preventDefault();
    ask();
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const field = { "/": "filter", t: "text" }[event.key];
  if (field && !typing) {
    event.preventDefault();
    $(field).focus();
  }
  const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (step && (!typing || at.id === "filter")) {
    const all = [...$("rows").querySelectorAll("input")];
    const next = all[all.indexOf(at) === -1 ? (step > 0 ? 0 : all.length - 1) : all.indexOf(at) + step];
    if (next) {
      event.preventDefault();
      next.focus();
    }
  }
});

makeTiles();
makeColumns();
$("key").value = key();
look();
