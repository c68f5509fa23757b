//! At the door: start-up packets that choose a tenant, and proofs that are somebody else's.

use serde_json::json;

use super::Class::{Auth, Startup};
use super::{ALL, Attack, ROW, Scene, play, stopped};
use crate::harness::messages::{query, startup, startup_version, transcript};
use crate::harness::tenants::{JWT_KEY, jwt, jwt_with};
use crate::harness::wire::{Login, Wire};

/// Logs in with each of these parameters; whoever gets in reads the notes.
async fn started(scene: &mut Scene<'_>, parameters: &[(&str, &str)]) {
    for (name, value) in parameters {
        let value = scene.fill(value);
        let more = [(*name, value.as_str())];
        let (dbname, password) = (&scene.attacker.dbname, &scene.attacker.token);
        let mut wire = scene.login(&Login { user: "app", dbname, password, more: &more }).await;
        reads(scene, &mut wire).await;
    }
}

/// Logs in with each of these proofs (user, password), asking for the victim's database.
async fn proves(scene: &mut Scene<'_>, proofs: &[(String, String)]) {
    for (user, password) in proofs {
        let dbname = &scene.victim.dbname;
        let mut wire = scene.login(&Login { user, dbname, password, more: &[] }).await;
        reads(scene, &mut wire).await;
    }
}

async fn reads(scene: &mut Scene<'_>, wire: &mut Wire) {
    if wire.pid != 0 && wire.try_send(query("SELECT body FROM notes")).await.is_ok() {
        let frames = wire.until_ready().await;
        scene.hears(frames);
    }
}

fn app(passwords: &[String]) -> Vec<(String, String)> {
    passwords.iter().map(|password| ("app".to_owned(), password.clone())).collect()
}

/// A token like [`jwt`]'s for the victim, with other claims on top and another key.
fn forged(scene: &Scene<'_>, key: &str, more: serde_json::Value) -> String {
    let expires = jsonwebtoken::get_current_timestamp() + 600;
    let mut claims = json!({
        "iss": "https://login.test", "aud": "tenantgate", "tenant_id": scene.victim.id,
        "exp": expires,
    });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    jwt_with(key, &claims)
}

pub const ATTACKS: [Attack; 10] = [
    play(Startup, "the tenant's setting as a start-up option", ROW, stopped("42501"), |scene| {
        Box::pin(started(
            scene,
            &[
                ("options", "-c app.tenant_id=$OTHER"),
                ("options", "--app.tenant_id=$OTHER"),
                ("options", "-c app.tenant\\_id=$OTHER"),
                ("app.tenant_id", "$OTHER"),
            ],
        ))
    }),
    play(Startup, "role, session authorization, row_security", ALL, stopped("42501"), |scene| {
        Box::pin(started(
            scene,
            &[
                ("options", "-c role=$OTHERLOGIN"),
                ("role", "app_owner"),
                ("ROLE", "postgres"),
                ("session_authorization", "postgres"),
                ("options", "-c session_authorization=postgres"),
            ],
        ))
    }),
    play(Startup, "search_path where it is part of the context", ROW, stopped("42501"), |scene| {
        Box::pin(started(
            scene,
            &[
                ("search_path", "$OTHER"),
                ("SEARCH_PATH", "$OTHER"),
                ("options", "-c search_path=pg_temp"),
                ("options", "-csearch_path=$OTHER"),
                ("row_security", "off"),
            ],
        ))
    }),
    play(Startup, "what only a superuser may set", ALL, stopped("42501"), |scene| {
        Box::pin(started(
            scene,
            &[
                ("session_replication_role", "replica"),
                ("options", "-c backtrace_functions=0$OTHER"),
                ("options", "-c session_preload_libraries=evil"),
                ("options", "-c log_statement=all"),
            ],
        ))
    }),
    play(Startup, "replication", ALL, stopped("0A000"), |scene| {
        Box::pin(started(scene, &[("replication", "database"), ("replication", "true")]))
    }),
    play(Startup, "another tenant, by name", ALL, stopped("28P01"), |scene| {
        Box::pin(started(
            scene,
            &[("options", "-c tenantgate.tenant=$OTHER"), ("tenantgate.tenant", "$OTHER")],
        ))
    }),
    play(
        Startup,
        "an encoding in which a quote hides in a letter",
        ALL,
        stopped("0A000"),
        |scene| {
            Box::pin(started(
                scene,
                &[
                    ("client_encoding", "SJIS"),
                    ("client_encoding", "gbk"),
                    ("options", "-c client_encoding=BIG5"),
                ],
            ))
        },
    ),
    play(Startup, "options that cannot be read", ALL, stopped("42601"), |scene| {
        Box::pin(started(scene, &[("options", "-c"), ("options", "-x"), ("options", "-c =x")]))
    }),
    play(Startup, "a second start-up packet, as another", ALL, stopped("08P01"), |scene| {
        Box::pin(async {
            let second = startup(&[("user", "postgres"), ("database", "app")]);
            scene.send(second).await;
        })
    }),
    play(Startup, "versions and packets that are none", ALL, stopped("08P01"), |scene| {
        Box::pin(async {
            let twice = [("user", "a"), ("user", "b"), ("database", "app")];
            for packet in [startup(&twice), startup_version(2, 0, &[]), vec![0, 0, 0, 4]] {
                let mut wire = Wire::connect(scene.gate.port).await;
                wire.send(packet).await;
                let mut frames = Vec::new();
                while let Some(frame) = wire.maybe_frame().await {
                    frames.push(frame);
                }
                assert!(!transcript(&frames).contains("Z("), "{frames:?}");
                scene.hears(frames);
            }
        })
    }),
];

