package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lib/pq"
)

type pqDriver struct{}

// A connection taken out of the pool of database/sql, or a transaction on it.
type pqSession struct {
	pool       *sql.DB
	connection *sql.Conn
	inside     *sql.Tx
}

func (pqDriver) connect(who tenant, more string) (session, error) {
	pool, err := sql.Open("postgres", conninfo(who, more))
	if err != nil {
		return nil, err
	}
	connection, err := pool.Conn(always)
	if err != nil {
		return nil, err
	}
	return pqSession{pool: pool, connection: connection}, nil
}

func (s pqSession) ask(text string, into any, values ...any) error {
	exec, row := s.connection.ExecContext, s.connection.QueryRowContext
	if s.inside != nil {
		exec, row = s.inside.ExecContext, s.inside.QueryRowContext
	}
	if into == nil {
		_, err := exec(always, text, values...)
		return err
	}
	return row(always, text, values...).Scan(into)
}

func (s pqSession) begin() (session, error) {
	inside, err := s.connection.BeginTx(always, nil)
	return pqSession{s.pool, s.connection, inside}, err
}

func (s pqSession) commit() error   { return s.inside.Commit() }
func (s pqSession) rollback() error { return s.inside.Rollback() }

func (s pqSession) close() {
	s.connection.Close()
	s.pool.Close()
}

func (pqDriver) sqlstate(err error) string {
	var said *pq.Error
	if errors.As(err, &said) {
		return string(said.Code)
	}
	return err.Error()
}

func mineByPq(work func(*sql.DB) error) error {
	pool, err := sql.Open("postgres", conninfo(mine, ""))
	if err != nil {
		return err
	}
	defer pool.Close()
	pool.SetMaxOpenConns(4)
	return work(pool)
}

func (pqDriver) types() error {
	var everyByte []byte
	for value := 0; value < 256; value++ {
		everyByte = append(everyByte, byte(value))
	}
	return mineByPq(func(pool *sql.DB) error {
		for _, one := range []struct {
			name  string
			value any
		}{
			{"int4", int64(-2147483648)}, {"int8", int64(9223372036854775807)}, {"float8", 0.1},
			{"numeric", "12345678901234567890.123456789"}, {"bool", true},
			{"text", "zażółć 'gęś' \\ $1 你好 🐘"}, {"text", nil}, {"bytea", everyByte},
			{"uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"}, {"json", `{"a": [1, null]}`},
		} {
			var got any
			sql := "SELECT CAST($1 AS " + one.name + ")"
			if err := pool.QueryRow(sql, one.value).Scan(&got); err != nil {
				return fmt.Errorf("%s: %w", one.name, err)
			}
			if bytes, is := got.([]byte); is && one.name != "bytea" {
				got = string(bytes)
			}
			if err := same(got, one.value); err != nil {
				return err
			}
		}
		var words []string
		wanted := []string{"a,b", `"q" \`, "ü"}
		row := pool.QueryRow("SELECT CAST($1 AS text[])", pq.Array(wanted))
		if err := row.Scan(pq.Array(&words)); err != nil {
			return err
		}
		return same(words, wanted)
	})
}

func (pqDriver) prepared() error {
	wanted := strings.Split(mine.bodies, "|")
	return mineByPq(func(pool *sql.DB) error {
		// database/sql prepares it on every connection that it happens to take.
		statement, err := pool.Prepare("SELECT body FROM notes WHERE id = $1")
		if err != nil {
			return err
		}
		defer statement.Close()
		return together(60, func() error {
			for number := range wanted {
				var body string
				if err := statement.QueryRow(number + 1).Scan(&body); err != nil {
					return err
				}
				if err := same(body, wanted[number]); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func (pqDriver) copyIn() error {
	return mineByPq(func(pool *sql.DB) error {
		inside, err := pool.Begin()
		if err != nil {
			return err
		}
		defer inside.Rollback()
		statement, err := inside.Prepare(pq.CopyIn("notes", "id", "body"))
		if err != nil {
			return err
		}
		for number := 0; number < 1000; number++ {
			if _, err := statement.Exec(base+number, "copied"); err != nil {
				return err
			}
		}
		if _, err := statement.Exec(); err != nil {
			return err
		}
		if err := statement.Close(); err != nil {
			return err
		}
		var count int
		row := inside.QueryRow("SELECT count(*) FROM notes WHERE body = $1", "copied")
		if err := row.Scan(&count); err != nil {
			return err
		}
		return same(count, 1000)
	})
}

func (pqDriver) copyOut() error { return absent("the driver has no COPY TO") }

func (pqDriver) listen() error {
	channel := fmt.Sprintf("news_%d", base)
	// A LISTEN that is refused it tries again for ever, and tells of it here only.
	refused := make(chan error, 1)
	var listener *pq.Listener
	tell := func(_ pq.ListenerEventType, err error) {
		if err != nil {
			select {
			case refused <- err:
				go listener.Close()
			default:
			}
		}
	}
	listener = pq.NewListener(conninfo(mine, ""), time.Second, time.Second, tell)
	defer listener.Close()
	if err := listener.Listen(channel); err != nil {
		select {
		case err = <-refused:
		default:
		}
		return err
	}
	return mineByPq(func(pool *sql.DB) error {
		if _, err := pool.Exec("NOTIFY " + channel + ", 'hello'"); err != nil {
			return err
		}
		select {
		case heard := <-listener.Notify:
			if heard == nil {
				return errors.New("the listener's connection was lost")
			}
			return same(heard.Channel+" "+heard.Extra, channel+" hello")
		case <-time.After(10 * time.Second):
			return errors.New("nothing was heard")
		}
	})
}

func (driver pqDriver) cancel() error {
	return mineByPq(func(pool *sql.DB) error {
		soon, stop := soon()
		defer stop()
		_, err := pool.ExecContext(soon, "SELECT pg_sleep(20)")
		if err == nil || !errors.Is(err, context.DeadlineExceeded) {
			if err == nil || driver.sqlstate(err) != "57014" {
				return fmt.Errorf("it was not cancelled: %v", err)
			}
		}
		var got string
		if err := pool.QueryRow(bodies).Scan(&got); err != nil {
			return err
		}
		return same(got, mine.bodies)
	})
}

func (pqDriver) large() error {
	return mineByPq(func(pool *sql.DB) error {
		rows, err := pool.Query("SELECT generate_series(1, 100000)")
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
		if err := pool.QueryRow("SELECT repeat('x', 8000000)").Scan(&text); err != nil {
			return err
		}
		return same(len(text), 8000000)
	})
}

func (pqDriver) pool() error {
	return mineByPq(func(pool *sql.DB) error {
		return together(40, func() error {
			var got string
			if err := pool.QueryRow(bodies).Scan(&got); err != nil {
				return err
			}
			return same(got, mine.bodies)
		})
	})
}
