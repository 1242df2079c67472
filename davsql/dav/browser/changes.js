// What can be done to entries. Each gives what was done, { text, undo }; undefined when nothing was.
import * as dav from "./?asset=dav.js&v=VERSION";
import { askFolder, askName, askWhether } from "./?asset=dialogs.js&v=VERSION";
import { count, say } from "./?asset=dom.js&v=VERSION";

const called = (entries) => (entries.length === 1 ? `“${entries[0].name}”` : count(entries.length, "entry", "entries"));

// One after the other. What was done when one is refused stays done. `work` gives the way back, where there is one.
async function each(entries, verb, work) {
  const done = [];
  try {
    for (const entry of entries) done.push({ name: entry.name, undo: await work(entry) });
  } catch (error) {
    say(`${entries[done.length].name}: ${error.message}`, { isError: true });
  }
  if (!done.length) return undefined;
  const undo = async () => (await each(done.reverse(), "", (step) => step.undo())) && { text: "Undone." };
  return { text: `${called(done)} ${done.length === 1 ? "was" : "were"} ${verb}.`, undo: done.every((step) => step.undo) && undo };
}

const move = (from, to) => dav.move(from, to).then(() => () => dav.move(to, from));

// What was made goes again, unless somebody has worked on it.
async function unmake(href) {
  const state = await dav.stateOf(href).catch(() => "");
  return state ? () => dav.removeUnchanged(href, state) : null;
}

export async function newFolder(here) {
  const name = await askName("New folder", "Create", "New folder");
  if (name === null) return undefined;
  const href = dav.hrefIn(here, name, true);
  return each([{ name }], "made", () => dav.makeFolder(href).then(() => unmake(href)));
}

export async function rename([entry]) {
  const name = await askName("Rename", "Rename", entry.name);
  if (name === null || name === entry.name) return undefined;
  return each([entry], "renamed", () => move(entry.href, dav.hrefIn(dav.parentOf(entry.href), name, entry.isFolder)));
}

const askTarget = (verb, chosen, here, top) =>
  askFolder(`${verb} ${called(chosen)}`, `${verb} here`, here, top, chosen.map((entry) => entry.href));

export async function moveAll(chosen, here, top) {
  const folder = await askTarget("Move", chosen, here, top);
  if (folder === null) return undefined;
  const others = chosen.filter((entry) => dav.parentOf(entry.href) !== folder); // the rest is there
  return each(others, "moved", (entry) => move(entry.href, dav.hrefIn(folder, entry.name, entry.isFolder)));
}

export async function copyAll(chosen, here, top) {
  const folder = await askTarget("Copy", chosen, here, top);
  if (folder === null) return undefined;
  return each(chosen, "copied", async (entry) => {
    const isBeside = folder === dav.parentOf(entry.href);
    const name = isBeside ? await dav.freeName(folder, entry.name, entry.isFolder) : entry.name;
    const href = dav.hrefIn(folder, name, entry.isFolder);
    await dav.copy(entry.href, href);
    return unmake(href);
  });
}

export async function remove(chosen) {
  const more = chosen.some((entry) => entry.isFolder) ? " Folders go with all that is in them." : "";
  if (!await askWhether(`Delete ${called(chosen)}?`, `This cannot be undone.${more}`, "Delete")) return undefined;
  return each(chosen, "deleted", (entry) => dav.remove(entry.href).then(() => null));
}
