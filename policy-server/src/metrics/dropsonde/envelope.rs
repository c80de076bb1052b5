//! What is inside a datagram: the protobuf messages of dropsonde, as far as we send them
//! (spec/policy-server.md §11). Proto2: a required field is there even when it is zero.

use prost::{Enumeration, Message};

/// What a datagram is.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Envelope {
    /// Which job tells.
    #[prost(string, required, tag = "1")]
    pub origin: String,
    #[prost(enumeration = "EventType", required, tag = "2")]
    pub event_type: i32,
    /// Nanoseconds since 1970.
    #[prost(int64, optional, tag = "6")]
    pub timestamp: Option<i64>,
    #[prost(message, optional, tag = "9")]
    pub value_metric: Option<ValueMetric>,
    #[prost(message, optional, tag = "10")]
    pub counter_event: Option<CounterEvent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Enumeration)]
pub(super) enum EventType {
    ValueMetric = 6,
    CounterEvent = 7,
}

/// Something that goes up and down.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueMetric {
    #[prost(string, required, tag = "1")]
    pub name: String,
    #[prost(double, required, tag = "2")]
    pub value: f64,
    #[prost(string, required, tag = "3")]
    pub unit: String,
}

/// Something that happened.
#[derive(Clone, PartialEq, Message)]
pub(super) struct CounterEvent {
    #[prost(string, required, tag = "1")]
    pub name: String,
    /// How often, since it was last told.
    #[prost(uint64, required, tag = "2")]
    pub delta: u64,
}
