// The page of one job.

import { api, ask, notify } from "./api.js";
import { el } from "./elements.js";
import { attempts, brief, button, status, table } from "./parts.js";
import { duration, exact, indent, members, number, plural, time } from "./text.js";

export const job = {
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
        el("a", { class: "button", href: `#/submit?from=${job.id}` }, "Duplicate"),
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

export const actions = {
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
};
