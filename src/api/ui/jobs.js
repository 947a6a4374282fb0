// The pages Jobs and Dead letters.

import { ACTIONS, bulk } from "./bulk.js";
import { el, go, mono } from "./elements.js";
import { timeText } from "./forms.js";
import { attempts, blockedBy, button, hasEnded, jobLink, lastPage, learnTypes, listInfo, noSuchPage, pager, progressOf, readList, status, STATUSES, table,
  tagLinks, typeFilter } from "./parts.js";
import { number, time, ZONE } from "./text.js";

/** The parameters of an address that say which jobs a list has. */
const FILTER = ["status", "type", "tag", "created_after", "created_before"];
const filterOf = (given) => Object.fromEntries(FILTER.filter((name) => given[name]).map((name) => [name, given[name]]));
const isEmpty = (filter) => Object.keys(filter).length === 0;

/** The fields of a filter that all lists have. Times are shown in the zone of the browser and sent in UTC. */
function filterFields({ type, tag, created_after: after, created_before: before }) {
  const at = (name, label, value) => el("label", {}, `${label} `,
    el("input", { name, type: "datetime-local", step: 1, value: timeText(value), title: `in ${ZONE}` }));
  return [typeFilter(type),
    el("label", {}, "Tag ", el("input", { name: "tag", value: tag ?? "", maxlength: 64, autocomplete: "off", placeholder: "any" })),
    el("details", { open: Boolean(after || before) }, el("summary", {}, "Time of submission"), at("created_after", "After", after), at("created_before", "Before", before)),
    el("button", {}, "Show")];
}

const noJob = () => ["There is no job yet. ", el("a", { href: "#/submit" }, "Submit one"), " here, with ", mono("threadq enqueue TYPE --payload JSON"), ", or POST /jobs."];

/** On a narrow screen the tags are below the id, where there is more room than below the type. */
const idCell = (job) => [jobLink(job.id), el("span", { class: "narrow" }, tagLinks(job))];
const tagCell = (job) => el("span", { class: "wide" }, tagLinks(job));

export const jobs = {
  title: "Jobs",
  every: 3000,
  head: ({ status, ...given }) => [
    el("form", { class: "filter", "data-filter": "/jobs", role: "search", "aria-label": "Which jobs" },
      el("label", {}, "Status ", el("select", { name: "status" },
        el("option", { value: "" }, "any"),
        STATUSES.map((name) => el("option", { value: name, selected: name === status }, name)))),
      filterFields(given)),
    el("form", { class: "filter", "data-open": true, "aria-label": "One job" },
      el("label", {}, "Job id ", el("input", { name: "id", inputmode: "numeric", pattern: "[0-9]+", required: true, size: 17, autocomplete: "off" })),
      el("button", {}, "Open")),
    go("Submit a job", "#/submit"),
  ],
  read: (given, old) => readList("/jobs", filterOf(given), given, old),
  render(list, given) {
    const { jobs, page, total, before } = list, filter = filterOf(given), { status: wanted } = filter;
    learnTypes(jobs);
    if (!jobs.length && (before || page > lastPage(total))) return noSuchPage("/jobs", filter, list);
    const rows = jobs.map((job) => [
      idCell(job), [job.type, tagCell(job), el("span", { class: "narrow" }, time(job.created_at))], job.queue, [status(job.status), el("span", { class: "narrow" }, progressOf(job))], attempts(job), time(job.created_at),
      el("span", { class: "line one" }, job.status === "scheduled" || job.status === "retrying" ? ["due ", time(job.scheduled_at)] : progressOf(job) || (blockedBy(job) ?? job.last_error ?? ""))]);
    return [
      total > 0 && el("p", { class: "acts bulk", role: "group", "aria-label": "All jobs of this list" },
        el("span", {}, `All ${number(total)} of this list:`),
        Object.entries(ACTIONS).filter(([, { states }]) => !wanted || states.includes(wanted))
          .map(([action, { label }]) => button(`${label} …`, "bulk", { action, key: action, filter: JSON.stringify(filter) }, { class: action === "delete" && "danger" }))),
      // Jobs that have not ended leave the list by themselves, so newer ones cannot be counted.
      listInfo(list, !wanted || hasEnded({ status: wanted })),
      table("Jobs", [["Id"], ["Type", "name"], ["Queue", "wide name"], ["Status", "state"], ["Attempts", "n wide"], ["Submitted", "n wide"], ["Note", "wide fill"]], rows, isEmpty(filter) ? noJob() : "No job matches.", jobs.map((job) => job.id)),
      pager("/jobs", filter, list)];
  },
};

export const selected = new Set();

export const dead = {
  title: "Dead letters",
  every: 3000,
  head: (given) => el("form", { class: "filter", "data-filter": "/dead", role: "search", "aria-label": "Which dead letters" }, filterFields(given)),
  read: ({ status, ...given }, old) => readList("/dlq", filterOf(given), given, old),
  render(list, { status: _, ...given }) {
    const { jobs, page, total, before } = list, filter = filterOf(given);
    learnTypes(jobs);
    if (!jobs.length && (before || page > lastPage(total))) return noSuchPage("/dead", filter, list);
    const there = jobs.filter((job) => job.status === "failed");
    for (const job of jobs) if (job.status !== "failed") selected.delete(job.id);
    const all = there.length > 0 && there.every((job) => selected.has(job.id));
    const suffix = isEmpty(filter) ? "" : filter.type && Object.keys(filter).length === 1 ? ` of type ${filter.type}` : " of this list";
    const some = (name, action, kind) => button(`${name} selected (${number(selected.size)})`, "bulk-selected", { action, key: `some-${action}` }, { disabled: selected.size === 0, class: kind });
    const whole = (name, action, kind) => button(`${name} all${suffix}`, "bulk", { action, key: action, noun: "dead letter", filter: JSON.stringify({ status: "failed", ...filter }) },
      { disabled: total === 0, class: kind });
    const rows = jobs.map((job) => [
      el("input", { type: "checkbox", "data-select": job.id, checked: selected.has(job.id), disabled: job.status !== "failed", "aria-label": `Select job ${job.id}` }),
      idCell(job), [job.type, tagCell(job)], attempts(job), time(job.finished_at),
      [el("span", { class: "narrow" }, job.type, ", ", time(job.finished_at)), job.status === "failed" ? el("span", { class: "line" }, job.last_error ?? "") : status(job.status)]]);
    return [
      el("p", { class: "acts bar" }, some("Retry", "retry"), some("Delete", "delete", "danger"), whole("Retry", "retry"), whole("Delete", "delete", "danger")),
      listInfo(list, true),
      table("Dead letters", [[el("input", { type: "checkbox", "data-select": "all", checked: all, "aria-label": "Select all of this page" }), "check"], ["Id", "tight"], ["Type", "name wide"], ["Attempts", "n wide"], ["Failed", "n wide"], ["Error", "fill"]],
        rows, isEmpty(filter) ? "No job has failed for good." : filter.type ? `No dead letter is of type ${filter.type}.` : "No dead letter matches.", jobs.map((job) => job.id)),
      pager("/dead", filter, list)];
  },
};

export const actions = {
  bulk: ({ action, filter, noun }) => bulk(action, JSON.parse(filter), noun),
  async "bulk-selected"({ action }) {
    if (await bulk(action, { status: "failed", ids: [...selected] }, "dead letter")) selected.clear();
  },
};
