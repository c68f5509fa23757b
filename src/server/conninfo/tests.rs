//! Connection strings as libpq would read them, and strings nobody should read.

use super::*;

fn parse(text: &str) -> Conninfo {
    match Conninfo::parse(text) {
        Ok(conninfo) => conninfo,
        Err(error) => panic!("{text}: {error}"),
    }
}

fn refused(text: &str) -> String {
    match Conninfo::parse(text) {
        Ok(conninfo) => panic!("{text} was read as {conninfo:?}"),
        Err(error) => error.to_string(),
    }
}

fn tcp(name: &str, port: u16) -> Host {
    Host::Tcp { name: name.to_owned(), address: None, port }
}

fn password(conninfo: &Conninfo) -> Option<&[u8]> {
    conninfo.password.as_ref().map(Secret::expose)
}

#[test]
fn both_forms_say_the_same() {
    let url = parse("postgresql://ann:p%40ss%20w@db.example.com:5433/app?sslmode=verify-ca");
    let keywords = r"host=db.example.com port = 5433 user=ann password='p@ss w'
        dbname=app sslmode=verify-ca";
    assert_eq!(url, parse(keywords));
    assert_eq!(url.hosts, [tcp("db.example.com", 5433)]);
    assert_eq!(password(&url), Some(&b"p@ss w"[..]));
    assert_eq!(url.dbname, "app");
}

#[test]
fn defaults_are_strict_far_away_and_plain_on_this_machine() {
    let far = parse("postgres://ann@db");
    assert_eq!(far.hosts, [tcp("db", 5432)]);
    assert_eq!((far.dbname.as_str(), far.tls.mode), ("ann", SslMode::VerifyFull));
    assert_eq!(far.connect_timeout, Duration::from_secs(15));
    let scram = RequireAuth { scram: true, md5: false, password: false, none: false };
    assert_eq!(far.require_auth, scram);
    for near in ["localhost", "127.0.0.1", "127.8.0.1", "[::1]", "%2Frun%2Fpg", "[@abstract]"] {
        let near = parse(&format!("postgres://ann@{near}/x"));
        assert_eq!(near.tls.mode, SslMode::Disable, "{near:?}");
        assert!(near.hosts.iter().all(Host::is_local));
    }
    let mixed = parse("postgres://ann@localhost,db/x");
    assert_eq!(mixed.tls.mode, SslMode::VerifyFull);
    let moved = parse("host=localhost hostaddr=10.0.0.1 user=ann");
    assert_eq!(moved.tls.mode, SslMode::VerifyFull);
    let wants = parse("host=localhost user=ann sslrootcert=ca.pem");
    assert_eq!(wants.tls.mode, SslMode::VerifyFull);
}

#[test]
fn quotes_backslashes_and_blanks_are_read_as_libpq_does() {
    let text = r" user = 'o\'neil' password=a\ b\\c dbname='it''s'";
    // A closing quote needs no blank after it, so 's' starts the next key.
    assert!(refused(&format!("{text} host=h")).contains("missing \"=\""));
    let conninfo = parse(r"user='o\'neil' password=a\ b\\c'd dbname=''host=h port=''");
    assert_eq!(conninfo.user, "o'neil");
    assert_eq!(password(&conninfo), Some(&br"a b\c'd"[..]));
    assert_eq!((conninfo.dbname.as_str(), conninfo.hosts), ("o'neil", vec![tcp("h", 5432)]));
    assert!(refused("user='x").contains("unterminated"));
    assert!(refused("user=x host").contains("character 8"));
}

