// The dashboard. A view reads the API and renders elements. The page is then changed into these elements node by node, so
// that the focus, a selection and an open <details> survive a refresh. Text is always set as text: no text of a job can
// become markup.
"use strict";

const STATUSES = ["scheduled", "queued", "processing", "retrying", "completed", "failed", "cancelled"];
const PAGE_SIZE = 25;
const TOKEN = "threadq-token";

// ---- elements -------------------------------------------------------------------------------------------------------

const byId = (id) => document.getElementById(id);

/** Makes an element: `el("td", {class: "n"}, "text", child, [children])`. False, null and undefined children are skipped. */
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "checked") node.checked = value;
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter((child) => child !== false && child != null));
  return node;
}

/** Makes the children of `old` equal to `children`, and keeps the nodes that are there already. */
function show(old, children) {
  const wanted = el("div", {}, children);
  morph(old, wanted);
}

/** Identifies a node among its siblings: rows of a list come and go, and the focus must stay on its row. */
const keyOf = (node) => node.nodeName + " " + (node.dataset?.key ?? node.dataset?.do ?? "");

function morph(old, wanted) {
  let at = old.firstChild;
  for (const node of [...wanted.childNodes]) {
    let there = at;
    while (there && keyOf(there) !== keyOf(node)) there = there.nextSibling;
    if (!there) {
      old.insertBefore(node, at);
      continue;
    }
    // The nodes in between are gone, or have moved and are made anew at their new place.
    while (at !== there) at = drop(at);
    at = there.nextSibling;
    update(there, node);
  }
  while (at) at = drop(at);
}

function drop(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

/** Makes an existing node equal to a node of the same kind. */
function update(there, node) {
  if (node.nodeType === Node.TEXT_NODE) {
    if (there.data !== node.data) there.data = node.data;
    return;
  }
  for (const { name } of [...there.attributes]) {
    // A <details> that the user has opened stays open.
    if (!node.hasAttribute(name) && name !== "open") there.removeAttribute(name);
  }
  for (const { name, value } of node.attributes) {
    if (there.getAttribute(name) !== value) there.setAttribute(name, value);
  }
  if (node.nodeName === "INPUT" && node.type === "checkbox") there.checked = node.checked;
  morph(there, node);
}

// ---- text -----------------------------------------------------------------------------------------------------------

const integer = new Intl.NumberFormat("en");
const number = (n) => integer.format(n);
const plural = (n, one, more = one + "s") => `${number(n)} ${n === 1 ? one : more}`;

function duration(ms) {
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
const now = () => Date.now() - clockOffset;

/** The time zone of the browser, in which all times are shown. */
const ZONE = new Intl.DateTimeFormat().resolvedOptions().timeZone;

/** A time in the browser's time zone, to the millisecond. */
function exact(text) {
  const at = new Date(text), pad = (n, length = 2) => String(n).padStart(length, "0");
  const date = [at.getFullYear(), pad(at.getMonth() + 1), pad(at.getDate())].join("-");
  const clock = [at.getHours(), at.getMinutes(), at.getSeconds()].map((n) => pad(n)).join(":");
  return `${date} ${clock}.${pad(at.getMilliseconds(), 3)}`;
}

/** A time such as "5 min ago", with the exact time as its title. */
function time(text) {
  if (!text) return "–";
  const ms = now() - Date.parse(text);
  // The header Date has whole seconds only.
  const words = Math.abs(ms) < 1500 ? "just now" : ms > 0 ? `${rough(ms)} ago` : `in ${rough(-ms)}`;
  return el("time", { datetime: text, title: `${exact(text)} ${ZONE}\n${text}` }, words);
}

function rough(ms) {
  const steps = [[86400e3, "d"], [3600e3, "h"], [60e3, "min"], [1e3, "s"]];
  const [unit, name] = steps.find(([unit]) => ms >= unit) ?? [1e3, "s"];
  return `${Math.max(1, Math.floor(ms / unit))} ${name}`;
}

const clock = (text, more = {}) => new Date(text).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", ...more });

/** Indents a JSON text. It is not parsed, so that numbers keep all their digits. */
function indent(json) {
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
function members(json) {
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

// ---- the API --------------------------------------------------------------------------------------------------------

/** Timeout of a GET request in ms: a server that is suspended would never respond. */
const GET_TIMEOUT = 15e3;

/** Sends a request to the API. Returns the body of the response; with `raw`, also its text as `.text`. An error has the
 *  status of the response, or none if threadq did not respond. */
async function api(method, path, body, raw = false) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const signal = method === "GET" ? AbortSignal.timeout(GET_TIMEOUT) : undefined;
    const options = { method, headers, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store", signal };
    const response = await fetch(path, options).catch(noResponse);
    if (response.status === 401) {
      await login(token);
      continue;
    }
    const sent = Date.parse(response.headers.get("Date"));
    // A difference of up to 3 s is ignored: the header has whole seconds only.
    if (sent) clockOffset = Math.abs(Date.now() - sent) > 3000 ? Date.now() - sent : 0;
    const text = await response.text().catch(noResponse);
    const value = parsed(text);
    if (!response.ok) throw Object.assign(new Error(value?.error ?? `unexpected response: status ${response.status}`), { status: response.status });
    if (value === undefined) throw new Error("the response is not from threadq");
    return raw ? { value, text } : value;
  }
}

function noResponse() {
  throw new Error("no response from the server");
}

/** The value of a JSON text, null for an empty text, undefined for any other text, such as an error page of a proxy. */
function parsed(text) {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return undefined;
  }
}

const TOKEN_REJECTED = "The server rejected this token. Enter another token.";
let pendingLogin = null;

/** Asks for the token, once for all requests that need it. `rejected` is the token that was sent. */
function login(rejected) {
  if (sessionStorage.getItem(TOKEN) !== rejected) return Promise.resolve();
  pendingLogin ??= new Promise((resolve) => {
    const dialog = byId("login"), input = byId("token");
    if (rejected) byId("login-text").textContent = TOKEN_REJECTED;
    input.value = "";
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.onclose = () => {
      const token = input.value.trim();
      input.value = "";
      // Other characters are invalid in a header.
      if (!/^[\x20-\x7e]+$/.test(token)) {
        if (token) byId("login-text").textContent = TOKEN_REJECTED;
        return dialog.showModal();
      }
      sessionStorage.setItem(TOKEN, token);
      pendingLogin = null;
      resolve();
    };
    dialog.showModal();
    input.focus();
  });
  return pendingLogin;
}

const query = (parameters) => {
  const text = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value)).toString();
  return text && "?" + text;
};

