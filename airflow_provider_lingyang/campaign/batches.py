"""A reading → requests with identity."""

from __future__ import annotations

import hashlib
import itertools
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from airflow_provider_lingyang.campaign.spool import Spool
from airflow_provider_lingyang.gateway.field_types import dump_json
from airflow_provider_lingyang.gateway.models import UseBookInfo

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://open.taobao.com/lingyang/task_unique_code")


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a request the same request: never the try, the map index or the clock.

    :param host: the gateway URL.
    :param app_key: the App key.
    :param campaign_key: dag_id / run_id / task_id.
    :param plan_id: the plan.
    :param generation: how often the campaign was started anew.
    """

    host: str
    app_key: str
    campaign_key: str
    plan_id: int
    generation: int = 1

    def code(self, struct_digest: str) -> str:
        """Return the ``task_unique_code`` of a struct: the same for the same tasks of the same campaign."""
        parts = [self.host, self.app_key, self.campaign_key, self.plan_id, self.generation, struct_digest]
        return str(uuid.uuid5(_NAMESPACE, dump_json(parts)))


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One request, ready to be sent.

    :param task_unique_code: its identity.
    :param batch_num: as the rows have it, or None.
    :param biz_ids: its recipients, in order.
    :param struct: the JSON of the ``InitiativeBatchTaskRequest``.
    """

    task_unique_code: str
    batch_num: str | None
    biz_ids: tuple[str, ...]
    struct: str = field(repr=False)

    def __str__(self) -> str:
        batch = "" if self.batch_num is None else f" of batch_num {self.batch_num}"
        return f"request {self.task_unique_code}{batch} ({len(self.biz_ids)} tasks, biz_id {self.biz_ids[0][:64]!r} …)"


def requests_of_batch(
    spool: Spool,
    batch_num: str | None,
    *,
    identity: Identity,
    batch_size: int,
    use_book_info: UseBookInfo | None,
) -> Iterator[BatchRequest]:
    """Yield the requests of one batch.

    :param batch_size: tasks in a request at most.
    """
    recipients = spool.recipients(batch_num)
    # The tasks are JSON already: serialised once, when they were validated.
    tail = [f'"plan_id":{identity.plan_id}']
    if use_book_info is not None:
        tail.append(f'"use_book_info":{use_book_info.to_json()}')
    head = [] if batch_num is None else [f'"batch_num":{json.dumps(batch_num)}']
    while chunk := list(itertools.islice(recipients, batch_size)):
        task_list = ",".join(task for _, task in chunk)
        body = ",".join([*head, f'"task_list":[{task_list}]', *tail])
        code = identity.code(hashlib.sha256(body.encode()).hexdigest())
        yield BatchRequest(
            code, batch_num, tuple(biz_id for biz_id, _ in chunk), f'{{"task_unique_code":"{code}",{body}}}'
        )
