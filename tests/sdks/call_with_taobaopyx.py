"""Runs in the environment of other people's clients: taobaopyx (hmac). Prints what it understood, one JSON a line."""

import asyncio
import json
import sys

from taobaopyx.taobao import AsyncTaobaoAPIClient, TaobaoAPIError, make_request


async def call(host: str, port: str, secret: str, method: str, params: dict[str, str]) -> object:
    client = AsyncTaobaoAPIClient("sandbox", secret, domain=f"http://{host}:{port}")
    try:
        return await make_request(client, method, params)
    except TaobaoAPIError as error:
        return {"code": error.code, "sub_code": error.sub_code or None}
    finally:
        await client.aclose()


for line in sys.stdin:
    print(json.dumps(asyncio.run(call(*sys.argv[1:], **json.loads(line)))), flush=True)
