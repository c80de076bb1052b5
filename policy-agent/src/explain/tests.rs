use super::*;
use crate::world::tests::world;

fn host() -> BTreeSet<IpAddr> {
    ["10.255.30.1", "10.0.16.14"].iter().map(|ip| ip.parse().unwrap()).collect()
}

fn of(source: &str, destination: &str, port: &str) -> String {
    let world = world(
        &[("10.255.30.2", "web"), ("10.255.30.3", "db")],
        &["web 1 db tcp 8080", "far 9 db udp 53-54", "web 1 log tcp 514"],
    );
    let flow = Flow::parse(source, destination, port).unwrap();
    let Explanation { verdict, policy, missing, mark, .. } = explain(&world, &host(), &flow);
    let policy = policy.map(|policy| format!(" by {policy}")).unwrap_or_default();
    let missing = missing.map(|missing| format!(" for want of {missing}")).unwrap_or_default();
    format!("{verdict}{policy}{missing}, mark {mark}")
}

#[test]
fn the_policy_that_allows_is_named() {
    let allowed = "passes by web -> db tcp 8080, mark 1";
    assert_eq!(of("web", "db", "8080"), allowed);
    assert_eq!(of("10.255.30.2", "10.255.30.3", "8080/tcp"), allowed);
    assert_eq!(of("far", "db", "54/udp"), "passes by far -> db udp 53-54, mark 9");
    assert_eq!(of("web", "log", "514"), "passes by web -> log tcp 514, mark 1");
}

#[test]
fn the_policy_that_is_missing_is_named() {
    let refused = "is refused for want of web -> db tcp 8081, mark 1";
    assert_eq!(of("web", "db", "8081"), refused);
    assert_eq!(of("db", "web", "8080"), "is refused for want of db -> web tcp 8080, mark 0");
    assert_eq!(of("far", "db", "53"), "is refused for want of far -> db tcp 53, mark 9");
    // It may leave, as another policy is about this port.
    assert_eq!(of("web", "far", "514"), "is refused for want of web -> far tcp 514, mark 1");
    assert_eq!(of("web", "10.255.30.9", "80"), "is refused, mark 1", "no app, no policy");
    assert_eq!(of("10.255.30.9", "db", "80"), "is refused, mark 0");
    let other_cell = of("web", "10.255.31.9", "80");
    assert_eq!(other_cell, "is refused for want of web -> 10.255.31.9 tcp 80, mark 1");
}

#[test]
fn nobody_says_what_rules_of_a_former_run_say() {
    let world = world(&[("10.255.30.2", "web"), ("10.255.30.3", "db")], &[]);
    let told = of_former_run(&world, &host(), &Flow::parse("web", "db", "80").unwrap());
    assert_eq!((told.missing.as_deref(), told.source), (None, "10.255.30.2".parse().ok()));
    let text = told.to_string();
    assert!(
        text.starts_with("It is for rules of a former run to decide. The policy server has not"),
        "{text}"
    );
    assert!(text.ends_with("kernel   holds rules of a former run"), "{text}");
}

#[test]
fn an_app_nobody_has_heard_of_is_told_as_such() {
    let world = world(&[("10.255.30.2", "web")], &["web 1 log tcp 514"]);
    let of = |source: &str, destination: &str| {
        explain(&world, &host(), &Flow::parse(source, destination, "514").unwrap())
    };
    assert_eq!(of("web", "log").unknown, [""; 0]);
    assert_eq!(of("log", "web").unknown, [""; 0]);
    let told = of("wbe", "web");
    assert_eq!(told.unknown, ["wbe"]);
    assert!(told.to_string().contains("\n  unknown  wbe: no container here"), "{told}");
}

#[test]
fn what_leaves_the_overlay_is_for_others_to_decide() {
    assert_eq!(of("web", "192.0.2.1", "443"), "is not for policies to decide, mark 1");
}

#[test]
fn what_no_policy_could_be_about_misses_none() {
    let refused = "is refused, mark 0";
    assert_eq!(of("192.0.2.1", "db", "8080"), refused);
    assert_eq!(of("10.255.30.1", "db", "8080"), "passes, mark 0");
    assert_eq!(of("10.0.16.14", "log", "8080"), refused);
    assert_eq!(of("web", "10.0.16.14", "61000"), "is not for policies to decide, mark 1");
    assert_eq!(of("192.0.2.1", "10.0.16.14", "61000"), "is not for policies to decide, mark 0");
    assert_eq!(of("10.255.31.2", "far", "80"), "is not for this cell to decide, mark 0");
    assert_eq!(of("wbe", "far", "80"), "is not for this cell to decide, mark 0");
    assert_eq!(of("10.0.16.14", "10.255.30.77", "80"), "is not for policies to decide, mark 0");
    assert_eq!(of("::1", "web", "80"), "is not for policies to decide, mark 0", "no IPv6");
}