// ---- questions and messages -----------------------------------------------------------------------------------------

/** Asks a question and returns whether the answer is yes. An open question is never replaced by another one, which the
 *  user might answer by mistake. */
async function ask(title, text, yes, danger = false) {
  const dialog = byId("ask");
  if (dialog.open) throw new Error(`"${title}" could not be asked because another question was open.`);
  byId("ask-title").textContent = title;
  byId("ask-text").textContent = text;
  byId("ask-yes").textContent = yes;
  byId("ask-yes").className = danger ? "danger" : "main";
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
  });
}

let messageTimer;

/** Shows a message for 8 s; screen readers read it out. */
function notify(text, isError = false) {
  const message = byId("said");
  message.textContent = text;
  message.className = isError ? "error" : "";
  clearTimeout(messageTimer);
  messageTimer = setTimeout(() => { message.textContent = ""; }, 8000);
}

// ---- parts of views -------------------------------------------------------------------------------------------------

const status = (name) => el("span", { class: `status ${name}` }, name ?? "unreadable");
/** The running attempt, or the number of ended attempts, of the maximum. */
const attempts = (job) => job.attempts == null ? "–" : `${job.attempts + (job.status === "processing" ? 1 : 0)} of ${job.max_attempts ?? "–"}`;
const jobLink = (id) => el("a", { class: "id", href: `#/jobs/${id}` }, id);
const button = (name, action, data = {}, attributes = {}) => {
  const all = { type: "button", "data-do": action, ...attributes };
  for (const [key, value] of Object.entries(data)) all[`data-${key}`] = value;
  return markBusy(el("button", all, name));
};

/** The actions in progress. */
const inProgress = new Set();
const actionOf = ({ dataset: { do: action, id, queue, type } }) => JSON.stringify([action, id, queue, type]);

/** Marks a button while its action is in progress, also after the page is drawn again. */
function markBusy(button) {
  inProgress.has(actionOf(button)) ? button.setAttribute("aria-busy", "true") : button.removeAttribute("aria-busy");
  return button;
}

/** A table. Columns are `[title, class]`, a row is a list of cells, and `keys` identify the rows. `empty` is shown when
 *  there are no rows. */
function table(name, columns, rows, empty, keys = []) {
  if (!rows.length) return el("p", { class: "nothing" }, empty);
  return el("div", { class: "scroll" },
    el("table", { "aria-label": name },
      el("thead", {}, el("tr", {}, columns.map(([title, kind]) => el("th", { scope: "col", class: kind }, title)))),
      el("tbody", {}, rows.map((row, at) =>
        el("tr", { "data-key": keys[at] }, row.map((cell, i) => el("td", { class: columns[i][1] }, cell)))))));
}

const lastPage = (total) => Math.max(1, Math.ceil(total / PAGE_SIZE));

/** Is shown in place of a page after the last one. */
function noSuchPage(path, filter, { page, total, before }) {
  const last = lastPage(total);
  const to = (target, name) => el("a", { href: `#${path}${query({ ...filter, page: target })}` }, name);
  const what = before ? "There is no older job." : `There is no page ${number(page)}: the list has ${plural(last, "page")}.`;
  return el("p", { class: "nothing" }, what, " Go to the ", to(null, "first page"), last > 1 && [" or to the ", to(last, "last page")], ".");
}

/** The parameter `before` of each page that was reached by "Older", by its number. */
const pageStarts = [];

function pager(path, filter, { page, total, jobs, next }) {
  if (total === 0) return null;
  const last = Math.max(page, lastPage(total));
  pageStarts[page + 1] = next;
  const to = (target, name, isOn) => isOn
    ? el("a", { href: `#${path}${query({ ...filter, page: target > 1 && target, before: target > 1 && pageStarts[target] })}` }, name)
    : el("span", { class: "off" });
  return el("nav", { class: "pager", "aria-label": "Pages of this list" },
    to(page - 1, "← Newer", page > 1),
    el("span", {}, `page ${number(page)} of ${number(last)}, ${plural(total, "job")}`),
    to(page + 1, "Older →", next !== null));
}

/** A job without its large texts, as in listings; null if it is deleted. */
async function brief(id) {
  const { jobs } = await api("GET", "/jobs" + query({ before: id + 1, limit: 1 }));
  return jobs[0]?.id === id ? jobs[0] : null;
}

const hasEnded = ({ status }) => ["completed", "failed", "cancelled"].includes(status);
/** A page is read again after this time in ms, even if nothing seems to have changed. */
const REREAD_INTERVAL = 30e3;
/** Number of jobs that are read one by one at each refresh, of those that have left the list. */
const SINGLE_READS = 5;

/** Reads a page of a list. A page that is shown already keeps its jobs in their places, whatever is added or removed
 *  meanwhile: only the jobs themselves, and the number of newer jobs, are read again. */
