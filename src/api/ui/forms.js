// Forms: their fields, the JSON that they make, and errors beside the field that an error names.
//
// A field is `{name, label, kind, hint, value}`. Its name is the path of its value in the body of the request, such as
// `unique.key`. `names` are further names that errors of the API use for the field.

import { el } from "./elements.js";
import { jobLink } from "./parts.js";
import { toSecond } from "./text.js";

const idOf = (name) => `f-${name.replaceAll(".", "-")}`;

/** A label, a control, a hint, and room for an error. */
function field({ name, names = "", label, kind = "text", hint, value, options, ...more }) {
  const id = idOf(name);
  const attributes = {
    id, name, "data-kind": kind, "data-names": names, autocomplete: "off", "aria-describedby": `${id}-hint ${id}-error`, ...more,
  };
  return el("div", { class: `field ${kind}` },
    el("label", { for: id }, label),
    control(kind, attributes, value ?? "", options),
    el("p", { class: "hint", id: `${id}-hint` }, hint),
    el("p", { class: "error", id: `${id}-error` }));
}

function control(kind, attributes, value, options) {
  if (kind === "choice") {
    return el("select", attributes, options.map(([word, text]) => el("option", { value: word, selected: word === value }, text)));
  }
  if (["json", "pairs", "list"].includes(kind)) return el("textarea", { ...attributes, rows: kind === "json" ? 6 : 2, spellcheck: "false" }, value);
  if (kind === "time") return el("input", { ...attributes, type: "datetime-local", step: 1, value });
  return el("input", { ...attributes, value, inputmode: kind === "number" && "numeric", spellcheck: "false" });
}

/** A form that an action sends, with the fields that are seldom needed folded away. `data` is what the action gets as
 *  the dataset of the form. */
export function form(action, label, fields, folded, data, ...buttons) {
  const attributes = Object.fromEntries(Object.entries(data).map(([name, value]) => [`data-${name}`, value]));
  return el("form", { class: "fields", "data-send": action, "aria-label": label, novalidate: true, ...attributes },
    fields.map((one) => one instanceof Node ? one : field(one)),
    folded.length > 0 && el("details", { class: "more" }, el("summary", {}, "More fields"), folded.map(field)),
    el("p", { class: "outcome", role: "status" }),
    el("p", { class: "acts" }, buttons));
}

export const sendButton = (name) => el("button", { class: "main" }, name);

/** A JSON text that becomes part of a body as it is, so that numbers keep all their digits. */
export class Json {
  constructor(text) {
    this.text = text;
  }
}

/** The JSON of a value that may contain JSON texts. */
function write(value) {
  if (value instanceof Json) return value.text;
  if (value === null || typeof value !== "object" || Array.isArray(value)) return JSON.stringify(value);
  return `{${Object.entries(value).map(([name, member]) => `${JSON.stringify(name)}: ${write(member)}`).join(", ")}}`;
}

const UNITS = { ms: 1, s: 1e3, m: 60e3, h: 3600e3, d: 86400e3 };

/** A duration in ms as text, such as 90s. */
export function durationText(ms) {
  if (ms == null) return "";
  const [unit, size] = Object.entries(UNITS).findLast(([, size]) => ms % size === 0);
  return `${ms / size}${unit}`;
}

/** A time as a field of the kind `time` has it. Browsers leave out seconds that are zero. */
export const timeText = (text) => text ? toSecond(text).replace(" ", "T").replace(/(:\d\d):00$/, "$1") : "";

const wrong = (message) => { throw new Error(message); };

/** The values of the kinds of fields. A kind throws an error that says what is wrong. */
const KINDS = {
  text: (text) => text,
  choice: (text) => text,
  number: (text) => /^\d+$/.test(text.trim()) ? Number(text) : wrong("This must be a whole number."),
  list: (text) => text.split("\n").map((part) => part.trim()).filter(Boolean),
  time: (text) => new Date(text).toISOString(),
  json: (text) => new Json(jsonError(text) ? wrong(jsonError(text)) : text),
  duration(text) {
    const [, amount, unit] = /^(\d+(?:\.\d+)?) ?(ms|s|m|h|d)$/.exec(text.trim()) ?? wrong("This must be a duration such as 250ms, 5s, 10m, 24h or 90d.");
    return Math.round(amount * UNITS[unit]);
  },
  pairs: (text) => Object.fromEntries(text.split("\n").filter((line) => line.trim()).map((line) => {
    const at = line.indexOf("=");
    return at > 0 ? [line.slice(0, at).trim(), line.slice(at + 1).trim()] : wrong(`Each line must be NAME=VALUE: ${line.trim()}`);
  })),
};

const controls = (form) => [...form.querySelectorAll("[data-kind]")];
const isChanged = (control) => control.options
  ? [...control.options].some((option) => option.selected !== option.defaultSelected) : control.value !== control.defaultValue;

