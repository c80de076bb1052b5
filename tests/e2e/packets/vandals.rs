//! Somebody's hand in the agent's rules, every kind of it: without a word from the server all is put
//! right, nothing denied passes from then on, and an operator can read what it was.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::probe::Outcome;
use testkit::world::{Cell, Firewall};
use testkit::{Container, Spec, World, poll, story, tcp};

use crate::explains::explain;
use crate::three::Three;

/// One kind of vandalism.
struct Vandal<'a> {
    what: &'a str,
    meddle: &'a dyn Fn() -> Result<()>,
    /// The chain or set the agent is to name, with iptables and nftables, and a word it is to say.
    told: [&'a str; 2],
    word: &'a str,
}

const ACCEPT: [&str; 2] = ["-j ACCEPT", "accept"];

/// Each is put right before the next comes.
fn all_are_put_right(
    world: &World,
    three: &Three,
    cell: &Cell,
    vandals: &[Vandal<'_>],
) -> Result<()> {
    let before = cell.listing()?.of("vpa--");
    for Vandal { what, meddle, told, word } in vandals {
        let what = (*what).to_owned();
        let repairs = enforcement(cell)?["repairs"].as_u64().context("it tells no repairs")?;
        meddle().with_context(|| what.clone())?;
        poll::until(&format!("{what} is put right"), || {
            let status = enforcement(cell)?;
            ensure!(status["repairs"].as_u64() > Some(repairs), "no repair is told: {status}");
            let now = cell.listing()?.of("vpa--");
            ensure!(now == before, "different are {:?}", now.differences(&before));
            ensure!(is_hooked(cell)?, "the way in is not as it was");
            Ok(())
        })?;
        three.matrix(world).sweep().with_context(|| format!("after {what}"))?;
        let drift = &enforcement(cell)?["drift"];
        let of_this = |change: &Value| {
            let chain = change["chain"].as_str().unwrap_or_default();
            let says = change["what"].as_str().unwrap_or_default();
            chain == Firewall::either(*told) && says.contains(word) && change["at"].is_string()
        };
        let all = drift.as_array().context("there is no drift")?;
        ensure!(all.iter().any(of_this), "{what} is not told of: {drift:#}");
        ensure!(all.len() <= 20, "{} changes are remembered", all.len());
    }
    Ok(())
}

fn enforcement(cell: &Cell) -> Result<Value> {
    Ok(cell.agent_status()?["enforcement"].take())
}

/// Has no packet come to any of the agent's rules, and puts something beside them that it knows nothing of.
fn put_to_sleep(cell: &Cell) -> Result<()> {
    match Firewall::of_this_run() {
        Firewall::Iptables => cell.meddle("-F FORWARD", ""),
        Firewall::Nftables => {
            cell.meddle("", "add counter inet netman theirs")?;
            cell.meddle("", "add table inet netman { flags dormant; }")
        }
    }
}

/// Whether the agent's chains are led to as it promises.
fn is_hooked(cell: &Cell) -> Result<bool> {
    let listing = cell.listing()?;
    let leads = |rule: &String, to: &str| {
        rule.split(' ').any(|word| word.trim_start_matches("filter/") == to)
    };
    let first = listing.chain("filter/FORWARD").first();
    let input = listing.chain("filter/INPUT").iter().any(|rule| leads(rule, "vpa--input"));
    Ok(first.is_some_and(|rule| leads(rule, "vpa--forward")) && input)
}

#[test]
fn a_hand_in_the_rules_of_the_receiving_cell_is_undone() {
    story("a hand in the rules of the receiving cell is undone", |world| {
        let three = Three::start(world)?;
        let cell = world.cell(2);
        // Nobody tells the agent anything from here on.
        world.server().kill()?;
        let (forward, ingress) = ("filter/vpa--forward", "filter/vpa--ingress");
        let door = "flush chain inet netman filter/vpa--to-db";
        let entries = ["vpa--to-db.ok", "vpa--to-db"];
        all_are_put_right(
            world,
            &three,
            cell,
            &[
                Vandal {
                    what: "a flushed chain",
                    meddle: &|| cell.meddle("-F vpa--to-db", door),
                    told: ["vpa--to-db"; 2],
                    word: "missing rule",
                },
                Vandal {
                    what: "a deleted rule",
                    meddle: &|| cell.delete_rule(forward, 2),
                    told: ["vpa--forward"; 2],
                    word: "missing rule",
                },
                Vandal {
                    what: "a foreign accept at the top",
                    meddle: &|| cell.insert_rule(forward, Firewall::either(ACCEPT)),
                    told: ["vpa--forward"; 2],
                    word: "foreign rule",
                },
                Vandal {
                    what: "a foreign accept where packets arrive",
                    meddle: &|| cell.insert_rule(ingress, Firewall::either(ACCEPT)),
                    told: ["vpa--ingress"; 2],
                    word: "foreign rule",
                },
                Vandal {
                    what: "rules in another order",
                    meddle: &|| reorder(cell, ingress),
                    told: ["vpa--ingress"; 2],
                    word: "another order",
                },
                Vandal {
                    what: "a body edited under its comment",
                    meddle: &|| edit_under_comment(cell),
                    told: ["vpa--to-db"; 2],
                    word: "foreign rule",
                },
                Vandal {
                    what: "entries of a policy deleted",
                    meddle: &|| cell.meddle("-F vpa--to-db.ok", "flush set inet netman vpa--to-db"),
                    told: entries,
                    word: "missing",
                },
                Vandal {
                    what: "an entry nobody allowed",
                    meddle: &|| one_entry_more(cell),
                    told: entries,
                    word: "foreign",
                },
                Vandal {
                    what: "the door of an address deleted",
                    meddle: &|| forget(cell, "vpa--doors.dst", "filter/vpa--doors", &three.db),
                    told: ["vpa--doors.dst", "filter/vpa--doors"],
                    word: "missing",
                },
                Vandal {
                    what: "a jump taken away",
                    meddle: &|| cell.unhook_agent(),
                    told: ["FORWARD", "FORWARD"],
                    word: "missing rule",
                },
                Vandal {
                    what: "a jump behind a foreign rule",
                    meddle: &|| {
                        cell.insert_rule(
                            "filter/FORWARD",
                            Firewall::either([
                                "-s 192.0.2.1 -j ACCEPT",
                                "ip saddr 192.0.2.1 accept",
                            ]),
                        )
                    },
                    told: ["FORWARD"; 2],
                    word: "in front of ours",
                },
                Vandal {
                    what: "the table put to sleep",
                    meddle: &|| put_to_sleep(cell),
                    told: ["FORWARD", "inet netman"],
                    word: Firewall::either(["missing rule", "dormant"]),
                },
                Vandal {
                    what: "everything deleted",
                    meddle: &|| delete_everything(cell),
                    told: ["vpa--to-db"; 2],
                    word: "the chain was gone",
                },
            ],
        )
    });
}

#[test]
fn a_hand_in_the_rules_of_the_sending_cell_is_undone() {
    story("a hand in the rules of the sending cell is undone", |world| {
        let three = Three::start(world)?;
        let cell = world.cell(1);
        world.server().kill()?;
        let entries = ["vpa--sendable.ok", "vpa--sendable"];
        let flush = "flush set inet netman vpa--sendable";
        all_are_put_right(
            world,
            &three,
            cell,
            &[
                Vandal {
                    what: "the mark of an address deleted",
                    meddle: &|| forget(cell, "vpa--tags.src", "vpa--tags", &three.web),
                    told: ["vpa--tags.src", "vpa--tags"],
                    word: "missing",
                },
                Vandal {
                    what: "another's mark",
                    meddle: &|| pass_for(cell, &three),
                    told: ["vpa--tags.src", "vpa--tags"],
                    word: "foreign",
                },
                Vandal {
                    what: "what may be sent deleted",
                    meddle: &|| cell.meddle("-F vpa--sendable.ok", flush),
                    told: entries,
                    word: "missing",
                },
                Vandal {
                    what: "a foreign accept where packets leave",
                    meddle: &|| cell.insert_rule("filter/vpa--egress", Firewall::either(ACCEPT)),
                    told: ["vpa--egress"; 2],
                    word: "foreign rule",
                },
            ],
        )
    });
}

#[test]
fn what_is_missing_of_the_networkers_rules_is_told() {
    story("what is missing of the networker's rules is told", |world| {
        let three = Three::start(world)?;
        let cell = world.cell(1);
        tells(cell, &[])?;
        let netout = "filter/netout--web";
        cell.insert_rule(netout, Firewall::either(ACCEPT))?;
        tells(cell, &["container web: chain netout--web (filter) lets everything through"])?;
        let doctor = cell.agent_program(["doctor"])?.output()?;
        let says = String::from_utf8_lossy(&doctor.stdout).into_owned();
        ensure!(says.contains("chain netout--web (filter) lets everything through"), "{says}");
        ensure!(doctor.status.code() == Some(1), "the doctor ends with {}", doctor.status);
        cell.delete_rule(netout, 0)?;
        tells(cell, &[])?;

        // Of what stood between containers and the world, nothing is left; policies hold all the same.
        delete_everything(cell)?;
        tells(
            cell,
            &[
                "container web: chain input--web (filter) is gone",
                "container web: chain netout--web (filter) is gone",
                "container other: chain overlay--other (filter) is gone",
            ],
        )?;
        three.matrix(world).sweep()?;
        let Three { web, other, db: _ } = three;
        other.stop(cell)?;
        web.stop(cell)?;
        tells(cell, &[])?;
        let web = cell.start(Spec::app("web").tcp(8080))?;
        tells(cell, &[])?;
        let seen = web.dial(world.outside_a().address(), tcp(8080))?;
        ensure!(seen.outcome == Outcome::Refused, "web reaches the world: {seen}");
        Ok(())
    });
}

/// In front of containers' rules, a plain accept opens the world to them, though nothing of theirs is missing.
#[test]
fn a_foreign_accept_in_front_of_containers_rules_is_told_or_taken_out() {
    story("a foreign accept in front of containers' rules is told, or taken out", |world| {
        let three = Three::start(world)?;
        let cell = world.cell(1);
        let repairs = enforcement(cell)?["repairs"].as_u64();
        let outside = world.outside_a().address();
        let reaches = || Ok::<_, anyhow::Error>(three.web.dial(outside, tcp(8080))?.outcome);
        ensure!(reaches()? == Outcome::Refused, "web reaches the world at first");
        for way in ["counter accept", "meta nfproto ipv4 log accept"] {
            if Firewall::of_this_run() == Firewall::Nftables {
                cell.insert_rule("filter/FORWARD", way)?;
                cell.insert_rule("filter/INPUT", way)?;
            }
        }
        let input = cell.listing()?.chain("filter/INPUT").len();
        cell.insert_rule("filter/FORWARD", Firewall::either(ACCEPT))?;
        match Firewall::of_this_run() {
            Firewall::Nftables => {
                poll::until("it is taken out of our own table", || {
                    let status = enforcement(cell)?;
                    ensure!(status["repairs"].as_u64() > repairs, "{status:#}");
                    let drift = status["drift"].to_string();
                    ensure!(drift.contains("foreign rule `accept`"), "{drift}");
                    ensure!(reaches()? == Outcome::Refused, "web reaches the world");
                    let listing = cell.listing()?;
                    let rules = listing.chain("filter/INPUT");
                    ensure!(rules.len() == input - 2, "in INPUT are {rules:?}");
                    Ok(())
                })?;
            }
            Firewall::Iptables => {
                poll::until("it is told, and how to be rid of it", || {
                    let told = enforcement(cell)?["bypassed"].to_string();
                    ensure!(told.contains("iptables -D FORWARD -j ACCEPT"), "{told}");
                    Ok(())
                })?;
                let doctor = cell.agent_program(["doctor"])?.output()?;
                let says = String::from_utf8_lossy(&doctor.stdout).into_owned();
                ensure!(
                    says.contains("containers may be open to the world: `-j ACCEPT`"),
                    "{says}"
                );
                ensure!(doctor.status.code() == Some(1), "the doctor ends with {}", doctor.status);
                let some = "FORWARD -p tcp -m tcp --dport 8080 -j ACCEPT";
                cell.meddle("-D FORWARD -j ACCEPT", "")?;
                cell.meddle(&format!("-I {some}"), "")?;
                poll::until("what lets some packets go is told as such", || {
                    let status = enforcement(cell)?;
                    ensure!(status["bypassed"] == json!([]), "{status}");
                    let told = status["bypassed_in_part"].to_string();
                    ensure!(told.contains("`-p tcp -m tcp --dport 8080 -j ACCEPT`"), "{told}");
                    Ok(())
                })?;
                ensure!(reaches()? != Outcome::Refused, "web does not reach the world");
                cell.meddle(&format!("-D {some}"), "")?;
                poll::until("it is not told any more", || {
                    let status = enforcement(cell)?;
                    ensure!(status["bypassed_in_part"] == json!([]), "{status}");
                    Ok(())
                })?;
                ensure!(reaches()? == Outcome::Refused, "web reaches the world");
            }
        }
        three.matrix(world).sweep()
    });
}

/// Marks are set for many reasons, and those of policy routing are small numbers, too.
#[test]
fn a_mark_of_somebody_elses_makes_no_container_another() {
    story("a mark of somebody else's makes no container another", |world| {
        let three = Three::start(world)?;
        let cell = world.cell(1);
        let told = explain(cell, &["web", "db", "5432"])?;
        ensure!(told.contains("mark     0x1\n"), "{told}");
        cell.meddle(
            "-t mangle -I PREROUTING -j MARK --set-mark 0x1",
            "add table inet theirs; \
             add chain inet theirs marks { type filter hook prerouting priority -150; }; \
             add rule inet theirs marks meta mark set 0x1",
        )?;
        three.matrix(world).sweep()
    });
}

/// Waits until the agent tells all of this, or nothing.
fn tells(cell: &Cell, expected: &[&str]) -> Result<()> {
    poll::until("the agent tells what is missing", || {
        let told = enforcement(cell)?["unguarded"].take();
        let all = told.as_array().context("it does not say")?;
        ensure!(expected.iter().all(|one| all.iter().any(|told| told == one)), "{told:#}");
        ensure!(!expected.is_empty() || all.is_empty(), "{told:#}");
        Ok(())
    })
}

/// The last rule in front of all others.
fn reorder(cell: &Cell, chain: &str) -> Result<()> {
    let listing = cell.listing()?;
    let rules = listing.chain(chain);
    let last = rules.last().with_context(|| format!("{chain} is empty"))?;
    cell.delete_rule(chain, rules.len() - 1)?;
    cell.insert_rule(chain, last)
}

/// The door lets everybody in, under the comment of the rule that does not (with iptables there is none
/// to keep).
fn edit_under_comment(cell: &Cell) -> Result<()> {
    let door = "filter/vpa--to-db";
    let rule = cell.listing()?.chain(door).first().cloned().context("the door has no rule")?;
    let comment = rule.split_once(" comment ").map_or("", |(_, comment)| comment);
    let nft = format!("accept comment {comment}");
    cell.replace_rule(door, 0, Firewall::either(["-j ACCEPT", &nft]))
}

/// The entry that lets `web` in, with another port.
fn one_entry_more(cell: &Cell) -> Result<()> {
    let listing = cell.listing()?;
    match Firewall::of_this_run() {
        Firewall::Iptables => {
            let rule = listing.chain("filter/vpa--to-db.ok").first().context("no entry")?;
            cell.insert_rule("filter/vpa--to-db.ok", &rule.replace("5432", "5433"))
        }
        Firewall::Nftables => {
            let set = listing.set("vpa--to-db").context("there is no set")?;
            let mark = set.split("elements = { ").nth(1).and_then(|rest| rest.split(' ').next());
            let mark = mark.with_context(|| format!("no entry in {set}"))?;
            let add = format!("add element inet netman vpa--to-db {{ {mark} . tcp . 5433 }}");
            cell.meddle("", &add)
        }
    }
}

/// What is known of a container's address is known no more.
fn forget(cell: &Cell, chain: &str, map: &str, container: &Container) -> Result<()> {
    let address = container.address();
    if Firewall::of_this_run() == Firewall::Nftables {
        return cell.meddle("", &format!("delete element inet netman {map} {{ {address} }}"));
    }
    let (listing, chain) = (cell.listing()?, format!("filter/{chain}"));
    let says = format!(" {address}/32 ");
    let place = listing.chain(&chain).iter().position(|rule| rule.contains(&says));
    cell.delete_rule(&chain, place.with_context(|| format!("{chain} does not know {address}"))?)
}

/// Gives `other` the mark of `web`.
fn pass_for(cell: &Cell, three: &Three) -> Result<()> {
    let (web, other) = (three.web.address(), three.other.address());
    let listing = cell.listing()?;
    match Firewall::of_this_run() {
        Firewall::Iptables => {
            let chain = "filter/vpa--tags.src";
            let of_web = format!("-s {web}/32 ");
            let rule = listing.chain(chain).iter().find(|rule| rule.starts_with(&of_web));
            let rule = rule.context("web has no mark")?;
            cell.insert_rule(chain, &rule.replace(&of_web, &format!("-s {other}/32 ")))
        }
        Firewall::Nftables => {
            let tags = listing.set("vpa--tags").context("there are no marks")?;
            let mark = tags.split(&format!("{web} : ")).nth(1);
            let mark =
                mark.and_then(|rest| rest.split([' ', ',']).next()).context("web has none")?;
            let tags = "element inet netman vpa--tags";
            let instead = format!("add {tags} {{ {other} : {mark} }}");
            cell.meddle("", &format!("delete {tags} {{ {other} : 0x00000000 }}; {instead}"))
        }
    }
}

/// As whoever starts a firewall anew does it.
fn delete_everything(cell: &Cell) -> Result<()> {
    match Firewall::of_this_run() {
        Firewall::Iptables => {
            cell.meddle("-F", "")?;
            cell.meddle("-X", "")
        }
        Firewall::Nftables => cell.meddle("", "delete table inet netman"),
    }
}
