"""psycopg 3 at the console: extended and binary, with and without transactions."""

import os

import psycopg
from psycopg import errors

SETTINGS = {
    "host": "127.0.0.1", "port": os.environ["TG_PORT"], "user": "admin", "dbname": "tenantgate",
    "password": os.environ["TG_PASSWORD"], "sslmode": "disable",
}


def refused(connection, text, kind):
    try:
        connection.execute(text)
    except kind:
        return
    raise AssertionError(f"{text} was not refused")


def main():
    notices = []
    with psycopg.connect(**SETTINGS, autocommit=True) as connection:
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        for binary in (False, True):
            with connection.cursor(binary=binary, row_factory=psycopg.rows.dict_row) as cursor:
                rows = cursor.execute("SHOW CLIENTS").fetchall()
                assert len(rows) == 1 and isinstance(rows[0]["id"], int), rows
                assert len(cursor.execute("SHOW POOLS").fetchall()) == 1
                rows = cursor.execute("SHOW STATS").fetchall()
                assert all(int(row["total_query_count"]) >= 0 for row in rows), rows
                tenant = cursor.execute("SHOW CLIENTS").fetchall()[0]["tenant"]
        assert connection.execute(f'PAUSE TENANT "{tenant}"').statusmessage == "PAUSE"
        assert connection.execute(f'KILL TENANT "{tenant}"').statusmessage == "KILL"
        assert notices == ["requests wait until RESUME"], notices
        assert connection.execute("SHOW CLIENTS").fetchall() == []
        assert connection.execute("RESUME").statusmessage == "RESUME"
        assert connection.execute("RELOAD").statusmessage == "RELOAD"
        refused(connection, "KILL nobody", errors.InvalidCatalogName)
        refused(connection, "RESUME", errors.ObjectNotInPrerequisiteState)
    with psycopg.connect(**SETTINGS) as connection:
        connection.execute("SHOW POOLS").fetchall()
        refused(connection, "PAUSE", errors.ActiveSqlTransaction)
        connection.rollback()
        assert connection.execute("SHOW VERSION").fetchone()
    print("ok psycopg")


main()
