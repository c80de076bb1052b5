//! How things stand, in the words of Prometheus. Made anew for each page, so that what cannot be read
//! is missing from it, rather than old.

use std::{collections::BTreeMap, time::SystemTime};

use policy_store::StoreFigures;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        info::Info,
    },
    registry::{Registry, Unit},
};

use super::{
    events::{Outcome, PREFIX},
    process::Process,
    readings::{CellState, Readings, Tags},
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// The lines that tell `readings`.
pub(super) fn of(readings: &Readings) -> Registry {
    let Readings {
        policies,
        leases,
        revision,
        snapshot_age,
        cells,
        group_cells,
        tags,
        database,
        process,
    } = readings;
    let mut registry = Registry::default();
    let ours = registry.sub_registry_with_prefix(PREFIX);
    let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    ours.register("build", "Which server this is", version);
    ours.register("policies", "Policies in force", ConstGauge::new(*policies));
    ours.register("leases", "Subnets that cells hold", ConstGauge::new(*leases));
    ours.register("revision", "Newest revision that cells are told of", ConstGauge::new(*revision));
    ours.register_with_unit(
        "snapshot_age",
        "Time since the snapshot was last compared with the database",
        Unit::Seconds,
        ConstGauge::new(snapshot_age.as_secs_f64()),
    );
    let counts = |counts: &BTreeMap<CellState, usize>| {
        by_state(counts.iter().map(|(state, count)| (state.as_str(), *count)))
    };
    ours.register("cells", "Cells that poll this server, by what they enforce", counts(cells));
    let help = "Cells that ask this server for security groups, by which they enforce";
    ours.register("group_cells", help, counts(group_cells));
    describe_database(database, ours);
    if let Some(Tags { used, quarantined, free }) = *tags {
        let tags = by_state([("used", used), ("quarantined", quarantined), ("free", free)]);
        ours.register("tags", "Tags, by what they are used for", tags);
    }
    if let Some(process) = process {
        describe(process, &mut registry);
    }
    registry
}

fn describe_database(database: &StoreFigures, registry: &mut Registry) {
    let StoreFigures { connections, succeeded, failed, in_flight } = *database;
    let queries = Family::<OutcomeLabels, Counter>::default();
    for (outcome, count) in [(Outcome::Succeeded, succeeded), (Outcome::Failed, failed)] {
        queries.get_or_create(&OutcomeLabels { outcome: outcome.as_str() }).inc_by(count);
    }
    registry.register("database_queries", "Steps of transactions, by how they ended", queries);
    registry.register(
        "database_queries_in_flight",
        "Steps of transactions that are not answered yet",
        ConstGauge::new(in_flight),
    );
    registry.register(
        "database_connections",
        "Open connections to the database",
        ConstGauge::new(connections),
    );
}

/// Under the names that all programs share.
fn describe(process: &Process, registry: &mut Registry) {
    let Process { cpu, resident, virtual_memory, threads, open_files, most_files, started } =
        process;
    let busy = ConstCounter::new(cpu.as_secs_f64());
    let registry = registry.sub_registry_with_prefix("process");
    let (seconds, bytes) = (|| Unit::Seconds, || Unit::Bytes);
    registry.register_with_unit("cpu", "Processor time, user and system", seconds(), busy);
    registry.register_with_unit(
        "resident_memory",
        "Memory in use",
        bytes(),
        ConstGauge::new(*resident),
    );
    registry.register_with_unit(
        "virtual_memory",
        "Address space in use",
        bytes(),
        ConstGauge::new(*virtual_memory),
    );
    let since = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    registry.register_with_unit(
        "start_time",
        "When the process started, since 1970",
        seconds(),
        ConstGauge::new(since.as_secs_f64()),
    );
    registry.register("threads", "Threads", ConstGauge::new(*threads));
    registry.register("open_fds", "Open files", ConstGauge::new(*open_files));
    if let Some(most) = most_files {
        registry.register("max_fds", "How many files may be open", ConstGauge::new(*most));
    }
}

fn by_state(counts: impl IntoIterator<Item = (&'static str, usize)>) -> Family<StateLabels, Gauge> {
    let family = Family::<StateLabels, Gauge>::default();
    for (state, count) in counts {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        family.get_or_create(&StateLabels { state }).set(count);
    }
    family
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::encoding::text;

    use super::*;
    use crate::metrics::readings::CellState;

    fn readings() -> Readings {
        Readings {
            policies: 3,
            leases: 2,
            revision: 41,
            snapshot_age: Duration::from_millis(120),
            cells: BTreeMap::from([(CellState::Current, 2), (CellState::Silent, 0)]),
            group_cells: BTreeMap::from([(CellState::Current, 1), (CellState::Failing, 3)]),
            tags: Some(Tags { used: 4, quarantined: 1, free: 250 }),
            database: StoreFigures { connections: 2, succeeded: 90, failed: 1, in_flight: 3 },
            process: Some(Process {
                cpu: Duration::from_millis(1250),
                resident: 1 << 20,
                virtual_memory: 1 << 30,
                threads: 5,
                open_files: 9,
                most_files: Some(1024),
                started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_729_786_010),
            }),
        }
    }

    /// The lines that are no comments.
    fn samples(readings: &Readings) -> Vec<String> {
        let mut text = String::new();
        text::encode_registry(&mut text, &of(readings)).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn what_was_read_is_what_is_said() {
        let mut samples = samples(&readings());
        samples.sort();
        let version = env!("CARGO_PKG_VERSION");
        let build = format!("netman_policy_server_build_info{{version=\"{version}\"}} 1");
        let mut expected = vec![
            build.as_str(),
            "netman_policy_server_cells{state=\"current\"} 2",
            "netman_policy_server_cells{state=\"silent\"} 0",
            "netman_policy_server_group_cells{state=\"current\"} 1",
            "netman_policy_server_group_cells{state=\"failing\"} 3",
            "netman_policy_server_leases 2",
            "netman_policy_server_policies 3",
            "netman_policy_server_revision 41",
            "netman_policy_server_snapshot_age_seconds 0.12",
            "netman_policy_server_tags{state=\"free\"} 250",
            "netman_policy_server_tags{state=\"quarantined\"} 1",
            "netman_policy_server_database_connections 2",
            "netman_policy_server_database_queries_in_flight 3",
            "netman_policy_server_database_queries_total{outcome=\"failed\"} 1",
            "netman_policy_server_database_queries_total{outcome=\"succeeded\"} 90",
            "netman_policy_server_tags{state=\"used\"} 4",
            "process_cpu_seconds_total 1.25",
            "process_max_fds 1024",
            "process_open_fds 9",
            "process_resident_memory_bytes 1048576",
            "process_start_time_seconds 1729786010.0",
            "process_threads 5",
            "process_virtual_memory_bytes 1073741824",
        ];
        expected.sort_unstable();
        assert_eq!(samples, expected);
    }

    #[test]
    fn what_could_not_be_read_is_left_out() {
        let samples = samples(&Readings { tags: None, process: None, ..readings() });
        assert!(samples.iter().all(|line| !line.contains("tags") && !line.starts_with("process")));
        assert!(samples.iter().any(|line| line.contains("policies")), "{samples:?}");
    }
}
