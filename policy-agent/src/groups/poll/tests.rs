use std::sync::{Arc, Mutex};

use policy::SecurityGroup;
use policy_client::internal::Nonsense;
use tokio::time::timeout;

use super::*;
use crate::groups::answer::tests::{answer, group};

const DEADLINE: Duration = Duration::from_secs(10);

/// What the server says to each question, in turn; then it holds its tongue.
type Script = Vec<Result<GroupsTold, ClientError>>;

/// A server that follows a script and shows what it was asked.
struct Scripted {
    script: Mutex<Script>,
    asked: mpsc::UnboundedSender<GroupsQuestion>,
}

impl Server for Arc<Scripted> {
    async fn groups(&self, question: &GroupsQuestion) -> Result<GroupsTold, ClientError> {
        self.asked.send(question.clone()).unwrap();
        let next = {
            let mut script = self.script.lock().unwrap();
            if script.is_empty() { None } else { Some(script.remove(0)) }
        };
        match next {
            Some(told) => told,
            None => std::future::pending().await,
        }
    }
}

/// A poller between a server and a cycle that the test plays.
struct Scene {
    asked: mpsc::UnboundedReceiver<GroupsQuestion>,
    wakes: mpsc::Receiver<Wake>,
    statuses: watch::Sender<Status>,
    reach: watch::Receiver<Reach>,
    shutdown: CancellationToken,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn spaces(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn told(groups: Vec<SecurityGroup>, version: &str) -> Result<GroupsTold, ClientError> {
    let answer = GroupsAnswer::Groups { groups, version: version.parse().ok() };
    Ok(GroupsTold { answer, wait: Some(Duration::from_secs(55)) })
}

fn nonsense() -> Result<GroupsTold, ClientError> {
    let (request, source) = ("GET groups".to_owned(), Nonsense::Missing("security_groups"));
    Err(ClientError::Nonsense { request, source })
}

impl Scene {
    /// On a cell with containers of space `a`.
    fn play(known: Option<Answer>, script: Script) -> Self {
        let (tell, asked) = mpsc::unbounded_channel();
        let server = Arc::new(Scripted { script: Mutex::new(script), asked: tell });
        let (wake, wakes) = mpsc::channel(8);
        let status = Status { pass: 1, spaces: spaces(&["a"]), ..Status::default() };
        let (statuses, watching) = watch::channel(status);
        let saved = Saved::beside(None);
        let interval = Duration::from_millis(20);
        let (poller, reach) = Poller::new(server, interval, known, saved, wake, watching);
        let shutdown = CancellationToken::new();
        tokio::spawn(poller.run(shutdown.clone()));
        Self { asked, wakes, statuses, reach, shutdown }
    }

    async fn question(&mut self) -> GroupsQuestion {
        timeout(DEADLINE, self.asked.recv()).await.expect("a question in time").unwrap()
    }

    async fn answer(&mut self) -> Answer {
        match timeout(DEADLINE, self.wakes.recv()).await.expect("an answer in time").unwrap() {
            Wake::Answer(answer) => {
                self.statuses.send_modify(|status| {
                    status.version = answer.version.clone();
                    status.enforces = true;
                });
                answer
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_first_question_of_a_life_claims_nothing_and_the_next_is_held() {
    let known = answer(&["a"], vec![group("10.0.0.1")]);
    let mut scene = Scene::play(Some(known.clone()), vec![told(vec![group("10.0.0.1")], "life.7")]);
    let first = scene.question().await;
    let claims_nothing = GroupsQuestion { spaces: spaces(&["a"]), ..GroupsQuestion::default() };
    assert_eq!(first, claims_nothing);
    assert_eq!(scene.answer().await, known, "it is told although it is not new: now it is certain");
    let second = scene.question().await;
    assert_eq!(second.known, "life.7".parse().ok());
    assert_eq!(second.wait, Some(follow::HOLD));
}

#[tokio::test]
async fn a_question_says_what_the_kernel_enforces_and_is_asked_anew_when_that_changes() {
    let mut scene = Scene::play(None, vec![told(vec![], "life.7")]);
    assert_eq!(scene.question().await.receipt, None, "nothing is known yet");
    scene.answer().await;
    let enforced = scene.question().await;
    assert_eq!(enforced.receipt, Some(ReceiptWords::default()));
    scene.statuses.send_modify(|status| (status.watches, status.enforces) = (true, false));
    let watched = scene.question().await;
    let watches = "shadow mode: what no security group allows is let through";
    let error = Some(watches.to_owned());
    assert_eq!(watched.receipt, Some(ReceiptWords { error, watches_only: true, backend: None }));
    assert_eq!((watched.known, watched.wait), (enforced.known, enforced.wait));
}

#[tokio::test]
async fn a_server_without_versions_is_asked_at_the_interval() {
    let answers = (0..3).map(|_| {
        let answer = GroupsAnswer::Groups { groups: vec![group("10.0.0.1")], version: None };
        Ok(GroupsTold { answer, wait: None })
    });
    let mut scene = Scene::play(None, answers.collect());
    for _ in 0..3 {
        assert_eq!(scene.question().await.wait, None);
        assert_eq!(scene.answer().await.version, None);
    }
}

#[tokio::test]
async fn containers_of_another_space_change_the_question_that_is_held() {
    let mut scene = Scene::play(None, vec![told(vec![], "life.7")]);
    scene.question().await;
    scene.answer().await;
    assert_eq!(scene.question().await.known, "life.7".parse().ok());
    scene.statuses.send_modify(|status| status.spaces = spaces(&["a", "b"]));
    let question = scene.question().await;
    let spaces = spaces(&["a", "b"]);
    assert_eq!(question, GroupsQuestion { spaces, ..GroupsQuestion::default() });
}

#[tokio::test]
async fn an_earlier_state_is_believed_when_it_is_told_for_the_third_time() {
    let older = || told(vec![group("10.0.0.1")], "life.5");
    let mut scene = Scene::play(None, vec![told(vec![], "life.7"), older(), older(), older()]);
    assert_eq!(scene.answer().await.version, "life.7".parse().ok());
    assert_eq!(scene.answer().await.version, "life.5".parse().ok());
    for _ in 0..4 {
        scene.question().await;
    }
    assert_eq!(scene.question().await.known, "life.5".parse().ok());
}

#[tokio::test]
async fn a_failure_is_told_and_changes_nothing() {
    let mut scene = Scene::play(None, vec![nonsense(), told(vec![], "life.7")]);
    let failed = |reach: &Reach| reach.failure.is_some();
    let reach = timeout(DEADLINE, scene.reach.wait_for(failed)).await.unwrap().unwrap().clone();
    assert_eq!(reach.spaces, spaces(&["a"]));
    assert_eq!(scene.answer().await.version, "life.7".parse().ok());
    let well = |reach: &Reach| reach.failure.is_none();
    timeout(DEADLINE, scene.reach.wait_for(well)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_answers_again_is_known_to_before_a_question_is_held() {
    let unchanged =
        Ok(GroupsTold { answer: GroupsAnswer::NotModified("life.7".parse().unwrap()), wait: None });
    let mut scene = Scene::play(None, vec![told(vec![], "life.7"), nonsense(), unchanged]);
    scene.answer().await;
    let mut waits = Vec::new();
    for _ in 0..4 {
        waits.push(scene.question().await.wait);
    }
    assert_eq!(waits, [None, Some(follow::HOLD), None, Some(follow::HOLD)]);
    assert_eq!(scene.reach.borrow().failure, None);
}

/// However seldom it is asked that does not hold questions.
#[test]
fn a_server_that_is_away_is_asked_as_often_as_for_policies() {
    let server =
        Arc::new(Scripted { script: Mutex::default(), asked: mpsc::unbounded_channel().0 });
    let (wake, _) = mpsc::channel(8);
    let (_, watching) = watch::channel(Status::default());
    let (minute, second) = (Duration::from_secs(60), Duration::from_secs(1));
    let (poller, _) = Poller::new(server, minute, None, Saved::beside(None), wake, watching);
    let mut poller = poller.patient_for(second);
    let pauses: Vec<_> = (0..20).map(|_| poller.pause_after_failure()).collect();
    assert!(pauses.iter().all(|pause| *pause <= second * 3 / 2), "{pauses:?}");
    assert!(pauses[19] >= second / 2, "{pauses:?}");
}
