// The pages Schedules and Schedule, and the form for a schedule.

import { api, ask, notify, query, send } from "./api.js";
import { byId, el, go, mono, nothing, pre } from "./elements.js";
import { bodyText, form, Json, readForm, sendButton, timeText } from "./forms.js";
import { button, facts, jobLink, lastPage, learnNewestTypes, PAGE_SIZE, pages, part, status, table, typeOptions } from "./parts.js";
import { jobFields } from "./submit.js";
import { exact, indent, members, number, plural, time, toSecond, ZONE } from "./text.js";

const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const NICKNAMES = { "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *" };

/** A common cron expression in words; null for any other one. */
function cronWords(cron) {
  const parts = (NICKNAMES[cron.trim()] ?? cron.trim()).split(/\s+/);
  if (parts.length !== 5) return null;
  const [minute, hour, day, month, weekday] = parts;
  const isNumber = (text) => /^\d+$/.test(text);
  if (month !== "*") return null;
  if (hour === "*" && day === "*" && weekday === "*") {
    if (minute === "*") return "every minute";
    if (/^\*\/\d+$/.test(minute)) return `every ${minute.slice(2)} minutes`;
    return isNumber(minute) ? `each hour at minute ${minute}` : null;
  }
  if (!isNumber(minute) || !isNumber(hour)) return null;
  const at = `at ${hour.padStart(2, "0")}:${minute.padStart(2, "0")}`;
  if (day === "*" && weekday === "*") return `each day ${at}`;
  if (isNumber(day) && weekday === "*") return `on day ${day} of each month ${at}`;
  const names = weekday.split("-").map((one) => DAYS[one] ?? DAYS.find((name) => name.slice(0, 3).toLowerCase() === one.toLowerCase()));
  return day === "*" && names.length <= 2 && names.every(Boolean) ? `${names.join(" to ")} ${at}` : null;
}

/** When a schedule has ticks: in words where they are known, and as it is defined. */
function rule({ cron, every }) {
  if (every) return `every ${every}`;
  const words = cronWords(cron);
  return [words && `${words} `, el("span", { class: words ? "mono cron hint" : "mono cron" }, cron)];
}

const schedulePath = (name) => `/schedules/${encodeURIComponent(name)}`;
const zoneOf = ({ timezone }) => timezone ?? "UTC";

/** A time in a zone, to the second. A browser may not know the zone. */
function inZone(text, zone) {
  try {
    return new Intl.DateTimeFormat("sv-SE", { timeZone: zone, dateStyle: "short", timeStyle: "medium" }).format(new Date(text));
  } catch {
    return text;
  }
}

/** A time in the zone of the browser, and in that of the schedule if they differ. */
const bothTimes = (text, zone) => [mono(toSecond(text)), " ", time(text),
  zone !== ZONE && el("span", { class: "hint" }, ` ${inZone(text, zone)} in ${zone}`)];

const OUTCOMES = { started: "completed", manual: "processing", missed: "failed" };
/** The outcome of a tick. */
const outcome = ({ outcome }) => status(OUTCOMES[outcome] ?? "", outcome.replaceAll("_", " "));

const state = ({ paused, next }) => paused ? status("paused") : next.length ? status("open", "on") : status("", "no tick to come");

const buttons = ({ name, paused }) => [
  button("Run now", "run-schedule", { name }, { "aria-label": `Run the schedule ${name} now` }),
  button(paused ? "Resume" : "Pause", paused ? "resume-schedule" : "pause-schedule", { name, key: "switch" }, { "aria-label": `${paused ? "Resume" : "Pause"} the schedule ${name}` })];

export const schedules = {
  title: "Schedules",
  every: 3000,
  head: () => go("Create a schedule", "#/new-schedule"),
  read: ({ page = 1 }) => api("GET", "/schedules" + query({ page, limit: PAGE_SIZE })),
  render({ schedules, page, total }) {
    const last = lastPage(total);
    const rows = schedules.map((schedule) => [
      [el("a", { href: `#/schedules/${schedule.name}` }, schedule.name), el("div", {}, state(schedule))],
      [rule(schedule), el("span", { class: "narrow" }, nextTick(schedule), el("span", { class: "acts" }, buttons(schedule)))],
      nextTick(schedule),
      schedule.last ? [outcome(schedule.last), " ", time(schedule.last.tick), schedule.last.job_id && el("div", {}, jobLink(schedule.last.job_id))] : "–",
      el("span", { class: "acts" }, buttons(schedule)),
    ]);
    return [
      table("Schedules", [["Schedule", "name"], ["When"], ["Next", "wide"], ["Last tick", "wide"], ["Action", "wide act"]], rows,
        page > 1 ? "There is no schedule on this page." : ["There is no schedule yet. ", el("a", { href: "#/new-schedule" }, "Create one"), " here, or add [[schedules]] to the configuration file."],
        schedules.map(({ name }) => name)),
      last > 1 && pages((page) => `#/schedules${query({ page })}`, ["Previous", "Next"], page, page < last, `page ${number(page)} of ${number(last)}, ${plural(total, "schedule")}`)];
  },
};

