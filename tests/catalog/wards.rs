//! A server in between: the gate's own programs log in by a library, and answer in no other way
//! than the connection string allows.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use crate::harness::messages;

/// Lets one program connect, asks as told, and gives what the program says to that.
fn asked(listener: TcpListener, request: Vec<u8>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut length = [0; 4];
        socket.read_exact(&mut length).unwrap();
        let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
        socket.read_exact(&mut startup).unwrap();
        // Byte by byte: what is refused is refused however it comes, and nobody may be there for
        // the rest of it.
        let written = request.iter().try_for_each(|byte| socket.write_all(&[*byte]));
        if let Err(error) = written {
            return format!("{error}").into_bytes();
        }
        let mut said = Vec::new();
        match socket.read_to_end(&mut said) {
            Ok(_) => said,
            Err(error) => format!("{error}").into_bytes(),
        }
    })
}

#[test]
fn no_password_is_given_to_a_server_that_asks_in_another_way() {
    for (more, request, words) in [
        ("", vec![0, 0, 0, 3], "a password in clear"),
        ("", vec![0, 0, 0, 5, 1, 2, 3, 4], "an MD5 password"),
        ("", vec![0; 4], "no authentication"),
        ("", vec![0, 0, 0, 7], "a method the gate does not know"),
        (" require_auth=md5", vec![0, 0, 0, 3], "a password in clear"),
        (" require_auth=!scram-sha-256", b"\0\0\0\x0aSCRAM-SHA-256\0\0".to_vec(), "SCRAM"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = asked(listener, messages::frame(b'R', &request));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gate.toml");
        let conninfo = format!("host=127.0.0.1 port={port} user=tg dbname=x password=hush{more}");
        let settings = format!(
            "[[listen]]\naddress = \"127.0.0.1:6432\"\ntls = \"disable\"\n\n[catalog]\n\
             connection_string = \"{conninfo}\""
        );
        fs::write(&file, settings).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantgate"));
        let output = command.args(["catalog", "check", "--config"]).arg(&file).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(told.contains(words) && told.contains("require_auth"), "{words}: {told}");
        let said = server.join().unwrap();
        assert!(!said.windows(4).any(|bytes| bytes == b"hush"), "{words}: {said:?}");
        assert!(said.first() != Some(&b'p'), "{words}: it answered with {said:?}");
    }
}
