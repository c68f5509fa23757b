"""Reads the console as prometheus-community/pgbouncer_exporter does: the simple protocol, its
namespaces and columns, its rules for types and labels (read from its collector.go at 03527dc)."""

import os

import psycopg

LABELS = {
    "databases": ["name", "host", "port", "database", "force_user", "pool_mode"],
    "stats_totals": ["database"],
    "pools": ["database", "user"],
}
VALUES = {
    "databases": [
        "pool_size", "reserve_pool", "max_connections", "current_connections", "paused", "disabled",
    ],
    "stats_totals": [
        "query_count", "query_time", "bytes_received", "bytes_sent", "wait_time", "xact_count",
        "xact_time",
    ],
    "pools": [
        "cl_active", "cl_active_cancel_req", "cl_waiting", "cl_waiting_cancel_req", "sv_active",
        "sv_active_cancel", "sv_being_canceled", "sv_idle", "sv_used", "sv_tested", "sv_login",
        "maxwait",
    ],
}
LISTS = [
    "databases", "users", "pools", "free_clients", "used_clients", "login_clients", "free_servers",
    "used_servers", "dns_names", "dns_zones", "dns_queries",
]
INTEGERS, NUMERIC, TEXT = (20, 21, 23), 1700, 25


def query(connection, text):
    """Rows as lib/pq hands them on: integers as numbers, text as texts, the rest as bytes."""
    result = connection.pgconn.exec_(text.encode())
    assert result.status == psycopg.pq.ExecStatus.TUPLES_OK, result.error_message
    names = [result.fname(at).decode() for at in range(result.nfields)]
    types = [result.ftype(at) for at in range(result.nfields)]

    def value(row, at):
        cell = result.get_value(row, at)
        if cell is None:
            return None
        if types[at] in INTEGERS:
            return int(cell)
        return cell.decode() if types[at] == TEXT else cell

    rows = [[value(row, at) for at in range(result.nfields)] for row in range(result.ntuples)]
    return names, rows


def scrape(connection, namespace):
    names, rows = query(connection, f"SHOW {namespace};")
    seen = set()
    for row in rows:
        cells = dict(zip(names, row, strict=True))
        labels = tuple(cells[name] for name in LABELS[namespace])
        for label in labels:
            assert label is None or isinstance(label, (int, str)), (namespace, label)
        assert labels not in seen, f"{namespace} has two rows for {labels}"
        seen.add(labels)
        for name in VALUES[namespace]:
            float(cells[name])
    assert rows, namespace


def main():
    settings = {
        "host": "127.0.0.1", "port": os.environ["TG_PORT"], "user": "admin",
        "dbname": "tenantgate", "password": os.environ["TG_PASSWORD"], "sslmode": "disable",
    }
    with psycopg.connect(**settings, autocommit=True) as connection:
        query(connection, "SHOW STATS")
        names, rows = query(connection, "SHOW VERSION;")
        assert names == ["version"] and rows[0][0], rows
        names, rows = query(connection, "SHOW LISTS;")
        assert len(names) == 2
        lists = {name: float(items) for name, items in rows}
        assert all(name in lists for name in LISTS), lists
        assert lists["used_clients"] == 1 and lists["databases"] >= 2, lists
        names, rows = query(connection, "SHOW CONFIG;")
        assert len(names) == 4
        assert float(dict((row[0], row[1]) for row in rows)["max_client_conn"]) > 0
        for namespace in LABELS:
            scrape(connection, namespace)
    print("ok scraper")


main()
