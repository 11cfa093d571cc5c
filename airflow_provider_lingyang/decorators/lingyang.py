"""Submit a campaign to the recipients that a Python function gives: ``@task.lingyang_submit_batch``."""

from __future__ import annotations

import inspect
import logging
import numbers
import traceback
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar, overload

from airflow.providers.common.compat.sdk import (
    AirflowException,
    Asset,
    DecoratedOperator,
    XComArg,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_lingyang.config.arguments import ArgumentError, check_no_frame, is_listing
from airflow_provider_lingyang.config.literals import holds_open
from airflow_provider_lingyang.operators.lingyang import Hidden, LingyangSubmitBatchOperator, Rows
from airflow_provider_lingyang.storage.query import QueryError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.sdk.bases.decorator import Task

    from airflow_provider_lingyang.audience.parser import Problems, Recipient, RowParser
    from airflow_provider_lingyang.config.literals import (
        Channel,
        OnClear,
        OnDuplicateContact,
        OnEmpty,
        OnInDoubt,
        OnInvalid,
        OnRejected,
        SettledAs,
    )

    P = ParamSpec("P")
    R = TypeVar("R", bound=Iterable[Mapping[str, Any]])

log = logging.getLogger(__name__)

_NAME = "@task.lingyang_submit_batch"
_SOURCES = ("audience", "sql", "sql_conn_id", "parameters")
_SHOWN = (bool, date, time, timedelta, Asset, type(None))
_SHORT = 10_000
"""A whole number below it has fewer digits than any phone number."""


def _check(arguments: Mapping[str, Any]) -> None:
    if given := [name for name in _SOURCES if name in arguments]:
        raise ArgumentError(f"{_NAME} gets its rows from the function: leave out {', '.join(given)}")
    if arguments.get("multiple_outputs"):
        raise ArgumentError(f"{_NAME} returns one value, the manifest: leave out multiple_outputs")


def _value_of(argument: Any) -> Any:
    return argument.value if isinstance(argument, Hidden) else argument


class LingyangSubmitBatchDecoratedOperator(DecoratedOperator, LingyangSubmitBatchOperator):
    """Submit the rows that a function returns or yields; see :func:`lingyang_submit_batch`.

    :param python_callable: the function.
    :param op_args: its positional arguments. Templated.
    :param op_kwargs: its named arguments. Templated.
    """

    template_fields: Sequence[str] = (
        "op_args",
        "op_kwargs",
        *(name for name in LingyangSubmitBatchOperator.template_fields if name not in _SOURCES),
    )
    template_ext: Sequence[str] = ()
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **LingyangSubmitBatchOperator.template_fields_renderers,
    }
    custom_operator_name = _NAME
    if not hasattr(DecoratedOperator, "xcom_push"):
        # Airflow 3.0 reads it, has it nowhere, and makes nothing of it.
        xcom_push: Any = None

    _op_args: Collection[Any] | None = None
    _op_kwargs: Mapping[str, Any] | None = None

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        _check(kwargs)
        if inspect.iscoroutinefunction(python_callable) or inspect.isasyncgenfunction(python_callable):
            raise ArgumentError(
                f"{_NAME} needs a plain function or generator; {python_callable.__name__} is async"
            )
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            audience=Rows(python_callable),
            # Explicit, so that default_args of other tasks of the DAG do not apply.
            sql=None,
            sql_conn_id=None,
            parameters=None,
            **kwargs,
        )

    # Airflow sets them twice: as they stand in the DAG file, then as rendered, which it stores and shows.
    @property
    def op_args(self) -> Any:
        """The function's positional arguments; rendered ones that may hold personal data are not shown."""
        return self._op_args

    @op_args.setter
    def op_args(self, value: Collection[Any]) -> None:
        if (raw := self._op_args) is not None:
            value = [self._hide(new, old) for new, old in zip(value, raw, strict=True)]
        self._op_args = value

    @property
    def op_kwargs(self) -> Any:
        """The function's named arguments, likewise."""
        return self._op_kwargs

    @op_kwargs.setter
    def op_kwargs(self, value: Mapping[str, Any]) -> None:
        if (raw := self._op_kwargs) is not None:
            value = {name: self._hide(new, raw.get(name)) for name, new in value.items()}
        elif self._mapped and value:
            # What a mapping brings: Airflow logs all arguments as they are when it cannot render one of them.
            value = {name: new if holds_open(new) else self._hide(new, new) for name, new in value.items()}
        self._op_kwargs = value

    @property
    def _mapped(self) -> bool:
        """Whether a mapped task became this one: text of an upstream task was put in then, and is not rendered."""
        # Airflow's own mark, the same in 2.11 to 3.3; nothing else tells.
        return bool(getattr(self, "_BaseOperator__from_mapped", False))

    def _hide(self, rendered: Any, raw: Any) -> Any:
        """Return a rendered argument as it may be shown.

        :param raw: the argument before it was rendered.
        """
        if isinstance(rendered, (Hidden, *_SHOWN)) or (isinstance(rendered, int) and abs(rendered) < _SHORT):
            return rendered
        pulled = isinstance(raw, XComArg) or (isinstance(raw, str) and "xcom" in raw)
        upstream = pulled or (self._mapped and rendered == raw)
        shown = isinstance(rendered, (str, numbers.Number)) and not upstream
        return rendered if shown else Hidden(rendered)

    @contextmanager
    def _read_rows(self, context: Context, reader: RowParser) -> Iterator[Iterator[Recipient | Problems]]:
        """Call the function, and give its rows as the reader parses them."""
        with closing(self._of_function(context)) as rows:
            yield (reader.parse_mapping(number, row) for number, row in enumerate(rows, 1))

    def _of_function(self, context: Context) -> Generator[Any, None, None]:
        """Call the function and yield its rows, one in memory at a time."""
        name = getattr(self.python_callable, "__name__", "the function")
        with _errors_without_values(name):
            args = [_value_of(argument) for argument in self.op_args]
            of_context = determine_kwargs(self.python_callable, args, context)
            # Not merged into the context, which the task itself still needs.
            kwargs = {**of_context, **{key: _value_of(value) for key, value in self.op_kwargs.items()}}
            returned = self.python_callable(*args, **kwargs)
        check_no_frame(f"what {name} returned", returned)
        if not is_listing(returned):
            raise ArgumentError(
                f"{name} must return or yield rows (mappings of names to values); it returned a "
                f"{type(returned).__name__}"
            )
        with _errors_without_values(name):
            rows = iter(returned)
            try:
                for row in rows:  # noqa: UP028  # "yield from" would close them a second time
                    yield row
            finally:
                if close := getattr(rows, "close", None):
                    close()


