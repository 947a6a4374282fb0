# A program that stays: answers each line on its standard input with a line.
import json
import sys
import time

for line in sys.stdin:
    job = json.loads(line)
    if job["payload"]["act"] == "report":
        print(json.dumps({"progress": 0.5, "message": "half"}), flush=True)
        print(json.dumps({"checkpoint": {"by": "own"}}), flush=True)
    time.sleep(0.002)
    print(json.dumps({"result": {"by": "own", "attempt": job["attempt"]}}), flush=True)
