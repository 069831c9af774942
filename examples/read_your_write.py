"""Reads a customer over REST with something that has just been written: Python 3.9 or newer, nothing to install.

    python3 examples/read_your_write.py u-1001 user.events/0@0
    python3 examples/read_your_write.py u-1001 event:e-1

The token is Kafka's acknowledgement of an event (topic/partition@offset), the token of another answer, or event: and an
event's id. Exits with 0 if the answer is as current as that, with 1 if it is not, and prints why.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

GATEWAY = os.environ.get("SIGHTLINE_URL", "http://127.0.0.1:8080")
WAIT_SECONDS = 2
TRIES = 3


def read(path, token, wait=WAIT_SECONDS, on_timeout="fail"):
    """An answer or a refusal: status, headers, body."""
    headers = {
        "Sightline-Consistency": "at-least",
        "Sightline-Consistency-Token": token,
        "Sightline-Wait": str(wait),
        "Sightline-On-Timeout": on_timeout,
    }
    request = urllib.request.Request(GATEWAY + path, headers=headers)
    try:
        # Longer than the gateway waits, so that its refusal arrives.
        answer = urllib.request.urlopen(request, timeout=WAIT_SECONDS + 5)
    except urllib.error.HTTPError as refusal:
        answer = refusal
    with answer:
        return answer.status, answer.headers, json.load(answer)


def read_patiently(path, token):
    """Tries again where time helps, as long after the last try as the gateway says: 504, because the view is behind, and
    503, because the view is being built (VIEW_NOT_READY) or a server is away."""
    for _ in range(TRIES - 1):
        status, headers, body = read(path, token)
        if status not in (503, 504):
            return status, headers, body
        seconds = int(headers.get("Retry-After", 1))
        print(f"{body['reason']}: trying again in {seconds} s", file=sys.stderr)
        time.sleep(seconds)
    return read(path, token)


def encoded(token):
    """An event's id can hold anything; a header can not."""
    kind, colon, event_id = token.partition(":")
    return f"event:{urllib.parse.quote(event_id, safe='')}" if kind == "event" and colon else token


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    path = "/v1/order/customers/" + urllib.parse.quote(sys.argv[1], safe="")
    token = encoded(sys.argv[2])
    status, headers, body = read_patiently(path, token)
    if status == 504:
        # Still behind. What there is may be good enough to show, with a hint.
        status, headers, body = read(path, token, wait=0, on_timeout="serve-stale")
    if status == 409:
        # DEAD_LETTERED, KEY_PARKED and others: waiting does not help, somebody has to act. The detail says on what.
        sys.exit(f"{body['reason']}: {body['detail']}")
    if status not in (200, 404):
        sys.exit(f"{status} {body['reason']}: {body['detail']}")

    print(json.dumps(body, indent=2, ensure_ascii=False) if status == 200 else "no such user")
    for name in ("State", "Lag-Seconds", "Incomplete", "Stale", "Consistency-Token"):
        if f"Sightline-{name}" in headers:
            print(f"{name}: {headers[f'Sightline-{name}']}")
    if "Sightline-Stale" in headers:
        sys.exit("older than demanded")


if __name__ == "__main__":
    try:
        main()
    except urllib.error.URLError as error:
        sys.exit(f"no answer from {GATEWAY}: {error.reason}")