/** The value of one control. */
function valueOf(control) {
  if (control.validity.badInput) wrong("This is not a complete date and time.");
  return KINDS[control.dataset.kind](control.value);
}

/** The fields of a form that are filled in, as an object; with `onlyChanged` those that were changed, and a list may be
 *  emptied. Throws if a field is invalid, after it has shown all such errors. */
export function readForm(form, onlyChanged = false) {
  const body = {};
  let invalid = null;
  for (const control of controls(form)) {
    const isEmpty = control.value.trim() === "" && !control.validity.badInput;
    if (onlyChanged ? !isChanged(control) : isEmpty) continue;
    try {
      if (isEmpty && control.dataset.kind !== "list") wrong("This must not be empty.");
      const path = control.name.split("."), last = path.pop();
      const place = path.reduce((object, name) => object[name] ??= {}, body);
      place[last] = valueOf(control);
    } catch (error) {
      showFieldError(control, error.message);
      invalid ??= control;
    }
  }
  if (invalid) throw Object.assign(new Error(), { control: invalid });
  return body;
}

/** The JSON of an object that `readForm` has made. */
export const bodyText = write;

/** What is wrong with a JSON text, and where; null if it is valid. */
function jsonError(text) {
  try {
    JSON.parse(text);
    return null;
  } catch {
    // The messages of browsers differ, and not all name the place.
  }
  const literal = /"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[\da-fA-F]{4}))*"|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])|(?:true|false|null)(?!\w)/y;
  let at = 0;
  const next = () => {
    while (" \t\r\n".includes(text[at] ?? "x")) at += 1;
    return text[at];
  };
  const expected = (what) => {
    const found = next() === undefined ? "the text ends" : `there is ${/[\w.+-]+|./su.exec(text.slice(at))[0].slice(0, 20)}`;
    wrong(`${what} is expected here, but ${found}`);
  };
  const word = () => {
    literal.lastIndex = at;
    if (next() === "'") wrong("a string must be in double quotes");
    literal.lastIndex = at;
    if (literal.test(text)) at = literal.lastIndex;
    else if (next() === '"') wrong("this string has no end, or has a line break or a backslash that is not allowed in it");
    else expected("a value");
  };
  const items = (end, item) => {
    at += 1;
    if (next() === end) return at += 1;
    for (;;) {
      item();
      if (next() === end) return at += 1;
      if (next() !== ",") expected(`a comma or ${end}`);
      at += 1;
      if (next() === end) wrong(`the comma before this ${end} must be removed`);
    }
  };
  const member = () => {
    if (next() !== '"' && next() !== "'") expected("a name in double quotes");
    word();
    if (next() !== ":") expected("a colon");
    at += 1;
    value();
  };
  const value = () => next() === "{" ? items("}", member) : next() === "[" ? items("]", value) : word();
  try {
    value();
    if (next() !== undefined) expected("the end");
    return "This is not valid JSON.";
  } catch (error) {
    const before = text.slice(0, at).split("\n");
    return `Line ${before.length}, column ${before.at(-1).length + 1}: ${error.message}.`;
  }
}

function showFieldError(control, message, ...more) {
  const place = document.getElementById(`${control.id}-error`);
  place.replaceChildren(message, ...more);
  control.setAttribute("aria-invalid", "true");
  const folded = control.closest("details");
  if (folded) folded.open = true;
}

function clearError(control) {
  control.removeAttribute("aria-invalid");
  document.getElementById(`${control.id}-error`).replaceChildren();
}

/** Removes all errors, and the outcome of the last sending. */
export function clearErrors(form) {
  controls(form).forEach(clearError);
  showOutcome(form);
}

/** Shows what has come of a form. */
export function showOutcome(form, ...content) {
  const place = form.querySelector(".outcome");
  place.className = "outcome";
  place.replaceChildren(...content);
}

/** The control that an error of the API names, such as `tags[1] must be a string`. */
function named(form, message) {
  if (message.startsWith("unknown field")) return null;
  for (const [word] of message.matchAll(/[a-z][\w.]*/gi)) {
    const found = controls(form).find((control) => [control.name, ...control.dataset.names.split(" ")].some((name) => name && (word === name || word.startsWith(name + "."))));
    if (found) return found;
  }
  return null;
}

/** Shows an error beside the field that it names, or else above the buttons. The field gets the focus. */
export function showError(form, error) {
  const control = error.control ?? (error.status >= 400 && error.status < 500 ? named(form, error.message) : null);
  const holder = error.jobId ? [" ", jobLink(error.jobId)] : [];
  if (!control) {
    showOutcome(form, error.message, ...holder);
    form.querySelector(".outcome").classList.add("error");
    return;
  }
  if (!error.control) showFieldError(control, error.message, ...holder);
  control.focus();
}
