//! Connection strings as the Go drivers of 2016 read them (spec/policy-server.md §10.5).

use std::time::Duration;

use policy_store::{DatabaseServer, DatabaseTls, StoreUrl};
use thiserror::Error;

const MYSQL_PORT: u16 = 3306;

/// How long is waited for the database in 2016 (§9.4).
const TIMEOUT: Duration = Duration::from_secs(5);

/// A connection string that cannot be used. It holds a password, so it is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not {0}")]
pub(super) struct Unusable(&'static str);

/// The database that `text` names in the words of the driver for `kind`.
pub(super) fn parse(kind: &str, text: &str) -> Result<StoreUrl, Unusable> {
    match kind {
        "postgres" => postgres(text),
        "mysql" => mysql(text),
        _ => Err(Unusable("of a database type that is postgres or mysql")),
    }
}

/// `postgres://user:password@host:port/database?sslmode=disable`. What is encrypted unless the text
/// says otherwise stays so.
fn postgres(text: &str) -> Result<StoreUrl, Unusable> {
    let form = Unusable("of the form postgres://user:password@host:port/database?sslmode=disable");
    let encrypted = match text.split_once('?') {
        None => format!("{text}?sslmode=require"),
        Some((_, parameters)) if parameters.contains("sslmode=") => text.to_owned(),
        Some(_) => format!("{text}&sslmode=require"),
    };
    match encrypted.parse() {
        Ok(StoreUrl::Postgres(server)) => {
            Ok(StoreUrl::Postgres(DatabaseServer { timeout: TIMEOUT, ..server }))
        }
        _ => Err(form),
    }
}

/// `user:password@tcp(host:port)/database`, where the password may have any characters.
fn mysql(text: &str) -> Result<StoreUrl, Unusable> {
    let form = Unusable("of the form user:password@tcp(host:port)/database");
    let (before, after) = text.rsplit_once('/').ok_or(form)?;
    let (credentials, address) = before.rsplit_once('@').ok_or(form)?;
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let address = address.strip_prefix("tcp(").and_then(|rest| rest.strip_suffix(')'));
    let address = address.ok_or(form)?;
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| form)?),
        None => (address, MYSQL_PORT),
    };
    let (database, parameters) = after.split_once('?').unwrap_or((after, ""));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || user.is_empty() {
        return Err(form);
    }
    Ok(StoreUrl::MySql(DatabaseServer {
        host: host.to_owned(),
        port,
        user: user.to_owned(),
        password: password.into(),
        database: database.to_owned(),
        tls: mysql_tls(parameters)?,
        timeout: TIMEOUT,
    }))
}

/// The parameter `tls`; the others tune the driver that is not here.
fn mysql_tls(parameters: &str) -> Result<DatabaseTls, Unusable> {
    let tls = parameters.split('&').find_map(|parameter| parameter.strip_prefix("tls="));
    match tls {
        None | Some("false" | "0") => Ok(DatabaseTls::Off),
        Some("skip-verify") => Ok(DatabaseTls::Unverified),
        Some(_) => Err(Unusable("with a tls that is false or skip-verify")),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn told(kind: &str, text: &str) -> String {
        let url = match parse(kind, text) {
            Ok(url) => url,
            Err(error) => return error.to_string(),
        };
        let (StoreUrl::Postgres(server) | StoreUrl::MySql(server)) = &url else { panic!("a file") };
        let password = server.password.expose_secret();
        format!("{url} {password} {:?} {}", server.tls, server.timeout.as_secs())
    }

    #[test]
    fn both_drivers_are_understood() {
        for (kind, text, expected) in [
            (
                "postgres",
                "postgres://netman:p%40ss@db:5433/netman?sslmode=disable",
                "postgres://netman@db:5433/netman p@ss Off 5",
            ),
            (
                "postgres",
                "postgres://netman:x@db/netman",
                "postgres://netman@db:5432/netman x Unverified 5",
            ),
            (
                "mysql",
                "root:pa/s@s:word@tcp(db:3307)/netman",
                "mysql://root@db:3307/netman pa/s@s:word Off 5",
            ),
            ("mysql", "root@tcp(db)/netman?parseTime=true", "mysql://root@db:3306/netman  Off 5"),
            (
                "mysql",
                "root:x@tcp([::1]:1)/n?tls=skip-verify",
                "mysql://root@::1:1/n x Unverified 5",
            ),
        ] {
            assert_eq!(told(kind, text), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_not_repeated() {
        for (kind, text) in [
            ("oracle", "scott:tiger@db"),
            ("postgres", "scott:tiger@db"),
            ("postgres", "postgres://scott:tiger@db:x/y"),
            ("mysql", "scott:tiger@tcp(db:x)/y"),
            ("mysql", "scott:tiger@unix(/tmp/tiger)/y"),
            ("mysql", "scott:tiger@tcp(db)/y?tls=true"),
            ("mysql", ":tiger@tcp(db)/y"),
        ] {
            let told = told(kind, text);
            assert!(told.starts_with("not ") || told.starts_with("with "), "{told}");
            assert!(!told.contains("tiger"), "{told}");
        }
    }
}
