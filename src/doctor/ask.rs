//! [`Asker`]: a connection to one database, and the questions to its catalogs.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use crate::catalog::Tenant;
use crate::doctor::check::{Check, Source, all};
use crate::doctor::prelude::PRELUDE;
use crate::doctor::report::Room;
use crate::doctor::target::Target;
use crate::doctor::{Plan, repair};
use crate::isolation::pack::{self, PACK, Weight};
use crate::isolation::{Isolation, Level, carrier, quote};
use crate::secret::Secret;
use crate::server::{self, Also, Conninfo, OpenError, POISON, Program};

/// Longest a question may take; the largest catalogs answer in a second.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(60);

/// What every session of ours begins with. The path makes PostgreSQL write every name of the
/// user's with its schema, and lets nobody's objects stand in for its own.
const OPENING: &str = "SET search_path TO pg_catalog, pg_temp; SET default_transaction_read_only \
                       TO on; SET statement_timeout TO '60s'; SET lock_timeout TO '5s'; \
                       SET quote_all_identifiers TO off; SET standard_conforming_strings TO on";

/// A relation that the probe looks at as a tenant.
#[derive(Debug)]
pub(super) struct Probed {
    /// Qualified and quoted.
    pub(super) name: String,
    /// Logins and roles that may read it.
    pub(super) readers: Vec<String>,
    /// The tenant column, quoted, and its type; none where only a policy tells tenants apart.
    pub(super) column: Option<(String, String)>,
    /// `table`, `view`, …
    pub(super) kind: String,
}

/// One database, connected to.
pub(super) struct Asker<'target> {
    client: Client,
    target: &'target Target,
    questions: Questions,
    server_id: Option<String>,
}

/// The values behind the numbers of `PRELUDE`.
struct Questions {
    logins: Vec<String>,
    roles: Vec<Option<String>>,
    isolations: Vec<&'static str>,
    schemas: Vec<Option<String>>,
    tenants: Vec<String>,
    setting: String,
    columns: Vec<String>,
    enter_body: &'static str,
    tenant_id_body: String,
    set_config_body: String,
    context: String,
    poison: Vec<&'static str>,
}

impl<'target> Asker<'target> {
    /// Connects as the administrator, or as the first login of the database. `None` if that is not
    /// possible, which the report then says.
    pub(super) async fn connect(
        plan: &Plan<'_>,
        target: &'target Target,
        room: &mut Room<'_>,
    ) -> Option<Self> {
        let first = target.routes.first()?.first()?;
        let conninfo = plan.admin.unwrap_or(&first.route.conninfo);
        let client = match open(conninfo, &target.dbname).await {
            Ok(client) => client,
            Err(error) => {
                room.failed("everything", format!("cannot connect: {error}"));
                return None;
            }
        };
        let mut asker =
            Self { client, target, questions: Questions::new(plan, target), server_id: None };
        if plan.admin.is_some() {
            let sql = "SELECT system_identifier::text FROM pg_control_system()";
            let answer = asker.client.query_one(sql, &[]).await;
            asker.server_id = answer.ok().and_then(|row| row.try_get(0).ok());
        }
        Some(asker)
    }

    /// The cluster that the administrator is connected to, as it names itself.
    pub(super) fn server_id(&self) -> Option<&str> {
        self.server_id.as_deref()
    }

    /// Asks everything that concerns this database.
    pub(super) async fn ask_all(&self, room: &mut Room<'_>) {
        let isolations = self.target.isolations();
        for check in all() {
            if !check.scope.covers(&isolations) || !check.levels.cover(&self.target.cluster) {
                continue;
            }
            room.tell(check.code);
            let asked = match check.source {
                Source::Catalogs(sql) => self.ask(check, sql, room).await,
                Source::Pack(weight) => self.ask_pack(check, weight, room).await,
                Source::Gate | Source::Probe => Ok(()),
            };
            if let Err(error) = asked {
                let what = format!("{} {}", check.code, check.title);
                match error.code() {
                    Some(&SqlState::INSUFFICIENT_PRIVILEGE) => room.unseen(what, told(&error)),
                    _ => room.failed(what, told(&error)),
                }
            }
        }
    }

    async fn ask(
        &self,
        check: &'static Check,
        sql: &str,
        room: &mut Room<'_>,
    ) -> Result<(), tokio_postgres::Error> {
        for row in self.rows(&format!("{PRELUDE} {sql}")).await? {
            let value = |name: &str| row.try_get::<_, Option<String>>(name).ok().flatten();
            let Some(object) = value("object") else { continue };
            let repair = repair::filled(check.repair, value);
            room.found(check, object, value("detail"), repair);
        }
        Ok(())
    }

    /// One finding for each entry of the pack that is not taken away.
    async fn ask_pack(
        &self,
        check: &'static Check,
        weight: Weight,
        room: &mut Room<'_>,
    ) -> Result<(), tokio_postgres::Error> {
        let routes = self.questions.isolations.iter().zip(&self.questions.logins);
        let routes = routes.zip(&self.questions.roles).filter(|((kind, _), _)| **kind == "row");
        let names = routes.flat_map(|((_, login), role)| [Some(login), role.as_ref()]);
        let sql = pack::revoke_sql(names.flatten().map(String::as_str));
        let rows = self.client.query(&sql, &[]).await?;
        for entry in PACK.iter().filter(|entry| entry.weight == weight) {
            let revokes = rows.iter().filter(|row| row.try_get(0).ok() == Some(entry.name));
            let revokes = revokes.filter_map(|row| row.try_get::<_, String>(1).ok());
            let revokes: Vec<String> = revokes.map(|revoke| format!("{revoke};")).collect();
            if !revokes.is_empty() {
                let object = format!("revoke pack: {}", entry.name);
                room.found(check, object, Some(entry.reason.to_owned()), Some(revokes.join("\n")));
            }
        }
        Ok(())
    }

