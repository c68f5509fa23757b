"""Where to connect, and how a script of the matrix says what became of each scenario."""

import datetime
import decimal
import os
import uuid

HOST = os.environ["TG_HOST"]
PORT = int(os.environ["TG_PORT"])
CA = os.environ["TG_CA"]
WRONG_CA = os.environ["TG_WRONG_CA"]

# Both tenants: user, database, token, and what the notes of each are, joined.
MINE = {key: os.environ[f"TG_{key}"] for key in ("USER", "DBNAME", "TOKEN", "BODIES")}
OTHER = {key: os.environ[f"TG_OTHER_{key}"] for key in ("USER", "DBNAME", "TOKEN", "BODIES")}
WRONG_TOKEN = MINE["TOKEN"][:-1] + "!"

BODIES = "SELECT string_agg(body, '|' ORDER BY id) FROM notes WHERE id < 1000"

COPIED = "SELECT count(*) FROM notes WHERE body = 'copied'"

# Rows, locks and channels of this run.
BASE = int(os.environ["TG_BASE"])

SCENARIOS = [
    "login", "tls_require", "tls_verify_full", "types", "prepared", "transaction", "savepoint",
    "errors", "copy_in", "copy_out", "listen", "cancel", "settings", "temporary_table",
    "advisory_lock", "sql_prepare", "large", "pool", "reconnect", "isolation",
]

# SQL type, value. Every driver gives what it understands back as it was.
TYPES = [
    ("int4", -2147483648),
    ("int8", 9223372036854775807),
    ("numeric", decimal.Decimal("12345678901234567890.123456789")),
    ("float8", 0.1),
    ("text", "zażółć 'gęś' \\ $1 你好 🐘"),
    ("bytea", bytes(range(256))),
    ("bool", True),
    ("date", datetime.date(2024, 2, 29)),
    ("timestamptz", datetime.datetime(2024, 2, 29, 12, 34, 56, 789012, datetime.timezone.utc)),
    ("uuid", uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")),
    ("int4[]", [1, None, -3]),
    ("text[]", ["a,b", '"q" \\', None, "ü"]),
    ("text", None),
]
DOCUMENT = {"a": [1, None, "ü"], "b": {"c": True}}


class Absent(Exception):
    """The driver has nothing of the kind."""


def expect(got, wanted):
    if got != wanted:
        raise AssertionError(f"got {got!r}, wanted {wanted!r}")


def line(name, error):
    if error is None:
        print(f"ok {name}", flush=True)
    elif isinstance(error, Absent):
        print(f"absent {name}: {error}", flush=True)
    else:
        why = " ".join(str(error).split())
        print(f"not ok {name}: {type(error).__name__} {why}", flush=True)


def play(driver):
    """Runs the scenarios, which are the methods of `driver`."""
    for name in SCENARIOS:
        try:
            getattr(driver, name)()
            line(name, None)
        except Exception as error:  # pylint: disable=broad-except
            line(name, error)


async def play_async(driver):
    for name in SCENARIOS:
        try:
            await getattr(driver, name)()
            line(name, None)
        except Exception as error:  # pylint: disable=broad-except
            line(name, error)


