// Uploads: a queue with progress, cancel, and patience. A file appears under its name when all of it is there.
import * as dav from "./?asset=dav.js&v=VERSION";
import { button, count, h, say, sizeText } from "./?asset=dom.js&v=VERSION";

const AT_ONCE = 2;
const PIECE = 8 * 1024 * 1024; // files above it are sent in pieces, where the server takes them
const LINES = 50; // of the panel
const PASSING = new Set([0, 429, 502, 503, 504]); // statuses after which it is worth trying again

export class Uploads {
  // ondone(folder): something has changed there.
  constructor(share, ondone) {
    this.share = share;
    this.ondone = ondone;
    this.jobs = [];
    this.folders = new Map();
    this.title = h("h2", { "aria-live": "polite" });
    this.bar = h("progress", { max: 1, "aria-label": "All uploads" });
    this.lines = h("ul");
    this.replaceAll = h("button", { type: "button", hidden: true, onclick: () => this.waiting("exists").forEach((job) => this.again(job, true)) }, "Replace all");
    this.panel = h("section", { id: "uploads", "aria-label": "Uploads", hidden: true },
      h("header", {}, this.title, this.replaceAll, button("close", "Cancel uploads and close", () => this.close(), { class: "bare" })), this.bar, this.lines);
    document.body.append(this.panel);
    addEventListener("beforeunload", (event) => this.isBusy && event.preventDefault());
    addEventListener("online", () => this.wake?.());
  }

  get isBusy() {
    return this.jobs.some((job) => ["waits", "runs", "pauses"].includes(job.state));
  }

  waiting(state) {
    return this.jobs.filter((job) => job.state === state);
  }

  // files: { file, way } with the way below the folder, "photos/a.jpg"; file is null for a folder that is to be made.
  async add(folder, files) {
    if (!this.isBusy && !this.waiting("exists").length) this.jobs = [];
    this.takesPieces ??= dav.takesPieces(this.share).catch(() => false);
    for await (const { file, way } of files) {
      const names = way.split("/");
      const name = names.pop();
      const home = names.reduce((href, each) => dav.hrefIn(href, each, true), folder);
      this.jobs.push({ top: folder, home, name, file, size: file?.size ?? 0, sent: 0, state: "waits", why: "", replace: false, stop: new AbortController() });
    }
    this.panel.hidden = this.jobs.length === 0;
    for (let number = this.waiting("runs").length; number < AT_ONCE; number += 1) this.work();
    this.draw();
  }

  async work() {
    for (let job; (job = this.jobs.find((each) => each.state === "waits"));) {
      job.state = "runs";
      this.draw();
      try {
        await this.folder(job.top, job.home);
        if (job.file) await this.send(job);
        job.sent = job.size;
        job.state = "done";
      } catch (error) {
        job.state = error.name === "AbortError" ? "cancelled" : error.status === 412 ? "exists" : "failed";
        job.why = error.message;
      }
      this.draw();
    }
    if (!this.isBusy) this.end();
  }

  end() {
    const [done, failed] = [this.waiting("done"), this.waiting("failed")];
    for (const home of new Set(this.jobs.map((job) => job.top))) this.ondone(home);
    if (this.jobs.every((job) => ["done", "cancelled"].includes(job.state))) this.panel.hidden = true;
    if (done.length) say(`${count(done.length, "file")} uploaded${failed.length ? `, ${failed.length} failed` : ""}.`);
    this.folders.clear();
    this.draw();
  }

  // Make the folders on the way, each once.
  folder(top, home) {
    if (home === top) return Promise.resolve();
    if (!this.folders.has(home)) {
      this.folders.set(home, this.folder(top, dav.parentOf(home)).then(() => dav.makeFolder(home)).catch((error) => {
        if (error.status !== 405) { this.folders.delete(home); throw error; } // 405: there is one
      }));
    }
    return this.folders.get(home);
  }

  async send(job) {
    const href = dav.hrefIn(job.home, job.name);
    const times = { "X-OC-Mtime": String(Math.floor(job.file.lastModified / 1000)) };
    if (job.size > PIECE && !job.replace && (await this.patiently(job, () => dav.exists(href))) !== null) throw new dav.Refused(412, dav.explain(412, ""));
    if (job.size > PIECE && (await this.takesPieces)) return this.sendPieces(job, href, times);
    const headers = job.replace ? times : { ...times, "If-None-Match": "*" };
    return this.patiently(job, () => dav.upload("PUT", href, headers, job.file, (sent) => this.progress(job, sent), job.stop.signal));
  }

