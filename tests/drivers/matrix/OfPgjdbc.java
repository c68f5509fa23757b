// pgjdbc, and HikariCP as its pool. One file, run as it is: java -cp JARS OfPgjdbc.java

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.util.Arrays;
import java.util.Objects;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.postgresql.PGConnection;
import org.postgresql.util.PGobject;

class OfPgjdbc {
    record Tenant(String user, String database, String token, String bodies) {
        static Tenant of(String prefix) {
            return new Tenant(env(prefix + "USER"), env(prefix + "DBNAME"),
                env(prefix + "TOKEN"), env(prefix + "BODIES"));
        }
    }

    interface Scenario {
        void play() throws Exception;
    }

    interface Work {
        void with(Connection connection) throws Exception;
    }

    static final Tenant MINE = Tenant.of("TG_");
    static final Tenant OTHER = Tenant.of("TG_OTHER_");
    static final String BODIES = "SELECT string_agg(body, '|' ORDER BY id) FROM notes WHERE id < 1000";
    static final long BASE = Long.parseLong(System.getenv("TG_BASE"));

    static String env(String name) {
        return System.getenv(name);
    }

    static String url(Tenant who) {
        return "jdbc:postgresql://" + env("TG_HOST") + ":" + env("TG_PORT") + "/" + who.database;
    }

    static Connection connect(Tenant who, String... more) throws SQLException {
        Properties properties = new Properties();
        properties.put("user", who.user);
        properties.put("password", who.token);
        for (int at = 0; at < more.length; at += 2) {
            properties.put(more[at], more[at + 1]);
        }
        return DriverManager.getConnection(url(who), properties);
    }

    static void session(Work work, String... more) throws Exception {
        try (Connection connection = connect(MINE, more)) {
            work.with(connection);
        }
    }

