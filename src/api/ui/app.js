// The dashboard. Every view is a function that reads the API and gives elements; the page is then made to look like
// them, so that the focus, a selection and an open part survive a refresh. Texts are set as texts: nothing that a job
// brings along can become markup.
"use strict";

const STATUSES = ["scheduled", "queued", "processing", "retrying", "completed", "failed", "cancelled"];
const PAGE_SIZE = 25;
const TOKEN = "threadq-token";

// ---- elements -------------------------------------------------------------------------------------------------------

const byId = (id) => document.getElementById(id);

/** An element: `el("td", {class: "n"}, "text", child, [children])`. A false, null or undefined part is left out. */
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

/** Makes the children of `old` equal to these, keeping the nodes that are there already. */
function show(old, children) {
  const wanted = el("div", {}, children);
  morph(old, wanted);
}

/** What tells a node from its neighbours: rows of a list come and go, and the focus must stay with the one it is on. */
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
    // What stands between has gone, unless it only changed its place: then it is made anew there.
    while (at !== there) at = drop(at);
    at = there.nextSibling;
    become(there, node);
  }
  while (at) at = drop(at);
}

function drop(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

/** Makes a node that is there equal to one of the same kind. */
function become(there, node) {
  if (node.nodeType === Node.TEXT_NODE) {
    if (there.data !== node.data) there.data = node.data;
    return;
  }
  for (const { name } of [...there.attributes]) {
    // What a person has opened stays open.
    if (!node.hasAttribute(name) && name !== "open") there.removeAttribute(name);
  }
  for (const { name, value } of node.attributes) {
    if (there.getAttribute(name) !== value) there.setAttribute(name, value);
  }
  if (node.nodeName === "INPUT" && node.type === "checkbox") there.checked = node.checked;
  morph(there, node);
}

// ---- words ----------------------------------------------------------------------------------------------------------

const integer = new Intl.NumberFormat("en");
const number = (n) => integer.format(n);
const many = (n, one, more = one + "s") => `${number(n)} ${n === 1 ? one : more}`;

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

/** How much this machine's clock is ahead of the server's, by the header Date. */
let clockOffset = 0;
const now = () => Date.now() - clockOffset;

/** The time zone of this browser: all times are shown in it. */
const ZONE = new Intl.DateTimeFormat().resolvedOptions().timeZone;

/** A time in this browser's zone, to the millisecond. */
function exact(text) {
  const at = new Date(text), pad = (n, length = 2) => String(n).padStart(length, "0");
  const date = [at.getFullYear(), pad(at.getMonth() + 1), pad(at.getDate())].join("-");
  const clock = [at.getHours(), at.getMinutes(), at.getSeconds()].map((n) => pad(n)).join(":");
  return `${date} ${clock}.${pad(at.getMilliseconds(), 3)}`;
}

/** A time as a person says it, with the exact one behind it. */
function time(text) {
  if (!text) return "–";
  const ms = now() - Date.parse(text);
  // The header Date knows no parts of a second.
  const words = Math.abs(ms) < 1500 ? "just now" : ms > 0 ? `${rough(ms)} ago` : `in ${rough(-ms)}`;
  return el("time", { datetime: text, title: `${exact(text)} ${ZONE}\n${text}` }, words);
}

function rough(ms) {
  const steps = [[86400e3, "d"], [3600e3, "h"], [60e3, "min"], [1e3, "s"]];
  const [unit, name] = steps.find(([unit]) => ms >= unit) ?? [1e3, "s"];
  return `${Math.max(1, Math.floor(ms / unit))} ${name}`;
}

const clock = (text, more = {}) => new Date(text).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", ...more });

/** JSON laid out, from its own text: so numbers keep all their digits. */
function layOut(json) {
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

/** The members of an object, each as the text that it has in `json`. */
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

/** After so long a question that changes nothing is given up: a server that is stopped would never answer it. */
const PATIENCE = 15e3;

/** Asks the API. Gives the answer's body, and its text as `.text` where `raw` is wanted. An error has the answer's
 *  status, or none where there was no answer of threadq's. */
async function api(method, path, body, raw = false) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const signal = method === "GET" ? AbortSignal.timeout(PATIENCE) : undefined;
    const asked = { method, headers, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store", signal };
    const answer = await fetch(path, asked).catch(noAnswer);
    if (answer.status === 401) {
      await login(token);
      continue;
    }
    const sent = Date.parse(answer.headers.get("Date"));
    // Only a clock that is really off is corrected: the header's own coarseness is not.
    if (sent) clockOffset = Math.abs(Date.now() - sent) > 3000 ? Date.now() - sent : 0;
    const text = await answer.text().catch(noAnswer);
    const value = parsed(text);
    if (!answer.ok) throw Object.assign(new Error(value?.error ?? `the answer is ${answer.status}`), { status: answer.status });
    if (value === undefined) throw new Error("the answer does not come from threadq");
    return raw ? { value, text } : value;
  }
}

function noAnswer() {
  throw new Error("no answer from the server");
}

/** The value of a JSON text, null for an empty text, undefined for any other text: a proxy answers with its own pages. */
function parsed(text) {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return undefined;
  }
}

