//! Cloud Controller: knows apps, spaces, their developers, and security groups
//! (spec/policy-server.md §3.4, §3.5, §7, §14.1).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::stage::{Answer, Stage, lock};
pub use crate::stage::{Asked, Trouble};

/// What nobody is asked for here (RFC 2324).
const TEAPOT: u16 = 418;

/// The most a page of version 2 holds.
const PAGE: usize = 100;

/// A Cloud Controller on loopback. Ends when dropped.
pub struct CloudController {
    stage: Stage,
    state: Arc<Mutex<State>>,
}

struct State {
    token: String,
    /// Each app's space.
    apps: BTreeMap<String, String>,
    /// Each space's name and organization.
    spaces: BTreeMap<String, (String, String)>,
    /// Who is a developer of which space: user, space.
    developers: BTreeSet<(String, String)>,
    security_groups: Vec<Value>,
    last_update: Option<String>,
    /// The most a page holds, where pages are followed.
    page: usize,
    /// Answers given whatever is asked, by path.
    instead: HashMap<String, (u16, String)>,
}

impl CloudController {
    /// Starts it. It knows nothing yet, and wants the token UAA gives other parts.
    ///
    /// # Panics
    /// If loopback has no port left.
    pub async fn start() -> Self {
        let state = Arc::new(Mutex::new(State {
            token: crate::uaa::SERVER_TOKEN.to_owned(),
            apps: BTreeMap::new(),
            spaces: BTreeMap::new(),
            developers: BTreeSet::new(),
            security_groups: Vec::new(),
            last_update: Some("2024-10-24T16:13:44Z".to_owned()),
            page: PAGE,
            instead: HashMap::new(),
        }));
        let told = state.clone();
        let stage = Stage::start(move |asked| lock(&told).answer(asked)).await;
        Self { stage, state }
    }

    /// Scheme, host and port.
    pub fn url(&self) -> String {
        self.stage.url()
    }

    /// From now on there is this space, called `<guid>-name` in `<guid>-org`, with these apps.
    pub fn has_space(&self, space: &str, apps: &[&str]) {
        let mut state = lock(&self.state);
        state.spaces.insert(space.to_owned(), (format!("{space}-name"), format!("{space}-org")));
        state.apps.extend(apps.iter().map(|app| ((*app).to_owned(), space.to_owned())));
    }

    /// From now on `user` develops in `space`.
    pub fn has_developer(&self, user: &str, space: &str) {
        lock(&self.state).developers.insert((user.to_owned(), space.to_owned()));
    }

    /// `app` is deleted.
    pub fn loses_app(&self, app: &str) {
        lock(&self.state).apps.remove(app);
    }

    /// `space` is deleted, but not the apps that were in it.
    pub fn loses_space(&self, space: &str) {
        lock(&self.state).spaces.remove(space);
    }

    /// The security groups, as of this moment; `None` from one that is too old to tell when.
    pub fn has_security_groups(&self, groups: Vec<Value>, last_update: Option<&str>) {
        let mut state = lock(&self.state);
        state.security_groups = groups;
        state.last_update = last_update.map(str::to_owned);
    }

    /// Wants this token from now on.
    pub fn wants(&self, token: &str) {
        token.clone_into(&mut lock(&self.state).token);
    }

    /// Puts no more than this on a page of those that are followed.
    pub fn pages_hold(&self, most: usize) {
        lock(&self.state).page = most;
    }

    /// Answers this to whoever asks for `path`, whatever else is in the request.
    pub fn answers(&self, path: &str, status: u16, body: &str) {
        lock(&self.state).instead.insert(path.to_owned(), (status, body.to_owned()));
    }

    /// Answers truthfully again.
    pub fn answers_truly(&self) {
        lock(&self.state).instead.clear();
    }

    /// What it was asked so far, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.stage.asked()
    }

    /// Paths and queries it was asked for so far, in order.
    pub fn targets(&self) -> Vec<String> {
        self.asked().iter().map(Asked::target).collect()
    }

    /// Forgets what it was asked.
    pub fn forgets(&self) {
        self.stage.forget();
    }

    /// Fails like this until told otherwise.
    pub fn trouble(&self, trouble: impl Into<Option<Trouble>>) {
        self.stage.trouble(trouble);
    }

    /// Fails like this when asked the next times.
    pub fn trouble_for(&self, trouble: Trouble, requests: usize) {
        self.stage.trouble_for(trouble, requests);
    }

    /// Closes its listener and all connections.
    pub async fn leaves(&mut self) {
        self.stage.leave().await;
    }

    /// Listens again where it listened before.
    pub async fn comes_back(&mut self) {
        self.stage.come_back().await;
    }
}

