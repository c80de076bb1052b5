//! Holding a namespace: what is in it can send nothing anywhere, whatever links and routes it has or gets,
//! while its rules are not there yet, or not any more. Routing rules do it, so that links, addresses
//! and the firewall in there stay as they are, and nothing is left of it afterwards.

use std::io;

use netlink_packet_route::{
    IpProtocol,
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use nix::errno::Errno;
use rtnetlink::{Handle, RuleAddRequest};
use thiserror::Error;
use tokio::runtime::Builder;

use super::{Netns, NetnsError};
use crate::link::{self, LinkError};

/// Behind the one rule that knows the namespace's own addresses, and in front of all others.
const PRIORITY: u32 = 1;

/// What is sent from in there counts as having come in by this.
const ORIGIN: &str = "lo";

/// What a container can send. A rule about everything would be about the kernel's own question, too, whether a
/// gateway can be reached, and plugins could make no route.
const PROTOCOLS: [IpProtocol; 8] = [
    IpProtocol::Icmp,
    ICMPV6,
    IpProtocol::Tcp,
    IpProtocol::Udp,
    IpProtocol::Udplite,
    IpProtocol::Sctp,
    IpProtocol::Dccp,
    IpProtocol::Raw,
];

const ICMPV6: IpProtocol = IpProtocol::Other(58);

/// What a kernel says that was started without IPv6.
const NO_IPV6: [Errno; 2] = [Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP];

/// Why a namespace could not be held, or let go.
#[derive(Debug, Error)]
pub enum HoldError {
    /// It could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel said no.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// There was no thread to ask it on.
    #[error("preparing to ask the kernel")]
    Runtime(#[source] io::Error),
}

impl Netns {
    /// Lets nothing out from now on. Again is as good.
    ///
    /// # Errors
    /// If the kernel does not do it for IPv4, or has IPv6 and does not do it for that.
    pub fn hold(&self) -> Result<(), HoldError> {
        self.ask(async |handle| {
            for protocol in PROTOCOLS {
                let [v4, v6] = rules(&handle, protocol);
                add(&handle, v4, &[Errno::EEXIST]).await?;
                add(&handle, v6, &[Errno::EEXIST, NO_IPV6[0], NO_IPV6[1]]).await?;
            }
            Ok(())
        })
    }

    /// Lets out again what its links and routes let out. One that is not held is as good.
    ///
    /// # Errors
    /// If the kernel does not do it.
    pub fn release(&self) -> Result<(), HoldError> {
        self.ask(async |handle| {
            for rule in PROTOCOLS.into_iter().flat_map(|protocol| rules(&handle, protocol)) {
                delete(&handle, rule).await?;
            }
            Ok(())
        })
    }

    fn ask(
        &self,
        question: impl AsyncFnOnce(Handle) -> Result<(), LinkError> + Send,
    ) -> Result<(), HoldError> {
        self.run(|| {
            let runtime = Builder::new_current_thread().enable_all().build();
            runtime.map_err(HoldError::Runtime)?.block_on(async {
                let (connection, handle, _) =
                    rtnetlink::new_connection().map_err(LinkError::Open)?;
                let connection = tokio::spawn(connection);
                let answered = question(handle).await;
                connection.abort();
                Ok(answered?)
            })
        })?
    }
}

/// Of both families.
fn rules(handle: &Handle, protocol: IpProtocol) -> [RuleMessage; 2] {
    let add = || handle.rule().add();
    [rule(add().v4(), protocol), rule(add().v6(), protocol)]
}

fn rule<Ip>(request: RuleAddRequest<Ip>, protocol: IpProtocol) -> RuleMessage {
    let request = request.priority(PRIORITY).input_interface(ORIGIN);
    let mut request = request.action(RuleAction::Unreachable);
    request.message_mut().attributes.push(RuleAttribute::IpProtocol(protocol));
    request.message_mut().clone()
}

async fn add(handle: &Handle, rule: RuleMessage, fine: &[Errno]) -> Result<(), LinkError> {
    let mut request = handle.rule().add();
    *request.message_mut() = rule;
    link::done("holding what is sent", request.execute().await, fine)
}

/// As often as it is there.
async fn delete(handle: &Handle, rule: RuleMessage) -> Result<(), LinkError> {
    const ABSENT: [Errno; 4] = [Errno::ENOENT, Errno::ESRCH, NO_IPV6[0], NO_IPV6[1]];
    loop {
        let deleted = handle.rule().del(rule.clone()).execute().await;
        if deleted.is_err() {
            return link::done("letting go of what is sent", deleted, &ABSENT);
        }
    }
}
