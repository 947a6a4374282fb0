// Parts that several pages have: buttons, tables, lists of jobs and their filters.

import { api, query } from "./api.js";
import { byId, el, nothing } from "./elements.js";
import { clock, number, plural, time } from "./text.js";

export const STATUSES = ["scheduled", "queued", "processing", "retrying", "completed", "failed", "cancelled"];
export const PAGE_SIZE = 25;

export const status = (name, words = name ?? "unreadable") => el("span", { class: `status ${name}` }, words);
/** The running attempt, or the number of ended attempts, of the maximum. */
export const attempts = (job) => job.attempts == null ? "–" : `${job.attempts + (job.status === "processing" ? 1 : 0)} of ${job.max_attempts ?? "–"}`;
/** How far an attempt is, by its own words. */
export const progress = ({ value, message = "" }) => el("span", { class: "progress" },
  el("progress", { max: 1, value, "aria-label": "Progress" }), ` ${Math.round(value * 100)} %${message && ` ${message}`}`);
/** The progress of a running job. */
export const progressOf = (job) => job.status === "processing" && job.progress && progress(job.progress);
export const jobLink = (id) => el("a", { class: "id", href: `#/jobs/${id}` }, id);
/** The tags of a job, each as a link to the jobs with this tag. */
export const tagLinks = ({ tags = [] }) => tags.length > 0 && el("span", { class: "tags" },
  tags.map((tag) => el("a", { href: `#/jobs${query({ tag })}` }, tag)));
/** The path of a limit such as tenant:42, in the API and in addresses of pages. */
export function limitPath(limit, more = {}) {
  const [name, ...key] = limit.split(":");
  return `/limits/${encodeURIComponent(name)}${query({ key: key.join(":"), ...more })}`;
}
/** A link to a limit; from the limit of a schedule, which has no page, to the schedule. */
export function limitLink(limit) {
  const [, schedule] = limit.split("threadq.schedule:");
  return el("a", { class: "mono", href: `#${schedule ? `/schedules/${schedule}` : limitPath(limit)}` }, limit);
}
/** The limit that keeps a job waiting. */
export const blockedBy = ({ blocked_by: by }) => by?.limit && el("span", { class: "hint" }, "waits for the limit ", limitLink(by.limit));
export const button = (name, action, data = {}, attributes = {}) => {
  const all = { type: "button", "data-do": action, ...attributes };
  for (const [key, value] of Object.entries(data)) all[`data-${key}`] = value;
  return markBusy(el("button", all, name));
};

/** The actions in progress. */
export const inProgress = new Set();
export const actionOf = ({ dataset: { do: what, action, id, queue, name } }) => JSON.stringify([what, action, id, queue, name]);

/** Marks a button while its action is in progress, also after the page is drawn again. */
export function markBusy(button) {
  inProgress.has(actionOf(button)) ? button.setAttribute("aria-busy", "true") : button.removeAttribute("aria-busy");
  return button;
}

/** A table. Columns are `[title, class]`, a row is a list of cells, and `keys` identify the rows. `empty` is shown when
 *  there are no rows. */
export function table(name, columns, rows, empty, keys = []) {
  if (!rows.length) return nothing(empty);
  return el("div", { class: "scroll" },
    el("table", { "aria-label": name },
      el("thead", {}, el("tr", {}, columns.map(([title, kind]) => el("th", { scope: "col", class: kind }, title)))),
      el("tbody", {}, rows.map((row, at) =>
        el("tr", { "data-key": keys[at] }, row.map((cell, i) => el("td", { class: columns[i][1] }, cell)))))));
}

/** A section with a title. */
export const part = (title, ...content) => el("section", {}, el("h2", {}, title), content);
/** A list of names and values. Values that are missing are left out. */
export const facts = (list) => el("dl", {}, list.filter(Boolean).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));

export const lastPage = (total) => Math.max(1, Math.ceil(total / PAGE_SIZE));

/** Is shown in place of a page after the last one. */
export function noSuchPage(path, filter, { page, total, before }) {
  const last = lastPage(total);
  const to = (target, name) => el("a", { href: `#${path}${query({ ...filter, page: target })}` }, name);
  const what = before ? "There is no older job." : `There is no page ${number(page)}: the list has ${plural(last, "page")}.`;
  return nothing(what, " Go to the ", to(null, "first page"), last > 1 && [" or to the ", to(last, "last page")], ".");
}

/** The parameter `before` of each page that was reached by "Older", by its number. */
const pageStarts = [];

