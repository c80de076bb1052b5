//! Network namespaces: naming them by what the kernel calls them, keeping them alive under a file
//! name, and doing work inside them.
//!
//! A runtime hands over a process; by the time the container is taken down that process is gone. So
//! its namespace is *pinned*: bind-mounted on a file, which keeps it alive and gives it a name that
//! CNI plugins understand. Start at [`Netns`].

mod hold;
mod sysctl;

use std::{
    fmt, fs,
    fs::File,
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    },
    panic,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns},
    sys::statfs::{FsType, fstatfs},
};
use thiserror::Error;

pub use hold::HoldError;
pub use sysctl::{SysctlError, read as read_sysctl, write as write_sysctl};

/// `NSFS_MAGIC` of linux/magic.h: the file system namespaces live on.
const NSFS: FsType = FsType(0x6e73_6673);

/// A network namespace held open: whatever is done through this value is done to the same namespace,
/// even if its process dies and the pid is reused meanwhile.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
    id: NetnsId,
}

/// The kernel's name of a namespace. It lasts as long as the namespace; afterwards the numbers may be
/// given to another one, so comparing is meaningful only while one side is held open or pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetnsId {
    /// Device of the namespace file system.
    pub device: u64,
    /// Inode of the namespace.
    pub inode: u64,
}

/// What went wrong with a namespace.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// There is no such file, or it may not be opened.
    #[error("opening network namespace {}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is there, but no namespace: an empty mount point, for example.
    #[error("{} is not a namespace", .0.display())]
    NotANamespace(PathBuf),
    /// Another namespace is pinned under that name already.
    #[error("{} already names network namespace {pinned}", path.display())]
    Occupied {
        /// The name.
        path: PathBuf,
        /// Who has it.
        pinned: NetnsId,
    },
    /// The namespace could not be pinned.
    #[error("binding network namespace {id} to {}", path.display())]
    Pin {
        /// Which namespace.
        id: NetnsId,
        /// To which file.
        path: PathBuf,
        /// Why not; "operation not permitted" means that CAP_SYS_ADMIN is missing.
        #[source]
        source: io::Error,
    },
    /// The name could not be given up.
    #[error("unbinding {}", path.display())]
    Unpin {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel does not let us in.
    #[error("entering network namespace {id}")]
    Enter {
        /// Which namespace.
        id: NetnsId,
        /// Why not; "operation not permitted" means that CAP_SYS_ADMIN is missing.
        #[source]
        source: io::Error,
    },
}

impl Netns {
    /// The namespace `path` stands for: `/proc/<pid>/ns/net`, a pinned name, `/run/netns/<name>`.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, NetnsError> {
        let path = path.into();
        let failed = |source| NetnsError::Open { path: path.clone(), source };
        let file = File::open(&path).map_err(failed)?;
        let filesystem = fstatfs(&file).map_err(|errno| failed(errno.into()))?;
        if filesystem.filesystem_type() != NSFS {
            return Err(NetnsError::NotANamespace(path));
        }
        let metadata = file.metadata().map_err(failed)?;
        let id = NetnsId { device: metadata.dev(), inode: metadata.ino() };
        Ok(Self { file, path, id })
    }

    /// The namespace the process `pid` is in.
    pub fn of_process(pid: u32) -> Result<Self, NetnsError> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// The namespace the calling thread is in.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// Which namespace this is.
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// What it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the namespace the name `at`, which keeps it alive until [`unpin`]. A name that already
    /// stands for this namespace is fine; one that stands for another is refused.
    pub fn pin(&self, at: &Path) -> Result<(), NetnsError> {
        match Self::open(at) {
            Ok(pinned) if pinned.id == self.id => return Ok(()),
            Ok(pinned) => {
                return Err(NetnsError::Occupied { path: at.to_owned(), pinned: pinned.id });
            }
            // No file, or the bare mount point a reboot or a crash has left.
            Err(_) => {}
        }
        self.bind(at).map_err(|source| {
            // A mount point without a mount would only be in the way.
            let _ = fs::remove_file(at);
            NetnsError::Pin { id: self.id, path: at.to_owned(), source }
        })
    }

    fn bind(&self, at: &Path) -> io::Result<()> {
        if let Some(parent) = at.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        // Only to make the mount point: what is a namespace already cannot be opened for writing.
        match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(at) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let held = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        mount(Some(held.as_str()), at, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Ok(())
    }

    /// Does `work` inside the namespace, on a thread of its own: `setns` moves a thread, and one that
    /// has been moved must never go back to anybody's pool. The caller waits.
    ///
    /// # Panics
    /// If `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        let inside = thread::scope(|scope| {
            let visit = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET)?;
                Ok::<T, Errno>(work())
            });
            visit.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
        });
        inside.map_err(|errno| NetnsError::Enter { id: self.id, source: errno.into() })
    }
}

/// Takes the name `at` from whatever namespace is pinned there. No such file, or a file nothing is
/// mounted on, is as good: afterwards the name is free.
pub fn unpin(at: &Path) -> Result<(), NetnsError> {
    let failed = |source| NetnsError::Unpin { path: at.to_owned(), source };
    loop {
        // Mounts can be stacked, so until there is none left. Lazily, because somebody may be inside.
        match umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR) => break,
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    match fs::remove_file(at) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(failed),
    }
}

impl fmt::Display for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device, self.inode)
    }
}

#[cfg(test)]
mod tests;
