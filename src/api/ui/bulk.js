// Acts on many jobs: counts them with a dry run, asks, and then walks over them with a progress bar.

import { api, query } from "./api.js";
import { el } from "./elements.js";
import { exact, moment, number, plural } from "./text.js";

/** A deletion of more jobs than this must be confirmed by typing their number. */
const TYPED_ABOVE = 1000;

/** The actions: the statuses of the jobs that they act on, and words. `label` is the button of a list. */
export const ACTIONS = {
  cancel: { label: "Cancel", verb: "Cancel", done: "cancelled", states: ["scheduled", "queued", "processing", "retrying"], text: "Jobs that run are asked to stop.", isDanger: true },
  run: { label: "Run now", verb: "Run now", done: "put into their queues", states: ["scheduled", "retrying"], text: "They no longer wait for their time." },
  change: { label: "Move to queue", verb: "Move", done: "moved", states: ["scheduled", "queued", "retrying"], text: "Those that are due go to the end of that queue." },
  retry: { label: "Retry", verb: "Retry", done: "retried", states: ["failed", "cancelled"], text: "Each job goes back to its queue with 0 attempts, and runs again." },
  delete: { label: "Delete", verb: "Delete", done: "deleted", states: ["completed", "failed", "cancelled"], text: "They cannot be restored.", isDanger: true },
};

/** What a filter means in words, such as ` of type echo`. */
function filterWords({ status, type, tag, created_after: after, created_before: before, ids }, noun) {
  return [status && noun === "job" && ` that are ${status}`, type && ` of type ${type}`, tag && ` with the tag ${tag}`,
    after && ` submitted after ${exact(after)}`, before && ` submitted before ${exact(before)}`, ids && " of those selected"].filter(Boolean).join("");
}

/** Opens a dialog whose content changes from step to step. Escape is the first button of the step. */
function openDialog(title) {
  const text = el("p", { id: "bulk-text", role: "status" }), middle = el("div"), menu = el("menu");
  const dialog = el("dialog", { "aria-labelledby": "bulk-title", "aria-describedby": "bulk-text" }, el("h2", { id: "bulk-title" }, title), text, middle, menu);
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault();
    menu.firstChild.click();
  });
  const box = {
    /** Changes the text of the step. */
    tell: (words) => { text.textContent = words; },
    /** Shows a step. A button is `[name, class, function]`; the first one gets the focus. */
    show(words, content, ...buttons) {
      box.tell(words);
      middle.replaceChildren(...content);
      menu.replaceChildren(...buttons.map(([name, kind, act]) => {
        const button = el("button", { type: "button", class: kind }, name);
        button.onclick = act;
        return button;
      }));
      menu.firstChild.focus();
    },
    /** Asks for yes or no. With a field in the content, yes is allowed only if `isAllowed` accepts its value. */
    choose: (words, content, yes, kind, isAllowed) => new Promise((resolve) => {
      box.show(words, content, ["Change nothing", "", () => resolve(false)], [yes, kind, () => resolve(true)]);
      const input = middle.querySelector("input"), accept = menu.lastChild;
      if (!input) return;
      input.oninput = () => { accept.disabled = !isAllowed(input.value.trim()); };
      input.onkeydown = ({ key }) => { if (key === "Enter") accept.click(); };
      input.oninput();
      input.focus();
    }),
    close() {
      dialog.close();
      dialog.remove();
    },
    /** Shows what has come of the operation until the user closes the dialog. */
    end: (words) => new Promise((resolve) => box.show(words, [], ["Close", "", resolve])).then(box.close),
  };
  document.body.append(dialog);
  dialog.showModal();
  return box;
}

/** Sends a bulk request until it is through all jobs or the user stops it. `words` says what is done so far, `most` is the
 *  number of jobs that match. Returns the sums, and the error that has ended it early. */
async function walk(box, request, words, most) {
  const bar = el("progress", { "aria-label": "Progress", max: most });
  let isStopped = false;
  const stop = () => {
    isStopped = true;
    box.tell("Stopping …");
  };
  box.show(words({ matched: 0, changed: 0 }), [bar], ["Stop", "", stop]);
  const sums = { matched: 0, changed: 0, skipped: 0, isWhole: false, error: null };
  let cursor;
  try {
    do {
      const answer = await api("POST", "/jobs/bulk", { ...request, cursor });
      for (const name of ["matched", "changed", "skipped"]) sums[name] += answer[name];
      cursor = answer.more ? answer.cursor : null;
      if (most) bar.value = sums.matched;
      if (!isStopped) box.tell(words(sums));
    } while (cursor && !isStopped);
    sums.isWhole = !cursor;
  } catch (error) {
    sums.error = error.message;
  }
  return sums;
}

/** Does an action on all jobs of a filter, after a question that says how many. `noun` is what the jobs are called. Returns
 *  whether it was carried out. */
export async function bulk(action, filter, noun = "job") {
  const { verb, done, states, text, isDanger } = ACTIONS[action];
  const box = openDialog(`${verb}: ${filter.ids ? "" : "all "}${noun}s${filterWords(filter, noun)}`);
  const request = { action, filter: { ...filter, status: filter.status ?? states } };
  if (action === "change") {
    const input = el("input", { id: "bulk-input", autocomplete: "off", spellcheck: "false", maxlength: 64 });
    const isMeant = await box.choose("They keep their time and their content.", [el("label", { for: "bulk-input" }, "Queue"), input], "Continue", "main", Boolean);
    if (!isMeant) return box.close();
    request.set = { queue: input.value.trim() };
  }
  let total = filter.ids?.length;
  try {
    if (!filter.ids) {
      const { jobs: [newest], total: listed } = await api("GET", "/jobs" + query({ ...filter, limit: 1 }));
      total = listed;
      // Jobs that are submitted from now on are neither counted nor changed.
      request.filter.created_before = moment((newest?.id ?? 0) + 1);
    }
  } catch (error) {
    return box.end(error.message);
  }
  const counted = await walk(box, { ...request, dry_run: true }, ({ matched }) => `Counting: ${plural(matched, noun)} so far.`, total);
  if (counted.error) return box.end(counted.error);
  if (!counted.isWhole) return box.close();
  const matched = counted.matched, many = number(matched), rest = Math.max(0, total - matched);
  const left = rest > 0 ? ` ${plural(rest, noun)} will be left alone, because of their status.` : "";
  if (matched === 0) return box.end(`There is no ${noun} to act on.${left}`);
  const typed = action === "delete" && matched > TYPED_ABOVE
    ? [el("label", { for: "bulk-input" }, `Type ${matched} to confirm`), el("input", { id: "bulk-input", autocomplete: "off", inputmode: "numeric" })] : [];
  const target = request.set ? ` to the queue ${request.set.queue}` : "";
  const question = `${verb} ${plural(matched, noun)}${target}? ${text}${left}`;
  const isMeant = await box.choose(question, typed, `${verb} ${many}`, isDanger ? "danger" : "main", (value) => value === String(matched));
  if (!isMeant) return box.close();
  const sums = await walk(box, request, ({ changed }) => `${number(changed)} of ${many} ${done}.`, matched);
  const held = action === "retry" ? " or another job holds their unique key" : "";
  const passed = sums.skipped > 0 ? ` ${plural(sums.skipped, noun)} skipped: their status has changed meanwhile${held}.` : "";
  const end = sums.error ? `An error ended it: ${sums.error}. ` : sums.isWhole ? "" : "Stopped before its end. ";
  await box.end(`${end}${plural(sums.changed, noun)} ${done}.${passed}`);
  return true;
}
