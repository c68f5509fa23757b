<?php
// PHP's PDO with pdo_pgsql, on libpq.

declare(strict_types=1);

const BODIES = "SELECT string_agg(body, '|' ORDER BY id) FROM notes WHERE id < 1000";
define('MINE', tenant('TG_'));
define('OTHER', tenant('TG_OTHER_'));
define('BASE', (int) getenv('TG_BASE'));

class Absent extends Exception {}

function tenant(string $prefix): array
{
    $values = array_map(fn ($key) => getenv($prefix . $key), ['USER', 'DBNAME', 'TOKEN', 'BODIES']);
    return array_combine(['user', 'dbname', 'token', 'bodies'], $values);
}

function connect(array $who = MINE, string $more = '', array $options = []): PDO
{
    $place = 'host=' . getenv('TG_HOST') . ';port=' . getenv('TG_PORT');
    $dsn = "pgsql:$place;dbname={$who['dbname']}$more";
    return new PDO($dsn, $who['user'], $who['token'], $options);
}

function ask(PDO $connection, string $sql, array $values = [], int $type = PDO::PARAM_STR): mixed
{
    $statement = $connection->prepare($sql);
    foreach ($values as $at => $value) {
        $statement->bindValue($at + 1, $value, $value === null ? PDO::PARAM_NULL : $type);
    }
    $statement->execute();
    return $statement->columnCount() ? $statement->fetchColumn() : null;
}

function expect(mixed $got, mixed $wanted): void
{
    if ($got !== $wanted) {
        [$got, $wanted] = [var_export($got, true), var_export($wanted, true)];
        throw new Exception("got $got, wanted $wanted");
    }
}

function fails(PDO $connection, string $sqlstate, string $sql): void
{
    try {
        ask($connection, $sql);
    } catch (PDOException $error) {
        expect($error->getCode(), $sqlstate);
        return;
    }
    throw new Exception("went through: $sql");
}

function refuses(string $text, callable $work): void
{
    try {
        $work();
    } catch (PDOException $error) {
        expect(str_contains($error->getMessage(), $text), true);
        return;
    }
    throw new Exception('went through');
}

