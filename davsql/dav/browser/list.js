// The table of entries. Only rows near the window exist, so ten thousand scroll like ten.
import { dateText, h, icon, sizeText } from "./?asset=dom.js&v=VERSION";

const AROUND = 12; // rows beyond the window
const NAMES = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
const BY = {
  name: (a, b) => NAMES.compare(a.name, b.name),
  size: (a, b) => a.size - b.size,
  date: (a, b) => (a.date ?? 0) - (b.date ?? 0),
};
const KINDS = [[/^image\//, "image"], [/^audio\//, "audio"], [/^video\//, "video"], [/pdf$/, "pdf"],
  [/zip|x-tar|compressed|zstd/, "archive"], [/^text\/|(json|xml|yaml|javascript)$/, "text"]];
export const kindOf = (entry) =>
  entry.isFolder ? "folder" : (KINDS.find(([type]) => type.test(entry.type)) ?? [0, "file"])[1];

const box = (label, more) => h("input", { type: "checkbox", "aria-label": label, ...more });
const ROW = h("tr", { tabIndex: -1 },
  h("td", { class: "check" }, box("", { tabIndex: -1 })),
  h("td", { class: "name" }, h("div", {}, icon("file"), h("div", {}, h("a", { tabIndex: -1 }), h("small")))),
  h("td", { class: "size" }), h("td", { class: "date" }));

export class List {
  // on: open(entry, event), changed() when the selection did.
  constructor(on) {
    this.on = on;
    this.all = [];
    this.shown = [];
    this.selected = new Set();
    this.sort = { by: "name", down: false };
    this.words = "";
    this.at = 0; // the row that has the focus, or gets it
    this.rows = new Map();
    this.every = box("Select all", { onchange: () => this.selectAll(this.every.checked) });
    this.heads = [["name", "Name"], ["size", "Size"], ["date", "Modified"]].map(([by, text]) =>
      h("th", { scope: "col", class: by }, h("button", { type: "button", onclick: () => this.sortBy(by) }, text, icon("sort"))));
    this.above = h("tr", { "aria-hidden": "true" }, h("td", { colSpan: 2 }));
    this.below = this.above.cloneNode(true);
    this.body = h("tbody", { onclick: (event) => this.onClick(event), onfocusin: (event) => this.putAt(this.indexOf(event.target)) },
      this.above, this.below);
    this.table = h("table", { class: "list", role: "grid", "aria-multiselectable": "true", "aria-label": "Files", tabIndex: -1,
      onkeydown: (event) => this.onKey(event) },
      h("thead", {}, h("tr", {}, h("th", { class: "check" }, this.every), ...this.heads)), this.body);
    this.empty = h("p", { class: "empty" });
    addEventListener("scroll", () => this.draw(), { passive: true });
    addEventListener("resize", () => this.measure());
  }

  show(entries, { keep = false, base = null, nothing = "This folder is empty." } = {}) {
    const known = new Set(entries.map((each) => each.href));
    this.all = entries;
    this.base = base; // of search results: names are shown with the way from here
    this.selected = new Set(keep ? [...this.selected].filter((href) => known.has(href)) : []);
    if (!keep) this.at = 0;
    this.empty.textContent = nothing;
    this.table.ariaBusy = null;
    this.arrange();
  }

  arrange() {
    const sign = this.sort.down ? -1 : 1;
    const compare = (a, b) => b.isFolder - a.isFolder || sign * BY[this.sort.by](a, b) || BY.name(a, b);
    const words = this.words.toLocaleLowerCase();
    const hadFocus = this.body.contains(document.activeElement);
    this.shown = this.all.filter((each) => each.name.toLocaleLowerCase().includes(words)).sort(compare);
    this.at = this.within(this.at);
    for (const head of this.heads) {
      if (head.classList.contains(this.sort.by)) head.setAttribute("aria-sort", this.sort.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    this.empty.hidden = this.shown.length > 0;
    this.table.setAttribute("aria-rowcount", this.shown.length + 1);
    for (const row of this.rows.values()) row.remove();
    this.rows.clear();
    this.measure();
    this.mark();
    if (hadFocus) this.focus();
  }

  sortBy(by) {
    this.sort = { by, down: this.sort.by === by ? !this.sort.down : by !== "name" };
    this.arrange();
  }

  chosen() {
    return this.shown.filter((each) => this.selected.has(each.href));
  }

  within(index) {
    return Math.max(0, Math.min(index, this.shown.length - 1));
  }

  measure() {
    this.height = parseFloat(getComputedStyle(this.table).getPropertyValue("--row"));
    this.draw();
  }

  // Make the rows near the window, take away the others; what stays is not touched, so it keeps the focus.
  draw() {
    const top = this.body.getBoundingClientRect().top;
    const bounded = (index) => Math.max(0, Math.min(index, this.shown.length));
    const first = bounded(Math.floor(-top / this.height) - AROUND);
    const last = bounded(Math.ceil((innerHeight - top) / this.height) + AROUND);
    for (const [index, row] of this.rows) {
      if (index >= first && index < last) continue;
      if (row.contains(document.activeElement)) this.table.focus({ preventScroll: true });
      row.remove();
      this.rows.delete(index);
    }
    let next = this.below;
    for (let index = last - 1; index >= first; index -= 1) {
      if (!this.rows.has(index)) {
        this.rows.set(index, this.rowOf(this.shown[index], index));
        this.body.insertBefore(this.rows.get(index), next);
      }
      next = this.rows.get(index);
    }
    this.above.firstChild.style.height = `${first * this.height}px`;
    this.below.firstChild.style.height = `${(this.shown.length - last) * this.height}px`;
  }

  rowOf(entry, index) {
    const row = ROW.cloneNode(true);
    const size = entry.isFolder ? "" : sizeText(entry.size);
    const date = dateText(entry.date);
    const way = this.base ? decodeURIComponent(entry.href.slice(this.base.length)).replace(/[^/]+\/?$/, "") : "";
    const [link, about] = row.querySelectorAll("a, small");
    row.setAttribute("aria-rowindex", index + 2);
    row.querySelector("input").setAttribute("aria-label", `Select ${entry.name}`);
    row.querySelector("svg").replaceWith(icon(kindOf(entry)));
    link.href = entry.href;
    link.textContent = link.title = entry.name;
    about.className = way ? "way" : "";
    about.textContent = [way, size, date].filter(Boolean).join(" · ");
    row.cells[2].textContent = size;
    row.cells[3].textContent = date;
    this.markRow(row, index);
    return row;
  }

  markRow(row, index) {
    const isSelected = this.selected.has(this.shown[index].href);
    row.classList.toggle("selected", isSelected);
    row.setAttribute("aria-selected", isSelected);
    row.querySelector("input").checked = isSelected;
    row.tabIndex = index === this.at ? 0 : -1;
  }

  mark() {
    for (const [index, row] of this.rows) this.markRow(row, index);
    const number = this.chosen().length;
    this.every.checked = number > 0 && number === this.shown.length;
    this.every.indeterminate = number > 0 && !this.every.checked;
    this.on.changed();
  }

  selectAll(yes) {
    this.selected = new Set(yes ? this.shown.map((each) => each.href) : []);
    this.mark();
  }

  toggle(index, isRange) {
    const { href } = this.shown[index];
    if (isRange) {
      const from = this.anchor ?? this.at;
      for (const each of this.shown.slice(Math.min(from, index), Math.max(from, index) + 1)) this.selected.add(each.href);
    } else {
      if (!this.selected.delete(href)) this.selected.add(href);
      this.anchor = index;
    }
    this.at = index;
    this.mark();
  }

  indexOf(element) {
    return Number(element.closest("tr").getAttribute("aria-rowindex")) - 2;
  }

  onClick(event) {
    const index = this.indexOf(event.target);
    if (!this.rows.has(index)) return; // the room of rows that do not exist
    if (!event.target.closest("a")) this.toggle(index, event.shiftKey);
    else if (!event.ctrlKey && !event.metaKey && !event.shiftKey) this.on.open(this.shown[index], event);
  }

  // Only one row is reached by Tab: the others by the arrow keys, from there.
  putAt(index) {
    const old = this.rows.get(this.at);
    this.at = index;
    if (old) old.tabIndex = -1;
    this.rows.get(index).tabIndex = 0;
  }

  focus(index = this.at) {
    if (!this.shown.length) return this.table.focus({ preventScroll: true });
    const place = this.within(index);
    if (!this.rows.has(place)) {
      scrollBy(0, this.body.getBoundingClientRect().top + (place + 0.5) * this.height - innerHeight / 2);
      this.draw();
    }
    this.rows.get(place).focus({ preventScroll: true });
    this.rows.get(place).scrollIntoView({ block: "nearest" });
  }

  onKey(event) {
    if (event.target.closest("thead") || event.altKey || !this.shown.length) return;
    const page = Math.max(1, Math.floor(innerHeight / this.height) - 4);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in steps) {
      const before = this.at;
      this.focus(event.target === this.table && event.key.startsWith("Arrow") ? before : before + steps[event.key]);
      if (event.shiftKey) { this.anchor ??= before; this.toggle(this.at, true); }
    } else if (event.key === " ") this.toggle(this.at, event.shiftKey);
    else if (event.key === "Enter") this.on.open(this.shown[this.at], event);
    else if (event.key.toLowerCase() === "a" && (event.ctrlKey || event.metaKey)) this.selectAll(true);
    else return;
    event.preventDefault();
  }
}
