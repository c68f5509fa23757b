"""Django on psycopg 3: its connections, its transactions, its models, its pool."""

import contextlib

import django
from django.conf import settings
from django.db import Error, IntegrityError, connections, models, transaction
from psycopg.types.json import Json

import dbapi
from report import BASE, BODIES, DOCUMENT, HOST, MINE, OTHER, PORT, WRONG_TOKEN, expect, play


def database(who, **options):
    return {
        "ENGINE": "django.db.backends.postgresql", "HOST": HOST, "PORT": PORT,
        "USER": who["USER"], "NAME": who["DBNAME"], "PASSWORD": who["TOKEN"], "OPTIONS": options,
    }


settings.configure(USE_TZ=True, DATABASES={
    "default": database(MINE),
    "other": database(OTHER),
    "wrong": database(MINE | {"TOKEN": WRONG_TOKEN}),
    "pooled": database(MINE, pool={"min_size": 1, "max_size": 4}),
})
django.setup()


class Note(models.Model):
    id = models.IntegerField(primary_key=True)
    body = models.TextField()

    class Meta:
        app_label = "notes"
        db_table = "notes"
        managed = False


class Driver(dbapi.Driver):
    # Whoever asks without a model gets these as text.
    foreign = ("uuid",)

    def connect(self, who, **more):
        name = "other" if who is OTHER else "default"
        connection = connections.create_connection(name if who in (MINE, OTHER) else "wrong")
        connection.settings_dict = connection.settings_dict | {"OPTIONS": more}
        connection.ensure_connection()
        return connection

    def autocommit(self, connection):
        connection.set_autocommit(True)

    @contextlib.contextmanager
    def session(self, who=MINE, autocommit=True, **more):
        with super().session(who, **more) as connection:
            connection.set_autocommit(autocommit)
            yield connection

    def sqlstate(self, error):
        return error.__cause__.sqlstate

    def document(self, value):
        return Json(value)

    def types(self):
        for name, value in dbapi.TYPES:
            if name not in self.foreign:
                with self.session() as connection:
                    expect(self.ask(connection, f"SELECT CAST(? AS {name})", value), value)
        field = models.JSONField()
        value = models.Value(DOCUMENT, output_field=field)
        expect(Note.objects.annotate(document=value).first().document, DOCUMENT)

    def transaction(self):
        super().transaction()
        with transaction.atomic():
            Note.objects.create(id=BASE, body="mine")
        with contextlib.suppress(ZeroDivisionError), transaction.atomic():
            Note.objects.filter(id=BASE).update(body="lost")
            raise ZeroDivisionError
        note = Note.objects.get(id=BASE)
        expect(note.body, "mine")
        note.delete()

    def savepoint(self):
        super().savepoint()
        with transaction.atomic():
            note = Note.objects.create(id=BASE, body="kept")
            with contextlib.suppress(IntegrityError), transaction.atomic():
                Note.objects.create(id=1, body="twice")
            expect(Note.objects.get(id=BASE).body, "kept")
            note.delete()

    def temporary_table(self):
        super().temporary_table()
        # Outside of a transaction it fetches by a cursor WITH HOLD, which is another such thing.
        notes = Note.objects.filter(id__lt=1000).order_by("id")
        bodies = [note.body for note in notes.iterator(chunk_size=2)]
        expect("|".join(bodies), MINE["BODIES"])

    @contextlib.contextmanager
    def borrowed(self):
        @contextlib.contextmanager
        def borrow():
            connection = connections["pooled"]
            try:
                yield connection
            finally:
                connection.close()

        yield borrow
        connections["pooled"].close_pool()

    def reconnect(self):
        connection = connections["default"]
        with contextlib.suppress(Error):
            self.ask(connection, "SELECT pg_terminate_backend(pg_backend_pid())")
        # What Django does between two requests.
        connection.close_if_unusable_or_obsolete()
        expect(self.ask(connection, BODIES), MINE["BODIES"])


play(Driver())