$scenarios = [
    'login' => function () {
        expect(ask(connect(), BODIES), MINE['bodies']);
        $wrong = ['token' => substr(MINE['token'], 0, -1) . '!'] + MINE;
        refuses('authentication failed', fn () => connect($wrong));
    },
    'tls_require' => function () {
        expect(ask(connect(MINE, ';sslmode=require'), BODIES), MINE['bodies']);
    },
    'tls_verify_full' => function () {
        $with = fn ($file) => ';sslmode=verify-full;sslrootcert=' . getenv($file);
        expect(ask(connect(MINE, $with('TG_CA')), BODIES), MINE['bodies']);
        refuses('SSL error', fn () => connect(MINE, $with('TG_WRONG_CA')));
    },
    'types' => function () {
        $one = connect();
        $values = [
            ['int4', -2147483648], ['int8', 9223372036854775807], ['float8', '0.1'],
            ['numeric', '12345678901234567890.123456789'], ['text', null],
            ['text', "zażółć 'gęś' \\ \$1 你好 🐘"], ['date', '2024-02-29'],
            ['timestamptz', '2024-02-29 12:34:56.789012+00'], ['int4[]', '{1,NULL,-3}'],
            ['text[]', '{"a,b",NULL,ü}'], ['uuid', '6ba7b810-9dad-11d1-80b4-00c04fd430c8'],
            ['jsonb', '{"a": [1, null, "ü"]}'],
        ];
        $one->exec("SET TimeZone = 'UTC'");
        foreach ($values as [$type, $value]) {
            expect(ask($one, "SELECT CAST(? AS $type)", [$value]), $value);
        }
        expect(ask($one, 'SELECT CAST(? AS bool)', [true], PDO::PARAM_BOOL), true);
        $bytes = implode('', array_map('chr', range(0, 255)));
        $back = ask($one, 'SELECT CAST(? AS bytea)', [$bytes], PDO::PARAM_LOB);
        expect(stream_get_contents($back), $bytes);
    },
    'prepared' => function () {
        $bodies = explode('|', MINE['bodies']);
        $one = connect();
        $statement = $one->prepare('SELECT body FROM notes WHERE id = ?');
        for ($turn = 0; $turn < 60; $turn++) {
            $number = $turn % count($bodies);
            $statement->execute([$number + 1]);
            expect($statement->fetchColumn(), $bodies[$number]);
        }
    },
    'transaction' => function () {
        [$one, $two] = [connect(), connect()];
        $one->beginTransaction();
        $one->exec('INSERT INTO notes (id, body) VALUES (' . BASE . ", 'mine')");
        expect(ask($two, 'SELECT count(*) FROM notes WHERE id = ' . BASE), 0);
        $one->commit();
        $one->beginTransaction();
        $one->exec("UPDATE notes SET body = 'lost' WHERE id = " . BASE);
        $one->rollBack();
        expect(ask($one, 'DELETE FROM notes WHERE id = ' . BASE . ' RETURNING body'), 'mine');
    },
    'savepoint' => function () {
        $one = connect();
        $one->beginTransaction();
        $one->exec('INSERT INTO notes (id, body) VALUES (' . BASE . ", 'kept')");
        $one->exec('SAVEPOINT one');
        fails($one, '42703', 'SELECT no_such_column FROM notes');
        $one->exec('ROLLBACK TO SAVEPOINT one');
        $one->exec("UPDATE notes SET body = 'changed' WHERE id = " . BASE);
        $one->exec('ROLLBACK TO SAVEPOINT one');
        expect(ask($one, 'SELECT body FROM notes WHERE id = ' . BASE), 'kept');
        $one->rollBack();
        expect(ask($one, BODIES), MINE['bodies']);
    },
    'errors' => function () {
        $wrong = [
            '23505' => "INSERT INTO notes (id, body) VALUES (1, 'twice')", '42601' => 'SELEC 1',
            '22012' => 'SELECT 1/0', '42P01' => 'SELECT * FROM nowhere',
        ];
        $one = connect();
        foreach ($wrong as $sqlstate => $sql) {
            fails($one, (string) $sqlstate, $sql);
            expect(ask($one, BODIES), MINE['bodies']);
        }
        $one->beginTransaction();
        fails($one, '22012', 'SELECT 1/0');
        fails($one, '25P02', 'SELECT 1');
        $one->rollBack();
    },
    'copy_in' => function () {
        $one = connect();
        $one->beginTransaction();
        $lines = array_map(fn ($number) => (BASE + $number) . "\tcopied", range(0, 999));
        expect($one->pgsqlCopyFromArray('notes', $lines, "\t", '\\\\N', 'id,body'), true);
        expect(ask($one, "SELECT count(*) FROM notes WHERE body = 'copied'"), 1000);
        $one->rollBack();
        expect(ask($one, BODIES), MINE['bodies']);
    },
    'copy_out' => function () {
        $lines = connect()->pgsqlCopyToArray('(SELECT generate_series(1, 5000))');
        expect(array_map('intval', $lines), range(1, 5000));
    },
    'listen' => function () {
        [$listener, $sender, $channel] = [connect(), connect(), 'news_' . BASE];
        $listener->exec("LISTEN $channel");
        $sender->exec("NOTIFY $channel, 'hello'");
        $heard = $listener->pgsqlGetNotify(PDO::FETCH_ASSOC, 10000);
        expect([$heard['message'], $heard['payload']], [$channel, 'hello']);
    },
    'cancel' => fn () => throw new Absent('the driver has no cancel'),
    'settings' => function () {
        $one = connect();
        $one->exec("SET TimeZone = 'Asia/Tokyo'");
        $one->exec("SET work_mem = '1234kB'; SET myapp.owner = 'somebody'");
        for ($turn = 0; $turn < 10; $turn++) {
            expect(ask($one, 'SHOW TimeZone'), 'Asia/Tokyo');
            expect(ask($one, 'SHOW work_mem'), '1234kB');
            expect(ask($one, 'SHOW myapp.owner'), 'somebody');
        }
        $one->exec('RESET ALL');
        expect(ask($one, 'SHOW TimeZone') === 'Asia/Tokyo', false);
    },
    'temporary_table' => function () {
        $one = connect();
        $one->exec('CREATE TEMPORARY TABLE scratch (number int)');
        for ($number = 0; $number < 10; $number++) {
            $one->exec("INSERT INTO scratch VALUES ($number)");
        }
        expect(ask($one, 'SELECT count(*) FROM scratch'), 10);
        $one->exec('DROP TABLE scratch');
    },
    'advisory_lock' => function () {
        [$one, $two] = [connect(), connect()];
        ask($one, 'SELECT pg_advisory_lock(' . BASE . ')');
        for ($turn = 0; $turn < 5; $turn++) {
            expect(ask($two, 'SELECT pg_try_advisory_lock(' . BASE . ')'), false);
        }
        expect(ask($one, 'SELECT pg_advisory_unlock(' . BASE . ')'), true);
        expect(ask($two, 'SELECT pg_try_advisory_lock(' . BASE . ')'), true);
        expect(ask($two, 'SELECT pg_advisory_unlock(' . BASE . ')'), true);
    },
    'sql_prepare' => function () {
        $one = connect();
        $one->exec('PREPARE next (int) AS SELECT $1 + 1');
        for ($number = 0; $number < 10; $number++) {
            expect(ask($one, "EXECUTE next ($number)"), $number + 1);
        }
        $one->exec('DEALLOCATE next');
        fails($one, '26000', 'EXECUTE next (1)');
    },
    'large' => function () {
        $one = connect();
        $rows = $one->query('SELECT generate_series(1, 100000)')->fetchAll(PDO::FETCH_COLUMN);
        expect(array_sum($rows), intdiv(100000 * 100001, 2));
        expect(strlen(ask($one, "SELECT repeat('x', 8000000)")), 8000000);
        expect(ask($one, 'SELECT length(?)', [str_repeat('y', 3000000)]), 3000000);
    },
    'pool' => function () {
        // A persistent connection is kept and handed out again.
        for ($turn = 0; $turn < 20; $turn++) {
            $one = connect(MINE, '', [PDO::ATTR_PERSISTENT => true]);
            expect(ask($one, BODIES), MINE['bodies']);
            unset($one);
        }
    },
    'reconnect' => function () {
        try {
            ask(connect(), 'SELECT pg_terminate_backend(pg_backend_pid())');
        } catch (PDOException) {
            expect(ask(connect(), BODIES), MINE['bodies']);
            return;
        }
        throw new Exception('the session went on');
    },
    'isolation' => function () {
        [$mine, $other] = [connect(MINE), connect(OTHER)];
        for ($turn = 0; $turn < 30; $turn++) {
            expect(ask($mine, BODIES), MINE['bodies']);
            expect(ask($other, BODIES), OTHER['bodies']);
        }
    },
];

foreach ($scenarios as $name => $scenario) {
    try {
        $scenario();
        echo "ok $name\n";
    } catch (Absent $error) {
        echo "absent $name: {$error->getMessage()}\n";
    } catch (Throwable $error) {
        echo "not ok $name: ", preg_replace('/\s+/', ' ', $error->getMessage()), "\n";
    }
}