#[test]
fn several_hosts_take_their_ports_in_order_or_share_one() {
    let own = parse("postgresql://u@a:1,[fe80::1]:2,c/d?port=5,6,7");
    let folder = refused("postgresql://u@a:1,,b/d");
    assert_eq!(own.hosts.len(), 3, "the query's ports replace the URL's");
    assert!(folder.contains("host is missing between two commas"));
    let shared = parse("host=a,b,/run user=u port=77");
    let socket = Host::Unix { folder: "/run".into(), port: 77 };
    assert_eq!(shared.hosts, [tcp("a", 77), tcp("b", 77), socket]);
    let addresses = parse("host=a,b hostaddr=10.0.0.1,::2 user=u");
    let second = Host::Tcp { name: "b".into(), address: "::2".parse().ok(), port: 5432 };
    assert_eq!(addresses.hosts.get(1), Some(&second));
    assert!(refused("host=a,b,c port=1,2 user=u").contains("2 ports do not fit 3 hosts"));
    assert!(refused("host=a hostaddr=::1,::2 user=u").contains("1 names do not fit 2 hosts"));
    assert!(refused("user=u").contains("host is missing"));
    assert!(refused(&format!("user=u host={}", "a,".repeat(16))).contains("more than 16"));
}

#[test]
fn tls_keys_mean_what_they_mean_to_libpq() {
    let trusted = parse("host=h user=u sslmode=require sslrootcert=/ca.pem sslsni=0");
    assert_eq!((trusted.tls.mode, trusted.tls.sni), (SslMode::VerifyCa, false));
    assert_eq!(trusted.tls.root_file, Some("/ca.pem".into()));
    let system = parse("host=h user=u sslrootcert=system");
    assert_eq!((system.tls.mode, system.tls.root_file), (SslMode::VerifyFull, None));
    assert!(refused("host=h user=u sslrootcert=system sslmode=require").contains("verify-full"));
    assert!(refused("host=h user=u sslnegotiation=direct sslmode=prefer").contains("require"));
    assert!(refused("host=h user=u channel_binding=require sslmode=disable").contains("needs"));
    assert!(refused("host=h user=u sslcert=a.pem").contains("sslkey is missing"));
    assert!(refused("host=h user=u sslmode=").contains("disable, allow"));
    assert_eq!(parse("postgres://u@h/d?ssl=true").tls.mode, SslMode::Require);
    assert!(refused("host=h user=u ssl=true").contains("unknown key \"ssl\""));
}

#[test]
fn require_auth_is_a_list_or_a_list_of_exceptions() {
    let auth = |text: &str| parse(&format!("host=h user=u require_auth='{text}'")).require_auth;
    let set = |scram, md5, password, none| RequireAuth { scram, md5, password, none };
    assert_eq!(auth("md5, scram-sha-256"), set(true, true, false, false));
    assert_eq!(auth("!none,!password,!gss"), set(true, true, false, false));
    assert_eq!(auth("none"), set(false, false, false, true));
    assert_eq!(auth(""), set(true, false, false, false));
    assert!(refused("host=h user=u require_auth=md5,!none").contains("mixes"));
    assert!(refused("host=h user=u require_auth=md5,md5").contains("more than once"));
    assert!(refused("host=h user=u require_auth=gss").contains("allowed"));
}

#[test]
fn keys_that_cannot_be_honoured_are_named() {
    assert!(refused("host=h user=u hots=b").contains("\"hots\""));
    assert!(refused("host=h user=u sslmod=b").contains("did you mean \"sslmode\"?"));
    assert!(refused("host=h user=u options=-cx=1").contains("the gate sets it"));
    assert!(refused("host=h user=u sslcrl=x").contains("revocation"));
    assert!(refused("host=h user=u target_session_attrs=master").contains("prefer-standby"));
    assert!(refused("host=h user=u target_session_attrs=").contains("any, read-write"));
    assert!(refused("host=h user=u load_balance_hosts=yes").contains("disable, random"));
    assert!(refused("host=h user=u connect_timeout=0").contains("above zero"));
    assert!(refused("host=h user=u keepalives=yes").contains("0, 1"));
    assert!(refused("host=h").contains("user is missing"));
    assert!(refused(&format!("host=h user={}", "u".repeat(64))).contains("64 bytes"));
    let quiet = parse("host=h user=u application_name=x keepalives_idle=9 tcp_user_timeout=250");
    assert_eq!(quiet.tcp.keepalives_idle, Some(Duration::from_secs(9)));
    assert_eq!(quiet.tcp.user_timeout, Some(Duration::from_millis(250)));
}

