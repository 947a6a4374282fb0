#!/usr/bin/env python3
"""Counts the words of a text: {"text": "a b a"}. A worker in Python: payload on stdin, result on stdout."""

import collections
import json
import sys

# What is wrong with the payload stays wrong: exit code 65 fails the job for good, any other is tried again.
payload = json.load(sys.stdin)
text = payload.get("text") if isinstance(payload, dict) else None
if not isinstance(text, str):
    print("the payload needs a text", file=sys.stderr)
    sys.exit(65)
json.dump(collections.Counter(text.split()), sys.stdout)
