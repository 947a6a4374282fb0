// BullMQ: `node bullmq.mjs worker|producer`. ../peer.rs describes the producer and the worker.
import { openSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { Queue, Worker } from 'bullmq';

const { hostname, port } = new URL(process.env.PEERS_REDIS);
const connection = { host: hostname, port: Number(port) };
const now = () => Number(process.hrtime.bigint() / 1000n);

// BullMQ is reliable by default: a worker locks a job and renews the lock; jobs with an expired lock run again.
function work() {
  const report = openSync(process.env.PEERS_REPORT, 'a');
  const handler = async (job) => {
    if (job.data.sent) writeSync(report, `${now() - job.data.sent}\n`);
    return job.data;
  };
  const worker = new Worker('bench', handler, { connection, concurrency: Number(process.env.PEERS_WORKERS) });
  worker.on('error', (error) => console.error(error.message));
}

async function produce() {
  const payload = JSON.parse(process.env.PEERS_PAYLOAD);
  const queue = new Queue('bench', { connection });
  const ways = {
    one: async (jobs) => {
      for (let i = 0; i < jobs; i++) await queue.add('no-op', payload);
    },
    concurrent: async (jobs, callers) => {
      let left = jobs;
      const caller = async () => {
        while (left-- > 0) await queue.add('no-op', payload);
      };
      await Promise.all(Array.from({ length: callers }, caller));
    },
    bulk: async (jobs, size) => {
      for (let left = jobs; left > 0; left -= size) {
        const length = Math.min(size, left);
        await queue.addBulk(Array.from({ length }, () => ({ name: 'no-op', data: payload })));
      }
    },
    lone: () => queue.add('no-op', { sent: now(), ...payload }),
  };
  await queue.waitUntilReady();
  for await (const line of createInterface({ input: process.stdin })) {
    const [way, ...numbers] = line.split(' ');
    const start = performance.now();
    await ways[way](...numbers.map(Number));
    console.log((performance.now() - start) / 1000);
  }
  await queue.close();
}

await (process.argv[2] === 'worker' ? work() : produce());
