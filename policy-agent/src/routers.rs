//! Routers in the overlay (`enable_overlay_ingress_rules`, spec/cell.md §D.4): what they send carries one
//! tag, which the policy server hands out, and reaches the ports containers are said to serve on, without a
//! policy.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use files::Manner;
use policy::{AppGuid, PortRange, Protocol, Tag};
use policy_client::internal::Client;
use service::log::chain;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    allowances::{Allowance, Allowances},
    cycle::Wake,
};

/// Who the routers are to the policy server.
const NAME: &str = "INGRESS_ROUTER";
const KIND: &str = "router";

/// How often the tag is asked for again, which may be another after a backup was restored.
const EVERY: Duration = Duration::from_secs(60);

/// A port of an app that routers may reach.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Served {
    pub app: AppGuid,
    pub port: PortRange,
}

/// Learns the tag, and remembers it on disk: routers must reach apps while the server is away.
pub(crate) struct Inquirer {
    client: Client,
    interval: Duration,
    file: Option<PathBuf>,
    mark: watch::Sender<Option<u16>>,
    wake: mpsc::Sender<Wake>,
}

/// The mark of routers, as far as it is known, and what follows for what is allowed.
#[derive(Debug)]
pub(crate) struct Routers {
    mark: watch::Receiver<Option<u16>>,
    /// What was made of what last.
    last: Option<Made>,
}

#[derive(Debug)]
struct Made {
    of: Allowances,
    mark: u16,
    served: BTreeSet<Served>,
    all: Allowances,
}

impl Inquirer {
    /// One that asks at `interval` as long as it has no answer.
    pub fn new(
        client: Client,
        interval: Duration,
        file: Option<PathBuf>,
        wake: mpsc::Sender<Wake>,
    ) -> (Self, Routers) {
        let kept = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        let kept = kept.and_then(|text| Tag::from_hex(text.trim()).ok()?.group_policy_id());
        let (mark, watching) = watch::channel(kept);
        (Self { client, interval, file, mark, wake }, Routers { mark: watching, last: None })
    }

    /// Asks until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.ask_on() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn ask_on(&self) {
        let mut told = None;
        loop {
            let failure = match self.client.tag(NAME, KIND).await {
                Ok(tag) => match tag.group_policy_id() {
                    Some(mark) => self.heed(tag, mark).await,
                    None => Some(format!("the tag {:#x} does not fit VXLAN-GBP", tag.id())),
                },
                Err(error) => Some(chain(&error)),
            };
            if let Some(error) = failure.as_ref().filter(|_| told != failure) {
                tracing::warn!(error, "The tag of routers in the overlay is not known anew.");
            }
            let pause = if failure.is_some() { self.interval } else { EVERY };
            told = failure;
            sleep(pause).await;
        }
    }

    /// Has a pass follow from a mark that is new; says what went wrong.
    async fn heed(&self, tag: Tag, mark: u16) -> Option<String> {
        if *self.mark.borrow() == Some(mark) {
            return None;
        }
        self.mark.send_replace(Some(mark));
        // Whoever has ended the loop ends us as well.
        let _ = self.wake.send(Wake::Containers).await;
        let file = self.file.as_ref()?;
        let text = format!("{:04x}\n", tag.id());
        let kept = files::replace(file, text.as_bytes(), Manner::PRIVATE);
        kept.err().map(|error| format!("remembering it in {}: {error}", file.display()))
    }
}

impl Routers {
    /// `allowances`, and what routers may reach.
    pub fn beside(&mut self, allowances: Allowances, served: &BTreeSet<Served>) -> Allowances {
        let Some(mark) = *self.mark.borrow() else { return allowances };
        if let Some(last) = &self.last
            && last.mark == mark
            && last.served == *served
            && last.of == allowances
        {
            return last.all.clone();
        }
        let mut all = allowances.clone();
        for Served { app, port } in served {
            // Nobody asks for the tag of an app no policy is about; the widest is no app's.
            let tag = allowances.tag_of(app).unwrap_or(u32::MAX);
            let Some(destination_tag) = Tag::new(tag).or_else(|| Tag::new(0x1_0000)) else {
                continue;
            };
            all.insert(Allowance {
                destination: app.clone(),
                source: NAME.parse().expect("is the name of an app"),
                mark,
                protocol: Protocol::Tcp,
                ports: *port,
                destination_tag,
            });
        }
        let served = served.clone();
        self.last = Some(Made { of: allowances, mark, served, all: all.clone() });
        all
    }
}

/// The ports in `text`, with commas between them; what is wrong with it, if it is no such list.
pub(crate) fn ports(text: &str) -> Result<Vec<PortRange>, String> {
    let one = |word: &str| {
        let port = word.trim().parse::<u16>().ok().and_then(|port| PortRange::new(port, port).ok());
        port.ok_or_else(|| format!("{:?} in its ports is no port", word.trim()))
    };
    text.split(',').filter(|word| !word.trim().is_empty()).map(one).collect()
}

#[cfg(test)]
impl Routers {
    /// With this mark.
    pub fn marked(mark: u16) -> Self {
        Self { mark: watch::channel(Some(mark)).1, last: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::tests::allowance;

    fn told(all: &Allowances, app: &str) -> Vec<String> {
        all.to(&app.parse().unwrap()).map(|one| format!("{one} by {:#x}", one.mark)).collect()
    }

    #[test]
    fn routers_reach_what_is_served_beside_what_policies_allow() {
        let policies: Allowances = [allowance("far 9 web udp 53")].into_iter().collect();
        let served: BTreeSet<_> = ports("8080, 9090")
            .unwrap()
            .into_iter()
            .map(|port| Served { app: "web".parse().unwrap(), port })
            .collect();
        let mut routers = Routers::marked(7);
        let all = routers.beside(policies.clone(), &served);
        assert_eq!(
            told(&all, "web"),
            [
                "INGRESS_ROUTER -> web tcp 8080 by 0x7",
                "INGRESS_ROUTER -> web tcp 9090 by 0x7",
                "far -> web udp 53 by 0x9",
            ]
        );
        assert_eq!(routers.beside(policies.clone(), &served), all);
        assert_eq!(routers.beside(policies.clone(), &BTreeSet::new()), policies);
        let mut unknown = Routers { mark: watch::channel(None).1, last: None };
        assert_eq!(unknown.beside(policies.clone(), &served), policies);
    }

    #[test]
    fn a_list_of_ports_is_read_or_refused() {
        let read = |text| ports(text).map(|all| all.iter().map(ToString::to_string).collect());
        assert_eq!(read("8080"), Ok(vec!["8080".to_owned()]));
        assert_eq!(read(" 8080 ,9090,").map(|all: Vec<_>| all.len()), Ok(2));
        assert_eq!(read(""), Ok(vec![]));
        for text in ["http", "0", "70000", "8080 9090"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
