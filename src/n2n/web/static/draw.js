// The drawing: nodes and links where the server placed them. Elements are kept, so that changes move and fade.

const SVG = "http://www.w3.org/2000/svg";
const WORDS = { direct: "direct both ways", one_way: "direct one way", relay: "relayed by the supernode", offline: "offline", self: "this edge" };

export function make(name, attributes = {}, parent = null) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (parent) parent.append(element);
  return element;
}

function set(element, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    const text = String(value);
    if (element.getAttribute(key) !== text) element.setAttribute(key, text);
  }
}

const cut = (text, limit) => (text.length <= limit ? text : text.slice(0, limit - 1).trimEnd() + "…");
export const labelOf = (member) => member.name || member.address || member.mac;
export const kindOf = (member) => (member.role === "member" ? member.path || "relay" : member.role);

export class Drawing {
  constructor(svg, choose) {
    this.svg = svg;
    this.choose = choose;
    this.root = make("g", {}, svg);
    this.linkLayer = make("g", { "aria-hidden": "true" }, this.root);
    this.hub = make("g", { class: "hub idle", "aria-hidden": "true" }, this.root);
    this.hubMark = make("rect", { width: 22, height: 22, x: -11, y: -11, rx: 5, transform: "rotate(45)" }, this.hub);
    this.hubText = make("text", { class: "sub halo", y: 34, "font-size": 12, "text-anchor": "middle" }, this.hub);
    this.hubText.textContent = "supernode";
    this.timeLayer = make("g", { "aria-hidden": "true" }, this.root);
    this.nodeLayer = make("g", {}, this.root);
    this.links = new Map();
    this.nodes = new Map();
    this.order = [];
    this.current = null;
    this.view = null;
    this.whole = null;
    this.listen();
  }

  // ---- what the server told

  update(picture) {
    const { drawing, members, links } = picture;
    this.root.setAttribute("class", drawing.dense ? "many" : "few");
    this.dense = drawing.dense;
    this.fit(drawing);
    this.hub.classList.toggle("idle", !drawing.hub || !links.some((link) => link.kind === "relay"));
    if (drawing.hub) set(this.hub, { transform: `translate(${drawing.hub[0]} ${drawing.hub[1]})` });
    const changes = this.updateLinks(links);
    const rtts = new Map(members.filter((m) => m.rtt !== null && m.path && m.path !== "relay").map((m) => [m.mac, m.rtt]));
    this.updateTimes(drawing.dense ? [] : links.filter((link) => link.own && rtts.has(link.b)), rtts);
    this.order = members.map((member) => member.mac);
    this.keep(this.nodes, members, (m) => m.mac, (m) => this.newNode(m), (entry, m) => this.updateNode(entry, m));
    this.rove();
    return changes;
  }

  keep(known, wanted, keyOf, create, update) {
    const there = new Set();
    for (const item of wanted) {
      const key = keyOf(item);
      there.add(key);
      let entry = known.get(key);
      if (!entry) known.set(key, (entry = create(item)));
      update(entry, item);
    }
    for (const [key, entry] of known) {
      if (there.has(key)) continue;
      for (const element of entry.elements) element.remove();
      known.delete(key);
    }
  }

  updateLinks(links) {
    const changes = [];
    // Own links last: they lie on top.
    const sorted = [...links].sort((a, b) => a.own - b.own);
    const create = (link) => {
      const path = make("path", { "data-a": link.a, "data-b": link.b });
      if (link.own) this.linkLayer.append(path);
      else this.linkLayer.prepend(path);
      const tip = make("path", { d: this.dense ? "M-4 -4L5 0L-4 4Z" : "M-6 -6L7 0L-6 6Z" }, this.linkLayer);
      return { elements: [path, tip], path, tip, kind: null };
    };
    const update = (entry, link) => {
      const { path, tip } = entry;
      if (entry.kind !== link.kind) {
        if (entry.kind !== null) {
          changes.push({ link, from: entry.kind });
          path.classList.remove("changed");
          void path.getBoundingClientRect();
        }
        path.setAttribute("class", `link ${link.kind}${link.own ? " own" : ""}${entry.kind ? " changed" : ""}`);
        entry.kind = link.kind;
      }
      if (entry.d !== link.d) {
        entry.d = link.d;
        path.setAttribute("d", link.d);
        if ("d" in path.style) path.style.setProperty("d", `path("${link.d}")`); // this one moves
      }
      entry.a = link.a;
      entry.b = link.b;
      tip.setAttribute("class", link.own ? "tip own" : "tip");
      set(tip, link.arrow ? { transform: `translate(${link.arrow[0]} ${link.arrow[1]}) rotate(${link.arrow[2]})`, visibility: "visible" } : { visibility: "hidden" });
    };
    this.keep(this.links, sorted, (link) => `${link.a} ${link.b}`, create, update);
    return changes;
  }

  updateTimes(links, rtts) {
    this.times ??= new Map();
    const create = () => {
      const text = make("text", { class: "sub halo time", "font-size": 12, "text-anchor": "middle" }, this.timeLayer);
      return { elements: [text], text };
    };
    const update = ({ text }, link) => {
      set(text, { x: link.middle[0], y: link.middle[1] + 4 });
      text.textContent = milliseconds(rtts.get(link.b));
    };
    this.keep(this.times, links, (link) => link.b, create, update);
  }

  newNode(member) {
    const group = make("g", { role: "button", tabindex: -1, "data-mac": member.mac }, this.nodeLayer);
    const entry = {
      elements: [group],
      group,
      title: make("title", {}, group),
      target: make("circle", { class: "target" }, group),
      focus: make("circle", { class: "focus" }, group),
      mark: make("circle", { class: "mark" }, group),
      letters: make("text", { class: "letters" }, group),
      name: make("text", { class: "name halo" }, group),
      sub: make("text", { class: "sub halo", "font-size": 12 }, group),
    };
    group.addEventListener("click", () => this.moved || this.choose(member.mac));
    group.addEventListener("focus", () => { this.roving = member.mac; this.rove(); });
    return entry;
  }

