//! What `nft -j` lists, as far as it matters here. Pure.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::Ipv4Net;
use serde::Deserialize;
use serde_json::Value;

/// Chains and rules. What else there is, in this release of nft or the next, is passed over.
#[derive(Debug, Default)]
pub(super) struct Listing {
    chains: Vec<BaseChain>,
    rules: Vec<Rule>,
}

/// A chain, which packets come to by themselves if it is at a hook.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct BaseChain {
    pub family: String,
    pub table: String,
    pub name: String,
    hook: Option<String>,
    /// What becomes of packets no rule decides about; they are accepted where nothing is said.
    policy: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    chain: String,
    #[serde(default)]
    expr: Vec<Value>,
}

/// Which of a packet's addresses is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    From,
    To,
}

impl Listing {
    pub fn read(text: &str) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Whole {
            nftables: Vec<Value>,
        }
        let whole: Whole = serde_json::from_str(text)?;
        let mut all = Self::default();
        for item in whole.nftables {
            if let Some(chain) = item.get("chain") {
                all.chains.push(BaseChain::deserialize(chain)?);
            } else if let Some(rule) = item.get("rule") {
                all.rules.push(Rule::deserialize(rule)?);
            }
        }
        Ok(all)
    }

    pub fn base_chains(&self, hook: &str) -> impl Iterator<Item = BaseChain> {
        let at_hook = self.chains.iter().filter(move |chain| chain.hook.as_deref() == Some(hook));
        at_hook.cloned()
    }

    /// Whether a rule of the chain, or of one it leads everything to, accepts all packets with this side in
    /// `block`. A rule that asks anything else, such as an interface, or that is not understood, does not.
    pub fn accepts(&self, chain: &str, side: Side, block: Ipv4Net) -> bool {
        let mut known = BTreeSet::from([chain]);
        let mut ahead = vec![chain];
        while let Some(chain) = ahead.pop() {
            for rule in self.rules.iter().filter(|rule| rule.chain == chain) {
                match rule.fate(side, block) {
                    Fate::Accepted => return true,
                    Fate::Led(target) if known.insert(target) => ahead.push(target),
                    Fate::Led(_) | Fate::Unknown => {}
                }
            }
        }
        false
    }
}

impl BaseChain {
    pub fn is(&self, family: &str, table: &str) -> bool {
        self.family == family && self.table == table
    }

    /// Whether it is what iptables calls FORWARD.
    pub fn is_of_iptables(&self) -> bool {
        self.is("ip", "filter") && self.name == "FORWARD"
    }

    pub fn sees_ipv4(&self) -> bool {
        matches!(self.family.as_str(), "ip" | "inet")
    }

    pub fn drops(&self) -> bool {
        self.policy.as_deref() == Some("drop")
    }
}

/// What a rule does to all packets asked about.
enum Fate<'a> {
    Accepted,
    Led(&'a str),
    /// Something else, or not to all of them.
    Unknown,
}

impl Rule {
    fn fate(&self, side: Side, block: Ipv4Net) -> Fate<'_> {
        for part in &self.expr {
            let Some((what, details)) = part.as_object().and_then(|object| object.iter().next())
            else {
                return Fate::Unknown;
            };
            match what.as_str() {
                "counter" | "log" => {}
                "xt" if details.get("name").is_some_and(|name| name == "comment") => {}
                "match" if side.holds(details, block) => {}
                "accept" => return Fate::Accepted,
                "jump" | "goto" => {
                    let target = details.get("target").and_then(Value::as_str);
                    return target.map_or(Fate::Unknown, Fate::Led);
                }
                _ => return Fate::Unknown,
            }
        }
        Fate::Unknown
    }
}

impl Side {
    pub fn in_nft(self) -> &'static str {
        match self {
            Self::From => "saddr",
            Self::To => "daddr",
        }
    }

    pub fn in_iptables(self) -> &'static str {
        match self {
            Self::From => "-s",
            Self::To => "-d",
        }
    }

    /// Whether it is true of every packet with this side in `block`.
    fn holds(self, condition: &Value, block: Ipv4Net) -> bool {
        let payload = &condition["left"]["payload"];
        condition["op"] == "=="
            && payload["protocol"] == "ip"
            && payload["field"] == self.in_nft()
            && covers(&condition["right"], block)
    }
}

/// Whether what is compared with, an address, a network or a set of them written down there, has all of
/// `block`.
fn covers(right: &Value, block: Ipv4Net) -> bool {
    if let Some(members) = right.get("set").and_then(Value::as_array) {
        return members.iter().any(|member| covers(member, block));
    }
    network(right).is_some_and(|network| network.contains(&block))
}

