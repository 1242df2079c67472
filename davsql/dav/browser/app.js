// The page: where we are, what can be done here.
import * as dav from "./?asset=dav.js&v=VERSION";
import { askFolder, askName, askWhether, canPreview, preview } from "./?asset=dialogs.js&v=VERSION";
import { attempt, button, count, h, icon, say, sizeText } from "./?asset=dom.js&v=VERSION";
import { List } from "./?asset=list.js&v=VERSION";
import { Uploads, dropped, picked } from "./?asset=upload.js&v=VERSION";

const { base, share, user } = document.body.dataset;
const FOUND_MAX = 2000;
const SIGNED_OUT = "-signed-out-";

let here = location.pathname.replace(/\/?$/, "/");
let may = { mayAdd: false, mayRemove: false };
let visit = new AbortController(); // ends what belongs to the folder that was left

const list = new List({ open: openEntry, changed: drawSelection });
const uploads = new Uploads(share || base, (folder) => folder === here && refresh());

// --- what there is to see ---------------------------------------------------------------------------------------

const input = (more) => h("input", { type: "file", multiple: true, class: "unseen", tabIndex: -1, "aria-hidden": "true", ...more,
  onchange: (event) => { uploads.add(here, picked(event.target)); event.target.value = ""; } });
const files = input({});
const folders = input({ webkitdirectory: true });
const search = h("input", { type: "search", placeholder: "Search", "aria-label": "Search this folder and those below", enterkeyhint: "search",
  oninput: () => { if (found) refresh(); list.words = search.value; list.arrange(); deeper.hidden = !search.value; },
  onkeydown: (event) => { if (event.key === "Enter" && search.value) searchTree(); if (event.key === "Escape") endSearch(); if (event.key === "ArrowDown") list.table.focus(); } });
const deeper = button("search", "Search in subfolders", () => searchTree(), { hidden: true, class: "bare" });
const bar = h("div", { class: "bar", role: "toolbar", "aria-label": "Folder" },
  button("upload", "Upload", () => files.click(), { class: "primary adds" }), button("folder-up", "Upload folder", () => folders.click(), { class: "adds" }),
  button("folder-new", "New folder", newFolder, { class: "adds" }),
  h("a", { class: "button", title: "Download this folder as ZIP", "aria-label": "Download this folder as ZIP", href: "?download=zip", hidden: !share }, icon("download")),
  h("span", { class: "search" }, icon("search"), search, deeper), files, folders);
const number = h("strong", { "aria-live": "polite" });
const selection = h("div", { class: "bar selection", role: "toolbar", "aria-label": "Selection", hidden: true },
  button("close", "Clear selection", () => list.selectAll(false), { class: "bare" }), number,
  button("download", "Download", download), button("rename", "Rename", rename, { class: "one removes" }),
  button("move", "Move", () => transfer("Move", dav.move), { class: "removes" }), button("copy", "Copy", () => transfer("Copy", dav.copy)),
  button("trash", "Delete", remove, { class: "removes danger" }));
const room = h("p", { class: "room" });
const crumbs = document.getElementById("crumbs");

document.getElementById("top").append(...(user ? [h("span", { class: "user" }, user), button("sign-out", "Sign out", signOut, { class: "bare" })] : []), bar, selection);
document.querySelector("main").replaceChildren(document.querySelector("h1"), list.table, list.empty, room);

function drawSelection() {
  const chosen = list.chosen();
  selection.hidden = chosen.length === 0;
  bar.hidden = chosen.length > 0;
  number.replaceChildren(chosen.length.toLocaleString(), h("span", {}, " selected"));
  for (const each of selection.querySelectorAll(".one")) each.disabled = chosen.length !== 1;
  for (const each of selection.querySelectorAll(".removes")) each.hidden = !may.mayRemove;
}