async function readList(path, filter, { page, before }, old) {
  const ask = (more) => api("GET", path + query({ ...filter, limit: PAGE_SIZE, ...more }));
  if (!old?.jobs.length) {
    const { jobs, total, next } = await ask(before ? { before } : { page: page ?? 1 });
    return { jobs, total, next, before, page: Number(page) || 1, listed: new Date(), listedTotal: total, newer: 0, read: Date.now() };
  }
  const first = old.jobs[0].id;
  const { total, jobs: newest } = await ask({ limit: 1 });
  const newer = Math.max(total - old.listedTotal, newest[0]?.id > first ? 1 : 0);
  if (total === old.total && old.jobs.every(hasEnded) && Date.now() - old.read < REREAD_INTERVAL) return { ...old, newer };
  const found = new Map((await ask({ before: first + 1 })).jobs.map((job) => [job.id, job]));
  const left = old.jobs.filter((job) => !found.has(job.id) && !(job.hasLeft && hasEnded(job)));
  left.sort((a, b) => (a.readAt ?? 0) - (b.readAt ?? 0));
  for (const job of left.slice(0, SINGLE_READS)) {
    const there = await brief(job.id);
    found.set(job.id, { ...(there ?? { ...job, status: "deleted" }), hasLeft: true, readAt: Date.now() });
  }
  return { ...old, jobs: old.jobs.map((job) => found.get(job.id) ?? job), total, newer, read: Date.now() };
}

/** The line above a list: when it was read, and a button for newer jobs. The line always has room for the button. */
function listInfo({ jobs, listed, newer, page }, isCounted) {
  if (!jobs.length) return null;
  return el("p", { class: "news" }, el("span", {}, `listed at ${clock(listed, { second: "2-digit" })}`),
    page === 1 && newer > 0 && button(isCounted ? `↑ ${number(newer)} newer` : "↑ newer jobs", "newest"));
}

const types = new Set();
const typeOption = (type) => el("option", { value: type });

/** Adds the types of these jobs to the suggestions of the filter. */
function learnTypes(jobs) {
  for (const { type } of jobs) {
    if (types.has(type) || types.size >= 200) continue;
    types.add(type);
    byId("types")?.append(typeOption(type));
  }
}

/** The list of suggestions is always there, because the role of the field depends on it. */
function typeFilter(value) {
  return [el("label", {}, "Type ",
    el("input", { name: "type", value: value ?? "", list: "types", maxlength: 100, autocomplete: "off", placeholder: "any" })),
    el("datalist", { id: "types" }, [...types].map(typeOption))];
}

// ---- charts ---------------------------------------------------------------------------------------------------------

/** A chart over time. `series` are `{name, kind, values}`, with null for an unknown value; `format` makes a value a text;
 *  `stacked` draws bars. */