pub const PROOFS: [Attack; 7] = [
    play(Auth, "one's own token with another's name", ALL, stopped("28P01"), |scene| {
        let (id, token) = (&scene.victim.id, scene.attacker.token.clone());
        let users = [format!("app.{id}"), format!("{id}.{id}")];
        let proofs: Vec<_> = users.into_iter().map(|user| (user, token.clone())).collect();
        Box::pin(async move { proves(scene, &proofs).await })
    }),
    play(
        Auth,
        "another's token identifier with one's own secret",
        ALL,
        stopped("28P01"),
        |scene| {
            // tg_<identifier>_<secret>
            let half = |token: &str, at: usize| token.splitn(3, '_').nth(at).unwrap().to_owned();
            let theirs = format!("tg_{}", half(&scene.victim.token, 1));
            let own = half(&scene.attacker.token, 2);
            let proofs = app(&[format!("{theirs}_{own}"), format!("{theirs}_"), theirs.clone()]);
            Box::pin(async move { proves(scene, &proofs).await })
        },
    ),
    play(
        Auth,
        "a JSON Web Token of another key, issuer or audience",
        ALL,
        stopped("28P01"),
        |scene| {
            let key = "another key of more than thirty-two bytes, as wrong";
            let proofs = app(&[
                forged(scene, key, json!({})),
                forged(scene, JWT_KEY, json!({ "iss": "https://evil.test" })),
                forged(scene, JWT_KEY, json!({ "aud": "elsewhere" })),
            ]);
            Box::pin(async move { proves(scene, &proofs).await })
        },
    ),
    play(
        Auth,
        "a JSON Web Token without a signature, or altered",
        ALL,
        stopped("28P01"),
        |scene| {
            let good = jwt(&scene.attacker.id, 600);
            let theirs = jwt(&scene.victim.id, 600);
            let part = |token: &str, at: usize| token.split('.').nth(at).unwrap().to_owned();
            // {"alg":"none"}
            let none = format!("eyJhbGciOiJub25lIn0.{}.", part(&theirs, 1));
            let mixed = format!("{}.{}.{}", part(&good, 0), part(&theirs, 1), part(&good, 2));
            let proofs = app(&[none, mixed, format!("{}.{}.", part(&theirs, 0), part(&theirs, 1))]);
            Box::pin(async move { proves(scene, &proofs).await })
        },
    ),
    play(Auth, "a JSON Web Token past its time, or before it", ALL, stopped("28P01"), |scene| {
        let soon = jsonwebtoken::get_current_timestamp() + 300;
        let early = forged(scene, JWT_KEY, json!({ "nbf": soon }));
        let proofs = app(&[jwt(&scene.victim.id, -600), early]);
        Box::pin(async move { proves(scene, &proofs).await })
    }),
    play(
        Auth,
        "a JSON Web Token whose tenant is a list, or a twin",
        ALL,
        stopped("28P01"),
        |scene| {
            let id = &scene.victim.id;
            let proofs = app(&[
                forged(scene, JWT_KEY, json!({ "tenant_id": [id] })),
                forged(scene, JWT_KEY, json!({ "tenant_id": id.to_uppercase() })),
                forged(scene, JWT_KEY, json!({ "tenant_id": format!("{id}\0") })),
                forged(scene, JWT_KEY, json!({ "tenant_id": format!(" {id}") })),
            ]);
            Box::pin(async move { proves(scene, &proofs).await })
        },
    ),
    play(Auth, "one's own token for another's database", ALL, OTHER_DATABASE, |scene| {
        let token = scene.attacker.token.clone();
        let id = scene.victim.id.clone();
        Box::pin(async move {
            for dbname in [id.as_str(), "postgres", "template1", "tenantgate"] {
                let login = Login { user: "app", dbname, password: &token, more: &[] };
                let mut wire = scene.login(&login).await;
                reads(scene, &mut wire).await;
            }
        })
    }),
];

const OTHER_DATABASE: super::Expected = stopped("3D000");
