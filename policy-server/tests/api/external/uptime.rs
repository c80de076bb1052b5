use reqwest::Method;

use crate::world::World;

#[tokio::test]
async fn anyone_may_ask_whether_it_is_up() {
    let world = World::start().await;
    for path in ["/", "/networking"] {
        let answer = world.anonymous(Method::GET, path).await;
        assert_eq!(answer.status, 200);
        let up = answer.text.strip_prefix("Network policy server, up for ").unwrap();
        assert!(up.ends_with("s\n"), "{up:?}");
    }
}

#[tokio::test]
async fn health_is_an_empty_answer() {
    let world = World::start().await;
    let health = world.anonymous(Method::GET, "/health").await;
    assert_eq!((health.status, health.text.as_str()), (200, ""));
}