  updateNode(entry, member) {
    const [x, y] = member.at;
    const kind = kindOf(member);
    const inside = this.dense && member.role === "self";
    const label = labelOf(member);
    const { at, anchor, turn, font } = member.label;
    const words = `${label}, ${member.address}, ${WORDS[kind]}${member.rtt === null ? "" : ", " + milliseconds(member.rtt)}`;
    if (entry.kind !== kind) {
      if (entry.kind) entry.group.classList.remove(entry.kind);
      entry.group.classList.add("node", kind);
      entry.kind = kind;
    }
    set(entry.group, { "aria-label": words });
    if (entry.title.textContent !== words) entry.title.textContent = words;
    set(entry.mark, { cx: x, cy: y, r: member.radius });
    set(entry.target, { cx: x, cy: y, r: Math.max(member.radius + 4, 9) });
    set(entry.focus, { cx: x, cy: y, r: member.radius + 5 });
    set(entry.letters, { x, y: y + 5, visibility: this.dense ? "hidden" : "visible" });
    entry.letters.textContent = this.dense ? "" : member.letters;
    const drop = this.dense && !inside ? font * 0.35 : 0;
    set(entry.name, { x: at[0], y: at[1] + drop, "font-size": font, "text-anchor": anchor, transform: turn ? `rotate(${turn} ${at[0]} ${at[1]})` : "" });
    entry.name.textContent = cut(label, inside ? 12 : this.dense ? 16 : 18);
    set(entry.sub, { x: at[0], y: at[1] + 17, "text-anchor": anchor });
    entry.sub.textContent = inside || !this.dense ? member.address : "";
  }

  // ---- who is looked at: the others step back

  light(chosen, shown) {
    this.chosen = chosen;
    const near = new Set(chosen ? [chosen] : []);
    for (const { a, b } of this.links.values()) {
      if (a === chosen) near.add(b);
      if (b === chosen) near.add(a);
    }
    const dim = (mac) => (chosen !== null ? !near.has(mac) : shown !== null && !shown.has(mac));
    for (const [mac, { group }] of this.nodes) {
      group.classList.toggle("dim", dim(mac));
      group.classList.toggle("chosen", mac === chosen);
      group.setAttribute("aria-pressed", String(mac === chosen));
    }
    for (const { path, tip, a, b } of this.links.values()) {
      const touches = a === chosen || b === chosen;
      const away = chosen !== null ? !touches : shown !== null && !(shown.has(a) && shown.has(b));
      for (const element of [path, tip]) {
        element.classList.toggle("lit", chosen !== null && touches);
        element.classList.toggle("dim", away);
      }
    }
    for (const [mac, { text }] of this.times ?? []) text.classList.toggle("dim", dim(mac) || (chosen !== null && chosen !== mac && !this.isSelf(chosen)));
  }

  isSelf(mac) {
    return this.nodes.get(mac)?.kind === "self";
  }

  // ---- keyboard: one stop for Tab, arrows from member to member

  rove() {
    if (!this.nodes.has(this.roving)) this.roving = this.order[0];
    for (const [mac, { group }] of this.nodes) set(group, { tabindex: mac === this.roving ? 0 : -1 });
  }

  step(by) {
    const index = this.order.indexOf(this.roving);
    const next = this.order[(index + by + this.order.length) % this.order.length];
    this.nodes.get(next)?.group.focus();
  }

  // ---- zoom and shift

  fit(drawing) {
    const whole = [0, 0, drawing.width, drawing.height];
    if (String(whole) === String(this.whole)) return;
    this.whole = whole;
    this.look(whole);
  }

  look(view) {
    this.view = view;
    this.svg.setAttribute("viewBox", view.map((n) => Math.round(n * 10) / 10).join(" "));
  }

  zoom(factor, x = 0.5, y = 0.5) {
    const [left, top, width, height] = this.view;
    const scale = Math.min(Math.max(width * factor, this.whole[2] / 8), this.whole[2] * 1.6) / width;
    this.look([left + width * (1 - scale) * x, top + height * (1 - scale) * y, width * scale, height * scale]);
  }

  listen() {
    const { svg } = this;
    svg.addEventListener("wheel", (event) => {
      if (!this.view) return;
      event.preventDefault();
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const [left, top, width, height] = this.view;
      this.zoom(event.deltaY > 0 ? 1.12 : 1 / 1.12, (at.x - left) / width, (at.y - top) / height);
    }, { passive: false });
    svg.addEventListener("pointerdown", (event) => {
      this.drag = { x: event.clientX, y: event.clientY, view: this.view };
      this.moved = false;
    });
    window.addEventListener("pointermove", (event) => {
      if (!this.drag?.view) return;
      const dx = event.clientX - this.drag.x, dy = event.clientY - this.drag.y;
      if (Math.hypot(dx, dy) < 4) return;
      this.moved = true;
      const scale = 1 / svg.getScreenCTM().a;
      const [left, top, width, height] = this.drag.view;
      this.look([left - dx * scale, top - dy * scale, width, height]);
    });
    window.addEventListener("pointerup", () => { this.drag = null; });
    svg.addEventListener("click", (event) => { if (event.target === svg && !this.moved) this.choose(null); });
    svg.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    if (event.key in steps) this.step(steps[event.key]);
    else if (event.key === "Enter" || event.key === " ") this.choose(this.roving);
    else return;
    event.preventDefault();
  }
}

export function milliseconds(seconds) {
  const ms = seconds * 1000;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}
