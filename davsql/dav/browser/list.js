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
  [/zip|tar|compressed|zstd/, "archive"], [/^text\/|json|xml|yaml/, "text"]];
export const kindOf = (entry) =>
  entry.isFolder ? "folder" : (KINDS.find(([type]) => type.test(entry.type)) ?? [0, "file"])[1];

export class List {
  // on: open(entry, event), changed() when the selection did.
  constructor(on) {
    this.on = on;
    this.all = [];
    this.shown = [];
    this.selected = new Set();
    this.sort = { by: "name", down: false };
    this.words = "";
    this.at = 0;
    this.rows = new Map();
    this.every = h("input", { type: "checkbox", "aria-label": "Select all", onchange: () => this.selectAll(this.every.checked) });
    this.heads = [["name", "Name"], ["size", "Size"], ["date", "Modified"]].map(([by, text]) =>
      h("th", { scope: "col", class: by }, h("button", { type: "button", onclick: () => this.sortBy(by) }, text, icon("sort"))));
    this.above = h("tr", { "aria-hidden": "true" }, h("td", { colSpan: 2 }));
    this.below = h("tr", { "aria-hidden": "true" }, h("td", { colSpan: 2 }));
    this.body = h("tbody", {}, this.above, this.below);
    this.table = h("table", { class: "list", role: "grid", "aria-multiselectable": "true", "aria-label": "Files", tabIndex: -1,
      onkeydown: (event) => this.onKey(event) },
      h("thead", {}, h("tr", {}, h("th", { class: "check" }, this.every), ...this.heads)), this.body);
    this.empty = h("p", { class: "empty" });
    for (const event of ["scroll", "resize"]) addEventListener(event, () => this.draw(), { passive: true });
  }

  show(entries, { keep = false, base = null, nothing = "This folder is empty." } = {}) {
    const known = new Set(entries.map((each) => each.href));
    this.all = entries;
    this.base = base; // of search results: names are shown with the way from here
    this.selected = keep ? new Set([...this.selected].filter((href) => known.has(href))) : new Set();
    if (!keep) this.at = 0;
    this.empty.textContent = nothing;
    this.arrange();
  }

  arrange() {
    const sign = this.sort.down ? -1 : 1;
    const compare = (a, b) => b.isFolder - a.isFolder || sign * BY[this.sort.by](a, b) || BY.name(a, b);
    const words = this.words.toLocaleLowerCase();
    this.shown = this.all.filter((each) => each.name.toLocaleLowerCase().includes(words)).sort(compare);
    this.at = Math.max(0, Math.min(this.at, this.shown.length - 1));
    this.heads.forEach((head) => head.classList.contains(this.sort.by)
      ? head.setAttribute("aria-sort", this.sort.down ? "descending" : "ascending") : head.removeAttribute("aria-sort"));
    this.empty.hidden = this.shown.length > 0;
    this.table.setAttribute("aria-rowcount", this.shown.length + 1);
    for (const row of this.rows.values()) row.remove();
    this.rows.clear();
    this.draw();
    this.mark();
  }

  sortBy(by) {
    this.sort = { by, down: this.sort.by === by ? !this.sort.down : by !== "name" };
    this.arrange();
  }

  chosen() {
    return this.shown.filter((each) => this.selected.has(each.href));
  }

  // Make the rows near the window, take away the others; what stays is not touched, so it keeps the focus.
  draw() {
    const height = parseFloat(getComputedStyle(this.table).getPropertyValue("--row"));
    const top = this.body.getBoundingClientRect().top;
    const first = Math.max(0, Math.min(Math.floor(-top / height) - AROUND, this.shown.length));
    const last = Math.max(first, Math.min(Math.ceil((innerHeight - top) / height) + AROUND, this.shown.length));
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
    this.above.firstChild.style.height = `${first * height}px`;
    this.below.firstChild.style.height = `${(this.shown.length - last) * height}px`;
  }

  rowOf(entry, index) {
    const isSelected = this.selected.has(entry.href);
    const size = entry.isFolder ? "" : sizeText(entry.size);
    const date = dateText(entry.date);
    const way = this.base ? decodeURIComponent(entry.href.slice(this.base.length)).replace(/[^/]+\/?$/, "") : "";
    const about = [way, size, date].filter(Boolean).join(" · ");
    return h("tr", { "aria-rowindex": String(index + 2), "aria-selected": String(isSelected), class: isSelected ? "selected" : "",
      tabIndex: index === this.at ? 0 : -1, onclick: (event) => this.onClick(event, index), onfocus: () => this.focusAt(index, false) },
      h("td", { class: "check" }, h("input", { type: "checkbox", checked: isSelected, tabIndex: -1, "aria-label": `Select ${entry.name}` })),
      h("td", { class: "name" }, h("div", {}, icon(kindOf(entry)), h("div", {},
        h("a", { href: entry.href, tabIndex: -1 }, entry.name), h("small", { class: way ? "way" : "" }, about)))),
      h("td", { class: "size" }, size), h("td", { class: "date" }, date));
  }

  mark() {
    for (const [index, row] of this.rows) {
      const isSelected = this.selected.has(this.shown[index].href);
      row.classList.toggle("selected", isSelected);
      row.setAttribute("aria-selected", String(isSelected));
      row.querySelector("input").checked = isSelected;
      row.tabIndex = index === this.at ? 0 : -1;
    }
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
      const [from, to] = [Math.min(this.anchor ?? this.at, index), Math.max(this.anchor ?? this.at, index)];
      for (const each of this.shown.slice(from, to + 1)) this.selected.add(each.href);
    } else if (!this.selected.delete(href)) this.selected.add(href);
    if (!isRange) this.anchor = index;
    this.at = index;
    this.mark();
  }

  onClick(event, index) {
    if (event.target.closest("a")) {
      if (!event.ctrlKey && !event.metaKey && !event.shiftKey) this.on.open(this.shown[index], event);
    } else this.toggle(index, event.shiftKey);
  }

  focusAt(index, moves = true) {
    if (!this.shown.length) return;
    const old = this.rows.get(this.at);
    this.at = Math.max(0, Math.min(index, this.shown.length - 1));
    if (old) old.tabIndex = -1;
    if (moves) {
      const height = parseFloat(getComputedStyle(this.table).getPropertyValue("--row"));
      const place = this.body.getBoundingClientRect().top + this.at * height;
      const ceiling = this.body.getBoundingClientRect().top < 0 ? document.getElementById("top").offsetHeight + height : 0;
      if (place < ceiling) scrollBy(0, place - ceiling);
      else if (place + height > innerHeight - 24) scrollBy(0, place + 2 * height - innerHeight);
      this.draw();
      this.rows.get(this.at).focus({ preventScroll: true });
    }
    if (this.rows.has(this.at)) this.rows.get(this.at).tabIndex = 0;
  }

  onKey(event) {
    if (event.target.closest("thead") || event.altKey) return;
    const page = Math.max(1, Math.floor(innerHeight / 60));
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in steps) {
      const before = this.at;
      const step = event.target === this.table && event.key.startsWith("Arrow") ? 0 : steps[event.key];
      this.focusAt(Math.max(0, Math.min(this.at + step, this.shown.length - 1)));
      if (event.shiftKey) { this.anchor ??= before; this.toggle(this.at, true); }
    } else if (event.key === " ") this.toggle(this.at, event.shiftKey);
    else if (event.key === "Enter") this.on.open(this.shown[this.at], event);
    else if (event.key === "a" && (event.ctrlKey || event.metaKey)) this.selectAll(true);
    else return;
    event.preventDefault();
  }
}
