//! The verbs on a cell in memory.

mod changes;
mod coming_and_going;
mod moving;
mod repairs;
mod second_address;

use std::collections::BTreeMap;

use gocompat::json;
use serde_json::json;

use super::{up::UpError, *};
use crate::{
    host::{
        HostError,
        fake::{FakeHost, Left, ON_THE_HOST, Trouble},
    },
    wire,
};

fn handle(text: &str) -> Handle {
    Handle::parse(text).unwrap()
}

fn web() -> Handle {
    handle("web")
}

fn request(pid: u32) -> wire::UpRequest {
    let text = json!({
        "Pid": pid,
        "Properties": {"policy_group_id": "app", "ports": "8080"},
        "netin": [{"host_port": 0, "container_port": 8080}, {"host_port": 5000, "container_port": 0}],
        "netout_rules": [{"protocol": 1, "networks": [{"start": "8.8.8.8"}], "ports": [{"start": 53, "end": 53}]}],
    });
    json::from_slice(text.to_string().as_bytes()).unwrap()
}

fn bring_up(host: &FakeHost, handle: &Handle, pid: u32) -> Result<wire::UpReply, UpError> {
    up(host, &Config::example(), handle, request(pid))
}

/// Runs `act` on fresh hosts prepared by `prepare`, in trouble at step 0, 1, 2, … until it gets
/// through; after each failure, `check` is asked.
fn at_every_step<E>(
    trouble: impl Fn(usize) -> Trouble,
    prepare: impl Fn(&FakeHost),
    act: impl Fn(&FakeHost) -> Result<(), E>,
    check: impl Fn(&FakeHost, &FakeHost, usize),
) {
    let untouched = FakeHost::default();
    prepare(&untouched);
    for step in 0..1000 {
        let host = FakeHost::default();
        prepare(&host);
        host.expect(trouble(step));
        let result = act(&host);
        if host.asked() <= step {
            assert!(result.is_ok());
            assert!(step > 1, "nothing was tested");
            return;
        }
        host.expect(None);
        if result.is_err() {
            check(&host, &untouched, step);
        }
    }
    panic!("it never got through");
}

fn assert_nothing_left(host: &FakeHost, step: usize) {
    assert_eq!(host.left(), Left::default(), "step {step}");
    assert!(host.firewall_is_bare(), "step {step}: {:?}", host.firewall());
}

fn allow(host: &FakeHost, rules: &str) -> Result<(), String> {
    let netout_rules = json::from_slice(rules.as_bytes()).unwrap();
    let request = wire::BulkNetOutRequest { container_ip: "10.255.30.2".into(), netout_rules };
    bulk_net_out(host, &Config::example(), &web(), request)
        .map_err(|error| crate::error_chain(&error))
}

const TWO_RULES: &str = r#"[{"networks":[{"start":"9.9.9.9"}]},
    {"protocol":2,"networks":[{"start":"1.1.1.1"}],"ports":[{"start":53,"end":53}]}]"#;

/// The chain of what leaves a container, in one firewall.
fn netout(firewall: &netfilter::Observed, handle: &Handle) -> Option<Vec<String>> {
    let chain = handle.chains().netout;
    firewall.rules(netfilter::Table::Filter, chain.as_str()).map(<[String]>::to_vec)
}

fn mentions(firewall: &netfilter::Observed, handle: &Handle) -> bool {
    let tables = netfilter::Table::ALL.into_iter();
    let chains: Vec<_> = tables.flat_map(|table| firewall.chains(table)).collect();
    chains.iter().any(|chain| chain.ends_with(&format!("--{handle}")))
}

/// What was put right, and who is in trouble.
fn told(mended: &BTreeMap<Handle, Mended>) -> (Vec<String>, Vec<String>) {
    let what = |(handle, mended): (&Handle, &Mended)| {
        (!mended.what.is_empty()).then(|| handle.to_string())
    };
    let trouble = |(handle, mended): (&Handle, &Mended)| {
        let trouble = mended.trouble.as_ref()?;
        Some(format!("{handle}: {}", crate::error_chain(trouble)))
    };
    (mended.iter().filter_map(what).collect(), mended.iter().filter_map(trouble).collect())
}

fn none() -> Vec<String> {
    Vec::new()
}

/// The kernel's rules of one chain, to be meddled with.
fn chain<'o>(
    all: &'o mut netfilter::Observed,
    table: netfilter::Table,
    chain: &str,
) -> &'o mut Vec<String> {
    all.rules_mut(table, chain).unwrap()
}
