/* libpq itself, in C: cc of_libpq.c -lpq */

#include <libpq-fe.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BODIES "SELECT string_agg(body, '|' ORDER BY id) FROM notes WHERE id < 1000"

/* Why the scenario at hand failed; empty while it has not. */
static char wrong[2000];
static long base;

static void complain(const char *format, ...) {
    va_list values;
    if (wrong[0]) return;
    va_start(values, format);
    vsnprintf(wrong, sizeof wrong, format, values);
    va_end(values);
    for (char *at = wrong; *at; at++)
        if (*at == '\n') *at = ' ';
}

static void same(const char *got, const char *wanted) {
    if (strcmp(got, wanted)) complain("got %s, wanted %s", got, wanted);
}

static PGconn *connect_with(const char *prefix, const char *token, const char *mode,
                            const char *authority) {
    char user[40], database[40];
    snprintf(user, sizeof user, "%sUSER", prefix);
    snprintf(database, sizeof database, "%sDBNAME", prefix);
    const char *keys[] = {"host",     "port",    "user",        "dbname",
                          "password", "sslmode", "sslrootcert", 0};
    const char *values[] = {getenv("TG_HOST"), getenv("TG_PORT"), getenv(user), getenv(database),
                            token, mode, authority, 0};
    return PQconnectdbParams(keys, values, 0);
}

static PGconn *open_session(const char *prefix) {
    char token[40];
    snprintf(token, sizeof token, "%sTOKEN", prefix);
    PGconn *one = connect_with(prefix, getenv(token), 0, 0);
    if (PQstatus(one) != CONNECTION_OK) complain("%s", PQerrorMessage(one));
    return one;
}

static PGconn *mine(void) { return open_session("TG_"); }

/* The first value of the first row must be this, or there is none. */
static void shows_result(PGconn *one, PGresult *result, const char *wanted) {
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
        complain("%s", PQerrorMessage(one));
    else if (wanted) same(PQntuples(result) ? PQgetvalue(result, 0, 0) : "no row", wanted);
    PQclear(result);
}

static void shows(PGconn *one, const char *sql, const char *wanted) {
    if (!wrong[0]) shows_result(one, PQexec(one, sql), wanted);
}

static void run(PGconn *one, const char *sql) { shows(one, sql, 0); }

static void runf(PGconn *one, const char *wanted, const char *format, ...) {
    char sql[500];
    va_list values;
    va_start(values, format);
    vsnprintf(sql, sizeof sql, format, values);
    va_end(values);
    shows(one, sql, wanted);
}

static void failed(PGresult *result, const char *sqlstate) {
    const char *said = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    same(said ? said : "no error", sqlstate);
    PQclear(result);
}

static void fails(PGconn *one, const char *sqlstate, const char *sql) {
    if (!wrong[0]) failed(PQexec(one, sql), sqlstate);
}

static void refused(PGconn *one, const char *text) {
    if (PQstatus(one) == CONNECTION_OK) complain("it was let in");
    else if (!strstr(PQerrorMessage(one), text)) complain("%s", PQerrorMessage(one));
    PQfinish(one);
}

static void login(void) {
    PGconn *one = mine();
    shows(one, BODIES, getenv("TG_BODIES"));
    PQfinish(one);
    char *token = strdup(getenv("TG_TOKEN"));
    token[strlen(token) - 1] = '!';
    refused(connect_with("TG_", token, 0, 0), "authentication failed");
    free(token);
}

static void tls_require(void) {
    PGconn *one = connect_with("TG_", getenv("TG_TOKEN"), "require", 0);
    shows(one, BODIES, getenv("TG_BODIES"));
    if (!PQsslInUse(one)) complain("there is no TLS");
    PQfinish(one);
}

static void tls_verify_full(void) {
    const char *token = getenv("TG_TOKEN");
    PGconn *one = connect_with("TG_", token, "verify-full", getenv("TG_CA"));
    shows(one, BODIES, getenv("TG_BODIES"));
    PQfinish(one);
    one = connect_with("TG_", token, "verify-full", getenv("TG_WRONG_CA"));
    refused(one, "SSL error");
}