function chart(title, times, series, format, stacked = false) {
  const width = 600, height = 120, step = width / Math.max(1, times.length - (stacked ? 0 : 1));
  const sums = times.map((_, i) => series.reduce((sum, one) => stacked ? sum + (one.values[i] ?? 0) : Math.max(sum, one.values[i] ?? 0), 0));
  const top = niceTop(Math.max(0, ...sums));
  const y = (value) => height - value / top * height;
  const grid = [0.25, 0.5, 0.75].map((part) => svg("line", { class: "grid", x1: 0, x2: width, y1: height * part, y2: height * part }));
  const shownValue = (value) => value == null ? "–" : format(value);
  // Each minute shows its values as a title when the pointer is on it.
  const slot = width / Math.max(1, times.length);
  const minutes = times.map((at, i) => svg("g", {},
    svg("title", {}, `${at}: ${series.map((one) => `${one.name} ${shownValue(one.values[i])}`).join(", ")}`),
    svg("rect", { class: "hit", x: i * slot, y: 0, width: slot, height }), stacked && bars(i)));
  const marks = [minutes, !stacked && series.map((one) => lines(one))];
  function bars(i) {
    let base = 0;
    return series.map((one) => {
      const value = one.values[i] ?? 0;
      base += value;
      return value > 0 && svg("rect", { class: one.kind, x: i * step + step * 0.1, y: y(base), width: step * 0.8, height: value / top * height });
    });
  }
  function lines(one) {
    const parts = [];
    let path = "", drawn = 0;
    const end = (i) => {
      // A single point is drawn as a short line.
      if (drawn === 1) path += `h${-step / 2}`;
      if (path) parts.push(svg("path", { class: one.kind, d: path }));
      path = "";
      drawn = 0;
    };
    one.values.forEach((value, i) => {
      if (value == null) return end(i);
      path += `${drawn ? "L" : "M"}${(i * step).toFixed(1)} ${y(value).toFixed(1)}`;
      drawn += 1;
    });
    end(one.values.length);
    return parts;
  }
  const last = (values) => values.findLast((value) => value != null);
  const summary = series.map((one) => {
    const known = one.values.filter((value) => value != null);
    return known.length ? `${one.name}: last ${format(last(known))}, maximum ${format(Math.max(...known))}` : `${one.name}: no values`;
  }).join("; ");
  return el("figure", {},
    el("figcaption", {}, el("span", {}, title), el("span", { class: "legend" }, series.map((one) => el("span", { class: one.kind }, one.name)))),
    el("div", { class: "plot" },
      el("span", { class: "top" }, format(top)),
      svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}. ${summary}.` }, grid, marks)),
    el("div", { class: "axis" }, el("span", {}, times[0]), el("span", {}, times.at(-1))),
    asTable());
  /** The values as a table, newest first, without the minutes that have only zeros. */
  function asTable() {
    const rows = times.map((at, i) => [at, ...series.map((one) => one.values[i])])
      .filter(([, ...values]) => values.some((value) => value)).reverse();
    return el("details", {}, el("summary", { "aria-label": `${title} as a table` }, "Table"),
      el("div", { class: "figures", tabindex: 0, role: "region", "aria-label": `${title}, minute by minute` },
        table(title, [["Minute"], ...series.map((one) => [one.name, "n"])],
          rows.map(([at, ...values]) => [at, ...values.map(shownValue)]), "Nothing in the last hour.", rows.map(([at]) => at))));
  }
}

/** The smallest of 1, 2, 5, 10, 20, .. that is not below the value. */
function niceTop(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= value);
}

// ---- views ----------------------------------------------------------------------------------------------------------

/** The last counts that this page has read: `{at, counts}`. */
const samples = [];

function addSample(counts) {
  samples.push({ at: Date.now(), counts });
  while (samples.length > 20) samples.shift();
}

/** Jobs per second that got one of these statuses, from the samples of the last 11 s. A falling count is ignored: jobs
 *  were deleted. */
function rate(...wanted) {
  const recent = samples.filter(({ at }) => at > Date.now() - 11e3);
  if (recent.length < 2) return null;
  const rise = (a, b) => wanted.reduce((sum, one) => sum + Math.max(0, b.counts[one] - a.counts[one]), 0);
  const sum = recent.slice(1).reduce((sum, one, i) => sum + rise(recent[i], one), 0);
  return sum / ((recent.at(-1).at - recent[0].at) / 1000);
}

/** The same from the history of the servers, over about a minute, for a page that has no samples yet. */
function rateOfMinute(minutes, name) {
  const [before, last] = minutes.slice(-2);
  const part = Math.min(1, Math.max(0, (now() - Date.parse(last.at)) / 60e3));
  return (before[name] * (1 - part) + last[name]) / 60;
}

const perSecond = (n) => n == null ? "–" : `${n < 10 ? n.toFixed(1) : number(Math.round(n))}/s`;

const noJob = () => ["There is no job yet. Submit one: ", el("span", { class: "mono" }, "threadq enqueue TYPE --payload JSON"), ", or POST /jobs."];

/** How to submit the first job. */
function firstSteps() {
  const token = sessionStorage.getItem(TOKEN) ? " -H \"Authorization: Bearer $THREADQ_API_TOKEN\"" : "";
  const commands = [
    `threadq enqueue TYPE --payload '{"n": 1}' --wait --server ${location.origin}`,
    `curl ${location.origin}/jobs -H 'Content-Type: application/json'${token} -d '{"type": "TYPE", "payload": {"n": 1}}'`,
  ];
  return el("section", { "aria-labelledby": "first" },
    el("h2", { id: "first" }, "There is no job yet"),
    el("p", {}, "Submit one with the program or with any HTTP client. TYPE is a job type that this server has a handler for: one of its config file, or ",
      el("span", { class: "mono" }, "echo"), " if it was started with ", el("span", { class: "mono" }, "--demo"), "."),
    commands.map((command) => el("pre", { tabindex: 0, role: "region", "aria-label": "Command to submit a job" }, command)));
}

const overview = {
  title: "Overview",
  every: 2000,
  async read() {
    const [stats, history, doing] = await Promise.all(
      [api("GET", "/stats"), api("GET", "/stats/history"), api("GET", "/stats/workers")]);
    addSample(stats.counts);
    return { stats, minutes: history.minutes, doing };
  },
  render({ stats, minutes, doing }) {
    const { counts, servers } = stats;
    const times = minutes.map(({ at }) => clock(at));
    const of = (name, kind = name, pick = (minute) => minute[name]) => ({ name, kind, values: minutes.map(pick) });
    const depth = (name, kind, ...statuses) => {
      const one = of(name, kind, (minute) => minute.depth?.[kind === "queued" ? "ready" : kind]);
      // The value of the present minute is the present count.
      one.values[one.values.length - 1] = statuses.reduce((sum, status) => sum + counts[status], 0);
      return one;
    };
    const quantiles = (name) => [["median", "p50"], ["95th percentile", "p95"]]
      .map(([words, part]) => of(words, part, (minute) => minute[`${name}_${part}_ms`]));
    const workers = servers.reduce((sum, server) => sum + server.workers, 0);
    const busy = servers.reduce((sum, server) => sum + server.busy, 0);
    const paused = stats.queues.filter((queue) => queue.paused);
    const stuck = stats.queues.filter((queue) => queue.servers === 0 && queue.queued > 0);
    const isUnused = STATUSES.every((name) => counts[name] === 0) && minutes.every((minute) => minute.submitted === 0);
    return [
      el("ul", { class: "tiles", "aria-label": "Jobs by status" }, STATUSES.map((name) =>
        el("li", {}, el("a", { href: name === "failed" ? "#/dead" : `#/jobs?status=${name}` },
          el("strong", {}, number(counts[name])), status(name))))),
      el("p", { class: "now" },
        el("span", {}, el("strong", {}, perSecond(rate("completed") ?? rateOfMinute(minutes, "completed"))), " completed"),
        el("span", {}, el("strong", {}, perSecond(rate("failed") ?? rateOfMinute(minutes, "failed"))), " failed"),
        el("span", {}, el("strong", {}, `${number(busy)} of ${number(workers)}`), " workers busy"),
        paused.length > 0 && el("span", { class: "warn" }, el("a", { href: "#/queues" }, `${plural(paused.length, "queue")} paused`)),
        stuck.length > 0 && el("span", { class: "warn" }, el("a", { href: "#/queues" }, `${plural(stuck.length, "queue")} that no server takes jobs from`))),
      isUnused ? firstSteps() : el("div", { class: "charts" },
        chart("Jobs ended per minute", times, [of("completed"), of("failed")], number, true),
        chart("Unfinished jobs", times, [depth("ready", "queued", "queued", "processing"), depth("retrying", "retrying", "retrying"), depth("scheduled", "scheduled", "scheduled")], number),
        chart("Wait for a worker", times, quantiles("wait"), duration),
        chart("Run time", times, quantiles("run"), duration)),
      serversPart(doing.servers),
    ];
  },
};

