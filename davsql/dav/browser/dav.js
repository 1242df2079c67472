// WebDAV, as far as the page needs it. An href is an absolute path, percent-encoded; that of a folder ends with a slash.

const NS = "DAV:";
const MEMBERS = "<getcontentlength/><getlastmodified/><getcontenttype/>";
const FOLDER = "<current-user-privilege-set/><quota-used-bytes/><quota-available-bytes/>";
const STATE = "<getetag/><sync-token/>";
const XML = { "Content-Type": "application/xml" };

export class Refused extends Error {
  constructor(status, text = "") {
    super(explain(status, text));
    this.status = status;
  }
}

const isFolder = (href) => href.endsWith("/");
export const parentOf = (href) => href.replace(/[^/]*\/?$/, "");
const nameOf = (href) => decodeURIComponent(href.replace(/\/$/, "").split("/").pop());
export const hrefIn = (folder, name, slash = false) => folder + encodeURIComponent(name) + (slash ? "/" : "");

// Not relative to the document: its address may hold a password, with which fetch refuses to work.
const urlOf = (href) => new URL(href, location.origin).href;
const parse = (text) => new DOMParser().parseFromString(text, "text/xml");

function explain(status, text) {
  if (text.includes("quota-not-exceeded")) return "The quota is used up.";
  const said = text.startsWith("<") ? parse(text).documentElement.textContent : text;
  const known = { 0: "The server cannot be reached.", 403: "This is not allowed.", 404: "It is not there any more.",
    412: "There is something of that name already.", 423: "Somebody else is working on it: it is locked.",
    507: "There is no room left for it." };
  return known[status] ?? (said.trim() || `The server refused (${status}).`);
}

async function send(method, href, headers = {}, body = null, signal = undefined) {
  let reply;
  try {
    reply = await fetch(urlOf(href), { method, headers, body, signal, cache: "no-store" });
  } catch (error) {
    throw signal?.aborted ? error : new Refused(0);
  }
  if (!reply.ok) throw new Refused(reply.status, await reply.text());
  return reply;
}

// A request with a body whose progress can be seen, which fetch does not show.
export function upload(method, href, headers, body, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(method, urlOf(href));
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => onProgress(event.loaded);
    request.onload = () => (request.status < 300 ? resolve() : reject(new Refused(request.status, request.responseText)));
    request.onerror = () => reject(new Refused(0));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    if (signal.aborted) request.onabort();
    else request.send(body);
  });
}

// --- looking ----------------------------------------------------------------------------------------------------

async function responses(method, href, depth, body, signal) {
  const text = await (await send(method, href, { ...XML, Depth: depth }, body, signal)).text();
  return [...parse(text).getElementsByTagNameNS(NS, "response")];
}

const propfind = (href, depth, names, signal) =>
  responses("PROPFIND", href, depth, `<propfind xmlns="${NS}"><prop>${names}</prop></propfind>`, signal);
const textOf = (element, name) => element.getElementsByTagNameNS(NS, name)[0]?.textContent ?? "";

function entryOf(response) {
  const href = textOf(response, "href");
  const date = textOf(response, "getlastmodified");
  return { href, name: nameOf(href), isFolder: isFolder(href), size: Number(textOf(response, "getcontentlength")),
    date: date ? new Date(date) : null, type: textOf(response, "getcontenttype").split(";")[0].trim() };
}

// The members of a folder; with depth "infinity" all that is below it.
export async function list(href, signal, depth = "1") {
  return (await propfind(href, depth, MEMBERS, signal)).slice(1).map(entryOf);
}

// All that is below a folder, piece by piece: at once where the server allows it, else folder by folder.
export async function* tree(href, signal) {
  let members;
  try {
    yield await list(href, signal, "infinity");
    return;
  } catch (error) {
    if (error.status !== 403) throw error;
    members = await list(href, signal);
  }
  yield members;
  for (const each of members) if (each.isFolder) yield* tree(each.href, signal);
}

// What may be done in a folder, and how much room there is: numbers, or NaN where nobody knows.
export async function folderOf(href, signal) {
  const [answer] = await propfind(href, "0", FOLDER, signal);
  const may = new Set([...answer.getElementsByTagNameNS(NS, "privilege")].map((each) => each.firstElementChild.localName));
  const number = (name) => Number(textOf(answer, name) || NaN);
  return { mayAdd: may.has("bind"), mayRemove: may.has("unbind"),
    used: number("quota-used-bytes"), free: number("quota-available-bytes") };
}

// The first bytes of a file, as text.
export const textAt = async (href, bytes) => (await send("GET", href, { Range: `bytes=0-${bytes - 1}` })).text();

// { size, modified } of a file, the time in seconds; null: there is none.
export async function fileAt(href) {
  try {
    const { headers } = await send("HEAD", href);
    return { size: Number(headers.get("Content-Length")), modified: Date.parse(headers.get("Last-Modified")) / 1000 };
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

// The checksum of a file: eight hexadecimal digits.
export const adler32Of = async (href) =>
  (await send("PATCH", href, { "X-Recalculate-Hash": "ADLER32" })).headers.get("OC-Checksum").replace(/.*:/, "").toLowerCase();

// A name in the folder that nothing has yet: "a (2).txt".
export async function freeName(folder, name, slash = false) {
  const [, stem, end] = slash ? [0, name, ""] : name.match(/^(.+?)(\.[^.]*)?$/s);
  for (let number = 2; ; number += 1) {
    const other = `${stem} (${number})${end ?? ""}`;
    if ((await fileAt(hrefIn(folder, other, slash))) === null) return other;
  }
}

// --- changing ---------------------------------------------------------------------------------------------------

export const makeFolder = (href) => send("MKCOL", href).catch((error) => {
  throw error.status === 405 ? new Refused(412) : error; // there is one
});
export const remove = (href) => send("DELETE", href);
const transfer = (method) => (href, to, overwrite = false) =>
  send(method, href, { Destination: urlOf(to), Overwrite: overwrite ? "T" : "F" });
export const move = transfer("MOVE");
export const copy = transfer("COPY");

// What a file, or a folder with all that is in it, is like now.
export async function stateOf(href) {
  const [answer] = await propfind(href, "0", STATE);
  return textOf(answer, isFolder(href) ? "sync-token" : "getetag");
}

// Delete what is still as it was.
export const removeUnchanged = (href, state) =>
  send("DELETE", href, isFolder(href) ? { If: `(<${state}>)` } : { "If-Match": state }).catch((error) => {
    throw error.status === 412 ? new Error("It has been changed since then, so it stays.") : error;
  });
