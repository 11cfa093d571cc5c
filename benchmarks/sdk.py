"""Another client of the platform, in the environment of `make sdks`: submits requests, and measures itself.

    python benchmarks/sdk.py taobaopy|taobaopyx|topsdk URL

The first line of standard input is a JSON list of requests; at each line after it the next one is sent, and the seconds
that it took are printed.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

KEY, SECRET = "bench-key", "bench-secret"
METHOD = "alibaba.lingyang.utouch.submit.initiative.batch.task"
PARAM = "initiative_batch_task_request"


def accepted_in(answer: Any) -> dict[str, int]:
    tasks = answer[f"{METHOD.replace('.', '_')}_response"]["result"]["data"]["initiative_task_response"]
    return {task["task_request"]["biz_id"]: task["task_id"] for task in tasks}


def by_taobaopy(url: str) -> Callable[[str], Any]:
    from taobaopy.taobao import TaoBaoAPIClient

    parts = urlsplit(url)
    client = TaoBaoAPIClient(KEY, SECRET, domain=f"http://{parts.netloc}", retry_count=1)
    call = getattr(client, METHOD.replace(".", "_"))
    return lambda struct: call(**{PARAM: struct})


def by_topsdk(url: str) -> Callable[[str], Any]:
    import top
    from top.api.base import RestApi

    class Api(RestApi):  # type: ignore[misc]
        def getapiname(self) -> str:
            return METHOD

    parts = urlsplit(url)

    def call(struct: str) -> Any:
        api = Api(parts.hostname, parts.port)
        api.set_app_info(top.appinfo(KEY, SECRET))
        setattr(api, PARAM, struct)
        return api.getResponse()

    return call


def by_taobaopyx(url: str) -> Callable[[str], Any]:
    from taobaopyx.taobao import AsyncTaobaoAPIClient, make_request

    parts = urlsplit(url)
    loop = asyncio.new_event_loop()
    client = AsyncTaobaoAPIClient(KEY, SECRET, domain=f"http://{parts.netloc}")
    return lambda struct: loop.run_until_complete(make_request(client, METHOD, {PARAM: struct}))


def main() -> None:
    name, url = sys.argv[1:]
    call = {"taobaopy": by_taobaopy, "topsdk": by_topsdk, "taobaopyx": by_taobaopyx}[name](url)
    requests = json.loads(sys.stdin.readline())
    for request, _ in zip(itertools.cycle(requests), sys.stdin, strict=False):
        begun = time.perf_counter()
        found = accepted_in(call(json.dumps(request, ensure_ascii=False, separators=(",", ":"))))
        seconds = time.perf_counter() - begun
        assert len(found) == len(request["task_list"])
        print(seconds, flush=True)


if __name__ == "__main__":
    main()
