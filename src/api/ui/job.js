// The page of one job.

import { api, ask, notify, query, send } from "./api.js";
import { el, go, mono, nothing, pre } from "./elements.js";
import { bodyText, form, readForm, sendButton, showOutcome, timeText } from "./forms.js";
import { attempts, blockedBy, brief, button, facts, hasEnded, jobPath, limitLink, part, progress, progressOf, status, table, tagLinks } from "./parts.js";
import { jobFields } from "./submit.js";
import { duration, exact, indent, members, number, plural, time, toSecond, ZONE } from "./text.js";

export const job = {
  title: "Job",
  every: 3000,
  async read({ id }, old) {
    const short = old?.text.length > LARGE && await brief(old.value.id);
    const whole = short && isSame(short, old) ? { ...old, value: { ...old.value, progress: short.progress } }
      : { ...await api("GET", jobPath(id), undefined, true), readAt: Date.now() };
    const { value } = whole;
    return { ...whole, log: await readLog(value, old?.log), why: hasEnded(value) ? null : await why(id) };
  },
  render({ value: job, text, why, log }) {
    const raw = members(text), ended = hasEnded(job), waits = isWaiting(job);
    const isRetriable = ["failed", "cancelled"].includes(job.status);
    const can = (name, action, more, kind) => button(name, action, { id: job.id, ...more }, { class: kind });
    const keptUntil = job.finished_at && job.retain_ms != null && new Date(Date.parse(job.finished_at) + job.retain_ms).toISOString();
    const details = [
      ["Type", job.type], ["Queue", el("a", { class: "mono", href: `#/queues/${job.queue}` }, job.queue)],
      job.tags && ["Tags", tagLinks(job)],
      job.limits && ["Limits", el("span", { class: "tags" }, job.limits.map(limitLink))],
      job.schedule && ["Schedule", [el("a", { href: `#/schedules/${job.schedule.name}` }, job.schedule.name), ", meant for ", mono(toSecond(job.schedule.tick))]],
      [job.status === "processing" ? "Attempt" : "Attempts", attempts(job)],
      job.crashes > 0 && ["Crashes", job.crashes],
      job.snoozes > 0 && ["Put off by its handler", plural(job.snoozes, "time")],
      ["Timeout", duration(job.timeout_ms)],
      job.expires_at && ["Expires", time(job.expires_at)],
      job.retain_ms != null && (keptUntil ? ["Deleted", time(keptUntil)] : ["Kept", `for ${duration(job.retain_ms)} after its end`]),
      job.unique_key && ["Unique key", job.unique_key],
      job.meta && ["Meta", el("ul", { class: "meta" }, Object.entries(job.meta).map(([name, value]) => el("li", {}, mono(`${name}=${value}`))))],
      job.worker ? ["Pull worker", el("a", { class: "mono", href: "#/workers" }, job.worker)] : job.server && ["Server", mono(job.server)],
      job.progress && job.status !== "processing" && ["Progress", [progress(job.progress), ", ", time(job.progress.at)]],
      job.finished_at && job.started_at && ["Last run time", duration(Date.parse(job.finished_at) - Date.parse(job.started_at))],
    ];
    const command = (verb) => `threadq ${verb} ${job.id} --server ${location.origin}`;
    const json = (name, title) => part(title,
      pre(title, indent((raw[name] ?? "null").slice(0, MAX_SHOWN))),
      raw[name]?.length > MAX_SHOWN && el("p", { class: "facts" }, `The first ${number(MAX_SHOWN)} of ${plural(raw[name].length, "character")}. All: `,
        mono(command("show"))));
    return [
      el("p", { class: "jobhead" }, status(job.status), CANCEL_REASONS[job.cancel_reason] && el("span", {}, CANCEL_REASONS[job.cancel_reason]), blockedBy(job), mono(job.id), progressOf(job), el("span", { class: "acts" },
        isRetriable && can("Retry", "retry", {}), isRetriable && raw.checkpoint && can("Retry from the start", "retry", { action: "from-start", key: "from-start" }),
        go("Duplicate", `#/submit?from=${job.id}`), waits && go("Change", `#/jobs/${job.id}/change`),
        (job.status === "scheduled" || job.status === "retrying") && can("Run now", "run-now", {}),
        ended ? can("Delete", "delete", {}, "danger") : can("Cancel", "cancel", {}))),
      job.last_error && el("p", { class: "error box" }, job.last_error),
      why?.length > 0 && part(job.status === "processing" ? "Why it has not ended" : "Why it does not run",
        el("ul", { class: "why" }, why.map(({ code, sentence }) => el("li", { "data-key": code }, withLocalTimes(sentence))))),
      el("div", { class: "two" },
        part("Facts", facts(details)),
        part("Timeline", el("ol", { class: "timeline" }, timeline(job)))),
      log.last > 0 && part("Log",
        el("div", { class: "log", tabindex: 0, role: "region", "aria-label": "Log" }, el("div", {}, log.lines.map(({ n, at, text }) =>
          el("div", { "data-key": n }, el("time", { datetime: at, title: exact(at) }, toSecond(at).slice(11)), " ", text)))),
        log.last > log.lines.length && el("p", { class: "facts" }, `The last ${plural(log.lines.length, "line")} of ${number(log.last)}. More: `, mono(command("logs")))),
      raw.checkpoint && json("checkpoint", "Checkpoint"),
      json("payload", "Payload"),
      job.status === "completed" && json("result", "Result"),
      job.errors.length > 0 && part("Errors of the attempts",
        table("Errors", [["Attempt", "n"], ["When", "n wide"], ["Error", "rest"]],
          classifiedErrors(job.errors).map(({ error, isCrash, isAgain }) => [isCrash ? "crash" : isAgain ? `${error.attempt}, after a retry` : error.attempt,
            time(error.at), el("span", { class: "message" }, error.message)]), "")),
    ];
  },
};

