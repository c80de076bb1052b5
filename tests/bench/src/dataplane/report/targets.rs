use crate::{
    dataplane::{MANY, Measured, Met},
    outcome::{Outcome, Target},
};

/// Rates within this of those without rules are the same, as far as can be told here.
const NOISE: f64 = 0.9;

/// How the numbers compare with what was aimed for; of both shapes, the worse one counts.
pub(super) fn judge(measured: &Measured) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let most = |limit, name: String, value, unit| Target::AtMost(limit).judge(&name, value, unit);
    let least = |limit, name: String, value| Target::AtLeast(limit).judge(&name, value, "ratio");
    let round_trip = [("nftables", 1.35), ("iptables", 1.6)];
    let change = [("nftables", 20.0), ("iptables", 80.0)];
    for (rules, limit) in round_trip {
        let worst = |number: fn(&Met) -> f64| highest(with_many(measured, rules).map(number));
        let first = worst(|met| met.beside_bare.first_us);
        outcomes.push(most(limit, format!("rtt ratio 50k {rules}"), first, "ratio"));
        let later = worst(|met| met.beside_bare.later_us);
        outcomes.push(most(limit, format!("rtt ratio 50k {rules} established"), later, "ratio"));
    }
    for (rules, limit) in change {
        let of = measured.changes.iter().filter(|change| change.backend == rules);
        // The dearer of the two kinds there are.
        let slowest = highest(of.map(|change| change.added_ms.max(change.removed_ms)));
        outcomes.push(most(limit, format!("one change 50k {rules}"), slowest, "ms"));
    }
    for (rules, _) in round_trip {
        let of = || measured.burdens.iter().filter(|burden| burden.backend == rules);
        let cold = highest(of().map(|burden| burden.cold_start_s));
        outcomes.push(most(1.5, format!("cold start 50k {rules}"), cold, "s"));
        let rss = highest(of().map(|burden| burden.rss_mib));
        outcomes.push(most(40.0, format!("agent rss 50k {rules}"), rss, "MiB"));
    }
    for (rules, _) in round_trip {
        // What there are of policies is what must not be felt: beside one policy.
        let rate = |number: fn(&Met) -> f64| beside_one(measured, rules, number);
        let made = rate(|met| met.beside_bare.connections_per_second);
        outcomes.push(least(NOISE, format!("connections ratio 50k {rules}"), made));
        let passed = rate(|met| met.beside_bare.gbit_per_second);
        outcomes.push(least(NOISE, format!("throughput ratio 50k {rules}"), passed));
    }
    let group = measured.group.beside_bare.gbit_per_second;
    outcomes.push(least(NOISE, "throughput ratio 100k networks nftables".into(), group));
    outcomes
}

fn with_many<'a>(measured: &'a Measured, rules: &'a str) -> impl Iterator<Item = &'a Met> {
    measured.met.iter().filter(move |met| met.rules == rules && met.policies == MANY)
}

/// A rate with most policies beside that with one, in the shape in which it falls most.
fn beside_one(measured: &Measured, rules: &str, number: impl Fn(&Met) -> f64) -> f64 {
    let ratio = |many: &Met| {
        let same = |met: &&Met| met.rules == rules && met.shape == many.shape && met.policies == 1;
        measured.met.iter().find(same).map(|one| number(many) / number(one))
    };
    with_many(measured, rules).filter_map(ratio).fold(f64::INFINITY, f64::min)
}

fn highest(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, f64::max)
}