#[test]
fn which_host_will_do_is_read_in_both_forms() {
    for (name, target) in Target::ALL {
        let keywords = parse(&format!("host=a,b port=1,2 user=u target_session_attrs={name}"));
        let url = parse(&format!("postgres://u@a:1,b:2/?target_session_attrs={name}"));
        assert_eq!((keywords.target, &keywords), (target, &url));
    }
    let plain = parse("host=a,b user=u load_balance_hosts=disable");
    assert_eq!((plain.target, plain.balanced, plain.order()), (Target::Any, false, vec![0, 1]));
    let random = parse("host=a,b,c user=u load_balance_hosts=random");
    let firsts: std::collections::BTreeSet<_> = (0..200).map(|_| random.order()[0]).collect();
    assert_eq!(firsts, [0, 1, 2].into());
    let other = parse("host=x user=v password=p dbname=d target_session_attrs=primary");
    assert!(plain.reaches_as(&parse("host=a user=u")) && other.reaches_as(&plain));
    assert!(!plain.reaches_as(&parse("host=a user=u connect_timeout=1")));
    assert!(!plain.reaches_as(&parse("host=a user=u sslmode=require")));
}

#[test]
fn versions_of_the_protocol_are_libpqs() {
    let minors = |text: &str| {
        let protocol = parse(&format!("host=h user=u {text}")).protocol;
        (protocol.minor_min, protocol.minor_max)
    };
    assert_eq!(minors(""), (0, 0));
    assert_eq!(minors("max_protocol_version=3.2"), (0, 2));
    assert_eq!(minors("max_protocol_version=latest min_protocol_version=3.0"), (0, 2));
    assert_eq!(minors("min_protocol_version=3.2"), (2, 2));
    assert!(refused("host=h user=u max_protocol_version=3.1").contains("3.0, 3.2, latest"));
    let above = "host=h user=u min_protocol_version=latest max_protocol_version=3.0";
    assert!(refused(above).contains("not above max_protocol_version"));
}

#[test]
fn errors_do_not_show_passwords() {
    let strings = [
        "postgres://u:hunter2/x@h/db",
        "postgres://u:hunter2?x@h/db?y",
        "postgres://u:hunter2%zz@h/db",
        "postgres://u:hunter2 x@h/db",
        "host=h user=u password=my hunter2",
        "host=h user=u password='hunter2",
        "host=h password=hunter2",
        "postgres://[hunter2",
        "host=h user=u password=HUNTER2=x sslmode=hunter2",
        "host=hunter2 hostaddr=hunter2 user=u",
    ];
    for text in strings {
        let error = refused(text).to_lowercase();
        assert!(!error.contains("hunter"), "{error}");
    }
    assert!(!format!("{:?}", parse("host=h user=u password=hunter2")).contains("hunter2"));
}

#[test]
fn no_string_panics() {
    let valid = [
        "postgresql://ann:p%40ss@[::1]:5433,b:6/app?sslmode=verify-ca&require_auth=!none",
        r"host=a,b port='5433' user=ann\ b password='p\'w' connect_timeout=10 sslsni=1",
        "postgres://u@a:1,[::1]:2,c/?target_session_attrs=prefer-standby&load_balance_hosts=random",
    ];
    let seed = 0x7e4a_17ed;
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..5_000 {
        let mut bytes: Vec<u8> = match random.usize(..6) {
            0 => (0..random.usize(..60)).map(|_| random.u8(..)).collect(),
            pick => valid[pick % 3].bytes().collect(),
        };
        for _ in 0..random.usize(..4) {
            let at = random.usize(..=bytes.len());
            match random.usize(..3) {
                0 => bytes.insert(at, *b"=&%'\\,:@/[] \0!".get(random.usize(..14)).unwrap()),
                1 => bytes.truncate(at),
                _ => drop(bytes.drain(at..(at + random.usize(..5)).min(bytes.len()))),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(conninfo) = Conninfo::parse(&text) {
            let mut order = conninfo.order();
            order.sort_unstable();
            assert!(!order.is_empty() && order.len() == conninfo.hosts.len(), "{text}");
            assert!(order.into_iter().enumerate().all(|(at, host)| at == host), "{text}");
            let named = text.contains("target_session_attrs");
            assert!(named || conninfo.target == Target::Any || text.contains('%'), "{text}");
        }
    }
}