    static Object ask(Connection connection, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int at = 0; at < values.length; at++) {
                statement.setObject(at + 1, values[at]);
            }
            if (!statement.execute()) {
                return null;
            }
            ResultSet rows = statement.getResultSet();
            return rows.next() ? rows.getObject(1) : null;
        }
    }

    static void expect(Object got, Object wanted) {
        if (!Objects.deepEquals(got, wanted)) {
            throw new AssertionError("got " + got + ", wanted " + wanted);
        }
    }

    static void fails(Connection connection, String sqlstate, String sql) throws SQLException {
        try {
            ask(connection, sql);
        } catch (SQLException error) {
            expect(error.getSQLState(), sqlstate);
            return;
        }
        throw new AssertionError("went through: " + sql);
    }

    static void login() throws Exception {
        session(one -> expect(ask(one, BODIES), MINE.bodies));
        String wrong = MINE.token.substring(0, MINE.token.length() - 1) + "!";
        try (Connection one = connect(new Tenant(MINE.user, MINE.database, wrong, ""))) {
            throw new AssertionError("a wrong token was let in");
        } catch (SQLException error) {
            expect(error.getSQLState(), "28P01");
        }
    }

    static void tlsRequire() throws Exception {
        session(one -> expect(ask(one, BODIES), MINE.bodies), "sslmode", "require");
    }

    static void tlsVerifyFull() throws Exception {
        String[] good = {"sslmode", "verify-full", "sslrootcert", env("TG_CA")};
        session(one -> expect(ask(one, BODIES), MINE.bodies), good);
        try (Connection one = connect(MINE, "sslmode", "verify-full",
            "sslrootcert", env("TG_WRONG_CA"))) {
            throw new AssertionError("a certificate of a stranger was accepted");
        } catch (SQLException error) {
            expect(error.getMessage().contains("SSL error"), true);
        }
    }

    static void types() throws Exception {
        byte[] bytes = new byte[256];
        for (int at = 0; at < 256; at++) {
            bytes[at] = (byte) at;
        }
        PGobject document = new PGobject();
        document.setType("jsonb");
        document.setValue("{\"a\": [1, null, \"ü\"]}");
        session(one -> {
            Object[][] values = {
                {"int4", -2147483648}, {"int8", 9223372036854775807L}, {"float8", 0.1},
                {"numeric", new BigDecimal("12345678901234567890.123456789")}, {"bool", true},
                {"text", "zażółć 'gęś' \\ $1 你好 🐘"}, {"text", null}, {"bytea", bytes},
                {"uuid", UUID.fromString("6ba7b810-9dad-11d1-80b4-00c04fd430c8")},
                {"jsonb", document},
            };
            for (int turn = 0; turn < 8; turn++) {
                // From the fifth time on the driver prepares by name and reads binary.
                for (Object[] value : values) {
                    String sql = "SELECT CAST(? AS " + value[0] + ")";
                    expect(ask(one, sql, value[1]), value[1]);
                }
            }
            Object[] words = {"a,b", "\"q\" \\", null, "ü"};
            java.sql.Array array = one.createArrayOf("text", words);
            java.sql.Array back = (java.sql.Array) ask(one, "SELECT CAST(? AS text[])", array);
            expect(back.getArray(), words);
            OffsetDateTime noon = OffsetDateTime.parse("2024-02-29T12:34:56.789012Z");
            PreparedStatement statement =
                one.prepareStatement("SELECT CAST(? AS timestamptz), CAST(? AS date)");
            statement.setObject(1, noon);
            statement.setObject(2, LocalDate.of(2024, 2, 29));
            ResultSet rows = statement.executeQuery();
            expect(rows.next(), true);
            expect(rows.getObject(1, OffsetDateTime.class).toInstant(), noon.toInstant());
            expect(rows.getObject(2, LocalDate.class), LocalDate.of(2024, 2, 29));
        });
    }

    static void prepared() throws Exception {
        String[] bodies = MINE.bodies.split("\\|");
        session(one -> {
            one.setAutoCommit(false);
            PreparedStatement by = one.prepareStatement("SELECT body FROM notes WHERE id = ?");
            for (int turn = 0; turn < 60; turn++) {
                by.setInt(1, turn % bodies.length + 1);
                ResultSet rows = by.executeQuery();
                expect(rows.next(), true);
                expect(rows.getString(1), bodies[turn % bodies.length]);
                one.commit();
            }
            PreparedStatement batch =
                one.prepareStatement("INSERT INTO notes (id, body) VALUES (?, ?)");
            for (int number = 0; number < 500; number++) {
                batch.setLong(1, BASE + number);
                batch.setString(2, "batched");
                batch.addBatch();
            }
            expect(batch.executeBatch().length, 500);
            one.rollback();
            expect(ask(one, BODIES), MINE.bodies);
        });
    }

    static void transaction() throws Exception {
        session(one -> session(two -> {
            one.setAutoCommit(false);
            ask(one, "INSERT INTO notes (id, body) VALUES (" + BASE + ", 'mine')");
            expect(ask(two, "SELECT count(*) FROM notes WHERE id = " + BASE), 0L);
            one.commit();
            ask(one, "UPDATE notes SET body = 'lost' WHERE id = " + BASE);
            one.rollback();
            String delete = "DELETE FROM notes WHERE id = " + BASE + " RETURNING body";
            expect(ask(one, delete), "mine");
            one.commit();
            one.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            one.setReadOnly(true);
            expect(ask(one, "SHOW transaction_isolation"), "serializable");
            fails(one, "25006", "INSERT INTO notes (id, body) VALUES (" + BASE + ", 'mine')");
            one.rollback();
        }));
    }

    static void savepoint() throws Exception {
        session(one -> {
            one.setAutoCommit(false);
            ask(one, "INSERT INTO notes (id, body) VALUES (" + BASE + ", 'kept')");
            Savepoint savepoint = one.setSavepoint("one");
            fails(one, "42703", "SELECT no_such_column FROM notes");
            one.rollback(savepoint);
            ask(one, "UPDATE notes SET body = 'changed' WHERE id = " + BASE);
            one.rollback(savepoint);
            one.releaseSavepoint(savepoint);
            expect(ask(one, "SELECT body FROM notes WHERE id = " + BASE), "kept");
            one.rollback();
            expect(ask(one, BODIES), MINE.bodies);
        });
    }

    static void errors() throws Exception {
        String[][] wrong = {
            {"23505", "INSERT INTO notes (id, body) VALUES (1, 'twice')"},
            {"42601", "SELEC 1"}, {"22012", "SELECT 1/0"}, {"42P01", "SELECT * FROM nowhere"},
        };
        session(one -> {
            for (String[] each : wrong) {
                fails(one, each[0], each[1]);
                expect(ask(one, BODIES), MINE.bodies);
            }
            one.setAutoCommit(false);
            fails(one, "22012", "SELECT 1/0");
            fails(one, "25P02", "SELECT 1");
            one.rollback();
            expect(ask(one, BODIES), MINE.bodies);
        });
    }

    static void copyIn() throws Exception {
        String lines = IntStream.range(0, 1000).mapToObj(number -> BASE + number + "\tcopied\n")
            .collect(Collectors.joining());
        session(one -> {
            one.setAutoCommit(false);
            long copied = one.unwrap(PGConnection.class).getCopyAPI()
                .copyIn("COPY notes (id, body) FROM STDIN", new StringReader(lines));
            expect(copied, 1000L);
            one.rollback();
            expect(ask(one, BODIES), MINE.bodies);
        });
    }

    static void copyOut() throws Exception {
        String wanted = IntStream.rangeClosed(1, 5000).mapToObj(number -> number + "\n")
            .collect(Collectors.joining());
        session(one -> {
            StringWriter out = new StringWriter();
            one.unwrap(PGConnection.class).getCopyAPI()
                .copyOut("COPY (SELECT generate_series(1, 5000)) TO STDOUT", out);
            expect(out.toString(), wanted);
        });
    }

    static void listen() throws Exception {
        String channel = "news_" + BASE;
        session(listener -> session(sender -> {
            ask(listener, "LISTEN " + channel);
            ask(sender, "NOTIFY " + channel + ", 'hello'");
            var heard = listener.unwrap(PGConnection.class).getNotifications(10000);
            expect(heard.length, 1);
            expect(heard[0].getName() + " " + heard[0].getParameter(), channel + " hello");
        }));
    }

    static void cancel() throws Exception {
        session(one -> {
            try (Statement statement = one.createStatement()) {
                statement.setQueryTimeout(1);
                statement.execute("SELECT pg_sleep(20)");
                throw new AssertionError("the query was not cancelled");
            } catch (SQLException error) {
                expect(error.getSQLState(), "57014");
            }
            expect(ask(one, BODIES), MINE.bodies);
        });
    }

    static void settings() throws Exception {
        session(one -> {
            ask(one, "SET work_mem = '1234kB'");
            ask(one, "SET myapp.owner = 'somebody'");
            one.setSchema("pg_catalog");
            for (int turn = 0; turn < 10; turn++) {
                expect(ask(one, "SHOW work_mem"), "1234kB");
                expect(ask(one, "SELECT current_setting('myapp.owner')"), "somebody");
                expect(one.getSchema(), "pg_catalog");
            }
            one.setClientInfo("ApplicationName", "matrix");
            expect(ask(one, "SHOW application_name"), "matrix");
            ask(one, "RESET ALL");
            expect(ask(one, BODIES), MINE.bodies);
            expect(Objects.equals(ask(one, "SHOW work_mem"), "1234kB"), false);
        });
    }

    static void temporaryTable() throws Exception {
        session(one -> {
            ask(one, "CREATE TEMPORARY TABLE scratch (number int)");
            for (int number = 0; number < 10; number++) {
                ask(one, "INSERT INTO scratch VALUES (?)", number);
            }
            expect(ask(one, "SELECT count(*) FROM scratch"), 10L);
            ask(one, "DROP TABLE scratch");
        });
    }

    static void advisoryLock() throws Exception {
        session(one -> session(two -> {
            ask(one, "SELECT pg_advisory_lock(" + BASE + ")");
            for (int turn = 0; turn < 5; turn++) {
                expect(ask(two, "SELECT pg_try_advisory_lock(" + BASE + ")"), false);
            }
            expect(ask(one, "SELECT pg_advisory_unlock(" + BASE + ")"), true);
            expect(ask(two, "SELECT pg_try_advisory_lock(" + BASE + ")"), true);
            expect(ask(two, "SELECT pg_advisory_unlock(" + BASE + ")"), true);
        }));
    }

    static void sqlPrepare() throws Exception {
        session(one -> {
            ask(one, "PREPARE next (int) AS SELECT $1 + 1");
            for (int number = 0; number < 10; number++) {
                expect(ask(one, "EXECUTE next (" + number + ")"), number + 1);
            }
            ask(one, "DEALLOCATE next");
            fails(one, "26000", "EXECUTE next (1)");
        });
    }

    static void large() throws Exception {
        session(one -> {
            one.setAutoCommit(false);
            // Fetched in pieces, by a portal that stays open.
            Statement statement = one.createStatement();
            statement.setFetchSize(1000);
            ResultSet rows = statement.executeQuery("SELECT generate_series(1, 100000)");
            long sum = 0;
            while (rows.next()) {
                sum += rows.getLong(1);
            }
            expect(sum, 100000L * 100001 / 2);
            expect(((String) ask(one, "SELECT repeat('x', 8000000)")).length(), 8000000);
            expect(ask(one, "SELECT length(?)", "y".repeat(3000000)), 3000000);
            one.commit();
        });
    }

    static void pool() throws Exception {
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl(url(MINE));
        config.setUsername(MINE.user);
        config.setPassword(MINE.token);
        config.setMaximumPoolSize(4);
        var threads = Executors.newFixedThreadPool(8);
        try (HikariDataSource pool = new HikariDataSource(config)) {
            Callable<Object> one = () -> {
                try (Connection connection = pool.getConnection()) {
                    return ask(connection, BODIES);
                }
            };
            for (var said : threads.invokeAll(java.util.Collections.nCopies(40, one))) {
                expect(said.get(), MINE.bodies);
            }
        } finally {
            threads.shutdown();
        }
    }

    static void reconnect() throws Exception {
        session(one -> {
            try {
                ask(one, "SELECT pg_terminate_backend(pg_backend_pid())");
                throw new AssertionError("the session went on");
            } catch (SQLException error) {
                expect(one.isValid(1), false);
            }
        });
        session(one -> expect(ask(one, BODIES), MINE.bodies));
    }

    static void isolation() throws Exception {
        try (Connection mine = connect(MINE); Connection other = connect(OTHER)) {
            for (int turn = 0; turn < 30; turn++) {
                expect(ask(mine, BODIES), MINE.bodies);
                expect(ask(other, BODIES), OTHER.bodies);
            }
        }
    }

    static void say(String name, Scenario scenario) {
        try {
            scenario.play();
            System.out.println("ok " + name);
        } catch (Exception | AssertionError error) {
            String why = Arrays.stream(String.valueOf(error).split("\\s+"))
                .collect(Collectors.joining(" "));
            System.out.println("not ok " + name + ": " + why);
        }
    }

    public static void main(String[] arguments) {
        say("login", OfPgjdbc::login);
        say("tls_require", OfPgjdbc::tlsRequire);
        say("tls_verify_full", OfPgjdbc::tlsVerifyFull);
        say("types", OfPgjdbc::types);
        say("prepared", OfPgjdbc::prepared);
        say("transaction", OfPgjdbc::transaction);
        say("savepoint", OfPgjdbc::savepoint);
        say("errors", OfPgjdbc::errors);
        say("copy_in", OfPgjdbc::copyIn);
        say("copy_out", OfPgjdbc::copyOut);
        say("listen", OfPgjdbc::listen);
        say("cancel", OfPgjdbc::cancel);
        say("settings", OfPgjdbc::settings);
        say("temporary_table", OfPgjdbc::temporaryTable);
        say("advisory_lock", OfPgjdbc::advisoryLock);
        say("sql_prepare", OfPgjdbc::sqlPrepare);
        say("large", OfPgjdbc::large);
        say("pool", OfPgjdbc::pool);
        say("reconnect", OfPgjdbc::reconnect);
        say("isolation", OfPgjdbc::isolation);
    }
}