const NOT_TAKEN = "The server did not take this token. Try another one.";
let asking = null;

/** Asks for the token, once for all requests that need it. `refused` is the one that was sent. */
function login(refused) {
  if (sessionStorage.getItem(TOKEN) !== refused) return Promise.resolve();
  asking ??= new Promise((resolve) => {
    const dialog = byId("login"), input = byId("token");
    if (refused) byId("login-text").textContent = NOT_TAKEN;
    input.value = "";
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.onclose = () => {
      const token = input.value.trim();
      input.value = "";
      // Others cannot stand in a header.
      if (!/^[\x20-\x7e]+$/.test(token)) {
        if (token) byId("login-text").textContent = NOT_TAKEN;
        return dialog.showModal();
      }
      sessionStorage.setItem(TOKEN, token);
      asking = null;
      resolve();
    };
    dialog.showModal();
    input.focus();
  });
  return asking;
}

const query = (parameters) => {
  const text = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value)).toString();
  return text && "?" + text;
};

// ---- asking and saying ----------------------------------------------------------------------------------------------

/** A question; whether the answer is yes. While a question is open no other takes its place under the person's hand. */
async function ask(title, text, yes, danger = false) {
  const dialog = byId("ask");
  if (dialog.open) throw new Error(`"${title}" could not be asked, since another question was open.`);
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

let silence;

/** Says what has happened, for eyes and for screen readers. */
function say(text, isError = false) {
  const said = byId("said");
  said.textContent = text;
  said.className = isError ? "error" : "";
  clearTimeout(silence);
  silence = setTimeout(() => { said.textContent = ""; }, 8000);
}

// ---- parts of views -------------------------------------------------------------------------------------------------

const status = (name) => el("span", { class: `status ${name}` }, name ?? "not readable");
/** Which attempt of how many runs, or how many are over. */
const attempts = (job) => job.attempts == null ? "–" : `${job.attempts + (job.status === "processing" ? 1 : 0)} of ${job.max_attempts ?? "–"}`;
const jobLink = (id) => el("a", { class: "id", href: `#/jobs/${id}` }, id);
const button = (name, action, data = {}, attributes = {}) => {
  const all = { type: "button", "data-do": action, ...attributes };
  for (const [key, value] of Object.entries(data)) all[`data-${key}`] = value;
  return markBusy(el("button", all, name));
};

/** The actions that were begun and are not done. */
const underWay = new Set();
const actionOf = ({ dataset: { do: action, id, queue, type } }) => JSON.stringify([action, id, queue, type]);

/** A button stays marked while its action is under way, however often the page is drawn meanwhile. */
function markBusy(button) {
  underWay.has(actionOf(button)) ? button.setAttribute("aria-busy", "true") : button.removeAttribute("aria-busy");
  return button;
}

/** A table. Columns are `[title, class]`; a row is a list of cells, and `keys` tell whose each is. */
function table(name, columns, rows, nothing, keys = []) {
  if (!rows.length) return el("p", { class: "nothing" }, nothing);
  return el("div", { class: "scroll" },
    el("table", { "aria-label": name },
      el("thead", {}, el("tr", {}, columns.map(([title, kind]) => el("th", { scope: "col", class: kind }, title)))),
      el("tbody", {}, rows.map((row, at) =>
        el("tr", { "data-key": keys[at] }, row.map((cell, i) => el("td", { class: columns[i][1] }, cell)))))));
}

const lastPage = (total) => Math.max(1, Math.ceil(total / PAGE_SIZE));

/** What is said in place of a page behind the last one. */
function noSuchPage(path, filter, { page, total, before }) {
  const last = lastPage(total);
  const to = (target, name) => el("a", { href: `#${path}${query({ ...filter, page: target })}` }, name);
  const what = before ? "There is no older job." : `There is no page ${number(page)}: the list has ${many(last, "page")}.`;
  return el("p", { class: "nothing" }, what, " Go to the ", to(null, "first page"), last > 1 && [" or to the ", to(last, "last page")], ".");
}

/** From which id on each page began that was gone to by "Older". */
const begun = [];

function pager(path, filter, { page, total, jobs, next }) {
  if (total === 0) return null;
  const last = Math.max(page, lastPage(total));
  begun[page + 1] = next;
  const to = (target, name, isOn) => isOn
    ? el("a", { href: `#${path}${query({ ...filter, page: target > 1 && target, before: target > 1 && begun[target] })}` }, name)
    : el("span", { class: "off" });
  return el("nav", { class: "pager", "aria-label": "Pages of this list" },
    to(page - 1, "← Newer", page > 1),
    el("span", {}, `page ${number(page)} of ${number(last)}, ${many(total, "job")}`),
    to(page + 1, "Older →", next !== null));
}

/** A job as listings show it, without its large texts; null if it is gone. */
async function brief(id) {
  const { jobs } = await api("GET", "/jobs" + query({ before: id + 1, limit: 1 }));
  return jobs[0]?.id === id ? jobs[0] : null;
}

const isOver = ({ status }) => ["completed", "failed", "cancelled"].includes(status);
/** Even if nothing seems to have changed, a page is read again after so long. */
const REREAD = 30e3;
/** So many of the jobs that have left a list are looked at each time. */
const LOOKS = 5;

/** Reads a page of a list. A page that is shown keeps its jobs, in their places, whatever comes and goes meanwhile: read
 *  again are only the jobs themselves, and how many there are that are not shown. */
async function readList(path, filter, { page, before }, old) {
  const ask = (more) => api("GET", path + query({ ...filter, limit: PAGE_SIZE, ...more }));
  if (!old?.jobs.length) {
    const { jobs, total, next } = await ask(before ? { before } : { page: page ?? 1 });
    return { jobs, total, next, before, page: Number(page) || 1, listed: new Date(), listedTotal: total, newer: 0, read: Date.now() };
  }
  const first = old.jobs[0].id;
  const { total, jobs: newest } = await ask({ limit: 1 });
  const newer = Math.max(total - old.listedTotal, newest[0]?.id > first ? 1 : 0);
  if (total === old.total && old.jobs.every(isOver) && Date.now() - old.read < REREAD) return { ...old, newer };
  const found = new Map((await ask({ before: first + 1 })).jobs.map((job) => [job.id, job]));
  const left = old.jobs.filter((job) => !found.has(job.id) && !(job.hasLeft && isOver(job)));
  left.sort((a, b) => (a.looked ?? 0) - (b.looked ?? 0));
  for (const job of left.slice(0, LOOKS)) {
    const there = await brief(job.id);
    found.set(job.id, { ...(there ?? { ...job, status: "deleted" }), hasLeft: true, looked: Date.now() });
  }
  return { ...old, jobs: old.jobs.map((job) => found.get(job.id) ?? job), total, newer, read: Date.now() };
}

/** Above a list: of when it is, and a button for what has come since. There is room for the button from the start. */
function news({ jobs, listed, newer, page }, isCounted) {
  if (!jobs.length) return null;
  return el("p", { class: "news" }, el("span", {}, `listed at ${clock(listed, { second: "2-digit" })}`),
    page === 1 && newer > 0 && button(isCounted ? `↑ ${number(newer)} newer` : "↑ newer jobs", "newest"));
}

const types = new Set();
const typeOption = (type) => el("option", { value: type });

/** Remembers the types of these jobs, and suggests them in the filter. */
function learnTypes(jobs) {
  for (const { type } of jobs) {
    if (types.has(type) || types.size >= 200) continue;
    types.add(type);
    byId("types")?.append(typeOption(type));
  }
}

/** The list of suggestions is there from the start: by it the browser tells what kind of field this is. */
function typeFilter(value) {
  return [el("label", {}, "Type ",
    el("input", { name: "type", value: value ?? "", list: "types", maxlength: 100, autocomplete: "off", placeholder: "any" })),
    el("datalist", { id: "types" }, [...types].map(typeOption))];
}

// ---- charts ---------------------------------------------------------------------------------------------------------

/** A chart over time. `series` are `{name, kind, values}`, with null where nothing is known; `stacked` makes bars. */
function chart(title, times, series, say, stacked = false) {
  const width = 600, height = 120, step = width / Math.max(1, times.length - (stacked ? 0 : 1));
  const sums = times.map((_, i) => series.reduce((sum, one) => stacked ? sum + (one.values[i] ?? 0) : Math.max(sum, one.values[i] ?? 0), 0));
  const top = niceTop(Math.max(0, ...sums));
  const y = (value) => height - value / top * height;
  const grid = [0.25, 0.5, 0.75].map((part) => svg("line", { class: "grid", x1: 0, x2: width, y1: height * part, y2: height * part }));
  const said = (value) => value == null ? "–" : say(value);
  // Each minute says its figures when it is pointed at.
  const slot = width / Math.max(1, times.length);
  const minutes = times.map((at, i) => svg("g", {},
    svg("title", {}, `${at}: ${series.map((one) => `${one.name} ${said(one.values[i])}`).join(", ")}`),
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
      // A single point would be no line.
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
    return known.length ? `${one.name}: ${say(last(known))} last, ${say(Math.max(...known))} at most` : `${one.name}: nothing`;
  }).join("; ");
  return el("figure", {},
    el("figcaption", {}, el("span", {}, title), el("span", { class: "legend" }, series.map((one) => el("span", { class: one.kind }, one.name)))),
    el("div", { class: "plot" },
      el("span", { class: "top" }, say(top)),
      svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}. ${summary}.` }, grid, marks)),
    el("div", { class: "axis" }, el("span", {}, times[0]), el("span", {}, times.at(-1))),
    asTable());
  /** The same figures to be read, newest first, without the minutes in which nothing was. */
  function asTable() {
    const rows = times.map((at, i) => [at, ...series.map((one) => one.values[i])])
      .filter(([, ...values]) => values.some((value) => value)).reverse();
    return el("details", {}, el("summary", { "aria-label": `${title} as a table` }, "Table"),
      el("div", { class: "figures", tabindex: 0, role: "region", "aria-label": `${title}, minute by minute` },
        table(title, [["Minute"], ...series.map((one) => [one.name, "n"])],
          rows.map(([at, ...values]) => [at, ...values.map(said)]), "Nothing in the last hour.", rows.map(([at]) => at))));
  }
}

/** The next round number above. */
function niceTop(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= value);
}

// ---- views ----------------------------------------------------------------------------------------------------------

/** What the page has seen itself lately: `{at, counts}`. */
const seen = [];

function remember(counts) {
  seen.push({ at: Date.now(), counts });
  while (seen.length > 20) seen.shift();
}

/** Jobs of these statuses per second lately, by what the page has seen. Jobs that are forgotten count for nothing. */
function rate(...wanted) {
  const lately = seen.filter(({ at }) => at > Date.now() - 11e3);
  if (lately.length < 2) return null;
  const rise = (a, b) => wanted.reduce((sum, one) => sum + Math.max(0, b.counts[one] - a.counts[one]), 0);
  const sum = lately.slice(1).reduce((sum, one, i) => sum + rise(lately[i], one), 0);
  return sum / ((lately.at(-1).at - lately[0].at) / 1000);
}

/** The same by the figures of the servers, over about a minute: for a page that has seen nothing yet. */
function rateOfMinute(minutes, name) {
  const [before, last] = minutes.slice(-2);
  const part = Math.min(1, Math.max(0, (now() - Date.parse(last.at)) / 60e3));
  return (before[name] * (1 - part) + last[name]) / 60;
}

const perSecond = (n) => n == null ? "–" : `${n < 10 ? n.toFixed(1) : number(Math.round(n))}/s`;

const noJob = () => ["There is no job yet. Submit one: ", el("span", { class: "mono" }, "threadq enqueue TYPE --payload JSON"), ", or POST /jobs."];

/** What to do where there is nothing to see yet. */
function firstSteps() {
  const token = sessionStorage.getItem(TOKEN) ? " -H \"Authorization: Bearer $THREADQ_API_TOKEN\"" : "";
  const commands = [
    `threadq enqueue TYPE --payload '{"n": 1}' --wait --server ${location.origin}`,
    `curl ${location.origin}/jobs -H 'Content-Type: application/json'${token} -d '{"type": "TYPE", "payload": {"n": 1}}'`,
  ];
  return el("section", { "aria-labelledby": "first" },
    el("h2", { id: "first" }, "There is no job yet"),
    el("p", {}, "Submit one, by the program or by any HTTP client. TYPE is the name of a handler of this server: one from its config file, or ",
      el("span", { class: "mono" }, "echo"), " where it was started with ", el("span", { class: "mono" }, "--demo"), "."),
    commands.map((command) => el("pre", { tabindex: 0, role: "region", "aria-label": "Command to submit a job" }, command)));
}

const overview = {
  title: "Overview",
  every: 2000,
  async read() {
    const [stats, history, doing] = await Promise.all(
      [api("GET", "/stats"), api("GET", "/stats/history"), api("GET", "/stats/workers")]);
    remember(stats.counts);
    return { stats, minutes: history.minutes, doing };
  },
  render({ stats, minutes, doing }) {
    const { counts, servers } = stats;
    const times = minutes.map(({ at }) => clock(at));
    const of = (name, kind = name, pick = (minute) => minute[name]) => ({ name, kind, values: minutes.map(pick) });
    const depth = (name, kind, ...statuses) => {
      const one = of(name, kind, (minute) => minute.depth?.[kind === "queued" ? "ready" : kind]);
      // The minute that runs ends with what is known now.
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
        paused.length > 0 && el("span", { class: "warn" }, el("a", { href: "#/queues" }, `${many(paused.length, "queue")} paused`)),
        stuck.length > 0 && el("span", { class: "warn" }, el("a", { href: "#/queues" }, `${many(stuck.length, "queue")} that no server takes from`))),
      isUnused ? firstSteps() : el("div", { class: "charts" },
        chart("Jobs ended per minute", times, [of("completed"), of("failed")], number, true),
        chart("Jobs not ended", times, [depth("ready", "queued", "queued", "processing"), depth("retrying", "retrying", "retrying"), depth("scheduled", "scheduled", "scheduled")], number),
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
    table("Servers", [["Server", "name"], ["Busy", "n"], ["Last beat", "n wide"], ["Started", "n wide"], ["Runs now"]], rows, "No server is alive.",
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
      el("p", { class: "facts" }, `${server.busy} of ${many(server.workers, "worker")} busy, started `, time(server.started_at),
        `, last beat ${duration(server.beat_age_ms)} ago`),
      threads(server))),
};

/** The worker threads of a server: those that have a job, and how many have none. */
function threads({ id, workers, threads }) {
  if (threads === null) return el("p", { class: "nothing" }, "It has not told yet what its threads do.");
  const idle = Math.max(0, workers - threads.length);
  return [
    threads.length > 0 && table(`Threads of ${id}`, [["Thread", "name"], ["Job"], ["Type", "name"], ["Attempt", "n wide"], ["For", "n"], ["State", "wide rest"]],
      threads.map((one) => [one.thread ?? "–", jobLink(one.job), one.type, one.attempt, duration(one.for_ms),
        el("span", { class: `status ${DOING[one.state]?.[1] ?? ""}` }, DOING[one.state]?.[0] ?? one.state)]),
      "", threads.map((one) => one.job)),
    el("p", { class: "facts" }, `${many(idle, "thread")} ${idle === 1 ? "is" : "are"} idle`),
  ];
}

/** Words and colours of what a thread does. */
const DOING = {
  starting: ["starts", "queued"], running: ["running", "processing"], stopping: ["told to stop", "failed"],
  backing_off: ["waits for its next attempt", "retrying"],
};

/** Whether jobs of a queue are taken. */
function queueState({ paused, servers }) {
  if (servers === 0) return el("span", { class: "status stuck" }, paused ? "paused, and no server takes from it" : "no server takes from it");
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
      // Of jobs that go on by themselves as many leave the list as come.
      news(list, !wanted || isOver({ status: wanted })),
      table("Jobs", [["Id"], ["Type", "name"], ["Queue", "wide name"], ["Status", "state"], ["Attempts", "n wide"], ["Submitted", "n wide"], ["Note", "wide fill"]], rows, wanted || type ? "No job matches." : noJob(), jobs.map((job) => job.id)),
      pager("/jobs", filter, list)];
  },
};

const job = {
  title: "Job",
  every: 2000,
  // Its large texts are read again only if something has changed.
  async read({ id }, old) {
    if (old && mark(await brief(old.value.id)) === mark(old.value)) return old;
    return api("GET", `/jobs/${encodeURIComponent(id)}`, undefined, true);
  },
  render({ value: job, text }) {
    const raw = members(text);
    const ended = ["completed", "failed", "cancelled"].includes(job.status);
    const can = (name, action, on, danger) => on && button(name, action, { id: job.id }, { class: danger ? "danger" : "" });
    const facts = [
      ["Type", job.type], ["Queue", el("span", { class: "mono" }, job.queue)],
      [job.status === "processing" ? "Attempt" : "Attempts", attempts(job)],
      job.crashes > 0 && ["Crashes of its server", job.crashes],
      ["Time limit", duration(job.timeout_ms)],
      job.unique_key && ["Unique key", job.unique_key],
      job.server && ["Server", el("span", { class: "mono" }, job.server)],
      job.finished_at && job.started_at && ["Last run took", duration(Date.parse(job.finished_at) - Date.parse(job.started_at))],
    ].filter(Boolean);
    const json = (name, title) => el("section", {}, el("h2", {}, title),
      el("pre", { tabindex: 0, role: "region", "aria-label": title }, layOut((raw[name] ?? "null").slice(0, LONGEST_TEXT))),
      raw[name]?.length > LONGEST_TEXT && el("p", { class: "facts" }, `The first ${number(LONGEST_TEXT)} of ${many(raw[name].length, "character")}. All: `,
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
      job.errors.length > 0 && el("section", {}, el("h2", {}, "Errors of its attempts"),
        table("Errors", [["Attempt", "n"], ["When", "n wide"], ["Error", "rest"]],
          story(job.errors).map(({ error, isCrash, isAgain }) => [isCrash ? "crash" : isAgain ? `${error.attempt}, after a retry` : error.attempt,
            time(error.at), el("span", { class: "message" }, error.message)]), "")),
    ];
  },
};

/** What tells whether a job is as it was. */
const mark = (job) => job && JSON.stringify([job.status, job.attempts, job.crashes, job.scheduled_at, job.started_at, job.finished_at, job.server]);

/** So much of a payload or result is shown: more would make the browser slow. */
const LONGEST_TEXT = 100_000;

/** The errors of a job, told apart: a death of its server is no failed attempt, and attempts count from 1 again after a
 *  person has sent the job back. */
function story(errors) {
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

/** What happened to a job and what will, in its order. */
function timeline(job) {
  const steps = [["Submitted", job.created_at, ""]];
  for (const { error, isCrash, isAgain } of story(job.errors)) {
    steps.push([isCrash ? "Its server died" : `Attempt ${error.attempt} failed${isAgain ? ", after a retry" : ""}`, error.at, "failed"]);
  }
  if (job.started_at) steps.push([job.status === "processing" ? "Started, runs now" : "Last start", job.started_at, "processing"]);
  if (job.finished_at) steps.push([{ completed: "Completed", failed: "Failed for good", cancelled: "Cancelled" }[job.status] ?? "Ended", job.finished_at, job.status]);
  if (job.scheduled_at && ["scheduled", "retrying"].includes(job.status)) steps.push([job.status === "retrying" ? "Next attempt" : "Due", job.scheduled_at, job.status]);
  // Where two are of the same time, the order above is right.
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
    const whose = type ? ` of type ${type}` : "";
    const rows = jobs.map((job) => [
      el("input", { type: "checkbox", "data-select": job.id, checked: selected.has(job.id), disabled: job.status !== "failed", "aria-label": `Select job ${job.id}` }),
      jobLink(job.id), job.type, attempts(job), time(job.finished_at),
      [el("span", { class: "narrow" }, job.type, ", ", time(job.finished_at)), job.status === "failed" ? el("span", { class: "line" }, job.last_error ?? "") : status(job.status)]]);
    return [
      el("p", { class: "acts bar" },
        button(`Retry selected (${number(selected.size)})`, "retry-some", {}, { disabled: selected.size === 0 }),
        button(`Delete selected (${number(selected.size)})`, "delete-some", {}, { disabled: selected.size === 0, class: "danger" }),
        button(`Retry all${whose}`, "retry-all", { type: type ?? "" }, { disabled: total === 0 }),
        button(`Delete all${whose}`, "purge", { type: type ?? "" }, { disabled: total === 0, class: "danger" })),
      news(list, true),
      table("Dead letters", [[el("input", { type: "checkbox", "data-select": "all", checked: all, "aria-label": "Select all of this page" }), "check"], ["Id", "tight"], ["Type", "name wide"], ["Attempts", "n wide"], ["Failed", "n wide"], ["Error", "fill"]],
        rows, type ? `No dead letter is of type ${type}.` : "No job has failed for good.", jobs.map((job) => job.id)),
      pager("/dead", { type }, list)];
  },
};

// ---- actions --------------------------------------------------------------------------------------------------------

const changed = (answer) => {
  const left = answer.matched - answer.retried;
  return `${many(answer.retried, "job")} sent back to the queue` + (left > 0 ? `, ${number(left)} could not be` : "") + ".";
};

/** Sends dead letters back, after saying how many there are. */
async function retryDead(wanted, words) {
  const { matched } = await api("POST", "/dlq/retry", { ...wanted, dry_run: true });
  if (matched === 0) return say(`There is no dead letter ${words} any more.`);
  const text = "Each goes back to its queue with its attempts at 0, and runs again.";
  if (!await ask(`Retry ${many(matched, "dead letter")}${words}?`, text, `Retry ${number(matched)}`)) return;
  const answer = await api("POST", "/dlq/retry", wanted);
  selected.clear();
  say(changed(answer));
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
    say(`The queue ${queue} is paused: its jobs wait.`);
  },
  async resume({ queue }) {
    await api("POST", `/queues/${queue}/resume`);
    say(`The queue ${queue} is running again.`);
  },
  async retry({ id }) {
    await api("POST", `/jobs/${id}/retry`);
    say(`Job ${id} went back to its queue.`);
  },
  async cancel({ id }) {
    if (!await ask(`Cancel job ${id}?`, "If it runs already, its handler is asked to stop.", "Cancel this job", true)) return;
    const answer = await api("POST", `/jobs/${id}/cancel`);
    say(answer.status === "cancelled" ? `Job ${id} is cancelled.` : `Job ${id} was asked to stop.`);
  },
  async delete({ id }) {
    if (!await ask(`Delete job ${id}?`, "Its payload, result and errors are gone then.", "Delete this job", true)) return;
    await api("DELETE", `/jobs/${id}`);
    say(`Job ${id} is deleted.`);
    location.hash = "#/jobs";
  },
  "retry-some": () => retryDead({ ids: [...selected] }, " of those selected"),
  "retry-all": ({ type }) => retryDead(ofType(type).wanted, ofType(type).words),
  async "delete-some"() {
    const ids = [...selected];
    const { matched } = await api("POST", "/dlq/retry", { ids, dry_run: true });
    if (!await ask(`Delete ${many(matched, "dead letter")}?`, "They cannot be brought back.", `Delete ${number(matched)}`, true)) return;
    let deleted = 0;
    for (const id of ids) {
      try {
        await api("DELETE", `/jobs/${id}`);
        deleted += 1;
      } catch (error) {
        // One that is gone, or was sent back meanwhile, needs nothing.
        if (error.status !== 404 && error.status !== 409) throw error;
      }
      selected.delete(id);
    }
    say(`${many(deleted, "dead letter")} deleted.`);
  },
  async purge({ type }) {
    const { wanted, words } = ofType(type);
    const { matched } = await api("POST", "/dlq/retry", { ...wanted, dry_run: true });
    if (!await ask(`Delete ${many(matched, "dead letter")}${words}?`, "They cannot be brought back. Those that fail meanwhile are deleted too.", `Delete ${number(matched)}`, true)) return;
    const { deleted } = await api("DELETE", "/dlq" + query({ type }));
    selected.clear();
    say(`${many(deleted, "dead letter")} deleted.`);
  },
};

document.addEventListener("click", async (event) => {
  const target = event.target.closest("[data-do]");
  if (!target) return;
  event.preventDefault();
  const action = actionOf(target);
  if (underWay.has(action)) return;
  underWay.add(action);
  markBusy(target);
  try {
    await actions[target.dataset.do]({ ...target.dataset });
  } catch (error) {
    say(error.message, true);
  }
  underWay.delete(action);
  document.querySelectorAll("[data-do][aria-busy]").forEach(markBusy);
  // What a person has changed is seen at once.
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

/** What the address asks for: a view and its parameters. */
function route() {
  const [path, parameters] = location.hash.slice(1).split("?");
  const given = Object.fromEntries(new URLSearchParams(parameters));
  const [, page = "", id, ...more] = path.split("/");
  if (page === "jobs" && id && !more.length) return { page, view: job, given: { id } };
  const views = { "": overview, servers, jobs, queues, dead };
  if (!Object.hasOwn(views, page) || id || more.length) return { page: null, view: nowhere, given: {} };
  return { page: page || "overview", view: views[page], given };
}

const nowhere = {
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
  // Whoever listens to the page hears where it is now.
  if (!isFirst) heading.focus();
  refresh();
}

/** Whether a button of the mouse or a key is held down: what is below it must not change before it is let go. */
let isPressed = false;
const setPressed = (value) => () => { isPressed = value; };
for (const name of ["pointerdown", "keydown"]) document.addEventListener(name, setPressed(true), true);
for (const name of ["pointerup", "pointercancel", "keyup"]) document.addEventListener(name, setPressed(false), true);
// What is let go elsewhere is not told.
window.addEventListener("blur", setPressed(false));

function hasSelection() {
  const selection = getSelection();
  return !selection.isCollapsed && selection.containsNode(shown.body, true);
}

/** Draws what was read, unless a person would lose something by it: a press under way, a selection, a question. */
function draw(isWanted = false) {
  if (shown.data === null) return;
  const isHeld = isPressed || hasSelection() || document.querySelector("dialog[open]");
  if (isWanted || !isHeld) show(shown.body, shown.view.render(shown.data, shown.given));
}

/** Reads anew and draws, and again after a while. Only the newest of several calls goes on. */
async function refresh(isAnew = false) {
  clearTimeout(timer);
  const mine = ++turn, page = shown, isFirst = page.data === null;
  page.asked ??= performance.now();
  try {
    const data = await page.view.read(page.given, isAnew ? null : page.data);
    if (mine !== turn) return;
    Object.assign(page, { data, at: performance.now(), trouble: null });
    draw(isFirst);
  } catch (error) {
    if (mine !== turn) return;
    const isAway = !error.status || error.status >= 500;
    page.trouble = isAway ? error.message : null;
    // What was shown stays, unless it is gone or the question was wrong.
    if (!isAway || isFirst) {
      Object.assign(page, { data: null, at: null });
      show(page.body, el("p", { class: "error box", role: "alert" }, error.message));
    }
  }
  page.asked = null;
  page.body.removeAttribute("aria-busy");
  tellAge();
  if (!document.hidden && page.view.every) timer = setTimeout(refresh, page.view.every);
}

/** Says whether what is shown is true now, and if not, how old it is and why. */
function tellAge() {
  const { asked, at, body, trouble } = shown;
  const isLate = asked !== null && performance.now() - asked > 5000;
  const isStale = trouble !== null || isLate;
  const age = at !== null && `${rough(performance.now() - at)} old: `;
  const state = isStale ? [age && el("span", { "aria-hidden": "true" }, age), trouble ?? "no answer yet"]
    : hasSelection() ? "on hold while text is selected" : at !== null && "live";
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
setInterval(() => document.hidden || tellAge(), 1000);
open();
