//! The rules as the existing agent writes them (spec/cell.md §D.3): one after the other in one chain,
//! which every packet walks through.

use std::{fmt::Write as _, io::Write as _, process::Stdio};

use anyhow::{Context, Result, ensure};

use super::{
    cell::Cell,
    shape::{CLIENT, PORT, Shape},
};

/// Replaces the rules of `cell` by those of `shape`.
pub(super) fn write(cell: &Cell, shape: Shape) -> Result<()> {
    let mut restore = cell.host.command("iptables-nft-restore");
    let mut child = restore.stdin(Stdio::piped()).spawn().context("running iptables-restore")?;
    let mut input = child.stdin.take().context("iptables-restore does not listen")?;
    input.write_all(rules(shape).as_bytes())?;
    drop(input);
    ensure!(child.wait()?.success(), "iptables-restore refuses the baseline");
    Ok(())
}

fn rules(shape: Shape) -> String {
    let mut text = format!(
        "*filter\n:FORWARD ACCEPT\n:linear -\n-A FORWARD -j linear\n\
         -A linear -s {CLIENT}/32 -j MARK --set-xmark {:#x}\n",
        shape.mark()
    );
    for (mark, address) in shape.pairs() {
        writeln!(
            text,
            "-A linear -d {address}/32 -p tcp -m tcp --dport {PORT} -m mark --mark {mark:#x} -j ACCEPT"
        )
        .expect("a text takes any more");
    }
    text.push_str(
        "-A linear -d 10.255.30.0/24 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A linear -d 10.255.30.0/24 -j REJECT\nCOMMIT\n",
    );
    text
}
