// The pages Limits and Limit, and the form for a limit.

import { api, ask, query, send } from "./api.js";
import { el, go, mono, nothing } from "./elements.js";
import { bodyText, form, readForm, sendButton } from "./forms.js";
import { button, facts, jobLink, keepWaiting, limitLink, limitPath, PAGE_SIZE, part, table, waiting } from "./parts.js";
import { exact, now, number, plural, rough } from "./text.js";

/** What a limit allows, in words. */
const rule = ({ concurrency, rate, burst }) => [concurrency && `${plural(concurrency, "job")} at a time`,
  rate && `${rate}${burst > 1 ? ` in bursts of up to ${number(burst)}` : ""}`].filter(Boolean).join("; ");

/** The numbers of jobs with a slot and of all slots. All keys together can have more than one key has. */
const slots = ({ running, concurrency: most }) => !most ? "–" : running <= most
  ? [el("meter", { min: 0, max: most, value: running, "aria-hidden": "true" }), ` ${number(running)} of ${number(most)}`] : number(running);

/** When the rate lets the next job start. */
function opens({ opens_at: at }) {
  if (!at) return "–";
  const ms = Date.parse(at) - now();
  return el("time", { datetime: at, title: exact(at) }, ms < 1500 ? "in a moment" : `in ${rough(ms)}`);
}

const mark = ({ overridden }) => overridden && el("span", { class: "mark", title: "In place of the numbers of the file, or of the limit without the key." }, "overridden");

const buttons = ({ name, key, source, overridden }) => [
  go("Change", `#/set-limit${query({ limit: name })}`, `Change the limit ${name}`),
  (overridden || (source === "api" && !key)) && button("Unset", "unset-limit", { name, overridden }, { class: "danger", "aria-label": `Unset the limit ${name}` })];

export const limits = {
  title: "Limits",
  every: 2000,
  head: () => go("Set a limit", "#/set-limit"),
  read: () => api("GET", "/limits"),
  render: ({ limits }) => table("Limits", [["Limit", "name"], ["Allows"], ["Running", "n"], ["Waiting", "n"], ["Opens", "n wide"], ["Action", "wide act"]], limits.map((limit) => [
    [limitLink(limit.name), mark(limit)],
    rule(limit), slots(limit), [number(limit.waiting), limit.opens_at && el("div", { class: "narrow" }, opens(limit))], opens(limit), el("span", { class: "acts" }, buttons(limit)),
  ]), ["There is no limit yet. ", el("a", { href: "#/set-limit" }, "Set one"), " here, or add [limits.NAME] to the configuration file."], limits.map(({ name }) => name)),
};

export const limit = {
  title: "Limit",
  every: 2000,
  async read({ name, key, page = 1 }, old) {
    const text = key ? `${name}:${key}` : name;
    const one = await api("GET", limitPath(text, { page, limit: PAGE_SIZE }));
    return { ...keepWaiting({ jobs: one.waiting_jobs, total: one.waiting }, page, old), text, one };
  },
  render({ text, one, ...list }) {
    const { keys = [] } = one;
    const details = [["Allows", rule(one)], ["Running", slots(one)], one.opens_at && ["Opens", opens(one)],
      ["Defined", one.source === "api" || one.overridden ? "by the API" : "in the configuration file"]];
    return [
      el("p", { class: "jobhead" }, mono(text), mark(one), el("span", { class: "acts" }, buttons({ ...one, name: text }))),
      el("div", { class: "two" },
        part("Facts", facts(details)),
        one.concurrency && part("Jobs with a slot", one.running_ids.length ? el("p", { class: "tags" }, one.running_ids.map(jobLink)) : nothing("No job has a slot."))),
      keys.length > 0 && part("Keys with waiting jobs or own numbers", table("Keys", [["Key", "name"], ["Own numbers"], ["Running", "n wide"], ["Waiting", "n"], ["Opens", "n"]],
        keys.map((one) => [limitLink(`${text}:${one.key}`), rule(one) || "–", number(one.running), number(one.waiting), opens(one)]), "", keys.map(({ key }) => key))),
      (list.total > 0 || !keys.length) && waiting(list, (page) => `#${limitPath(text, { page })}`, "Nothing waits for this limit.", (job) => job.queue)];
  },
};

export const setLimit = {
  title: "Set a limit",
  every: null,
  read: async ({ limit }) => limit ? { ...await api("GET", limitPath(limit)), name: limit } : {},
  render: ({ name, concurrency, rate, burst }) => form("set-limit", name ? `Set the limit ${name}` : "Set a limit", [
    name ? el("p", {}, limitLink(name)) : { name: "name", label: "Limit", hint: "A NAME, or NAME:KEY for the numbers of one key." },
    { name: "concurrency", label: "Jobs at a time", kind: "number", value: concurrency },
    { name: "rate", label: "Rate of starts", value: rate, hint: "Such as 10/s, 100/m or 5/30s." },
    { name: "burst", label: "Burst", kind: "number", value: burst, placeholder: 1, hint: "How many of these starts may come at once." },
  ], [], name ? { name } : {}, sendButton("Set"), go("Back", name ? `#${limitPath(name)}` : "#/limits")),
};

export const actions = {
  async "set-limit"(form) {
    const { name = form.dataset.name, ...body } = readForm(form);
    if (!name) throw Object.assign(new Error("name is missing"), { status: 400 });
    await send("PUT", limitPath(name), `The limit ${name} is set.`, bodyText(body));
    location.hash = limitPath(name);
  },
  async "unset-limit"({ name, overridden }) {
    const then = overridden != null ? "The numbers of the file, or of the limit without the key, hold again." : "The jobs that wait for this limit start.";
    if (!await ask(`Unset the limit ${name}?`, then, "Unset this limit", true)) return;
    await send("DELETE", limitPath(name), `The limit ${name} is unset.`);
    location.hash = "#/limits";
  },
};