function serversPart(servers) {
  const rows = servers.map((server) => {
    const own = server.threads ?? [];
    return [
      el("span", { class: "mono" }, server.id),
      el("span", {}, el("meter", { min: 0, max: Math.max(1, server.workers), value: server.busy, "aria-hidden": "true" }), ` ${server.busy} of ${server.workers}`),
      duration(server.beat_age_ms),
      time(server.started_at),
      own.length
        ? el("ul", { class: "doing" }, own.slice(0, 10).map((one) => el("li", { "data-key": one.job }, jobLink(one.job), ` ${one.type}, `, duration(one.for_ms))),
          own.length > 10 && el("li", {}, el("a", { href: "#/servers" }, `and ${own.length - 10} more`)))
        : "–",
    ];
  });
  return el("section", { "aria-labelledby": "servers" }, el("h2", { id: "servers" }, el("a", { href: "#/servers" }, "Servers")),
    table("Servers", [["Server", "name"], ["Busy", "n"], ["Last heartbeat", "n wide"], ["Started", "n wide"], ["Running jobs"]], rows, "No server is alive.",
      servers.map((server) => server.id)));
}

const servers = {
  title: "Servers",
  every: 1000,
  read: () => api("GET", "/stats/workers"),
  render: ({ servers }) => servers.length === 0
    ? el("p", { class: "nothing" }, "No server is alive.")
    : servers.map((server) => el("section", { "data-key": server.id, "aria-label": `Server ${server.id}` },
      el("h2", { class: "mono" }, server.id),
      el("p", { class: "facts" }, `${server.busy} of ${plural(server.workers, "worker")} busy, started `, time(server.started_at),
        `, last heartbeat ${duration(server.beat_age_ms)} ago`),
      threads(server))),
};

/** The worker threads of a server: those that have a job, and the number of idle ones. */
function threads({ id, workers, threads }) {
  if (threads === null) return el("p", { class: "nothing" }, "The server has not reported its threads yet.");
  const idle = Math.max(0, workers - threads.length);
  return [
    threads.length > 0 && table(`Threads of ${id}`, [["Thread", "name"], ["Job"], ["Type", "name"], ["Attempt", "n wide"], ["For", "n"], ["State", "wide rest"]],
      threads.map((one) => [one.thread ?? "–", jobLink(one.job), one.type, one.attempt, duration(one.for_ms),
        el("span", { class: `status ${THREAD_STATES[one.state]?.[1] ?? ""}` }, THREAD_STATES[one.state]?.[0] ?? one.state)]),
      "", threads.map((one) => one.job)),
    el("p", { class: "facts" }, `${plural(idle, "thread")} ${idle === 1 ? "is" : "are"} idle`),
  ];
}

/** Text and class of the state of a thread. */
const THREAD_STATES = {
  starting: ["starting", "queued"], running: ["running", "processing"], stopping: ["stopping", "failed"],
  backing_off: ["waiting for the next attempt", "retrying"],
};

/** Whether the jobs of a queue are started. */
function queueState({ paused, servers }) {
  if (servers === 0) return el("span", { class: "status stuck" }, paused ? "paused, no server takes jobs from it" : "no server takes jobs from it");
  return el("span", { class: `status ${paused ? "paused" : "open"}` }, paused ? "paused" : "running");
}

const queues = {
  title: "Queues",
  every: 2000,
  read: () => api("GET", "/queues"),
  render: ({ queues }) => table("Queues", [["Queue", "name"], ["Queued", "n"], ["Oldest waits", "n wide"], ["Servers", "n wide"], ["State", "state"], ["Action", "act"]], queues.map((queue) => [
    el("span", { class: "mono" }, queue.name),
    [number(queue.queued), queue.oldest_ms != null && el("span", { class: "narrow" }, duration(queue.oldest_ms))],
    queue.oldest_ms == null ? "–" : duration(queue.oldest_ms),
    number(queue.servers),
    queueState(queue),
    button(queue.paused ? "Resume" : "Pause", queue.paused ? "resume" : "pause", { queue: queue.name, key: "switch" },
      { "aria-label": `${queue.paused ? "Resume" : "Pause"} the queue ${queue.name}` }),
  ]), "There is no queue yet.", queues.map((queue) => queue.name)),
};


const jobs = {
  title: "Jobs",
  every: 3000,
  head: ({ status, type }) => [
    el("form", { class: "filter", "data-filter": "/jobs", role: "search", "aria-label": "Which jobs" },
      el("label", {}, "Status ", el("select", { name: "status" },
        el("option", { value: "" }, "any"),
        STATUSES.map((name) => el("option", { value: name, selected: name === status }, name)))),
      typeFilter(type),
      el("button", {}, "Show")),
    el("form", { class: "filter", "data-open": true, "aria-label": "One job" },
      el("label", {}, "Job id ", el("input", { name: "id", inputmode: "numeric", pattern: "[0-9]+", required: true, size: 17, autocomplete: "off" })),
      el("button", {}, "Open")),
  ],
  read: ({ status, type, ...given }, old) => readList("/jobs", { status, type }, given, old),
  render(list, { status: wanted, type }) {
    const { jobs, page, total, before } = list, filter = { status: wanted, type };
    learnTypes(jobs);
    if (!jobs.length && (before || page > lastPage(total))) return noSuchPage("/jobs", filter, list);
    const rows = jobs.map((job) => [
      jobLink(job.id), [job.type, el("span", { class: "narrow" }, time(job.created_at))], job.queue, status(job.status), attempts(job), time(job.created_at),
      el("span", { class: "line one" }, job.status === "scheduled" || job.status === "retrying" ? ["due ", time(job.scheduled_at)] : job.last_error ?? "")]);
    return [
      // Jobs that have not ended leave the list by themselves, so newer ones cannot be counted.
      listInfo(list, !wanted || hasEnded({ status: wanted })),
      table("Jobs", [["Id"], ["Type", "name"], ["Queue", "wide name"], ["Status", "state"], ["Attempts", "n wide"], ["Submitted", "n wide"], ["Note", "wide fill"]], rows, wanted || type ? "No job matches." : noJob(), jobs.map((job) => job.id)),
      pager("/jobs", filter, list)];
  },
};

