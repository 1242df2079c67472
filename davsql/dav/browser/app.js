// The page: where we are, what is to be seen, what can be done here.
import * as changes from "./?asset=changes.js&v=VERSION";
import * as dav from "./?asset=dav.js&v=VERSION";
import { canPreview, preview } from "./?asset=dialogs.js&v=VERSION";
import { attempt, button, count, h, icon, say, sizeText } from "./?asset=dom.js&v=VERSION";
import { dropped, picked } from "./?asset=files.js&v=VERSION";
import { List } from "./?asset=list.js&v=VERSION";
import { Uploads } from "./?asset=upload.js&v=VERSION";

const { base, share, user } = document.body.dataset;
const FOUND_MAX = 2000;
const QUERY_MAX = 12000; // characters
const ZIP = "Download this folder as ZIP";
const SIGNED_OUT = "-signed-out-";

let here = location.pathname.replace(/\/?$/, "/");
let may = {};
let visit = new AbortController(); // ends what belongs to the folder that was left
let isSearch = false; // the list shows what was found in the tree

const list = new List({ open: openEntry, changed: drawSelection });
const uploads = new Uploads((folder) => folder === here && !isSearch && refresh());

// --- what there is to see ---------------------------------------------------------------------------------------

const input = (more) => h("input", { type: "file", multiple: true, hidden: true, ...more,
  onchange: (event) => { uploads.add(here, picked(event.target)); event.target.value = ""; } });
const files = input({});
const folders = input({ webkitdirectory: true });
const search = h("input", { type: "search", placeholder: "Search", "aria-label": "Search this folder; Enter: and those below",
  enterkeyhint: "search", oninput: typed, onkeydown: (event) => {
    if (event.key === "Enter" && search.value) searchTree();
    else if (event.key === "Escape") endSearch();
    else if (event.key === "ArrowDown") list.focus();
    else return;
    event.preventDefault();
  } });
const deeper = button("search", "Search in subfolders", searchTree, { hidden: true, class: "bare" });
const bar = h("div", { class: "bar", role: "toolbar", "aria-label": "Folder" },
  button("upload", "Upload", () => files.click(), { class: "primary adds" }),
  button("folder-new", "New folder", () => change(changes.newFolder(here)), { class: "adds" }),
  button("folder-up", "Upload folder", () => folders.click(), { class: "adds lesser" }),
  h("a", { class: "button", title: ZIP, "aria-label": ZIP, href: "?download=zip", hidden: !share }, icon("download")),
  h("span", { class: "search" }, icon("search"), search, deeper), files, folders);
const number = h("strong", { role: "status" });
const ofChosen = (work) => () => change(work(list.chosen(), here, share));
const selection = h("div", { class: "bar selection", role: "toolbar", "aria-label": "Selection", hidden: true },
  button("close", "Clear selection", clearSelection, { class: "bare" }), number,
  button("download", "Download", download),
  button("rename", "Rename", ofChosen(changes.rename), { class: "one removes" }),
  button("move", "Move", ofChosen(changes.moveAll), { class: "removes" }),
  button("copy", "Copy", ofChosen(changes.copyAll)),
  button("trash", "Delete", ofChosen(changes.remove), { class: "removes danger" }));
const room = h("p", { class: "room" });
const crumbs = document.getElementById("crumbs");
const target = h("div", { id: "drop", hidden: true }, icon("upload"), h("p", {}, "Drop files and folders to upload them here"));

function drawSelection() {
  const chosen = list.chosen().length;
  selection.hidden = chosen === 0;
  bar.hidden = chosen > 0;
  number.replaceChildren(chosen.toLocaleString(), h("span", {}, " selected"));
  for (const each of selection.querySelectorAll(".one")) each.disabled = chosen !== 1;
  for (const each of selection.querySelectorAll(".removes")) each.hidden = !may.mayRemove;
}

function clearSelection() {
  list.selectAll(false);
  list.focus();
}

function drawFolder() {
  let href = base;
  const names = here.slice(base.length).split("/").filter(Boolean);
  const links = [[base, "Home"], ...names.map((each) => [(href += `${each}/`), decodeURIComponent(each)])];
  crumbs.replaceChildren(...links.map(([to, name], index) => h("a", { href: to, onclick: follow,
    "aria-current": index === links.length - 1 ? "page" : null }, name)));
  crumbs.scrollLeft = crumbs.scrollWidth;
  document.title = links.length > 1 ? links.at(-1)[1] : "Files";
  document.querySelector("h1").textContent = document.title;
  for (const each of bar.querySelectorAll(".adds")) each.hidden = !may.mayAdd;
  const { used, free } = may;
  const facts = [list.all.length ? count(list.all.length, "entry", "entries") : "", used >= 0 ? `${sizeText(used)} used` : "",
    free >= 0 ? `${sizeText(free)} free` : ""];
  room.replaceChildren(facts.filter(Boolean).join(" · "),
    free >= 0 ? h("meter", { min: 0, max: used + free || 1, value: String(used), "aria-label": "Storage used" }) : "");
}

// --- going somewhere --------------------------------------------------------------------------------------------

// Ends what still goes on for the list.
function visitAnew() {
  visit.abort();
  visit = new AbortController();
  return visit.signal;
}

