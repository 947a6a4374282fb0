// Numbers, times and JSON as text.

import { el } from "./elements.js";

const integer = new Intl.NumberFormat("en");
export const number = (n) => integer.format(n);
export const plural = (n, one, more = one + "s") => `${number(n)} ${n === 1 ? one : more}`;

export function duration(ms) {
  if (ms == null || Number.isNaN(ms)) return "–";
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  const s = ms / 1000;
  if (s < 60) return `${s < 10 ? s.toFixed(1) : Math.floor(s)} s`;
  const rest = (n, unit) => n >= 1 ? ` ${Math.floor(n)} ${unit}` : "";
  if (s < 3600) return `${Math.floor(s / 60)} min${rest(s % 60, "s")}`;
  if (s < 86400) return `${Math.floor(s / 3600)} h${rest(s % 3600 / 60, "min")}`;
  return `${Math.floor(s / 86400)} d${rest(s % 86400 / 3600, "h")}`;
}

/** How far this machine's clock is ahead of the server's, in ms, from the header Date. */
let clockOffset = 0;

/** Compares this machine's clock with the header Date of a response. */
export function setClock(date) {
  const sent = Date.parse(date);
  // A difference of up to 3 s is ignored: the header has whole seconds only.
  if (sent) clockOffset = Math.abs(Date.now() - sent) > 3000 ? Date.now() - sent : 0;
}

/** The present time of the server. */
export const now = () => Date.now() - clockOffset;

/** The time zone of the browser, in which all times are shown. */
export const ZONE = new Intl.DateTimeFormat().resolvedOptions().timeZone;

/** A time in the browser's time zone, to the millisecond. */
export function exact(text) {
  const at = new Date(text), pad = (n, length = 2) => String(n).padStart(length, "0");
  const date = [at.getFullYear(), pad(at.getMonth() + 1), pad(at.getDate())].join("-");
  const clock = [at.getHours(), at.getMinutes(), at.getSeconds()].map((n) => pad(n)).join(":");
  return `${date} ${clock}.${pad(at.getMilliseconds(), 3)}`;
}

/** The same to the second. */
export const toSecond = (text) => exact(text).slice(0, 19);

/** The time of a job id, which is a number of microseconds, in RFC 3339. */
export const moment = (id) => new Date(Math.floor(id / 1000)).toISOString().replace("Z", `${String(id % 1000).padStart(3, "0")}Z`);

/** A time such as "5 min ago", with the exact time as its title. */
export function time(text) {
  if (!text) return "–";
  const ms = now() - Date.parse(text);
  // The header Date has whole seconds only.
  const words = Math.abs(ms) < 1500 ? "just now" : ms > 0 ? `${rough(ms)} ago` : `in ${rough(-ms)}`;
  return el("time", { datetime: text, title: `${exact(text)} ${ZONE}\n${text}` }, words);
}

export function rough(ms) {
  const steps = [[86400e3, "d"], [3600e3, "h"], [60e3, "min"], [1e3, "s"]];
  const [unit, name] = steps.find(([unit]) => ms >= unit) ?? [1e3, "s"];
  return `${Math.max(1, Math.floor(ms / unit))} ${name}`;
}

export const clock = (text, more = {}) => new Date(text).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", ...more });

/** Indents a JSON text. It is not parsed, so that numbers keep all their digits. */
export function indent(json) {
  let out = "", depth = 0;
  const line = () => "\n" + "  ".repeat(depth);
  const tokens = json.match(/"(?:[^"\\]|\\.)*(?:"|$)|[[\]{},:]|[^\s[\]{},:"]+/g) ?? [];
  tokens.forEach((token, i) => {
    if (token === "{" || token === "[") {
      depth += 1;
      out += token + (/^[}\]]$/.test(tokens[i + 1]) ? "" : line());
    } else if (token === "}" || token === "]") {
      depth -= 1;
      out += (/^[{[]$/.test(tokens[i - 1]) ? "" : line()) + token;
    } else if (token === ",") out += token + line();
    else out += token === ":" ? ": " : token;
  });
  return out;
}

/** The members of a JSON object, each with its original text. */
export function members(json) {
  const found = {};
  let depth = 0, name = null, start = 0;
  for (const { 0: token, index } of json.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{},:]/g)) {
    const ends = depth === 1 && (token === "," || token === "}");
    if (ends && name !== null) {
      found[name] = json.slice(start, index).trim();
      name = null;
    } else if (depth === 1 && name === null && token[0] === '"') {
      name = JSON.parse(token);
    } else if (depth === 1 && token === ":") {
      start = index + 1;
    }
    if (token === "{" || token === "[") depth += 1;
    if (token === "}" || token === "]") depth -= 1;
  }
  return found;
}
