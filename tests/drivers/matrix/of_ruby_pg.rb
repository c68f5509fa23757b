# Ruby's pg, on libpq.

require "bigdecimal"
require "date"
require "json"
require "pg"

$stdout.sync = true
HOST, PORT = ENV.fetch("TG_HOST"), ENV.fetch("TG_PORT")
MINE, OTHER = ["TG_", "TG_OTHER_"].map do |prefix|
  %w[USER DBNAME TOKEN BODIES].to_h { |key| [key, ENV.fetch(prefix + key)] }
end
BODIES = "SELECT string_agg(body, '|' ORDER BY id) FROM notes WHERE id < 1000"
BASE = Integer(ENV.fetch("TG_BASE"))

class Absent < StandardError; end

def expect(got, wanted)
  raise "got #{got.inspect}, wanted #{wanted.inspect}" unless got == wanted
end

def connect(who = MINE, **more)
  PG.connect(host: HOST, port: PORT, user: who["USER"], dbname: who["DBNAME"],
             password: who["TOKEN"], **more)
end

def session(who = MINE, **more)
  connection = connect(who, **more)
  yield connection
ensure
  connection&.finish unless connection&.finished?
end

def ask(connection, sql, values = nil)
  result = values ? connection.exec_params(sql, values) : connection.exec(sql)
  result.ntuples.zero? ? nil : result.getvalue(0, 0)
end

def fails(connection, sqlstate, sql)
  begin
    ask(connection, sql)
  rescue PG::Error => error
    return expect(error.result.error_field(PG::PG_DIAG_SQLSTATE), sqlstate)
  end
  raise "went through: #{sql}"
end

def refuses(text)
  yield
rescue PG::Error => error
  expect(error.message.include?(text), true)
else
  raise "went through"
end

