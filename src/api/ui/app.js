// The dashboard: shows the view of the address, keeps it up to date, and carries out what the user does.
//
// A view has a `title`, `read` (reads the API), `render` (makes elements of what was read), and `every` (ms between two
// reads, or null). Modules of views also have `actions`, which buttons name as `data-do`.

import { byId, el, mono, nothing, show } from "./elements.js";
import { dead, jobs, selected, actions as listActions } from "./jobs.js";
import { change, job, actions as jobActions } from "./job.js";
import { limit, limits, setLimit, actions as limitActions } from "./limits.js";
import { clearErrors, showError } from "./forms.js";
import { notify, query } from "./api.js";
import { actionOf, inProgress, markBusy } from "./parts.js";
import { overview, workers } from "./overview.js";
import { queue, queues, actions as queueActions } from "./queues.js";
import { changeSchedule, newSchedule, schedule, schedules, actions as scheduleActions } from "./schedules.js";
import { rough, ZONE } from "./text.js";
import { submit, actions as submitActions } from "./submit.js";

const actions = {
  ...queueActions, ...jobActions, ...listActions, ...submitActions, ...scheduleActions, ...limitActions,
  async newest() {
    document.querySelector("h1").focus();
  },
  async skip() {
    byId("main").focus();
  },
};

document.addEventListener("click", async (event) => {
  const target = event.target.closest("[data-do]");
  if (!target) return;
  event.preventDefault();
  const action = actionOf(target);
  if (inProgress.has(action)) return;
  inProgress.add(action);
  markBusy(target);
  try {
    await actions[target.dataset.do]({ ...target.dataset });
  } catch (error) {
    notify(error.message, true);
  }
  inProgress.delete(action);
  document.querySelectorAll("[data-do][aria-busy]").forEach(markBusy);
  // The user sees the result of an action at once.
  if (target.dataset.do !== "skip") refresh(true);
});

document.addEventListener("change", (event) => {
  const { select } = event.target.dataset;
  if (!select) return;
  const boxes = select === "all" ? [...document.querySelectorAll("tbody [data-select]:enabled")] : [event.target];
  for (const box of boxes) {
    const id = Number(box.dataset.select);
    event.target.checked ? selected.add(id) : selected.delete(id);
  }
  draw(true);
});

// A form may act on what the user enters.
document.addEventListener("input", (event) => {
  const form = event.target.closest("form[data-input]");
  if (form) actions[form.dataset.input](form);
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method === "dialog") return;
  event.preventDefault();
  if (form.dataset.send) return send(form);
  const given = Object.fromEntries(new FormData(form));
  if (form.dataset.filter) {
    for (const { name, value } of form.querySelectorAll("[type=datetime-local]")) given[name] = value && new Date(value).toISOString();
    selected.clear();
    location.hash = `#${form.dataset.filter}${query(given)}`;
  } else {
    location.hash = `#/jobs/${given.id.trim()}`;
  }
});

/** Carries out the action of a form. */
async function send(form) {
  if (form.ariaBusy) return;
  form.ariaBusy = "true";
  clearErrors(form);
  try {
    await actions[form.dataset.send](form);
  } catch (error) {
    showError(form, error);
  }
  form.ariaBusy = null;
}

let shown = null, timer = null, turn = 0;

/** The views: a segment of the address that begins with a colon is a parameter. `page` is the link of the header. */
const VIEWS = [
  ["/", "overview", overview],
  ["/workers", "workers", workers],
  // The name of this page before version 0.11.
  ["/servers", "workers", workers],
  ["/queues", "queues", queues],
  ["/queues/:name", "queues", queue],
  ["/schedules", "schedules", schedules],
  ["/schedules/:name", "schedules", schedule],
  ["/schedules/:name/change", "schedules", changeSchedule],
  ["/new-schedule", "schedules", newSchedule],
  ["/limits", "limits", limits],
  ["/limits/:name", "limits", limit],
  ["/set-limit", "limits", setLimit],
  ["/jobs", "jobs", jobs],
  ["/jobs/:id", "jobs", job],
  ["/jobs/:id/change", "jobs", change],
  ["/submit", "jobs", submit],
  ["/dead", "dead", dead],
];

/** The view of the address, and its parameters. */
function route() {
  const [path, parameters] = location.hash.slice(1).split("?");
  const segments = (path || "/").split("/");
  for (const [pattern, page, view] of VIEWS) {
    const wanted = pattern.split("/");
    if (wanted.length !== segments.length || !wanted.every((one, i) => one === segments[i] || (one[0] === ":" && segments[i]))) continue;
    const given = Object.fromEntries(new URLSearchParams(parameters));
    wanted.forEach((one, i) => { if (one[0] === ":") given[one.slice(1)] = segments[i]; });
    return { page, view, given };
  }
  return { page: null, view: notFound, given: {} };
}

