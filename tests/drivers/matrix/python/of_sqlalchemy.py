"""SQLAlchemy on psycopg 3: engine, its pool, and objects mapped to rows."""

import contextlib

import sqlalchemy
from psycopg.types.json import Json
from sqlalchemy import orm

import dbapi
from report import BASE, BODIES, HOST, MINE, PORT, expect, play


class Base(orm.DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    body: orm.Mapped[str]


class Driver(dbapi.Driver):
    def engine(self, who, **more):
        url = sqlalchemy.URL.create(
            "postgresql+psycopg", who["USER"], who["TOKEN"], HOST, PORT, who["DBNAME"], query=more
        )
        return sqlalchemy.create_engine(url, pool_size=4, max_overflow=0)

    def connect(self, who, **more):
        return self.engine(who, **more).connect()

    def autocommit(self, connection):
        connection.execution_options(isolation_level="AUTOCOMMIT")

    @contextlib.contextmanager
    def session(self, who=MINE, autocommit=True, **more):
        with super().session(who, autocommit, **more) as connection:
            yield connection
        connection.engine.dispose()

    def ask(self, connection, sql, *arguments):
        for number in range(len(arguments)):
            sql = sql.replace("?", f":p{number}", 1)
        values = {f"p{number}": value for number, value in enumerate(arguments)}
        result = connection.execute(sqlalchemy.text(sql), values)
        row = result.fetchone() if result.returns_rows else None
        return row[0] if row else None

    def sqlstate(self, error):
        return error.orig.sqlstate

    def document(self, value):
        return Json(value)

    def large(self):
        with self.session(autocommit=False) as connection:
            rows = connection.execute(sqlalchemy.text("SELECT generate_series(1, 100000)"))
            expect(sum(row[0] for row in rows), 100000 * 100001 // 2)
            stream = connection.execution_options(yield_per=1000)
            rows = stream.execute(sqlalchemy.text("SELECT generate_series(1, 20000)"))
            expect(sum(row[0] for row in rows), 20000 * 20001 // 2)

    def transaction(self):
        super().transaction()
        engine = self.engine(MINE)
        with orm.Session(engine) as session:
            session.add(Note(id=BASE, body="mapped"))
            session.commit()
            note = session.get(Note, BASE)
            note.body = "changed"
            session.flush()
            session.rollback()
            expect(note.body, "mapped")
            session.delete(note)
            session.commit()
        engine.dispose()

    def savepoint(self):
        super().savepoint()
        engine = self.engine(MINE)
        with orm.Session(engine) as session:
            session.add(Note(id=BASE, body="kept"))
            session.flush()
            with contextlib.suppress(sqlalchemy.exc.IntegrityError), session.begin_nested():
                session.execute(sqlalchemy.insert(Note).values(id=1, body="twice"))
            expect(session.get(Note, BASE).body, "kept")
            session.rollback()
        engine.dispose()

    @contextlib.contextmanager
    def borrowed(self):
        engine = self.engine(MINE)
        yield engine.connect
        engine.dispose()

    def reconnect(self):
        # Its pool finds out by itself that a connection has ended.
        engine = self.engine(MINE)
        try:
            with engine.connect() as connection:
                self.ask(connection, "SELECT pg_terminate_backend(pg_backend_pid())")
        except sqlalchemy.exc.OperationalError as error:
            expect(error.connection_invalidated, True)
        with engine.connect() as connection:
            expect(self.ask(connection, BODIES), MINE["BODIES"])
        engine.dispose()


play(Driver())
