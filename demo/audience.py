"""The demo's customers: a SQLite table like that of a data team, with all characters that break things."""

from __future__ import annotations

import itertools
import random
import sqlite3
from contextlib import closing
from pathlib import Path

CUSTOMERS, WAVES = 1200, 12

# Forms of address and goods, no names. Quotes, backslashes and emoji break hand-made JSON.
SURNAMES = "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨"
TITLES = ("先生", "女士", "老师 😊", '"老板"')
GIFTS = ("满减券 ¥50 🎁", '"8 折"券', "会员积分 \\ 双倍", "L'eau 香氛小样", "生日礼盒 🎂", "100% 棉毛巾")
SHOPS = ("杭州旗舰店", '北京"朝阳"店', "上海\\徐汇店", "成都店 🐼")


def make(path: Path) -> list[str]:
    """Write the table `customers` and return its order numbers.

    `wave` is text, so the database would sort "10" before "2"; the rows are in random order.
    """
    names = itertools.cycle(f"{surname}{title}" for surname in SURNAMES for title in TITLES)
    rows = [
        (
            f"SO{100_000 + number}",
            # No telephone network gives out eleven digits that begin with 100.
            str(10_000_000_000 + number),
            next(names),
            str(1 + number % WAVES),
            GIFTS[number % len(GIFTS)],
            SHOPS[number % len(SHOPS)],
        )
        for number in range(1, CUSTOMERS + 1)
    ]
    random.Random(7).shuffle(rows)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "CREATE TABLE customers (order_no TEXT PRIMARY KEY, mobile TEXT NOT NULL, customer TEXT NOT NULL,"
            " wave TEXT NOT NULL, gift TEXT NOT NULL, shop TEXT NOT NULL)"
        )
        db.executemany("INSERT INTO customers VALUES (?, ?, ?, ?, ?, ?)", rows)
    return [row[0] for row in rows]
