# Perl's DBD::Pg, on libpq.

use strict;
use warnings;
use utf8;

use DBI;
use DBD::Pg qw(:pg_types);

$| = 1;
binmode STDOUT, ':encoding(UTF-8)';

my $BODIES = q{SELECT string_agg(body, '|' ORDER BY id) FROM notes WHERE id < 1000};
my $BASE   = $ENV{TG_BASE};
my %MINE   = map { $_ => $ENV{"TG_$_"} } qw(USER DBNAME TOKEN BODIES);
my %OTHER  = map { $_ => $ENV{"TG_OTHER_$_"} } qw(USER DBNAME TOKEN BODIES);

sub connected {
    my ($who, $more) = @_;
    my $dsn = "dbi:Pg:dbname=$who->{DBNAME};host=$ENV{TG_HOST};port=$ENV{TG_PORT}" . ($more // '');
    return DBI->connect($dsn, $who->{USER}, $who->{TOKEN},
        { RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1 });
}

sub mine { return connected(\%MINE, @_) }

sub ask {
    my ($connection, $sql, @values) = @_;
    my $statement = $connection->prepare($sql);
    $statement->execute(@values);
    return $statement->{NUM_OF_FIELDS} ? ($statement->fetchrow_array)[0] : undef;
}

sub same {
    my ($got, $wanted) = map { $_ // 'undef' } @_;
    die "got $got, wanted $wanted\n" if $got ne $wanted;
    return;
}

sub fails {
    my ($connection, $sqlstate, $sql) = @_;
    die "went through: $sql\n" if eval { ask($connection, $sql); 1 };
    same($connection->state, $sqlstate);
    return;
}

sub refuses {
    my ($text, $work) = @_;
    die "went through\n" if eval { $work->(); 1 };
    die "said $@" if index($@, $text) < 0;
    return;
}

my @scenarios = (
    login => sub {
        same(ask(mine(), $BODIES), $MINE{BODIES});
        my %wrong = (%MINE, TOKEN => substr($MINE{TOKEN}, 0, -1) . '!');
        refuses('authentication failed', sub { connected(\%wrong) });
    },
    tls_require => sub { same(ask(mine(';sslmode=require'), $BODIES), $MINE{BODIES}) },
    tls_verify_full => sub {
        my $with = sub { ";sslmode=verify-full;sslrootcert=$_[0]" };
        same(ask(mine($with->($ENV{TG_CA})), $BODIES), $MINE{BODIES});
        refuses('SSL error', sub { mine($with->($ENV{TG_WRONG_CA})) });
    },
    types => sub {
        my $one = mine();
        my @values = (
            [ int4 => '-2147483648' ], [ int8 => '9223372036854775807' ], [ float8 => '0.1' ],
            [ numeric => '12345678901234567890.123456789' ], [ text => undef ], [ bool => 1 ],
            [ text => q{zażółć 'gęś' \\ $1 你好 🐘} ], [ date => '2024-02-29' ],
            [ uuid => '6ba7b810-9dad-11d1-80b4-00c04fd430c8' ], [ json => '{"a": [1, null]}' ],
        );
        same(ask($one, "SELECT CAST(? AS $_->[0])", $_->[1]), $_->[1]) for @values;
        my $array = ask($one, 'SELECT CAST(? AS int4[])', [ 1, undef, -3 ]);
        same(join(',', map { $_ // 'undef' } @$array), '1,undef,-3');
        my $words = ask($one, 'SELECT CAST(? AS text[])', [ 'a,b', q{"q" \\}, undef, 'ü' ]);
        same(join('|', map { $_ // 'undef' } @$words), q{a,b|"q" \\|undef|ü});
        my $bytes = join '', map { chr } 0 .. 255;
        my $statement = $one->prepare('SELECT CAST(? AS bytea)');
        $statement->bind_param(1, $bytes, { pg_type => PG_BYTEA });
        $statement->execute;
        same(($statement->fetchrow_array)[0], $bytes);
    },
    prepared => sub {
        my @bodies = split /\|/, $MINE{BODIES};
        my $one = mine();
        my $by_id = 'SELECT body FROM notes WHERE id = ?';
        my $statement = $one->prepare($by_id, { pg_prepare_now => 1 });
        for my $turn (0 .. 59) {
            $statement->execute($turn % @bodies + 1);
            same(($statement->fetchrow_array)[0], $bodies[ $turn % @bodies ]);
        }
    },
    transaction => sub {
        my ($one, $two) = (mine(), mine());
        $one->begin_work;
        $one->do("INSERT INTO notes (id, body) VALUES ($BASE, 'mine')");
        same(ask($two, "SELECT count(*) FROM notes WHERE id = $BASE"), 0);
        $one->commit;
        $one->begin_work;
        $one->do("UPDATE notes SET body = 'lost' WHERE id = $BASE");
        $one->rollback;
        same(ask($one, "DELETE FROM notes WHERE id = $BASE RETURNING body"), 'mine');
    },
    savepoint => sub {
        my $one = mine();
        $one->begin_work;
        $one->do("INSERT INTO notes (id, body) VALUES ($BASE, 'kept')");
        $one->pg_savepoint('one');
        fails($one, '42703', 'SELECT no_such_column FROM notes');
        $one->pg_rollback_to('one');
        $one->do("UPDATE notes SET body = 'changed' WHERE id = $BASE");
        $one->pg_rollback_to('one');
        $one->pg_release('one');
        same(ask($one, "SELECT body FROM notes WHERE id = $BASE"), 'kept');
        $one->rollback;
        same(ask($one, $BODIES), $MINE{BODIES});
    },
    errors => sub {
        my $one = mine();
        my %wrong = (
            '23505' => q{INSERT INTO notes (id, body) VALUES (1, 'twice')}, '42601' => 'SELEC 1',
            '22012' => 'SELECT 1/0', '42P01' => 'SELECT * FROM nowhere',
        );
        for my $sqlstate (sort keys %wrong) {
            fails($one, $sqlstate, $wrong{$sqlstate});
            same(ask($one, $BODIES), $MINE{BODIES});
        }
        $one->begin_work;
        fails($one, '22012', 'SELECT 1/0');
        fails($one, '25P02', 'SELECT 1');
        $one->rollback;
    },
    copy_in => sub {
        my $one = mine();
        $one->begin_work;
        $one->do('COPY notes (id, body) FROM STDIN');
        $one->pg_putcopydata(($BASE + $_) . "\tcopied\n") for 0 .. 999;
        $one->pg_putcopyend;
        same(ask($one, q{SELECT count(*) FROM notes WHERE body = 'copied'}), 1000);
        $one->rollback;
        same(ask($one, $BODIES), $MINE{BODIES});
    },
    copy_out => sub {
        my ($one, $line, @lines) = mine();
        $one->do('COPY (SELECT generate_series(1, 5000)) TO STDOUT');
        push @lines, $line =~ s/\n//r while $one->pg_getcopydata(\$line) >= 0;
        same("@lines", join ' ', 1 .. 5000);
    },
    listen => sub {
        my ($listener, $sender, $channel) = (mine(), mine(), "news_$BASE");
        $listener->do("LISTEN $channel");
        $sender->do("NOTIFY $channel, 'hello'");
        my $heard;
        for (1 .. 500) {
            last if $heard = $listener->pg_notifies;
            select undef, undef, undef, 0.02;
        }
        die "nothing was heard\n" if !$heard;
        same("$heard->[0] $heard->[2]", "$channel hello");
    },
    cancel => sub {
        my $one = mine();
        my $statement = $one->prepare('SELECT pg_sleep(20)', { pg_async => 1 });
        $statement->execute;
        select undef, undef, undef, 0.3;
        die "it was not cancelled\n" if !$one->pg_cancel;
        same(ask($one, $BODIES), $MINE{BODIES});
    },
    settings => sub {
        my $one = mine();
        $one->do(q{SET TimeZone = 'Asia/Tokyo'});
        $one->do(q{SET work_mem = '1234kB'});
        $one->do(q{SET myapp.owner = 'somebody'});
        for (1 .. 10) {
            same(ask($one, 'SHOW TimeZone'), 'Asia/Tokyo');
            same(ask($one, 'SHOW work_mem'), '1234kB');
            same(ask($one, 'SHOW myapp.owner'), 'somebody');
        }
        $one->do('RESET ALL');
        die "it was not reset\n" if ask($one, 'SHOW TimeZone') eq 'Asia/Tokyo';
    },
    temporary_table => sub {
        my $one = mine();
        $one->do('CREATE TEMPORARY TABLE scratch (number int)');
        $one->do("INSERT INTO scratch VALUES ($_)") for 1 .. 10;
        same(ask($one, 'SELECT count(*) FROM scratch'), 10);
        $one->do('DROP TABLE scratch');
    },
    advisory_lock => sub {
        my ($one, $two) = (mine(), mine());
        ask($one, "SELECT pg_advisory_lock($BASE)");
        same(ask($two, "SELECT pg_try_advisory_lock($BASE)::text"), 'false') for 1 .. 5;
        same(ask($one, "SELECT pg_advisory_unlock($BASE)::text"), 'true');
        same(ask($two, "SELECT pg_try_advisory_lock($BASE)::text"), 'true');
        same(ask($two, "SELECT pg_advisory_unlock($BASE)::text"), 'true');
    },
    sql_prepare => sub {
        my $one = mine();
        $one->do('PREPARE next (int) AS SELECT $1 + 1', { pg_direct => 1 });
        same(ask($one, "EXECUTE next ($_)"), $_ + 1) for 1 .. 10;
        $one->do('DEALLOCATE next');
        fails($one, '26000', 'EXECUTE next (1)');
    },
    large => sub {
        my ($one, $sum) = (mine(), 0);
        $sum += $_ for @{ $one->selectcol_arrayref('SELECT generate_series(1, 100000)') };
        same($sum, 100000 * 100001 / 2);
        same(length ask($one, q{SELECT repeat('x', 8000000)}), 8000000);
        same(ask($one, 'SELECT length(?)', 'y' x 3000000), 3000000);
    },
    pool => sub {
        for (1 .. 20) {
            # The connection is kept, asked whether it lives, and handed out again.
            my $dsn = "dbi:Pg:dbname=$MINE{DBNAME};host=$ENV{TG_HOST};port=$ENV{TG_PORT}";
            my $one = DBI->connect_cached($dsn, $MINE{USER}, $MINE{TOKEN}, { RaiseError => 1 });
            same(ask($one, $BODIES), $MINE{BODIES});
        }
    },
    reconnect => sub {
        my $one = mine();
        my $last = 'SELECT pg_terminate_backend(pg_backend_pid())';
        die "the session went on\n" if eval { ask($one, $last); 1 };
        same($one->ping ? 'lives' : 'ended', 'ended');
        same(ask(mine(), $BODIES), $MINE{BODIES});
    },
    isolation => sub {
        my ($mine, $other) = (connected(\%MINE), connected(\%OTHER));
        for (1 .. 30) {
            same(ask($mine, $BODIES), $MINE{BODIES});
            same(ask($other, $BODIES), $OTHER{BODIES});
        }
    },
);

while (my ($name, $scenario) = splice @scenarios, 0, 2) {
    if (eval { $scenario->(); 1 }) { print "ok $name\n" }
    else { print "not ok $name: ", $@ =~ s/\s+/ /gr, "\n" }
}
