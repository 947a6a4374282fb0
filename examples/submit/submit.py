#!/usr/bin/env python3
"""Submits a job over HTTP and waits until it ends. Needs only the standard library of Python.

    python3 submit.py echo '{"hello": "world"}'
"""

import json
import os
import sys
import urllib.request
import uuid

SERVER = os.environ.get("THREADQ_SERVER", "http://127.0.0.1:8080")


def ask(method, path, body=None, headers=None):
    headers = {"Content-Type": "application/json", **(headers or {})}
    if token := os.environ.get("THREADQ_API_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(SERVER + path, data=data, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=70) as answer:
        return json.load(answer)


job_type, payload = sys.argv[1], json.loads(sys.argv[2] if len(sys.argv) > 2 else "{}")
# The request can be sent again with the same key after a lost response: the job is stored once.
key = {"Idempotency-Key": str(uuid.uuid4())}
job_id = ask("POST", "/jobs", {"type": job_type, "payload": payload}, key)["job_id"]
job = ask("GET", f"/jobs/{job_id}?wait=60s")
print(job_id, job["status"], json.dumps(job["result"]))
sys.exit(0 if job["status"] == "completed" else 1)
