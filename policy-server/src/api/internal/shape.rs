use policy::{
    TagLength, TaggedPolicy,
    wire::{
        Source,
        v1::{self, Ports},
    },
};
use serde::Serialize;

/// How the internal list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// With `port`, and no count.
    Of2016,
    /// With one port both as `port`, for agents of 2016, and as `ports`, for those of 2017; ranges
    /// cannot be said (spec/policy-server.md §5.1, §16).
    V0,
    /// With `ports`: every other version, known or not.
    V1,
}

#[derive(Serialize)]
struct List {
    #[serde(skip_serializing_if = "Option::is_none")]
    total_policies: Option<usize>,
    policies: Vec<Body>,
}

#[derive(Serialize)]
struct Body {
    source: Source,
    destination: Destination,
}

#[derive(Serialize)]
struct Destination {
    id: String,
    tag: String,
    protocol: String,
    port: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<Ports>,
}

impl Shape {
    /// The shape of the version a path names.
    pub(super) fn of_version(version: &str) -> Self {
        if version == "v0" { Self::V0 } else { Self::V1 }
    }

    /// The list of `policies`.
    pub(super) fn write(self, policies: &[TaggedPolicy], length: TagLength) -> String {
        let list = v1::PolicyList::of_tagged(policies, length);
        match self {
            Self::V1 => gocompat::json::to_string(&list),
            Self::V0 => {
                let policies: Vec<_> = list.policies.into_iter().filter_map(Body::of).collect();
                let total_policies = Some(policies.len());
                gocompat::json::to_string(&List { total_policies, policies })
            }
            Self::Of2016 => {
                let bodies = list.policies.into_iter().filter_map(Body::of);
                let policies = bodies.map(Body::without_ports).collect();
                gocompat::json::to_string(&List { total_policies: None, policies })
            }
        }
    }
}

impl Body {
    /// `None` for what has no single port.
    fn of(body: v1::PolicyBody) -> Option<Self> {
        let v1::PolicyBody { source, destination } = body;
        let v1::Destination { id, tag, protocol, ports } = destination;
        let Ports { start, end } = ports;
        (start == end).then_some(Self {
            source,
            destination: Destination { id, tag, protocol, port: start, ports: Some(ports) },
        })
    }

    fn without_ports(mut self) -> Self {
        self.destination.ports = None;
        self
    }
}
