use futures::TryStreamExt;
use netlink_packet_route::link::{InfoKind, InfoPortKind, LinkAttribute, LinkInfo, LinkMessage};
use nix::errno::Errno;

use super::{LinkError, Links, error, error::Doing};

/// What is behind a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The other end of a cable, or a program: what comes in there is from nobody else.
    Alone,
    /// A port of a bridge: what comes in there seems to come in through the bridge.
    Port,
    /// It is a bridge.
    Bridge,
    /// Anybody.
    Other,
}

impl Links {
    /// Where the device of this name is, if there is one.
    pub async fn place(&self, name: &str) -> Result<Option<Place>, LinkError> {
        let mut found = self.handle.link().get().match_name(name).execute();
        match found.try_next().await {
            Ok(message) => Ok(message.as_ref().map(Place::of)),
            Err(error) if error::errno(&error) == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(Doing::new(format!("looking up link {name}")).failed(error)),
        }
    }
}

/// The same, for who has no runtime: of the calling thread's namespace.
pub fn place(name: &str) -> Result<Option<Place>, LinkError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    runtime.map_err(LinkError::Open)?.block_on(async { Links::open()?.place(name).await })
}

impl Place {
    fn of(message: &LinkMessage) -> Self {
        let infos = message.attributes.iter().filter_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        });
        infos.flatten().fold(Self::Other, |place, info| match info {
            LinkInfo::PortKind(InfoPortKind::Bridge) => Self::Port,
            LinkInfo::Kind(InfoKind::Bridge) => Self::Bridge,
            LinkInfo::Kind(InfoKind::Veth | InfoKind::Tun) if place == Self::Other => Self::Alone,
            _ => place,
        })
    }
}
