"""Runs in the environment of other people's clients: topsdk (md5). Prints what it understood, one JSON a line."""

import json
import sys

import top
from top.api.base import RestApi, TopException


def call(host: str, port: str, secret: str, method: str, params: dict[str, str]) -> object:
    class Api(RestApi):  # type: ignore[misc]
        def getapiname(self) -> str:
            return method

    api = Api(host, int(port))
    api.set_app_info(top.appinfo("sandbox", secret))
    for name, value in params.items():
        setattr(api, name, value)
    try:
        return api.getResponse()
    except TopException as error:
        return {"code": error.errorcode, "sub_code": error.subcode}


for line in sys.stdin:
    print(json.dumps(call(*sys.argv[1:], **json.loads(line))), flush=True)
