"""Recipients of the queue → requests, each with its idempotency key (``task_unique_code``)."""

from __future__ import annotations

import hashlib
import itertools
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from airflow_provider_lingyang.delivery.send_queue import SendQueue
from airflow_provider_lingyang.gateway.field_types import dump_json
from airflow_provider_lingyang.gateway.models import UseBookInfo

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://open.taobao.com/lingyang/task_unique_code")


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a request the same request: never the try, the map index or the clock.

    :param host: the gateway URL.
    :param app_key: the App key.
    :param campaign_key: the operator's; by default dag_id / run_id / task_id.
    :param plan_id: the plan.
    :param generation: how often the campaign was started anew.
    """

    host: str
    app_key: str
    campaign_key: str
    plan_id: int
    generation: int = 1

    def code(self, struct_digest: str) -> str:
        """Return a struct's ``task_unique_code``, its idempotency key: the same for the same tasks of a campaign."""
        parts = [self.host, self.app_key, self.campaign_key, self.plan_id, self.generation, struct_digest]
        return str(uuid.uuid5(_NAMESPACE, dump_json(parts)))


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One request, ready to be sent.

    :param task_unique_code: its identity.
    :param batch_num: as the rows have it, or None.
    :param biz_ids: its recipients, in order.
    :param struct: the JSON of the ``InitiativeBatchTaskRequest``.
    :param struct_digest: SHA-256, in hex, of what its identity stands for.
    :param again: whether its recipients were in a request before, which was not executed.
    :param kept: the JSON of the columns that are kept, of each recipient; empty: none is.
    """

    task_unique_code: str
    batch_num: str | None
    biz_ids: tuple[str, ...]
    struct: str = field(repr=False)
    struct_digest: str = ""
    again: bool = False
    kept: Sequence[str | None] = ()

    def __str__(self) -> str:
        batch = "" if self.batch_num is None else f" of batch_num {self.batch_num}"
        return f"request {self.task_unique_code}{batch} ({len(self.biz_ids)} tasks, biz_id {self.biz_ids[0][:64]!r} …)"


@dataclass(frozen=True, slots=True)
class RequestBuilder:
    """Makes requests of recipients.

    :param batch_size: recipients in a request at most.
    """

    queue: SendQueue
    identity: Identity
    batch_size: int
    use_book_info: UseBookInfo | None = None

    def build(
        self, batch_num: str | None, recipients: Sequence[tuple[str, str]], *, again: bool = False
    ) -> BatchRequest:
        """Return the request for some recipients of one batch.

        :param recipients: (biz_id, JSON of the task) each.
        """
        # The tasks are JSON already: serialised once, when they were validated.
        parts = [] if batch_num is None else [f'"batch_num":{json.dumps(batch_num)}']
        parts.append(f'"task_list":[{",".join(task for _, task in recipients)}]')
        parts.append(f'"plan_id":{self.identity.plan_id}')
        if self.use_book_info is not None:
            parts.append(f'"use_book_info":{self.use_book_info.to_json()}')
        body = ",".join(parts)
        struct_digest = hashlib.sha256(body.encode()).hexdigest()
        code = self.identity.code(struct_digest)
        biz_ids = tuple(biz_id for biz_id, _ in recipients)
        return BatchRequest(
            code,
            batch_num,
            biz_ids,
            f'{{"task_unique_code":"{code}",{body}}}',
            struct_digest,
            again,
            self.queue.audience.kept(biz_ids),
        )

    def requests(self, batch_num: str | None, after: int | None = None) -> Iterator[BatchRequest]:
        """Yield a batch's requests: first of recipients whose request was not executed, grouped as they were.

        :param after: only those, and of them only groups with a higher number. Default None: all of them, then the
            requests of recipients that were in none yet.
        """
        rows = self.queue.requeued(batch_num, after=after or 0)
        for _, group in itertools.groupby(rows, key=itemgetter(0)):
            yield self.build(batch_num, [(biz_id, task) for _, biz_id, task in group], again=True)
        if after is None:
            recipients = self.queue.new_recipients(batch_num)
            while chunk := list(itertools.islice(recipients, self.batch_size)):
                yield self.build(batch_num, chunk)
