// The page: hears of every change from the edge, keeps the list of members, and lets one look closer.

import { Drawing, kindOf, labelOf, milliseconds } from "./draw.js";

const $ = (id) => document.getElementById(id);
const PATHS = { direct: "direct", one_way: "one way", relay: "relayed", offline: "offline", self: "this edge" };
const rows = new Map();
const state = { picture: null, before: null, chosen: location.hash.slice(1) || null, kind: null, heard: 0, news: [] };
const drawing = new Drawing($("map"), choose);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function say(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function ago(seconds) {
  if (seconds < 1) return "now";
  for (const [length, unit] of [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]])
    if (seconds >= length) return `${Math.floor(seconds / length)} ${unit}`;
  return "";
}

function since(seconds) {
  return seconds < 1 ? "just now" : `${ago(seconds)} ago`;
}

function size(bytes) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (bytes < 1000) return `${unit === "B" ? Math.round(bytes) : bytes.toFixed(1)} ${unit}`;
    bytes /= 1000;
  }
  return `${bytes.toFixed(1)} TB`;
}

// ---- the stream

let source = null, listened = null;

// Of many members, the links between others are told only of the one that is looked at.
function listen() {
  const of = state.picture?.drawing.dense === false ? "" : state.chosen || "";
  if (source && of === listened) return;
  source?.close();
  source = new EventSource(`/events?of=${encodeURIComponent(of)}`);
  listened = of;
  source.onmessage = (message) => {
    state.heard = performance.now();
    show(JSON.parse(message.data));
  };
}

function show(picture) {
  state.before = state.picture;
  state.picture = picture;
  const { edge, counts, community } = picture;
  document.title = `${community} – n2n`;
  say($("community"), community || "n2n");
  const others = counts.members - 1;
  const crowd = others < 1 ? "nobody else here" : `${others + 1} members here`;
  say($("self"), `${edge.name || ""} · ${crowd}${edge.sealed ? "" : " · frames are not sealed"} · supernode ${edge.supernode || "unknown"}`);
  say($("version"), `n2n ${edge.version || ""}`);
  for (const button of $("filters").children) say(button.querySelector("b"), String(counts[button.dataset.kind]));
  const changes = drawing.update(picture);
  list(picture);
  tell(picture, changes);
  emphasise();
  freshness();
}

function freshness() {
  const { picture, heard } = state;
  const fresh = $("fresh");
  const silent = (performance.now() - heard) / 1000;
  let mood = "live", text;
  if (!picture) [mood, text] = ["waiting", "connecting"];
  else if (silent > 4) [mood, text] = ["stale", `the edge has not answered for ${ago(silent)}`];
  else if (!picture.edge.ready) [mood, text] = ["stale", `not ready: ${picture.edge.state}`];
  else if (picture.age === null && picture.problem) [mood, text] = ["stale", "live · the supernode has not answered yet"];
  else if (picture.age === null) text = "live";
  else if (picture.problem || picture.age > 30) [mood, text] = ["stale", `live · the supernode was last heard ${ago(picture.age + silent)} ago`];
  else text = `live · everybody as of ${since(picture.age + silent)}`;
  fresh.className = mood;
  fresh.title = picture?.problem || "";
  say($("fresh-text"), text);
}

function tell(picture, changes) {
  const names = new Map(picture.members.map((member) => [member.mac, member]));
  for (const { link } of changes) {
    const member = names.get(link.b);
    if (link.own && member) state.news.push({ at: performance.now(), name: labelOf(member), text: `now ${PATHS[link.kind]}`, why: member.why });
  }
  if (state.before) {
    const before = new Map(state.before.members.map((member) => [member.mac, member]));
    for (const member of picture.members) {
      const was = before.get(member.mac)?.role;
      if (was !== member.role && member.role !== "self")
        state.news.push({ at: performance.now(), name: labelOf(member), text: member.role === "offline" ? "went offline" : "is here", why: "" });
    }
  }
  const kept = state.news.filter((entry) => performance.now() - entry.at < 12000).slice(-3);
  state.news = kept;
  const shown = [...$("news").children];
  for (const item of shown) if (!kept.some((entry) => entry.item === item)) item.remove();
  for (const entry of kept) {
    if (entry.item) continue;
    entry.item = element("li", {}, element("b", {}, entry.name), ` ${entry.text}${entry.why ? ": " + entry.why : ""}`);
    $("news").append(entry.item);
  }
}

