// A pull worker in JavaScript: worker.mjs FOLDER NAME. The folder has the addresses of the servers, and gets notes of all answers.
import { appendFileSync, readFileSync } from "node:fs";

const [folder, name] = process.argv.slice(2);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const note = (line) => appendFileSync(`${folder}/answers`, JSON.stringify({ worker: name, ...line }) + "\n");

// The status and the JSON of the answer. Asks until a server answers.
async function post(path, body) {
  for (;;) {
    try {
      const servers = readFileSync(`${folder}/servers`, "utf8").trim().split("\n");
      const base = servers[Math.floor(Math.random() * servers.length)];
      const headers = { "Content-Type": "application/json" };
      const signal = AbortSignal.timeout(30_000);
      const reply = await fetch(base + path, { method: "POST", headers, body: JSON.stringify(body), signal });
      const answer = await reply.json();
      if (reply.status !== 429 && reply.status !== 503) return [reply.status, answer];
    } catch {
      // The server has ended.
    }
    await sleep(50);
  }
}

async function end(token, verdict, body) {
  note({ token, verdict });
  const [code, answer] = await post(`/attempts/${token}/${verdict}`, body);
  note({ token, verdict, code, answer });
}

async function run(job) {
  const { token, payload: { act } } = job;
  note({ token, verdict: "begin" });
  if (act === "late" && job.crashes === 0) await sleep(2600);
  if (act === "fail" && job.attempts === 0) return end(token, "fail", { error: "not yet", retry_after_ms: 1 });
  if (act === "release" && Math.random() < 0.5) return end(token, "release", {});
  if (act === "snooze" && !job.snoozes) return end(token, "release", { delay_ms: 1000 });
  if (act === "report") {
    const report = { progress: { value: 0.5, message: name }, log: ["half"], checkpoint: { by: name } };
    const [code, answer] = await post(`/attempts/${token}`, report);
    note({ token, verdict: "report", code, answer });
  }
  return end(token, "complete", { result: { token, by: "node" } });
}

for (;;) {
  const body = { queues: ["pull", "mixed"], max: 3, wait_ms: 2000, lease_ms: 2000, worker: name };
  const [code, answer] = await post("/pull", body);
  if (code !== 200) {
    note({ verdict: "pull", code, answer });
    await sleep(1000);
  }
  for (const job of answer.jobs ?? []) await run(job);
}
