//! What shells are told to complete.

use std::process::Command;

use crate::run;

#[test]
fn completions_need_no_server_and_no_token() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(&format!("completions {shell}"), &[]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        assert!(ran.stdout.contains("add-policy"), "{shell}");
    }
}

/// What bash offers for the last of `words`, after it has read the script.
fn offered(words: &[&str]) -> Vec<String> {
    let program = env!("CARGO_BIN_EXE_network-policy");
    let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
    let line = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    // As bash itself does at a press of the key, with the function it was told of.
    let press = format!(
        "source <('{program}' completions bash)
         words=\"$(complete -p network-policy)\"; words=\"${{words##*-F }}\"; complete=\"${{words%% *}}\"
         COMP_WORDS=({line}); COMP_CWORD={}
         \"$complete\" network-policy '{last}' '{before}'
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.len() - 1
    );
    let output = Command::new("bash").args(["--norc", "-c", &press]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_protocols() {
    assert_eq!(offered(&["network-policy", "a"]), ["add-policy", "audit"]);
    for command in ["add-policy", "remove-policy"] {
        assert_eq!(offered(&["network-policy", command, "--pro"]), ["--protocol"]);
        assert_eq!(offered(&["network-policy", command, "--protocol", ""]), ["tcp", "udp"]);
        assert_eq!(offered(&["network-policy", command, "--protocol", "u"]), ["udp"]);
    }
    let after = ["network-policy", "--json", "add-policy", "web", "db", "--wa"];
    assert_eq!(offered(&after), ["--wait"]);
    assert_eq!(offered(&["network-policy", "audit", "--pro"]), [""], "it is not one of its");
}
