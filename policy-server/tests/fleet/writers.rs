//! Two servers take changes at the same time, and a third of another kind.

use crate::{agent::Agent, database::Kind, server::Fleet, stories};

async fn what_one_server_takes_is_with_the_agents_of_both(kind: Kind) {
    let fleet = Fleet::new(kind).await;
    let [first, second] = &fleet.servers[..] else { panic!("there are two") };
    let here = Agent::of(&[first], "cell-1", &["web"]).await;
    let there = Agent::of(&[second], "cell-2", &["db"]).await;
    first.create(&["web db 1"]).await;
    for agent in [&here, &there] {
        agent.holds(&["web db 1"]).await;
    }
    second.create(&["web db 2", "web other 3"]).await;
    here.holds(&["web db 1", "web db 2", "web other 3"]).await;
    there.holds(&["web db 1", "web db 2"]).await;
    first.delete(&["web db 2"]).await;
    second.delete(&["web db 1"]).await;
    here.holds(&["web other 3"]).await;
    there.holds(&[]).await;
}

/// Each agent is given every change there is for it, whoever took it, and in the end all agree.
async fn writers_on_both_lose_nothing(kind: Kind) {
    let fleet = Fleet::new(kind).await;
    let [first, second] = &fleet.servers[..] else { panic!("there are two") };
    let agents = [
        Agent::of(&[first], "cell-1", &["a"]).await,
        Agent::of(&[second], "cell-2", &["a"]).await,
        Agent::of(&[first, second], "cell-3", &["a", "b"]).await,
    ];
    let write = async |server: &crate::server::Server, odd: u16| {
        for port in (1..=30).map(|number| 2 * number + odd) {
            let policy = format!("a b {port}");
            server.create(&[&policy]).await;
            // Every third goes again.
            if port % 3 == 0 {
                server.delete(&[&policy]).await;
            }
        }
    };
    tokio::join!(write(first, 0), write(second, 1));
    let left: Vec<_> = (2..=61).filter(|port| port % 3 != 0).collect();
    let left: Vec<_> = left.iter().map(|port| format!("a b {port}")).collect();
    let left: Vec<_> = left.iter().map(String::as_str).collect();
    for agent in &agents {
        agent.holds(&left).await;
    }
}

/// The older server takes no revision; what it did is found by comparing.
async fn an_older_server_beside_us_wakes_those_it_concerns_and_no_others(kind: Kind) {
    let fleet = Fleet::new(kind).await;
    let [first, second] = &fleet.servers[..] else { panic!("there are two") };
    first.create(&["web db 1", "other third 1"]).await;
    let here = Agent::of(&[first], "cell-1", &["web"]).await;
    let there = Agent::of(&[second], "cell-2", &["db"]).await;
    let others = [
        Agent::of(&[first], "cell-3", &["other"]).await,
        Agent::of(&[second], "cell-4", &["third"]).await,
    ];
    for other in &others {
        other.holds(&["other third 1"]).await;
    }
    let given: Vec<_> = others.iter().map(|other| other.held().given).collect();
    fleet.database.create_as_of_old("web", "db", 2).await;
    for agent in [&here, &there] {
        agent.holds(&["web db 1", "web db 2"]).await;
    }
    // Whatever else they were told, they were told before this.
    first.create(&["other third 2"]).await;
    for (other, given) in others.iter().zip(given) {
        let held = other.holds(&["other third 1", "other third 2"]).await;
        assert_eq!(held.given, given + 1, "{held:?}");
    }
}

stories!(
    what_one_server_takes_is_with_the_agents_of_both,
    writers_on_both_lose_nothing,
    an_older_server_beside_us_wakes_those_it_concerns_and_no_others,
);
