//! Who is who: containers of this cell by their address, apps of other cells by the mark of their
//! packets. Read anew when the cycle has passed or the server has answered, but only once there is a
//! packet to be told of.

use std::{collections::HashMap, net::IpAddr};

use containers::{Container, Contents, Reading, Store, StoreError};
use service::log::chain;
use tokio::{sync::watch, task::spawn_blocking};

use crate::{allowances::Allowances, answer::Answer, status::Status};

/// What a packet's end is known to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub app: String,
    pub space: Option<String>,
    pub organization: Option<String>,
    /// The handle of the container, if it is one of this cell.
    pub container: Option<String>,
}

/// What is known now.
#[derive(Debug, Default)]
pub(crate) struct Known {
    by_address: HashMap<IpAddr, Identity>,
    by_mark: Allowances,
}

/// Where that is known from.
pub(crate) struct Sources {
    store: Store,
    /// What `known` was, as far as it is of containers.
    learned_from: Reading,
    statuses: watch::Receiver<Status>,
    answers: watch::Receiver<Option<Answer>>,
    known: Known,
}

impl Sources {
    pub fn new(
        store: Store,
        statuses: watch::Receiver<Status>,
        answers: watch::Receiver<Option<Answer>>,
    ) -> Self {
        let (mut statuses, mut answers) = (statuses, answers);
        // Nothing has been read yet.
        statuses.mark_changed();
        answers.mark_changed();
        Self { store, learned_from: Reading::default(), statuses, answers, known: Known::default() }
    }

    /// What is known by now. A store that cannot be read leaves what was known before.
    pub async fn known(&mut self) -> &Known {
        // A sender that is gone has nothing new to say.
        if self.statuses.has_changed().unwrap_or(false) {
            self.statuses.mark_unchanged();
            let (store, last) = (self.store.clone(), std::mem::take(&mut self.learned_from));
            let read = spawn_blocking(move || (store.read_unless(&last), last));
            // A panic has been printed already.
            if let Ok((read, last)) = read.await {
                self.learned_from = last;
                self.heed(read);
            }
        }
        if self.answers.has_changed().unwrap_or(false) {
            let answer = self.answers.borrow_and_update();
            self.known.by_mark =
                answer.as_ref().map(|answer| answer.allowances.clone()).unwrap_or_default();
        }
        &self.known
    }

    fn heed(&mut self, read: Result<Option<(Contents, Reading)>, StoreError>) {
        match read {
            Ok(Some((contents, reading))) => {
                self.known.by_address = by_address(&contents.containers);
                self.learned_from = reading;
            }
            Ok(None) => {}
            Err(error) => {
                let error = chain(&error);
                tracing::debug!(error, "Packets are told of by the containers known before.");
            }
        }
    }
}

impl Known {
    /// The two ends of a packet: an address of this cell says most, the mark says whose packet it is
    /// wherever it comes from.
    pub fn ends(
        &self,
        source: IpAddr,
        destination: IpAddr,
        mark: u32,
    ) -> (Option<Identity>, Option<Identity>) {
        let at = |address| self.by_address.get(&address).cloned();
        let marked = || {
            let app = self.by_mark.owner_of(mark)?.to_string();
            Some(Identity { app, space: None, organization: None, container: None })
        };
        (at(source).or_else(marked), at(destination))
    }
}

fn by_address(containers: &[Container]) -> HashMap<IpAddr, Identity> {
    let identity = |container: &Container| {
        let text = |value: Option<&str>| value.map(str::to_owned);
        let identity = Identity {
            app: text(container.policy_group_id())?,
            space: text(container.space_id()),
            organization: text(container.org_id()),
            container: Some(container.handle.clone()),
        };
        let second = container.ipv6().map(|ip| (IpAddr::from(ip), identity.clone()));
        Some([(IpAddr::from(container.ip), identity)].into_iter().chain(second))
    };
    containers.iter().filter_map(identity).flatten().collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::world::tests::allowance;

    /// What is known of containers (`(ip, app)`) and marks.
    pub fn known(containers: &[(&str, &str)], marks: &[(u32, &str)]) -> Known {
        let identity = |app: &str| Identity {
            app: app.into(),
            space: None,
            organization: None,
            container: None,
        };
        let by_address =
            containers.iter().map(|(ip, app)| (ip.parse().unwrap(), identity(app))).collect();
        let allowance = |(mark, app): &(u32, &str)| allowance(&format!("{app} {mark} any tcp 1"));
        let by_mark = marks.iter().map(allowance).collect();
        Known { by_address, by_mark }
    }

    #[test]
    fn an_address_of_this_cell_says_more_than_a_mark() {
        let known = known(&[("10.255.30.2", "web")], &[(1, "web"), (9, "far")]);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let app = |identity: Option<Identity>| identity.map(|identity| identity.app);
        let (source, destination) = known.ends(ip("10.255.31.2"), ip("10.255.30.2"), 9);
        assert_eq!((app(source), app(destination)), (Some("far".into()), Some("web".into())));
        let (source, destination) = known.ends(ip("10.255.30.2"), ip("10.255.31.2"), 9);
        assert_eq!((app(source), app(destination)), (Some("web".into()), None));
        assert_eq!(known.ends(ip("192.0.2.1"), ip("192.0.2.2"), 0), (None, None));
    }

    #[tokio::test]
    async fn a_container_that_comes_is_known_after_the_next_pass() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("store.json"));
        let (passed, statuses) = watch::channel(Status::unknown());
        let (_answered, answers) = watch::channel(None);
        let mut sources = Sources::new(store.clone(), statuses, answers);
        let ip = IpAddr::from([10, 255, 30, 2]);
        assert_eq!(sources.known().await.ends(ip, ip, 0).0, None);

        let metadata = serde_json::json!({"policy_group_id": "web", "space_id": "s"});
        let container = Container {
            handle: "h".into(),
            ip: [10, 255, 30, 2].into(),
            metadata: metadata.as_object().unwrap().clone(),
        };
        store.add(&container).unwrap();
        passed.send_modify(|status| status.pass += 1);
        let identity = sources.known().await.ends(ip, ip, 0).0.unwrap();
        assert_eq!((identity.app.as_str(), identity.space.as_deref()), ("web", Some("s")));
        assert_eq!(identity.container.as_deref(), Some("h"));
    }
}