fn network(value: &Value) -> Option<Ipv4Net> {
    let prefix = match value.get("prefix") {
        Some(prefix) => u8::try_from(prefix["len"].as_u64()?).ok()?,
        None => 32,
    };
    let address = value.get("prefix").map_or(value, |prefix| &prefix["addr"]);
    let address: Ipv4Addr = address.as_str()?.parse().ok()?;
    Ipv4Net::new(address, prefix).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FROM: &str = r#"{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": {"prefix": {"addr": "10.255.0.0", "len": 16}}}}"#;
    const TO: &str = r#"{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": {"set": ["10.1.1.1", {"prefix": {"addr": "10.255.30.0", "len": 24}}]}}}"#;
    const LINK: &str =
        r#"{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}}"#;
    const COUNTER: &str = r#"{"counter": {"packets": 0, "bytes": 0}}"#;
    const COMMENT: &str = r#"{"xt": {"type": "match", "name": "comment"}}"#;
    const ACCEPT: &str = r#"{"accept": null}"#;

    fn listing(rules: &[(&str, &[&str])]) -> Listing {
        let rules = rules.iter().map(|(chain, parts)| {
            let parts = parts.join(",");
            format!(r#"{{"rule": {{"family": "ip", "table": "filter", "chain": "{chain}", "expr": [{parts}]}}}}"#)
        });
        let rules: Vec<_> = rules.collect();
        Listing::read(&format!(r#"{{"nftables": [{}]}}"#, rules.join(","))).unwrap()
    }

    /// Whether what is from, and what is for a cell is accepted.
    fn accepted(rules: &[(&str, &[&str])]) -> [bool; 2] {
        let (listing, block) = (listing(rules), "10.255.30.0/24".parse().unwrap());
        [Side::From, Side::To].map(|side| listing.accepts("FORWARD", side, block))
    }

    #[test]
    fn a_block_is_accepted_by_what_covers_it_and_asks_nothing_else() {
        assert_eq!(accepted(&[]), [false, false]);
        assert_eq!(accepted(&[("FORWARD", &[FROM, COMMENT, COUNTER, ACCEPT])]), [true, false]);
        assert_eq!(accepted(&[("FORWARD", &[TO, ACCEPT])]), [false, true]);
        assert_eq!(accepted(&[("FORWARD", &[ACCEPT])]), [true, true]);
        assert_eq!(accepted(&[("FORWARD", &[FROM, LINK, ACCEPT])]), [false, false]);
        assert_eq!(accepted(&[("FORWARD", &[FROM, TO, ACCEPT])]), [false, false]);
        assert_eq!(accepted(&[("FORWARD", &[FROM, r#"{"drop": null}"#])]), [false, false]);
        let narrow = FROM.replace("16}", "25}");
        assert_eq!(accepted(&[("FORWARD", &[&narrow, ACCEPT])]), [false, false]);
        let other = FROM.replace("==", "!=");
        assert_eq!(accepted(&[("FORWARD", &[&other, ACCEPT])]), [false, false]);
    }

    #[test]
    fn chains_are_followed_once_each_where_all_is_led_there() {
        let jump = r#"{"jump": {"target": "DOCKER-USER"}}"#;
        let back = r#"{"jump": {"target": "FORWARD"}}"#;
        let user: (&str, &[&str]) = ("DOCKER-USER", &[FROM, ACCEPT]);
        let round: (&str, &[&str]) = ("DOCKER-USER", &[back]);
        assert_eq!(accepted(&[user]), [false, false]);
        assert_eq!(accepted(&[("FORWARD", &[COUNTER, jump]), round, user]), [true, false]);
        assert_eq!(accepted(&[("FORWARD", &[LINK, jump]), user]), [false, false]);
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        for text in ["", "{}", "[]", r#"{"nftables": {}}"#, r#"{"nftables": [{"chain": 7}]}"#] {
            assert!(Listing::read(text).is_err(), "{text}");
        }
        assert!(Listing::read(r#"{"nftables": [7, {}, {"novelty": {}}]}"#).is_ok());
    }

    const WORDS: &str = "chain rule expr match left right op == payload protocol ip field saddr prefix addr \
                         len set jump target accept 10.255.30.0 novelty";

    /// Any JSON, of words a listing is made of and others.
    fn json() -> impl Strategy<Value = Value> {
        let word = prop::sample::select(WORDS.split(' ').collect::<Vec<_>>());
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            word.clone().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((word.clone(), inner), 0..6).prop_map(|entries| {
                    let entries = entries.into_iter().map(|(key, value)| (key.to_owned(), value));
                    Value::Object(entries.collect())
                }),
            ]
        })
    }

    fn use_up(text: &str) {
        let Ok(listing) = Listing::read(text) else { return };
        let block = "10.255.30.0/24".parse().unwrap();
        listing.accepts("chain", Side::From, block);
        let _ = listing.base_chains("forward").filter(BaseChain::drops).count();
    }

    proptest! {
        #[test]
        fn any_json_is_read_or_refused(items in prop::collection::vec(json(), 0..4), expr in json()) {
            use_up(&serde_json::json!({ "nftables": items }).to_string());
            let rule = serde_json::json!({ "chain": "chain", "expr": [expr] });
            use_up(&serde_json::json!({ "nftables": [{ "rule": rule }] }).to_string());
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            use_up(&text);
        }
    }
}
