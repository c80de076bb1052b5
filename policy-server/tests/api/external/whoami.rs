use super::WHOAMI;
use crate::world::World;

#[tokio::test]
async fn whoami_names_the_subject_in_both_versions() {
    let world = World::start().await;
    for path in [WHOAMI, "/networking/v0/external/whoami"] {
        let answer = world.get(path).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, r#"{"subject":"alice"}"#));
    }
}