async function refresh(keep = true) {
  const signal = visitAnew();
  list.table.ariaBusy = "true";
  try {
    const [entries, folder] = await Promise.all([dav.list(here, signal), dav.folderOf(here, signal).catch(() => ({}))]);
    if (signal.aborted) return;
    may = folder;
    isSearch = false;
    list.show(entries, { keep });
  } catch (error) {
    if (signal.aborted) return;
    may = keep ? may : {};
    list.show(keep ? list.all : [], { keep, nothing: error.message });
    if (keep) say(error.message, { isError: true });
  }
  drawFolder();
}

async function go(href, isNew = true) {
  const from = here;
  if (isNew) history.pushState(null, "", href);
  here = href;
  search.value = "";
  typed();
  scrollTo(0, 0);
  await refresh(false);
  if (here === href) list.focus(list.shown.findIndex((each) => each.href === from)); // up: to where we come from
}

function follow(event) {
  const href = event.currentTarget.getAttribute("href");
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (!share || !href.startsWith(share)) return; // another share: another page
  event.preventDefault();
  go(href);
}

function openEntry(entry, event) {
  if (entry.isFolder && !share) {
    location.assign(entry.href);
    return;
  }
  event.preventDefault();
  if (entry.isFolder) go(entry.href);
  else if (canPreview(entry)) preview(list.shown.filter(canPreview), entry);
  else save(entry.href);
}

const save = (href) => h("a", { href, download: "" }).click();

function download() {
  const chosen = list.chosen();
  if (chosen.length === 1) return save(chosen[0].isFolder ? `${chosen[0].href}?download=zip` : chosen[0].href);
  if (isSearch) return say("From several folders, download one by one.", { isError: true });
  const names = chosen.length < list.all.length ? chosen.map((entry) => `&name=${encodeURIComponent(entry.name)}`).join("") : "";
  if (names.length > QUERY_MAX) return say("That is too much of a choice: download the whole folder.", { isError: true });
  return save(`${here}?download=zip${names}`);
}

// --- searching --------------------------------------------------------------------------------------------------

function typed() {
  if (isSearch) refresh();
  list.words = search.value;
  list.arrange();
  deeper.hidden = !search.value;
}

async function searchTree() {
  const words = search.value.toLocaleLowerCase();
  const signal = visitAnew();
  const hits = [];
  const show = (nothing) => list.show(hits.slice(0, FOUND_MAX), { base: here, nothing, keep: true });
  isSearch = true;
  show("Searching…");
  try {
    for await (const some of dav.tree(here, signal)) {
      for (const each of some) if (each.name.toLocaleLowerCase().includes(words)) hits.push(each);
      if (signal.aborted) return;
      show("Searching…");
      if (hits.length >= FOUND_MAX) break;
    }
    show(`Nothing here is called “${search.value}”.`);
    say(hits.length >= FOUND_MAX ? `The first ${FOUND_MAX.toLocaleString()} found.` : `${hits.length.toLocaleString()} found.`);
  } catch (error) {
    if (signal.aborted) return;
    show(error.message);
    say(error.message, { isError: true });
  }
  drawFolder();
}

function endSearch() {
  search.value = "";
  typed();
}

// --- changing ---------------------------------------------------------------------------------------------------

async function change(work) {
  const done = await attempt(() => work);
  if (!done) return;
  await (isSearch ? searchTree() : refresh());
  const focused = document.activeElement;
  if (focused === document.body || !focused.getClientRects().length) list.focus(); // what had the focus has gone
  say(done.text, done.undo ? { action: "Undo", onaction: () => change(done.undo()) } : {});
}

// A browser forgets a password only for another one that is accepted; the server accepts this one for nothing else.
async function signOut() {
  await new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("GET", new URL(`${base}?signout`, location.origin), true, SIGNED_OUT, "-");
    request.onloadend = resolve;
    request.send();
  });
  document.body.replaceChildren(h("main", { class: "gone" }, h("h1", {}, "You are signed out."),
    h("p", {}, "If this is not your computer, close the browser too: some forget a password only then."),
    h("a", { class: "button primary", href: here }, "Sign in")));
}

// --- keys, dropping ---------------------------------------------------------------------------------------------

addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || event.target.closest("input:not([type=checkbox])") || event.ctrlKey || event.metaKey) return;
  const chosen = list.chosen().length;
  const isUp = event.key === "Backspace" || (event.altKey && event.key === "ArrowUp");
  if (event.key === "/") search.focus();
  else if (event.key === "F2" && chosen === 1 && may.mayRemove) ofChosen(changes.rename)();
  else if (event.key === "Delete" && chosen && may.mayRemove) ofChosen(changes.remove)();
  else if (event.key === "Escape" && chosen) clearSelection();
  else if (isUp && share && here !== share) go(dav.parentOf(here));
  else return;
  event.preventDefault();
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  if (may.mayAdd && event.dataTransfer.types.includes("Files")) target.hidden = false;
  else event.dataTransfer.dropEffect = "none";
});
addEventListener("dragleave", (event) => { if (!event.relatedTarget) target.hidden = true; });
addEventListener("drop", (event) => {
  event.preventDefault();
  target.hidden = true;
  if (may.mayAdd) uploads.add(here, dropped(event.dataTransfer));
});
addEventListener("popstate", () => go(location.pathname, false));

const who = user ? [h("span", { class: "user" }, user), button("sign-out", "Sign out", signOut, { class: "bare" })] : [];
document.getElementById("top").append(...who, bar, selection);
document.querySelector("main").replaceChildren(document.querySelector("h1"), list.table, list.empty, room);
document.body.append(target);
document.body.classList.add("live");
refresh(false);
