//! Redis refuses the server: a new password requirement, another password, a user without rights.

use super::fixture::{Scene, assert_away};
use crate::common::*;

/// A connection of the operator, opened before the fault.
struct Admin(::redis::Connection);

impl Admin {
    fn of(redis: &TestRedis) -> Admin {
        Admin(redis.connection().expect("a connection"))
    }

    fn says(&mut self, words: &str) {
        let mut command = ::redis::Cmd::new();
        for word in words.split(' ') {
            command.arg(word);
        }
        command.query::<()>(&mut self.0).unwrap_or_else(|e| panic!("{words}: {e}"));
    }
}

#[test]
fn a_password_where_there_was_none() {
    let fixture = Scene::start();
    let mut admin = Admin::of(&fixture.redis);
    admin.says("CONFIG SET requirepass secret");
    admin.says("CLIENT KILL TYPE normal SKIPME yes");
    assert_away(&fixture.server, "NOAUTH");
    fixture.running_jobs_end();
    assert_away(&fixture.server, "NOAUTH");
    admin.says("ACL SETUSER default nopass");
    fixture.all_is_well_again(false);
    fixture.assert_said(&["ERROR Redis refuses writes: NOAUTH", "INFO  Redis accepts writes again after "]);
}

/// A server whose user `threadq` has the password `one`.
fn with_user() -> (Scene, Admin) {
    let redis = TestRedis::start();
    let mut admin = Admin::of(&redis);
    admin.says("ACL SETUSER threadq on >one ~* &* +@all");
    let url = format!("{}?user=threadq&pass=one", redis.url());
    (Scene::on(redis, &url), admin)
}

#[test]
fn another_password() {
    let (fixture, mut admin) = with_user();
    admin.says("ACL SETUSER threadq resetpass >two");
    admin.says("CLIENT KILL USER threadq");
    assert_away(&fixture.server, "WRONGPASS");
    fixture.running_jobs_end();
    admin.says("ACL SETUSER threadq >one");
    fixture.all_is_well_again(false);
    fixture.assert_said(&["ERROR Redis is unavailable: ", "INFO  Redis is available again after "]);
    assert!(!fixture.server.log_text().contains("one@") && !fixture.server.log_text().contains("pass=one"));
}

#[test]
fn a_user_without_rights() {
    let (fixture, mut admin) = with_user();
    admin.says("ACL SETUSER threadq -@all");
    assert_away(&fixture.server, "NOPERM");
    fixture.running_jobs_end();
    admin.says("ACL SETUSER threadq +@all");
    fixture.all_is_well_again(false);
    let said = fixture.said();
    let (lacks, rest): (Vec<&String>, Vec<&String>) =
        said.iter().partition(|line| line.contains("ERROR Redis denies rights that jobs need: NOPERM"));
    // One line for the first missing right, and lines that name more.
    assert!((1..=3).contains(&lacks.len()), "{said:#?}");
    assert!(
        rest.iter().all(|line| line.contains("Redis grants all rights that jobs need again")),
        "{said:#?}"
    );
}
