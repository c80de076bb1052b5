//! A database that is restored from a backup, under servers and agents that know what came after it.

use crate::{agent::Agent, database::Kind, server::Fleet, stories};

/// The policies after the backup are no more, those of the backup are again, and what is taken later has
/// revisions that were given before. Agents must end with what the database says.
async fn agents_follow_a_restored_database(kind: Kind) {
    let fleet = Fleet::new(kind).await;
    let [first, second] = &fleet.servers[..] else { panic!("there are two") };
    first.create(&["web db 1", "web db 2"]).await;
    let agents = [
        Agent::of(&[first], "cell-1", &["web"]).await,
        Agent::of(&[second], "cell-2", &["db"]).await,
        Agent::of(&[first, second], "cell-3", &["web"]).await,
    ];
    let backup = fleet.database.backup();
    first.delete(&["web db 2"]).await;
    for port in 10..20 {
        second.create(&[&format!("web db {port}")]).await;
    }
    let mut lives = Vec::new();
    for agent in &agents {
        let held = agent.has("web db 19").await;
        lives.push(held.version.rsplit_once('.').unwrap().0.to_owned());
    }
    fleet.database.restore(&backup);
    for (agent, life) in agents.iter().zip(lives) {
        let held = agent.holds(&["web db 1", "web db 2"]).await;
        assert_ne!(held.version.rsplit_once('.').unwrap().0, life, "another life began");
    }
    // As many changes as were lost, and more: revisions meet those of the life before.
    for port in 30..50 {
        first.create(&[&format!("web db {port}")]).await;
    }
    let all: Vec<_> =
        [1, 2].into_iter().chain(30..50).map(|port| format!("web db {port}")).collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    for agent in &agents {
        agent.holds(&all).await;
    }
}

stories!(agents_follow_a_restored_database);