#[test]
fn what_nobody_has_told_of_is_not_said_to_be_missing() {
    let world = world(&[("10.255.30.2", "web"), ("10.255.30.3", "db")], &[]);
    let flow = Flow::parse("web", "10.255.30.3", "80").unwrap();
    let told = |apps: &[&str]| {
        let apps = apps.iter().map(|app| app.parse().unwrap()).collect();
        unless_untold(explain(&world, &host(), &flow), &world, &flow, Some(&apps))
    };
    assert_eq!(told(&["web", "db"]).missing.as_deref(), Some("web -> db tcp 80"));
    let untold = told(&["web"]);
    assert_eq!((untold.verdict, untold.missing), (Verdict::Refused, None));
    assert!(untold.why.contains("policies about db"), "{}", untold.why);
}

#[test]
fn what_was_tried_is_held_against_what_is_said() {
    let explained = |source: &str, port: &str| {
        let world = world(&[("10.255.30.2", "web"), ("10.255.30.3", "db")], &["web 1 db tcp 80"]);
        explain(&world, &host(), &Flow::parse(source, "db", port).unwrap())
    };
    let code = |said: &Explanation, met, denied: Option<&str>, protocol| {
        let end = ([10, 255, 30, 2], 80).into();
        let attempt = crate::probe::Attempt { protocol, source: end, destination: end };
        let probe = Probe { attempt, met, denied: denied.map(ToOwned::to_owned) };
        let said = Explanation { probe: Some(probe), ..said.clone() };
        (said.is_contradicted(), said.contradiction())
    };
    let (tcp, udp) = (crate::probe::Transport::Tcp, crate::probe::Transport::Udp);
    let (fine, wrong) = ((false, ""), (true, ". That is not what the rules should do."));
    let unanswered = (
        true,
        ". Our rules let it pass, and it got no answer. Nobody listens there, or somebody else's rules refuse it, of which the doctor may know.",
    );
    let passes = explained("web", "80");
    assert_eq!(code(&passes, Met::Answer, None, tcp), fine);
    assert_eq!(code(&passes, Met::Refusal, Some("no_policy"), tcp), wrong);
    assert_eq!(code(&passes, Met::Refusal, None, tcp), unanswered);
    assert_eq!(code(&passes, Met::Silence, None, tcp), unanswered);
    assert_eq!(code(&passes, Met::Silence, None, udp), fine, "a datagram tells no more");
    let refused = explained("web", "81");
    assert_eq!(code(&refused, Met::Answer, None, tcp), wrong);
    assert_eq!(code(&refused, Met::Refusal, Some("no_policy"), tcp), fine);
    assert_eq!(code(&refused, Met::Silence, None, tcp), fine);
    let world = world(&[("10.255.30.2", "web")], &[]);
    let outside = explain(&world, &host(), &Flow::parse("web", "192.0.2.1", "443").unwrap());
    assert_eq!(code(&outside, Met::Refusal, Some("egress"), tcp), fine);
}

#[test]
fn what_is_asked_of_an_address_of_ipv6_is_answered_about_ipv6() {
    let containers = [
        ("10.255.30.2", "web"),
        ("fd00:255::2", "web"),
        ("10.255.30.3", "db"),
        ("fd00:255::3", "db"),
        ("10.255.30.4", "log"),
    ];
    let world = crate::world::tests::dual(&containers, &["web 1 db tcp 8080", "web 1 log tcp 1"]);
    let of = |source: &str, destination: &str, port: &str| {
        let flow = Flow::parse(source, destination, port).unwrap();
        let Explanation { source, verdict, policy, .. } = explain(&world, &host(), &flow);
        let source = source.map(|ip| ip.to_string()).unwrap_or_default();
        format!("{source} {verdict} {}", policy.unwrap_or_default())
    };
    assert_eq!(of("web", "db", "8080"), "10.255.30.2 passes web -> db tcp 8080");
    assert_eq!(of("web", "fd00:255::3", "8080"), "fd00:255::2 passes web -> db tcp 8080");
    assert_eq!(of("fd00:255::2", "db", "8081"), "fd00:255::2 is refused ");
    assert_eq!(of("fd00:255::2", "log", "1"), "fd00:255::2 is refused ", "it has no second");
    assert_eq!(of("web", "2001:db8::1", "1"), "fd00:255::2 is not for policies to decide ");
}

#[test]
fn of_ipv6_nothing_is_said_where_there_is_none() {
    let world = world(&[("10.255.30.2", "web")], &[]);
    let flow = Flow::parse("web", "2001:db8::1", "80").unwrap();
    let Explanation { source, why, .. } = explain(&world, &host(), &flow);
    assert_eq!(source, None);
    assert!(why.contains("dual_stack is off"), "{why}");
}

#[test]
fn words_that_name_no_flow_are_refused() {
    for port in ["0", "65536", "http", "80/icmp", ""] {
        assert!(Flow::parse("web", "db", port).is_err(), "{port}");
    }
    assert_eq!(Flow::parse("", "db", "80"), Err(InvalidFlow::End));
}