static void types(void) {
    PGconn *one = mine();
    const char *values[][2] = {
        {"int4", "-2147483648"}, {"int8", "9223372036854775807"}, {"float8", "0.1"}, {"bool", "t"},
        {"numeric", "12345678901234567890.123456789"}, {"date", "2024-02-29"},
        {"text", "zażółć 'gęś' \\ $1 你好 🐘"}, {"bytea", "\\x00ff5c27"},
        {"uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"}, {"jsonb", "{\"a\": [1, null]}"},
        {"int4[]", "{1,NULL,-3}"}, {"text[]", "{\"a,b\",NULL,ü}"}, {"text", 0},
    };
    for (size_t at = 0; at < sizeof values / sizeof *values; at++) {
        char sql[100];
        snprintf(sql, sizeof sql, "SELECT CAST($1 AS %s)", values[at][0]);
        const char *wanted = values[at][1] ? values[at][1] : "";
        shows_result(one, PQexecParams(one, sql, 1, 0, &values[at][1], 0, 0, 0), wanted);
    }
    char everything[256];
    for (int byte = 0; byte < 256; byte++) everything[byte] = (char)byte;
    const char *value = everything;
    int length = sizeof everything, binary = 1;
    const char *sql = "SELECT CAST($1 AS bytea)";
    PGresult *result = PQexecParams(one, sql, 1, 0, &value, &length, &binary, 1);
    if (PQgetlength(result, 0, 0) != length || memcmp(PQgetvalue(result, 0, 0), value, 256))
        complain("the bytes came back otherwise");
    PQclear(result);
    PQfinish(one);
}

static void prepared(void) {
    PGconn *one = mine();
    PQclear(PQprepare(one, "by_id", "SELECT body FROM notes WHERE id = $1", 0, 0));
    for (int turn = 0; turn < 60 && !wrong[0]; turn++) {
        char id[2] = {(char)('1' + turn % 3), 0}, wanted[200];
        char *bodies = strdup(getenv("TG_BODIES"));
        const char *value = id, *body = strtok(bodies, "|");
        for (int skip = turn % 3; skip; skip--) body = strtok(0, "|");
        snprintf(wanted, sizeof wanted, "%s", body);
        free(bodies);
        shows_result(one, PQexecPrepared(one, "by_id", 1, &value, 0, 0, 0), wanted);
    }
    PGresult *result = PQdescribePrepared(one, "by_id");
    if (PQnparams(result) != 1 || PQnfields(result) != 1) complain("it is described otherwise");
    PQclear(result);
    /* A pipeline with an error in its middle. */
    PQenterPipelineMode(one);
    const char *sql[] = {"SELECT 1", "SELECT 1/0", "SELECT 3"};
    for (int at = 0; at < 3; at++) PQsendQueryParams(one, sql[at], 0, 0, 0, 0, 0, 0);
    PQpipelineSync(one);
    ExecStatusType wanted[] = {PGRES_TUPLES_OK, PGRES_FATAL_ERROR, PGRES_PIPELINE_ABORTED};
    for (int at = 0; at < 3; at++) {
        result = PQgetResult(one);
        if (PQresultStatus(result) != wanted[at]) complain("pipeline: %d", PQresultStatus(result));
        PQclear(result);
        PQclear(PQgetResult(one));
    }
    result = PQgetResult(one);
    if (PQresultStatus(result) != PGRES_PIPELINE_SYNC) complain("no sync");
    PQclear(result);
    PQexitPipelineMode(one);
    shows(one, BODIES, getenv("TG_BODIES"));
    PQfinish(one);
}

static void transaction(void) {
    PGconn *one = mine(), *two = mine();
    run(one, "BEGIN");
    runf(one, 0, "INSERT INTO notes (id, body) VALUES (%ld, 'mine')", base);
    runf(two, "0", "SELECT count(*) FROM notes WHERE id = %ld", base);
    run(one, "COMMIT");
    run(one, "BEGIN");
    runf(one, 0, "UPDATE notes SET body = 'lost' WHERE id = %ld", base);
    if (PQtransactionStatus(one) != PQTRANS_INTRANS) complain("no transaction");
    run(one, "ROLLBACK");
    runf(one, "mine", "DELETE FROM notes WHERE id = %ld RETURNING body", base);
    PQfinish(one);
    PQfinish(two);
}

static void savepoint(void) {
    PGconn *one = mine();
    run(one, "BEGIN");
    runf(one, 0, "INSERT INTO notes (id, body) VALUES (%ld, 'kept')", base);
    run(one, "SAVEPOINT one");
    fails(one, "42703", "SELECT no_such_column FROM notes");
    if (PQtransactionStatus(one) != PQTRANS_INERROR) complain("no failed transaction");
    run(one, "ROLLBACK TO SAVEPOINT one");
    runf(one, 0, "UPDATE notes SET body = 'changed' WHERE id = %ld", base);
    run(one, "ROLLBACK TO SAVEPOINT one");
    runf(one, "kept", "SELECT body FROM notes WHERE id = %ld", base);
    run(one, "ROLLBACK");
    shows(one, BODIES, getenv("TG_BODIES"));
    PQfinish(one);
}