function drawFolder() {
  let href = base;
  const links = [[base, "Home"], ...here.slice(base.length).split("/").filter(Boolean).map((each) => [(href += `${each}/`), decodeURIComponent(each)])];
  crumbs.replaceChildren(...links.map(([to, name], index) => h("a", { href: to, onclick: follow,
    "aria-current": index === links.length - 1 ? "page" : null }, name)));
  document.title = links.length > 1 ? links.at(-1)[1] : "Files";
  document.querySelector("h1").textContent = document.title;
  for (const each of bar.querySelectorAll(".adds")) each.hidden = !may.mayAdd;
  const { used, free } = may;
  room.replaceChildren(list.all.length ? count(list.all.length, "entry").replace("entrys", "entries") : "",
    ...(used >= 0 ? [` · ${sizeText(used)} used`] : []), ...(free >= 0 ? [` · ${sizeText(free)} free `,
      h("meter", { min: 0, max: used + free || 1, value: String(used), "aria-label": "Storage used" })] : []));
}

// --- going somewhere --------------------------------------------------------------------------------------------

async function refresh(keep = true) {
  visit.abort();
  visit = new AbortController();
  found = false;
  const { signal } = visit;
  await attempt(async () => {
    const [entries, folder] = await Promise.all([dav.list(here, signal), dav.folderOf(here).catch(() => ({}))]);
    if (signal.aborted) return;
    may = folder;
    list.show(entries, { keep });
    drawFolder();
  });
}

function go(href, isNew = true) {
  if (isNew) history.pushState(null, "", href);
  here = href;
  search.value = list.words = "";
  deeper.hidden = true;
  scrollTo(0, 0);
  return refresh(false).then(() => list.table.focus({ preventScroll: true }));
}

function follow(event) {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  const href = event.currentTarget.getAttribute("href");
  if (!share || !href.startsWith(share)) return; // another share: another page
  event.preventDefault();
  go(href);
}

function openEntry(entry, event) {
  if (!entry) return;
  if (entry.isFolder) {
    if (!share) { if (event.type !== "click") location.assign(entry.href); return; }
    event.preventDefault();
    go(entry.href);
  } else if (canPreview(entry)) {
    event.preventDefault();
    preview(list.shown.filter(canPreview), entry);
  } else {
    event.preventDefault();
    save(entry.href);
  }
}

const save = (href) => h("a", { href, download: "" }).click();

// --- searching --------------------------------------------------------------------------------------------------

let found = false;

async function searchTree() {
  const words = search.value.toLocaleLowerCase();
  await refresh();
  const { signal } = visit;
  const hits = [];
  found = true;
  list.show([], { base: here, nothing: "Searching…" });
  await attempt(async () => {
    for await (const some of dav.tree(here, signal)) {
      for (const each of some) if (each.name.toLocaleLowerCase().includes(words) && hits.length < FOUND_MAX) hits.push(each);
      if (signal.aborted) return;
      list.show(hits, { base: here, nothing: "Searching…", keep: true });
      if (hits.length >= FOUND_MAX) break;
    }
    list.show(hits, { base: here, nothing: `Nothing here is called “${search.value}”.`, keep: true });
    say(hits.length >= FOUND_MAX ? `The first ${FOUND_MAX.toLocaleString()} found.` : `${hits.length.toLocaleString()} found.`);
  });
}

function endSearch() {
  search.value = list.words = "";
  deeper.hidden = true;
  if (found) refresh(); else list.arrange();
}

// --- changing ---------------------------------------------------------------------------------------------------

// One after the other; what was done when one fails stays done, and is told.
async function each(entries, work, verb) {
  const done = [];
  await attempt(async () => {
    for (const entry of entries) {
      try {
        done.push(await work(entry));
      } catch (error) {
        throw new Error(`${entry.name}: ${error.message}${done.length ? ` ${done.length} of ${entries.length} were ${verb}.` : ""}`);
      }
    }
  });
  return done;
}

async function newFolder() {
  const name = await askName("New folder", "Create", "New folder");
  if (name === null) return;
  await attempt(() => dav.makeFolder(dav.hrefIn(here, name, true)).catch((error) => {
    throw error.status === 405 ? new dav.Refused(412, dav.explain(412, "")) : error;
  }));
  await refresh();
}

