use crate::{
    outcome::{Outcome, Target},
    server::{Measurement, Memory},
};

/// How much of a rate may be lost from 10,000 to 100,000 policies: less than what one run differs
/// from the next on a machine that does other things, too.
const FLAT: Target = Target::AtLeast(0.8);

const MANY: usize = 100_000;
const FEW: usize = 10_000;

/// How the numbers compare with what they should be. What was not measured is not judged.
pub(super) fn judge(measured: &[Measurement], memory: &[Memory]) -> Vec<Outcome> {
    let one = |operation: &str, stored, clients| {
        measured.iter().find(|measurement| {
            (measurement.operation.as_str(), measurement.stored, measurement.clients)
                == (operation, stored, clients)
        })
    };
    let mut outcomes = Vec::new();
    for (operation, clients, target) in [
        ("poll for 50 apps", 4, Target::AtLeast(2000.0)),
        ("old agent's poll for 50 apps", 4, Target::AtLeast(2000.0)),
        ("full list", 8, Target::AtLeast(15.0)),
        ("create", 64, Target::AtLeast(1500.0)),
        ("delete", 64, Target::AtLeast(1500.0)),
        ("create 100 at once", 64, Target::AtLeast(8000.0)),
        ("delete 100 at once", 64, Target::AtLeast(8000.0)),
    ] {
        if let Some(found) = one(operation, MANY, clients) {
            let name = format!("{operation} rate, 100k policies, {clients} clients");
            outcomes.push(target.judge(&name, found.rate, &found.unit));
        }
    }
    if let Some(found) = one("poll for 50 apps", MANY, 4) {
        let name = "poll for 50 apps p99, 100k policies, 4 clients";
        outcomes.push(Target::AtMost(5.0).judge(name, found.p99_ms, "ms"));
        if let Some(database) = found.database_cpu_ms {
            // A tick of the clock by which processor time is counted, and the looks at the revision.
            let name = "poll for 50 apps, database time per request";
            outcomes.push(Target::AtMost(0.01).judge(name, database, "ms"));
        }
    }
    for few in measured.iter().filter(|measurement| measurement.stored == FEW) {
        if let Some(many) = one(&few.operation, MANY, few.clients) {
            let name = format!("{} flatness, {} clients", few.operation, few.clients);
            outcomes.push(FLAT.judge(&name, flatness(few, many), "ratio"));
        }
    }
    if let Some(found) = memory.iter().find(|memory| memory.stored == MANY) {
        let name = "memory at most, 100k policies";
        outcomes.push(Target::AtMost(250.0).judge(name, found.peak_mib, "MiB"));
    }
    outcomes
}

/// The rate that is left. Of the full list it is that of bytes: ten times as many policies are ten
/// times as long to tell.
fn flatness(few: &Measurement, many: &Measurement) -> f64 {
    let speed = |measurement: &Measurement| match measurement.operation.as_str() {
        "full list" => measurement.rate * measurement.answer_bytes as f64,
        _ => measurement.rate,
    };
    speed(many) / speed(few)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(operation: &str, stored: usize, clients: usize, rate: f64) -> Measurement {
        Measurement {
            operation: operation.to_owned(),
            stored,
            clients,
            rate,
            unit: "requests/s".to_owned(),
            p50_ms: 1.0,
            p99_ms: 6.0,
            server_cpu_ms: 0.5,
            database_cpu_ms: None,
            answer_bytes: stored as u64,
        }
    }

    fn outcome(measured: &[Measurement], name: &str) -> Outcome {
        let outcomes = judge(measured, &[Memory { stored: MANY, peak_mib: 250.0 }]);
        outcomes
            .iter()
            .find(|outcome| outcome.name == name)
            .unwrap_or_else(|| panic!("{outcomes:?}"))
            .clone()
    }

    #[test]
    fn a_number_beyond_its_target_is_told() {
        let measured = [measurement("poll for 50 apps", MANY, 4, 2000.0)];
        let rate = outcome(&measured, "poll_for_50_apps_rate_100k_policies_4_clients");
        assert_eq!((rate.value, rate.target.as_str(), rate.ok), (2000.0, ">= 2000", true));
        let p99 = outcome(&measured, "poll_for_50_apps_p99_100k_policies_4_clients");
        assert_eq!((p99.value, p99.target.as_str(), p99.ok), (6.0, "<= 5", false));
        assert!(outcome(&measured, "memory_at_most_100k_policies").ok);
    }

    #[test]
    fn flat_is_what_stays_when_more_is_stored() {
        let pair = |operation, few, many| {
            [measurement(operation, FEW, 1, few), measurement(operation, MANY, 1, many)]
        };
        let create = outcome(&pair("create", 1000.0, 799.0), "create_flatness_1_clients");
        assert_eq!((create.value, create.ok), (0.799, false));
        let list = outcome(&pair("full list", 200.0, 20.0), "full_list_flatness_1_clients");
        assert_eq!((list.value, list.ok), (1.0, true), "by bytes");
    }
}
