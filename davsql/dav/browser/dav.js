// WebDAV, as far as the page needs it. An href is an absolute path, percent-encoded; that of a folder ends with a slash.

const NS = "DAV:";
const MEMBERS = "<resourcetype/><getcontentlength/><getlastmodified/><getcontenttype/>";
const FOLDER = "<current-user-privilege-set/><quota-used-bytes/><quota-available-bytes/>";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const isFolder = (href) => href.endsWith("/");
export const parentOf = (href) => href.replace(/[^/]*\/?$/, "");
export const nameOf = (href) => decodeURIComponent(href.replace(/\/$/, "").split("/").pop());
export const hrefIn = (folder, name, slash = false) => folder + encodeURIComponent(name) + (slash ? "/" : "");

// Not relative to the document: its address may hold a password, with which fetch refuses to work.
const urlOf = (href) => new URL(href, location.origin).href;

export function explain(status, text) {
  const said = text.startsWith("<") ? new DOMParser().parseFromString(text, "text/xml").documentElement.textContent : text;
  const known = { 0: "The server cannot be reached.", 403: "This is not allowed.", 404: "It is not there any more.",
    412: "There is something of that name already.", 423: "Somebody else is working on it: it is locked.",
    507: "There is no room left for it." };
  return known[status] ?? (said.trim() || `The server refused (${status}).`);
}

export async function send(method, href, headers = {}, body = null, signal = undefined) {
  let reply;
  try {
    reply = await fetch(urlOf(href), { method, headers, body, signal, cache: "no-store" });
  } catch (error) {
    throw signal?.aborted ? error : new Refused(0, explain(0, ""));
  }
  if (!reply.ok) throw new Refused(reply.status, explain(reply.status, await reply.text()));
  return reply;
}

// A request with a body whose progress can be seen, which fetch does not show.
export function upload(method, href, headers, body, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(method, urlOf(href));
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => onProgress(event.loaded);
    request.onload = () => request.status < 300 ? resolve()
      : reject(new Refused(request.status, explain(request.status, request.responseText)));
    request.onerror = () => reject(new Refused(0, explain(0, "")));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    if (signal.aborted) request.onabort();
    else request.send(body);
  });
}

async function propfind(href, depth, names, signal) {
  const body = `<?xml version="1.0"?><propfind xmlns="${NS}"><prop>${names}</prop></propfind>`;
  const headers = { Depth: depth, "Content-Type": "application/xml" };
  const text = await (await send("PROPFIND", href, headers, body, signal)).text();
  return [...new DOMParser().parseFromString(text, "text/xml").getElementsByTagNameNS(NS, "response")];
}

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
export async function folderOf(href) {
  const [answer] = await propfind(href, "0", FOLDER);
  const may = new Set([...answer.getElementsByTagNameNS(NS, "privilege")].map((each) => each.firstElementChild.localName));
  const number = (name) => Number(textOf(answer, name) || NaN);
  return { mayAdd: may.has("bind"), mayRemove: may.has("unbind"),
    used: number("quota-used-bytes"), free: number("quota-available-bytes") };
}

export const makeFolder = (href) => send("MKCOL", href);
export const remove = (href) => send("DELETE", href);
const transfer = (method) => (href, to, overwrite = false) =>
  send(method, href, { Destination: urlOf(to), Overwrite: overwrite ? "T" : "F" });
export const move = transfer("MOVE");
export const copy = transfer("COPY");

export async function exists(href) {
  try {
    return Number((await send("HEAD", href)).headers.get("Content-Length"));
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

// Whether a file may be sent in pieces (X-Update-Range).
export async function takesPieces(href) {
  return ((await send("OPTIONS", href)).headers.get("DAV") ?? "").includes("sabredav-partialupdate");
}

// A name in the folder that nothing has yet: "a (2).txt".
export async function freeName(folder, name, slash = false) {
  const [, stem, end] = slash ? [0, name, ""] : name.match(/^(.+?)(\.[^.]*)?$/s);
  for (let number = 2; ; number += 1) {
    const other = `${stem} (${number})${end ?? ""}`;
    if ((await exists(hrefIn(folder, other, slash))) === null) return other;
  }
}
