//! Durations as Go prints them: `1h2m3.456s`, `250ms`, `0s`.

use std::time::Duration;

/// Go's text for `duration`, to the nanosecond.
pub fn format(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".to_owned();
    }
    let nanos = duration.as_nanos();
    if duration < Duration::from_secs(1) {
        return match nanos {
            0..1_000 => format!("{nanos}ns"),
            1_000..1_000_000 => with_fraction(nanos, 1_000, "µs"),
            _ => with_fraction(nanos, 1_000_000, "ms"),
        };
    }
    let (minutes, seconds) = (duration.as_secs() / 60, duration.as_secs() % 60);
    let seconds_in_nanos =
        u128::from(seconds) * 1_000_000_000 + u128::from(duration.subsec_nanos());
    let seconds = with_fraction(seconds_in_nanos, 1_000_000_000, "s");
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

fn with_fraction(nanos: u128, unit: u128, suffix: &str) -> String {
    let digits = unit.ilog10() as usize;
    let fraction = format!("{:0digits$}", nanos % unit);
    match fraction.trim_end_matches('0') {
        "" => format!("{}{suffix}", nanos / unit),
        fraction => format!("{}.{fraction}{suffix}", nanos / unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_go_prints() {
        let text = |nanos| format(Duration::from_nanos(nanos));
        assert_eq!(text(0), "0s");
        assert_eq!(text(999), "999ns");
        assert_eq!(text(1_500), "1.5µs");
        assert_eq!(text(250_000_000), "250ms");
        assert_eq!(text(1_000_000_000), "1s");
        assert_eq!(text(3_723_456_000_000), "1h2m3.456s");
        assert_eq!(text(60_000_000_000), "1m0s");
    }
}
