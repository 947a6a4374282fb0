#!/usr/bin/env node
// Submits a job over HTTP and waits until it ends. Needs only Node 18 or newer.
//
//     node submit.mjs echo '{"hello": "world"}'

import { randomUUID } from 'node:crypto'

const server = process.env.THREADQ_SERVER ?? 'http://127.0.0.1:8080'
const token = process.env.THREADQ_API_TOKEN

async function ask(method, path, body, more = {}) {
  const headers = { 'Content-Type': 'application/json', ...more }
  if (token) headers.Authorization = `Bearer ${token}`
  const response = await fetch(server + path, { method, headers, body: body && JSON.stringify(body) })
  const json = await response.json()
  if (!response.ok) throw new Error(`${json.error} (${json.code})`)
  return json
}

const [type, payload = '{}'] = process.argv.slice(2)
// The request can be sent again with the same key after a lost response: the job is stored once.
const key = { 'Idempotency-Key': randomUUID() }
const { job_id: id } = await ask('POST', '/jobs', { type, payload: JSON.parse(payload) }, key)
const job = await ask('GET', `/jobs/${id}?wait=60s`)
console.log(id, job.status, JSON.stringify(job.result))
process.exitCode = job.status === 'completed' ? 0 : 1