// ---- the list

function list(picture) {
  const there = new Set();
  picture.members.forEach((member, index) => {
    there.add(member.mac);
    let row = rows.get(member.mac);
    if (!row) rows.set(member.mac, (row = newRow(member)));
    if ($("members").children[index] !== row.item) $("members").insertBefore(row.item, $("members").children[index] || null);
    fill(row, member, picture);
  });
  for (const [mac, row] of rows) {
    if (there.has(mac)) continue;
    row.item.remove();
    rows.delete(mac);
  }
  if (state.chosen && !there.has(state.chosen)) state.chosen = null;
}

function newRow(member) {
  const line = element("i", { "aria-hidden": "true" });
  const name = element("b"), address = element("small"), time = element("b"), path = element("small");
  const button = element("button", { type: "button", class: "row", "aria-expanded": "false", "data-mac": member.mac },
    line, element("span", { class: "who" }, name, address), element("span", { class: "how" }, time, path));
  const item = element("li", {}, button);
  button.addEventListener("click", () => choose(state.chosen === member.mac ? null : member.mac));
  return { item, button, line, name, address, time, path, more: null };
}

function rates(member) {
  const before = state.before?.members.find((other) => other.mac === member.mac);
  const passed = state.before ? state.picture.now - state.before.now : 0;
  if (!before || !member.path || passed <= 0) return "";
  const rate = (name) => Math.max((member[name] ?? 0) - (before[name] ?? 0), 0) / passed;
  const [out, back] = [rate("tx_bytes"), rate("rx_bytes")];
  return out + back < 1 ? "" : `↑ ${size(out)}/s  ↓ ${size(back)}/s`;
}

function fill(row, member, picture) {
  const kind = kindOf(member);
  row.item.className = kind + (state.chosen === member.mac ? " chosen" : "");
  row.line.className = `line ${kind}`;
  say(row.name, labelOf(member));
  const moving = rates(member);
  say(row.address, moving ? `${member.address}  ${moving}` : member.address);
  say(row.time, member.path && member.rtt !== null && kind !== "relay" ? milliseconds(member.rtt) : "");
  say(row.path, kind === "offline" && member.seen ? `seen ${since(picture.now - member.seen)}` : PATHS[kind]);
  row.text = `${member.name} ${member.address} ${member.mac} ${member.endpoint || ""}`.toLowerCase();
  row.kind = kind;
  if (state.chosen === member.mac) detail(row, member, picture);
}

function detail(row, member, picture) {
  if (!row.more) {
    row.more = element("dl", { class: "more" });
    row.item.append(row.more);
    row.facts = new Map();
    if (member.role === "member") history(row, member);
  }
  const facts = [
    ["Path", sentence(member, picture)],
    ["Since", member.since ? `${ago(picture.now - member.since)}${member.why ? ", " + member.why : ""}` : ""],
    ["Sent", member.path ? size(member.tx_bytes ?? 0) : ""],
    ["Received", member.path ? size(member.rx_bytes ?? 0) : ""],
    ["Endpoint", member.in_use || member.endpoint || ""],
    ["Behind", { open: "no NAT", easy: "a NAT that keeps its ports", hard: "a NAT with a port for each peer" }[member.nat] || ""],
    ["Speaks", member.kind === "v5" ? "protocol v5 alone" : ""],
    ["MAC", member.mac],
  ];
  for (const [name, text] of facts) {
    if (!text) continue;
    let fact = row.facts.get(name);
    if (!fact) {
      fact = element("dd");
      const before = row.past || null;
      row.more.insertBefore(element("dt", {}, name), before);
      row.more.insertBefore(fact, before);
      row.facts.set(name, fact);
    }
    say(fact, text);
  }
}

function sentence(member, picture) {
  if (member.role === "self") return "this is the edge that you look at";
  if (member.role === "offline") return member.seen ? `offline; last seen ${since(picture.now - member.seen)}` : "offline";
  if (member.path === "direct") return "direct, both ways";
  if (member.path === "relay") return "relayed by the supernode, both ways";
  return member.toward === member.mac ? "direct from here; it answers by the supernode" : "direct from there; we answer by the supernode";
}

