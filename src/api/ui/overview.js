// The pages Overview and Workers.

import { api, hasToken } from "./api.js";
import { chart } from "./charts.js";
import { el, mono, nothing, pre } from "./elements.js";
import { jobLink, part, status, STATUSES, table } from "./parts.js";
import { clock, duration, now, number, plural, time } from "./text.js";

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

/** How to submit the first job. */
function firstSteps() {
  const token = hasToken() ? " -H \"Authorization: Bearer $THREADQ_API_TOKEN\"" : "";
  const commands = [
    `threadq enqueue TYPE --payload '{"n": 1}' --wait --server ${location.origin}`,
    `curl ${location.origin}/jobs -H 'Content-Type: application/json'${token} -d '{"type": "TYPE", "payload": {"n": 1}}'`,
  ];
  return part("There is no job yet",
    el("p", {}, el("a", { href: "#/submit" }, "Submit one on this page"), ", with the program, or with any HTTP client. TYPE is a job type that this server has a handler for: one of its config file, or ",
      mono("echo"), " if it was started with ", mono("--demo"), "."),
    commands.map((command) => pre("Command to submit a job", command)));
}

export const overview = {
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
    const stuck = stats.queues.filter((queue) => queue.servers === 0 && !queue.pulled && queue.queued > 0);
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
      mono(server.id),
      el("span", {}, el("meter", { min: 0, max: Math.max(1, server.workers), value: server.busy, "aria-hidden": "true" }), ` ${server.busy} of ${server.workers}`),
      duration(server.beat_age_ms),
      time(server.started_at),
      doing(own.slice(0, 10), (one) => [one.job, `${one.type}, ${duration(one.for_ms)}`],
        own.length > 10 && el("li", {}, el("a", { href: "#/workers" }, `and ${own.length - 10} more`))),
    ];
  });
  return part(el("a", { href: "#/workers" }, "Servers"),
    table("Servers", [["Server", "name"], ["Busy", "n"], ["Last heartbeat", "n wide"], ["Started", "n wide"], ["Running jobs"]], rows, "No server is alive.",
      servers.map((server) => server.id)));
}

export const workers = {
  title: "Workers",
  every: 2000,
  async read() {
    const [{ servers }, { workers }] = await Promise.all([api("GET", "/stats/workers"), api("GET", "/workers")]);
    return { servers, workers };
  },
  render: ({ servers, workers }) => [
    servers.length === 0 && nothing("No server is alive."),
    servers.map((server) => el("section", { "data-key": server.id, "aria-label": `Server ${server.id}` },
      el("h2", { class: "mono" }, server.id),
      el("p", { class: "facts" }, `${server.busy} of ${plural(server.workers, "worker")} busy, started `, time(server.started_at),
        `, last heartbeat ${duration(server.beat_age_ms)} ago`),
      threads(server))),
    workers.length > 0 && part("Pull workers", table("Pull workers", [["Worker", "name"], ["Last seen", "n wide"], ["Jobs", "fill"]],
      workers.map(({ name, last_seen: seen, jobs }) => [[mono(name), el("span", { class: "narrow" }, time(seen))], time(seen), doing(jobs, (job) => [job.id, `${job.type}, lease ends `, time(job.lease_until)])]),
      "", workers.map(({ name }) => name)))],
};

/** The jobs that a server or a pull worker runs. `texts` makes the id of an entry and the words behind it. */
const doing = (jobs, texts, ...more) => jobs.length ? el("ul", { class: "doing" }, jobs.map((job) => {
  const [id, ...words] = texts(job);
  return el("li", { "data-key": id }, jobLink(id), " ", words);
}), more) : "–";

/** The worker threads of a server: those that have a job, and the number of idle ones. */
function threads({ id, workers, threads }) {
  if (threads === null) return nothing("The server has not reported its threads yet.");
  const idle = Math.max(0, workers - threads.length);
  return [
    threads.length > 0 && table(`Threads of ${id}`, [["Thread", "name"], ["Job"], ["Type", "name"], ["Attempt", "n wide"], ["For", "n"], ["State", "wide rest"]],
      threads.map((one) => [one.thread ?? "–", jobLink(one.job), one.type, one.attempt, duration(one.for_ms),
        status(THREAD_STATES[one.state]?.[1] ?? "", THREAD_STATES[one.state]?.[0] ?? one.state)]),
      "", threads.map((one) => one.job)),
    el("p", { class: "facts" }, `${plural(idle, "thread")} ${idle === 1 ? "is" : "are"} idle`),
  ];
}

/** Text and class of the state of a thread. */
const THREAD_STATES = {
  starting: ["starting", "queued"], running: ["running", "processing"], stopping: ["stopping", "failed"],
  backing_off: ["waiting for the next attempt", "retrying"],
};
