use std::{fs, os::unix::fs::PermissionsExt};

use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;

/// Plugins that write down what they are told, each call in a file of its own: `<n>-<kind>-<command>`.
const RECORDER: &str = r#"#!/bin/sh
kind=${0##*/}
n=$(ls "$CNI_PATH/../calls" | wc -l)
{ env | grep ^CNI_ | sort; cat; } > "$CNI_PATH/../calls/$n-$kind-$CNI_COMMAND"
if [ -e "$CNI_PATH/../fail-$kind-$CNI_COMMAND" ]; then
  echo '{"code":100,"msg":"told to fail"}'; exit 1
fi
[ $CNI_COMMAND = DEL ] || echo '{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/24"}],"by":"'$kind'"}'
"#;

struct World {
    dir: TempDir,
    runtime: Runtime,
    target: Target,
}

impl World {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let plugin_dir = dir.path().join("bin");
        fs::create_dir(&plugin_dir).unwrap();
        fs::create_dir(dir.path().join("calls")).unwrap();
        for kind in ["first", "second"] {
            let path = plugin_dir.join(kind);
            fs::write(&path, RECORDER).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let cache_dir = dir.path().join("cache");
        let runtime = Runtime { plugin_dir, cache_dir, limit: Duration::from_secs(30) };
        Self { dir, runtime, target: Target::new("web", "eth0").unwrap() }
    }

    fn fail(&self, what: &str) {
        fs::write(self.dir.path().join(format!("fail-{what}")), "").unwrap();
    }

    fn add(&self) -> Result<Attachment, AddError> {
        let extra = json!({"metadata": {"app_id": "a"}});
        let netns = Path::new("/netns/web");
        self.runtime.add(&network("1.0.0"), &self.target, netns, extra.as_object().unwrap())
    }

    fn del(&self) -> Result<(), Vec<DelError>> {
        self.runtime.del(None, &self.target, Some(Path::new("/netns/web")))
    }

    /// Names of the calls so far, in order.
    fn calls(&self) -> Vec<String> {
        let files = fs::read_dir(self.dir.path().join("calls")).unwrap();
        let mut names: Vec<_> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The variables and the input of one call.
    fn call(&self, name: &str) -> (String, Value) {
        let text = fs::read_to_string(self.dir.path().join("calls").join(name)).unwrap();
        let (variables, input) = text.split_at(text.find('{').unwrap());
        (variables.to_owned(), serde_json::from_str(input).unwrap())
    }
}

fn network(version: &str) -> Network {
    let plugins = json!([{"type": "first", "mtu": 1450}, {"type": "second"}]);
    Network::from_value(json!({"name": "net", "cniVersion": version, "plugins": plugins})).unwrap()
}

#[test]
fn each_plugin_is_told_its_section_the_extras_and_the_result_before_it() {
    let world = World::new();
    let attachment = world.add().unwrap();
    assert_eq!(attachment.raw()["by"], "second");
    assert_eq!(world.calls(), ["0-first-ADD", "1-second-ADD"]);

    let (variables, input) = world.call("0-first-ADD");
    let plugin_dir = world.runtime.plugin_dir.display();
    assert_eq!(
        variables,
        format!(
            "CNI_ARGS=\nCNI_COMMAND=ADD\nCNI_CONTAINERID=web\nCNI_IFNAME=eth0\n\
             CNI_NETNS=/netns/web\nCNI_PATH={plugin_dir}\n"
        )
    );
    assert_eq!(
        input,
        json!({"name": "net", "cniVersion": "1.0.0", "type": "first", "mtu": 1450,
               "metadata": {"app_id": "a"}})
    );
    let (_, input) = world.call("1-second-ADD");
    assert_eq!(input["prevResult"]["by"], "first");
    assert_eq!(input["metadata"], json!({"app_id": "a"}));
}

#[test]
fn taking_down_runs_backwards_with_the_result_and_without_the_extras() {
    let world = World::new();
    world.add().unwrap();
    world.del().unwrap();
    assert_eq!(world.calls()[2..], ["2-second-DEL", "3-first-DEL"]);
    let (_, input) = world.call("3-first-DEL");
    assert_eq!(input["prevResult"]["by"], "second");
    assert_eq!(input.get("metadata"), None);

    assert!(!world.runtime.remembers(&world.target));
    world.del().unwrap();
    assert_eq!(world.calls().len(), 4, "nothing is remembered, nothing is known of today");
}

#[test]
fn after_a_failure_half_way_what_was_done_can_be_taken_down() {
    let world = World::new();
    world.fail("second-ADD");
    let error = world.add().unwrap_err();
    assert_eq!(error.to_string(), "CNI plugin \"second\" failed to ADD");
    world.del().unwrap();
    assert_eq!(world.calls()[2..], ["2-second-DEL", "3-first-DEL"]);
    assert_eq!(world.call("3-first-DEL").1["prevResult"]["by"], "first");
}

#[test]
fn a_plugin_that_fails_to_take_down_holds_up_no_other_and_is_tried_again() {
    let world = World::new();
    world.add().unwrap();
    world.fail("second-DEL");
    assert_eq!(world.del().unwrap_err().len(), 1);
    assert_eq!(world.del().unwrap_err().len(), 1);
    assert_eq!(world.calls().len(), 6);
    assert!(world.runtime.remembers(&world.target));
}

#[test]
fn without_memory_the_network_of_the_day_is_assumed() {
    let world = World::new();
    world.runtime.del(Some(&network("0.3.1")), &world.target, None).unwrap();
    let (variables, input) = world.call("0-second-DEL");
    assert!(variables.contains("CNI_NETNS=\n"));
    assert_eq!(input.get("prevResult"), None);
}

#[test]
fn a_missing_plugin_is_found_missing_before_anything_runs() {
    let world = World::new();
    world.runtime.check(&network("1.0.0")).unwrap();
    fs::remove_file(world.runtime.plugin_dir.join("second")).unwrap();
    let error = world.runtime.check(&network("1.0.0")).unwrap_err();
    assert!(matches!(error, PluginError::NotFound { kind, .. } if kind == "second"));
}

#[test]
fn names_cni_does_not_allow_are_refused() {
    for container in ["", "-web", "../web", "we b", "wéb", "a/b"] {
        assert!(Target::new(container, "eth0").is_err(), "{container:?}");
    }
    for interface in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-letters-"] {
        assert!(Target::new("web", interface).is_err(), "{interface:?}");
    }
}

proptest! {
    #[test]
    fn a_name_that_is_accepted_is_one_file_name(container in ".*", interface in ".*") {
        if Target::new(&container, &interface).is_ok() {
            let path = Path::new("/cache").join(format!("{container}-{interface}.json"));
            prop_assert_eq!(path.parent(), Some(Path::new("/cache")));
        }
    }
}
