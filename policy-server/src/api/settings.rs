use std::num::NonZeroU32;

/// How the APIs behave, beyond what is stored; chosen once, at the start.
#[derive(Debug, Clone, Default)]
pub struct ApiSettings {
    /// Which system is imitated.
    pub profile: Profile,
    /// Whether the external API tells browsers to come by TLS only. True where it has TLS; the
    /// internal API, which always has, always tells.
    pub hsts: bool,
    /// The web pages that may call the external API: origins such as `https://console.example`, or
    /// `*` (spec/policy-server.md §2.10).
    pub allowed_origins: Vec<String>,
    /// How often one caller may ask the external API; `None` lets everybody ask at will.
    pub rate_limit: Option<RateLimit>,
}

/// The existing systems contradict each other on version 0, so one has to be chosen
/// (spec/policy-server.md §14.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Profile {
    /// cf-networking of 2024.
    #[default]
    Current,
    /// Version 0 as netman had it in 2016, beside the version 1 of 2024.
    Legacy,
}

/// How often one caller, told apart by the subject of the token, may ask. Administrators are no
/// exception: it is their scripts that run wild.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests a second, in the long run.
    pub per_second: NonZeroU32,
    /// Requests at once, after a pause.
    pub burst: NonZeroU32,
}