const job = {
  title: "Job",
  every: 2000,
  // The large texts are read again only if the job has changed.
  async read({ id }, old) {
    if (old && fingerprint(await brief(old.value.id)) === fingerprint(old.value)) return old;
    return api("GET", `/jobs/${encodeURIComponent(id)}`, undefined, true);
  },
  render({ value: job, text }) {
    const raw = members(text);
    const ended = ["completed", "failed", "cancelled"].includes(job.status);
    const can = (name, action, on, danger) => on && button(name, action, { id: job.id }, { class: danger ? "danger" : "" });
    const facts = [
      ["Type", job.type], ["Queue", el("span", { class: "mono" }, job.queue)],
      [job.status === "processing" ? "Attempt" : "Attempts", attempts(job)],
      job.crashes > 0 && ["Server crashes", job.crashes],
      ["Timeout", duration(job.timeout_ms)],
      job.unique_key && ["Unique key", job.unique_key],
      job.server && ["Server", el("span", { class: "mono" }, job.server)],
      job.finished_at && job.started_at && ["Last run time", duration(Date.parse(job.finished_at) - Date.parse(job.started_at))],
    ].filter(Boolean);
    const json = (name, title) => el("section", {}, el("h2", {}, title),
      el("pre", { tabindex: 0, role: "region", "aria-label": title }, indent((raw[name] ?? "null").slice(0, MAX_SHOWN))),
      raw[name]?.length > MAX_SHOWN && el("p", { class: "facts" }, `The first ${number(MAX_SHOWN)} of ${plural(raw[name].length, "character")}. All: `,
        el("span", { class: "mono" }, `threadq show ${job.id} --server ${location.origin}`)));
    return [
      el("p", { class: "jobhead" }, status(job.status), el("span", { class: "mono" }, job.id), el("span", { class: "acts" },
        can("Retry", "retry", job.status === "failed" || job.status === "cancelled"),
        can("Cancel", "cancel", !ended), can("Delete", "delete", ended, true))),
      job.last_error && el("p", { class: "error box" }, job.last_error),
      el("div", { class: "two" },
        el("section", {}, el("h2", {}, "Facts"), el("dl", {}, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))))),
        el("section", {}, el("h2", {}, "Timeline"), el("ol", { class: "timeline" }, timeline(job)))),
      json("payload", "Payload"),
      job.status === "completed" && json("result", "Result"),
      job.errors.length > 0 && el("section", {}, el("h2", {}, "Errors of the attempts"),
        table("Errors", [["Attempt", "n"], ["When", "n wide"], ["Error", "rest"]],
          classifiedErrors(job.errors).map(({ error, isCrash, isAgain }) => [isCrash ? "crash" : isAgain ? `${error.attempt}, after a retry` : error.attempt,
            time(error.at), el("span", { class: "message" }, error.message)]), "")),
    ];
  },
};

/** Changes whenever the job changes. */
const fingerprint = (job) => job && JSON.stringify([job.status, job.attempts, job.crashes, job.scheduled_at, job.started_at, job.finished_at, job.server]);

/** Characters of a payload or result that are shown. More would make the browser slow. */
const MAX_SHOWN = 100_000;

/** The errors of a job with their kinds: a server crash is not a failed attempt, and attempts count from 1 again after a
 *  retry from outside. */
function classifiedErrors(errors) {
  let last = 0, isAgain = false;
  return errors.map((error) => {
    const isCrash = error.kind === "crash";
    if (!isCrash) {
      isAgain ||= error.attempt <= last;
      last = error.attempt;
    }
    return { error, isCrash, isAgain };
  });
}

/** The past and coming events of a job, in their order. */
function timeline(job) {
  const steps = [["Submitted", job.created_at, ""]];
  for (const { error, isCrash, isAgain } of classifiedErrors(job.errors)) {
    steps.push([isCrash ? "Server died" : `Attempt ${error.attempt} failed${isAgain ? ", after a retry" : ""}`, error.at, "failed"]);
  }
  if (job.started_at) steps.push([job.status === "processing" ? "Started, running" : "Last start", job.started_at, "processing"]);
  if (job.finished_at) steps.push([{ completed: "Completed", failed: "Failed for good", cancelled: "Cancelled" }[job.status] ?? "Ended", job.finished_at, job.status]);
  if (job.scheduled_at && ["scheduled", "retrying"].includes(job.status)) steps.push([job.status === "retrying" ? "Next attempt" : "Due", job.scheduled_at, job.status]);
  // The sort is stable: events of the same time keep the order above.
  steps.sort((a, b) => Date.parse(a[1]) - Date.parse(b[1]));
  return steps.map(([what, at, kind]) => el("li", { class: kind }, el("span", {}, what), " ", el("span", { class: "mono" }, exact(at)), " ", time(at)));
}

const selected = new Set();

