// Making elements, and saying things. Texts become text nodes only, so no name can be markup.

export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((each) => each !== null && each !== undefined));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `${document.body.dataset.icons}#${name}`);
  svg.setAttribute("class", `icon icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

export const button = (name, label, onclick, more = {}) =>
  h("button", { type: "button", title: label, "aria-label": label, onclick, ...more }, icon(name), h("span", {}, label));

export const count = (number, one, many = `${one}s`) => `${number.toLocaleString()} ${number === 1 ? one : many}`;

const UNITS = ["KB", "MB", "GB", "TB", "PB"];

export function sizeText(bytes) {
  if (bytes < 1000) return count(bytes, "byte");
  const unit = Math.min(Math.floor(Math.log10(bytes) / 3), UNITS.length);
  const value = bytes / 1000 ** unit;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit - 1]}`;
}

const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
export const dateText = (date) => (date ? DATE.format(date) : "");

const toasts = h("div", { id: "toasts", role: "status" });
export const corner = h("div", { id: "corner" }, toasts); // what lies over the page, one above the other
document.body.append(corner);

// Tell the user something for a while, with an action such as "Undo"; only errors stay beside it.
export function say(text, { action, onaction, isError = false } = {}) {
  const toast = h("div", { class: isError ? "toast error" : "toast" }, h("span", {}, text));
  const end = () => toast.remove();
  if (action) toast.append(h("button", { type: "button", onclick: () => { end(); onaction(); } }, action));
  toast.append(button("close", "Dismiss", end, { class: "bare" }));
  toasts.replaceChildren(...[...toasts.querySelectorAll(".error")].slice(-2), toast);
  setTimeout(end, action || isError ? 15000 : 5000);
}

export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, { isError: true });
    return undefined;
  }
}
