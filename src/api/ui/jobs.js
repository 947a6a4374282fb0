// The pages Jobs and Dead letters.

import { api, ask, notify, query } from "./api.js";
import { el } from "./elements.js";
import { attempts, button, hasEnded, jobLink, lastPage, learnTypes, listInfo, noSuchPage, pager, readList, status, STATUSES, table,
  typeFilter } from "./parts.js";
import { number, plural, time } from "./text.js";

const noJob = () => ["There is no job yet. Submit one: ", el("span", { class: "mono" }, "threadq enqueue TYPE --payload JSON"), ", or POST /jobs."];

export const jobs = {
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
    el("a", { class: "button", href: "#/submit" }, "Submit a job"),
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

export const selected = new Set();

export const dead = {
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

export const actions = {
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
