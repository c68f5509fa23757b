//! Of a file that is wrong, no value is shown.

use std::fs;

use super::load;
use super::tests::{GOOD, refused};

/// Nothing of a secret that is four letters long is shown.
fn shows_nothing_of(secret: &str, shown: &str) {
    let letters: Vec<char> = secret.chars().collect();
    for part in letters.windows(4).map(|part| part.iter().collect::<String>()) {
        assert!(!shown.contains(&part), "{part} of {secret} is in\n{shown}");
    }
}

/// What a secret may be in the way of; `SECRET` stands for it, in a tenant's table.
const MISTAKES_OF_A_TENANT: [&str; 34] = [
    "conection_string = 'host=h user=u password=SECRET'",
    "conection_string = 'postgresql://u:SECRET@h/d'",
    "connection_string = ['host=h user=u password=SECRET']",
    "connection_string = { password = 'SECRET' }",
    "connection_string = 'host=h user=u password=a SECRET=b'",
    "connection_string = 'host=h user=u dbname=d zqxwkvjy=SECRET'",
    "connection_string = 'postgresql://u:p@h/d?zqxwkvjySECRET=word'",
    "tokens = ['SECRET']",
    "tokens = 'SECRET'",
    "tokens = [\n  'SECRET',\n  'SECRET']",
    "tokens = [{ hash = 'SECRET', name = '!SECRET' }]",
    "tokens = [{ hsh = 'SECRET' }]",
    "tokens = [{ hash = 'SECRET', expires = 'SECRET' }]",
    "token = ['SECRET']",
    "token = { a = [ { b = 'SECRET' } ] }",
    "tier = 'SECRET'\nschema = 1",
    "tier = 'SECRET'",
    "issuer = 'SECRET'",
    "state = 'SECRET'",
    "allow_from = ['SECRET']",
    "default_role = 'SECRET'",
    "limits = { clients = 'SECRET', query_time = 'SECRET', breaker = 'SECRET' }",
    "limits = { bytes_out = 'x, expected SECRET' }",
    "limits = { report_only = ['SECRET'] }",
    "password = \"SECRET",
    "password = \"SECRET\nSECRET = x\"",
    "password = '''SECRET\nSECRET = SECRET\n",
    "password = \"\"\"SECRET\nSECRET=\\q SECRET\n\"\"\"",
    "password = 'SECRET' # SECRET\npassword = 'SECRET' # SECRET",
    "password = SECRET",
    "password 'SECRET'",
    "password = \"SECRET\" SECRET",
    "# SECRET\n= 'SECRET'",
    "[tenants.beta] # SECRET",
];

/// The same at the end of the file.
const MISTAKES: [&str; 10] = [
    "[console]\npassword = 'SECRET'",
    "[console]\nstats_period = 'SECRET'",
    "[console]\nusers = ['SECRET']",
    "[console.users]\nadmin = 'SECRET'\nother = { scram = 'SECRET', rights = 'SECRET' }",
    "[gate]\nlog_level = 'SECRET'\nstatement_bytes = 'SECRET'",
    "[[listen]]\naddress = 'SECRET'",
    "[[listen]]\nunix = '/x'\nmode = 'SECRET'",
    "[http]\naddress = 'SECRET'",
    "[catalog]\nconnection_string = 'SECRET'\nhosts = ['SECRET*']",
    "[issuers.x]\nissuer = 'i'\naudience = 'a'\nalgorithm = 'HS256'\nkey_file = 'SECRET'",
];

#[test]
fn nothing_of_a_value_is_shown_wherever_it_stands() {
    // Letters that no message has.
    let secret = "tg_Zq7Xw9Kv4Jy2";
    let tenant = "[tenants.beta]\nisolation = 'row'\ncluster = 'main'\n";
    let of_tenant = MISTAKES_OF_A_TENANT.iter().map(|lines| format!("{GOOD}{tenant}{lines}"));
    let of_cluster = [
        "seal_key_file = 'SECRET'\ncapacity",
        "tenant_setting = 'SECRET'\ncapacity",
        "tenant_login_secret_file = 'env:SECRET-'\ncapacity",
    ];
    let of_cluster = of_cluster.iter().map(|lines| GOOD.replace("capacity", lines));
    let others = [format!("SECRET {GOOD}"), format!("clusters = 'SECRET'\n{GOOD}")];
    let texts = MISTAKES.iter().map(|lines| format!("{GOOD}{lines}"));
    for text in texts.chain(of_tenant).chain(of_cluster).chain(others) {
        let text = text.replace("SECRET", secret);
        let shown = refused(&text);
        assert!(shown.starts_with("gate.toml:"), "{shown}");
        shows_nothing_of(secret, &shown);
    }
    // Digits alone may be a password as well.
    let number = "31415926535897";
    for lines in [
        "[gate]\nworkers = NUMBER",
        "[gate]\nclients = -NUMBER",
        "[gate]\nclients = NUMBERNUMBER",
        "[gate]\nclients = NUMBERx",
        "[gate]\nclients = NUMBER.25",
        "[gate]\npasswd = NUMBER",
        "[tiers.other]\nclients = NUMBER",
        "[tenants.beta]\nisolation = 'row'\ncluster = 'main'\ntier = NUMBER",
    ] {
        shows_nothing_of(number, &refused(&format!("{GOOD}{lines}").replace("NUMBER", number)));
    }
}

#[test]
fn a_file_that_is_not_utf8_shows_where_and_nothing_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.toml");
    let secret = b"Zq7Xw9Kv4Jy2";
    fs::write(&path, [GOOD.as_bytes(), b"password = '", secret, b"\xff", secret].concat()).unwrap();
    let shown = load(&path).unwrap_err().to_string();
    assert!(shown.contains("gate.toml:18:25: the file is not UTF-8 from here on"), "{shown}");
    shows_nothing_of("Zq7Xw9Kv4Jy2", &shown);
}

#[test]
fn a_token_in_place_of_its_line_is_told_from_other_texts() {
    let shown = refused(&format!("{GOOD}tokens = [\"tg_t3qezZq7Xw9Kv4Jy2\"]"));
    assert!(shown.contains(":18:11: this is a token, and its line belongs here\n"), "{shown}");
    assert!(shown.contains("18 | tokens = …\n"), "{shown}");
    assert!(shown.contains("make a new one"), "{shown}");
}
