"""Shared code of the Python peers. ../peer.rs describes the producer and the worker."""

import json
import os
import sys
import time

REDIS = os.environ["PEERS_REDIS"]
PAYLOAD = json.loads(os.environ.get("PEERS_PAYLOAD", "{}"))

_report = None


def now():
    """µs of a clock that all processes share."""
    return time.monotonic_ns() // 1000


def report(payload):
    """The job: reports the µs from the submission of a lone job to its start."""
    global _report
    if "sent" in payload:
        took = now() - payload["sent"]
        if _report is None:
            _report = os.open(os.environ["PEERS_REPORT"], os.O_WRONLY | os.O_APPEND)
        os.write(_report, b"%d\n" % took)
    return payload


def produce(one, bulk=None):
    """Runs the producer: `one` submits a job, `bulk` a list of jobs."""
    for line in sys.stdin:
        way, *numbers = line.split()
        numbers = [int(number) for number in numbers]
        start = time.perf_counter()
        if way == "one":
            for _ in range(numbers[0]):
                one(PAYLOAD)
        elif way == "bulk":
            jobs, size = numbers
            for first in range(0, jobs, size):
                bulk([PAYLOAD] * min(size, jobs - first))
        elif way == "lone":
            one({"sent": now(), **PAYLOAD})
        else:
            raise ValueError(way)
        print(time.perf_counter() - start, flush=True)
