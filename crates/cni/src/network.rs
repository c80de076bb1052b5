use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::{SpecVersion, UnknownVersion};

/// A network's configuration: a name, and the plugins that make an attachment to it, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    name: String,
    version: SpecVersion,
    plugins: Vec<PluginConfig>,
    /// What the CNI wrapper was told, if it stands around a plugin of the list.
    wrapper: Map<String, Value>,
}

/// The existing system's plugin around another (spec/cell.md §C). What it does besides running that one is
/// the networker's to do, which runs it itself.
const WRAPPER: &str = "cni-wrapper-plugin";

/// What one plugin of the list is told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PluginConfig {
    /// The name of its program.
    pub(crate) kind: String,
    /// The whole section, as written.
    pub(crate) section: Map<String, Value>,
}

/// A network found in a directory.
#[derive(Debug)]
pub struct Discovered {
    /// The network to use.
    pub network: Network,
    /// Where it was found.
    pub path: PathBuf,
    /// Files that were passed over because only one can be used: worth a warning.
    pub ignored: Vec<PathBuf>,
}

/// Why there is no usable configuration.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// The directory or a file cannot be read.
    #[error("reading CNI configuration {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no configuration.
    #[error("no CNI configuration (*.conflist or *.conf) in {}", .0.display())]
    None(PathBuf),
    /// The file is no JSON.
    #[error("decoding CNI configuration {}", path.display())]
    Decode {
        /// Which.
        path: PathBuf,
        /// What the decoder says.
        #[source]
        source: serde_json::Error,
    },
    /// The file is no network.
    #[error("CNI configuration {}", path.display())]
    Faulty {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: FaultyNetwork,
    },
}

