"""Poll a Service from inside the cluster, 20 times a second, until the expected answer is the only one for two seconds.

Arguments: URL of the Service; a JSON list of the expected prediction, one row of features, and the maximal seconds.
Output: a JSON object with the number of requests, the distinct answers in order, the failures, whether the answer
became steady, and the model's provenance.
"""
# ruff: noqa: INP001, S310, T201  a script for one URL: prints its result

import json
import sys
import time
import urllib.request

STEADY = 40


def fetch_json(url: str, body: bytes | None = None) -> dict[str, object]:
    """Send one request on a new connection, to reach any pod of the Service."""
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=10) as reply:
        answer: dict[str, object] = json.load(reply)
        return answer


def main() -> None:
    """Poll until the answer is steady or time is out."""
    service = sys.argv[1]
    expected, row, patience = json.loads(sys.argv[2])
    body, deadline = json.dumps({"features": [row]}).encode(), time.monotonic() + patience
    requests, same = 0, 0
    seen: list[object] = []
    failed: list[str] = []
    while same < STEADY and time.monotonic() < deadline:
        requests += 1
        try:
            answer = fetch_json(f"{service}/predict", body)["prediction"]
        except (OSError, ValueError, KeyError) as error:
            failed.append(repr(error))
        else:
            same = same + 1 if answer == expected else 0
            if answer not in seen:
                seen.append(answer)
        time.sleep(0.05)
    model = fetch_json(f"{service}/model")
    print(json.dumps({"asked": requests, "seen": seen, "failed": failed, "steady": same >= STEADY, "model": model}))


main()
