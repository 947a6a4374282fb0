#!/usr/bin/env node
// A pull worker: takes jobs from a threadq server over HTTP and runs them. It needs Node 18 and nothing else.
//
//     THREADQ_SERVER=http://127.0.0.1:8080 THREADQ_WORKER_TOKEN=... node pull_worker.mjs node
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";

const server = process.env.THREADQ_SERVER ?? "http://127.0.0.1:8080";
const token = process.env.THREADQ_WORKER_TOKEN;
const queues = process.argv.length > 2 ? process.argv.slice(2) : ["node"];
const leaseMs = Number(process.env.LEASE_MS ?? 15000);

// Sends a request, and sends it again while the server or its Redis is unavailable: to repeat any of them is harmless.
async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  for (const pause of [1, 2, 4, 8, 0]) {
    try {
      const options = { method: "POST", headers, body: JSON.stringify(body), signal: AbortSignal.timeout(75000) };
      const response = await fetch(server + path, options);
      if (response.ok) return await response.json();
      const error = Object.assign(new Error(await response.text()), { status: response.status });
      if (![429, 500, 502, 503].includes(error.status) || !pause) throw error;
    } catch (error) {
      if (error.status || !pause) throw error;
    }
    await sleep(1000 * pause);
  }
}

// Your code. It calls report() with how far the job has come, and returns the result.
async function work(job, report) {
  const total = job.payload.n ?? 3;
  if (!Number.isInteger(total)) throw new Error("n must be a whole number");
  for (let n = 1; n <= total; n++) {
    await sleep(1000 * (job.payload.seconds ?? 1));
    await report(n / total, `step ${n} of ${total}`);
  }
  return { done: total };
}

class Cancelled extends Error {}

async function run(job) {
  const path = `/attempts/${job.token}`;
  // Extends the lease while work() waits, so that no other worker gets the job.
  const extend = setInterval(() => post(path, {}).catch((error) => console.error("job", job.id, error.message)), leaseMs / 3);
  const report = async (value, message) => {
    if ((await post(path, { progress: { value, message } })).cancel) throw new Cancelled();
  };
  try {
    const result = await work(job, report);
    await post(`${path}/complete`, { result });
  } catch (error) {
    if (error.status === 409) console.error("lost job", job.id); // its lease or its time has run out
    else if (error instanceof Cancelled) await post(`${path}/release`, {});
    else await post(`${path}/fail`, { error: String(error) });
  } finally {
    clearInterval(extend);
  }
}

for (;;) {
  try {
    const request = { queues, wait_ms: 30000, lease_ms: leaseMs, worker: hostname() };
    for (const job of (await post("/pull", request)).jobs) await run(job);
  } catch (error) {
    console.error("no answer from", server, error.message);
    await sleep(5000);
  }
}