  // Into a file of its own, whose name tells which content it is: so it is found again after any pause, even when the
  // same file is dropped here tomorrow. Then it gets its name.
  async sendPieces(job, href, times) {
    const part = dav.hrefIn(job.home, `.upload-${job.size}-${job.file.lastModified}-${job.name.slice(-40)}.part`);
    job.part = part;
    const step = async () => {
      let at = (await dav.exists(part)) ?? 0;
      for (; at < job.size; at = Math.min(at + PIECE, job.size)) {
        const piece = job.file.slice(at, at + PIECE);
        const progress = (sent) => this.progress(job, at + sent);
        if (at === 0) await dav.upload("PUT", part, { ...times, "Content-Type": job.file.type || "application/octet-stream" }, piece, progress, job.stop.signal);
        else await dav.upload("PATCH", part, { ...times, "Content-Type": "application/x-sabredav-partialupdate",
          "X-Update-Range": `bytes=${at}-${at + piece.size - 1}` }, piece, progress, job.stop.signal);
      }
    };
    await this.patiently(job, step);
    job.stop.signal.throwIfAborted();
    await this.patiently(job, () => dav.move(part, href, job.replace).catch(async (error) => {
      // Moved already, if the answer to that was lost.
      if (error.status !== 404 || (await dav.exists(href)) !== job.size) throw error;
    }));
  }

  // Try until it works, it is refused for good, or somebody cancels.
  async patiently(job, work) {
    for (let tries = 0; ; tries += 1) {
      job.stop.signal.throwIfAborted();
      try {
        return await work();
      } catch (error) {
        if (!PASSING.has(error.status)) throw error;
        job.state = "pauses";
        this.draw();
        await new Promise((resolve) => {
          this.wake = resolve;
          job.stop.signal.addEventListener("abort", resolve, { once: true });
          setTimeout(resolve, Math.min(1000 * 2 ** tries, 30000));
        });
        job.state = "runs";
      }
    }
  }

  progress(job, sent) {
    job.sent = Math.min(sent, job.size);
    this.frame ??= requestAnimationFrame(() => { this.frame = null; this.draw(); });
  }

  async cancel(job) {
    const wasGoing = ["runs", "pauses"].includes(job.state);
    job.state = "cancelled";
    job.stop.abort();
    if (wasGoing && job.part) await dav.remove(job.part).catch(() => {});
    this.draw();
  }

  again(job, replace) {
    Object.assign(job, { state: "waits", sent: 0, replace, stop: new AbortController() });
    this.work();
  }

  async keepBoth(job) {
    job.name = await dav.freeName(job.home, job.name);
    this.again(job, false);
  }

  close() {
    for (const job of this.jobs) if (!["done", "failed"].includes(job.state)) this.cancel(job);
    this.panel.hidden = true;
  }

  draw() {
    const total = this.jobs.reduce((sum, job) => sum + job.size, 0) || 1;
    const done = this.jobs.filter((job) => ["done", "cancelled"].includes(job.state)).length;
    this.bar.value = this.jobs.reduce((sum, job) => sum + job.sent, 0) / total;
    const conflicts = this.waiting("exists").length;
    const title = this.isBusy ? `Uploading: ${done} of ${count(this.jobs.length, "file")}`
      : conflicts ? `${count(conflicts, "name")} already taken` : "Uploads";
    if (this.title.textContent !== title) this.title.textContent = title;
    this.replaceAll.hidden = conflicts < 2;
    const order = ["exists", "failed", "runs", "pauses", "waits"];
    const shown = this.jobs.filter((job) => order.includes(job.state)).sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state));
    this.lines.replaceChildren(...shown.slice(0, LINES).map((job) => (this.line(job), job.line)));
  }

  // The line of one file: made anew when its state changes, else only its numbers move.
  line(job) {
    const about = { waits: "Waiting", pauses: "Connection lost. Trying again…", exists: "A file of this name is there already.",
      failed: job.why, runs: `${sizeText(job.sent)} of ${sizeText(job.size)}` }[job.state];
    if (job.lineState !== job.state) {
      job.lineState = job.state;
      const act = (text, onclick) => h("button", { type: "button", "aria-label": `${text}: ${job.name}`, onclick }, text);
      const actions = job.state === "exists"
        ? [act("Replace", () => this.again(job, true)), act("Keep both", () => this.keepBoth(job)), act("Skip", () => this.cancel(job))]
        : job.state === "failed" ? [act("Try again", () => this.again(job, job.replace))]
          : [button("close", `Cancel ${job.name}`, () => this.cancel(job), { class: "bare" })];
      job.about = h("small", {});
      job.bar = job.state === "runs" ? h("progress", { max: 1, "aria-label": job.name }) : null;
      job.line = h("li", { class: job.state }, h("div", {}, h("span", {}, job.name), job.about, job.bar), ...actions);
    }
    job.about.textContent = about;
    if (job.bar) job.bar.value = job.size ? job.sent / job.size : 0;
  }
}

// What was dropped: files, and folders with all that is in them.
export async function* dropped(transfer) {
  // Both are to be had at once only, before anything waits.
  const items = [...transfer.items].map((item) => [item.webkitGetAsEntry?.(), item.getAsFile()]);
  for (const [entry, file] of items) {
    if (entry) yield* walk(entry, "");
    else if (file) yield { file, way: file.name };
  }
}

async function* walk(entry, way) {
  if (entry.isFile) {
    yield { file: await new Promise((resolve, reject) => entry.file(resolve, reject)), way: way + entry.name };
    return;
  }
  yield { file: null, way: `${way}${entry.name}/` };
  const reader = entry.createReader();
  for (let some; (some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length;) {
    for (const each of some) yield* walk(each, `${way}${entry.name}/`);
  }
}

export const picked = (input) => [...input.files].map((file) => ({ file, way: file.webkitRelativePath || file.name }));