async function history(row, member) {
  let answer;
  try {
    answer = await (await fetch(`/history.json?peer=${encodeURIComponent(member.mac)}`)).json();
  } catch {
    return;
  }
  if (!answer.changes?.length || !row.more) return;
  const items = answer.changes.slice(0, 6).map((change) => element("li", {},
    element("i", { class: change.path || "gone", "aria-hidden": "true" }),
    `${PATHS[change.path] || "gone"} `, element("time", {}, `${ago(Math.max(answer.at - change.at, 1))} ago`)));
  row.past = element("dt", {}, "Before");
  row.more.append(row.past, element("dd", {}, element("ol", {}, ...items)));
}

function choose(mac) {
  if (state.chosen && rows.has(state.chosen)) {
    const row = rows.get(state.chosen);
    row.more?.remove();
    row.more = row.past = null;
    row.button.setAttribute("aria-expanded", "false");
    row.item.classList.remove("chosen");
  }
  state.chosen = mac === state.chosen ? null : mac;
  window.history.replaceState(null, "", state.chosen ? `#${state.chosen}` : location.pathname);
  const row = rows.get(state.chosen);
  if (row) {
    fill(row, state.picture.members.find((member) => member.mac === state.chosen), state.picture);
    row.item.scrollIntoView({ block: "nearest" });
  }
  listen();
  emphasise();
}

// ---- filters

function emphasise() {
  const words = $("find").value.trim().toLowerCase();
  const filtered = words || state.kind;
  const shown = new Set();
  for (const [mac, row] of rows) {
    const fits = (!words || row.text.includes(words)) && (!state.kind || row.kind === state.kind);
    row.item.hidden = !fits;
    if (fits) shown.add(mac);
    row.button.setAttribute("aria-expanded", String(mac === state.chosen));
  }
  if (filtered) for (const [mac, row] of rows) if (row.kind === "self") shown.add(mac);
  drawing.light(rows.has(state.chosen) ? state.chosen : null, filtered ? shown : null);
  const visible = [...rows.values()].some((row) => !row.item.hidden);
  $("nobody").hidden = visible && rows.size > 1;
  say($("nobody"), !visible ? "Nobody fits." : rows.size < 2 ? "Nobody else is in this community yet. Start another edge with its name and passphrase." : "");
}

$("filters").addEventListener("click", (event) => {
  const kind = event.target.closest("button")?.dataset.kind;
  if (!kind) return;
  state.kind = state.kind === kind ? null : kind;
  for (const button of $("filters").children) button.setAttribute("aria-pressed", String(button.dataset.kind === state.kind));
  emphasise();
});
$("find").addEventListener("input", emphasise);
$("zoom").addEventListener("click", (event) => zoom(event.target.closest("button")?.dataset.zoom));

function zoom(how) {
  if (how === "in") drawing.zoom(1 / 1.3);
  else if (how === "out") drawing.zoom(1.3);
  else if (how === "fit" && drawing.whole) drawing.look(drawing.whole);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target === $("find");
  if (event.key === "Escape") {
    if (typing && $("find").value) $("find").value = "";
    else if (state.chosen) choose(null);
    emphasise();
  } else if (typing) {
    if (event.key === "ArrowDown") focusRow(0, event);
  } else if (event.key === "/") {
    event.preventDefault();
    $("find").focus();
  } else if (["+", "=", "-", "0"].includes(event.key)) {
    zoom({ "+": "in", "=": "in", "-": "out", 0: "fit" }[event.key]);
  } else if (event.target.classList?.contains("row")) {
    const visible = visibleRows();
    const index = visible.indexOf(event.target);
    const steps = { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: visible.length - 1 };
    if (event.key in steps) focusRow(steps[event.key], event);
  }
});

function visibleRows() {
  return [...$("members").querySelectorAll("li:not([hidden]) .row")];
}

function focusRow(index, event) {
  event.preventDefault();
  if (index < 0) $("find").focus();
  else visibleRows()[index]?.focus();
}

setInterval(freshness, 500);
listen();