    /// What the probe is to look at: every table and view in a tenant's reach that has a tenant
    /// column or row security.
    pub(super) async fn tables(&self, room: &mut Room<'_>) -> Vec<Probed> {
        let sql = "SELECT r.name, quote_ident(c.attname), format_type(a.atttypid, a.atttypmod),
              CASE r.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
                WHEN 'f' THEN 'foreign table' ELSE 'table' END, string_agg(t.name, E'\\n')
            FROM relation r JOIN tenant_role t
                ON has_any_column_privilege(t.oid, r.oid, 'SELECT')
              LEFT JOIN tenant_column c ON c.oid = r.oid
              LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = c.attnum
            WHERE (c.oid IS NOT NULL OR r.relrowsecurity) AND r.reached
            GROUP BY r.name, r.relkind, c.attname, a.atttypid, a.atttypmod
            ORDER BY r.name";
        let probed = |row: &Row| {
            let text = |at: usize| row.try_get::<_, Option<String>>(at).ok().flatten();
            let (name, kind) = (text(0)?, text(3)?);
            let readers = text(4)?.lines().map(str::to_owned).collect();
            Some(Probed { name, readers, column: text(1).zip(text(2)), kind })
        };
        match self.rows(&format!("{PRELUDE} {sql}")).await {
            Ok(rows) => rows.iter().filter_map(probed).collect(),
            Err(error) => {
                room.failed("live probe", told(&error));
                Vec::new()
            }
        }
    }

    async fn rows(&self, sql: &str) -> Result<Vec<Row>, tokio_postgres::Error> {
        let asked = &self.questions;
        self.client
            .query(
                sql,
                &[
                    &asked.logins,
                    &asked.roles,
                    &asked.isolations,
                    &asked.schemas,
                    &asked.tenants,
                    &asked.setting,
                    &asked.columns,
                    &asked.enter_body,
                    &asked.tenant_id_body,
                    &asked.context,
                    &asked.poison,
                    &asked.set_config_body,
                ],
            )
            .await
    }
}

impl Questions {
    fn new(plan: &Plan<'_>, target: &Target) -> Self {
        let (setting, level) = (target.cluster.tenant_setting.clone(), target.cluster.level);
        let level = level.in_force(Isolation::Row);
        let own = setting.rsplit('.').next().map(str::to_owned);
        let context = match level >= Level::Sealed {
            true => "tenantgate.tenant_id()".to_owned(),
            false => format!("nullif(current_setting({}, true), '')", quote::literal(&setting)),
        };
        let mut questions = Self {
            logins: Vec::new(),
            roles: Vec::new(),
            isolations: Vec::new(),
            schemas: Vec::new(),
            tenants: Vec::new(),
            columns: plan.columns.iter().cloned().chain(own).collect(),
            enter_body: carrier::ENTER_BODY,
            set_config_body: carrier::set_config_body(&setting),
            tenant_id_body: carrier::tenant_id_body(level, &setting),
            setting,
            context,
            poison: POISON.to_vec(),
        };
        for tenant in target.routes.iter().filter_map(|route| route.first()) {
            let superuser = tenant.route.allow_superuser;
            questions.logins.push(tenant.route.conninfo.user.clone());
            questions.roles.push(tenant.context.value("role").map(str::to_owned));
            questions.isolations.push(if superuser {
                "superuser"
            } else {
                tenant.isolation.name()
            });
            questions.schemas.push(schema(tenant));
            questions.tenants.push(tenant.id.to_string());
        }
        questions
    }
}

/// The schema that a tenant's names are looked up in.
fn schema(tenant: &Tenant) -> Option<String> {
    let path = tenant.context.value("search_path")?;
    let quoted = path.strip_prefix('"').and_then(|path| path.strip_suffix('"'));
    Some(quoted.map_or_else(|| path.to_owned(), |name| name.replace("\"\"", "\"")))
}

async fn open(conninfo: &Conninfo, dbname: &str) -> Result<Client, String> {
    let password = conninfo.password.as_ref().map(Secret::expose);
    let (name, limit, also) = ("tenantgate doctor", conninfo.connect_timeout, Also::Peer);
    let opened = server::open(conninfo, Program { name, dbname, password, limit, also }).await;
    let (client, connection) = opened.map_err(|error| match error {
        OpenError::Postgres(error) => told(&error),
        error => error.to_string(),
    })?;
    // Its end shows in the client's next answer.
    tokio::spawn(connection);
    let ready = tokio::time::timeout(QUESTION_TIMEOUT, client.batch_execute(OPENING)).await;
    ready.map_err(|_| "no answer".to_owned())?.map_err(|error| told(&error))?;
    Ok(client)
}

/// An error in a few words.
pub(super) fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} {}", error.code().code(), error.message()),
        None => {
            let cause = std::error::Error::source(error);
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            format!("{error}{cause}")
        }
    }
}
