"""Whom to connect to and what must be seen there, from the environment; the words of a result."""

import json
import os

HOST = os.environ["TG_HOST"]
PORT = int(os.environ["TG_PORT"])
USER = os.environ["TG_USER"]
DBNAME = os.environ["TG_DBNAME"]
TOKEN = os.environ["TG_TOKEN"]
NOTES = json.loads(os.environ["TG_NOTES"])

# PostgreSQL itself refuses COPY FROM into a row-secured table.
COPY_IN_WORKS = os.environ["TG_COPY_IN"] == "works"

SELECT = "SELECT body FROM notes ORDER BY id"

# Rows a script adds have ids of its own, and it takes them away again.
BASE = os.getpid() * 100


def login(**more):
    return dict(host=HOST, port=PORT, user=USER, password=TOKEN, **more)


def ok(name):
    print(f"ok {name}", flush=True)


def expect(got, wanted):
    if got != wanted:
        raise AssertionError(f"got {got!r}, wanted {wanted!r}")
