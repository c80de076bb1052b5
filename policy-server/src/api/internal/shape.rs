use policy::{TagLength, wire::line::Form};

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

impl Shape {
    /// The shape of the version a path names.
    pub(super) fn of_version(version: &str) -> Self {
        if version == "v0" { Self::V0 } else { Self::V1 }
    }

    /// Its lines, with tags of this length.
    pub(super) fn form(self, length: TagLength) -> Form {
        match self {
            Self::Of2016 => Form::V0Tagged(length),
            Self::V0 => Form::V0Both(length),
            Self::V1 => Form::V1Tagged(length),
        }
    }

    /// Whether the number of policies stands before them.
    pub(super) fn counts(self) -> bool {
        self != Self::Of2016
    }
}
