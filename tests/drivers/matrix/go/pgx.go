package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgtype"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

type pgxDriver struct{}

// A connection, or a transaction on it.
type pgxSession struct {
	connection *pgx.Conn
	inside     pgx.Tx
}

var always = context.Background()

func (pgxDriver) connect(who tenant, more string) (session, error) {
	connection, err := pgx.Connect(always, conninfo(who, more))
	return pgxSession{connection: connection}, err
}

func (s pgxSession) ask(sql string, into any, values ...any) error {
	if into == nil {
		_, err := s.connection.Exec(always, sql, values...)
		return err
	}
	return s.connection.QueryRow(always, sql, values...).Scan(into)
}

func (s pgxSession) begin() (session, error) {
	inside, err := s.connection.Begin(always)
	return pgxSession{s.connection, inside}, err
}

func (s pgxSession) commit() error   { return s.inside.Commit(always) }
func (s pgxSession) rollback() error { return s.inside.Rollback(always) }
func (s pgxSession) close()          { s.connection.Close(always) }

func (pgxDriver) sqlstate(err error) string {
	var said *pgconn.PgError
	if errors.As(err, &said) {
		return said.Code
	}
	return err.Error()
}

func mineByPgx(work func(*pgx.Conn) error) error {
	connection, err := pgx.Connect(always, conninfo(mine, ""))
	if err != nil {
		return err
	}
	defer connection.Close(always)
	return work(connection)
}

func back[T any](connection *pgx.Conn, name string, value T) error {
	var got T
	err := connection.QueryRow(always, "SELECT CAST($1 AS "+name+")", value).Scan(&got)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return same(got, value)
}

