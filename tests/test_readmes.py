"""Both READMEs say the same, and what there is: blocks of code, fields, arguments, the table of errors, links."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from airflow_provider_lingyang.config.connection import LingyangConnection
from airflow_provider_lingyang.gateway import error_codes, errors
from airflow_provider_lingyang.gateway.error_classification import rule_for
from airflow_provider_lingyang.gateway.errors import LingyangError, Replay, RequestRefusedError
from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator

PACKAGE = Path(errors.__file__).parents[1]
ROOT = Path(__file__).parents[1]
ENGLISH, CHINESE = (ROOT / "README.md").read_text(), (ROOT / "README.zh.md").read_text()
BOTH = pytest.mark.parametrize("readme", [ENGLISH, CHINESE], ids=["README.md", "README.zh.md"])
BLOCK = re.compile(r"(?:<!-- [^\n]* -->\n)?^```.*?^```$", re.DOTALL | re.MULTILINE)
PATTERNS = [*error_codes.FINER, *error_codes.DOUBTFUL, *error_codes.SUB_CODES]
# Codes that leave it to the sub_code, and what an answer says without a code.
BESIDE_THE_TABLES = {"15", "50", "success=false"}


def section(readme: str, title: str) -> str:
    _, _, rest = readme.partition(f"\n## {title}\n")
    assert rest, f"no section {title!r}"
    return rest.partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the first table, without its head."""
    table = re.search(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert table
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


def codes(cell: str) -> list[str]:
    return re.findall("`(.*?)`", cell)


def python(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def leaves(error: type[LingyangError]) -> Iterator[str]:
    below = [child for child in error.__subclasses__() if child.__module__ == errors.__name__]
    for child in below:
        yield from leaves(child)
    if not below or error is errors.ThrottledError:  # raised itself, too
        yield error.__name__


ERRORS = rows(section(ENGLISH, "Errors, and what to do"))


def test_every_block_of_the_chinese_one_is_one_of_the_english_one() -> None:
    english = BLOCK.findall(ENGLISH)
    changed = [block for block in BLOCK.findall(CHINESE) if block not in english]
    assert not changed, "README.md has these blocks no longer; copy them from there as they are now"
    assert len(english) == ENGLISH.count("\n```") / 2
    assert len(BLOCK.findall(CHINESE)) == CHINESE.count("\n```") / 2


def test_the_five_minutes_are_the_same_in_both() -> None:
    english = section(ENGLISH, "A campaign of your own in five minutes")
    chinese = section(CHINESE, "五分钟跑通自己的活动")
    assert BLOCK.findall(chinese) == BLOCK.findall(english)
    marked = [
        [block for block in BLOCK.findall(readme) if block.startswith("<!--")]
        for readme in (ENGLISH, CHINESE)
    ]
    assert marked[0] == marked[1]
    assert len(marked[0]) >= 4


def test_both_tables_have_the_same_errors() -> None:
    chinese = rows(section(CHINESE, "错误速查"))
    assert [row[:3] for row in chinese] == [row[:3] for row in ERRORS]
    assert all(len(row) == 4 and row[3] for row in (*ERRORS, *chinese))


def test_the_table_of_errors_has_every_code_and_every_class_once() -> None:
    named = [code for row in ERRORS for code in codes(row[0])]
    assert sorted(named) == sorted({*error_codes.CODES, *PATTERNS, *BESIDE_THE_TABLES})
    assert {code for row in ERRORS for code in codes(row[1])} == set(leaves(LingyangError))


@pytest.mark.parametrize("row", ERRORS, ids=[f"{row[0]} {row[1]}" for row in ERRORS])
def test_a_row_of_the_table_says_what_the_code_does(row: list[str]) -> None:
    (error,), (state,) = codes(row[1]), codes(row[2])
    kind = getattr(errors, error)
    for code in set(codes(row[0])) - {"success=false"}:
        rule = rule_for(code, None) if code.isdigit() else rule_for("15", code.replace("*", "some"))
        assert rule.error is kind, code
    if kind.default_replay is Replay.AMBIGUOUS:
        assert state == "in_doubt"
    else:
        assert state == ("rejected" if kind is RequestRefusedError else "not_sent")


def test_the_messages_that_the_chinese_one_explains_are_messages_of_the_package() -> None:
    _, _, rest = section(CHINESE, "错误速查").partition("没有错误码的失败")
    texts = [
        node.value
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    messages = [message for row in rows(rest) for message in codes(row[0])]
    assert len(messages) > 10
    assert [message for message in messages if not any(message in text for text in texts)] == []


def test_the_tables_of_the_connection_are_those_of_its_model() -> None:
    fields = [
        [str(field.title), f"`{name}`", shown(field.default), str(field.description)]
        for name, field in LingyangConnection.model_fields.items()
    ]
    english, chinese = rows(section(ENGLISH, "Connection")), rows(section(CHINESE, "连接"))
    assert [[*row[:3], row[3].replace("`", "")] for row in english] == fields
    assert [row[:2] for row in chinese] == [field[:2] for field in fields]
    # An empty lookup_settle depends on the timeout.
    assert [row[2] for row in chinese if row[1] != "`lookup_settle`"] == [
        field[2] for field in fields if field[1] != "`lookup_settle`"
    ]


def shown(default: Any) -> str:
    """A default as the tables show it."""
    if isinstance(default, str):
        return f"`{default}`" if default else ""
    return {None: "", False: "false"}.get(default, f"{default:g}" if default else "")


def test_the_chinese_one_has_every_argument_of_the_operator() -> None:
    arguments = inspect.signature(LingyangSubmitBatchOperator.__init__).parameters.values()
    assert [row[:3] for row in rows(section(CHINESE, "LingyangSubmitBatchOperator"))] == [
        [
            f"`{argument.name}`",
            "" if argument.default in (None, argument.empty) else f"`{python(argument.default)}`",
            "✓" if argument.name in LingyangSubmitBatchOperator.template_fields else "",
        ]
        for argument in arguments
        if argument.kind is argument.KEYWORD_ONLY
    ]


@BOTH
def test_links_lead_somewhere(readme: str) -> None:
    prose = BLOCK.sub("", readme)
    targets = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall('src="([^"]+)"', prose)
    here = [target for target in targets if not target.startswith("https://")]
    assert len(here) > 10
    for target in here:
        file, _, anchor = target.partition("#")
        assert not file or (ROOT / file).is_file(), target
        if anchor:
            assert unquote(anchor) in anchors((ROOT / file).read_text() if file else readme), target


def anchors(readme: str) -> list[str]:
    """What GitHub makes of headings."""
    titles = re.findall(r"^#+ (.*)$", BLOCK.sub("", readme), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def test_readmes_link_to_each_other() -> None:
    assert "(README.zh.md)" in ENGLISH.partition("\n## ")[0]
    assert "(README.md)" in CHINESE.partition("\n## ")[0]


def test_chinese_text_has_chinese_punctuation_and_blanks_around_latin_words() -> None:
    prose = re.sub(r"\]\([^)\s]*\)", "]", re.sub("`[^`\n]*`", "x", BLOCK.sub("", CHINESE)))
    assert re.findall(r"[\u4e00-\u9fff][,:;!?]|[,:;!?][\u4e00-\u9fff]", prose) == []
    assert re.findall(r"[\u4e00-\u9fff][A-Za-z0-9]+|[A-Za-z0-9]+[\u4e00-\u9fff]", prose) == []