/** Whether a job can be changed: it has not started, or waits for its next attempt. */
const isWaiting = ({ status }) => ["scheduled", "queued", "retrying"].includes(status);

/** A sentence of the API with its times in the zone of the browser. */
const withLocalTimes = (sentence) => sentence.split(/(\d{4}-\d\d-\d\dT[\d:.]+Z)/).map((part, at) => at % 2 ? el("time", { datetime: part, title: part }, toSecond(part)) : part);

/** The sentences that say why a job has not ended; none if the job has ended meanwhile. */
async function why(id) {
  try {
    return (await api("GET", `${jobPath(id)}/why`)).reasons;
  } catch (error) {
    if (error.status !== 404 && error.status !== 409) throw error;
    return [];
  }
}

/** A job with a longer text is read as a whole only if it has changed. */
const LARGE = 10_000;
/** The checkpoint of such a job is read again after this time in ms, while the job runs. */
const CHECKPOINT_INTERVAL = 30e3;

/** Whether a job is the same as before, but for its progress. `short` is the job as listed, where large texts are left out. */
function isSame(short, { value: whole, readAt }) {
  const rest = ({ payload, result, errors, omitted, progress, checkpoint, ...rest }) => JSON.stringify(rest);
  const mayBeBehind = short.omitted?.includes("checkpoint") && !hasEnded(short) && Date.now() - readAt > CHECKPOINT_INTERVAL;
  return !mayBeBehind && rest(short) === rest(whole) && (short.omitted?.includes("payload") || JSON.stringify(short.payload) === JSON.stringify(whole.payload));
}

/** Lines of a log that are shown. */
const LOG_LINES = 200;

/** Reads the lines of a job's log that are new. `last` is the number of the last line. */
async function readLog({ id, started_at: startedAt, finished_at: until }, old) {
  if (!startedAt) return { lines: [], last: 0 };
  // The log of an ended job is whole.
  if (until && old?.until === until) return old;
  const get = (parameters) => api("GET", `/jobs/${id}/log${query(parameters)}`);
  const after = old ? old.last : Math.max(0, (await get({ limit: 1 })).total - LOG_LINES);
  const { lines } = await get({ after, limit: 1000 });
  return { lines: [...old?.lines ?? [], ...lines].slice(-LOG_LINES), last: lines.at(-1)?.n ?? after, until };
}

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
    steps.push([isCrash ? "Crash" : `Attempt ${error.attempt} failed${isAgain ? ", after a retry" : ""}`, error.at, "failed"]);
  }
  if (job.started_at) steps.push([job.status === "processing" ? "Started, running" : "Last start", job.started_at, "processing"]);
  if (job.finished_at) steps.push([{ completed: "Completed", failed: "Failed for good", cancelled: "Cancelled" }[job.status] ?? "Ended", job.finished_at, job.status]);
  if (job.scheduled_at && ["scheduled", "retrying"].includes(job.status)) steps.push([job.status === "retrying" ? "Next attempt" : "Due", job.scheduled_at, job.status]);
  // The sort is stable: events of the same time keep the order above.
  steps.sort((a, b) => Date.parse(a[1]) - Date.parse(b[1]));
  return steps.map(([what, at, kind]) => el("li", { class: kind }, el("span", {}, what), " ", mono(exact(at)), " ", time(at)));
}

/** Why a job is cancelled, beside its status. */
const CANCEL_REASONS = { expired: "because it expired before it started", replaced: "because another job replaced it" };

export const change = {
  title: "Change job",
  every: null,
  read: ({ id }) => api("GET", jobPath(id), undefined, true),
  render({ value: job, text }) {
    const back = go("Back to the job", `#/jobs/${job.id}`);
    if (!isWaiting(job)) return [nothing(`The job is ${job.status} and cannot be changed any more.`), el("p", { class: "acts bar" }, back)];
    const { payload, queue, tags, attempts, timeout } = jobFields(job, indent(members(text).payload));
    const at = { name: "run_at", names: "delay_ms", label: "Run at", kind: "time", value: job.status !== "queued" && timeText(job.scheduled_at), hint: `in ${ZONE}` };
    return form("change", `Change job ${job.id}`, [payload, queue, at, tags, attempts, timeout], [], { id: job.id }, sendButton("Change"), back);
  },
};

export const actions = {
  "run-now": ({ id }) => send("POST", `/jobs/${id}/run`, `Job ${id} no longer waits for its time.`),
  async change(form) {
    const id = form.dataset.id, body = readForm(form, true);
    if (Object.keys(body).length === 0) return showOutcome(form, "Nothing was changed in this form.");
    await send("PATCH", `/jobs/${id}`, `Job ${id} is changed.`, bodyText(body));
    location.hash = `#/jobs/${id}`;
  },
  retry: ({ id, action }) => send("POST", `/jobs/${id}/retry`, `Job ${id} is back in its queue${action ? ", without its checkpoint" : ""}.`, action && { from_start: true }),
  async cancel({ id }) {
    if (!await ask(`Cancel job ${id}?`, "If the job is running, its handler is asked to stop.", "Cancel this job", true)) return;
    const { status } = await api("POST", `/jobs/${id}/cancel`);
    notify(status === "cancelled" ? `Job ${id} is cancelled.` : `Job ${id} was asked to stop.`);
  },
  async delete({ id }) {
    if (!await ask(`Delete job ${id}?`, "Its payload, result and errors are deleted too.", "Delete this job", true)) return;
    await send("DELETE", `/jobs/${id}`, `Job ${id} is deleted.`);
    location.hash = "#/jobs";
  },
};
