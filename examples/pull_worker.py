#!/usr/bin/env python3
# A pull worker: takes jobs from a threadq server over HTTP and runs them. It needs Python 3.8 and nothing else.
#
#     THREADQ_SERVER=http://127.0.0.1:8080 THREADQ_WORKER_TOKEN=... python3 pull_worker.py python
import json, os, sys, threading, time, urllib.error, urllib.request

SERVER = os.environ.get("THREADQ_SERVER", "http://127.0.0.1:8080")
TOKEN = os.environ.get("THREADQ_WORKER_TOKEN", "")
QUEUES = sys.argv[1:] or ["python"]
LEASE_MS = int(os.environ.get("LEASE_MS", "15000"))


def post(path, body):
    """Sends a request, and sends it again while the server or its Redis is unavailable: to repeat any of them is harmless."""
    headers = {"Content-Type": "application/json"}
    if TOKEN:
        headers["Authorization"] = "Bearer " + TOKEN
    for pause in (1, 2, 4, 8, None):
        try:
            request = urllib.request.Request(SERVER + path, json.dumps(body).encode(), headers)
            return json.load(urllib.request.urlopen(request, timeout=75))
        except urllib.error.HTTPError as error:
            if error.code not in (429, 500, 502, 503) or pause is None:
                raise
        except OSError:
            if pause is None:
                raise
        time.sleep(pause)


def work(job):
    """Your code. It yields how far the job has come, and returns the result."""
    total = job["payload"].get("n", 3)
    for n in range(1, total + 1):
        time.sleep(job["payload"].get("seconds", 1))
        yield n / total, f"step {n} of {total}"
    return {"done": total}


def run(job):
    path, ended = "/attempts/" + job["token"], threading.Event()

    def extend():
        """Extends the lease while work() is busy, so that no other worker gets the job."""
        while not ended.wait(LEASE_MS / 3000):
            try:
                post(path, {})
            except OSError as error:
                print("cannot extend the lease of job", job["id"], error, file=sys.stderr)

    threading.Thread(target=extend, daemon=True).start()
    try:
        steps = work(job)
        while True:
            value, message = next(steps)
            if post(path, {"progress": {"value": value, "message": message}})["cancel"]:
                return post(path + "/release", {})
    except StopIteration as end:
        post(path + "/complete", {"result": end.value})
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise
        print("lost job", job["id"], file=sys.stderr)  # its lease or its time has run out
    except Exception as error:
        post(path + "/fail", {"error": repr(error)})
    finally:
        ended.set()


while True:
    request = {"queues": QUEUES, "wait_ms": 30000, "lease_ms": LEASE_MS, "worker": os.uname().nodename}
    try:
        for job in post("/pull", request)["jobs"]:
            run(job)
    except OSError as error:
        print("no answer from", SERVER, error, file=sys.stderr)
        time.sleep(5)
