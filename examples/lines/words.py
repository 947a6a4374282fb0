#!/usr/bin/env python3
"""Counts the words of a text: {"text": "a b a"} gives {"a": 2, "b": 1}. A program that stays (protocol = "lines")."""
import json
import sys
from collections import Counter


class Job(dict):
    """The JSON of the job, such as job["payload"], and what the program can say of it."""

    def say(self, **line):
        print(json.dumps(line), file=self.out, flush=True)
        self.is_answered |= not line.keys().isdisjoint(("result", "error", "snooze_ms"))


def threadq_lines():
    """Yields one job after the other. A job without an answer is completed."""
    sys.stdin.reconfigure(encoding="utf-8")
    Job.out, sys.stdout = sys.stdout, sys.stderr  # print(..) goes to stderr.
    for line in sys.stdin:
        job = Job(json.loads(line))
        job.is_answered = False
        yield job
        if not job.is_answered:
            job.say(result=None)


for job in threadq_lines():
    text = job["payload"].get("text")
    if not isinstance(text, str):
        job.say(error="the payload has no text", permanent=True)
        continue
    job.say(progress=0.5, message=f"attempt {job['attempt']}")
    job.say(result=Counter(text.split()))