/** The next tick in the zone of the browser, and in that of the schedule. */
const nextTick = (schedule) => schedule.next.length ? [time(schedule.next[0]), el("span", { class: "zone" }, `${inZone(schedule.next[0], zoneOf(schedule))} ${zoneOf(schedule)}`)] : "–";

export const schedule = {
  title: "Schedule",
  every: 3000,
  read: ({ name }) => api("GET", schedulePath(name), undefined, true),
  render({ value: one, text }) {
    const zone = zoneOf(one), isOwn = one.source === "api", job = members(members(text).job);
    const definition = [
      ["When", rule(one)], one.cron && ["Time zone", zone],
      ["If a job has not ended", ({ allow: "a tick starts another job", wait: "the job of the next tick waits", replace: "a tick cancels the job" })[one.overlap] || "a tick is skipped"],
      ["Missed ticks", { none: "do not start", all: "all start" }[one.catch_up] ?? "the newest one starts"],
      one.catch_up_window && ["Missed for at most", one.catch_up_window],
      one.jitter && one.jitter !== "0s" && ["Jitter", `up to ${one.jitter}`],
      one.starts_at && ["No tick before", exact(one.starts_at)], one.ends_at && ["No tick after", exact(one.ends_at)],
      ["Type of its jobs", el("a", { href: `#/jobs${query({ type: one.job.type })}` }, one.job.type)],
      ...Object.keys(job).filter((name) => !["type", "payload"].includes(name)).map((name) => [name, mono(job[name].replace(/^"(.*)"$/, "$1"))]),
    ];
    const history = one.history ?? [];
    return [
      el("p", { class: "jobhead" }, state(one), mono(one.name), el("span", { class: "acts" }, buttons(one),
        isOwn && [go("Change", `#/schedules/${one.name}/change`), button("Delete", "delete-schedule", { name: one.name }, { class: "danger" })])),
      el("p", { class: "facts" }, isOwn ? "Managed on this page and by the API." : "Managed by the configuration file of the servers: change it there."),
      el("div", { class: "two" },
        part("Definition", facts(definition)),
        part("Next ticks", times(one.next, zone))),
      part("Payload of its jobs", pre("Payload of its jobs", indent(job.payload ?? "{}"))),
      part("History", table("History", [["Tick"], ["Outcome", "state"], ["Job"]],
        history.map((tick) => [[mono(toSecond(tick.tick)), " ", time(tick.tick)], outcome(tick), tick.job_id ? jobLink(tick.job_id) : "–"]),
        "No tick has passed yet.", history.map(({ tick }, at) => tick + (history[at - 1]?.tick === tick ? at : ""))))];
  },
};

const times = (list, zone) => list.length ? el("ol", { class: "ticks" }, list.map((at) => el("li", {}, bothTimes(at, zone)))) : nothing("There is no tick to come.");

/** The form; `one` is the schedule that it changes. */
function scheduleForm(one, job, isNew) {
  const { type, payload, queue, ...ofJob } = jobFields(one.job ?? {}, job.payload ? indent(job.payload) : "{}", "job.");
  const preview = el("div", { id: "preview", class: "preview", role: "region", "aria-label": "Next ticks", "aria-live": "polite" },
    isNew ? PREVIEW_HINT : times(one.next, zoneOf(one)));
  const when = [
    { name: "cron", label: "Cron expression", value: one.cron, placeholder: "30 2 * * *", hint: "Minute, hour, day of the month, month, day of the week; or six fields with the second first." },
    { name: "every", label: "Or every", value: one.every, placeholder: "15m", hint: "1s to 365d" },
    { name: "timezone", label: "Time zone of the cron expression", value: one.timezone, placeholder: "UTC", list: "zones", hint: "A name such as Europe/Berlin." },
  ];
  const zones = el("datalist", { id: "zones" }, Intl.supportedValuesOf("timeZone").map((zone) => el("option", { value: zone })));
  const more = [
    { name: "overlap", label: "If a job of an earlier tick has not ended", kind: "choice", value: one.overlap, options: [["", "skip the tick"], ["allow", "start another job"], ["wait", "wait for its end"], ["replace", "cancel the job, then start"]] },
    { name: "catch_up", label: "Ticks that were missed while no server ran", kind: "choice", value: one.catch_up, options: [["", "start the newest one"], ["none", "start none"], ["all", "start all"]] },
    { name: "catch_up_window", label: "Start missed ticks for at most", value: one.catch_up_window, placeholder: "24h", hint: "1m to 30d" },
    { name: "jitter", label: "Jitter", value: one.jitter, placeholder: "0s", hint: "Up to 1h: each job starts a part of this time after its tick." },
    { name: "starts_at", label: "No tick before", kind: "time", value: timeText(one.starts_at), hint: `in ${ZONE}` },
    { name: "ends_at", label: "No tick after", kind: "time", value: timeText(one.ends_at), hint: `in ${ZONE}` },
    ...Object.values(ofJob),
  ];
  const name = isNew ? [{ name: "name", label: "Name", maxlength: 64, hint: "1 to 64 of A-Z a-z 0-9 _ . -" }] : [];
  const back = !isNew && go("Back to the schedule", `#/schedules/${one.name}`);
  return [form("save-schedule", isNew ? "Create a schedule" : `Change the schedule ${one.name}`, [...name, ...when, preview, type, payload, queue], more,
    { input: "preview", ...(isNew ? {} : { name: one.name }) }, sendButton(isNew ? "Create" : "Change"), back), zones, typeOptions()];
}

