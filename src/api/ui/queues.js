// The pages Queues and Queue.

import { api, notify, query } from "./api.js";
import { el } from "./elements.js";
import { button, jobLink, lastPage, PAGE_SIZE, status, table, tagLinks } from "./parts.js";
import { clock, duration, number, plural, time } from "./text.js";

/** Whether the jobs of a queue are started. */
function queueState({ paused, servers }) {
  if (servers === 0) return el("span", { class: "status stuck" }, paused ? "paused, no server takes jobs from it" : "no server takes jobs from it");
  return el("span", { class: `status ${paused ? "paused" : "open"}` }, paused ? "paused" : "running");
}

const switchButton = ({ name, paused }) => button(paused ? "Resume" : "Pause", paused ? "resume" : "pause", { queue: name, key: "switch" },
  { "aria-label": `${paused ? "Resume" : "Pause"} the queue ${name}` });

const strictMark = ({ strict }) => strict && el("span", { class: "mark", title: "The jobs of a strict queue start before those of all other queues." }, "strict");

export const queues = {
  title: "Queues",
  every: 2000,
  read: () => api("GET", "/queues"),
  render: ({ queues }) => table("Queues", [["Queue", "name"], ["Queued", "n"], ["Oldest waits", "n wide"], ["Servers", "n wide"], ["State", "state"], ["Action", "act"]], queues.map((queue) => [
    [el("a", { class: "mono", href: `#/queues/${queue.name}` }, queue.name), strictMark(queue)],
    [number(queue.queued), queue.oldest_ms != null && el("span", { class: "narrow" }, duration(queue.oldest_ms))],
    queue.oldest_ms == null ? "–" : duration(queue.oldest_ms),
    number(queue.servers),
    queueState(queue),
    switchButton(queue),
  ]), "There is no queue yet.", queues.map((queue) => queue.name)),
};

export const queue = {
  title: "Queue",
  every: 3000,
  /** The rows stay as they were listed: a job that has left the queue is marked. */
  async read({ name, page = 1 }, old) {
    const path = `/queues/${encodeURIComponent(name)}/jobs` + query({ page, limit: PAGE_SIZE });
    const [{ queues }, { jobs, total }] = await Promise.all([api("GET", "/queues"), api("GET", path)]);
    const queue = queues.find((queue) => queue.name === name) ?? null;
    if (!old?.jobs.length) return { queue, jobs, total, page: Number(page), listed: new Date() };
    const there = new Map(jobs.map((job) => [job.id, job]));
    return { ...old, queue, total, jobs: old.jobs.map((job) => there.get(job.id) ?? { ...job, hasMoved: true }) };
  },
  render({ queue, jobs, total, page, listed }, { name }) {
    const last = Math.max(page, lastPage(total));
    const to = (target, text, isOn) => isOn ? el("a", { href: `#/queues/${name}${query({ page: target > 1 && target })}` }, text) : el("span", { class: "off" });
    const hasMoved = jobs.some((job) => job.hasMoved);
    return [
      el("p", { class: "jobhead" }, queue && queueState(queue), el("span", { class: "mono" }, name), queue && strictMark(queue),
        queue && el("span", { class: "acts" }, switchButton(queue))),
      el("p", { class: "facts" }, queue ? [`${plural(queue.queued, "job")} queued`, queue.oldest_ms != null && `, the oldest waits for ${duration(queue.oldest_ms)}`,
        `, taken by ${plural(queue.servers, "server")}`] : "No job has been in this queue, and no server takes jobs from it."),
      el("section", { "aria-labelledby": "waits" }, el("h2", { id: "waits" }, "What waits, the next one first"),
        jobs.length > 0 && el("p", { class: "news" }, el("span", {}, `listed at ${clock(listed, { second: "2-digit" })}`),
          hasMoved && button("Show what waits now", "newest")),
        table("What waits", [["Place", "n wide"], ["Id"], ["Type", "name"], ["Submitted", "n wide"], ["State", "state"]],
          jobs.map((job, at) => [number((page - 1) * PAGE_SIZE + at + 1), jobLink(job.id), [job.type, tagLinks(job)], time(job.created_at),
            job.hasMoved ? el("span", { class: "status" }, "moved on") : status(job.status)]),
          page > 1 ? "Nothing waits on this page." : "Nothing waits in this queue.", jobs.map((job) => job.id)),
        (jobs.length > 0 || page > 1) && el("nav", { class: "pager", "aria-label": "Pages of this list" },
          to(page - 1, "← Sooner", page > 1), el("span", {}, `page ${number(page)} of ${number(last)}`), to(page + 1, "Later →", page < last)))];
  },
};

export const actions = {
  async pause({ queue }) {
    await api("POST", `/queues/${queue}/pause`);
    notify(`The queue ${queue} is paused: its jobs wait.`);
  },
  async resume({ queue }) {
    await api("POST", `/queues/${queue}/resume`);
    notify(`The queue ${queue} is running again.`);
  },
};
