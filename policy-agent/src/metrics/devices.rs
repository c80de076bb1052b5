//! The host's network devices, and its table of connections, as files of the kernel tell them.

use std::{fs, path::Path};

/// What was read; what could not be is missing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Devices {
    /// How many there are.
    pub count: Option<u64>,
    /// The VXLAN device.
    pub overlay: Option<Device>,
    /// The device of the default route.
    pub underlay: Option<Device>,
    /// Connections remembered, and how many can be.
    pub connections: Option<(u64, u64)>,
}

/// Since the device was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    pub name: String,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    pub sent_dropped: u64,
    pub received_dropped: u64,
}

impl Devices {
    /// Looks now. `vtep` is the VXLAN device. `/proc` and not `/sys`, which may be that of another network
    /// namespace.
    pub fn read(vtep: &str) -> Self {
        let table = fs::read_to_string("/proc/net/dev").unwrap_or_default();
        let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
        let underlay = device_of_default_route(&routes);
        let number = |name: &str| {
            let path = Path::new("/proc/sys/net/netfilter").join(name);
            fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        Self {
            count: u64::try_from(devices(&table).count()).ok().filter(|count| *count > 0),
            overlay: devices(&table).find(|device| device.name == vtep),
            underlay: devices(&table).find(|device| Some(device.name.as_str()) == underlay),
            connections: number("nf_conntrack_count").zip(number("nf_conntrack_max")),
        }
    }
}

/// The lines of `/proc/net/dev`: a name, eight numbers of what was received, eight of what was sent; of
/// each the first is bytes, and the fourth what was dropped.
fn devices(table: &str) -> impl Iterator<Item = Device> {
    table.lines().filter_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> =
            numbers.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        let at = |index: usize| numbers.get(index).copied();
        Some(Device {
            name: name.trim().to_owned(),
            received_bytes: at(0)?,
            received_dropped: at(3)?,
            sent_bytes: at(8)?,
            sent_dropped: at(11)?,
        })
    })
}

/// Of the lines of `/proc/net/route`, the first whose destination is everything.
fn device_of_default_route(routes: &str) -> Option<&str> {
    routes.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let (device, destination, mask) = (words.next()?, words.next()?, words.nth(5)?);
        (destination == "00000000" && mask == "00000000").then_some(device)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEV: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:   10       1    0    0    0     0          0         0       10       1    0    0    0     0       0          0
silk-vtep: 700       7    0    2    0     0          0         0      900       9    0    3    0     0       0          0
";

    #[test]
    fn a_device_is_read_from_the_kernels_table() {
        let all: Vec<_> = devices(DEV).collect();
        assert_eq!(all.len(), 2);
        let expected = Device {
            name: "silk-vtep".into(),
            received_bytes: 700,
            received_dropped: 2,
            sent_bytes: 900,
            sent_dropped: 3,
        };
        assert_eq!(all[1], expected);
    }

    #[test]
    fn the_underlay_is_where_the_default_route_leads() {
        let routes = "\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth1	0000FF0A	00000000	0001	0	0	0	0000FFFF	0	0	0
eth0	00000000	0110000A	0003	0	0	0	00000000	0	0	0
";
        assert_eq!(device_of_default_route(routes), Some("eth0"));
        assert_eq!(device_of_default_route(""), None);
    }

    proptest! {
        #[test]
        fn any_text_is_a_table_or_none(text: String) {
            let _ = (devices(&text).count(), device_of_default_route(&text));
        }
    }
}