export function pager(path, filter, { page, total, jobs, next }) {
  if (total === 0) return null;
  const last = Math.max(page, lastPage(total));
  pageStarts[page + 1] = next;
  return pages((target) => `#${path}${query({ ...filter, page: target, before: target && pageStarts[target] })}`, ["Newer", "Older"], page, next !== null,
    `page ${number(page)} of ${number(last)}, ${plural(total, "job")}`);
}

/** The links to the pages before and after this one. `address` makes the address of a page; that of the first one has no number. */
export function pages(address, [before, after], page, hasMore, text) {
  const to = (target, name, isOn) => el(isOn ? "a" : "span", { href: isOn && address(target > 1 && target) }, isOn && name);
  return el("nav", { class: "pager", "aria-label": "Pages of this list" }, to(page - 1, `← ${before}`, page > 1), el("span", {}, text), to(page + 1, `${after} →`, hasMore));
}

/** The path of a job in the API. */
export const jobPath = (id) => `/jobs/${encodeURIComponent(id)}`;

/** A job without its large texts, as in listings; null if it is deleted. */
export async function brief(id) {
  const { jobs } = await api("GET", "/jobs" + query({ before: id + 1, limit: 1 }));
  return jobs[0]?.id === id ? jobs[0] : null;
}

export const hasEnded = ({ status }) => ["completed", "failed", "cancelled"].includes(status);
/** A page is read again after this time in ms, even if nothing seems to have changed. */
const REREAD_INTERVAL = 30e3;
/** Number of jobs that are read one by one at each refresh, of those that have left the list. */
const SINGLE_READS = 5;

/** Reads a page of a list. A page that is shown already keeps its jobs in their places, whatever is added or removed
 *  meanwhile: only the jobs themselves, and the number of newer jobs, are read again. */
export async function readList(path, filter, { page, before }, old) {
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
export function listInfo({ jobs, listed, newer, page }, isCounted) {
  if (!jobs.length) return null;
  return el("p", { class: "news" }, el("span", {}, `listed at ${clock(listed, { second: "2-digit" })}`),
    page === 1 && newer > 0 && button(isCounted ? `↑ ${number(newer)} newer` : "↑ newer jobs", "newest"));
}

/** A page of jobs that wait, the next one first. Its rows stay as they were listed: a job that no longer waits is marked. */
export function keepWaiting({ jobs, total }, page, old) {
  if (!old?.jobs.length) return { jobs, total, page: Number(page), listed: new Date() };
  const there = new Map(jobs.map((job) => [job.id, job]));
  return { ...old, total, jobs: old.jobs.map((job) => there.get(job.id) ?? { ...job, hasMoved: true }) };
}

/** The list of such a page. `address` makes the address of another page, and `where` an additional cell. */
export function waiting({ jobs, total, page, listed }, address, empty, where) {
  const last = Math.max(page, lastPage(total));
  return part("What waits, the next one first",
    jobs.length > 0 && el("p", { class: "news" }, el("span", {}, `listed at ${clock(listed, { second: "2-digit" })}`),
      jobs.some((job) => job.hasMoved) && button("Show what waits now", "newest")),
    table("What waits", [["Place", "n wide"], ["Id"], ["Type", "name"], where && ["Queue", "name wide"], ["Submitted", "n wide"], ["State", "state"]].filter(Boolean),
      jobs.map((job, at) => [number((page - 1) * PAGE_SIZE + at + 1), jobLink(job.id), [job.type, tagLinks(job)], where && where(job), time(job.created_at),
        job.hasMoved ? status("", "moved on") : status(job.status)].filter((cell) => cell != null)),
      page > 1 ? "Nothing waits on this page." : empty, jobs.map((job) => job.id)),
    (jobs.length > 0 || page > 1) && pages(address, ["Sooner", "Later"], page, page < last, `page ${number(page)} of ${number(last)}`));
}

const types = new Set();
const typeOption = (type) => el("option", { value: type });

/** Adds the types of these jobs to the suggestions of the filter. */
export function learnTypes(jobs) {
  for (const { type } of jobs) {
    if (types.has(type) || types.size >= 200) continue;
    types.add(type);
    byId("types")?.append(typeOption(type));
  }
}

/** Adds the types of the newest jobs. */
export const learnNewestTypes = async () => learnTypes((await api("GET", "/jobs" + query({ limit: PAGE_SIZE }))).jobs);

/** The suggestions of a field for a type. They are there even if there is none, because the role of the field depends on
 *  them. */
export const typeOptions = () => el("datalist", { id: "types" }, [...types].map(typeOption));

export function typeFilter(value) {
  return [el("label", {}, "Type ",
    el("input", { name: "type", value: value ?? "", list: "types", maxlength: 100, autocomplete: "off", placeholder: "any" })),
    typeOptions()];
}
