// Go: pgx with its pool, and lib/pq under database/sql. The argument says which.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// A tenant, and what it must see.
type tenant struct{ user, database, token, bodies string }

// What a driver is to the scenarios. Parameters are written $1, $2, …
type session interface {
	// The first column of the first row, scanned into `into` where that is not nil.
	ask(sql string, into any, values ...any) error
	begin() (session, error)
	commit() error
	rollback() error
	close()
}

type driver interface {
	connect(who tenant, more string) (session, error)
	sqlstate(err error) string
	types() error
	prepared() error
	copyIn() error
	copyOut() error
	listen() error
	cancel() error
	pool() error
	large() error
}

type absent string

func (why absent) Error() string { return string(why) }

const bodies = "SELECT string_agg(body, '|' ORDER BY id) FROM notes WHERE id < 1000"

var (
	mine    = tenantOf("TG_")
	other   = tenantOf("TG_OTHER_")
	base, _ = strconv.Atoi(os.Getenv("TG_BASE"))
)

func tenantOf(prefix string) tenant {
	env := func(name string) string { return os.Getenv(prefix + name) }
	return tenant{env("USER"), env("DBNAME"), env("TOKEN"), env("BODIES")}
}

func conninfo(who tenant, more string) string {
	return fmt.Sprintf("host=%s port=%s user=%s dbname=%s password=%s %s", os.Getenv("TG_HOST"),
		os.Getenv("TG_PORT"), who.user, who.database, who.token, more)
}

func same(got, wanted any) error {
	if fmt.Sprint(got) != fmt.Sprint(wanted) {
		return fmt.Errorf("got %v, wanted %v", got, wanted)
	}
	return nil
}

// A script in which the first thing that goes wrong ends the rest.
type script struct {
	driver driver
	err    error
	open   []session
}

func (s *script) note(err error) {
	if s.err == nil {
		s.err = err
	}
}

func (s *script) session(who tenant, more string) session {
	if s.err != nil {
		return nil
	}
	one, err := s.driver.connect(who, more)
	s.note(err)
	if err == nil {
		s.open = append(s.open, one)
	}
	return one
}

func (s *script) do(on session, sql string, values ...any) {
	if s.err == nil {
		s.note(on.ask(sql, nil, values...))
	}
}

func (s *script) shows(on session, sql, wanted string) {
	if s.err == nil {
		var got string
		s.note(on.ask(sql, &got))
		s.note(same(got, wanted))
	}
}

func (s *script) fails(on session, sqlstate, sql string) {
	if s.err == nil {
		err := on.ask(sql, nil)
		if err == nil {
			s.note(errors.New("went through: " + sql))
			return
		}
		s.note(same(s.driver.sqlstate(err), sqlstate))
	}
}

func (s *script) begin(on session) session {
	if s.err != nil {
		return nil
	}
	inside, err := on.begin()
	s.note(err)
	return inside
}

func (s *script) end(how func() error) {
	if s.err == nil {
		s.note(how())
	}
}

func login(s *script) {
	s.shows(s.session(mine, ""), bodies, mine.bodies)
	wrong := mine
	wrong.token = mine.token[:len(mine.token)-1] + "!"
	if s.err == nil {
		one, err := s.driver.connect(wrong, "")
		if err == nil {
			err = one.ask("SELECT 1", nil)
		}
		if err == nil {
			s.note(errors.New("a wrong token was let in"))
		} else {
			s.note(same(s.driver.sqlstate(err), "28P01"))
		}
	}
}

func tlsRequire(s *script) {
	s.shows(s.session(mine, "sslmode=require"), bodies, mine.bodies)
}

func tlsVerifyFull(s *script) {
	with := func(file string) string { return "sslmode=verify-full sslrootcert=" + os.Getenv(file) }
	s.shows(s.session(mine, with("TG_CA")), bodies, mine.bodies)
	if s.err == nil {
		one, err := s.driver.connect(mine, with("TG_WRONG_CA"))
		if err == nil {
			err = one.ask("SELECT 1", nil)
		}
		if err == nil || !strings.Contains(err.Error(), "unknown authority") {
			s.note(fmt.Errorf("a stranger's certificate: %v", err))
		}
	}
}

func transaction(s *script) {
	one, two := s.session(mine, ""), s.session(mine, "")
	inside := s.begin(one)
	s.do(inside, "INSERT INTO notes (id, body) VALUES ($1, $2)", base, "mine")
	s.shows(two, fmt.Sprintf("SELECT count(*)::text FROM notes WHERE id = %d", base), "0")
	s.end(func() error { return inside.commit() })
	inside = s.begin(one)
	s.do(inside, "UPDATE notes SET body = 'lost' WHERE id = $1", base)
	s.end(func() error { return inside.rollback() })
	s.shows(one, fmt.Sprintf("DELETE FROM notes WHERE id = %d RETURNING body", base), "mine")
}

func savepoint(s *script) {
	one := s.session(mine, "")
	inside := s.begin(one)
	s.do(inside, "INSERT INTO notes (id, body) VALUES ($1, $2)", base, "kept")
	s.do(inside, "SAVEPOINT one")
	s.fails(inside, "42703", "SELECT no_such_column FROM notes")
	s.do(inside, "ROLLBACK TO SAVEPOINT one")
	s.do(inside, "UPDATE notes SET body = 'changed' WHERE id = $1", base)
	s.do(inside, "ROLLBACK TO SAVEPOINT one")
	s.shows(inside, fmt.Sprintf("SELECT body FROM notes WHERE id = %d", base), "kept")
	s.end(func() error { return inside.rollback() })
	s.shows(one, bodies, mine.bodies)
}