// Moves that have been made, and the way back.
async function moved(moves, verb) {
  await refresh(false);
  if (!moves.length) return;
  say(`${moves.length === 1 ? `“${dav.nameOf(moves[0][1])}” was` : `${count(moves.length, "entry").replace("entrys", "entries")} were`} ${verb}.`, { action: "Undo", onaction: async () => {
    await each(moves.map(([from, to]) => ({ from, to, name: dav.nameOf(to) })), ({ from, to }) => dav.move(to, from), "put back");
    await refresh(false);
  } });
}

async function rename() {
  const [entry] = list.chosen();
  const name = await askName("Rename", "Rename", entry.name);
  if (name === null || name === entry.name) return;
  const to = dav.hrefIn(dav.parentOf(entry.href), name, entry.isFolder);
  await moved(await each([entry], async () => (await dav.move(entry.href, to), [entry.href, to]), "renamed"), "renamed");
}

async function transfer(verb, work) {
  const chosen = list.chosen();
  const folder = await askFolder(`${verb} ${chosen.length === 1 ? `“${chosen[0].name}”` : `${chosen.length} entries`}`, `${verb} here`, here, share);
  if (folder === null) return;
  const past = verb === "Move" ? "moved" : "copied";
  const done = await each(chosen, async (entry) => {
    const isHome = folder === dav.parentOf(entry.href);
    const name = isHome && verb === "Copy" ? await dav.freeName(folder, entry.name, entry.isFolder) : entry.name;
    const to = dav.hrefIn(folder, name, entry.isFolder);
    await work(entry.href, to);
    return [entry.href, to];
  }, past);
  if (verb === "Move") return moved(done, past);
  await refresh(false);
  if (done.length) say(`${count(done.length, "entry").replace("entrys", "entries")} copied.`);
}

async function remove() {
  const chosen = list.chosen();
  const what = chosen.length === 1 ? `“${chosen[0].name}”` : `${chosen.length.toLocaleString()} entries`;
  const inside = chosen.some((entry) => entry.isFolder) ? " Folders go with all that is in them." : "";
  if (!await askWhether(`Delete ${what}?`, `This cannot be undone.${inside}`, "Delete")) return;
  const done = await each(chosen, (entry) => dav.remove(entry.href), "deleted");
  await refresh(false);
  if (done.length) say(`${count(done.length, "entry").replace("entrys", "entries")} deleted.`);
}

function download() {
  const chosen = list.chosen();
  if (chosen.length === 1 && !chosen[0].isFolder) return save(chosen[0].href);
  if (chosen.length === 1) return save(`${chosen[0].href}?download=zip`);
  if (found) return say("From several folders, download one by one.", { isError: true });
  const all = chosen.length === list.all.length;
  const query = all ? "" : chosen.map((entry) => `&name=${encodeURIComponent(entry.name)}`).join("");
  if (query.length > 12000) return say("That is too much of a choice: download the whole folder.", { isError: true });
  return save(`${here}?download=zip${query}`);
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
    h("p", {}, "If this is not your computer, close the browser too: some forget a password only then."), h("a", { class: "button primary", href: here }, "Sign in")));
}

// --- keys, dropping ---------------------------------------------------------------------------------------------

addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || event.target.closest("input:not([type=checkbox])") || event.ctrlKey || event.metaKey) return;
  const chosen = list.chosen().length;
  if (event.key === "/") search.focus();
  else if (event.key === "F2" && chosen === 1 && may.mayRemove) rename();
  else if (event.key === "Delete" && chosen && may.mayRemove) remove();
  else if (event.key === "Escape" && chosen) list.selectAll(false);
  else if ((event.key === "Backspace" || (event.altKey && event.key === "ArrowUp")) && share && here !== share) go(dav.parentOf(here));
  else return;
  event.preventDefault();
});

const target = h("div", { id: "drop", hidden: true }, icon("upload"), h("p", {}, "Drop files and folders to upload them here"));
document.body.append(target);
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

document.body.classList.add("live");
refresh(false);
