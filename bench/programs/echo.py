"""Returns the payload of a job. With the argument "lines" it stays: one line of JSON per job."""
import json
import sys

if "lines" in sys.argv:
    for line in sys.stdin:
        print(json.dumps({"result": json.loads(line)["payload"]}), flush=True)
else:
    print(json.dumps(json.load(sys.stdin)))
