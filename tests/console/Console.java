import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;

/** pgJDBC at the console: in each of its query modes, prepared until it turns to binary. */
public class Console {
    public static void main(String[] arguments) throws Exception {
        for (String mode : new String[] {"simple", "extended", "extendedForPrepared"}) {
            Properties settings = new Properties();
            settings.setProperty("user", "admin");
            settings.setProperty("password", System.getenv("TG_PASSWORD"));
            settings.setProperty("sslmode", "disable");
            settings.setProperty("preferQueryMode", mode);
            String url = "jdbc:postgresql://127.0.0.1:" + System.getenv("TG_PORT") + "/tenantgate";
            try (Connection connection = DriverManager.getConnection(url, settings)) {
                look(connection);
                act(connection);
                connection.setAutoCommit(false);
                look(connection);
                connection.commit();
            }
        }
        System.out.println("ok pgjdbc");
    }

    private static void look(Connection connection) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement("SHOW CLIENTS")) {
            for (int round = 0; round < 8; round++) {
                try (ResultSet rows = statement.executeQuery()) {
                    check(rows.next() && rows.getLong("id") > 0, "an id");
                    check("C".equals(rows.getString("type")), "a type");
                }
            }
        }
        try (Statement statement = connection.createStatement();
                ResultSet rows = statement.executeQuery("SHOW STATS")) {
            check(rows.next(), "a row");
            check(rows.getBigDecimal("total_query_count").signum() >= 0, "a total");
        }
    }

    private static void act(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute("PAUSE");
            statement.execute("RESUME");
            try {
                statement.execute("RESUME");
                check(false, "a refusal");
            } catch (SQLException error) {
                check("55000".equals(error.getSQLState()), error.toString());
            }
        }
    }

    private static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }
}
