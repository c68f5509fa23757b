//! TLS at the door: every policy, both versions, and nothing that came before the handshake.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use crate::harness::certs::{Authority, Identity};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::messages::{
    assert_cancelled, cancel_request, gss_request, query, ssl_request, startup, transcript,
};
use crate::harness::tenants::{Estate, Tweaks};
use crate::harness::wire::{Login, Wire};

pub(super) struct Secured {
    pub(super) authority: Authority,
    pub(super) estate: Estate,
    pub(super) gate: Gate,
}

impl Secured {
    pub(super) async fn new(policy: &str) -> Self {
        let (authority, estate) = (Authority::new(), Estate::new().await);
        let Identity { certificate, key } = authority.server(&["gate.test"]);
        let listen = format!("tls = \"{policy}\"\ncertificate = \"gate.crt\"\nkey = \"gate.key\"");
        let settings = estate.settings(&Tweaks { listen: &listen, ..Tweaks::default() });
        let files = [("gate.crt", certificate.as_str()), ("gate.key", key.as_str())];
        let gate = Gate::start_with(&settings, &files).await;
        Self { authority, estate, gate }
    }

    pub(super) fn login(&self) -> Login<'_> {
        let password = &self.estate.stark.token;
        Login { user: "app", dbname: "app", password, more: &[] }
    }

    async fn tls(&self, config: Arc<ClientConfig>) -> std::io::Result<Wire> {
        Wire::connect_tls(self.gate.port, config, "gate.test").await
    }

    fn config(&self, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let pem = self.authority.pem();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

#[tokio::test]
async fn sessions_run_over_both_versions_of_tls() {
    let secured = Secured::new("require").await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut wire = secured.tls(secured.config(version)).await.unwrap();
        let frames = wire.authenticate(&secured.login()).await;
        assert_eq!(frames.last().unwrap().to_string(), "Z(I)");
        assert_eq!(wire.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
        let long = "SELECT repeat('x', 3000000)";
        wire.send(query(long)).await;
        let row = wire.until_ready().await.swap_remove(1);
        assert_eq!(row.body.len(), 3_000_006);
        let big = crate::harness::messages::extended(
            "SELECT length($1::text)",
            &[Some(&"y".repeat(3_000_000))],
        );
        assert_eq!(wire.ask(big).await, "1 2 T D(3000000) C(SELECT 1) Z(I)");
    }
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_authority_or_the_name_does_not_connect() {
    let secured = Secured::new("require").await;
    let stranger = Authority::new().client_config();
    assert!(secured.tls(stranger).await.is_err());
    let config = secured.authority.client_config();
    assert!(Wire::connect_tls(secured.gate.port, config, "elsewhere").await.is_err());
}

#[tokio::test]
async fn each_policy_lets_in_what_it_says() {
    for (policy, plain, tls) in
        [("require", "E(28000)", true), ("allow", "E(28000)", true), ("disable", "E(28000)", false)]
    {
        let secured = Secured::new(policy).await;
        let mut wire = Wire::connect(secured.gate.port).await;
        let frames = wire.authenticate(&secured.login()).await;
        // Without plaintext_password nobody may send a token in clear, whatever the policy.
        assert_eq!(transcript(&frames), plain, "{policy}");
        let wanted = if policy == "require" { "connection requires TLS" } else { "password" };
        assert!(frames[0].field('M').unwrap().starts_with(wanted), "{policy}");
        let mut wire = Wire::connect(secured.gate.port).await;
        wire.send(ssl_request()).await;
        let answer = wire.byte().await;
        assert_eq!(answer == b'S', tls, "{policy}");
        if tls {
            let config = secured.authority.client_config();
            let mut wire = wire.handshake(config, "gate.test").await.unwrap();
            let frames = wire.authenticate(&secured.login()).await;
            assert_eq!(frames.last().unwrap().to_string(), "Z(I)", "{policy}");
        }
    }
}

#[tokio::test]
async fn with_allow_and_plaintext_password_the_client_chooses() {
    let (authority, estate) = (Authority::new(), Estate::new().await);
    let Identity { certificate, key } = authority.server(&["gate.test"]);
    let listen = "tls = \"allow\"\nplaintext_password = true\n\
                  certificate = \"gate.crt\"\nkey = \"gate.key\"";
    let settings = estate.settings(&Tweaks { listen, ..Tweaks::default() });
    let files = [("gate.crt", certificate.as_str()), ("gate.key", key.as_str())];
    let gate = Gate::start_with(&settings, &files).await;
    let login = Login { user: "app", dbname: "app", password: &estate.stark.token, more: &[] };
    let mut plain = Wire::login(gate.port, &login).await;
    assert_eq!(plain.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
    let config = authority.client_config();
    let mut secure = Wire::connect_tls(gate.port, config, "gate.test").await.unwrap();
    let frames = secure.authenticate(&login).await;
    assert_eq!(frames.last().unwrap().to_string(), "Z(I)");
}

#[tokio::test]
async fn plaintext_behind_the_request_for_tls_never_counts() {
    let secured = Secured::new("require").await;
    let injected = startup(&[("user", "evil"), ("database", "app")]);
    let mut wire = Wire::connect(secured.gate.port).await;
    wire.send([ssl_request(), injected].concat()).await;
    assert_eq!(wire.byte().await, b'S');
    // The handshake reads the injected bytes as its own and fails; nobody is logged in.
    let config = secured.authority.client_config();
    let shaken = tokio::time::timeout(
        std::time::Duration::from_secs(15),
        wire.handshake(config, "gate.test"),
    );
    assert!(shaken.await.expect("the gate ends it").is_err());
    let mut wire = secured.tls(secured.authority.client_config()).await.unwrap();
    assert_eq!(wire.authenticate(&secured.login()).await.last().unwrap().to_string(), "Z(I)");
}

#[tokio::test]
async fn inside_tls_nobody_may_ask_for_encryption_again() {
    let secured = Secured::new("require").await;
    for request in [ssl_request(), gss_request()] {
        let mut wire = secured.tls(secured.authority.client_config()).await.unwrap();
        wire.send(request).await;
        assert_eq!(wire.until_closed().await, "E(08P01)");
    }
    // GSS is declined first, TLS taken after it.
    let mut wire = Wire::connect(secured.gate.port).await;
    wire.send(gss_request()).await;
    assert_eq!(wire.byte().await, b'N');
    wire.send(ssl_request()).await;
    assert_eq!(wire.byte().await, b'S');
    let config = secured.authority.client_config();
    let mut wire = wire.handshake(config, "gate.test").await.unwrap();
    assert_eq!(wire.authenticate(&secured.login()).await.last().unwrap().to_string(), "Z(I)");
}

#[tokio::test]
async fn a_cancel_may_come_in_plaintext_where_tls_is_required() {
    let secured = Secured::new("require").await;
    let mut wire = secured.tls(secured.authority.client_config()).await.unwrap();
    wire.authenticate(&secured.login()).await;
    wire.send(query("SELECT pg_sleep(600)")).await;
    let (pid, secret, port) = (wire.pid, wire.secret, secured.gate.port);
    let canceller = tokio::spawn(async move {
        // One that comes before the query is lost by design.
        loop {
            let mut cancel = Wire::connect(port).await;
            cancel.send(cancel_request(pid, secret)).await;
            assert_eq!(cancel.until_closed().await, "");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    assert_cancelled(&wire.until_ready().await);
    canceller.abort();
    eventually("the session goes on", async || {
        let said = wire.query("SELECT 1").await;
        (said == "T D(1) C(SELECT 1) Z(I)").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_cancel_inside_tls_ends_as_tls_should() {
    let secured = Secured::new("require").await;
    let mut cancel = secured.tls(secured.authority.client_config()).await.unwrap();
    cancel.send(cancel_request(1, 2)).await;
    // libpq reports an end without a goodbye as an error.
    cancel.ends().await.unwrap();
}