func (pgxDriver) types() error {
	var everyByte []byte
	for value := 0; value < 256; value++ {
		everyByte = append(everyByte, byte(value))
	}
	number, _ := new(big.Int).SetString("12345678901234567890123456789", 10)
	exact := pgtype.Numeric{Int: number, Exp: -9, Status: pgtype.Present}
	return mineByPgx(func(one *pgx.Conn) error {
		for _, err := range []error{
			back(one, "int4", int32(-2147483648)), back(one, "int8", int64(9223372036854775807)),
			back(one, "float8", 0.1), back(one, "bool", true), back(one, "bytea", everyByte),
			back(one, "text", "zażółć 'gęś' \\ $1 你好 🐘"), back[*string](one, "text", nil),
			back(one, "int4[]", []int32{1, -3}), back(one, "text[]", []string{"a,b", `"q" \`, "ü"}),
			back(one, "date", time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)),
			back(one, "uuid", [16]byte{0x6b, 0xa7, 15: 0xc8}), back(one, "numeric", exact),
			back(one, "jsonb", map[string]any{"a": []any{1.0, nil, "ü"}}),
		} {
			if err != nil {
				return err
			}
		}
		var noon time.Time
		wanted := time.Date(2024, 2, 29, 12, 34, 56, 789012000, time.UTC)
		err := one.QueryRow(always, "SELECT CAST($1 AS timestamptz)", wanted).Scan(&noon)
		if err == nil && !noon.Equal(wanted) {
			return fmt.Errorf("got %v, wanted %v", noon, wanted)
		}
		return err
	})
}

func (pgxDriver) prepared() error {
	wanted := strings.Split(mine.bodies, "|")
	return mineByPgx(func(one *pgx.Conn) error {
		if _, err := one.Prepare(always, "by_id", "SELECT body FROM notes WHERE id = $1"); err != nil {
			return err
		}
		for turn := 0; turn < 60; turn++ {
			var body string
			number := turn % len(wanted)
			if err := one.QueryRow(always, "by_id", number+1).Scan(&body); err != nil {
				return err
			}
			if err := same(body, wanted[number]); err != nil {
				return err
			}
		}
		batch := &pgx.Batch{}
		for number := 0; number < 100; number++ {
			batch.Queue("SELECT $1::int4", number)
		}
		results := one.SendBatch(always, batch)
		defer results.Close()
		for number := 0; number < 100; number++ {
			var got int
			if err := results.QueryRow().Scan(&got); err != nil {
				return err
			}
			if err := same(got, number); err != nil {
				return err
			}
		}
		return nil
	})
}

func (pgxDriver) copyIn() error {
	return mineByPgx(func(one *pgx.Conn) error {
		inside, err := one.Begin(always)
		if err != nil {
			return err
		}
		defer inside.Rollback(always)
		var rows [][]any
		for number := 0; number < 1000; number++ {
			rows = append(rows, []any{int32(base + number), "copied"})
		}
		from := pgx.CopyFromRows(rows)
		count, err := inside.CopyFrom(always, pgx.Identifier{"notes"}, []string{"id", "body"}, from)
		if err != nil {
			return err
		}
		return same(count, 1000)
	})
}

func (pgxDriver) copyOut() error {
	return mineByPgx(func(one *pgx.Conn) error {
		var out bytes.Buffer
		sql := "COPY (SELECT generate_series(1, 5000)) TO STDOUT"
		if _, err := one.PgConn().CopyTo(always, &out, sql); err != nil {
			return err
		}
		return same(len(strings.Fields(out.String())), 5000)
	})
}

func (pgxDriver) listen() error {
	channel := fmt.Sprintf("news_%d", base)
	return mineByPgx(func(listener *pgx.Conn) error {
		if _, err := listener.Exec(always, "LISTEN "+channel); err != nil {
			return err
		}
		err := mineByPgx(func(sender *pgx.Conn) error {
			_, err := sender.Exec(always, "NOTIFY "+channel+", 'hello'")
			return err
		})
		if err != nil {
			return err
		}
		soon, stop := context.WithTimeout(always, 10*time.Second)
		defer stop()
		heard, err := listener.WaitForNotification(soon)
		if err != nil {
			return err
		}
		return same(heard.Channel+" "+heard.Payload, channel+" hello")
	})
}

// A context that ends makes pgx cancel the statement and give the connection up.
func (pgxDriver) cancel() error {
	err := mineByPgx(func(one *pgx.Conn) error {
		soon, stop := soon()
		defer stop()
		_, err := one.Exec(soon, "SELECT pg_sleep(20)")
		if !errors.Is(err, context.DeadlineExceeded) && !pgconn.Timeout(err) {
			return fmt.Errorf("it was not cancelled: %v", err)
		}
		return same(one.IsClosed(), true)
	})
	if err != nil {
		return err
	}
	// What it left behind must be cancelled, or it would sleep on.
	return mineByPgx(func(one *pgx.Conn) error {
		asleep := "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' " +
			"AND query = 'SELECT pg_sleep(20)' AND usename = current_user"
		for turn := 0; turn < 200; turn++ {
			var count int
			if err := one.QueryRow(always, asleep).Scan(&count); err != nil || count == 0 {
				return err
			}
			time.Sleep(20 * time.Millisecond)
		}
		return errors.New("it still sleeps")
	})
}

func (pgxDriver) large() error {
	return mineByPgx(func(one *pgx.Conn) error {
		rows, err := one.Query(always, "SELECT generate_series(1, 100000)")
		if err != nil {
			return err
		}
		sum := 0
		for rows.Next() {
			var value int
			if err := rows.Scan(&value); err != nil {
				return err
			}
			sum += value
		}
		if err := same(sum, 100000*100001/2); err != nil {
			return err
		}
		var text string
		if err := one.QueryRow(always, "SELECT repeat('x', 8000000)").Scan(&text); err != nil {
			return err
		}
		return same(len(text), 8000000)
	})
}

func (pgxDriver) pool() error {
	pool, err := pgxpool.Connect(always, conninfo(mine, "pool_max_conns=4"))
	if err != nil {
		return err
	}
	defer pool.Close()
	return together(40, func() error {
		var got string
		if err := pool.QueryRow(always, bodies).Scan(&got); err != nil {
			return err
		}
		return same(got, mine.bodies)
	})
}