static void errors(void) {
    PGconn *one = mine();
    const char *bad[][2] = {
        {"23505", "INSERT INTO notes (id, body) VALUES (1, 'twice')"}, {"42601", "SELEC 1"},
        {"22012", "SELECT 1/0"}, {"42P01", "SELECT * FROM nowhere"},
    };
    for (int at = 0; at < 4; at++) {
        fails(one, bad[at][0], bad[at][1]);
        failed(PQexecParams(one, bad[at][1], 0, 0, 0, 0, 0, 0), bad[at][0]);
        shows(one, BODIES, getenv("TG_BODIES"));
    }
    run(one, "BEGIN");
    fails(one, "22012", "SELECT 1/0");
    fails(one, "25P02", "SELECT 1");
    run(one, "ROLLBACK");
    PQfinish(one);
}

static void copy_in(void) {
    PGconn *one = mine();
    run(one, "BEGIN");
    PQclear(PQexec(one, "COPY notes (id, body) FROM STDIN"));
    for (int number = 0; number < 1000 && !wrong[0]; number++) {
        char line[60];
        int length = snprintf(line, sizeof line, "%ld\tcopied\n", base + number);
        if (PQputCopyData(one, line, length) != 1) complain("%s", PQerrorMessage(one));
    }
    if (PQputCopyEnd(one, 0) != 1) complain("%s", PQerrorMessage(one));
    shows_result(one, PQgetResult(one), 0);
    PQclear(PQgetResult(one));
    shows(one, "SELECT count(*) FROM notes WHERE body = 'copied'", "1000");
    run(one, "ROLLBACK");
    PQclear(PQexec(one, "COPY notes (id, body) FROM STDIN"));
    PQputCopyEnd(one, "changed my mind");
    failed(PQgetResult(one), "57014");
    PQclear(PQgetResult(one));
    shows(one, BODIES, getenv("TG_BODIES"));
    PQfinish(one);
}

static void copy_out(void) {
    PGconn *one = mine();
    PQclear(PQexec(one, "COPY (SELECT generate_series(1, 5000)) TO STDOUT"));
    char *line;
    long sum = 0;
    while (PQgetCopyData(one, &line, 0) > 0) {
        sum += atol(line);
        PQfreemem(line);
    }
    if (sum != 5000L * 5001 / 2) complain("the sum is %ld", sum);
    shows_result(one, PQgetResult(one), 0);
    PQfinish(one);
}

static void listen_and_notify(void) {
    PGconn *listener = mine(), *sender = mine();
    char channel[40];
    snprintf(channel, sizeof channel, "news_%ld", base);
    runf(listener, 0, "LISTEN %s", channel);
    runf(sender, 0, "NOTIFY %s, 'hello'", channel);
    PGnotify *heard = 0;
    while (!wrong[0] && !(PQconsumeInput(listener), heard = PQnotifies(listener))) {
        struct pollfd wait = {PQsocket(listener), POLLIN, 0};
        if (poll(&wait, 1, 10000) != 1) complain("nothing was heard");
    }
    if (heard) same(heard->relname, channel), same(heard->extra, "hello");
    PQfreemem(heard);
    PQfinish(listener);
    PQfinish(sender);
}

static void cancel(void) {
    PGconn *one = mine();
    PGcancel *how = PQgetCancel(one);
    char said[256] = "";
    PQsendQuery(one, "SELECT pg_sleep(20)");
    usleep(300000);
    if (!PQcancel(how, said, sizeof said)) complain("%s", said);
    failed(PQgetResult(one), "57014");
    PQclear(PQgetResult(one));
    PQfreeCancel(how);
    shows(one, BODIES, getenv("TG_BODIES"));
    PQfinish(one);
}

static void settings(void) {
    PGconn *one = mine();
    run(one, "SET TimeZone = 'Asia/Tokyo'");
    run(one, "SET work_mem = '1234kB'; SET myapp.owner = 'somebody'");
    for (int turn = 0; turn < 10; turn++) {
        shows(one, "SHOW TimeZone", "Asia/Tokyo");
        shows(one, "SHOW work_mem", "1234kB");
        shows(one, "SHOW myapp.owner", "somebody");
    }
    same(PQparameterStatus(one, "TimeZone"), "Asia/Tokyo");
    run(one, "RESET ALL");
    shows(one, "SELECT current_setting('TimeZone') = 'Asia/Tokyo'", "f");
    PQfinish(one);
}