const PREVIEW_HINT = "The next five ticks are shown here.";

export const newSchedule = {
  title: "Create a schedule",
  every: null,
  async read() {
    await learnNewestTypes();
    return {};
  },
  render: () => scheduleForm({}, {}, true),
};

/** The schedule that is being changed, with the texts of its job's fields. */
let changed = {};

export const changeSchedule = {
  title: "Change schedule",
  every: null,
  async read(given) {
    await learnNewestTypes();
    return schedule.read(given);
  },
  render({ value: one, text }) {
    if (one.source !== "api") return nothing("This schedule is managed by the configuration file of the servers.");
    changed = { job: members(members(text).job) };
    return scheduleForm(one, changed.job, false);
  },
};

let previewTimer, previewed;

/** Shows the next ticks of what the form says. Of several calls only the newest shows its answer. */
async function preview(form) {
  const value = (name) => form.elements[name].value.trim() || undefined;
  const wanted = { cron: value("cron"), every: value("every"), timezone: value("timezone") };
  const asked = JSON.stringify(wanted), place = byId("preview");
  // The user may have left the form meanwhile.
  if (!place || (asked === previewed?.asked && place === previewed.place)) return;
  previewed = { asked, place };
  let content = PREVIEW_HINT;
  try {
    if (wanted.cron || wanted.every) content = times((await api("POST", "/schedules/preview", { ...wanted, count: 5 })).times, zoneOf(wanted));
  } catch (error) {
    content = el("p", { class: "error" }, error.message);
  }
  if (previewed.asked === asked) place.replaceChildren(content);
}

export const actions = {
  preview(form) {
    clearTimeout(previewTimer);
    previewTimer = setTimeout(preview, 300, form);
  },
  async "save-schedule"(form) {
    const { name = form.dataset.name, ...body } = readForm(form);
    if (!name) throw Object.assign(new Error("name is missing"), { status: 400 });
    if (form.dataset.name) {
      // Fields of the job that the form does not have stay as they are.
      for (const [field, text] of Object.entries(changed.job)) {
        if (!form.elements[`job.${field}`]) (body.job ??= {})[field] = new Json(text);
      }
    } else if (await exists(name)) throw Object.assign(new Error(`name: there is a schedule ${name} already`), { status: 409 });
    await send("PUT", schedulePath(name), `The schedule ${name} is saved.`, bodyText(body));
    location.hash = `#/schedules/${name}`;
  },
  async "run-schedule"({ name }) {
    const run = (body) => api("POST", `/schedules/${name}/run`, body);
    let started;
    try {
      started = await run({});
    } catch (error) {
      if (!error.jobId) throw error;
      if (!await ask(`Run ${name} all the same?`, `Job ${error.jobId} of an earlier tick has not ended. Another job would run beside it.`, "Run it now")) return;
      started = await run({ force: true });
    }
    notify(`The schedule ${name} has submitted job ${started.job_id}.`);
  },
  "pause-schedule": ({ name }) => send("POST", `/schedules/${name}/pause`, `The schedule ${name} is paused: its ticks are skipped.`),
  "resume-schedule": ({ name }) => send("POST", `/schedules/${name}/resume`, `The schedule ${name} is on again.`),
  async "delete-schedule"({ name }) {
    if (!await ask(`Delete the schedule ${name}?`, "Jobs that it has submitted stay.", "Delete this schedule", true)) return;
    await send("DELETE", `/schedules/${name}`, `The schedule ${name} is deleted.`);
    location.hash = "#/schedules";
  },
};

/** Whether there is a schedule with this name, which a creation must not overwrite. */
async function exists(name) {
  try {
    await api("GET", schedulePath(name));
    return true;
  } catch (error) {
    if (error.status !== 404) throw error;
    return false;
  }
}