const notFound = {
  title: "No such page",
  every: null,
  read: async () => ({}),
  render: () => nothing("There is no page at ", mono(decodeHash()), ". Go to the ", el("a", { href: "#/" }, "overview"), "."),
};

const decodeHash = () => {
  try {
    return decodeURIComponent(location.hash);
  } catch {
    return location.hash;
  }
};

function open() {
  const { page, view, given } = route();
  const title = given.id || given.name ? `${view.title} ${given.id ?? given.name}` : view.title;
  document.title = `${title} · threadq`;
  for (const link of document.querySelectorAll("[data-page]")) {
    link.dataset.page === page ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
  if (view !== dead) selected.clear();
  const isFirst = shown === null;
  const heading = el("h1", { tabindex: -1 }, view.title);
  const body = el("div", { id: "body", "aria-busy": "true" });
  byId("main").replaceChildren(el("div", { class: "head" }, heading, view.head?.(given) ?? []), body);
  shown = { view, given, body, data: null, at: null, asked: null, trouble: null };
  // Screen readers read the heading of the new page.
  if (!isFirst) heading.focus();
  refresh();
}

/** Whether a mouse button or a key is held down. The element below it must not change until it is released. */
let isPressed = false;
const setPressed = (value) => () => { isPressed = value; };
for (const name of ["pointerdown", "keydown"]) document.addEventListener(name, setPressed(true), true);
for (const name of ["pointerup", "pointercancel", "keyup"]) document.addEventListener(name, setPressed(false), true);
// A release outside the window sends no event.
window.addEventListener("blur", setPressed(false));

function hasSelection() {
  const selection = getSelection();
  return !selection.isCollapsed && selection.containsNode(shown.body, true);
}

/** Draws the data, unless that would disturb the user: a key or button held down, a selection, an open question. */
function draw(isForced = false) {
  if (shown.data === null) return;
  const isHeld = isPressed || hasSelection() || document.querySelector("dialog[open]");
  if (!isForced && isHeld) return;
  const focused = shown.body.contains(document.activeElement) && document.activeElement;
  show(shown.body, shown.view.render(shown.data, shown.given));
  // A button that has been disabled, or an element that is gone, has lost the focus.
  if (focused && (focused.disabled || !focused.isConnected)) document.querySelector("h1").focus({ preventScroll: true });
}

/** Reads and draws, and schedules the next refresh. Of several calls only the newest continues. `isReset`: a list is read
 *  from its start. */
async function refresh(isReset = false) {
  clearTimeout(timer);
  // A form is read once: nothing may change what the user enters.
  if (shown.data !== null && shown.view.every === null && !isReset) return;
  const mine = ++turn, page = shown, isFirst = page.data === null;
  page.asked ??= performance.now();
  try {
    const data = await page.view.read(page.given, isReset ? null : page.data);
    if (mine !== turn) return;
    Object.assign(page, { data, at: performance.now(), trouble: null });
    draw(isFirst);
  } catch (error) {
    if (mine !== turn) return;
    const isAway = !error.status || error.status >= 500;
    page.trouble = isAway ? error.message : null;
    // The old data stays, unless it is deleted or the request was invalid.
    if (!isAway || isFirst) {
      Object.assign(page, { data: null, at: null });
      show(page.body, el("p", { class: "error box", role: "alert" }, error.message));
    }
  }
  page.asked = null;
  page.body.removeAttribute("aria-busy");
  showAge();
  if (!document.hidden && page.view.every) timer = setTimeout(refresh, page.view.every);
}

/** Shows whether the data is live; if not, how old it is and why. */
function showAge() {
  const { asked, at, body, trouble } = shown;
  const isLate = asked !== null && performance.now() - asked > 5000;
  const isStale = trouble !== null || isLate;
  const age = at !== null && `${rough(performance.now() - at)} old: `;
  const state = isStale ? [age && el("span", { "aria-hidden": "true" }, age), trouble ?? "no response yet"]
    : hasSelection() ? "paused while text is selected" : at !== null && shown.view.every !== null && "live";
  // The age is hidden from screen readers, which would read it out each second.
  show(byId("link"), [state]);
  byId("link").className = isStale ? "bad" : byId("link").textContent && "ok";
  body.classList.toggle("stale", isStale && at !== null);
}

document.addEventListener("visibilitychange", () => {
  document.hidden ? clearTimeout(timer) : refresh();
});
window.addEventListener("hashchange", open);
byId("zone").textContent = `times in ${ZONE}`;
setInterval(() => document.hidden || showAge(), 1000);
open();
