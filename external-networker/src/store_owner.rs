//! To whom the container store belongs: a program that is not root may be meant to read it
//! (spec/cell.md §C.2). Nobody else but root may, and it may be written to by whoever it belongs to.

use std::{io, path::PathBuf};

use files::Owner;
use nix::{
    errno::Errno,
    unistd::{Group, User},
};
use thiserror::Error;

/// A user and a group, by the names the configuration has for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreOwner {
    pub user: String,
    pub group: String,
}

/// Why the store cannot be given to anybody.
#[derive(Debug, Error)]
pub(crate) enum StoreOwnerError {
    #[error(
        "there is no user {0} on this cell, which is datastore_file_owner in the configuration"
    )]
    NoUser(String),
    #[error(
        "there is no group {0} on this cell, which is datastore_file_group in the configuration"
    )]
    NoGroup(String),
    #[error("looking up {0}, to whom the container store is to belong")]
    Lookup(String, #[source] Errno),
    #[error("giving {} to its owner", path.display())]
    Give {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl StoreOwner {
    /// Both names count, or neither.
    pub fn named(user: &str, group: &str) -> Option<Self> {
        let (user, group) = (user.to_owned(), group.to_owned());
        (!user.is_empty() && !group.is_empty()).then_some(Self { user, group })
    }

    /// Who that is here.
    pub fn find(&self) -> Result<Owner, StoreOwnerError> {
        let Self { user, group } = self;
        let lookup = |name: &str| {
            let name = name.to_owned();
            |error| StoreOwnerError::Lookup(name, error)
        };
        let found = User::from_name(user).map_err(lookup(user))?;
        let uid = found.ok_or_else(|| StoreOwnerError::NoUser(user.clone()))?.uid;
        let found = Group::from_name(group).map_err(lookup(group))?;
        let gid = found.ok_or_else(|| StoreOwnerError::NoGroup(group.clone()))?.gid;
        Ok(Owner { uid: uid.as_raw(), gid: gid.as_raw() })
    }
}
