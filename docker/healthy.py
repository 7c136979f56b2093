"""Health check of a container: `python healthy.py scheduler|dag_processor|triggerer|metadatabase`.

Asks the API server, which knows when each part was last heard of: a few milliseconds, where `airflow jobs
check` takes as many seconds.
"""

import json
import os
import sys
import urllib.request

ADDRESS = os.environ.get("EVERGREEN_API_SERVER", "http://api-server:8080")


def status(part: str) -> str:
    with urllib.request.urlopen(f"{ADDRESS}/api/v2/monitor/health", timeout=5) as answer:
        return str((json.load(answer).get(part) or {}).get("status"))


if __name__ == "__main__":
    found = status(sys.argv[1])
    print(found)
    sys.exit(found != "healthy")