impl State {
    fn answer(&self, asked: &Asked) -> Answer {
        if asked.authorization != format!("bearer {}", self.token) {
            return Answer(401, r#"{"errors":[{"title":"CF-InvalidAuthToken"}]}"#.to_owned());
        }
        if let Some((status, body)) = self.instead.get(&asked.path) {
            return Answer(*status, body.clone());
        }
        let segments: Vec<_> = asked.path.split('/').skip(1).collect();
        match (asked.method.as_str(), segments.as_slice()) {
            ("GET", ["v3", "apps"]) => self.apps(asked),
            ("GET", ["v3", "spaces", guid]) => self.space_v3(guid),
            ("GET", ["v3", "roles"]) => self.roles(asked),
            ("GET", ["v3", "security_groups"]) => self.security_groups(asked),
            ("GET", ["v2", "spaces"]) => self.spaces_v2(asked),
            ("GET", ["v2", "spaces", guid]) => self.space_v2(guid),
            ("GET", ["v2", "users", guid, "spaces"]) => self.spaces_of(asked, guid),
            ("GET", ["internal", "v4", "asg_latest_update"]) => match &self.last_update {
                Some(at) => Answer::json(json!({ "last_update": at })),
                None => Answer(404, String::new()),
            },
            _ => Answer(TEAPOT, String::new()),
        }
    }

    fn apps(&self, asked: &Asked) -> Answer {
        let apps = self.apps.iter().filter(|(guid, _)| asked.lists("guids", guid));
        let app = |(guid, space): (&String, &String)| {
            let href = format!("https://api.test/v2/spaces/{space}");
            json!({"guid": guid, "name": guid, "links": {"space": {"href": href}}})
        };
        v3_page(apps.map(app).collect(), asked, usize::MAX)
    }

    fn space_v3(&self, guid: &str) -> Answer {
        match self.spaces.get(guid) {
            Some((name, _)) => Answer::json(json!({"guid": guid, "name": name})),
            None => Answer(404, String::new()),
        }
    }

    fn roles(&self, asked: &Asked) -> Answer {
        if asked.value("types").as_deref() != Some("space_developer") {
            return Answer(422, String::new());
        }
        let wanted = self.developers.iter().filter(|(user, space)| {
            asked.lists("user_guids", user)
                && (asked.value("space_guids").is_none() || asked.lists("space_guids", space))
                && self.spaces.contains_key(space)
        });
        let role = |(user, space): &(String, String)| {
            json!({"type": "space_developer", "relationships": {
                "user": {"data": {"guid": user}}, "space": {"data": {"guid": space}},
                "organization": {"data": null}}})
        };
        v3_page(wanted.map(role).collect(), asked, self.page)
    }

    fn security_groups(&self, asked: &Asked) -> Answer {
        v3_page(self.security_groups.clone(), asked, self.page)
    }

    fn space_v2(&self, guid: &str) -> Answer {
        match self.spaces.get(guid) {
            Some((name, org)) => Answer::json(json!({
                "metadata": {"guid": guid},
                "entity": {"name": name, "organization_guid": org},
            })),
            None => Answer(404, String::new()),
        }
    }

    fn spaces_v2(&self, asked: &Asked) -> Answer {
        let filters = asked.values("q");
        let wanted = |key: &str| {
            let prefix = format!("{key}:");
            filters.iter().find_map(|filter| filter.strip_prefix(&prefix)).unwrap_or_default()
        };
        let found = self.spaces.iter().filter(|(guid, (name, org))| {
            name == wanted("name")
                && org == wanted("organization_guid")
                && self.develops(wanted("developer_guid"), guid)
        });
        let resources: Vec<_> = found.map(|(guid, _)| v2_space(guid)).collect();
        Answer::json(json!({"total_results": resources.len(), "total_pages": 1,
                            "next_url": null, "resources": resources}))
    }

    fn spaces_of(&self, asked: &Asked, user: &str) -> Answer {
        let all: Vec<_> = self.spaces.keys().filter(|space| self.develops(user, space)).collect();
        let most = number(asked, "results-per-page").unwrap_or(50).min(self.page);
        let page = number(asked, "page").unwrap_or(1);
        let resources: Vec<_> =
            all.iter().skip((page - 1) * most).take(most).map(|guid| v2_space(guid)).collect();
        let next = (page * most < all.len()).then(|| {
            format!("{}?order-direction=asc&page={}&results-per-page={most}", asked.path, page + 1)
        });
        Answer::json(json!({"total_results": all.len(), "next_url": next, "resources": resources}))
    }

    fn develops(&self, user: &str, space: &str) -> bool {
        self.developers.contains(&(user.to_owned(), space.to_owned()))
    }
}

impl Asked {
    /// Whether parameter `name` is a list with `guid` in it.
    fn lists(&self, name: &str, guid: &str) -> bool {
        self.value(name).is_some_and(|list| list.split(',').any(|listed| listed == guid))
    }
}

fn v2_space(guid: &str) -> Value {
    json!({"metadata": {"guid": guid}, "entity": {"name": format!("{guid}-name")}})
}

/// The page that is asked for, which holds at most what is asked for, and at most `most`.
fn v3_page(all: Vec<Value>, asked: &Asked, most: usize) -> Answer {
    let per_page = number(asked, "per_page").unwrap_or(50);
    if !(1..=5000).contains(&per_page) {
        return Answer(400, String::new());
    }
    let most = per_page.min(most);
    let page = number(asked, "page").unwrap_or(1);
    let pages = all.len().div_ceil(most).max(1);
    let next = (page < pages).then(|| {
        // What the outside calls it, which need not be what this server was called.
        json!({"href": format!("https://api.test{}?page={}", asked.path, page + 1)})
    });
    let total = all.len();
    let resources: Vec<_> = all.into_iter().skip((page - 1) * most).take(most).collect();
    Answer::json(json!({
        "pagination": {"total_results": total, "total_pages": pages, "next": next},
        "resources": resources,
    }))
}

fn number(asked: &Asked, name: &str) -> Option<usize> {
    asked.value(name)?.parse().ok()
}
