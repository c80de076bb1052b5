use std::collections::BTreeSet;

use ethtool::{EthtoolAttr, EthtoolError, EthtoolFeatureAttr, EthtoolFeatureBit};
use futures::TryStreamExt;

use super::LinkError;

/// What a device does with packets beyond passing them on, by the kernel's names: `rx-gro`,
/// `tx-generic-segmentation`, `tx-udp_tnl-segmentation`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offloads(BTreeSet<String>);

impl Offloads {
    /// What the device `name` in the calling thread's namespace does now. Must be called inside a tokio
    /// runtime.
    pub async fn of(name: &str) -> Result<Self, LinkError> {
        let (connection, mut handle, _) = ethtool::new_connection().map_err(LinkError::Open)?;
        let connection = tokio::spawn(connection);
        let answers = match handle.feature().get(Some(name)).execute().await {
            Ok(answers) => answers.try_collect::<Vec<_>>().await,
            Err(error) => Err(error),
        };
        connection.abort();
        let answers = answers.map_err(|error| {
            let doing = format!("reading the offloads of {name}");
            match error {
                EthtoolError::NetlinkError(message) => {
                    LinkError::Kernel { doing, source: message.to_io() }
                }
                other => LinkError::Protocol { doing, reason: other.to_string() },
            }
        })?;
        let active =
            answers.into_iter().flat_map(|answer| answer.payload.nlas).filter_map(|attribute| {
                match attribute {
                    EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) => Some(bits),
                    _ => None,
                }
            });
        Ok(active.flatten().collect())
    }

    /// Whether it does this.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

impl FromIterator<EthtoolFeatureBit> for Offloads {
    fn from_iter<T: IntoIterator<Item = EthtoolFeatureBit>>(bits: T) -> Self {
        Self(bits.into_iter().filter(|bit| bit.value).map(|bit| bit.name).collect())
    }
}

impl<'a> FromIterator<&'a str> for Offloads {
    fn from_iter<T: IntoIterator<Item = &'a str>>(names: T) -> Self {
        Self(names.into_iter().map(ToOwned::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_loopback_device_merges_nothing_it_receives_as_it_never_cut_it() {
        let offloads = Offloads::of("lo").await.unwrap();
        assert!(offloads.has("tx-generic-segmentation"), "{offloads:?}");
        assert!(!offloads.has("tx-udp_tnl-csum-offload-of-no-kernel"), "{offloads:?}");
    }

    #[tokio::test]
    async fn a_device_that_is_gone_is_told_as_such() {
        let error = Offloads::of("no-such-device").await.unwrap_err();
        assert!(error.is_no_such_link(), "{error:?}");
    }
}