const dead = {
  title: "Dead letters",
  every: 3000,
  head: ({ type }) => el("form", { class: "filter", "data-filter": "/dead", role: "search", "aria-label": "Which dead letters" }, typeFilter(type), el("button", {}, "Show")),
  read: ({ type, ...given }, old) => readList("/dlq", { type }, given, old),
  render(list, { type }) {
    const { jobs, page, total, before } = list;
    learnTypes(jobs);
    if (!jobs.length && (before || page > lastPage(total))) return noSuchPage("/dead", { type }, list);
    const there = jobs.filter((job) => job.status === "failed");
    for (const job of jobs) if (job.status !== "failed") selected.delete(job.id);
    const all = there.length > 0 && there.every((job) => selected.has(job.id));
    const suffix = type ? ` of type ${type}` : "";
    const rows = jobs.map((job) => [
      el("input", { type: "checkbox", "data-select": job.id, checked: selected.has(job.id), disabled: job.status !== "failed", "aria-label": `Select job ${job.id}` }),
      jobLink(job.id), job.type, attempts(job), time(job.finished_at),
      [el("span", { class: "narrow" }, job.type, ", ", time(job.finished_at)), job.status === "failed" ? el("span", { class: "line" }, job.last_error ?? "") : status(job.status)]]);
    return [
      el("p", { class: "acts bar" },
        button(`Retry selected (${number(selected.size)})`, "retry-some", {}, { disabled: selected.size === 0 }),
        button(`Delete selected (${number(selected.size)})`, "delete-some", {}, { disabled: selected.size === 0, class: "danger" }),
        button(`Retry all${suffix}`, "retry-all", { type: type ?? "" }, { disabled: total === 0 }),
        button(`Delete all${suffix}`, "purge", { type: type ?? "" }, { disabled: total === 0, class: "danger" })),
      listInfo(list, true),
      table("Dead letters", [[el("input", { type: "checkbox", "data-select": "all", checked: all, "aria-label": "Select all of this page" }), "check"], ["Id", "tight"], ["Type", "name wide"], ["Attempts", "n wide"], ["Failed", "n wide"], ["Error", "fill"]],
        rows, type ? `No dead letter is of type ${type}.` : "No job has failed for good.", jobs.map((job) => job.id)),
      pager("/dead", { type }, list)];
  },
};

// ---- actions --------------------------------------------------------------------------------------------------------

const retriedText = (answer) => {
  const left = answer.matched - answer.retried;
  return `${plural(answer.retried, "job")} retried` + (left > 0 ? `, ${number(left)} could not be retried` : "") + ".";
};

/** Retries dead letters, after a question that says how many. */
async function retryDead(wanted, words) {
  const { matched } = await api("POST", "/dlq/retry", { ...wanted, dry_run: true });
  if (matched === 0) return notify(`There is no dead letter${words} any more.`);
  const text = "Each job goes back to its queue with 0 attempts, and runs again.";
  if (!await ask(`Retry ${plural(matched, "dead letter")}${words}?`, text, `Retry ${number(matched)}`)) return;
  const answer = await api("POST", "/dlq/retry", wanted);
  selected.clear();
  notify(retriedText(answer));
}

const ofType = (type) => type ? { wanted: { type }, words: ` of type ${type}` } : { wanted: {}, words: "" };

const actions = {
  async newest() {
    document.querySelector("h1").focus();
  },
  async skip() {
    byId("main").focus();
  },
  async pause({ queue }) {
    await api("POST", `/queues/${queue}/pause`);
    notify(`The queue ${queue} is paused: its jobs wait.`);
  },
  async resume({ queue }) {
    await api("POST", `/queues/${queue}/resume`);
    notify(`The queue ${queue} is running again.`);
  },
  async retry({ id }) {
    await api("POST", `/jobs/${id}/retry`);
    notify(`Job ${id} is back in its queue.`);
  },
  async cancel({ id }) {
    if (!await ask(`Cancel job ${id}?`, "If the job is running, its handler is asked to stop.", "Cancel this job", true)) return;
    const answer = await api("POST", `/jobs/${id}/cancel`);
    notify(answer.status === "cancelled" ? `Job ${id} is cancelled.` : `Job ${id} was asked to stop.`);
  },
  async delete({ id }) {
    if (!await ask(`Delete job ${id}?`, "Its payload, result and errors are deleted too.", "Delete this job", true)) return;
    await api("DELETE", `/jobs/${id}`);
    notify(`Job ${id} is deleted.`);
    location.hash = "#/jobs";
  },
  "retry-some": () => retryDead({ ids: [...selected] }, " of those selected"),
  "retry-all": ({ type }) => retryDead(ofType(type).wanted, ofType(type).words),
  async "delete-some"() {
    const ids = [...selected];
    const { matched } = await api("POST", "/dlq/retry", { ids, dry_run: true });
    if (!await ask(`Delete ${plural(matched, "dead letter")}?`, "They cannot be restored.", `Delete ${number(matched)}`, true)) return;
    let deleted = 0;
    for (const id of ids) {
      try {
        await api("DELETE", `/jobs/${id}`);
        deleted += 1;
      } catch (error) {
        // A job that was deleted or retried meanwhile is skipped.
        if (error.status !== 404 && error.status !== 409) throw error;
      }
      selected.delete(id);
    }
    notify(`${plural(deleted, "dead letter")} deleted.`);
  },
  async purge({ type }) {
    const { wanted, words } = ofType(type);
    const { matched } = await api("POST", "/dlq/retry", { ...wanted, dry_run: true });
    if (!await ask(`Delete ${plural(matched, "dead letter")}${words}?`, "They cannot be restored. Jobs that fail meanwhile are deleted too.", `Delete ${number(matched)}`, true)) return;
    const { deleted } = await api("DELETE", "/dlq" + query({ type }));
    selected.clear();
    notify(`${plural(deleted, "dead letter")} deleted.`);
  },
};