static void temporary_table(void) {
    PGconn *one = mine();
    run(one, "CREATE TEMPORARY TABLE scratch (number int)");
    for (int number = 0; number < 10; number++)
        runf(one, 0, "INSERT INTO scratch VALUES (%d)", number);
    shows(one, "SELECT count(*) FROM scratch", "10");
    run(one, "DROP TABLE scratch");
    PQfinish(one);
}

static void advisory_lock(void) {
    PGconn *one = mine(), *two = mine();
    runf(one, 0, "SELECT pg_advisory_lock(%ld)", base);
    for (int turn = 0; turn < 5; turn++) runf(two, "f", "SELECT pg_try_advisory_lock(%ld)", base);
    runf(one, "t", "SELECT pg_advisory_unlock(%ld)", base);
    runf(two, "t", "SELECT pg_try_advisory_lock(%ld)", base);
    runf(two, "t", "SELECT pg_advisory_unlock(%ld)", base);
    PQfinish(one);
    PQfinish(two);
}

static void sql_prepare(void) {
    PGconn *one = mine();
    run(one, "PREPARE next (int) AS SELECT $1 + 1");
    for (int number = 0; number < 9; number++) {
        char wanted[2] = {(char)('1' + number), 0};
        runf(one, wanted, "EXECUTE next (%d)", number);
    }
    run(one, "DEALLOCATE next");
    fails(one, "26000", "EXECUTE next (1)");
    PQfinish(one);
}

static void large(void) {
    PGconn *one = mine();
    long sum = 0;
    PQsendQuery(one, "SELECT generate_series(1, 100000)");
    PQsetSingleRowMode(one);
    for (PGresult *row; (row = PQgetResult(one)); PQclear(row))
        if (PQntuples(row)) sum += atol(PQgetvalue(row, 0, 0));
    if (sum != 100000L * 100001 / 2) complain("the sum is %ld", sum);
    PGresult *result = PQexec(one, "SELECT repeat('x', 8000000)");
    if (PQgetlength(result, 0, 0) != 8000000) complain("the length is otherwise");
    PQclear(result);
    PQfinish(one);
}

static void reconnect(void) {
    PGconn *one = mine();
    PQclear(PQexec(one, "SELECT pg_terminate_backend(pg_backend_pid())"));
    PQclear(PQexec(one, "SELECT 1"));
    if (PQstatus(one) == CONNECTION_OK) complain("the session went on");
    PQreset(one);
    shows(one, BODIES, getenv("TG_BODIES"));
    PQfinish(one);
}

static void isolation(void) {
    PGconn *one = mine(), *other = open_session("TG_OTHER_");
    for (int turn = 0; turn < 30; turn++) {
        shows(one, BODIES, getenv("TG_BODIES"));
        shows(other, BODIES, getenv("TG_OTHER_BODIES"));
    }
    PQfinish(one);
    PQfinish(other);
}

int main(void) {
    struct { const char *name; void (*play)(void); } scenarios[] = {
        {"login", login}, {"tls_require", tls_require}, {"tls_verify_full", tls_verify_full},
        {"types", types}, {"prepared", prepared}, {"transaction", transaction},
        {"savepoint", savepoint}, {"errors", errors}, {"copy_in", copy_in}, {"copy_out", copy_out},
        {"listen", listen_and_notify}, {"cancel", cancel}, {"settings", settings},
        {"temporary_table", temporary_table}, {"advisory_lock", advisory_lock},
        {"sql_prepare", sql_prepare}, {"large", large}, {"pool", 0}, {"reconnect", reconnect},
        {"isolation", isolation},
    };
    base = atol(getenv("TG_BASE"));
    for (size_t at = 0; at < sizeof scenarios / sizeof *scenarios; at++) {
        wrong[0] = 0;
        if (scenarios[at].play) scenarios[at].play();
        if (!scenarios[at].play) printf("absent %s: the driver has no pool\n", scenarios[at].name);
        else if (wrong[0]) printf("not ok %s: %s\n", scenarios[at].name, wrong);
        else printf("ok %s\n", scenarios[at].name);
        fflush(stdout);
    }
}
