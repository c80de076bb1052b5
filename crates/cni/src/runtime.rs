use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Map, Value};
use thiserror::Error;

use crate::{
    Attachment, AttachmentError, CacheError, Network, PluginError, SpecVersion,
    cache::Memory,
    network::PluginConfig,
    plugin::{self, Invocation},
};

/// Runs the plugins of networks.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Where plugins are; they look for each other there, too.
    pub plugin_dir: PathBuf,
    /// Where results are remembered between ADD and DEL.
    pub cache_dir: PathBuf,
    /// How long one plugin may take.
    pub limit: Duration,
}

/// What is attached: an interface of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    container: String,
    interface: String,
}

/// Names CNI does not allow.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TargetError {
    /// A container's.
    #[error(
        "container id {0:?} is not allowed by CNI: letters, digits, \"_\", \".\" and \"-\", starting with a letter or digit"
    )]
    Container(String),
    /// An interface's.
    #[error("interface name {0:?} is not allowed by CNI")]
    Interface(String),
}

/// Why an attachment was not made. Plugins before the failing one have done their part: the caller
/// should [`Runtime::del`].
#[derive(Debug, Error)]
pub enum AddError {
    /// A plugin failed.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// A plugin succeeded, and what it said is no result.
    #[error("reading what CNI plugin {kind:?} answered")]
    Answer {
        /// The plugin.
        kind: String,
        /// What is wrong.
        #[source]
        source: AttachmentError,
    },
    /// What would be needed for taking it down cannot be written, so it is not put up.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// What went wrong with one part of taking an attachment down.
#[derive(Debug, Error)]
pub enum DelError {
    /// A plugin failed.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The memory of it could not be removed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl Target {
    /// The interface that shall be called `interface` inside `container`.
    pub fn new(container: &str, interface: &str) -> Result<Self, TargetError> {
        if !is_id(container) {
            return Err(TargetError::Container(container.to_owned()));
        }
        let allowed = |byte: u8| byte.is_ascii_graphic() && !b"/:".contains(&byte);
        let fits = (1..=15).contains(&interface.len()) && !matches!(interface, "." | "..");
        if !fits || !interface.bytes().all(allowed) {
            return Err(TargetError::Interface(interface.to_owned()));
        }
        Ok(Self { container: container.to_owned(), interface: interface.to_owned() })
    }
}

/// Whether `text` is `^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`, as CNI wants containers and networks to be.
pub(crate) fn is_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

impl Runtime {
    /// Whether all plugins of `network` are there. Worth asking before anything is touched.
    pub fn check(&self, network: &Network) -> Result<(), PluginError> {
        for PluginConfig { kind, section: _ } in network.plugins() {
            plugin::find(kind, &self.plugin_dir)?;
        }
        Ok(())
    }

    /// Attaches `target`, whose namespace is `netns`: ADD for each plugin, each told the result of the
    /// one before it. Every plugin's configuration gets the keys of `extra` at its top level.
    pub fn add(
        &self,
        network: &Network,
        target: &Target,
        netns: &Path,
        extra: &Map<String, Value>,
    ) -> Result<Attachment, AddError> {
        let memory = self.memory(target);
        // Before the first plugin: a kill from here on must not need the configuration of the day.
        memory.remember(network, None)?;
        let mut attachment = Attachment::from_fields(Map::new(), network.version())
            .expect("a result of any version may be empty");
        for (index, plugin) in network.plugins().iter().enumerate() {
            let previous = (index > 0).then(|| attachment.raw());
            let stdin = stdin(network, plugin, previous, extra);
            let answer = self.invoke("ADD", plugin, target, Some(netns), stdin)?;
            attachment = Attachment::parse(&answer, network.version())
                .map_err(|source| AddError::Answer { kind: plugin.kind.clone(), source })?;
            memory.remember(network, Some(attachment.raw()))?;
        }
        Ok(attachment)
    }

    /// Detaches `target`: DEL for each plugin, last one first, each told what is remembered of the
    /// attachment. `netns` is `None` when the namespace is gone already; `today` is the network to
    /// assume when nothing is remembered.
    ///
    /// A plugin that fails does not keep the others from their work; then everything stays remembered
    /// for another try.
    pub fn del(
        &self,
        today: Option<&Network>,
        target: &Target,
        netns: Option<&Path>,
    ) -> Result<(), Vec<DelError>> {
        let memory = self.memory(target);
        let remembered = memory.recall();
        let (network, result) = match &remembered {
            Some(remembered) => (&remembered.network, remembered.result.as_ref()),
            None => match today {
                Some(network) => (network, None),
                None => return Ok(()),
            },
        };
        let previous = result.filter(|_| network.version() >= SpecVersion::WITH_RESULT_ON_DEL);
        let mut errors = Vec::new();
        for plugin in network.plugins().iter().rev() {
            let stdin = stdin(network, plugin, previous, &Map::new());
            if let Err(error) = self.invoke("DEL", plugin, target, netns, stdin) {
                errors.push(error.into());
            }
        }
        if errors.is_empty()
            && let Err(error) = memory.forget()
        {
            errors.push(error.into());
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Whether an attachment of `target` is remembered.
    pub fn remembers(&self, target: &Target) -> bool {
        self.memory(target).recall().is_some()
    }

    fn memory(&self, target: &Target) -> Memory {
        Memory::of(&self.cache_dir, &target.container, &target.interface)
    }

    fn invoke(
        &self,
        command: &'static str,
        plugin: &PluginConfig,
        target: &Target,
        netns: Option<&Path>,
        stdin: Vec<u8>,
    ) -> Result<Vec<u8>, PluginError> {
        let variables = vec![
            ("CNI_CONTAINERID", OsString::from(&target.container)),
            ("CNI_NETNS", netns.map(OsString::from).unwrap_or_default()),
            ("CNI_IFNAME", OsString::from(&target.interface)),
            ("CNI_ARGS", OsString::new()),
        ];
        let (kind, dir, limit) = (&plugin.kind, &self.plugin_dir, self.limit);
        Invocation { kind, dir, command, variables, stdin, limit }.run()
    }
}

/// What a plugin reads: its section, under the list's name and version, with what else it is told.
fn stdin(
    network: &Network,
    plugin: &PluginConfig,
    previous: Option<&Value>,
    extra: &Map<String, Value>,
) -> Vec<u8> {
    let mut document = plugin.section.clone();
    document.insert("name".to_owned(), network.name().into());
    document.insert("cniVersion".to_owned(), network.version().to_string().into());
    if let Some(previous) = previous {
        document.insert("prevResult".to_owned(), previous.clone());
    }
    document.extend(extra.iter().map(|(key, value)| (key.clone(), value.clone())));
    Value::Object(document).to_string().into_bytes()
}

#[cfg(test)]
mod tests;
