// Uploads: a queue with progress, cancel, and patience. A file appears under its name when all of it is there.
import * as dav from "./?asset=dav.js&v=VERSION";
import { askWhether } from "./?asset=dialogs.js&v=VERSION";
import { attempt, button, corner, count, h, say, sizeText } from "./?asset=dom.js&v=VERSION";

const AT_ONCE = 2;
const PIECE = 8 * 1024 * 1024; // files above it are sent in pieces
const NAME_BYTES = 255; // of the longest name that the server takes
const LINES = 50; // of the panel
const PASSING = new Set([0, 429, 502, 503, 504]); // statuses after which it is worth trying again
const ORDER = ["exists", "failed", "runs", "pauses", "waits"]; // states with a line; the others are "done" and "cancelled"

const stamp = (file) => Math.floor(file.lastModified / 1000);

// Browsers read a file no further when it is not what was chosen; what they say then looks like a lost connection.
const isAsChosen = (file) => file.slice(0, 1).arrayBuffer().then(() => true, () => false);

// Whether the file is stored already: the answer that said so may have been lost.
async function isStored(href, file) {
  const found = await dav.fileAt(href);
  return found?.size === file.size && found.modified === stamp(file);
}

// The checksum of a file's first bytes (RFC 1950 8), as dav.adler32Of gives it.
async function adler32(file, size) {
  let [a, b] = [1, 0];
  for (let at = 0; at < size; at += PIECE) {
    const bytes = new Uint8Array(await file.slice(at, Math.min(at + PIECE, size)).arrayBuffer());
    for (let start = 0; start < bytes.length; start += 4096) { // not longer, or the sums would lose digits
      for (const each of bytes.subarray(start, start + 4096)) b += a += each;
      [a, b] = [a % 65521, b % 65521];
    }
  }
  return (b * 65536 + a).toString(16).padStart(8, "0");
}

export class Uploads {
  // ondone(folder): something has changed there.
  constructor(ondone) {
    this.ondone = ondone;
    this.jobs = [];
    this.working = 0;
    this.folders = new Map();
    this.title = h("h2", { "aria-live": "polite" });
    this.bar = h("progress", { max: 1, "aria-label": "All uploads" });
    this.lines = h("ul");
    this.replaceAll = h("button", { type: "button", onclick: () => this.again(this.those("exists"), true) }, "Replace all");
    this.panel = h("section", { id: "uploads", "aria-label": "Uploads", hidden: true },
      h("header", {}, this.title, this.replaceAll, button("close", "Cancel uploads and close", () => this.close(), { class: "bare" })),
      this.bar, this.lines);
    corner.append(this.panel);
    addEventListener("beforeunload", (event) => this.isBusy && event.preventDefault());
    addEventListener("online", () => this.wake?.());
  }

  those(...states) {
    return this.jobs.filter((job) => states.includes(job.state));
  }

  get isBusy() {
    return this.those("waits", "runs", "pauses").length > 0;
  }

  async add(folder, files) {
    if (!this.isBusy && !this.those("exists").length) this.jobs = [];
    await attempt(async () => {
      for await (const { file, way } of files) {
        const names = way.split("/");
        const name = names.pop();
        const home = names.reduce((href, each) => dav.hrefIn(href, each, true), folder);
        this.jobs.push({ top: folder, home, name, file, size: file?.size ?? 0, sent: 0, state: "waits", stop: new AbortController() });
      }
    });
    this.start();
  }

  start() {
    for (let idle = Math.min(AT_ONCE - this.working, this.those("waits").length); idle > 0; idle -= 1) this.work();
    this.draw();
  }

  async work() {
    this.working += 1;
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
    this.working -= 1;
    if (!this.isBusy) this.end();
  }

  end() {
    const done = this.those("done").filter((job) => job.file).length;
    for (const home of new Set(this.jobs.map((job) => job.top))) this.ondone(home);
    if (done) say(`${count(done, "file")} uploaded.`);
    this.folders.clear();
    this.draw();
  }

  // Make the folders on the way, each once.
  folder(top, home) {
    if (home === top) return Promise.resolve();
    if (!this.folders.has(home)) {
      this.folders.set(home, this.folder(top, dav.parentOf(home)).then(() => dav.makeFolder(home)).catch((error) => {
        if (error.status !== 412) { this.folders.delete(home); throw error; } // 412: there is one
      }));
    }
    return this.folders.get(home);
  }

  async send(job) {
    const href = dav.hrefIn(job.home, job.name);
    const times = { "X-OC-Mtime": String(stamp(job.file)) };
    if (job.size > PIECE) {
      // Asked for before much is sent in vain.
      if (!job.replace && await this.patiently(job, () => dav.fileAt(href))) throw new dav.Refused(412);
      if (this.partOf(job)) await this.sendPieces(job, times);
    }
    const last = job.part ? () => dav.move(job.part, href, job.replace)
      : () => this.sendBytes(job, "PUT", href, job.replace ? times : { ...times, "If-None-Match": "*" }, 0, job.size);
    await this.patiently(job, last).catch(async (error) => {
      if (!job.wasLost || ![404, 412].includes(error.status) || !await isStored(href, job.file)) throw error;
    });
    job.part = null;
  }

