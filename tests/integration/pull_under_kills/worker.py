# A pull worker in Python: worker.py FOLDER NAME. The folder has the addresses of the servers, and gets notes of all answers.
import http.client
import json
import os
import random
import sys
import time
import urllib.error
import urllib.request

folder, name = sys.argv[1:]
notes = os.open(os.path.join(folder, "answers"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(**line):
    os.write(notes, (json.dumps({"worker": name, **line}) + "\n").encode())


# The status and the JSON of the answer. Asks until a server answers.
def post(path, body):
    while True:
        try:
            with open(os.path.join(folder, "servers")) as servers:
                base = random.choice(servers.read().split())
            request = urllib.request.Request(base + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code not in (429, 503):
                return error.code, json.load(error)
        except (OSError, http.client.HTTPException, ValueError):
            pass
        time.sleep(0.05)


def end(token, verdict, body):
    note(token=token, verdict=verdict)
    code, answer = post(f"/attempts/{token}/{verdict}", body)
    note(token=token, verdict=verdict, code=code, answer=answer)


def run(job):
    token, act = job["token"], job["payload"]["act"]
    note(token=token, verdict="begin")
    if act == "late" and job["crashes"] == 0:
        time.sleep(2.6)
    if act == "fail" and job["attempts"] == 0:
        return end(token, "fail", {"error": "not yet", "retry_after_ms": 1})
    if act == "release" and random.random() < 0.5:
        return end(token, "release", {})
    if act == "snooze" and not job.get("snoozes"):
        return end(token, "release", {"delay_ms": 1000})
    if act == "report":
        report = {"progress": {"value": 0.5, "message": name}, "log": ["half"], "checkpoint": {"by": name}}
        code, answer = post(f"/attempts/{token}", report)
        note(token=token, verdict="report", code=code, answer=answer)
    end(token, "complete", {"result": {"token": token, "by": "python"}})


while True:
    body = {"queues": ["pull", "mixed"], "max": 3, "wait_ms": 2000, "lease_ms": 2000, "worker": name}
    code, answer = post("/pull", body)
    if code != 200:
        note(verdict="pull", code=code, answer=answer)
        time.sleep(1)
    for job in answer.get("jobs", []):
        run(job)
