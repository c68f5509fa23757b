#!/bin/sh
# pgbench's default script and one of our own in all three query modes. PGBENCH names the program;
# its tables were made beforehand, by somebody who may.
set -eu

export PGHOST="$TG_HOST" PGPORT="$TG_PORT" PGUSER="$TG_USER" PGDATABASE="$TG_DBNAME"
export PGPASSWORD="$TG_TOKEN" PGSSLMODE=disable

script=$(mktemp)
trap 'rm -f "$script"' EXIT
printf '%s\n' '\set id random(1, 3)' \
    'BEGIN;' 'SELECT body FROM notes WHERE id = :id;' 'END;' > "$script"

for mode in simple extended prepared; do
    for file in default own; do
        chosen=""
        [ "$file" = default ] || chosen="-f $script"
        # The list of options is meant to fall apart into words.
        # shellcheck disable=SC2086
        "$PGBENCH" -n -M "$mode" -c 4 -j 1 -t 25 --max-tries=3 $chosen > "$script.out" 2>&1 || {
            cat "$script.out" >&2
            exit 1
        }
        grep -q 'actually processed: 100/100' "$script.out" || {
            cat "$script.out" >&2
            exit 1
        }
        rm -f "$script.out"
        echo "ok ${mode}_${file}"
    done
done
