// The page that submits a job.

import { api } from "./api.js";
import { bodyText, durationText, form, readForm, sendButton, showOutcome } from "./forms.js";
import { jobLink, jobPath, learnNewestTypes, typeOptions } from "./parts.js";
import { indent, members, ZONE } from "./text.js";

const TIMES = "Such as 250ms, 5s, 10m, 24h or 90d.";

/** The fields of a job that change how it is run, for the forms of jobs and of schedules, in their order. `at` is the path of the job in
 *  the body. */
export function jobFields(job, payload, at = "") {
  return {
    type: { name: `${at}type`, label: "Type", value: job.type, list: "types", hint: "The handler with this name runs the job." },
    payload: { name: `${at}payload`, label: "Payload", kind: "json", value: payload, hint: "JSON. The handler gets this value." },
    queue: { name: `${at}queue`, label: "Queue", value: job.queue, placeholder: "default" },
    tags: { name: `${at}tags`, label: "Tags", kind: "list", value: job.tags?.join("\n"), hint: "Up to 5, one in each line." },
    limits: { name: `${at}limits`, label: "Limits", kind: "list", value: job.limits?.filter((limit) => !limit.startsWith("threadq.")).join("\n"), hint: "Up to 4, each a NAME or NAME:KEY in its own line." },
    attempts: { name: `${at}max_attempts`, label: "Max attempts", kind: "number", value: job.max_attempts },
    timeout: { name: `${at}timeout_ms`, label: "Timeout of an attempt", kind: "duration", value: durationText(job.timeout_ms), hint: TIMES },
    expires: { name: `${at}expires_in_ms`, names: "expires_at", label: "Expires after", kind: "duration", value: durationText(job.expires_in_ms), hint: `No attempt starts later than this. ${TIMES}` },
    retain: { name: `${at}retain_ms`, label: "Keep after its end", kind: "duration", value: durationText(job.retain_ms), hint: TIMES },
    meta: { name: `${at}meta`, label: "Meta", kind: "pairs", value: Object.entries(job.meta ?? {}).map((pair) => pair.join("=")).join("\n"), hint: "One NAME=VALUE in each line." },
  };
}

const UNIQUE = [
  { name: "unique.key", names: "unique_key unique", label: "Unique key", hint: "No two jobs hold the same key at a time." },
  { name: "unique.until", label: "The key is held", kind: "choice", options: [["", "until the job has ended"], ["start", "until the job starts"]] },
  { name: "unique.for_ms", label: "Or for a fixed time", kind: "duration", hint: TIMES },
  { name: "unique.on_conflict", label: "If another job holds the key", kind: "choice",
    options: [["", "reject this job"], ["existing", "return the other job"], ["replace", "replace the content of the other job"]] },
  { name: "unique.max_wait_ms", label: "Replace until the other job has waited for", kind: "duration", hint: TIMES },
];

export const submit = {
  title: "Submit a job",
  every: null,
  /** With `from`, the form has the values of that job. */
  async read({ from }) {
    await learnNewestTypes();
    return from ? api("GET", jobPath(from), undefined, true) : { value: {}, text: "{}" };
  },
  render({ value: job, text }) {
    const { type, payload, queue, ...more } = jobFields(job, job.id ? indent(members(text).payload) : "{}");
    return [form("submit", "Submit a job", [type, payload, queue], [
      { name: "delay_ms", label: "Delay", kind: "duration", hint: TIMES },
      { name: "run_at", label: "Or run at", kind: "time", hint: `in ${ZONE}` },
      ...Object.values(more), ...UNIQUE,
    ], {}, sendButton("Submit")), typeOptions()];
  },
};

export const actions = {
  async submit(form) {
    const body = readForm(form);
    // A key without options.
    if (body.unique && Object.keys(body.unique).join() === "key") {
      body.unique_key = body.unique.key;
      delete body.unique;
    }
    const { job_id: id, existing, replaced } = await api("POST", "/jobs", bodyText(body));
    const words = existing ? " holds the unique key already. No job was submitted." : replaced ? " held the unique key and has the new content." : " is submitted.";
    showOutcome(form, "Job ", jobLink(id), words);
  },
};