document.addEventListener("click", async (event) => {
  const target = event.target.closest("[data-do]");
  if (!target) return;
  event.preventDefault();
  const action = actionOf(target);
  if (inProgress.has(action)) return;
  inProgress.add(action);
  markBusy(target);
  try {
    await actions[target.dataset.do]({ ...target.dataset });
  } catch (error) {
    notify(error.message, true);
  }
  inProgress.delete(action);
  document.querySelectorAll("[data-do][aria-busy]").forEach(markBusy);
  // The user sees the result of an action at once.
  if (target.dataset.do !== "skip") refresh(true);
});

document.addEventListener("change", (event) => {
  const { select } = event.target.dataset;
  if (!select) return;
  const boxes = select === "all" ? [...document.querySelectorAll("tbody [data-select]:enabled")] : [event.target];
  for (const box of boxes) {
    const id = Number(box.dataset.select);
    event.target.checked ? selected.add(id) : selected.delete(id);
  }
  draw(true);
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method === "dialog") return;
  event.preventDefault();
  const given = Object.fromEntries(new FormData(form));
  if (form.dataset.filter) {
    selected.clear();
    location.hash = `#${form.dataset.filter}${query(given)}`;
  } else {
    location.hash = `#/jobs/${given.id.trim()}`;
  }
});

// ---- the page -------------------------------------------------------------------------------------------------------

let shown = null, timer = null, turn = 0;

/** The view of the address, and its parameters. */
function route() {
  const [path, parameters] = location.hash.slice(1).split("?");
  const given = Object.fromEntries(new URLSearchParams(parameters));
  const [, page = "", id, ...more] = path.split("/");
  if (page === "jobs" && id && !more.length) return { page, view: job, given: { id } };
  const views = { "": overview, servers, jobs, queues, dead };
  if (!Object.hasOwn(views, page) || id || more.length) return { page: null, view: notFound, given: {} };
  return { page: page || "overview", view: views[page], given };
}

const notFound = {
  title: "No such page",
  every: null,
  read: async () => ({}),
  render: () => el("p", { class: "nothing" }, "There is no page at ", el("span", { class: "mono" }, decodeHash()), ". Go to the ",
    el("a", { href: "#/" }, "overview"), "."),
};

const decodeHash = () => {
  try {
    return decodeURIComponent(location.hash);
  } catch {
    return location.hash;
  }
};

function open() {
  const { page, view, given } = route();
  const title = given.id ? `Job ${given.id}` : view.title;
  document.title = `${title} · threadq`;
  for (const link of document.querySelectorAll("[data-page]")) {
    link.dataset.page === page ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
  if (view !== dead) selected.clear();
  const isFirst = shown === null;
  const heading = el("h1", { tabindex: -1 }, view.title);
  const body = el("div", { id: "body", "aria-busy": "true" });
  byId("main").replaceChildren(el("div", { class: "head" }, heading, view.head?.(given) ?? []), body);
  shown = { view, given, body, data: null, at: null, asked: null, trouble: null };
  // Screen readers read the heading of the new page.
  if (!isFirst) heading.focus();
  refresh();
}

/** Whether a mouse button or a key is held down. The element below it must not change until it is released. */
let isPressed = false;
const setPressed = (value) => () => { isPressed = value; };
for (const name of ["pointerdown", "keydown"]) document.addEventListener(name, setPressed(true), true);
for (const name of ["pointerup", "pointercancel", "keyup"]) document.addEventListener(name, setPressed(false), true);
// A release outside the window sends no event.
window.addEventListener("blur", setPressed(false));

function hasSelection() {
  const selection = getSelection();
  return !selection.isCollapsed && selection.containsNode(shown.body, true);
}

/** Draws the data, unless that would disturb the user: a key or button held down, a selection, an open question. */
function draw(isForced = false) {
  if (shown.data === null) return;
  const isHeld = isPressed || hasSelection() || document.querySelector("dialog[open]");
  if (isForced || !isHeld) show(shown.body, shown.view.render(shown.data, shown.given));
}

/** Reads and draws, and schedules the next refresh. Of several calls only the newest continues. `isReset`: a list is read
 *  from its start. */
async function refresh(isReset = false) {
  clearTimeout(timer);
  const mine = ++turn, page = shown, isFirst = page.data === null;
  page.asked ??= performance.now();
  try {
    const data = await page.view.read(page.given, isReset ? null : page.data);
    if (mine !== turn) return;
    Object.assign(page, { data, at: performance.now(), trouble: null });
    draw(isFirst);
  } catch (error) {
    if (mine !== turn) return;
    const isAway = !error.status || error.status >= 500;
    page.trouble = isAway ? error.message : null;
    // The old data stays, unless it is deleted or the request was invalid.
    if (!isAway || isFirst) {
      Object.assign(page, { data: null, at: null });
      show(page.body, el("p", { class: "error box", role: "alert" }, error.message));
    }
  }
  page.asked = null;
  page.body.removeAttribute("aria-busy");
  showAge();
  if (!document.hidden && page.view.every) timer = setTimeout(refresh, page.view.every);
}

/** Shows whether the data is live; if not, how old it is and why. */
function showAge() {
  const { asked, at, body, trouble } = shown;
  const isLate = asked !== null && performance.now() - asked > 5000;
  const isStale = trouble !== null || isLate;
  const age = at !== null && `${rough(performance.now() - at)} old: `;
  const state = isStale ? [age && el("span", { "aria-hidden": "true" }, age), trouble ?? "no response yet"]
    : hasSelection() ? "paused while text is selected" : at !== null && "live";
  // The age is hidden from screen readers, which would read it out each second.
  show(byId("link"), [state]);
  byId("link").className = isStale ? "bad" : "ok";
  body.classList.toggle("stale", isStale && at !== null);
}

document.addEventListener("visibilitychange", () => {
  document.hidden ? clearTimeout(timer) : refresh();
});
window.addEventListener("hashchange", open);
byId("zone").textContent = `times in ${ZONE}`;
setInterval(() => document.hidden || showAge(), 1000);
open();
