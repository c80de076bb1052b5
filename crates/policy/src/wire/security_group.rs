//! Security groups as cells are told of them (spec/policy-server.md §5.4).

use serde::{Deserialize, Serialize};

use crate::SecurityGroup;

/// A page of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecurityGroupList {
    /// Where the next page begins; 0 after the last.
    pub next: u64,
    /// Never null on output.
    pub security_groups: Vec<SecurityGroupBody>,
}

/// One group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecurityGroupBody {
    /// Its id at Cloud Controller.
    pub guid: String,
    /// What people call it.
    pub name: String,
    /// A text that holds a JSON array of rules.
    pub rules: String,
    /// Whether it holds for every app being staged.
    pub staging_default: bool,
    /// Whether it holds for every app that runs.
    pub running_default: bool,
    /// Spaces whose apps it holds for while they are staged.
    pub staging_space_guids: Vec<String>,
    /// Spaces whose apps it holds for while they run.
    pub running_space_guids: Vec<String>,
}

impl From<SecurityGroup> for SecurityGroupBody {
    fn from(group: SecurityGroup) -> Self {
        let SecurityGroup {
            guid,
            name,
            rules,
            staging_default,
            running_default,
            staging_spaces,
            running_spaces,
        } = group;
        Self {
            guid,
            name,
            rules,
            staging_default,
            running_default,
            staging_space_guids: staging_spaces,
            running_space_guids: running_spaces,
        }
    }
}

impl From<SecurityGroupBody> for SecurityGroup {
    fn from(body: SecurityGroupBody) -> Self {
        let SecurityGroupBody {
            guid,
            name,
            rules,
            staging_default,
            running_default,
            staging_space_guids,
            running_space_guids,
        } = body;
        Self {
            guid,
            name,
            rules,
            staging_default,
            running_default,
            staging_spaces: staging_space_guids,
            running_spaces: running_space_guids,
        }
    }
}
