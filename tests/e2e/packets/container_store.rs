//! The container store is how a cell's programs know its containers. While it cannot be read, what the
//! kernel enforces stays.

use std::fs;

use anyhow::{Context, Result, ensure};
use testkit::world::Cell;
use testkit::{Spec, poll, story, tcp};

fn rules_stay(name: &str, harm: impl FnOnce(&Cell) -> Result<()>) {
    story(name, |world| {
        let (one, two) = (world.cell(1), world.cell(2));
        let web = one.start(Spec::app("web").tcp(8080))?;
        let other = one.start(Spec::app("other").tcp(8080))?;
        let db = two.start(Spec::app("db").tcp(5432).tcp(5433))?;
        world.allow(&web, &db, tcp(5432))?;
        let matrix = world.matrix([&web, &other, &db]).may(&web, &db, tcp(5432));
        matrix.hold()?;
        let held = web.connect(&db, 5432)?;
        let calls = web.keep_calling(&db, tcp(5432));

        let store = two.file("store.json");
        let whole = fs::read(&store).context("cannot read the store")?;
        harm(two)?;
        let passes = passes(two)?;
        poll::until("the agent has looked twice since", || {
            let now = self::passes(two)?;
            ensure!(now >= passes + 2, "pass {now}, was {passes}");
            Ok(())
        })?;
        matrix.sweep()?;

        fs::write(&store, whole).context("cannot mend the store")?;
        world.allow(&web, &db, tcp(5433))?;
        matrix.clone().may(&web, &db, tcp(5433)).hold()?;
        held.unharmed()?;
        calls.unharmed()?;
        Ok(())
    });
}

fn passes(cell: &Cell) -> Result<u64> {
    let status = cell.agent_status()?;
    status["enforcement"]["pass"].as_u64().with_context(|| format!("no pass in {status}"))
}

#[test]
fn a_truncated_store_changes_nothing() {
    rules_stay("a truncated store changes nothing", |cell| {
        let store = cell.file("store.json");
        let whole = fs::read(&store).context("cannot read the store")?;
        fs::write(&store, &whole[..whole.len() / 2]).context("cannot truncate the store")
    });
}

#[test]
fn a_store_that_is_gone_changes_nothing() {
    rules_stay("a store that is gone changes nothing", |cell| {
        fs::remove_file(cell.file("store.json")).context("cannot remove the store")
    });
}

#[test]
fn nothing_is_confirmed_while_containers_are_not_known() {
    story("nothing is confirmed while containers are not known", |world| {
        let cell = world.cell(2);
        let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
        let db = cell.start(Spec::app("db").tcp(5432).tcp(5433))?;
        world.allow(&web, &db, tcp(5432))?;
        let store = cell.file("store.json");
        let whole = fs::read(&store).context("cannot read the store")?;
        fs::write(&store, "{\"db\":").context("cannot spoil the store")?;
        let path = store.display().to_string();
        poll::until("the agent says which file", || {
            let status = cell.agent_status()?;
            let why = status["enforcement"]["containers_failure"].as_str().unwrap_or_default();
            ensure!(why.contains(&path), "{status}");
            ensure!(status["server_failure"].is_null(), "{status}");
            Ok(())
        })?;
        let policy = ["add-policy", web.app(), db.app(), "--protocol", "tcp", "--port", "5433"];
        let wait = |timeout| policy.into_iter().chain(["--wait", "--timeout", timeout]);
        let told = match world.server().run(wait("2")) {
            Err(told) => format!("{told:#}"),
            Ok(told) => anyhow::bail!("confirmed: {told}"),
        };
        ensure!(told.contains(&path), "{told}");
        fs::write(&store, whole).context("cannot mend the store")?;
        world.server().run(wait("20"))?;
        world.matrix([&web, &db]).may(&web, &db, tcp(5432)).may(&web, &db, tcp(5433)).hold()
    });
}