/// Why a document describes no network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FaultyNetwork {
    /// Something must be there and is not, or is of another type.
    #[error("missing or unusable {0:?}")]
    Key(&'static str),
    /// A list of plugins with nothing in it makes no network.
    #[error("the list of plugins is empty")]
    NoPlugins,
    /// Plugins are found by name, and a name with a slash would lead elsewhere.
    #[error("plugin {0} of the list has no usable \"type\"")]
    Type(usize),
    /// What the CNI wrapper stands around is not said.
    #[error("plugin {0} of the list is a cni-wrapper-plugin with no usable \"delegate\"")]
    Delegate(usize),
    /// The version is none of CNI's.
    #[error(transparent)]
    Version(#[from] UnknownVersion),
}

impl Network {
    /// The network configured in `dir`: the first `*.conflist` by name, else the first `*.conf`, made
    /// into a list of one.
    pub fn discover(dir: &Path) -> Result<Discovered, NetworkError> {
        let mut lists = files(dir, "conflist")?;
        if lists.is_empty() {
            lists = files(dir, "conf")?;
        }
        if lists.is_empty() {
            return Err(NetworkError::None(dir.to_owned()));
        }
        let path = lists.remove(0);
        Ok(Discovered { network: Self::load(&path)?, path, ignored: lists })
    }

    fn load(path: &Path) -> Result<Self, NetworkError> {
        let bytes = fs::read(path)
            .map_err(|source| NetworkError::Read { path: path.to_owned(), source })?;
        let document = serde_json::from_slice(&bytes)
            .map_err(|source| NetworkError::Decode { path: path.to_owned(), source })?;
        Self::from_value(document)
            .map_err(|source| NetworkError::Faulty { path: path.to_owned(), source })
    }

    /// Reads a list, or a single plugin's configuration as a list of one.
    pub fn from_value(document: Value) -> Result<Self, FaultyNetwork> {
        let Value::Object(mut fields) = document else {
            return Err(FaultyNetwork::Key("plugins"));
        };
        let version = match fields.get("cniVersion") {
            None | Some(Value::Null) => SpecVersion::FIRST,
            Some(Value::String(text)) => SpecVersion::stated(Some(text))?,
            Some(_) => return Err(FaultyNetwork::Key("cniVersion")),
        };
        let name = match fields.get("name").and_then(Value::as_str) {
            Some(name) if crate::runtime::is_id(name) => name.to_owned(),
            _ => return Err(FaultyNetwork::Key("name")),
        };
        let sections = match fields.remove("plugins") {
            Some(Value::Array(sections)) => sections,
            None if fields.contains_key("type") => vec![Value::Object(fields)],
            _ => return Err(FaultyNetwork::Key("plugins")),
        };
        if sections.is_empty() {
            return Err(FaultyNetwork::NoPlugins);
        }
        let (mut plugins, mut wrapper) = (Vec::new(), Map::new());
        for (index, section) in sections.into_iter().enumerate() {
            let plugin = PluginConfig::from_value(section).ok_or(FaultyNetwork::Type(index))?;
            if plugin.kind != WRAPPER {
                plugins.push(plugin);
                continue;
            }
            let mut around = plugin.section;
            let within = around.remove("delegate").and_then(PluginConfig::from_value);
            let within = within.filter(|plugin| plugin.kind != WRAPPER);
            plugins.push(within.ok_or(FaultyNetwork::Delegate(index))?);
            wrapper.extend(around);
        }
        Ok(Self { name, version, plugins, wrapper })
    }

    /// The keys of the CNI wrapper that stands around a plugin of the list; none if there is none. The
    /// plugin itself is in its place.
    pub fn wrapper(&self) -> &Map<String, Value> {
        &self.wrapper
    }

    /// The list again, as JSON.
    pub(crate) fn to_value(&self) -> Value {
        let sections: Vec<_> = self.plugins.iter().map(|plugin| &plugin.section).collect();
        json!({"name": self.name, "cniVersion": self.version.to_string(), "plugins": sections})
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version its plugins are spoken to in.
    pub fn version(&self) -> SpecVersion {
        self.version
    }

    pub(crate) fn plugins(&self) -> &[PluginConfig] {
        &self.plugins
    }
}

impl PluginConfig {
    fn from_value(section: Value) -> Option<Self> {
        let Value::Object(section) = section else { return None };
        let kind = section.get("type")?.as_str()?.to_owned();
        let plain = !kind.is_empty() && !kind.contains('/') && kind != "." && kind != "..";
        plain.then_some(Self { kind, section })
    }
}

/// The files of `dir` with this extension, by name.
fn files(dir: &Path, extension: &str) -> Result<Vec<PathBuf>, NetworkError> {
    let failed = |source| NetworkError::Read { path: dir.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension() == Some(OsStr::new(extension)) && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    fn dir(files: &[(&str, &str)]) -> TempDir {
        let dir = TempDir::new().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    const LIST: &str = r#"{"name":"net","cniVersion":"1.0.0","disableCheck":true,
        "plugins":[{"type":"ptp","mtu":1450},{"type":"bandwidth"}]}"#;
    const SINGLE: &str = r#"{"name":"one","cniVersion":"0.3.1","type":"bridge","bridge":"cni0"}"#;

    #[test]
    fn the_first_list_is_preferred_to_any_single_configuration() {
        let dir = dir(&[("10-a.conf", SINGLE), ("30-b.conflist", LIST), ("20-a.conflist", LIST)]);
        let found = Network::discover(dir.path()).unwrap();
        assert_eq!(found.path, dir.path().join("20-a.conflist"));
        assert_eq!(found.ignored, [dir.path().join("30-b.conflist")]);
        let kinds: Vec<_> = found.network.plugins().iter().map(|p| p.kind.as_str()).collect();
        assert_eq!(kinds, ["ptp", "bandwidth"]);
    }

    #[test]
    fn a_single_configuration_becomes_a_list_of_one() {
        let dir = dir(&[("10-a.conf", SINGLE), ("readme.txt", "")]);
        let network = Network::discover(dir.path()).unwrap().network;
        assert_eq!((network.name(), network.version().to_string()), ("one", "0.3.1".to_owned()));
        assert_eq!(network.plugins()[0].section["bridge"], "cni0");
    }

    #[test]
    fn nothing_usable_is_an_error_that_names_the_place() {
        let empty = dir(&[]);
        assert!(matches!(Network::discover(empty.path()), Err(NetworkError::None(_))));
        let torn = dir(&[("a.conflist", "{\"name\"")]);
        assert!(matches!(Network::discover(torn.path()), Err(NetworkError::Decode { .. })));
    }

    #[test]
    fn faulty_networks_are_refused() {
        let refused = |text| Network::from_value(serde_json::from_str(text).unwrap()).unwrap_err();
        assert_eq!(refused(r#"{"plugins":[{"type":"ptp"}]}"#), FaultyNetwork::Key("name"));
        assert_eq!(refused(r#"{"name":"n"}"#), FaultyNetwork::Key("plugins"));
        assert_eq!(refused(r#"{"name":"n","plugins":[]}"#), FaultyNetwork::NoPlugins);
        assert_eq!(
            refused(r#"{"name":"n","plugins":[{"type":"ptp"},{"type":"../sh"}]}"#),
            FaultyNetwork::Type(1)
        );
        assert_eq!(
            refused(r#"{"name":"n","cniVersion":"9.0.0","type":"x"}"#),
            FaultyNetwork::Version(UnknownVersion("9.0.0".to_owned()))
        );
    }

    #[test]
    fn what_the_wrapper_stands_around_is_in_its_place() {
        let text = r#"{"name":"cni-wrapper","cniVersion":"1.0.0","plugins":[
            {"type":"cni-wrapper-plugin","datastore":"/s","deny_networks":{"always":["10.0.0.0/8"]},
             "delegate":{"type":"silk-cni","mtu":1400,"ipMasq":false}},
            {"type":"bandwidth"}]}"#;
        let network = Network::from_value(serde_json::from_str(text).unwrap()).unwrap();
        let kinds: Vec<_> = network.plugins().iter().map(|p| p.kind.as_str()).collect();
        assert_eq!(kinds, ["silk-cni", "bandwidth"]);
        assert_eq!(network.plugins()[0].section["mtu"], 1400);
        assert_eq!(network.wrapper()["datastore"], "/s");
        assert!(!network.to_value().to_string().contains("datastore"));
        let single = r#"{"name":"n","type":"cni-wrapper-plugin","delegate":{"type":"flannel"}}"#;
        let network = Network::from_value(serde_json::from_str(single).unwrap()).unwrap();
        assert_eq!(network.plugins()[0].kind, "flannel");
        for without in ["", r#","delegate":7"#, r#","delegate":{"type":"cni-wrapper-plugin"}"#] {
            let text = format!(r#"{{"name":"n","type":"cni-wrapper-plugin"{without}}}"#);
            let refused = Network::from_value(serde_json::from_str(&text).unwrap());
            assert_eq!(refused, Err(FaultyNetwork::Delegate(0)), "{without}");
        }
    }

    #[test]
    fn a_network_is_read_from_what_it_prints() {
        let network = Network::from_value(serde_json::from_str(LIST).unwrap()).unwrap();
        assert_eq!(Network::from_value(network.to_value()), Ok(network));
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("x.conflist");
            fs::write(&path, bytes).unwrap();
            let _ = Network::load(&path);
        }
    }
}
