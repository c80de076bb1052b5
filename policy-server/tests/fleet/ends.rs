//! Servers that end at the worst of moments.

use policy::{Policy, Protocol};
use policy_store::Actor;

use crate::{agent::Agent, database::Kind, server::Fleet, stories};

fn policy(source: &str, destination: &str, port: u16) -> Policy {
    Policy {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        protocol: Protocol::Tcp,
        ports: port.to_string().parse().unwrap(),
    }
}

/// The change is in the database, and whoever put it there can tell nobody any more.
async fn a_server_killed_between_commit_and_wake_up_loses_no_change(kind: Kind) {
    let mut fleet = Fleet::new(kind).await;
    fleet.servers[0].create(&["web db 1"]).await;
    let here = Agent::of(&[&fleet.servers[0]], "cell-1", &["web"]).await;
    let there = Agent::of(&[&fleet.servers[1]], "cell-2", &["web"]).await;
    let store = fleet.database.store().await;
    fleet.kill(0);
    store.create(&[policy("web", "db", 2)], &Actor::system("test")).await.unwrap();
    there.holds(&["web db 1", "web db 2"]).await;
    assert_eq!(here.held().policies.len(), 1, "nobody could tell it");
    fleet.start_again(0).await;
    here.holds(&["web db 1", "web db 2"]).await;
    store.close().await;
}

/// With both addresses, an agent needs only one of them to be there.
async fn agents_go_on_with_the_server_that_is_left(kind: Kind) {
    let mut fleet = Fleet::new(kind).await;
    fleet.servers[0].create(&["web db 1"]).await;
    let mut agents = Vec::new();
    for number in 0..6 {
        let servers = [&fleet.servers[0], &fleet.servers[1]];
        agents.push(Agent::of(&servers, &format!("cell-{number}"), &["web"]).await);
    }
    for (round, (killed, left)) in [(0, 1), (1, 0)].into_iter().enumerate() {
        fleet.kill(killed);
        let policy = format!("web db {}", round + 2);
        fleet.servers[left].create(&[&policy]).await;
        for agent in &agents {
            agent.has(&policy).await;
        }
        fleet.start_again(killed).await;
    }
    for agent in &agents {
        agent.holds(&["web db 1", "web db 2", "web db 3"]).await;
    }
}

stories!(
    a_server_killed_between_commit_and_wake_up_loses_no_change,
    agents_go_on_with_the_server_that_is_left,
);
