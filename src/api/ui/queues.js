// The pages Queues and Queue.

import { api, query, send } from "./api.js";
import { el, mono } from "./elements.js";
import { button, keepWaiting, PAGE_SIZE, status, table, waiting } from "./parts.js";
import { duration, number, plural } from "./text.js";

/** Whether the jobs of a queue are started. */
function queueState({ paused, servers, pulled }) {
  if (servers === 0 && !pulled) return status("stuck", paused ? "paused, no server takes jobs from it" : "no server takes jobs from it");
  return paused ? status("paused") : status("open", "running");
}

const switchButton = ({ name, paused }) => button(paused ? "Resume" : "Pause", paused ? "resume" : "pause", { queue: name, key: "switch" },
  { "aria-label": `${paused ? "Resume" : "Pause"} the queue ${name}` });

const strictMark = ({ strict }) => strict && el("span", { class: "mark", title: "The jobs of a strict queue start before those of all other queues." }, "strict");

/** How many jobs of a queue wait for limits. They stand beside the queue. */
const heldLink = ({ held }) => held > 0 && el("a", { href: "#/limits" }, `${number(held)} held`);

export const queues = {
  title: "Queues",
  every: 2000,
  read: () => api("GET", "/queues"),
  render: ({ queues }) => table("Queues", [["Queue", "name"], ["Queued", "n"], ["Oldest waits", "n wide"], ["Servers", "n wide"], ["State", "state"], ["Action", "act"]], queues.map((queue) => [
    [el("a", { class: "mono", href: `#/queues/${queue.name}` }, queue.name), strictMark(queue)],
    [number(queue.queued), el("div", {}, heldLink(queue)), queue.oldest_ms != null && el("span", { class: "narrow" }, duration(queue.oldest_ms))],
    queue.oldest_ms == null ? "–" : duration(queue.oldest_ms),
    queue.pulled ? [queue.servers > 0 && `${number(queue.servers)}, `, el("a", { href: "#/workers" }, "pulled")] : number(queue.servers),
    queueState(queue),
    switchButton(queue),
  ]), "There is no queue yet.", queues.map((queue) => queue.name)),
};

export const queue = {
  title: "Queue",
  every: 3000,
  async read({ name, page = 1 }, old) {
    const path = `/queues/${encodeURIComponent(name)}/jobs` + query({ page, limit: PAGE_SIZE });
    const [{ queues }, listed] = await Promise.all([api("GET", "/queues"), api("GET", path)]);
    return { ...keepWaiting(listed, page, old), queue: queues.find((queue) => queue.name === name) ?? null };
  },
  render({ queue, ...list }, { name }) {
    return [
      el("p", { class: "jobhead" }, queue && queueState(queue), mono(name), queue && strictMark(queue),
        queue && el("span", { class: "acts" }, switchButton(queue))),
      el("p", { class: "facts" }, queue ? [`${plural(queue.queued, "job")} queued`, queue.held > 0 && [", ", heldLink(queue), " by limits"], queue.oldest_ms != null && `, the oldest waits for ${duration(queue.oldest_ms)}`,
        `, taken by ${plural(queue.servers, "server")}`, queue.pulled && [" and ", el("a", { href: "#/workers" }, "pull workers")]] : "Nothing waits in this queue, and no server or pull worker takes jobs from it."),
      waiting(list, (page) => `#/queues/${name}${query({ page })}`, queue?.held > 0 ? "All jobs of this queue wait for limits." : "Nothing waits in this queue.")];
  },
};

export const actions = {
  pause: ({ queue }) => send("POST", `/queues/${queue}/pause`, `The queue ${queue} is paused: its jobs wait.`),
  resume: ({ queue }) => send("POST", `/queues/${queue}/resume`, `The queue ${queue} is running again.`),
};
