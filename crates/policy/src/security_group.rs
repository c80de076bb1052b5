/// Which addresses outside the overlay containers of some spaces may reach.
///
/// The rules are kept as the text of a JSON array, byte for byte as cells have always been given
/// them (spec/policy-server.md §5.4, §7); whoever enforces them reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityGroup {
    /// Its id at Cloud Controller.
    pub guid: String,
    /// What people call it.
    pub name: String,
    /// A JSON array of rules.
    pub rules: String,
    /// Whether it holds for every app being staged.
    pub staging_default: bool,
    /// Whether it holds for every app that runs.
    pub running_default: bool,
    /// Spaces whose apps it holds for while they are staged.
    pub staging_spaces: Vec<String>,
    /// Spaces whose apps it holds for while they run.
    pub running_spaces: Vec<String>,
}
