// The page Queues.

import { api, notify } from "./api.js";
import { el } from "./elements.js";
import { button, table } from "./parts.js";
import { duration, number } from "./text.js";

/** Whether the jobs of a queue are started. */
function queueState({ paused, servers }) {
  if (servers === 0) return el("span", { class: "status stuck" }, paused ? "paused, no server takes jobs from it" : "no server takes jobs from it");
  return el("span", { class: `status ${paused ? "paused" : "open"}` }, paused ? "paused" : "running");
}

export const queues = {
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