  // A file of its own, whose name tells which file it is of: so it is found again after any pause, even when the same
  // file is dropped here tomorrow. Very long names leave no room for it.
  partOf(job) {
    const name = `.upload-${job.size}-${job.file.lastModified}-${job.name}.part`;
    if (new Blob([name]).size <= NAME_BYTES) job.part ??= dav.hrefIn(job.home, name);
    return job.part;
  }

  sendPieces(job, times) {
    return this.patiently(job, async () => {
      let at = (await dav.fileAt(job.part))?.size ?? 0;
      // Programs can change a file and leave its size and time: what an earlier visit has sent is compared.
      if (at && !job.isBegun && await dav.adler32Of(job.part) !== await adler32(job.file, at)) at = 0;
      job.isBegun = true;
      for (; at < job.size; at = Math.min(at + PIECE, job.size)) {
        const end = Math.min(at + PIECE, job.size);
        const more = { ...times, "Content-Type": "application/x-sabredav-partialupdate", "X-Update-Range": `bytes=${at}-${end - 1}` };
        await this.sendBytes(job, at ? "PATCH" : "PUT", job.part, at ? more : times, at, end);
      }
    });
  }

  sendBytes(job, method, href, headers, start, end) {
    const onProgress = (sent) => {
      job.sent = Math.min(start + sent, end);
      this.draw();
    };
    return dav.upload(method, href, headers, job.file.slice(start, end, job.file.type), onProgress, job.stop.signal);
  }

  // Try until it works, it is refused for good, or somebody cancels.
  async patiently(job, work) {
    for (let tries = 0; ; tries += 1) {
      job.stop.signal.throwIfAborted();
      try {
        return await work();
      } catch (error) {
        if (!PASSING.has(error.status)) throw error;
        if (!await isAsChosen(job.file)) throw new Error("It was changed or removed while it was read. Choose it again.");
        Object.assign(job, { wasLost: true, state: "pauses" });
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

  async cancel(job) {
    job.state = "cancelled";
    job.stop.abort();
    this.draw();
    if (!job.part) return;
    await dav.remove(job.part).catch(() => {});
    this.ondone(job.top);
  }

  again(jobs, replace) {
    for (const job of jobs) Object.assign(job, { state: "waits", sent: 0, replace });
    this.start();
  }

  async keepBoth(job) {
    job.name = await dav.freeName(job.home, job.name);
    this.again([job], false);
  }

  async close() {
    if (this.isBusy && !await askWhether("Cancel all uploads?", "What has arrived whole stays.", "Cancel uploads")) return;
    for (const job of this.those(...ORDER)) this.cancel(job);
  }

  // With the next frame, once for all that has happened until then.
  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.drawNow();
    });
  }

  drawNow() {
    const shown = ORDER.flatMap((state) => this.those(state));
    const [conflicts, failed] = [this.those("exists").length, this.those("failed").length];
    const title = this.isBusy ? `Uploading: ${this.jobs.length - shown.length} of ${count(this.jobs.length, "file")}`
      : conflicts ? `${count(conflicts, "name")} taken` : `${count(failed, "file")} failed`;
    const sum = (key) => this.jobs.reduce((total, job) => total + job[key], 0);
    this.panel.hidden = shown.length === 0;
    if (this.title.textContent !== title) this.title.textContent = title;
    this.bar.hidden = !this.isBusy;
    this.bar.value = sum("sent") / (sum("size") || 1);
    this.replaceAll.hidden = conflicts < 2;
    this.lines.replaceChildren(...shown.slice(0, LINES).map((job) => this.line(job)));
  }

  // The line of one file: made anew when its state changes, else only its numbers move.
  line(job) {
    if (job.drawn !== job.state) {
      const act = (text, onclick) => h("button", { type: "button", "aria-label": `${text}: ${job.name}`, onclick }, text);
      const cancel = button("close", `Cancel ${job.name}`, () => this.cancel(job), { class: "bare" });
      const actions = {
        exists: [act("Replace", () => this.again([job], true)), act("Keep both", () => attempt(() => this.keepBoth(job))),
          act("Skip", () => this.cancel(job))],
        failed: [act("Try again", () => this.again([job], job.replace)), act("Dismiss", () => this.cancel(job))],
      }[job.state] ?? [cancel];
      job.drawn = job.state;
      job.about = h("small");
      job.bar = job.state === "runs" ? h("progress", { max: 1, "aria-label": job.name }) : null;
      job.line = h("li", { class: job.state }, h("div", {}, h("span", {}, job.name), job.about, job.bar), ...actions);
    }
    job.about.textContent = { waits: "Waiting", pauses: "Connection lost. Trying again…", exists: "A file of this name is there already.",
      failed: job.why, runs: `${sizeText(job.sent)} of ${sizeText(job.size)}` }[job.state];
    if (job.bar) job.bar.value = job.size ? job.sent / job.size : 0;
    return job.line;
  }
}
