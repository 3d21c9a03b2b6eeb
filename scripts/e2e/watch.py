"""Runs in the cluster: asks a Service, 20 times a second, until the wanted answer is the only one for two seconds.

Arguments: URL of the Service; a JSON list of the wanted prediction, one row of features, the seconds to wait at most.
Prints a JSON object: how often it asked, the answers seen in order, the failures, whether it became steady, and the
model's provenance.
"""
# ruff: noqa: INP001, S310, T201  a script for one URL, and its output is what it prints

import json
import sys
import time
import urllib.request

STEADY = 40


def fetch(url: str, body: bytes | None = None) -> dict[str, object]:
    """One request on a connection of its own, so that the Service picks a pod each time."""
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=10) as reply:
        answer: dict[str, object] = json.load(reply)
        return answer


def main() -> None:
    """Ask until steady or out of time."""
    service = sys.argv[1]
    wanted, row, patience = json.loads(sys.argv[2])
    body, deadline = json.dumps({"features": [row]}).encode(), time.monotonic() + patience
    asked, same = 0, 0
    seen: list[object] = []
    failed: list[str] = []
    while same < STEADY and time.monotonic() < deadline:
        asked += 1
        try:
            answer = fetch(f"{service}/predict", body)["prediction"]
        except (OSError, ValueError, KeyError) as error:
            failed.append(repr(error))
        else:
            same = same + 1 if answer == wanted else 0
            if answer not in seen:
                seen.append(answer)
        time.sleep(0.05)
    model = fetch(f"{service}/model")
    print(json.dumps({"asked": asked, "seen": seen, "failed": failed, "steady": same >= STEADY, "model": model}))


main()