@contextmanager
def _errors_without_values(name: str) -> Iterator[None]:
    """Turn what a user's function raises into an error without its text, which may quote rows.

    Airflow's own exceptions pass unchanged, with their text.
    """
    try:
        yield
    except AirflowException:
        raise
    except KeyboardInterrupt as error:
        # An interrupt from outside has no text.
        raise (KeyboardInterrupt if error.args else error) from None
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            raise error from None
        log.error("%s raised (without the texts, which may quote rows):\n%s", name, _trace(error))
        raise QueryError(
            f"{name} raised {type(error).__name__}, see the traceback above; its text may quote rows and is left out "
            "(that of an AirflowException, AirflowFailException or AirflowSkipException is shown)"
        ) from None


def _trace(error: BaseException) -> str:
    """Return where an error and those that led to it were raised, without what they say."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(parts) < 10:
        frames = traceback.extract_tb(cause.__traceback__)
        lines = traceback.format_list([frame for frame in frames if frame.filename != __file__])
        parts.append(f"{''.join(lines)}{type(cause).__name__}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\n\nwhich led to\n\n".join(reversed(parts))


@overload
def lingyang_submit_batch(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def lingyang_submit_batch(
    *,
    plan_id: int | str,
    campaign_key: str | None = None,
    channel: Channel | None = None,
    use_book_info: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    task_defaults: Mapping[str, Any] | None = None,
    input_params_columns: Sequence[str] | Mapping[str, str] | None = None,
    output_slots: Sequence[str] | None = None,
    keep_columns: Sequence[str] | None = None,
    batch_size: int = 100,
    max_in_flight: int = 1,
    shards: int | None = None,
    send_window: str | None = None,
    send_until: datetime | str | None = None,
    max_lateness: timedelta | None = None,
    max_recipients: int | None = None,
    validate_only: bool = False,
    on_invalid: OnInvalid = "fail",
    on_duplicate_contact: OnDuplicateContact = "warn",
    on_rejected: OnRejected = "continue",
    on_in_doubt: OnInDoubt = "stop",
    on_empty: OnEmpty = "skip",
    # Templated, so any text may stand there in the DAG file.
    on_clear: OnClear | str = "reuse",
    settle: Mapping[str, SettledAs | str] | str | None = None,
    ledger_conn_id: str | None = None,
    lingyang_conn_id: str = "lingyang_default",
    **kwargs: Any,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def lingyang_submit_batch(function: Callable[..., Any] | None = None, /, **kwargs: Any) -> Any:
    """Make a task that submits the rows which the decorated function returns or yields.

    It is :class:`~airflow_provider_lingyang.operators.lingyang.LingyangSubmitBatchOperator`, with the same arguments
    (but ``audience``, ``sql``, ``sql_conn_id`` and ``parameters``), ledger, manifest and XComs. The rows are stored
    nowhere: a generator is read once, row by row, into the operator's private temporary file. In a DAG file::

        @task.lingyang_submit_batch(plan_id=123, channel="call", output_slots=["intention"])
        def submit(segment, run_id=None):
            for order in my_system.orders(segment):
                yield {"biz_id": f"{run_id}/{order.no}", "phone_number": order.phone, "input_params": {}}

        LingyangResultSensor(task_id="wait", campaign=submit("{{ params.segment }}"))

    ``from airflow_provider_lingyang.decorators.lingyang import lingyang_submit_batch`` is the same decorator as
    ``task.lingyang_submit_batch``, with types that editors and type checkers know.

    The function takes arguments as any function of TaskFlow does, those named like a key of Airflow's context
    included. Airflow stores and shows them as rendered fields: numbers, dates and text. What may hold personal data
    (lists, mappings, other objects, text and long numbers of an upstream task or a mapping) is shown as its type alone.

    It is called again by each try, and after a deferral. It must then give the same recipients the same ``biz_id``.

    What it raises ends the task before anything is sent: ``AirflowSkipException`` skips it, ``AirflowFailException``
    fails it without retries, another ``AirflowException`` fails it, and each is shown with its text. Of any other
    exception, ``sys.exit("…")`` included, the type and the traceback are logged, but not the text, which may quote a
    row; a retry calls again.

    :param function: the function, where the decorator is used without arguments (all are in ``default_args``).
    :param kwargs: arguments of the operator, and of any task of Airflow.
    :return: the decorator, or the decorated function.
    :raises ArgumentError: at parse time, for arguments that cannot be right.
    """
    # Here, too: Airflow makes no operator of a mapped task before it runs.
    _check(kwargs)
    return task_decorator_factory(
        function,
        # Not guessed from the function's annotation, which is of its rows.
        **{**kwargs, "multiple_outputs": False},
        decorated_operator_class=LingyangSubmitBatchDecoratedOperator,
    )
