#!/bin/sh
# psql (libpq) as a person or a script uses it. PSQL names the program.
set -eu

export PGHOST="$TG_HOST" PGPORT="$TG_PORT" PGUSER="$TG_USER" PGDATABASE="$TG_DBNAME"
export PGPASSWORD="$TG_TOKEN" PGSSLMODE=disable
base=$(($$ * 100))

sql() { "$PSQL" -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }

# expect NAME GOT WANTED
expect() {
    [ "$2" = "$3" ] || { echo "$1: got '$2', wanted '$3'" >&2; exit 1; }
    echo "ok $1"
}

notes=$(printf '%s' "$TG_NOTES" | tr -d '[]"' | tr ',' '\n')
expect own_rows "$(sql -c 'SELECT body FROM notes ORDER BY id')" "$notes"

expect transaction "$(sql <<SQL
BEGIN;
INSERT INTO notes (id, body) VALUES ($base, 'mine');
SAVEPOINT s;
DELETE FROM notes;
ROLLBACK TO s;
SELECT body FROM notes WHERE id = $base;
ROLLBACK;
SELECT count(*) FROM notes WHERE id = $base;
SQL
)" "mine
0"

expect error_rolls_back "$("$PSQL" -X -q -A -t 2>&1 <<SQL
BEGIN;
INSERT INTO notes (id, body) VALUES ($base, 'lost');
SELECT 1/0;
SELECT 1;
COMMIT;
SELECT count(*) FROM notes WHERE id = $base;
SQL
)" "ERROR:  division by zero
ERROR:  current transaction is aborted, commands ignored until end of transaction block
0"

# PostgreSQL itself refuses COPY FROM into a row-secured table.
if [ "$TG_COPY_IN" = works ]; then
expect copy_in "$(sql <<SQL
BEGIN;
COPY notes (id, body) FROM STDIN;
$base	first
$((base + 1))	second
\\.
SELECT body FROM notes WHERE id >= $base ORDER BY id;
ROLLBACK;
SQL
)" "first
second"
else
expect copy_in_refused "$(sql 2>&1 <<SQL
COPY notes (id, body) FROM STDIN;
SQL
)" "ERROR:  COPY FROM not supported with row-level security
HINT:  Use INSERT statements instead."
fi

expect copy_out "$(sql -c "COPY (SELECT body FROM notes ORDER BY id) TO STDOUT")" "$notes"

expect settings_and_reset "$(sql <<SQL
SET TimeZone = 'Asia/Tokyo';
SHOW TimeZone;
DISCARD ALL;
SELECT current_setting('TimeZone') = 'Asia/Tokyo';
SELECT count(*) FROM notes;
SQL
)" "Asia/Tokyo
f
$(printf '%s\n' "$notes" | wc -l | tr -d ' ')"

expect describe_command "$(sql -c '\d notes' | cut -d'|' -f1 | grep -x -e id -e body)" "id
body"

expect fetch_by_cursor "$(sql -v FETCH_COUNT=1000 -c 'SELECT generate_series(1, 20000)' | tail -n 1)" \
    20000

expect large_result "$(sql -c "SELECT repeat('x', 8000000)" | tr -d '\n' | wc -c | tr -d ' ')" \
    8000000

if PGPASSWORD="${TG_TOKEN%????}AAAA" sql -c 'SELECT 1' >/dev/null 2>&1; then
    echo "a wrong token was let in" >&2
    exit 1
fi
echo "ok wrong_token"