#[test]
fn a_new_container_does_not_cost_the_others_their_lost_entries() {
    story("a new container does not cost the others their lost entries", |world| {
        let (one, two) = (world.cell(1), world.cell(2));
        let web = one.start(Spec::app("web").tcp(8080))?;
        let db = two.start(Spec::app("db").tcp(5432))?;
        let batch = two.start(Spec::app("batch").tcp(9000))?;
        world.allow(&web, &db, tcp(5432))?;
        world.allow(&batch, &web, tcp(8080))?;
        for (from, to) in [("web", "late"), ("late", "db")] {
            let words = ["add-policy", from, to, "--protocol", "tcp", "--port", "5432", "--wait"];
            world.server().run(words)?;
        }
        // The cell's containers as destinations and as sources.
        let (to_db, from_batch) = (web.connect(&db, 5432)?, batch.connect(&web, 8080)?);
        let calls = [web.keep_calling(&db, tcp(5432)), batch.keep_calling(&web, tcp(8080))];

        fs::remove_file(two.file("store.json")).context("cannot remove the store")?;
        let late = two.start(Spec::app("late").tcp(5432))?;
        world
            .matrix([&web, &db, &batch, &late])
            .may(&web, &db, tcp(5432))
            .may(&batch, &web, tcp(8080))
            .may(&web, &late, tcp(5432))
            .may(&late, &db, tcp(5432))
            .sweep()?;
        for held in [to_db, from_batch].into_iter().chain(calls) {
            held.unharmed()?;
        }
        Ok(())
    });
}

#[test]
fn a_store_that_is_lost_or_damaged_is_written_anew_by_the_networker() {
    story("a store that is lost or damaged is written anew by the networker", |world| {
        let (one, two) = (world.cell(1), world.cell(2));
        let web = one.start(Spec::app("web").tcp(8080))?;
        let db = two.start(Spec::app("db").tcp(5432))?;
        world.allow(&web, &db, tcp(5432))?;
        let store = two.file("store.json");
        let read = || -> Result<serde_json::Value> {
            Ok(serde_json::from_slice(&fs::read(&store).context("cannot read the store")?)?)
        };
        let calling = web.keep_calling(&db, tcp(5432));
        let before = read()?;
        let restore = || -> Result<serde_json::Value> {
            let output = two.networker("restore-store", "")?.output()?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Ok(serde_json::from_slice(&output.stdout)?)
        };
        let restored = |how: &str| {
            let answer = restore()?;
            ensure!(answer["restored"] == serde_json::json!([db.name()]), "{how}: {answer}");
            ensure!(read()? == before, "{how}: it is another");
            poll::until(&format!("the agent knows its containers: {how}"), || {
                let status = two.agent_status()?["enforcement"].take();
                ensure!(status["containers_failure"].is_null(), "{status}");
                ensure!(status["held"].is_null() && status["pass"] != 0, "{status}");
                Ok(())
            })
        };
        ensure!(restore()?["restored"] == serde_json::json!([]), "it was whole");
        fs::write(&store, "{\"db\":").context("cannot spoil the store")?;
        restored("spoilt")?;
        fs::write(&store, "").context("cannot empty the store")?;
        restored("emptied")?;
        let record = two.file("containers").join("db.json");
        let whole = fs::read(&record).context("cannot read the record")?;
        fs::write(&record, "{").context("cannot spoil the record")?;
        fs::write(&store, "").context("cannot empty the store")?;
        let told = restore().expect_err("a container without a record would be shut").to_string();
        ensure!(told.contains("addresses of db"), "{told}");
        ensure!(fs::read(&store)?.is_empty(), "the store was written");
        fs::write(&record, whole).context("cannot mend the record")?;
        restored("once the record was whole")?;
        two.agent().kill()?;
        fs::remove_file(&store).context("cannot remove the store")?;
        two.agent().start()?;
        poll::until("the agent says what is gone", || {
            let status = two.agent_status()?["enforcement"].take();
            let why = status["containers_failure"].as_str().unwrap_or_default();
            ensure!(why.contains("restore-store"), "{status}");
            Ok(())
        })?;
        restored("gone while no agent ran")?;
        world.matrix([&web, &db]).may(&web, &db, tcp(5432)).sweep()?;
        calling.unharmed().map(drop)
    });
}

#[test]
fn one_bad_entry_hides_no_other() {
    rules_stay("one bad entry hides no other", |cell| {
        let store = cell.file("store.json");
        let text = fs::read_to_string(&store).context("cannot read the store")?;
        let mut all: serde_json::Value = serde_json::from_str(&text)?;
        all["bad"] = serde_json::json!({"handle": "bad", "ip": "not an address", "metadata": 7});
        fs::write(&store, all.to_string()).context("cannot spoil the store")
    });
}