SCENARIOS = {
  login: lambda do
    session { |one| expect(ask(one, BODIES), MINE["BODIES"]) }
    wrong = MINE.merge("TOKEN" => MINE["TOKEN"].chop + "!")
    refuses("authentication failed") { connect(wrong) }
  end,

  tls_require: lambda do
    session(sslmode: "require") { |one| expect(ask(one, BODIES), MINE["BODIES"]) }
  end,

  tls_verify_full: lambda do
    session(sslmode: "verify-full", sslrootcert: ENV.fetch("TG_CA")) do |one|
      expect(ask(one, BODIES), MINE["BODIES"])
    end
    wrong = { sslmode: "verify-full", sslrootcert: ENV.fetch("TG_WRONG_CA") }
    refuses("SSL error") { connect(MINE, **wrong) }
  end,

  types: lambda do
    bytes = (0..255).to_a.pack("C*")
    session do |one|
      one.type_map_for_results = PG::BasicTypeMapForResults.new(one)
      one.type_map_for_queries = PG::BasicTypeMapForQueries.new(one)
      [["int4", -2147483648], ["int8", 9223372036854775807], ["float8", 0.1],
       ["numeric", BigDecimal("12345678901234567890.123456789")], ["bool", true], ["text", nil],
       ["text", "zażółć 'gęś' \\ $1 你好 🐘"], ["date", Date.new(2024, 2, 29)],
       ["timestamptz", Time.utc(2024, 2, 29, 12, 34, 56, 789012)],
       ["int4[]", [1, nil, -3]], ["text[]", ["a,b", '"q" \\', nil, "ü"]],
       ["uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"]].each do |name, value|
        expect(ask(one, "SELECT CAST($1 AS #{name})", [value]), value)
      end
      binary = PG::BasicTypeMapForQueries::BinaryData.new(bytes)
      expect(ask(one, "SELECT CAST($1 AS bytea)", [binary]), bytes)
      document = { "a" => [1, nil, "ü"], "b" => { "c" => true } }
      expect(ask(one, "SELECT CAST($1 AS json)", [JSON.generate(document)]), document)
    end
  end,

  prepared: lambda do
    bodies = MINE["BODIES"].split("|")
    session do |one|
      one.prepare("by_id", "SELECT body FROM notes WHERE id = $1")
      60.times do |turn|
        number = turn % bodies.length
        expect(one.exec_prepared("by_id", [number + 1]).getvalue(0, 0), bodies[number])
      end
      expect(one.describe_prepared("by_id").nparams, 1)
      one.enter_pipeline_mode
      20.times { |turn| one.send_query_params("SELECT $1::int", [turn]) }
      one.pipeline_sync
      20.times { |turn| expect([one.get_result.getvalue(0, 0), one.get_result], [turn.to_s, nil]) }
      expect(one.get_result.result_status, PG::PGRES_PIPELINE_SYNC)
      one.exit_pipeline_mode
      expect(ask(one, BODIES), MINE["BODIES"])
    end
  end,

  transaction: lambda do
    count = "SELECT count(*) FROM notes WHERE id = #{BASE}"
    session do |one|
      one.transaction do
        ask(one, "INSERT INTO notes (id, body) VALUES (#{BASE}, 'mine')")
        session { |two| expect(ask(two, count), "0") }
      end
      begin
        one.transaction do
          ask(one, "UPDATE notes SET body = 'lost' WHERE id = #{BASE}")
          raise KeyError
        end
      rescue KeyError
        expect(one.transaction_status, PG::PQTRANS_IDLE)
      end
      expect(ask(one, "DELETE FROM notes WHERE id = #{BASE} RETURNING body"), "mine")
    end
  end,

  savepoint: lambda do
    session do |one|
      ask(one, "BEGIN")
      ask(one, "INSERT INTO notes (id, body) VALUES (#{BASE}, 'kept')")
      ask(one, "SAVEPOINT one")
      fails(one, "42703", "SELECT no_such_column FROM notes")
      ask(one, "ROLLBACK TO SAVEPOINT one")
      ask(one, "UPDATE notes SET body = 'changed' WHERE id = #{BASE}")
      ask(one, "ROLLBACK TO SAVEPOINT one")
      expect(ask(one, "SELECT body FROM notes WHERE id = #{BASE}"), "kept")
      ask(one, "ROLLBACK")
      expect(ask(one, BODIES), MINE["BODIES"])
    end
  end,

  errors: lambda do
    session do |one|
      { "23505" => "INSERT INTO notes (id, body) VALUES (1, 'twice')", "42601" => "SELEC 1",
        "22012" => "SELECT 1/0", "42P01" => "SELECT * FROM nowhere" }.each do |sqlstate, sql|
        fails(one, sqlstate, sql)
        expect(ask(one, BODIES), MINE["BODIES"])
      end
      ask(one, "BEGIN")
      fails(one, "22012", "SELECT 1/0")
      fails(one, "25P02", "SELECT 1")
      ask(one, "ROLLBACK")
    end
  end,

  copy_in: lambda do
    session do |one|
      ask(one, "BEGIN")
      one.copy_data("COPY notes (id, body) FROM STDIN") do
        1000.times { |number| one.put_copy_data("#{BASE + number}\tcopied\n") }
      end
      expect(ask(one, "SELECT count(*) FROM notes WHERE body = 'copied'"), "1000")
      ask(one, "ROLLBACK")
      begin
        one.copy_data("COPY notes (id, body) FROM STDIN") { raise KeyError }
      rescue KeyError
        expect(ask(one, BODIES), MINE["BODIES"])
      end
    end
  end,

  copy_out: lambda do
    session do |one|
      lines = []
      one.copy_data("COPY (SELECT generate_series(1, 5000)) TO STDOUT") do
        while (line = one.get_copy_data)
          lines << line.to_i
        end
      end
      expect(lines, (1..5000).to_a)
    end
  end,

  listen: lambda do
    channel = "news_#{BASE}"
    session do |listener|
      session do |sender|
        ask(listener, "LISTEN #{channel}")
        ask(sender, "NOTIFY #{channel}, 'hello'")
        heard = nil
        listener.wait_for_notify(10) { |name, _, payload| heard = [name, payload] }
        expect(heard, [channel, "hello"])
      end
    end
  end,

  cancel: lambda do
    session do |one|
      one.send_query("SELECT pg_sleep(20)")
      sleep 0.3
      expect(one.cancel, nil)
      begin
        one.get_last_result
        raise "the query was not cancelled"
      rescue PG::QueryCanceled
        expect(ask(one, BODIES), MINE["BODIES"])
      end
    end
  end,

  settings: lambda do
    session do |one|
      ask(one, "SET TimeZone = 'Asia/Tokyo'")
      ask(one, "SET work_mem = '1234kB'")
      ask(one, "SET myapp.owner = 'somebody'")
      10.times do
        expect(ask(one, "SHOW TimeZone"), "Asia/Tokyo")
        expect(ask(one, "SHOW work_mem"), "1234kB")
        expect(ask(one, "SHOW myapp.owner"), "somebody")
      end
      expect(one.parameter_status("TimeZone"), "Asia/Tokyo")
      one.reset
      expect(ask(one, "SHOW TimeZone") == "Asia/Tokyo", false)
    end
  end,

  temporary_table: lambda do
    session do |one|
      ask(one, "CREATE TEMPORARY TABLE scratch (number int)")
      10.times { |number| ask(one, "INSERT INTO scratch VALUES (#{number})") }
      expect(ask(one, "SELECT count(*) FROM scratch"), "10")
      ask(one, "DROP TABLE scratch")
    end
  end,

  advisory_lock: lambda do
    session do |one|
      session do |two|
        ask(one, "SELECT pg_advisory_lock(#{BASE})")
        5.times { expect(ask(two, "SELECT pg_try_advisory_lock(#{BASE})"), "f") }
        expect(ask(one, "SELECT pg_advisory_unlock(#{BASE})"), "t")
        expect(ask(two, "SELECT pg_try_advisory_lock(#{BASE})"), "t")
        expect(ask(two, "SELECT pg_advisory_unlock(#{BASE})"), "t")
      end
    end
  end,

  sql_prepare: lambda do
    session do |one|
      ask(one, "PREPARE next (int) AS SELECT $1 + 1")
      10.times { |number| expect(ask(one, "EXECUTE next (#{number})"), (number + 1).to_s) }
      ask(one, "DEALLOCATE next")
      fails(one, "26000", "EXECUTE next (1)")
    end
  end,

  large: lambda do
    session do |one|
      one.send_query("SELECT generate_series(1, 100000)")
      one.set_single_row_mode
      sum = 0
      one.get_result.stream_each_row { |row| sum += row[0].to_i }
      expect([sum, one.get_result], [100000 * 100001 / 2, nil])
      expect(ask(one, "SELECT repeat('x', 8000000)").length, 8000000)
      expect(ask(one, "SELECT length($1)", ["y" * 3000000]), "3000000")
    end
  end,

  pool: -> { raise Absent, "the driver has no pool" },

  reconnect: lambda do
    session do |one|
      begin
        ask(one, "SELECT pg_terminate_backend(pg_backend_pid())")
        raise "the session went on"
      rescue PG::Error
        one.reset
      end
      expect(ask(one, BODIES), MINE["BODIES"])
    end
  end,

  isolation: lambda do
    session(MINE) do |mine|
      session(OTHER) do |other|
        30.times do
          expect(ask(mine, BODIES), MINE["BODIES"])
          expect(ask(other, BODIES), OTHER["BODIES"])
        end
      end
    end
  end,
}.freeze

SCENARIOS.each do |name, scenario|
  scenario.call
  puts "ok #{name}"
rescue Absent => error
  puts "absent #{name}: #{error.message}"
rescue StandardError => error
  puts "not ok #{name}: #{error.class} #{error.message.split.join(' ')}"
end