func errorsMap(s *script) {
	one := s.session(mine, "")
	for _, wrong := range [][2]string{
		{"23505", "INSERT INTO notes (id, body) VALUES (1, 'twice')"},
		{"42601", "SELEC 1"}, {"22012", "SELECT 1/0"}, {"42P01", "SELECT * FROM nowhere"},
	} {
		s.fails(one, wrong[0], wrong[1])
		s.shows(one, bodies, mine.bodies)
	}
	inside := s.begin(one)
	s.fails(inside, "22012", "SELECT 1/0")
	s.fails(inside, "25P02", "SELECT 1")
	s.end(func() error { return inside.rollback() })
	s.shows(one, bodies, mine.bodies)
}

func settings(s *script) {
	one := s.session(mine, "")
	s.do(one, "SET TimeZone = 'Asia/Tokyo'")
	s.do(one, "SET work_mem = '1234kB'")
	s.do(one, "SET myapp.owner = 'somebody'")
	for turn := 0; turn < 10; turn++ {
		s.shows(one, "SHOW TimeZone", "Asia/Tokyo")
		s.shows(one, "SHOW work_mem", "1234kB")
		s.shows(one, "SHOW myapp.owner", "somebody")
	}
	s.do(one, "RESET ALL")
	s.shows(one, "SELECT (current_setting('TimeZone') = 'Asia/Tokyo')::text", "false")
}

func temporaryTable(s *script) {
	one := s.session(mine, "")
	s.do(one, "CREATE TEMPORARY TABLE scratch (number int)")
	for number := 0; number < 10; number++ {
		s.do(one, "INSERT INTO scratch VALUES ($1)", number)
	}
	s.shows(one, "SELECT count(*)::text FROM scratch", "10")
	s.do(one, "DROP TABLE scratch")
}

func advisoryLock(s *script) {
	one, two := s.session(mine, ""), s.session(mine, "")
	s.do(one, "SELECT pg_advisory_lock($1)", base)
	for turn := 0; turn < 5; turn++ {
		s.shows(two, fmt.Sprintf("SELECT pg_try_advisory_lock(%d)::text", base), "false")
	}
	s.shows(one, fmt.Sprintf("SELECT pg_advisory_unlock(%d)::text", base), "true")
	s.shows(two, fmt.Sprintf("SELECT pg_try_advisory_lock(%d)::text", base), "true")
	s.shows(two, fmt.Sprintf("SELECT pg_advisory_unlock(%d)::text", base), "true")
}

func sqlPrepare(s *script) {
	one := s.session(mine, "")
	s.do(one, "PREPARE next (text) AS SELECT $1 || '!'")
	for number := 0; number < 10; number++ {
		s.shows(one, fmt.Sprintf("EXECUTE next ('%d')", number), fmt.Sprintf("%d!", number))
	}
	s.do(one, "DEALLOCATE next")
	s.fails(one, "26000", "EXECUTE next ('1')")
}

func reconnect(s *script) {
	one := s.session(mine, "")
	if s.err == nil && one.ask("SELECT pg_terminate_backend(pg_backend_pid())", nil) == nil {
		s.note(errors.New("the session went on"))
	}
	s.shows(s.session(mine, ""), bodies, mine.bodies)
}

func isolation(s *script) {
	one, two := s.session(mine, ""), s.session(other, "")
	for turn := 0; turn < 30; turn++ {
		s.shows(one, bodies, mine.bodies)
		s.shows(two, bodies, other.bodies)
	}
}

// A scenario that every driver plays in its own way.
func own(scenario func(driver) error) func(*script) {
	return func(s *script) { s.note(scenario(s.driver)) }
}

func main() {
	var chosen driver = pgxDriver{}
	if os.Args[1] == "pq" {
		chosen = pqDriver{}
	}
	for _, scenario := range []struct {
		name string
		play func(*script)
	}{
		{"login", login}, {"tls_require", tlsRequire}, {"tls_verify_full", tlsVerifyFull},
		{"types", own(driver.types)}, {"prepared", own(driver.prepared)},
		{"transaction", transaction}, {"savepoint", savepoint}, {"errors", errorsMap},
		{"copy_in", own(driver.copyIn)}, {"copy_out", own(driver.copyOut)},
		{"listen", own(driver.listen)}, {"cancel", own(driver.cancel)}, {"settings", settings},
		{"temporary_table", temporaryTable}, {"advisory_lock", advisoryLock},
		{"sql_prepare", sqlPrepare}, {"large", own(driver.large)}, {"pool", own(driver.pool)},
		{"reconnect", reconnect}, {"isolation", isolation},
	} {
		s := &script{driver: chosen}
		scenario.play(s)
		for _, one := range s.open {
			one.close()
		}
		var why absent
		switch {
		case s.err == nil:
			fmt.Println("ok", scenario.name)
		case errors.As(s.err, &why):
			fmt.Printf("absent %s: %s\n", scenario.name, why)
		default:
			said := strings.Join(strings.Fields(s.err.Error()), " ")
			fmt.Printf("not ok %s: %s\n", scenario.name, said)
		}
	}
}

// Runs `one` at once on several threads.
func together(count int, one func() error) error {
	ended := make(chan error)
	for number := 0; number < count; number++ {
		go func() { ended <- one() }()
	}
	var first error
	for number := 0; number < count; number++ {
		if err := <-ended; err != nil && first == nil {
			first = err
		}
	}
	return first
}

func soon() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 300*time.Millisecond)
}
