#!/usr/bin/env python3
"""Counts the words of a text: {"text": "a b a"}. A handler in Python: payload on stdin, result on stdout."""

import collections
import json
import sys

# A wrong payload stays wrong, so exit code 65 fails the job without a retry.
payload = json.load(sys.stdin)
text = payload.get("text") if isinstance(payload, dict) else None
if not isinstance(text, str):
    print('the payload has no "text"', file=sys.stderr)
    sys.exit(65)
json.dump(collections.Counter(text.split()), sys.stdout)
