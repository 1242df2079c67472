// Questions, and the preview. <dialog> keeps the focus inside and gives it back.
import * as dav from "./?asset=dav.js&v=VERSION";
import { button, h, icon, sizeText } from "./?asset=dom.js&v=VERSION";
import { kindOf } from "./?asset=list.js&v=VERSION";

const TEXT_BYTES = 256 * 1024;

// Show a dialog; resolves to what it was closed with, null when it was dismissed.
function open(dialog) {
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => { dialog.remove(); resolve(dialog.answer ?? null); }));
}

function question(title, action, isDanger, answer, ...content) {
  const dialog = h("dialog", { class: "question", "aria-label": title });
  const form = h("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); dialog.answer = answer(); dialog.close(); } },
    h("h2", {}, title), ...content, h("footer", {}, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
      h("button", { type: "submit", class: isDanger ? "danger" : "primary" }, action)));
  dialog.append(form);
  return dialog;
}

export function askName(title, action, value = "") {
  const input = h("input", { value, required: true, maxLength: 255, autocomplete: "off", "aria-label": "Name",
    pattern: "[^\\/]+", title: "A name without /" });
  const answer = open(question(title, action, false, () => input.value, input));
  input.focus();
  input.setSelectionRange(0, value.lastIndexOf(".") > 0 ? value.lastIndexOf(".") : value.length);
  return answer;
}

export const askWhether = (title, text, action) => open(question(title, action, true, () => true, h("p", {}, text)));

// A folder of those below `top`, but none of `without` and what is in them.
export function askFolder(title, action, start, top, without) {
  let here = start;
  const way = h("p", { "aria-live": "polite" });
  const folders = h("ul", { class: "folders" });
  const line = (name, href, symbol) =>
    h("li", {}, h("button", { type: "button", onclick: () => go(href) }, icon(symbol), h("span", {}, name)));
  const go = async (href) => {
    try {
      const members = (await dav.list(href)).filter((each) => each.isFolder && !without.includes(each.href));
      members.sort((a, b) => a.name.localeCompare(b.name));
      here = href;
      way.textContent = `To: ${decodeURIComponent(href)}`;
      folders.replaceChildren(...(href === top ? [] : [line("Up", dav.parentOf(href), "up")]),
        ...members.map((each) => line(each.name, each.href, "folder")));
      if (!folders.contains(document.activeElement)) folders.querySelector("button")?.focus();
    } catch (error) {
      way.textContent = error.message;
    }
  };
  const dialog = question(title, action, false, () => here, way, folders);
  go(start);
  return open(dialog);
}

const player = (tag) => (href, name) => h(tag, { src: href, controls: true, preload: "metadata", "aria-label": name });
const embed = {
  image: (href, name) => h("img", { src: href, alt: name }),
  audio: player("audio"),
  video: player("video"),
  pdf: (href, name) => h("iframe", { src: href, title: name }),
  text: (href, name, size) => {
    const text = h("pre", { tabIndex: 0, "aria-label": name });
    const show = (...parts) => text.replaceChildren(...parts);
    const rest = size > TEXT_BYTES ? ["\n\n", h("em", {}, `The first ${sizeText(TEXT_BYTES)} of ${sizeText(size)}.`)] : [];
    if (size) dav.textAt(href, TEXT_BYTES).then((start) => show(start, ...rest), (error) => show(error.message));
    return text;
  },
};

export const canPreview = (entry) => kindOf(entry) in embed;

// One after the other of the entries, from `entry` on.
export function preview(entries, entry) {
  let at = entries.indexOf(entry);
  const title = h("h2");
  const about = h("small");
  const save = h("a", { class: "button bare", download: "", title: "Download", "aria-label": "Download" }, icon("download"));
  const content = h("div", { class: "content" });
  const step = (by) => show((at + by + entries.length) % entries.length);
  const more = { class: "bare", hidden: entries.length < 2 };
  const dialog = h("dialog", { class: "preview", onkeydown: (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by && entries.length > 1 && !event.target.closest("audio, video, pre")) step(by);
  } }, h("header", {}, title, about, button("previous", "Previous", () => step(-1), more), button("next", "Next", () => step(1), more),
    save, button("close", "Close", () => dialog.close(), { class: "bare", autofocus: true })), content);
  const show = (index) => {
    at = index;
    const { href, name, size } = entries[at];
    const shown = embed[kindOf(entries[at])](href, name, size);
    shown.addEventListener("error", () => shown.replaceWith(h("p", {}, "This browser cannot show it. You may download it.")));
    dialog.setAttribute("aria-label", name);
    title.textContent = name;
    about.textContent = sizeText(size);
    save.href = href;
    content.replaceChildren(shown);
  };
  show(at);
  return open(dialog);
}
